"""Loads versions, each on a thread of its own: one that takes long, or does not end, holds up no other."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from model_server.errors import Code, ServingError, from_exception
from model_server.servable import Servable

T = TypeVar("T")


class Loads:
    """Runs what blocks for long. To be used from one event loop."""

    def __init__(self) -> None:
        self._abandoned: set[Future[Servable]] = set()

    @property
    def is_stuck(self) -> bool:
        """Whether a load that was given up still runs."""
        return any(not load.done() for load in self._abandoned)

    async def load(self, loader: Callable[[], Servable], seconds: float, label: str) -> Servable:
        """Return what `loader` loads.

        Raises ServingError: the loader's own, whatever it raises; DEADLINE_EXCEEDED after so many seconds,
        and what is loaded later is let go again.
        """
        load = _on_own_thread(loader, f"load {label}")
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(asyncio.wrap_future(load))
        except TimeoutError as exc:
            self._abandon(load)
            raise ServingError(
                Code.DEADLINE_EXCEEDED, f"The version was not loaded within {seconds:g} s"
            ) from exc
        except asyncio.CancelledError:
            self._abandon(load)
            raise
        except Exception as exc:  # whatever a version does to its loader is that version's trouble
            raise from_exception(exc) from exc

    async def release(self, servable: Servable) -> None:
        """Let go of a version."""
        await asyncio.wrap_future(_on_own_thread(servable.release, f"release {servable.name}"))

    def _abandon(self, load: Future[Servable]) -> None:
        self._abandoned.add(load)
        load.add_done_callback(self._too_late)

    def _too_late(self, load: Future[Servable]) -> None:
        self._abandoned.discard(load)
        if load.exception() is None:
            load.result().release()


def _on_own_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Run it on a new thread, for which the process does not wait when it ends."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it cannot be cancelled: what waits for it can

    def run() -> None:
        result: Any
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 it is whoever waits that has to know
            future.set_exception(exc)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
