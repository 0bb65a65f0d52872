"""The feeder's HTTP door: decodes a request, calls the route, encodes what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from dataclasses import asdict

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from caravan.http import answer
from caravan.model_zips import SHAPE as MODEL_SHAPE
from caravan.problems import problem
from feeder.archive import SHAPE, RejectedEntry
from feeder.doors.request_facts import chunks, declared, edge_of, refuse_wrapped
from feeder.routes import Fed, NothingToStore

HELP = f"""Caravan feeder. Send a ZIP of {SHAPE}:
curl -T images.zip 'http://<this address>/zip?edgeId=<edge>'
Send a model, a ZIP of {MODEL_SHAPE}:
curl -T model.zip 'http://<this address>/model?edgeId=<edge>&name=<model>'
"""

ZipUpload = Callable[[str, AsyncIterator[bytes], int | None], Awaitable[Fed]]


def install(app: FastAPI, edges: Collection[str], zip_upload: ZipUpload) -> None:
    """Give an app the feeder's routes and error answers.

    Args:
        app: the service's app.
        edges: those configured.
        zip_upload: takes an edge id, the body's chunks and the size that the sender declares.

    """

    @app.get("/", response_class=PlainTextResponse)
    async def index() -> str:
        return HELP

    @app.api_route("/zip", methods=["PUT", "POST"])
    async def zip_(request: Request) -> Response:
        edge = edge_of(request, edges)
        refuse_wrapped(request)
        fed = await zip_upload(edge, chunks(request), declared(request))
        return JSONResponse(
            {
                "status": "done",
                "edge": fed.edge,
                "batch": fed.batch,
                "stored": fed.stored,
                "duplicates": fed.duplicates,
                "ignored": fed.ignored,
                "rejected": _reasons(fed.rejected),
                **({"warnings": fed.warnings} if fed.warnings else {}),
            }
        )

    @app.exception_handler(NothingToStore)
    async def _nothing(_: Request, exc: NothingToStore) -> Response:
        batch = exc.batch
        facts = {"ignored": batch.ignored, "rejected": _reasons(batch.rejected)}
        return answer(problem(exc.status, exc.detail, **facts))


def _reasons(rejected: Iterable[RejectedEntry]) -> list[dict[str, str]]:
    return [asdict(one) for one in rejected]
