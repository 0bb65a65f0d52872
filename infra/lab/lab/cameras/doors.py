"""Where a running stack's doors are, as its state tells, and whether a model serves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import httpx

from caravan import strict_json
from caravan.contracts import DEFAULT_MODEL
from caravan.settings import MqttSettings
from caravan.tokens import TokenSettings
from lab.samples import apparel
from local_stack.errors import StackError
from local_stack.state import StackState, read_state
from local_stack.tls.names import CA, CLIENT

SECONDS = 10.0
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Doors:
    """The addresses that cameras need; `hub` is "" where none runs, `token` where no door asks for one."""

    edge: str
    shopper: str
    mqtt: MqttSettings
    model_server: str
    feeder: str
    hub: str
    token: str


def doors_of(home: Path, edge: str, *, tls: bool, hub: bool) -> Doors:
    """Read where the stack in a folder listens.

    Args:
        home: its folder.
        edge: whose doors; "" for the first edge's.
        tls: whether MQTT is to go through TLS.
        hub: whether the hub is needed.

    Raises:
        StackError: if it does not run, or lacks what is needed; the text says what to do.

    """
    state = read_state(home)
    if state is None or not state.running:
        raise StackError(f"nothing is running in {home}: make start first")
    if edge and edge not in state.edges:
        raise StackError(f"there is no edge {edge!r}; there are: {', '.join(state.edges)}")
    edge = edge or state.edges[0]
    if state.site == "central":
        raise StackError("cameras film at an edge, and only central runs here: say it there")
    runs_hub = any(part.name == "hub" for part in state.parts)
    if hub and not runs_hub:
        raise StackError("this stack runs no hub to compare with: start all of it, or say --no-check")
    return Doors(
        edge=edge,
        shopper=_url(state, f"shopper-{edge}", "http"),
        mqtt=_mqtt(state, edge, tls=tls),
        model_server=_url(state, f"model-server-{edge}", "rest"),
        feeder=_url(state, "feeder", "http"),
        hub=_url(state, "hub", "http") if runs_hub else "",
        token=TokenSettings().token_to_show,
    )


async def check(http: httpx.AsyncClient, doors: Doors, model: str) -> None:
    """See that a model serves.

    Raises:
        StackError: if none does; the text says how to get one.

    """
    headers = {"authorization": f"Bearer {doors.token}"} if doors.token else {}
    try:
        answer = await http.get(f"{doors.model_server}/v1/models/{model}", headers=headers, timeout=SECONDS)
        states = [
            str(one["state"])
            for one in strict_json.loads_object(answer.content).get("model_version_status", ())
        ]
    except (httpx.HTTPError, ValueError, LookupError, AttributeError) as exc:
        raise StackError(f"the model server at {doors.model_server} does not answer: {exc!r}") from exc
    if "AVAILABLE" in states:
        return
    raise StackError(f"no version of {model} serves at {doors.edge}: {_how_to_get(model, doors)}")


def _how_to_get(model: str, doors: Doors) -> str:
    if model == (os.environ.get("MODEL_NAME", "") or DEFAULT_MODEL):
        return (
            "upload training images first,\n"
            f"  curl -T photos.zip '{doors.feeder}/zip?edgeId={doors.edge}'\n"
            "and wait for the training (make demo shows it all on a stack of its own)"
        )
    fashion = model == apparel.MODEL
    first, zipped = ("  make fashion.zip\n", "fashion.zip") if fashion else ("", "model.zip")
    return (
        f"send it first,\n{first}  curl -T {zipped} '{doors.feeder}/model?edgeId={doors.edge}&name={model}'"
    )


def _url(state: StackState, part: str, port: str) -> str:
    ports = state.settings.across.get(part) or state.part(part).ports
    return f"http://{HOST}:{ports[port]}"


def _mqtt(state: StackState, edge: str, *, tls: bool) -> MqttSettings:
    if not tls:
        port = state.part(f"mqtt-{edge}").ports["mqtt"]
        return MqttSettings(
            mqtt_host=HOST,
            mqtt_port=port,
            mqtt_version="3.1.1",
            mqtt_tls_ca=None,
            mqtt_tls_cert=None,
            mqtt_tls_key=None,
        )
    if state.tls == "off":
        raise StackError("MQTT has no door with TLS here: make certs, then make stop and make start")
    certs = state.settings.certs
    return MqttSettings(
        mqtt_host=HOST,
        mqtt_port=state.part(f"mqtt-tls-{edge}").ports["mqtts"],
        mqtt_version="3.1.1",
        mqtt_tls_ca=certs / f"{CA}.pem",
        mqtt_tls_cert=certs / f"{CLIENT}.pem",
        mqtt_tls_key=certs / f"{CLIENT}.key",
    )
