"""The newest versions that central offers each edge, looked up in `E-ready`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NoReturn

import structlog
from obstore.store import ObjectStore

from caravan import model_index
from caravan.errors import CaravanError
from caravan.model_index import Index
from monitor.dashboard.edge import Edge
from monitor.dashboard.news import heard

log = structlog.get_logger()

LOOK_SECONDS = 15.0
FOLDERS_SECONDS = 60.0
"""Pause between two listings of the folders while the index does not change."""
LISTING_SECONDS = 10.0


async def watch(edges: Mapping[str, Edge], stores: Mapping[str, ObjectStore]) -> None:
    """Look every now and then, and at once when a version is said to be ready; each edge by itself."""
    async with asyncio.TaskGroup() as tasks:
        for name, edge in edges.items():
            tasks.create_task(_follow(edge, stores[name]), name=f"ready {name}")


async def _follow(edge: Edge, store: ObjectStore) -> NoReturn:
    clock = asyncio.get_running_loop().time
    index, folders_due = Index(), 0.0
    while True:
        if clock() >= folders_due or edge.news_of_ready.is_set():
            index, folders_due = Index(), clock() + FOLDERS_SECONDS
        edge.news_of_ready.clear()
        index = await _look(edge, store, index)
        await heard(edge.news_of_ready, LOOK_SECONDS)


async def _look(edge: Edge, store: ObjectStore, known: Index) -> Index:
    """Look at what is there, unless the index is one that is known; return the index."""
    try:
        async with asyncio.timeout(LISTING_SECONDS):
            index = await model_index.read(store, known)
            if index.e_tag is None or index != known:
                edge.ready = await model_index.newest(store)
    except (CaravanError, FileNotFoundError, TimeoutError) as exc:
        if not edge.ready_fault:
            log.warning("the versions that are ready cannot be listed", edge=edge.name, error=repr(exc))
        edge.ready_fault = str(exc) or f"no answer within {LISTING_SECONDS:g} s"
        return Index()
    edge.ready_fault = ""
    return index
