"""The listener's HTTP door, answering as Tekton Triggers does."""

from collections.abc import Collection
from http import HTTPStatus
from uuid import NAMESPACE_DNS, uuid5

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from caravan.app import App
from caravan.errors import BadInput
from caravan.http import bounded_body, decode_json, json
from training.routes import training_trigger
from training.runs import Runs

LISTENER = "training"
MAX_BODY = 64 * 1024


class Trigger(BaseModel):
    """What delivery posts."""

    edge: str = Field(alias="id-edge")


def build(edges: Collection[str], runs: Runs, namespace: str) -> App:
    """Make the web app."""
    app = App()
    uid = str(uuid5(NAMESPACE_DNS, f"{LISTENER}.{namespace}"))

    @app.post("/")
    async def trigger(request: Request) -> Response:
        """Accept a trigger: what is answered with 202 is run, whatever happens to this process."""
        raw = await bounded_body(request, MAX_BODY)
        try:
            edge = decode_json(Trigger, raw).edge
        except BadInput as exc:
            raise BadInput(f'the body has to be {{"id-edge": "<edge>"}}: {exc.detail}') from exc
        event = await training_trigger(edge, edges, runs)
        names = {"eventListener": LISTENER, "namespace": namespace, "eventListenerUID": uid}
        return json({**names, "eventID": event}, HTTPStatus.ACCEPTED)

    @app.get("/runs")
    async def show(_: Request) -> Response:
        """Show the runs: under way, waiting, ended lately, given up."""
        return json(runs.state())

    return app
