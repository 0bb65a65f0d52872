"""The flow in words: a line for what happened, many of a kind in one line; the text beside the drawing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from caravan.times import iso

KEPT = 60
SAME_SECONDS = 120.0
"""Longest pause between two images of one upload."""

Tone = Literal["", "good", "bad"]


@dataclass(slots=True)
class Line:
    """One line: `at` is in seconds since 1970, of its last change."""

    id: str
    at: float
    edge: str
    kind: str
    text: str
    tone: Tone

    def as_json(self) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            "id": self.id,
            "at": iso(self.at),
            "edge": self.edge,
            "kind": self.kind,
            "text": self.text,
            "tone": self.tone,
        }


class EventLog:
    """The last lines of one edge, oldest first, and which of them have changed since they were last told."""

    def __init__(self, edge: str) -> None:
        self._edge = edge
        self._changed: dict[str, Line] = {}
        self.lines: deque[Line] = deque(maxlen=KEPT)

    def add(self, name: str, at: float, kind: str, text: str, tone: Tone = "") -> Line:
        """Add a line; its name is that of the message it came of, so that each start gives it the same."""
        line = Line(name, at, self._edge, kind, text, tone)
        self.lines.append(line)
        self._changed[line.id] = line
        self._bound()
        return line

    def change(self, line: Line, at: float, text: str) -> None:
        """Say a line anew."""
        line.at, line.text = at, text
        self._changed[line.id] = line
        self._bound()

    def changes(self) -> list[Line]:
        """Return the lines that are new or changed since the last call."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def _bound(self) -> None:
        while len(self._changed) > KEPT:
            del self._changed[next(iter(self._changed))]
