"""shopper: the real process between the real model server, stores, broker and feeder."""

import asyncio
import base64
import hashlib
import io
import itertools
import json
import re
import shutil
import signal
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import msgpack
import obstore
import pytest
from obstore.store import ObjectStore
from PIL import Image

from caravan import s3 as store
from caravan.contracts import EDGE_STATUS, MANIFEST, MODELS_CONFIG, evidence_key, version_prefix
from caravan.evidence import read
from caravan.manifest import File, Lineage, Manifest
from edge_manager.models_config import models_config
from local_stack.stack import Stack
from support.files import as_file
from support.graphs import save_colours, save_shades

MODEL = "tea_model_b64"
FILE = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{3}\.jpg"
LABELS = ["Earl Grey Tea", "Green Tea", "Lemon Tea", "Licorice Tea", "Other"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 as made elsewhere, with `serving_default` alone; version 2 with `classify` too."""
    folder = tmp_path_factory.mktemp("models")
    save_colours(folder)
    save_shades(folder / "shades")
    return folder


def photo(red: int, green: int, blue: int, image_format: str = "JPEG") -> bytes:
    return as_file(Image.new("RGB", (64, 48), (red, green, blue)), image_format)


GREEN, RED, BLUE, GREY = photo(0, 255, 0), photo(255, 0, 0), photo(0, 0, 255), photo(128, 128, 128)


def bucket(stack: Stack, name: str, server: str = "s3-edge1") -> ObjectStore:
    return store.open_bucket(stack.s3(server), name)


async def keys(stack: Stack, name: str, server: str = "s3-edge1", prefix: str = "images/") -> list[str]:
    return sorted([entry["path"] async for entry in store.listing(bucket(stack, name, server), prefix)])


async def publish_model(stack: Stack, models: Path, version: int) -> None:
    await publish(stack, models / str(version), MODEL, version)


def files_of(root: Path) -> list[Path]:
    """Return all files of a model; the one that makes it visible comes last."""
    files = (path for path in root.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: path.name == "saved_model.pb")


async def publish(stack: Stack, root: Path, model: str, version: int) -> None:
    target = bucket(stack, "production")
    for path in files_of(root):
        name = f"{version_prefix(model, version)}{path.relative_to(root).as_posix()}"
        await store.write(target, name, path.read_bytes())


async def offer(stack: Stack, root: Path, version: int) -> None:
    """Offer a version to the edge, as training does, its manifest last."""
    target = bucket(stack, "edge1-ready", "s3-central")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in files_of(root)}
    vouched = tuple(File(path, len(c), hashlib.sha256(c).hexdigest()) for path, c in files.items())
    for path, content in {**files, MANIFEST: Manifest(MODEL, version, vouched).to_json()}.items():
        await store.write(target, f"{version_prefix(MODEL, version)}{path}", content)


async def publish_shades(stack: Stack, models: Path) -> None:
    """Put a model of tensors beside the first one, with its classes in its manifest."""
    target = bucket(stack, "production")
    manifest = Manifest("shades", 4, (), Lineage(classes=("dark", "bright")))
    await store.write(target, f"{version_prefix('shades', 4)}{MANIFEST}", manifest.to_json())
    await publish(stack, models / "shades", "shades", 4)
    entries = [
        f'config {{ name: "{name}" base_path: "s3://production/models/{name}" model_platform: "tensorflow" }}'
        for name in (MODEL, "shades")
    ]
    await store.write(target, MODELS_CONFIG, f"model_config_list {{ {' '.join(entries)} }}".encode())


async def detect(http: httpx.AsyncClient, stack: Stack, image: bytes) -> dict[str, Any]:
    response = await http.post(f"{stack.url('shopper-edge1')}/binary", content=image)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def items_of(keys: list[str]) -> list[str]:
    """Return the item of each key; every key has the form that is promised."""
    parts = [key.split("/") for key in keys]
    assert all(images == "images" and re.fullmatch(FILE, file) for images, _, file in parts), keys
    return [item for _, item, _ in parts]


async def next_event(client: Any, **wanted: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        async for message in client.messages:
            event: dict[str, Any] = json.loads(message.payload)
            if wanted.items() <= event.items():
                return event
    raise AssertionError


async def next_reply(client: Any, topic: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        async for message in client.messages:
            assert message.topic.value == topic
            reply: dict[str, Any] = msgpack.unpackb(message.payload)
            return reply
    raise AssertionError


async def test_every_door_answers_and_keeps_what_it_saw(
    private_stack: Any, models: Path, http: httpx.AsyncClient, mqtt: Any, *, s3: Any, eventually: Any
) -> None:
    stack = await private_stack("shopper", environment={"TENSOR_TOPICS": "pictures/+=shades:shades"})
    shopper = stack.url("shopper-edge1")
    dashboard = await mqtt(stack.port("mqtt-edge1"), "monitor")
    # What no door of ours would write: it holds up nothing of all that follows.
    await dashboard.publish("monitor", rb'{"name":"detection","item":"\ud800"}', qos=1, retain=True)
    edge = await s3(stack.url("s3-edge1"))
    for name in ("data", "valid", "unclassified"):
        for key in ("images/t\tea/a.jpg", "images/tea/line\nbreak.jpg"):
            await edge.put_object(Bucket=name, Key=key, Body=b"odd")

    early = await http.post(f"{shopper}/binary", content=GREEN)
    assert early.status_code == 503
    assert "upload training images" in early.json()["detail"]
    await publish_model(stack, models, 1)

    async def serves() -> bool:
        # Asked past the shopper, which keeps every image that it answers.
        answer = await http.get(f"{stack.url('model-server-edge1', 'rest')}/v1/models/{MODEL}")
        return '"AVAILABLE"' in answer.text

    await eventually(serves)

    # HTTP, known and not
    known = await detect(http, stack, GREEN)
    assert (known["known"], known["pricetag"], known["products"]) == ("true", "Green Tea: 2.99", LABELS)
    assert (known["model"], known["version"]) == (MODEL, 1)
    body = json.dumps({"image": "data:image/png;base64," + base64.b64encode(GREY).decode()})
    unknown = (await http.post(f"{shopper}/detection", content=body)).json()
    assert (unknown["known"], unknown["pricetag"]) == ("false", "Other: N/A")
    event = await next_event(dashboard, name="detection", valid=True)
    assert (event["origin"], event["item"], event["price"]) == ("http", "Green Tea", "$2.99")
    await next_event(dashboard, name="detection", valid=False, item="Other")

    # MQTT
    camera = await mqtt(stack.port("mqtt-edge1"), "response/detection/shop/till-3")
    message = json.dumps({"image": base64.b64encode(photo(255, 0, 0, "PNG")).decode()})
    await camera.publish("detection/shop/till-3", message, qos=1)
    assert (await next_event(camera))["pricetag"] == "Licorice Tea: 2.49"
    await camera.publish("detection/shop/till-3", b"not JSON", qos=1)
    assert (await next_event(camera))["status"] == 400
    await next_event(dashboard, origin="mqtt", item="Licorice Tea", price="$2.49")

    # what is kept, with the model's opinion
    valid = await keys(stack, "valid")
    assert items_of(valid) == ["tea-green", "tea-licorice"]
    assert items_of(await keys(stack, "unclassified")) == ["other"]
    kept = await obstore.get_async(bucket(stack, "valid"), valid[1])
    assert kept.attributes["label"] == "tea-licorice"
    assert kept.attributes["camera"] == "shop/till-3"
    assert kept.attributes["version"] == "1"
    assert bytes(await kept.bytes_async()).startswith(b"\xff\xd8")

    # a version with more signatures comes in, and is asked in its own way, without an error between
    await publish_model(stack, models, 2)

    async def served_by_2() -> bool:
        return bool((await detect(http, stack, GREEN))["version"] == 2)

    await eventually(served_by_2)

    # a camera that sends tensors, and a model that takes them
    pictures = await mqtt(stack.port("mqtt-edge1"), "shades/#")
    dark = {"image": [[0.1] * 3] * 2, "dtype": "float64", "height": 2, "width": 3, "id": 1}
    await pictures.publish("pictures/door", msgpack.packb(dark), qos=1)
    assert (await next_reply(pictures, "shades/door"))["reason"] == "unknown-model"
    await publish_shades(stack, models)

    async def shades_serve() -> bool:
        answer = await http.get(f"{stack.url('model-server-edge1', 'rest')}/v1/models/shades")
        return '"AVAILABLE"' in answer.text

    await eventually(shades_serve)
    await pictures.publish("pictures/door", msgpack.packb(dark), qos=1)
    reply = await next_reply(pictures, "shades/door")
    assert (reply["prediction"], reply["index"], reply["version"], reply["id"]) == ("dark", 0, 4, 1)
    assert reply["predictions"] == pytest.approx([0.9997, 0.0003], abs=1e-4)
    white = await http.post(f"{shopper}/binary?model=shades&top=1", content=photo(255, 255, 255))
    assert list(white.json()["probabilities"]) == ["bright"]

    # teaching, and the way to central
    options = (await http.get(f"{shopper}/ingestion/options")).json()
    assert options == {"products": LABELS}
    for image in (GREEN, photo(0, 250, 0, "PNG")):
        taught = {"image": base64.b64encode(image).decode(), "product": "Green Tea"}
        assert (await http.post(f"{shopper}/ingestion", json=taught)).json() == {"status": "done"}
    assert len(await keys(stack, "data")) == 2
    pushed = (await http.get(f"{shopper}/zip")).json()
    assert (pushed["status"], pushed["files"], pushed["stored"]) == ("done", 2, 2)
    assert await keys(stack, "data", prefix="") == []
    assert items_of(await keys(stack, "edge1-data", "s3-central")) == ["tea-green", "tea-green"]
    await next_event(dashboard, name="ingestion", item="Green Tea")
    await next_event(dashboard, name="zipsend", files="2")
    assert (await http.get(f"{shopper}/review")).json()["images"]
    page = (await http.get(f"{shopper}/metrics")).text
    assert 'caravan_odd_keys_total{bucket="data"}' in page


async def test_a_new_version_answers_half_until_it_is_known_to_be_no_worse(
    private_stack: Any, models: Path, http: httpx.AsyncClient, mqtt: Any, *, consumer: Any, eventually: Any
) -> None:
    stack = await private_stack("shopper", environment={"CANARY": "50%"})
    dashboard = await mqtt(stack.port("mqtt-edge1"), "monitor")
    base = PurePosixPath(MODELS_CONFIG).parent
    await store.write(
        bucket(stack, "production"), MODELS_CONFIG, models_config(f"s3://production/{base}", {MODEL: ()}, 2)
    )
    await publish_model(stack, models, 1)

    async def serves() -> bool:
        return (await http.post(f"{stack.url('shopper-edge1')}/binary", content=GREEN)).status_code == 200

    await eventually(serves)
    await publish_model(stack, models, 2)

    async def both_serve() -> bool:
        answer = await http.get(f"{stack.url('model-server-edge1', 'rest')}/v1/models/{MODEL}")
        return answer.text.count('"AVAILABLE"') == 2

    await eventually(both_serve)
    versions: Counter[int] = Counter()
    for number in range(200):
        shade = photo(number, 250, 0, "PNG")  # as JPEG some are the same
        versions[(await detect(http, stack, shade))["version"]] += 1
        if versions.total() == 40:
            assert set(versions) == {1, 2}
            again = [(await detect(http, stack, shade))["version"] for _ in range(5)]
            assert len(set(again)) == 1
    told = await next_event(dashboard, name="canary")
    assert (told["outcome"], told["version"], told["beside"]) == ("promote", 2, 1)
    assert {(await detect(http, stack, photo(0, 240, number, "PNG")))["version"] for number in range(10)} == {
        2
    }
    # It stays so, and central knows why.
    await stack.kill("shopper-edge1")
    await stack.wait_ready("shopper-edge1")
    assert {(await detect(http, stack, photo(9, 240, number, "PNG")))["version"] for number in range(10)} == {
        2
    }
    reader = await consumer(stack.kafka, EDGE_STATUS)
    async with asyncio.timeout(60):
        async for record in reader:
            if record.key == evidence_key("edge1", MODEL):
                seen = read(record.value).evidence
                if seen.images >= 90:
                    break
    assert (seen.version, seen.beside, seen.losses, seen.gains) == (2, 1, 0, 0)


async def test_an_image_where_both_versions_are_sure_and_differ_has_its_picture_at_central(
    private_stack: Any,
    models: Path,
    http: httpx.AsyncClient,
    tmp_path: Path,
    *,
    consumer: Any,
    eventually: Any,
) -> None:
    stack = await private_stack("shopper", "hub", environment={"CANARY": "50%"})
    base = PurePosixPath(MODELS_CONFIG).parent
    await store.write(
        bucket(stack, "production"), MODELS_CONFIG, models_config(f"s3://production/{base}", {MODEL: ()}, 2)
    )
    shutil.copytree(models / "2", tmp_path / "new")
    graph = tmp_path / "new" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"tea-green", b"tea-lemon"))
    await publish(stack, models / "2", MODEL, 1)

    async def answers() -> bool:
        return (await http.post(f"{stack.url('shopper-edge1')}/binary", content=GREEN)).status_code == 200

    await eventually(answers)
    await publish(stack, tmp_path / "new", MODEL, 2)
    shades = itertools.count()

    async def is_compared() -> bool:
        await detect(http, stack, photo(next(shades), 250, 0, "PNG"))
        waiting = (await http.get(f"{stack.url('shopper-edge1')}/review")).json()["images"]
        return any(each["why"] == "differing" for each in waiting)

    await eventually(is_compared)
    reader = await consumer(stack.kafka, EDGE_STATUS)
    async with asyncio.timeout(60):
        async for record in reader:
            if record.key == evidence_key("edge1", MODEL) and (found := read(record.value).differing):
                break
    image = found[-1]
    assert (image.item, image.beside_item) == ("tea-lemon", "tea-green")
    assert image.image.removeprefix("valid/") in await keys(stack, "valid")
    hub = stack.url("hub")

    async def is_shown() -> bool:
        return (await http.get(f"{hub}/hub/uncertain/{image.id}.jpg")).status_code == 200

    await eventually(is_shown)
    shown = await http.get(f"{hub}/hub/uncertain/{image.id}.jpg")
    assert Image.open(io.BytesIO(shown.content)).size == (64, 48)
    edge = (await http.get(f"{hub}/dashboard/state")).json()["edges"][0]
    (compared,) = edge["comparisons"]
    assert f"hub/uncertain/{image.id}.jpg" in {each["picture"] for each in compared["differing"]}


async def test_what_is_trusted_goes_on_being_served_where_a_third_version_comes(
    private_stack: Any, models: Path, http: httpx.AsyncClient, eventually: Any
) -> None:
    stack = await private_stack("shopper", "edge-manager", environment={"CANARY": "50%"})
    green = itertools.count()

    async def answers() -> set[int]:
        asked = [detect(http, stack, photo(0, 250, next(green) % 250, "PNG")) for _ in range(6)]
        return {answer["version"] for answer in await asyncio.gather(*asked)}

    async def serve(*versions: int) -> None:
        async def are_served() -> bool:
            answer = await http.get(f"{stack.url('model-server-edge1', 'rest')}/v1/models/{MODEL}")
            states = answer.json().get("model_version_status", [])
            return {int(s["version"]) for s in states if s["state"] == "AVAILABLE"} == set(versions)

        await eventually(are_served)

    await offer(stack, models / "1", 1)
    await serve(1)
    assert await answers() == {1}
    await offer(stack, models / "2", 2)
    await serve(1, 2)
    assert await answers() <= {1, 2}
    await offer(stack, models / "2", 3)
    await serve(1, 3)
    assert await answers() <= {1, 3}
    await stack.kill("edge-manager-edge1")
    await offer(stack, models / "2", 4)
    await stack.wait_ready("edge-manager-edge1")
    await serve(1, 4)
    assert await answers() <= {1, 4}


async def test_store_and_link_may_go_away_and_nothing_is_lost(
    private_stack: Any, models: Path, http: httpx.AsyncClient, eventually: Any
) -> None:
    stack = await private_stack("shopper", environment={"KEEP_SECONDS": "0.5"})
    shopper = stack.url("shopper-edge1")
    await publish_model(stack, models, 2)

    async def serves() -> bool:
        return (await http.post(f"{shopper}/binary", content=BLUE)).status_code == 200

    await eventually(serves)
    before = len(await keys(stack, "unclassified"))
    taught = {"image": base64.b64encode(RED).decode(), "product": "Licorice Tea"}

    # The object store hangs; the shopper is killed with images in its spool; the store comes back.
    server = stack.state.part("s3-edge1").identity
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            assert (await detect(http, stack, BLUE))["known"] == "false"
        assert (await http.post(f"{shopper}/ingestion", json=taught)).json() == {"status": "done"}
        await stack.kill("shopper-edge1")
    finally:
        server.signal(signal.SIGCONT)
    await stack.wait_ready("shopper-edge1")

    async def all_there() -> bool:
        seen = len(await keys(stack, "unclassified")), len(await keys(stack, "data"))
        return seen == (before + 3, 1)

    await eventually(all_there)

    # The link hangs; the wish to push outlives it, and the process.
    feeder = stack.state.part("feeder").identity
    feeder.signal(signal.SIGSTOP)
    try:
        queued = await http.post(f"{shopper}/zip")
        assert (queued.status_code, queued.json()) == (202, {"status": "queued"})
        await stack.kill("shopper-edge1")
        assert (await keys(stack, "data", prefix="push/")) == ["push/requested.json"]
    finally:
        feeder.signal(signal.SIGCONT)
    await stack.wait_ready("shopper-edge1")

    async def arrived() -> bool:
        return len(await keys(stack, "edge1-data", "s3-central")) == 1 and not await keys(
            stack, "data", prefix=""
        )

    await eventually(arrived)
