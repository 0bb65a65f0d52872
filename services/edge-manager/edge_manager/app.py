"""Where the edge-manager is wired together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import aiomqtt
import httpx
from fastapi import FastAPI
from obstore.store import LocalStore

from caravan import http, kafka, kafka_topics, s3
from caravan.contracts import EDGE_STATUS, MONITOR, ready_bucket
from caravan.errors import Permanent, Transient
from caravan.intake import Senders
from caravan.mqtt import Mqtt
from caravan.runtime import Service
from caravan.tls import verifying
from edge_manager.bringing import MODEL_SYNC
from edge_manager.central import Central
from edge_manager.doors import versions
from edge_manager.edge import Edge
from edge_manager.known import Rules
from edge_manager.model_server import ModelServer
from edge_manager.records import Records
from edge_manager.routes import model_sync
from edge_manager.settings import EdgeManagerSettings
from edge_manager.sinks import Sink
from edge_manager.sinks.bucket import BucketSink
from edge_manager.sinks.directory import DirectorySink
from edge_manager.status import tell_status

if TYPE_CHECKING:
    from caravan.signatures import PublicKeys

RECORDS = ".caravan"
"""Folder of the records in a sink directory, when there is no bucket to keep them in."""


@asynccontextmanager
async def wire(settings: EdgeManagerSettings) -> AsyncIterator[Service]:
    """Make the clients, the web app and the loops; close the clients at the end."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_model_server_client(settings))
        sinks = _sinks(settings)
        ready = ready_bucket(settings.edge)

        async def hear(message: aiomqtt.Message) -> None:
            edge.hear(message.payload)

        mqtt = Mqtt(settings, [MONITOR], hear)
        edge = Edge(
            central=Central(
                s3.open_bucket(settings.central, ready),
                lambda group: s3.open_bucket(settings.central, ready_bucket(group)),
            ),
            sinks=sinks,
            server=ModelServer(client),
            records=_records(settings),
            post=mqtt.post,
            rules=_rules(settings),
            clock=time.monotonic,
        )
        app = FastAPI(title="Caravan edge-manager", docs_url=None, redoc_url=None)
        checks: dict[str, http.Check] = {
            "s3-central": partial(s3.ping, settings.central, ready),
            **{("s3-edge" if sink.name == "bucket" else sink.name): sink.check for sink in sinks},
            "mqtt": mqtt.ping,
            "model-server": edge.server.ping,
        }
        http.install(app, checks, Senders(settings.doors))
        versions.install(app, edge, settings.edge)
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "mqtt": mqtt.run,
            "monitor": partial(mqtt.drain, MONITOR),
            MODEL_SYNC.id: partial(model_sync, edge),
        }
        if settings.status_seconds:
            producer = await stack.enter_async_context(kafka.Producer(settings))
            loops["status"] = partial(_tell_status, settings, edge, producer)
        yield Service(app, loops)


async def _tell_status(settings: EdgeManagerSettings, edge: Edge, producer: kafka.Producer) -> NoReturn:
    is_there = False

    async def send(status: bytes) -> None:
        nonlocal is_there
        if not is_there:
            await kafka_topics.ensure_topics(settings, [EDGE_STATUS])
            is_there = True
        await producer.send(EDGE_STATUS, status, key=settings.edge.encode())

    await tell_status(edge, settings.edge, send, settings.status_seconds)


def _model_server_client(settings: EdgeManagerSettings) -> httpx.AsyncClient:
    token = settings.token_to_show
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = settings.tfserving_rest
    return httpx.AsyncClient(base_url=url, headers=headers, verify=verifying(url))


def _sinks(settings: EdgeManagerSettings) -> tuple[Sink, ...]:
    sinks: list[Sink] = []
    served = 2 if settings.canary else 1
    if settings.sink_bucket:
        names = [settings.sink_bucket]
        base_path = settings.model_server_base_path or f"s3://{settings.sink_bucket}/models"
        check = partial(s3.ping, settings.edge_s3, settings.sink_bucket)

        async def prepare() -> None:
            try:
                await check()
            except Transient:  # not there yet, or not reachable: making it will tell
                await s3.ensure_buckets(settings.edge_s3, names)

        sinks.append(
            BucketSink(
                s3.open_bucket(settings.edge_s3, settings.sink_bucket), prepare, check, base_path, served
            )
        )
    if settings.sink_directory is not None:
        base_path = settings.model_server_base_path
        sinks.append(DirectorySink(settings.sink_directory, base_path, served))
    return tuple(sinks)


def _records(settings: EdgeManagerSettings) -> Records:
    if settings.sink_bucket or settings.sink_directory is None:
        return Records(s3.open_bucket(settings.edge_s3, settings.sink_bucket))
    try:
        return Records(LocalStore(settings.sink_directory / RECORDS, mkdir=True))
    except OSError as exc:
        raise Permanent(f"SINK_DIRECTORY: {settings.sink_directory} cannot be written: {exc}") from exc


def _rules(settings: EdgeManagerSettings) -> Rules:
    return Rules(
        edge=settings.edge,
        poll_seconds=settings.poll_seconds,
        load_seconds=settings.load_seconds,
        keep_versions=settings.keep_versions,
        compares=bool(settings.canary),
        require_signature=settings.require_signature,
        keys=_keys(settings.public_key),
    )


def _keys(path: Path | None) -> PublicKeys | None:
    if path is None:
        return None
    from caravan.signatures import read_public_keys  # noqa: PLC0415 - seven megabytes, for those who have a key

    return read_public_keys(path)
