"""Ordinary clients as they come: Mosquitto's programs, paho-mqtt, requests; and Mosquitto as the broker."""

import asyncio
import base64
import io
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import numpy as np
import paho.mqtt.client as paho
import pytest
import pytest_asyncio
import requests
from onnx import TensorProto, helper, numpy_helper
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from PIL import Image
from pydantic import SecretStr

from caravan import s3 as store
from caravan.contracts import MODELS_CONFIG, ONNX_MODEL, version_prefix
from caravan_cli.trace_files import read_traces
from local_stack.ports import plan_ports
from local_stack.settings import StackSettings
from local_stack.stack import Stack
from local_stack.tls.certificates import ensure
from support import signed_stream
from support.files import as_file
from support.stacks import environment_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = {
    "tea_model_b64": {"classes": ["tea-green", "other"]},
    "fashion_classifier": {"classes": ["Bag", "Coat"]},
}
CONFIG_OF_ONE = (
    'config {{ name: "{name}" base_path: "s3://production/models/{name}" model_platform: "tensorflow" }}'
)
SECONDS = 60


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the stack, with certificates in it."""
    home = tmp_path_factory.mktemp("home")
    ensure(home / "certs")
    return home / "certs"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority."""
    folder = tmp_path_factory.mktemp("foreign")
    ensure(folder)
    return folder


def model(height: int, width: int, weights: list[list[float]], bias: list[float]) -> bytes:
    """Return an ONNX model of images [N, H, W, C] of 0..1: by their mean colour, one class or the other."""
    shape: list[str | int | None] = ["N", height, width, len(weights)]
    initial = [
        numpy_helper.from_array(np.array(values, np.float32), name)
        for name, values in (("weights", weights), ("bias", bias))
    ]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "by-colour",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        initial,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(made.SerializeToString())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(certs: Path) -> AsyncIterator[Stack]:
    """A shopper with two small models, behind plain MQTT and behind the door with TLS, and the hub."""
    settings = {"MODELS": json.dumps(MODELS), "WINDOW_SECONDS": "1"}
    parts = ("shopper", "mqtt-tls", "hub")
    async with Stack(certs.parent, parts=parts, tls="on", environment=settings, lasting=False) as stack:
        bucket = store.open_bucket(stack.s3("s3-edge1"), "production")
        made = {
            "tea_model_b64": model(48, 64, [[-10, 0], [10, 0], [-10, 0]], [0, 0]),
            "fashion_classifier": model(28, 28, [[40, 0]], [-20, 0]),
        }
        for name, data in made.items():
            await store.write(bucket, f"{version_prefix(name, 1)}{ONNX_MODEL}", data)
        config = " ".join(CONFIG_OF_ONE.format(name=name) for name in made)
        await store.write(bucket, MODELS_CONFIG, f"model_config_list {{ {config} }}".encode())
        for name in made:
            await answers(f"{stack.url('shopper-edge1')}/binary?model={name}")
        yield stack


async def answers(door: str) -> None:
    """Wait until a model answers."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.post(door, content=GREEN)).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def run(*words: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run a program to its end; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin), 90)
    return process.returncode or 0, output.decode()


def photo(red: int, green: int, blue: int) -> bytes:
    return as_file(Image.new("RGB", (64, 48), (red, green, blue)))


GREEN, GREY = photo(0, 255, 0), photo(128, 128, 128)
MESSAGE = json.dumps({"image": base64.b64encode(GREEN).decode()}).encode()


def pair(certs: Path, name: str = "client") -> list[str]:
    return ["--cert", str(certs / f"{name}.pem"), "--key", str(certs / f"{name}.key")]


# --- Mosquitto's programs -----------------------------------------------------------------------


def needs(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


async def asked(port: int, client: str, *options: str, host: str = "localhost") -> dict[str, Any]:
    """Ask what a photo shows with `mosquitto_pub`, until `mosquitto_sub` prints the answer."""
    broker = ["-h", host, "-p", str(port), *options, "-q", "1"]
    subscribe = [needs("mosquitto_sub"), *broker, "-t", f"response/detection/{client}", "-C", "1"]
    publish = [needs("mosquitto_pub"), *broker, "-t", f"detection/{client}", "-s"]
    listening = asyncio.create_task(run(*subscribe, "-W", str(SECONDS)))
    while not listening.done():  # there is no telling when it has subscribed
        assert await run(*publish, stdin=MESSAGE) == (0, "")
        await asyncio.wait([listening], timeout=0.2)
    code, said = listening.result()
    assert code == 0, said
    reply: dict[str, Any] = json.loads(said)
    return reply


async def test_mosquittos_programs_ask_over_plain_mqtt(shop: Stack) -> None:
    assert (await asked(shop.port("mqtt-edge1"), "till-1"))["pricetag"] == "Green Tea: 2.99"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_mosquittos_programs_ask_over_tls_with_a_certificate(
    shop: Stack, certs: Path, host: str
) -> None:
    options = ["--cafile", str(certs / "ca.pem"), *pair(certs)]
    reply = await asked(shop.port("mqtt-tls-edge1"), "till-2", *options, host=host)
    assert reply["pricetag"] == "Green Tea: 2.99"


async def test_a_client_of_mqtt_5_is_answered_as_any_other(shop: Stack) -> None:
    port = shop.port("mqtt-edge1", "mqtt5")
    version = aiomqtt.ProtocolVersion.V5
    async with asyncio.timeout(SECONDS), aiomqtt.Client("127.0.0.1", port, protocol=version) as client:
        await client.subscribe("response/detection/five", qos=1)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho has no types here
        properties.MessageExpiryInterval = 60
        await client.publish("detection/five", MESSAGE, qos=1, properties=properties)
        reply = await anext(aiter(client.messages))
    assert json.loads(bytes(reply.payload))["item"] == "tea-green"


async def test_the_object_store_takes_signed_streams_from_who_has_its_keys_alone(shop: Stack) -> None:
    own, content = shop.s3("s3-edge1"), os.urandom(150_000)
    other = replace(own, secret_key=SecretStr("another-secret"))
    answers = [
        await asyncio.to_thread(signed_stream.put, address, "/production/clients/stream", content)
        for address in (own, other)
    ]
    assert [answer.status_code for answer in answers] == [200, 403]
    bucket = store.open_bucket(own, "production")
    assert await store.read(bucket, "clients/stream") == content
    await store.delete(bucket, ["clients/stream"])
    async with httpx.AsyncClient(trust_env=False) as anyone:
        assert (await anyone.get(f"{own.endpoint}/production")).status_code == 403


async def refusals(shop: Stack, http: httpx.AsyncClient) -> dict[str, int]:
    text = (await http.get(f"{shop.url('mqtt-tls-edge1', 'metrics')}/metrics")).text
    found = re.findall(
        r'^caravan_refusals_total{door="mqtt-tls",reason="([a-z-]+)"} (\d+)', text, re.MULTILINE
    )
    return {reason: int(count) for reason, count in found}


async def test_who_has_no_certificate_or_anothers_is_refused_and_counted_and_the_door_stays_open(
    shop: Stack, certs: Path, foreign: Path
) -> None:
    port = str(shop.port("mqtt-tls-edge1"))
    publish = [
        needs("mosquitto_pub"),
        "-h",
        "localhost",
        "-p",
        port,
        "-q",
        "1",
        "-t",
        "detection/x",
        "-m",
        "{}",
    ]
    ours, theirs = ["--cafile", str(certs / "ca.pem")], ["--cafile", str(foreign / "ca.pem")]
    async with httpx.AsyncClient(trust_env=False) as http:
        for options, reason in (
            (ours, "no-certificate"),
            ([*ours, *pair(foreign)], "unknown-issuer"),
            ([*ours, *pair(certs, "server")], "wrong-purpose"),
            ([*theirs, *pair(certs)], "not-trusted"),
            ([], "not-tls"),
        ):
            before = (await refusals(shop, http)).get(reason, 0)
            code, said = await run(*publish, *options)
            assert code != 0, said
            assert (await refusals(shop, http)).get(reason, 0) == before + 1, (reason, said)
    reply = await asked(shop.port("mqtt-tls-edge1"), "till-3", *ours, *pair(certs))
    assert reply["known"] == "true"


# --- paho-mqtt ----------------------------------------------------------------------------------


async def test_paho_asks_over_tls_with_tls_set(shop: Stack, certs: Path) -> None:
    replies: list[dict[str, Any]] = []
    subscribed, answered = threading.Event(), threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="till-4")
    client.tls_set(
        ca_certs=str(certs / "ca.pem"),
        certfile=str(certs / "client.pem"),
        keyfile=str(certs / "client.key"),
        tls_version=ssl.PROTOCOL_TLS_CLIENT,
    )
    client.on_connect = lambda c, *_: c.subscribe("response/detection/till-4", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()

    def receive(_client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        replies.append(json.loads(message.payload))
        answered.set()

    client.on_message = receive

    def ask() -> None:
        client.connect("127.0.0.1", shop.port("mqtt-tls-edge1"))
        client.loop_start()
        try:
            assert subscribed.wait(SECONDS)
            client.publish("detection/till-4", MESSAGE, qos=1).wait_for_publish(SECONDS)
            assert answered.wait(SECONDS)
        finally:
            client.disconnect()
            client.loop_stop()

    await asyncio.to_thread(ask)
    assert replies[0]["pricetag"] == "Green Tea: 2.99"


# --- requests -----------------------------------------------------------------------------------


def archive() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as zipped:
        zipped.writestr("images/tea-green/one.jpg", GREEN)
        zipped.writestr("images/other/two.jpg", GREY)
    return target.getvalue()


async def test_requests_asks_teaches_and_uploads(shop: Stack) -> None:
    shopper = shop.url("shopper-edge1")

    def talk() -> None:
        with requests.Session() as session:
            session.trust_env = False
            image = base64.b64encode(GREEN).decode()
            reply = session.post(f"{shopper}/detection", json={"image": image}, timeout=SECONDS).json()
            assert (reply["known"], reply["pricetag"]) == ("true", "Green Tea: 2.99")
            reply = session.post(f"{shopper}/binary", data=GREY, timeout=SECONDS).json()
            assert (reply["known"], reply["pricetag"]) == ("false", "Other: N/A")
            taught = {"image": image, "product": "Green Tea"}
            assert session.post(f"{shopper}/ingestion", json=taught, timeout=SECONDS).json() == {
                "status": "done"
            }
            bad = session.post(f"{shopper}/detection", data=b"not JSON", timeout=SECONDS)
            assert bad.status_code == 400
            assert bad.headers["content-type"] == "application/problem+json"
            url = f"{shop.url('feeder')}/zip"
            stored = session.put(url, params={"edgeId": "edge1"}, data=archive(), timeout=SECONDS).json()
            assert (stored["status"], stored["stored"]) == ("done", 2)

    await asyncio.to_thread(talk)


# --- cameras ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of which the models are certain, and one of which neither is."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, data in (("green", GREEN), ("grey", GREY), ("pale", photo(64, 134, 60))):
        (folder / f"{name}.jpg").write_bytes(data)
    return folder


async def test_cameras_are_counted_image_by_image(
    shop: Stack, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARAVAN_HOME", str(shop.settings.home))
    words = ["--count", "3", "--rate", "10", "--seconds", "2", "--data", str(pictures), "--tls"]

    async def film(over: str) -> tuple[int, str]:
        return await run(sys.executable, "-m", "lab", "cameras", *words, "--over", over)

    for code, said in await asyncio.gather(*map(film, ("http", "mqtt", "tensor"))):
        assert code == 0, said
        assert re.search("The hub counted all [1-9][0-9]* images, each once", said)
        classes = re.findall(r"^(tea-green|other|Bag|Coat) +([0-9]+) +([0-9]+)$", said, re.MULTILINE)
        assert sum(int(certain) for _, certain, _ in classes) > 0
        assert sum(int(uncertain) for _, _, uncertain in classes) > 0


# --- Mosquitto in the broker's place ------------------------------------------------------------

CONFIG = """\
listener {port} 127.0.0.1
cafile {certs}/ca.pem
certfile {certs}/server.pem
keyfile {certs}/server.key
require_certificate true
use_identity_as_username true
tls_version tlsv1.2
message_size_limit 20971520
user root
"""


@asynccontextmanager
async def running(*words: str, environment: dict[str, str] | None = None) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), SECONDS)


def free_ports(folder: Path, parts: Sequence[str] = ("mqtt",)) -> list[int]:
    ports = plan_ports(StackSettings(folder, free_ports=True, only=tuple(parts)))
    return [port for part in ports.values() for port in part.values()]


async def test_a_shopper_reaches_mosquitto_by_the_same_settings(
    shop: Stack, certs: Path, foreign: Path, tmp_path: Path
) -> None:
    broker = needs("mosquitto")
    port, http_port, *_ = free_ports(tmp_path)
    config = tmp_path / "mosquitto.conf"
    config.write_text(CONFIG.format(port=port, certs=certs))
    settings = {
        "PORT": str(http_port),
        "SPOOL_DIR": str(tmp_path / "spool"),
        "MODELS": json.dumps(MODELS),
        "MQTT_HOST": "localhost",
        "MQTT_PORT": str(port),
        "MQTT_TLS_CA": str(certs / "ca.pem"),
        "MQTT_TLS_CERT": str(certs / "client.pem"),
        "MQTT_TLS_KEY": str(certs / "client.key"),
        "MQTT_VERSION": "5",
        "TRACES": "file",
        "TRACES_FILE": str(tmp_path / "shopper.jsonl"),
    }
    environment = environment_of(shop, "shopper-edge1") | settings
    options = ["--cafile", str(certs / "ca.pem"), *pair(certs)]
    async with (
        running(broker, "-c", str(config)),
        running(sys.executable, "-m", "shopper", environment=environment),
    ):
        await ready(f"http://127.0.0.1:{http_port}/readyz")
        assert (await asked(port, "till-5", *options))["pricetag"] == "Green Tea: 2.99"
        await goes_on_with_its_trace(port, tmp_path, options)
        stranger = [*options[:2], *pair(foreign)]
        code, _ = await run(
            needs("mosquitto_pub"), "-p", str(port), *stranger, "-t", "detection/x", "-m", "{}"
        )
        assert code != 0


async def goes_on_with_its_trace(port: int, traces: Path, options: Sequence[str]) -> None:
    """Ask in MQTT 5, naming a trace; the shopper's spans are part of it."""
    trace = secrets.token_hex(16)
    named = ("user-property", "traceparent", f"00-{trace}-00f067aa0ba902b7-01")
    broker = (needs("mosquitto_pub"), "-p", str(port), *options, "-V", "mqttv5", "-q", "1")
    words = (*broker, "-D", "publish", *named, "-t", "detection/till-6", "-s")
    assert await run(*words, stdin=MESSAGE) == (0, "")
    async with asyncio.timeout(SECONDS):
        while trace not in (found := read_traces(traces)):
            await asyncio.sleep(0.1)
    assert "detect-mqtt" in {span.name for span in found[trace].spans}


async def ready(address: str) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(address)).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
