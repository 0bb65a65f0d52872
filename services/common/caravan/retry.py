"""The one retry policy: transient errors only, exponential back-off with full jitter, always a bound."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from caravan import telemetry
from caravan.errors import Transient

log = structlog.get_logger()
T = TypeVar("T")

FIRST_WAIT = 0.2
LONGEST_WAIT = 10.0


async def retried(call: Callable[[], Awaitable[T]], *, to: str, within: float) -> T:
    """Call until it works; the last attempt is made as `within` seconds end.

    Args:
        call: makes a fresh attempt each time.
        to: name of the dependency, for logs and metrics.
        within: seconds after which no attempt begins.

    Raises:
        Transient: of the last attempt, if all fail. Any other error is raised at once.

    """
    # Nearly every call works at once, and is not to pay for tenacity's policy, which costs as much again.
    began = asyncio.get_running_loop().time()
    try:
        return await call()
    except Transient as exc:
        first: Transient | None = exc

    def note(state: RetryCallState) -> None:
        telemetry.RETRIES.labels(to).inc()
        error = state.outcome.exception() if state.outcome else None
        log.warning("retry", to=to, attempt=state.attempt_number, error=str(error))

    left = within - (asyncio.get_running_loop().time() - began)
    drawn = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)

    def wait(state: RetryCallState) -> float:
        # A wait that is drawn too long ends in time: what comes back at the last moment is still found.
        return min(drawn(state), max(0.0, left - (state.seconds_since_start or 0.0)))

    policy = AsyncRetrying(
        retry=retry_if_exception_type(Transient),
        wait=wait,
        stop=stop_after_delay(left),
        before_sleep=note,
        reraise=True,
    )

    async def attempt() -> T:
        # tenacity awaits coroutine functions only: of a lambda it would hand back the coroutine, not awaited.
        nonlocal first
        if first is not None:
            error, first = first, None
            raise error
        return await call()

    return await policy(attempt)


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row: exponential, with full jitter."""
    return random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 16)))  # noqa: S311 - no secret


async def forever(name: str, attempt: Callable[[], Awaitable[None]]) -> NoReturn:
    """Run a loop again whenever it ends by a transient error; any other error ends the process.

    The wait grows with failures in a row and starts over once an attempt has lasted a while.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await attempt()
        except Transient as exc:
            failures = 1 if loop.time() - began > LONGEST_WAIT else failures + 1
            wait = pause(failures)
            telemetry.RETRIES.labels(name).inc()
            log.warning("loop interrupted", loop=name, again_in=round(wait, 1), error=str(exc))
            await asyncio.sleep(wait)
