"""What can go wrong with the stack as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from caravan.errors import CaravanError


class StackError(CaravanError):
    """The stack cannot do what was asked; the text tells the user what to change."""


class NotReady(CaravanError):
    """A part does not answer yet; the text says what it answered instead.

    `checks` are those of its `/readyz` that failed, where it answered with any.
    """

    def __init__(self, reason: str, checks: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.checks = frozenset(checks)


class StartFailed(StackError):
    """The stack did not come up; nothing was left running.

    `part` is the one at fault where there is one, `tail` the last lines of its log, which a traceback shows.
    """

    def __init__(self, reason: str, part: str | None = None, tail: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.part = part
        self.tail = tuple(tail)
        for line in self.tail:
            self.add_note(line)
