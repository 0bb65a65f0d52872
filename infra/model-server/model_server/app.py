"""The one place where the server is wired: threads, models, doors, and how it starts and stops."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from caravan import credentials, server
from caravan.graphs.limits import SessionLimits
from caravan.intake import Intake, Senders
from caravan.lingering import LingeringClose
from caravan.settings import authority
from model_server import sources
from model_server.config_file import ConfigPoller, with_own
from model_server.configs import model_configs
from model_server.doors.grpc import make_server
from model_server.doors.web import Web, WebOptions
from model_server.graphs.process import Graphs
from model_server.loading import load
from model_server.manager import Manager, Rules
from model_server.memory import check_fits, free_memory, give_back
from model_server.metrics import Metrics
from model_server.predict import Core
from model_server.scheduler import Scheduler
from model_server.scratch import scratch
from model_server.servable import Servable
from model_server.settings import Settings
from model_server.warmup import replay, try_out

log = structlog.get_logger()


@dataclass(frozen=True)
class Running:
    """A server that answers: its ports, and what to wait for."""

    grpc_port: int
    rest_port: int
    watch: Callable[[], "asyncio.Future[None]"]


@asynccontextmanager
async def serving(settings: Settings, graphs: Graphs | None = None) -> AsyncIterator[Running]:
    """Run the server within the block. Raises ServingError for a bad configuration, OSError for a port.

    `graphs` runs its SavedModels; without any the server has its own, which ends with it.
    """
    own = graphs or Graphs(credentials.without(os.environ))
    try:
        with scratch() as folder:
            async with _serving(settings, folder, own) as running:
                yield running
    finally:
        if graphs is None:
            await asyncio.to_thread(own.close)


@asynccontextmanager
async def _serving(settings: Settings, folder: Path, graphs: Graphs) -> AsyncIterator[Running]:
    metrics = Metrics()
    scheduler = Scheduler(settings.batching, metrics, settings.max_call_seconds)
    manager = Manager(
        Rules(
            settings.poll_seconds,
            settings.max_load_retries,
            settings.load_retry_seconds,
            settings.max_load_seconds,
        ),
        lambda base_path: sources.open_source(base_path, settings.s3, folder),
        _loader(settings, graphs),
        scheduler.drain,
        allow_labels_for_unavailable=settings.allow_labels_for_unavailable,
    )
    config = _config_poller(settings, manager)
    core = Core(manager, scheduler, is_told=lambda: config is None or config.is_answered)
    web_app = Web(
        core,
        metrics,
        settings.tokens,
        WebOptions(
            settings.rest_api_timeout, settings.max_rest_body, settings.cors, settings.prometheus_path
        ),
    )
    rest = LingeringClose(Intake(web_app, Senders(settings.doors)))
    listener = _listen(settings.host, settings.rest_api_port)
    try:
        address = authority(settings.host, settings.port)
        doors, grpc_port = make_server(core, metrics, settings.tokens, address, settings.doors.connections)
    except RuntimeError as exc:
        listener.close()
        raise _unusable("--port", settings.host, settings.port, "it is taken, or not ours to take") from exc
    web = server.make_server(rest, settings.doors, drain_seconds=max(int(settings.drain_seconds), 1))
    web_task: asyncio.Task[None] | None = None
    watching: list[asyncio.Task[None]] = []
    try:
        await manager.configure(model_configs(with_own(settings.own, settings.config)), wait=False)
        await doors.start()
        web_task = asyncio.create_task(web.serve(sockets=[listener]), name="rest")
        watching = [asyncio.create_task(manager.watch(), name="models")]
        if config is not None:
            watching.append(asyncio.create_task(config.run(), name="models config"))
        watched = [web_task, *watching]
        yield Running(grpc_port, listener.getsockname()[1], lambda: asyncio.ensure_future(_first(watched)))
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        web.should_exit = True
        await asyncio.gather(doors.stop(settings.drain_seconds), *([web_task] if web_task else []))
        listener.close()
        await manager.close()
        if not await scheduler.close(settings.drain_seconds):
            log.warning("a request is abandoned", waited_seconds=settings.drain_seconds)


def _config_poller(settings: Settings, manager: Manager) -> ConfigPoller | None:
    file = settings.config_file
    if file is None or not (file.in_s3 or file.poll_seconds):
        return None
    return ConfigPoller(file, settings.s3, settings.own, partial(manager.configure, wait=False))


async def _first(tasks: "list[asyncio.Task[None]]") -> None:
    """Return or raise as the first of the tasks that ends."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def run(settings: Settings, *, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let what is in flight end. `started` is told the addresses."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as running:
        started(
            f"model server: gRPC {authority(settings.host, running.grpc_port)}, "
            f"REST http://{authority(settings.host, running.rest_port)}, models {_models(settings)}"
        )
        broken = running.watch()
        stopped = asyncio.create_task(stop.wait(), name="stop")
        either: list[asyncio.Future[Any]] = [broken, stopped]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            broken.result()
        broken.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await broken


def _models(settings: Settings) -> str:
    config = with_own(settings.own, settings.config).model_config_list.config
    named = [f"{model.name} from {model.base_path}" for model in config]
    file = settings.config_file
    return ", ".join([*named, *([f"those that {file.path} lists"] if file and file.in_s3 else [])])


def _loader(settings: Settings, graphs: Graphs) -> Callable[[str, int, Path], Servable]:
    limits = SessionLimits(
        settings.intra_op_threads,
        settings.inter_op_threads,
        settings.max_call_seconds,
        settings.max_load_seconds,
    )

    def load_warm(name: str, version: int, path: Path) -> Servable:
        check_fits(path, free_memory())
        servable = load(name, version, path, limits, graphs)
        try:
            if settings.warmup:
                replay(servable, path, settings.max_call_seconds)
            if settings.warmup or settings.batching is not None:
                try_out(servable, settings.max_call_seconds)
        except BaseException:
            servable.release()
            raise
        finally:
            give_back()
        return servable

    return load_warm


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio leaves Nagle's algorithm on: 40 ms a request.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # From now on callers wait for an answer, and are not turned away while the doors are made.
        listener.listen()
    except OSError as exc:
        listener.close()
        raise _unusable("--rest_api_port", host, port, exc.strerror or str(exc)) from exc
    return listener


def _unusable(flag: str, host: str, port: int, why: str) -> OSError:
    return OSError(f"{flag} {port}, --host (HOST) {host}: nothing can listen there: {why}")
