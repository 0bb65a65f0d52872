"""Models that people sent become versions, once, or get a reason why not; trials are played."""

import asyncio
import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore
from PIL import Image

from caravan import s3, uploads
from caravan.errors import Transient
from caravan.testing.stores import Requests
from caravan.uploads import Upload, Verdict, drop_verdict, read_verdict, upload_id, zip_key
from support.files import zipped
from training import judge, versions
from training.embeddings import COLUMNS
from training.evaluate import Answer
from training.events import Reporter
from training.exporter import Exporter, ExporterProcess
from training.judge import judge_step
from training.pipeline import run_pipeline
from training.publish import rollback
from training.release import release
from training.settings import TrainingSettings
from training.steps import Run, share_step
from training.stores import Stores
from training.trial import Found, Job
from training.workspace import Workspace

MODEL = "fashion_classifier"
SAVED = {"m/saved_model.pb": b"a graph", "m/variables/variables.index": b"an index", "m/notes.txt": b"hello"}


class Trials:
    """Answers for the process that loads models: what is in the entry file says how."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.answers: tuple[tuple[str, float], ...] = ()

    async def tried(self, job: Job, seconds: float) -> Found:
        self.jobs.append(job)
        content = (Path(job.directory) / job.entry).read_bytes()
        if content == b"broken":
            return Found("it does not load: broken")
        return Found(None, ("its", "own") if content == b"named" else job.classes, self.answers)


class Site:
    """An edge's buckets, and a machine that judges for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge1")
        self.events: list[dict[str, Any]] = []
        self.settings = TrainingSettings(cache_dir=directory / "cache")

    async def send(
        self, files: dict[str, bytes], model: str = MODEL, classes: tuple[str, ...] = ()
    ) -> Upload:
        content = zipped(files)
        sha = hashlib.sha256(content).hexdigest()
        entry = "model.onnx" if any(name.endswith(".onnx") for name in files) else "saved_model.pb"
        upload = Upload(model, upload_id(sha, classes), sha, len(content), entry, classes, 0, "2026-11-21")
        await s3.write(self.stores.models, zip_key(model, sha), content)
        await s3.write(self.stores.models, upload.key, upload.to_json())
        return upload

    def run(self) -> Run:
        def embedder() -> Any:
            raise AssertionError("nothing is to be embedded")

        space = Workspace(self.directory / "work")
        emit, exporter = self.events.append, Exporter(ExporterProcess(self.settings.cache_dir).ask)
        return Run(self.settings, "edge1", self.stores, space, embedder, exporter, lambda *_: None, emit)

    async def judged(self, upload: Upload) -> Verdict:
        await judge_step(self.run())
        verdict = await read_verdict(self.stores.models, upload)
        assert verdict is not None
        return verdict

    async def ready(self, model: str = MODEL) -> dict[int, set[str]]:
        found = await versions.complete(self.stores.ready, model)
        return {version: {file.path for file in manifest.files} for version, manifest in found.items()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    trials = Trials()
    monkeypatch.setattr(judge, "tried", trials.tried)
    return trials


async def test_an_upload_becomes_the_next_version_of_its_name(site: Site) -> None:
    first = await site.judged(await site.send(SAVED, classes=("top", "boot")))
    second = await site.judged(await site.send(SAVED | {"m/saved_model.pb": b"named"}))
    assert (first.state, first.version, first.classes) == ("ready", 1, ("top", "boot"))
    assert (second.state, second.version, second.classes) == ("ready", 2, ("its", "own"))
    files = {"saved_model.pb", "variables/variables.index"}
    assert await site.ready() == {1: files, 2: files}
    manifest = (await versions.complete(site.stores.models, MODEL))[1]
    assert (manifest.lineage.upload, manifest.lineage.classes) == (first.upload, ("top", "boot"))
    assert [(event["name"], event["version"]) for event in site.events] == [
        ("model-ready", 1),
        ("model-ready", 2),
    ]


async def test_an_onnx_model_goes_the_same_road(site: Site) -> None:
    assert (await site.judged(await site.send({"model.onnx": b"onnx"}))).version == 1
    assert await site.ready() == {1: {"model.onnx"}}


async def test_a_model_that_does_not_load_gets_no_version_and_a_reason(site: Site) -> None:
    upload = await site.send({"saved_model.pb": b"broken"})
    verdict = await site.judged(upload)
    assert (verdict.state, verdict.version) == ("rejected", None)
    assert verdict.reason == "it does not load: broken"
    assert await site.ready() == {}
    (event,) = site.events
    assert (event["name"], event["model"], event["upload"]) == ("model-rejected", MODEL, upload.id)


async def test_what_is_judged_is_left_alone_and_what_was_rejected_may_come_again(
    site: Site, trials: Trials
) -> None:
    upload = await site.send({"saved_model.pb": b"broken"})
    await site.judged(upload)
    await site.judged(upload)
    assert len(trials.jobs) == 1
    await drop_verdict(site.stores.models, upload)
    await site.judged(upload)
    assert len(trials.jobs) == 2


@pytest.mark.parametrize("passing", range(8))
async def test_killed_between_any_two_writes_it_is_the_same_version_in_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch, passing: int
) -> None:
    upload = await site.send(SAVED)
    writes = Requests(monkeypatch, s3, "write")
    writes.fail(Transient("killed"), after=passing)
    for _ in range(8):
        try:
            await judge_step(site.run())
        except Transient:
            writes.fail(Transient("killed"), after=passing + 3)
    assert (await site.judged(upload)).version == 1
    assert set(await site.ready()) == {1}
    assert set(await versions.complete(site.stores.models, MODEL)) == {1}


async def test_a_zip_that_is_gone_or_changed_is_said_to_its_sender(site: Site) -> None:
    gone, changed = await site.send(SAVED), await site.send(SAVED | {"m/assets/a": b"a"})
    await s3.delete(site.stores.models, [zip_key(MODEL, gone.sha256)])
    await s3.write(site.stores.models, zip_key(MODEL, changed.sha256), zipped(SAVED))
    assert "gone" in (await site.judged(gone)).reason
    assert "not what was sent" in (await site.judged(changed)).reason


async def test_uploads_of_one_second_are_judged_in_the_order_in_which_they_came(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, listed = site.stores.models, s3.listed

    async def in_seconds(store: Any, prefix: str) -> list[dict[str, Any]]:
        second = datetime(2026, 11, 21, 9, tzinfo=UTC)
        return [dict(entry) | {"last_modified": second} for entry in await listed(store, prefix)]

    monkeypatch.setattr(s3, "listed", in_seconds)
    sent = [await site.send(SAVED | {"m/assets/a": bytes([n])}) for n in range(6)]
    came = [replace(upload, received=f"2026-11-21T09:00:00.{n:03}+00:00") for n, upload in enumerate(sent)]
    for upload in came:
        await s3.write(store, upload.key, upload.to_json())
    assert [each.id for each in await uploads.pending_uploads(store)] == [each.id for each in came]
    assert [each.id for each in await uploads.uploads_of(store, MODEL)] == [each.id for each in came]


async def test_what_is_judged_is_listed_no_more_and_an_old_zip_goes(
    site: Site, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await site.send(SAVED), await site.send({"saved_model.pb": b"broken"})
    await site.judged(one)
    store = site.stores.models
    assert [entry["path"] for entry in await s3.listed(store, "uploads/")] == sorted(
        zip_key(MODEL, upload.sha256) for upload in (one, two)
    )
    assert {each.id for each in await uploads.uploads_of(store, MODEL)} == {one.id, two.id}

    monkeypatch.setattr(uploads, "ZIP_KEPT", timedelta(0))
    await drop_verdict(store, two)
    await site.judged(two)
    assert len(trials.jobs) == 3, "the ZIP of what is pending stays"
    await judge_step(site.run())
    assert await s3.listed(store, "uploads/") == []


async def test_what_an_earlier_version_judged_is_put_where_it_belongs(site: Site, trials: Trials) -> None:
    upload, store = await site.send(SAVED), site.stores.models
    verdict = Verdict("ready", upload.id, 7, (), "", "2026-11-21")
    await s3.write(store, upload.key.replace(".json", ".verdict.json"), verdict.to_json())

    await judge_step(site.run())

    assert await read_verdict(store, upload) == verdict
    assert trials.jobs == []
    assert [entry["path"] for entry in await s3.listed(store, "uploads/")] == [zip_key(MODEL, upload.sha256)]


async def test_a_record_that_cannot_be_read_holds_nobody_up(site: Site) -> None:
    await s3.write(site.stores.models, f"uploads/{MODEL}/{'0' * 64}.json", b"{}")
    assert (await site.judged(await site.send(SAVED))).version == 1


async def test_a_run_of_an_edge_with_uploads_and_no_images_is_no_failure(site: Site) -> None:
    upload = await site.send(SAVED)
    reporter = Reporter({}, site.events.append)
    outcome = await run_pipeline(site.run(), reporter)
    await asyncio.sleep(0)
    assert (outcome.state, outcome.version) == ("skipped", None)
    verdict = await read_verdict(site.stores.models, upload)
    assert verdict is not None
    assert verdict.version == 1
    assert [event for event in site.events if event["name"] == "model-rejected"] == []


async def test_an_operator_goes_back_to_an_upload(site: Site) -> None:
    await site.judged(await site.send(SAVED))
    await site.judged(await site.send({"saved_model.pb": b"other"}))
    published = await rollback(site.stores, MODEL, 1, None)
    assert (published.manifest.version, published.manifest.lineage.rollback_of) == (3, 1)
    assert set(await site.ready()) == {1, 2, 3}


async def test_while_a_rollback_holds_an_upload_is_judged_and_kept_until_the_release(site: Site) -> None:
    await site.judged(await site.send(SAVED))
    await rollback(site.stores, MODEL, 1, None)
    older = await site.send({"saved_model.pb": b"other"})
    first = await site.judged(older)
    newer = await site.send({"saved_model.pb": b"third"})
    second = await site.judged(newer)
    assert [(first.state, first.version), (second.state, second.version)] == [("held", 3), ("held", 4)]
    assert "rolled back to version 1" in first.reason
    assert set(await site.ready()) == {1, 2}
    assert {event["version"] for event in site.events if event["name"] == "model-rejected"} == {3, 4}

    await release(site.stores, MODEL, None)

    assert set(await site.ready()) == {1, 2, 4}
    verdict = await read_verdict(site.stores.models, newer)
    assert verdict is not None
    assert (verdict.state, verdict.version, verdict.reason) == ("ready", 4, "")
    verdict = await read_verdict(site.stores.models, older)
    assert verdict is not None
    assert (verdict.state, verdict.version) == ("rejected", None)
    assert "send it again" in verdict.reason
    await drop_verdict(site.stores.models, older)
    again = await site.judged(older)
    assert (again.state, again.version) == ("ready", 5)


# --- under the name of the model that is trained here -------------------------------------------


async def images(site: Site, count: int = 12) -> None:
    for name in ("boot", "top"):
        for seed in range(count):
            target = io.BytesIO()
            Image.fromarray(np.full((9, 9, 3), seed + 99 * (name == "top"), np.uint8)).save(target, "PNG")
            await s3.write(site.stores.data, f"images/{name}/{seed}.png", target.getvalue())


class Features:
    """Stands in for the backbone: all images look alike."""

    def __call__(self, wanted: list[Any]) -> list[Any]:
        return [np.ones((len(image.views), COLUMNS), np.float32) for image in wanted]


async def test_under_the_trained_models_name_it_is_held_against_the_version_that_serves(
    site: Site, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = site.settings.model_name
    assert (await site.judged(await site.send(SAVED, name))).version == 1
    assert trials.jobs[-1].contract
    await images(site)
    run = site.run()
    embedder: Any = Features
    monkeypatch.setattr(site, "run", lambda: replace(run, embedder=embedder))

    async def ask(_: Any, out: Any, __: float) -> Any:
        return [Answer(sha, truth, truth, 1.0) for sha, truth in out.truths]

    monkeypatch.setattr("training.parent.ask", ask)
    monkeypatch.setattr(judge, "tried", all_wrong)
    worse = await site.judged(await site.send({"saved_model.pb": b"worse"}, name))
    assert worse.state == "rejected"
    assert "worse than version 1" in worse.reason
    monkeypatch.setattr(judge, "tried", trials.tried)
    silent = await site.judged(await site.send({"saved_model.pb": b"silent"}, name))
    assert "every held-out image" in silent.reason
    assert set(await site.ready(name)) == {1}


async def all_wrong(job: Job, _: float) -> Found:
    assert job.contract
    return Found(None, (), tuple(("neither", 0.9) for _ in job.images))


async def test_a_model_of_another_name_may_be_for_one_edge_of_a_group_alone(tmp_path: Path) -> None:
    site, group = Site(tmp_path), Site(tmp_path)
    site.settings = TrainingSettings(edges=("edge1", "edge2"), edge_groups={"north": ("edge1", "edge2")})
    other = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge2")
    group.settings = site.settings
    group.stores = replace(group.stores, edge="north", members=(site.stores, other))
    own = await site.send(SAVED, "shelves")
    refused = await site.send(SAVED)
    shared = await group.send(SAVED)

    await judge_step(replace(group.run(), edge="north"))
    await share_step(group.run())
    assert (await read_verdict(site.stores.models, own)).state == "ready"  # type: ignore[union-attr]
    verdict = await read_verdict(site.stores.models, refused)
    assert verdict is not None
    assert (verdict.state, verdict.reason) == (
        "rejected",
        f"edge1 shares {MODEL} with the group north: send it to north",
    )
    verdict = await read_verdict(group.stores.models, shared)
    assert verdict is not None
    assert (verdict.state, verdict.version) == ("ready", 1)
    assert {n: set(files) for n, files in (await versions.stored(site.stores.ready, MODEL)).items()} == {
        1: {"manifest.json"}
    }
    assert set(await site.ready("shelves")) == {1}
    assert await versions.stored(other.ready, "shelves") == {}
    told = [(event["name"], event["model"], event.get("edge")) for event in group.events]
    assert sorted(told, key=str) == [
        ("model-ready", MODEL, "edge1"),
        ("model-ready", MODEL, "edge2"),
        ("model-ready", "shelves", "edge1"),
        ("model-rejected", MODEL, "edge1"),
    ]
