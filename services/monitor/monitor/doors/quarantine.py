"""The hub's HTTP doors to the batches of all edges that wait for a person, with their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Response
from obstore.store import ObjectStore

from caravan import http, pages
from caravan.contracts import parse_edge
from caravan.quarantine import read_page, read_waiting
from monitor import routes


def install(app: FastAPI, stores: Mapping[str, ObjectStore]) -> None:
    """Give an app `GET /quarantine/<edge>` and the page of each batch.

    Args:
        app: the hub's.
        stores: by edge, its bucket `E-data`.

    """

    @app.get("/quarantine/{edge}", tags=["quarantine"])
    async def waiting(edge: str) -> Response:
        """List the batches of an edge that wait for a person, the oldest first, and why."""
        store = stores[parse_edge(edge, stores)]
        with routes.QUARANTINE.exchange():
            answer = await routes.quarantine(partial(list_waiting, store, edge), edge)
        return http.fresh_json(answer)

    @app.get("/quarantine/{edge}/{batch}", tags=["quarantine"])
    async def page(edge: str, batch: str) -> Response:
        """Show some pictures of a batch that waits, and what a person can do: one HTML page."""
        store = stores[parse_edge(edge, stores)]
        with routes.QUARANTINE_PAGE.exchange():
            found = await routes.quarantine_page(partial(read_page, store), batch)
        return pages.show(found)


async def list_waiting(store: ObjectStore, edge: str) -> list[dict[str, Any]]:
    """Return the batches that wait for a person, the oldest first, given an edge's bucket `E-data`.

    Addresses of pages are relative to the hub's root, so that they hold behind a proxy too.

    Raises:
        Transient: if the store is away.
        Permanent: if a batch cannot be read.

    """
    try:
        found = await read_waiting(store)
    except FileNotFoundError:
        return []  # The bucket is made when the first images come.
    return [
        {
            "batch": each.batch,
            "reason": each.reason,
            "at": each.at,
            "images": len(each.images),
            "page": f"quarantine/{edge}/{each.batch}",
        }
        for each in found
    ]
