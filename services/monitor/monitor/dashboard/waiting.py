"""The batches of each edge that wait for a person, looked up in the quarantine of `E-data`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NoReturn

import structlog
from obstore.store import ObjectStore

from caravan.errors import CaravanError
from monitor.dashboard.edge import Edge
from monitor.dashboard.news import heard
from monitor.doors.quarantine import list_waiting

log = structlog.get_logger()

WAITING_SECONDS = 60.0
"""Pause between two looks while a batch waits: a person may release it anywhere."""
AGAIN_SECONDS = 15.0
LISTING_SECONDS = 10.0


async def watch(edges: Mapping[str, Edge], stores: Mapping[str, ObjectStore]) -> None:
    """Look at the start, when an edge's events say that something changed, and while a batch waits.

    Args:
        edges: the state of each edge.
        stores: by edge, its bucket `E-data`.

    """
    async with asyncio.TaskGroup() as tasks:
        for name, edge in edges.items():
            tasks.create_task(_follow(edge, stores[name]), name=f"quarantine {name}")


async def _follow(edge: Edge, store: ObjectStore) -> NoReturn:
    while True:
        edge.news_of_waiting.clear()
        await heard(edge.news_of_waiting, await _look(edge, store))


async def _look(edge: Edge, store: ObjectStore) -> float:
    """Look at what waits, and return in how many seconds to look again where no event comes."""
    try:
        async with asyncio.timeout(LISTING_SECONDS):
            edge.waiting = await list_waiting(store, edge.name)
    except (CaravanError, TimeoutError) as exc:
        if not edge.waiting_fault:
            log.warning("the quarantine cannot be listed", edge=edge.name, error=repr(exc))
        edge.waiting_fault = str(exc) or f"no answer within {LISTING_SECONDS:g} s"
        return AGAIN_SECONDS
    edge.waiting_fault = ""
    return WAITING_SECONDS if edge.waiting else float("inf")
