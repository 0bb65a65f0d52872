"""The HTTP door of the review page: decodes, calls a route, encodes."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from caravan import http
from caravan.contracts import to_json
from caravan.errors import BadInput
from caravan.sessions import Sessions
from shopper import routes
from shopper.catalogue_file import CatalogueFile
from shopper.images.limits import ImageLimits
from shopper.ports import Post
from shopper.review.decisions import Decision, Ref
from shopper.review.review_queue import ReviewQueue

MOST = 200
"""Most images on one page, and most decisions in one request."""
USUAL = 60
MAX_BODY = 2**18
NO_STORE = {"Cache-Control": "no-store"}
PICTURE = {
    # What a key holds never changes; it may only go.
    "Cache-Control": "private, max-age=86400, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Said(BaseModel):
    """`{"image": "…", "product": "Green Tea"[, "new": true]}`, or `{"image": "…", "discard": true}`."""

    image: str
    product: str = ""
    new: bool = False
    discard: bool = False


class Decisions(BaseModel):
    """`{"decisions": […]}`."""

    decisions: list[Said] = Field(min_length=1, max_length=MOST)


def install(
    app: FastAPI,
    *,
    sessions: Sessions,
    queue: ReviewQueue,
    catalogue_file: CatalogueFile,
    limits: ImageLimits,
    post: Post,
) -> None:
    """Give an app `GET /review`, `POST /review` and the pictures below `/review/`."""
    decided = partial(routes.review_decide, queue=queue, post=post)

    @app.get("/review", tags=["review"])
    async def review(request: Request, after: str = "", most: int = USUAL) -> Response:
        """List images that wait for review; `?after=` is the `next` of the page before."""
        sessions.holder(request)
        with routes.REVIEW_LIST.exchange():
            if not 1 <= most <= MOST:
                raise BadInput(f"most is 1 to {MOST}", reason="bad-page")
            answer = await routes.review_list(
                Ref.parse(after) if after else None, most, queue, catalogue_file
            )
        return Response(to_json(answer), headers=NO_STORE, media_type="application/json")

    @app.get("/review/{image:path}", tags=["review"])
    async def picture(request: Request, image: str, *, whole: bool = False) -> Response:
        """Show an image that waits, small, or with `?whole=true` as it is; always a JPEG."""
        sessions.holder(request)
        with routes.REVIEW_IMAGE.exchange():
            try:
                content = await routes.review_image(Ref.parse(image), queue, limits, whole=whole)
            except FileNotFoundError as exc:
                raise BadInput("this image waits no longer", 404, reason="no-such-image") from exc
        return Response(content, headers=PICTURE, media_type="image/jpeg")

    @app.post("/review", tags=["review"])
    async def decide(request: Request) -> Response:
        """Say what images show: `{"decisions": [{"image", "product"[, "new"]} | {"image", "discard"}]}`."""
        who = sessions.holder(request)
        raw = await http.bounded_body(request, MAX_BODY)
        with routes.REVIEW_DECIDE.exchange():
            said = http.decode_json(Decisions, raw).decisions
            answer = await decided([_decision(each, catalogue_file) for each in said], who)
        return Response(to_json(answer), media_type="application/json")


def _decision(said: Said, catalogue_file: CatalogueFile) -> Decision:
    if said.discard == bool(said.product):
        raise BadInput("a decision names a product, or discards", 422, reason="no-decision")
    catalogue = catalogue_file.catalogue
    if said.discard:
        return Decision(Ref.parse(said.image), None)
    product = catalogue.named_or_new(said.product) if said.new else catalogue.named(said.product)
    return Decision(Ref.parse(said.image), product)
