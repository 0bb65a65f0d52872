"""A model that does not answer though its server does: asked by one at a time, so that it holds nobody up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from caravan.errors import Unavailable
from shopper.ports import Silent

log = structlog.get_logger()
T = TypeVar("T")

FORGOTTEN_SECONDS = 60.0
"""Seconds after which a failure counts no more."""


class Standing:
    """Whether a model answers.

    Calls to a model that hangs last until their deadline, in places that calls to other models wait for. So
    once it has not answered for a while, one call at a time finds out whether it does again, and all others
    fail at once.

    Args:
        model: its name.
        after: seconds without an answer from which it counts as silent.
        ping: asks the server, but not the model; raises Unavailable if the server is away.

    """

    def __init__(self, model: str, after: float, ping: Callable[[], Awaitable[object]]) -> None:
        self._model = model
        self._after = after
        self._ping = ping
        self._is_silent = False
        self._since = self._last = -math.inf
        self._asking = 0

    def check(self) -> None:
        """Raise Silent if a call would not be made."""
        if self._is_silent and self._asking:
            raise self._silent()

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call.

        Raises:
            Silent: if it is not made, or fails as those before it while the server answers.
            Unavailable: as the call raises it.

        """
        self.check()
        began = _now()
        self._asking += 1
        try:
            answer = await call()
        except Unavailable as exc:
            await self._failed(began)
            if self._is_silent:
                raise self._silent() from exc
            raise
        except Exception:
            self._spoke()  # a refusal is an answer
            raise
        else:
            self._spoke()
            return answer
        finally:
            self._asking -= 1

    async def _failed(self, began: float) -> None:
        if began - self._last > FORGOTTEN_SECONDS:
            self._since = began
        self._last = _now()
        if self._last - self._since < self._after:
            return
        try:
            await self._ping()
        except Unavailable:
            self._spoke()  # as far as one knows: it is the server that is away
        else:
            if not self._is_silent:
                log.warning("model does not answer", model=self._model)
            self._is_silent = True

    def _spoke(self) -> None:
        self._is_silent = False
        self._last = -math.inf

    def _silent(self) -> Silent:
        return Silent(self._model, _now() - self._since)


def _now() -> float:
    return asyncio.get_running_loop().time()
