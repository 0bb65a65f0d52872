"""edge-manager: the real process between real object stores, and a real model server behind it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import obstore
import pytest
from obstore.store import ObjectStore

from caravan import s3 as store
from caravan.manifest import File, Manifest
from local_stack.stack import Stack
from support.graphs import save_adder

MODEL = "tea_model_b64"
Files = dict[str, bytes]


def files(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    """A small model, and one of 80 MB: there is time to disturb its copy."""
    folder = tmp_path_factory.mktemp("models")
    save_adder(folder / "light", ballast=10)
    save_adder(folder / "heavy", ballast=20 * 2**20)
    return files(folder / "light"), files(folder / "heavy")


def bucket(stack: Stack, part: str, name: str) -> ObjectStore:
    return store.open_bucket(stack.s3(part), name)


def ready(stack: Stack) -> ObjectStore:
    return bucket(stack, "s3-central", "edge1-ready")


async def held(place: ObjectStore, version: int) -> Files:
    prefix = f"models/{MODEL}/{version}/"
    keys = [entry["path"] async for entry in store.listing(place, prefix)]
    return {key.removeprefix(prefix): await store.read(place, key) for key in keys}


async def publish(
    stack: Stack, version: int, files: Files, *, model: str = MODEL, damaged: Files | None = None
) -> Files:
    """Put a version into `E-ready` as the training pipeline does, its manifest last."""
    vouched = tuple(File(path, len(c), hashlib.sha256(c).hexdigest()) for path, c in files.items())
    whole = {**files, "manifest.json": Manifest(model, version, vouched).to_json()}
    for path, content in whole.items():
        key = f"models/{model}/{version}/{path}"
        await obstore.put_async(ready(stack), key, (damaged or {}).get(path, content))
    return whole


async def next_event(client: aiomqtt.Client, *names: str, seconds: float = 60) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        async for message in client.messages:
            event: dict[str, Any] = json.loads(bytes(message.payload))
            if event["name"] in names:
                return event
    raise AssertionError("the broker hung up")


async def states(stack: Stack, http: httpx.AsyncClient) -> dict[int, str]:
    answer = (await http.get(f"{stack.url('model-server-edge1')}/v1/models/{MODEL}")).json()
    return {int(one["version"]): one["state"] for one in answer.get("model_version_status", [])}


@pytest.fixture
async def watched(http: httpx.AsyncClient) -> AsyncIterator[Any]:
    """Watch what a model server knows of, for the length of a test."""
    seen: set[int] = set()
    tasks: list[asyncio.Task[None]] = []

    async def watch(stack: Stack) -> None:
        while True:
            seen.update(await states(stack, http))
            await asyncio.sleep(0.05)

    def start(stack: Stack) -> set[int]:
        tasks.append(asyncio.create_task(watch(stack)))
        return seen

    yield start
    for task in tasks:
        assert not task.done() or task.result() is None
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_versions_reach_the_model_server_whole_or_not_at_all_and_one_models_trouble_is_its_own(
    private_stack: Any,
    mqtt: Any,
    http: httpx.AsyncClient,
    models: tuple[Files, Files],
    *,
    s3: Any,
    watched: Any,
    tmp_path: Path,
) -> None:
    light, _ = models
    # A model, the first in the alphabet, has a place in the directory where nothing can be written.
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a-model").write_bytes(b"no folder")
    # The server tries a version that fails again and again, for longer than a test can wait.
    settings = {"LOAD_SECONDS": "15", "SINK_DIRECTORY": str(tmp_path / "models")}
    stack = await private_stack("edge-manager", environment=settings)
    await publish(stack, 1, light, model="a-model")
    events = await mqtt(stack.port("mqtt-edge1"), "monitor")
    production = bucket(stack, "s3-edge1", "production")
    # Keys that cannot be of a version, in both buckets and in a version's folder, hold up none.
    for part, name in (("s3-central", "edge1-ready"), ("s3-edge1", "production")):
        client = await s3(stack.url(part))
        for key in ("models/t\tea/1/saved_model.pb", f"models/{MODEL}/1/line\nbreak"):
            await client.put_object(Bucket=name, Key=key, Body=b"odd")

    whole = await publish(stack, 1, light)
    assert await next_event(events, "pushmodel", "model-rejected") == {
        "name": "pushmodel",
        "model": MODEL,
        "version": 1,
    }
    assert (await states(stack, http))[1] == "AVAILABLE"
    assert await held(production, 1) == whole

    seen = watched(stack)
    shard = "variables/variables.data-00000-of-00001"
    # The manifest is of another shard than the edge holds, and so than it can do without.
    other = bytes([light[shard][0] ^ 1]) + light[shard][1:]
    await publish(stack, 2, {**light, shard: other}, damaged={shard: light[shard]})
    rejected = await next_event(events, "pushmodel", "model-rejected")
    assert (rejected["name"], rejected["version"]) == ("model-rejected", 2)
    assert "SHA-256" in rejected["reason"]
    assert await held(production, 2) == {}

    # As another pipeline leaves it: no manifest, and the largest file last.
    for path in sorted(light):
        await obstore.put_async(ready(stack), f"models/{MODEL}/3/{path}", light[path])
    assert (await next_event(events, "pushmodel", "model-rejected"))["version"] == 3
    assert await held(production, 3) == light
    assert (await states(stack, http))[3] == "AVAILABLE"
    assert 2 not in seen, "the model server never saw the damaged version"

    # What TensorFlow itself cannot load.
    broken = {**light, "saved_model.pb": light["saved_model.pb"][:200] + bytes(200)}
    await publish(stack, 4, broken)
    rejected = await next_event(events, "pushmodel", "model-rejected")
    assert (rejected["name"], rejected["version"]) == ("model-rejected", 4)
    assert await held(production, 4) == {}
    assert (await states(stack, http))[3] == "AVAILABLE"

    versions = (await http.get(f"{stack.url('edge-manager-edge1')}/versions")).json()
    model = versions["models"][MODEL]
    assert (model["serving"], model["at_edge"], model["newest_ready"]) == (3, [1, 3], 3)
    assert [refused["cause"] for refused in model["refused"]] == ["content", "load"]
    assert "File exists" in versions["models"]["a-model"]["fault"]
    assert versions["central"] == "ok"
    assert len(await held(ready(stack), 2)) == len(light) + 1, "nothing is deleted at central"


async def test_a_copy_disturbed_by_kills_and_a_cut_link_is_finished_and_the_old_version_serves_on(
    private_stack: Any, mqtt: Any, http: httpx.AsyncClient, models: tuple[Files, Files], eventually: Any
) -> None:
    light, heavy = models
    stack = await private_stack("edge-manager")
    events = await mqtt(stack.port("mqtt-edge1"), "monitor")
    production = bucket(stack, "s3-edge1", "production")
    await publish(stack, 1, light)
    assert (await next_event(events, "pushmodel"))["version"] == 1

    async def copying() -> bool:
        return bool([entry async for entry in store.listing(production, f"models/{MODEL}/2/")])

    whole = await publish(stack, 2, heavy)
    await eventually(copying, every=0.01)
    await stack.kill("edge-manager-edge1")
    await stack.kill("s3-central")
    assert (await states(stack, http))[1] == "AVAILABLE"
    await stack.wait_ready("s3-central")
    await stack.wait_ready("edge-manager-edge1")

    # The old version is confirmed and announced again first, by the new process.
    told = [await next_event(events, "pushmodel", "model-rejected") for _ in range(2)]
    assert [(event["name"], event["version"]) for event in told] == [("pushmodel", 1), ("pushmodel", 2)]
    assert await held(production, 2) == whole
    assert (await states(stack, http))[2] == "AVAILABLE"
