"""How a service's process lives: its web server and its loops in one TaskGroup, stopped by one signal.

A loop that crashes ends the process with status 1, so that whoever started it knows; SIGTERM and SIGINT
first let requests finish, then cancel the loops, then close the clients.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from fastapi import FastAPI

from caravan import concurrency, traces, tracing
from caravan.errors import CaravanError, Permanent
from caravan.intake import raise_open_files
from caravan.server import Server, make_server
from caravan.settings import ServiceSettings, authority
from caravan.telemetry import configure_logging

log = structlog.get_logger()
S = TypeVar("S", bound=ServiceSettings)

DRAIN_SECONDS = 10
COLLECT_EVERY = 10_000
"""Allocations between two runs of the garbage collector; at Python's 700 it takes a third of a busy service's
CPU."""


@dataclass(frozen=True)
class Service:
    """What a service's `app.py` wires together: its web app, and its loops by name.

    `on_stop` is called when the process is told to stop: it ends answers that would last for ever.
    """

    app: FastAPI
    loops: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    on_stop: Callable[[], None] = lambda: None


Wire = Callable[[S], AbstractAsyncContextManager[Service]]


def run(name: str, settings: S, wire: Wire[S]) -> None:
    """Run a service until it is told to stop."""
    configure_logging(settings.log_level, settings.log_format)
    raise_open_files()
    traces.start(name, settings)
    try:
        concurrency.run(_main(name, settings, wire))
    except* KeyboardInterrupt:
        pass
    except* Exception as group:
        for exc in _leaves(group):
            if isinstance(exc, CaravanError):
                log.critical("service ends", service=name, error=str(exc))
            else:
                log.exception("service ends", service=name, exc_info=exc)
        sys.exit(1)
    finally:
        tracing.stop()


async def _main(name: str, settings: S, wire: Wire[S]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with wire(settings) as service:
        server = make_server(
            service.app, settings.doors, host=settings.host, port=settings.port, drain_seconds=DRAIN_SECONDS
        )
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(_named(loop_name, run_loop), name=loop_name)
                for loop_name, run_loop in service.loops.items()
            ]
            web = group.create_task(_serve(server, settings), name="web")
            stopper = group.create_task(_on_stop(stop, server, service.on_stop), name="stop")
            gc.freeze()  # what is loaded stays: no collection is to walk over it
            gc.set_threshold(COLLECT_EVERY)
            log.info(
                "service starts", service=name, address=f"http://{authority(settings.host, settings.port)}"
            )
            await web
            for task in (stopper, *loops):
                task.cancel()
    log.info("service stopped", service=name)


async def _serve(server: Server, settings: ServiceSettings) -> None:
    try:
        await server.serve()
    except OSError as exc:
        message = f"HOST {settings.host}, PORT {settings.port}: nothing can listen there: {exc}"
        raise Permanent(message) from exc


async def _named(name: str, run_loop: Callable[[], Awaitable[None]]) -> None:
    with structlog.contextvars.bound_contextvars(loop=name):
        await run_loop()
    message = f"loop {name} ended by itself"
    raise RuntimeError(message)


async def _on_stop(stop: asyncio.Event, server: Server, on_stop: Callable[[], None]) -> None:
    await stop.wait()
    server.should_exit = True
    on_stop()


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
