"""What can be told to fail: with which error, for which requests, after how many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Faults(Generic[T]):
    """Lets requests pass until it is told otherwise.

    Attributes:
        failed: how many requests failed so far.

    """

    def __init__(self) -> None:
        self.failed = 0
        self._error: BaseException | None = None
        self._where: Callable[[T], bool] = lambda _: True
        self._passing: float = 0
        self._left: float = 0

    def fail(
        self,
        error: BaseException,
        *,
        where: Callable[[T], bool] = lambda _: True,
        after: int = 0,
        times: float = math.inf,
    ) -> None:
        """Let requests fail from now on, in the place of what was told before.

        Args:
            error: what they raise.
            where: tells whether a request is meant.
            after: how many of those pass before.
            times: how many fail; those after them pass.

        """
        self._error, self._where, self._passing, self._left = error, where, after, times

    def mend(self) -> None:
        """Let every request pass again."""
        self._error = None

    def strike(self, request: T) -> None:
        """Raise the error if this request is to fail."""
        if self._error is None or self._left <= 0 or not self._where(request):
            return
        if self._passing > 0:
            self._passing -= 1
            return
        self._left -= 1
        self.failed += 1
        raise self._error
