"""What changed, in order and numbered: the last events, kept once for all readers.

Each reader has a number, not a queue: who reads too slowly, and falls out of what is kept, starts over from a
snapshot, and so costs no memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass
from typing import Any

from caravan.contracts import to_json

KEPT = 1000
LONGEST = 18
"""Most digits of an event's number."""


@dataclass(frozen=True, slots=True)
class Change:
    """One event: its number, its name, and its data as JSON, written once for all readers."""

    number: int
    name: str
    data: bytes


class Feed:
    """The last changes, and a way to wait for the next; quiet until `start_over`.

    Args:
        kept: most changes that a reader may be behind.

    Attributes:
        readers: how many read it now.

    """

    def __init__(self, kept: int = KEPT) -> None:
        self._boot = secrets.token_hex(4)
        self._changes: deque[Change] = deque(maxlen=kept)
        self._news = asyncio.Event()
        self._quiet = True
        self.last = 0
        self.readers = 0
        self.closed = False

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Add a change and wake the readers."""
        if self._quiet:
            return
        self.last += 1
        self._changes.append(Change(self.last, name, to_json(data)))
        self._wake()

    def start_over(self) -> None:
        """Let all readers start over from a snapshot, and tell them what changes from now on."""
        self._quiet = False
        self.forget()

    def forget(self) -> None:
        """Let all readers start over from a snapshot."""
        self.last += 1
        self._changes.clear()
        self._wake()

    def close(self) -> None:
        """Let all readers end."""
        self.closed = True
        self._wake()

    async def wait(self, number: int) -> None:
        """Wait until there is a change after this one, or the feed is closed."""
        while self.last <= number and not self.closed:
            await self._news.wait()

    def after(self, number: int) -> list[Change] | None:
        """Return the changes after this one, or None if some of them are not kept any more."""
        if number > self.last or number < self.last - len(self._changes):
            return None
        return [change for change in self._changes if change.number > number]

    def id_of(self, number: int) -> str:
        """Return the id that a reader gets with a change; it is this process's own."""
        return f"{self._boot}-{number}"

    def number_of(self, event_id: str | None) -> int | None:
        """Return the number that an id was made of, or None if it was not made here."""
        boot, _, number = (event_id or "").partition("-")
        known = boot == self._boot and number.isascii() and number.isdigit() and len(number) <= LONGEST
        return int(number) if known else None

    def _wake(self) -> None:
        # A new event each time: whoever waits for the old one wakes, whoever comes later waits for the new.
        news, self._news = self._news, asyncio.Event()
        news.set()
