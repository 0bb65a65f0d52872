"""The newest versions that central offers each edge, looked up in `E-ready`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NoReturn

import structlog
from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import MODELS
from caravan.errors import CaravanError
from monitor.dashboard.edge import Edge
from monitor.dashboard.versions import newest

log = structlog.get_logger()

LOOK_SECONDS = 15.0
AT_LEAST_SECONDS = 1.0
LISTING_SECONDS = 10.0


async def watch(edges: Mapping[str, Edge], stores: Mapping[str, ObjectStore]) -> NoReturn:
    """Look every now and then, and at once when a version is said to be ready."""
    clock = asyncio.get_running_loop().time
    due = dict.fromkeys(edges, 0.0)
    seen = dict.fromkeys(edges, 0)
    while True:
        for name, edge in edges.items():
            if clock() >= due[name] or edge.looks != seen[name]:
                seen[name] = edge.looks
                await _look(edge, stores[name])
                due[name] = clock() + LOOK_SECONDS
        await asyncio.sleep(AT_LEAST_SECONDS)


async def _look(edge: Edge, store: ObjectStore) -> None:
    try:
        async with asyncio.timeout(LISTING_SECONDS):
            edge.ready = newest([entry["path"] async for entry in s3.listing(store, MODELS)])
        edge.ready_fault = ""
    except (CaravanError, FileNotFoundError, TimeoutError) as exc:
        if not edge.ready_fault:
            log.warning("the versions that are ready cannot be listed", edge=edge.name, error=repr(exc))
        edge.ready_fault = str(exc) or f"no answer within {LISTING_SECONDS:g} s"
