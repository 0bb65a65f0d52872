"""The listener's HTTP door, answering as Tekton Triggers does."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from caravan.errors import BadInput
from caravan.http import bounded_body, decode_json
from training.routes import training_trigger
from training.runs import Runs

LISTENER = "training"
MAX_BODY = 64 * 1024


class Trigger(BaseModel):
    """What delivery posts."""

    edge: str = Field(alias="id-edge")


class Accepted(BaseModel):
    """What Tekton answers."""

    eventListener: str  # noqa: N815 - Tekton's names
    namespace: str
    eventListenerUID: str  # noqa: N815
    eventID: str  # noqa: N815


def build(learners: Mapping[str, Sequence[str]], runs: Runs, namespace: str) -> FastAPI:
    """Make the web app; `learners` are those that run for a trigger, by the edge or group that it names."""
    app = FastAPI(title="Caravan training listener", docs_url=None, redoc_url=None)
    uid = str(uuid5(NAMESPACE_DNS, f"{LISTENER}.{namespace}"))

    @app.post("/", status_code=202)
    async def trigger(request: Request) -> Accepted:
        """Accept a trigger: what is answered with 202 is run, whatever happens to this process."""
        raw = await bounded_body(request, MAX_BODY)
        try:
            edge = decode_json(Trigger, raw).edge
        except BadInput as exc:
            raise BadInput(f'the body has to be {{"id-edge": "<edge>"}}: {exc.detail}') from exc
        event = await training_trigger(edge, learners, runs)
        return Accepted(eventListener=LISTENER, namespace=namespace, eventListenerUID=uid, eventID=event)

    @app.get("/runs")
    async def show() -> dict[str, Any]:
        """Show the runs: under way, waiting, ended lately, given up."""
        return runs.state()

    return app
