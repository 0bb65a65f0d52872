"""feeder: the real process, with the real object store and broker behind it."""

import asyncio
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from obstore.store import ObjectStore
from PIL import Image

from caravan import s3 as store
from caravan.receipts import Account, Receipt, account, receipt_key
from local_stack.stack import Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def feeder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A feeder, its store and its broker; each test has edges of its own."""
    settings = {"RETRY_SECONDS": "1", "MAX_UPLOAD_BYTES": str(2**20)}
    home, edges = tmp_path_factory.mktemp("feeder"), ("edge1", "edge2", "edge3")
    async with Stack(home, edges=edges, parts=("feeder",), environment=settings, lasting=False) as stack:
        yield stack


def photos(number: int, item: str = "tea") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for n in range(number):
            image = io.BytesIO()
            Image.new("RGB", (24, 24), (n % 256, n // 256, len(item))).save(image, "PNG")
            archive.writestr(f"images/{item}/{n}.png", image.getvalue())
    return target.getvalue()


def bucket(stack: Stack, edge: str) -> ObjectStore:
    return store.open_bucket(stack.s3("s3-central"), f"{edge}-data")


async def keys(stack: Stack, edge: str, prefix: str = "") -> list[str]:
    return [entry["path"] async for entry in store.listing(bucket(stack, edge), prefix)]


async def account_of(stack: Stack, edge: str) -> Account:
    held = await keys(stack, edge)
    raws = [await store.read(bucket(stack, edge), key) for key in held if key.startswith("uploads/")]
    return account([Receipt.from_json(raw) for raw in raws], held)


async def messages(reader: Any, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [await reader.getone() for _ in range(count)]


async def test_uploads_of_two_edges_at_once_end_in_their_own_buckets_and_topics(
    feeder: Stack, consumer: Any, http: httpx.AsyncClient
) -> None:
    door = f"{feeder.url('feeder')}/zip"

    async def in_chunks(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 5000):
            yield content[start : start + 5000]

    one, two = await asyncio.gather(
        http.put(door, params={"edgeId": "edge1"}, content=photos(120, "one")),
        http.post(door, headers={"edgeId": "edge2"}, content=in_chunks(photos(80, "two"))),
    )

    assert (one.status_code, two.status_code) == (200, 200), (one.text, two.text)
    assert (one.json()["stored"], two.json()["stored"]) == (120, 80)
    assert set(await keys(feeder, "edge1", "images/")) == {f"images/one/{n}.png" for n in range(120)}
    assert set(await keys(feeder, "edge2", "images/")) == {f"images/two/{n}.png" for n in range(80)}
    assert (await account_of(feeder, "edge1")).adds_up

    events = [json.loads(m.value) for m in await messages(await consumer(feeder.kafka, "edge2"), 81)]
    assert events == [{"name": "zipfile"}] * 80 + [{"name": "pipeline", "files": "80"}]
    triggers = await messages(await consumer(feeder.kafka, "trigger"), 2)
    assert {trigger.value: dict(trigger.headers)["files"] for trigger in triggers} == {
        b"edge1": b"120",
        b"edge2": b"80",
    }
    ready = (await http.get(f"{feeder.url('feeder')}/readyz")).json()
    assert ready["ready"], ready
    assert set(ready["checks"]) >= {"s3", "kafka"}


async def test_a_feeder_killed_while_it_stores_loses_nothing_that_a_repeat_does_not_bring(
    private_stack: Any, eventually: Any, http: httpx.AsyncClient
) -> None:
    # One image at a time, so that there is time to kill it.
    stack = await private_stack("feeder", environment={"STORES_AT_ONCE": "1"})
    door = f"{stack.url('feeder')}/zip?edgeId=edge1"
    content = photos(400)
    key = receipt_key(hashlib.sha256(content).hexdigest())

    async def some_are_stored() -> bool:
        return len(await keys(stack, "edge1", "images/")) >= 20

    upload = asyncio.create_task(http.put(door, content=content))
    await eventually(some_are_stored, every=0.01)
    await stack.kill("feeder")
    with pytest.raises(httpx.HTTPError):
        await upload
    await stack.wait_ready("feeder")

    receipt = Receipt.from_json(await store.read(bucket(stack, "edge1"), key))
    total = await account_of(stack, "edge1")
    assert receipt.state == "pending"
    assert (total.captured, total.pending, total.stored, total.adds_up) == (400, 400, 0, True)
    kept = len(await keys(stack, "edge1", "images/"))
    assert 20 <= kept < 400

    body = (await http.put(door, content=content)).json()

    assert (body["stored"], body["duplicates"]) == (400 - kept, kept)
    total = await account_of(stack, "edge1")
    assert (total.captured, total.stored, total.pending, total.adds_up) == (400, 400, 0, True)


async def test_a_feeder_outlives_its_object_store_and_broker(
    feeder: Stack, eventually: Any, http: httpx.AsyncClient
) -> None:
    url = feeder.url("feeder")
    content = photos(5)

    async def accepted() -> bool:
        answer = await http.put(f"{url}/zip?edgeId=edge3", content=content)
        assert answer.status_code in {200, 502, 503}
        return answer.status_code == 200

    await feeder.kill("s3-central")
    assert (await http.get(f"{url}/healthz")).status_code == 200
    await eventually(accepted, seconds=90, every=0.5)
    await feeder.kill("kafka")
    await eventually(accepted, seconds=90, every=0.5)

    total = await account_of(feeder, "edge3")
    assert (total.captured, total.stored, total.pending, total.adds_up) == (5, 5, 0, True)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_sees_why_a_large_file_is_refused(feeder: Stack, tmp_path: Path) -> None:
    large = tmp_path / "large.zip"
    large.write_bytes(bytes(64 * 2**20))
    url = f"{feeder.url('feeder')}/zip"

    async def curl(*arguments: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "-T",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        answer: dict[str, Any] = json.loads(output)
        return answer

    assert (await curl(str(large), url))["status"] == 400
    assert (await curl(str(large), f"{url}?edgeId=edge9"))["status"] == 404
    assert (await curl(str(large), "-H", "Expect:", f"{url}?edgeId=edge9"))["status"] == 404
    assert (await curl(str(large), f"{url}?edgeId=edge1"))["status"] == 413
    assert (await curl(str(large), "-H", "Transfer-Encoding: chunked", f"{url}?edgeId=edge1"))[
        "status"
    ] == 413
