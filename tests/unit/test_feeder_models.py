"""feeder: models through the HTTP door, with the object store in memory, Kafka and the pipeline played."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from obstore.store import MemoryStore
from onnx import TensorProto, helper, numpy_helper

from caravan import s3
from caravan.errors import Transient
from caravan.model_zips import ModelZipLimits, read_model_zip
from caravan.testing.kafka import Kafka
from caravan.testing.waiting import until
from caravan.uploads import Upload, Verdict, read_upload, write_verdict
from feeder.app import make_app
from feeder.settings import FeederSettings
from support.files import zipped

MODEL = "fashion_classifier"
SAVED = {
    "saved_model.pb": b"a graph",
    "variables/variables.index": b"an index",
    "variables/variables.data-00000-of-00001": bytes(999),
}


@dataclass
class Door:
    """A feeder to send models to, and what is behind it."""

    http: httpx.AsyncClient
    store: MemoryStore
    kafka: Kafka

    async def put(self, content: bytes, **query: str) -> httpx.Response:
        asked = {"edgeId": "edge1", "name": MODEL, "wait": "0"} | query
        return await self.http.put("/model", params=asked, content=content)

    def triggers(self) -> list[dict[str, str]]:
        return [message.headers for message in self.kafka.to("trigger")]

    async def keys(self) -> list[str]:
        return sorted([entry["path"] async for entry in s3.listing(self.store)])

    async def judge(self, upload: str, version: int | None, reason: str = "", model: str = MODEL) -> None:
        kept = await read_upload(self.store, model, upload)
        assert kept is not None
        state: Any = "rejected" if version is None else "held" if reason else "ready"
        verdict = Verdict(state, upload, version, kept.classes, reason, "2026-11-21T09:00:00+00:00")
        await write_verdict(self.store, kept, verdict)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    settings = FeederSettings(
        edges=("edge1", "edge2"),
        edge_groups={"north": ("edge1", "edge2")},
        spool_dir=tmp_path,
        retry_seconds=0.05,
        max_model_bytes=100_000,
    )
    store, kafka = MemoryStore(), Kafka()
    with ThreadPoolExecutor(2) as pool:
        stores = {"edge1": MemoryStore(), "edge2": MemoryStore()}
        owners = ("edge1", "edge2", "north")
        app = make_app(
            settings,
            stores,
            dict.fromkeys(owners, store),
            kafka,
            missing={owner: asyncio.Event() for owner in owners},
            pool=pool,
            checks={},
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://feeder") as client:
            yield Door(client, store, kafka)


@pytest.mark.parametrize("folder", ["", "fashion/", "export/fashion/1/"])
async def test_a_zipped_saved_model_is_kept_whole_and_the_pipeline_triggered(door: Door, folder: str) -> None:
    content = zipped({folder + name: file for name, file in SAVED.items()})
    answer = await door.put(content)
    sha = hashlib.sha256(content).hexdigest()
    assert answer.status_code == 202
    assert answer.json() | {"received": ""} == {
        "status": "checking",
        "edge": "edge1",
        "model": MODEL,
        "version": None,
        "upload": sha,
        "kind": "saved_model",
        "classes": [],
        "bytes": len(content),
        "ignored": 0,
        "received": "",
    }
    assert await s3.read(door.store, f"uploads/{MODEL}/{sha}.zip") == content
    assert door.triggers() == [{"model": MODEL, "upload": sha}]
    events = [json.loads(event.value or b"") for event in door.kafka.to("edge1")]
    assert events == [{"name": "model-upload", "model": MODEL, "upload": sha, "bytes": len(content)}]


async def test_an_onnx_model_is_taken_too(door: Door) -> None:
    answer = await door.put(zipped({"model.onnx": b"onnx", "README.md": b"hello"}))
    assert (answer.status_code, answer.json()["kind"], answer.json()["ignored"]) == (202, "onnx", 1)


def onnx_with_data(folder: Path, data: str) -> dict[str, bytes]:
    """A model whose weights lie in a file beside it."""
    weights = numpy_helper.from_array(np.zeros((2, 2), np.float32), "w")
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [value], [weights])
    onnx.save_model(
        helper.make_model(graph),
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location=data,
        size_threshold=0,
    )
    return {f"net/{path.name}": path.read_bytes() for path in folder.iterdir()}


async def test_the_data_that_an_onnx_model_names_belongs_to_it(door: Door, tmp_path: Path) -> None:
    name = f"{'long' * 40}.data"
    files = onnx_with_data(tmp_path, name)
    content = zipped(files | {"net/notes.data": b"not named"})
    answer = await door.put(content)
    assert (answer.status_code, answer.json()["ignored"]) == (202, 1), answer.text
    found = read_model_zip(io.BytesIO(content), ModelZipLimits(10, 10_000))
    assert set(found.files) == {"model.onnx", name}


async def test_two_classes_of_one_name_are_told_to_their_sender(door: Door) -> None:
    answer = await door.put(zipped(SAVED | {"labels.txt": b"crane\nheron\ncrane"}))
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "two classes are named 'crane': give each a name of its own",
    )


async def test_class_names_beside_a_version_folder_are_found(door: Door) -> None:
    files = {f"net/3/{name}": content for name, content in SAVED.items()}
    answer = await door.put(zipped(files | {"net/labels.txt": b"a\nb"}))
    assert (answer.json()["classes"], answer.json()["ignored"]) == (["a", "b"], 0)


@pytest.mark.parametrize("place", ["m/labels.txt", "m/assets/labels.txt", "labels.txt"])
async def test_class_names_come_out_of_the_zip(door: Door, place: str) -> None:
    files = {f"m/{name}": content for name, content in SAVED.items()}
    answer = await door.put(zipped(files | {place: b"T-shirt/top\r\n\n Ankle boot \n"}))
    assert (answer.json()["classes"], answer.json()["ignored"]) == (["T-shirt/top", "Ankle boot"], 0)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("0 tea-green\r\n1 Lemon Tea\r\n", ["tea-green", "Lemon Tea"]),
        ("0: a\n1: 1 euro\n2: c", ["a", "1 euro", "c"]),
        ("1 euro\n2 euro", ["1 euro", "2 euro"]),
        ("0 a\nb", ["0 a", "b"]),
    ],
)
async def test_numbers_of_outputs_before_class_names_are_none_of_them(
    door: Door, labels: str, classes: list[str]
) -> None:
    assert (await door.put(zipped(SAVED | {"labels.txt": labels.encode()}))).json()["classes"] == classes


async def test_class_names_of_the_request_go_first_and_make_another_upload(door: Door) -> None:
    content = zipped(SAVED | {"labels.txt": b"a\nb"})
    first, second = await door.put(content), await door.put(content, classes="top, boot")
    assert second.json()["classes"] == ["top", "boot"]
    assert first.json()["upload"] != second.json()["upload"]
    assert len([key for key in await door.keys() if key.endswith(".zip")]) == 1


async def test_the_sender_waits_for_the_verdict(door: Door) -> None:
    sending = asyncio.create_task(door.put(zipped(SAVED), wait="20"))
    await until(door.triggers)
    await door.judge(door.triggers()[0]["upload"], 1)
    answer = await sending
    assert (answer.status_code, answer.json()["status"], answer.json()["version"]) == (200, "ready", 1)


async def test_what_is_ready_is_answered_so_again_without_another_run(door: Door) -> None:
    upload = (await door.put(zipped(SAVED))).json()["upload"]
    await door.judge(upload, 3)
    answer = await door.put(zipped(SAVED))
    assert (answer.status_code, answer.json()["version"]) == (200, 3)
    assert len(door.triggers()) == 1


async def test_what_a_rollback_holds_is_answered_with_the_reason_and_not_judged_again(door: Door) -> None:
    upload = (await door.put(zipped(SAVED))).json()["upload"]
    await door.judge(upload, 3, "held since yesterday")
    answer = await door.put(zipped(SAVED))
    shown = answer.json()
    assert (answer.status_code, shown["status"], shown["version"]) == (200, "held", 3)
    assert shown["reason"] == "held since yesterday"
    assert len(door.triggers()) == 1


async def test_what_is_pending_triggers_again_and_stays_one_upload(door: Door) -> None:
    first, second = await door.put(zipped(SAVED)), await door.put(zipped(SAVED))
    assert first.json() == second.json()
    assert len(door.triggers()) == 2
    assert len(await door.keys()) == 2


async def test_a_rejection_is_told_with_its_reason_and_judged_again_when_sent_again(door: Door) -> None:
    sending = asyncio.create_task(door.put(zipped(SAVED), wait="20"))
    await until(door.triggers)
    await door.judge(door.triggers()[0]["upload"], None, "it does not load")
    answer = await sending
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "the model was rejected: it does not load"
    assert answer.json()["upload"] == door.triggers()[0]["upload"]
    assert (await door.put(zipped(SAVED))).json()["status"] == "checking"
    assert len(door.triggers()) == 2


async def test_kafka_away_is_said_and_a_repeat_completes_it(door: Door) -> None:
    door.kafka.fail(Transient("away"))
    assert (await door.put(zipped(SAVED))).status_code == 503
    door.kafka.mend()
    assert (await door.put(zipped(SAVED))).status_code == 202
    assert len(door.triggers()) == 1


async def test_uploads_are_listed_with_their_state(door: Door) -> None:
    one = (await door.put(zipped(SAVED))).json()["upload"]
    two = (await door.put(zipped(SAVED), classes="a,b")).json()["upload"]
    await door.judge(one, 1)
    asked = {"edgeId": "edge1", "name": MODEL}
    listed = (await door.http.get("/model", params=asked)).json()["uploads"]
    assert {(each["upload"], each["status"]) for each in listed} == {(one, "ready"), (two, "checking")}
    alone = (await door.http.get("/model", params=asked | {"upload": two})).json()["uploads"]
    assert [each["upload"] for each in alone] == [two]
    assert (await door.http.get("/model", params=asked | {"upload": "0" * 64})).status_code == 404


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"not a zip", 400, "not a whole ZIP"),
        (b"\x1f\x8b\x08" + bytes(200), 400, "is packed by gzip, as a .tar.gz is: send a ZIP"),
        (b"1/saved_model.pb".ljust(257, b"\0") + b"ustar", 400, "is a tar archive: send a ZIP"),
        (zipped({"readme.txt": b"hello"}), 422, "no model in the ZIP"),
        (zipped({"a/model.onnx": b"", "b/saved_model.pb": b""}), 422, "one model at a time"),
        (zipped({"saved_model.pb": b"", "model.onnx": b""}), 422, "one model at a time"),
        (zipped(SAVED | {"../evil": b""}), 422, "leads out"),
        (zipped(SAVED | {"/etc/evil": b""}), 422, "absolute"),
        (zipped(SAVED | {"assets/a": b"", "assets/a/b": b""}), 422, "cannot be a file"),
        (zipped(SAVED | {"variables/big": bytes(200_000)}), 413, "unpacks to"),
        (zipped(SAVED | {"labels.txt": b"\xff\xfe"}), 422, "UTF-8"),
        (zipped(SAVED | {"labels.txt": b"\x07bell"}), 422, "name of a class"),
        (zipped(SAVED, method=zipfile.ZIP_STORED).replace(b"a graph", b"a grapk"), 422, "damaged"),
    ],
)
async def test_what_is_refused_leaves_nothing(door: Door, content: bytes, status: int, words: str) -> None:
    answer = await door.put(content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    assert await door.keys() == []
    assert door.kafka.sent == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"edgeId": ""}, 400),
        ({"edgeId": "edge7"}, 404),
        ({"name": ""}, 400),
        ({"name": "../up"}, 400),
        ({"name": "models.config"}, 400),
        ({"wait": "601"}, 400),
        ({"wait": "nan"}, 400),
        ({"classes": "a" * 201}, 422),
    ],
)
async def test_a_request_that_says_nonsense_is_refused(
    door: Door, query: dict[str, str], status: int
) -> None:
    assert (await door.put(zipped(SAVED), **query)).status_code == status
    assert await door.keys() == []


async def test_a_form_is_refused(door: Door) -> None:
    asked = {"edgeId": "edge1", "name": MODEL}
    answer = await door.http.post("/model", params=asked, files={"file": zipped(SAVED)})
    assert answer.status_code == 415


async def test_an_upload_is_read_as_it_was_written() -> None:
    upload = Upload(MODEL, "a" * 64, "b" * 64, 12, "model.onnx", ("a", "ö"), 2, "2026-11-21T09:00:00+00:00")
    assert Upload.from_json(upload.to_json()) == upload


async def test_a_model_may_be_sent_to_a_group_and_all_its_edges_hear_of_it(door: Door) -> None:
    answer = await door.put(zipped(SAVED), edgeId="north")
    assert (answer.status_code, answer.json()["edge"]) == (202, "north")
    assert [sent.value for sent in door.kafka.sent if sent.topic == "trigger"] == [b"north"]
    told = {sent.topic for sent in door.kafka.sent if b"model-upload" in (sent.value or b"")}
    assert told == {"edge1", "edge2"}
    images = await door.http.put("/zip", params={"edgeId": "north"}, content=zipped({"images/a/b.jpg": b""}))
    assert images.status_code == 404, "images are an edge's"
