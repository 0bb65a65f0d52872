"""What a route says of itself: its id, where its messages come from, and what must be done with each."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from caravan import telemetry


@dataclass(frozen=True, slots=True)
class Route:
    """A route, declared once: its exchanges, its settings and its line in the README are made from this.

    Attributes:
        id: in kebab case; it names the route in logs, metrics, traces and `/readyz`.
        source: source of its messages, in Markdown.
        mandatory: effects without which a message fails, in Markdown.
        best_effort: effects that may fail without failing the message; empty for none.

    """

    id: str
    source: str
    mandatory: str
    best_effort: str = ""

    def exchange(self, *, begins_trace: bool = True) -> AbstractContextManager[str]:
        """Open an exchange: one message is counted, timed, traced, and named in its log lines."""
        return telemetry.exchange(self.id, begins_trace=begins_trace)


def table(routes: Iterable[Route]) -> str:
    """Return the table of a README."""
    lines = ["| route | from | mandatory | best effort |", "|---|---|---|---|"]
    lines += [f"| `{r.id}` | {r.source} | {r.mandatory} | {r.best_effort} |" for r in routes]
    return "\n".join(lines)
