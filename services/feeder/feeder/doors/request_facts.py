"""What the feeder's doors read of a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection

from fastapi import Request
from starlette.requests import ClientDisconnect

from caravan.contracts import parse_edge
from caravan.encodings import encoding_of
from caravan.errors import BadInput


def edge_of(request: Request, edges: Collection[str]) -> str:
    """Return the edge that a request names, by `?edgeId=` or by header.

    Raises:
        BadInput: 400 or 404, as `parse_edge` does.

    """
    given = {*request.query_params.getlist("edgeId"), *request.headers.getlist("edgeId")}
    if len(given) > 1:
        raise BadInput("the request names several edges: one edgeId is enough")
    return parse_edge(next(iter(given), None), edges)


def refuse_wrapped(request: Request) -> None:
    """Take the ZIP itself and nothing around it.

    Raises:
        BadInput: 415 for a form, or an encoded body.

    """
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise BadInput("the body is the ZIP itself, not a form: send it with curl -T", status=415)
    if encoding_of(request.headers):
        raise BadInput("the body is the ZIP itself, without a Content-Encoding", status=415)


def declared(request: Request) -> int | None:
    """Return the size of the body in bytes, if the sender says it."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


async def chunks(request: Request) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes.

    Raises:
        BadInput: if the sender hangs up.

    """
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as exc:
        raise BadInput("the sender hung up") from exc
