"""A whole run, from images in a bucket to a version in another, on stores in memory."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from obstore.store import MemoryStore
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image, ImageDraw

from caravan import model_signature, s3, tracing
from caravan.contracts import HEAD, TWIN
from caravan.errors import Permanent, Transient
from caravan.groups import Products, learners, sharing, sources
from caravan.manifest import Manifest, Shared
from caravan.members import members_key, read_members
from caravan.provenance import Provenance
from caravan.quarantine import read_page, read_quarantine, read_waiting, release_batch
from caravan.receipts import ImageReceipt, Receipt, receipt_key
from caravan.signatures import PrivateKey, digests_of, verify
from caravan.testing.stores import Requests
from caravan.withdrawn import Withdrawn, batch_tombstone_key, tombstone_key
from caravan_cli.which import which
from support.files import as_file
from training import steps, versions
from training.embeddings import COLUMNS, Wanted
from training.events import Reporter
from training.fit import fit
from training.head import Array, Head
from training.layer import Curves
from training.pipeline import Outcome, run_pipeline
from training.publish import rollback
from training.reference import read_reference
from training.release import release
from training.samples import Samples
from training.settings import TrainingSettings
from training.sharing import unsettled
from training.steps import Run, share_step
from training.stores import Stores
from training.workspace import Workspace

MODEL = "tea_model_b64"


def picture(name: str, seed: int) -> bytes:
    rng = np.random.default_rng([seed, len(name)])
    image = Image.fromarray(rng.integers(90, 180, (120, 120, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = (int(v) for v in rng.integers(5, 40, 2))
    if name == "red-box":
        draw.rectangle((x, y, x + 70, y + 50), fill=(200, 30, 30))
    elif name == "blue-ball":
        draw.ellipse((x, y, x + 70, y + 70), fill=(30, 60, 200))
    elif name == "green-rod":
        draw.rectangle((x, 0, x + 15, 120), fill=(20, 160, 40))
    return as_file(image, "JPEG", quality=90)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Colours:
    """Stands in for the backbone: features are the colours of a small copy."""

    def __call__(self, wanted: Sequence[Wanted]) -> list[Array | str]:
        answers = [(self.one(image.file), len(image.views)) for image in wanted]
        return [row if isinstance(row, str) else np.tile(row, (views, 1)) for row, views in answers]

    def one(self, file: Path) -> Array | str:
        try:
            with Image.open(file) as image:
                small = np.asarray(image.convert("RGB").resize((12, 12)), np.float32).ravel() / 255
        except OSError:
            return "the image is damaged"
        return np.pad(small - 0.5, (0, COLUMNS - small.size)).astype(np.float32)


class Exports:
    """Stands in for TensorFlow; what it writes and tries is the business of the tests of the export."""

    async def start(self) -> None:
        pass

    async def export(self, directory: Path) -> None:
        for name in ("saved_model.pb", "variables/variables.index", TWIN):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(name.encode())

    async def fault_of(self, *_: Any) -> str | None:
        return None


class Site:
    """The buckets of an edge, or of a group of edges, and a machine that trains for it."""

    def __init__(self, directory: Path, name: str = "edge1", *members: Stores) -> None:
        self.directory, self.cache = directory, directory / "cache"
        self.stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), name, members)
        self.events: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    async def upload(self, *classes: str, count: int = 10, first: int = 0, to: Stores | None = None) -> None:
        for name in classes:
            for seed in range(first, first + count):
                await s3.write((to or self.stores).data, f"images/{name}/{seed}.jpg", picture(name, seed))

    def opened(self) -> Run:
        edge, edges = self.stores.edge, tuple(member.edge for member in self.stores.sources)
        groups = {edge: edges} if self.stores.members else {}
        settings = TrainingSettings(cache_dir=self.cache, edges=edges, edge_groups=groups, **self.facts)
        self.reporter = Reporter({"edge": edge}, self.events.append)
        space = Workspace(self.directory / "work")
        embedder: Any = Colours
        exporter: Any = Exports()
        progress, emit = self.reporter.progress, self.events.append
        return Run(settings, edge, self.stores, space, embedder, exporter, progress, emit, f"run-of-{edge}")

    async def run(self, *, again: bool = False) -> Outcome:
        run = self.opened()
        try:
            return await run_pipeline(run, self.reporter, again=again)
        finally:
            await asyncio.sleep(0)  # The last progress comes from a thread.

    def join(self, *more: Stores) -> None:
        self.stores = replace(self.stores, members=(*self.stores.members, *more))

    async def take_out(self, *classes: str, count: int = 10, first: int = 0) -> None:
        keys = [f"images/{name}/{seed}.jpg" for name in classes for seed in range(first, first + count)]
        await s3.delete(self.stores.data, keys)

    async def newest(self) -> Manifest:
        found = await versions.newest_complete(self.stores.ready, MODEL)
        assert found is not None
        return found

    async def ready(self) -> set[int]:
        return set(await versions.complete(self.stores.ready, MODEL))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["name"] == name]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def knows_nothing(samples: Samples, seed: int) -> tuple[Head, Curves]:
    """Train a head that answers `other` to everything."""
    head, curves = fit(samples, seed)
    return Head(**(vars(head) | {"thresholds": head.thresholds + 9})), curves


async def test_the_steps_of_a_run_are_spans_and_the_version_tells_of_the_trace(
    site: Site, spans: InMemorySpanExporter
) -> None:
    parent = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    await site.upload("red-box", "other")
    with tracing.following(parent):
        await site.run()
    found = spans.get_finished_spans()
    assert [span.name for span in found] == ["acquire", "train", "evaluate", "publish"]
    assert {f"{span.context.trace_id:032x}" for span in found} == {parent["traceparent"][3:35]}
    assert dict(found[-1].attributes or {}) == {"model": MODEL, "version": 1}
    facts = await s3.facts(site.stores.ready, f"models/{MODEL}/1/manifest.json")
    assert facts["traceparent"][:52] == f"{parent['traceparent'][:36]}{found[-1].context.span_id:016x}"


async def test_a_new_class_makes_a_new_version_that_is_judged_beside_its_parent(site: Site) -> None:
    await site.upload("red-box", "other")
    first = await site.run()
    assert (first.state, first.version) == ("ready", 1)
    await site.upload("blue-ball")
    second = await site.run()
    assert (second.state, second.version) == ("ready", 2)
    manifest = (await versions.complete(site.stores.ready, MODEL))[2]
    lineage = manifest.lineage
    assert lineage.parent == 1
    assert lineage.classes == ("blue-ball", "other", "red-box")
    assert lineage.metrics["parent_accuracy"] < lineage.metrics["accuracy"]
    assert lineage.metrics["images"] == {"blue-ball": 10, "other": 10, "red-box": 10}
    paths = {file.path for file in manifest.files}
    assert {"saved_model.pb", "variables/variables.index", "report/index.html"} <= paths
    assert [event["version"] for event in site.named("model-ready")] == [1, 2]
    stages = [event["stage"] for event in site.named("training")]
    assert list(dict.fromkeys(stages)) == ["acquire", "train", "evaluate", "publish", "done"]


async def test_the_same_data_is_not_trained_on_twice_unless_asked(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await s3.write(site.stores.data, "images/red-box/a-copy.jpg", picture("red-box", 0))
    skipped = await site.run()
    assert (skipped.state, skipped.version) == ("skipped", 1)
    assert len(site.named("model-ready")) == 1
    assert (await site.run(again=True)).version == 2


async def test_a_run_ends_with_the_oldest_versions_removed_and_well_if_they_cannot_be(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.facts["retain_versions"] = 1
    await site.upload("red-box", "other")
    deletes = Requests(monkeypatch, s3, "delete")
    deletes.fail(Transient("the store is away"))
    for number in (1, 2, 3):
        assert (await site.run(again=True)).version == number
    assert set(await versions.complete(site.stores.models, MODEL)) == {1, 2, 3}
    deletes.mend()
    assert (await site.run()).state == "skipped"
    assert set(await versions.complete(site.stores.models, MODEL)) == await site.ready() == {2, 3}


async def test_a_worse_version_is_kept_back_and_the_next_trigger_does_not_train_it_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("red-box", first=10)
    monkeypatch.setattr(steps, "fit", knows_nothing)
    outcome = await site.run()
    assert (outcome.state, outcome.version) == ("rejected", 2)
    assert "worse than version 1" in str(outcome.reason)
    assert await site.ready() == {1}
    assert set(await versions.complete(site.stores.models, MODEL)) == {1, 2}
    assert site.named("model-rejected")[0]["reason"] == outcome.reason
    assert (await site.run()).state == "skipped"
    assert await site.ready() == {1}


@pytest.mark.parametrize("held_out_before", [False, True])
async def test_a_version_of_before_members_were_noted_is_compared_with_only_on_what_it_held_out(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, held_out_before: bool
) -> None:
    """What such a version learnt from it knows by heart, and whatever comes after it looked worse."""

    async def upload(count: int) -> None:
        for name in ("red-box", "other"):
            pictures = (picture(name, seed) for seed in range(1000))
            chosen = (each for each in pictures if (sha(each)[0] in "012") == held_out_before)
            for place, content in zip(range(count), chosen, strict=False):
                await s3.write(site.stores.data, f"images/{name}/{place}.jpg", content)

    await upload(10)
    await site.run()
    first = await site.newest()
    metrics = {name: fact for name, fact in first.lineage.metrics.items() if name != "members"}
    before = replace(first, lineage=replace(first.lineage, metrics=metrics))
    await s3.write(site.stores.ready, f"models/{MODEL}/1/manifest.json", before.to_json())
    await upload(20)
    monkeypatch.setattr(steps, "fit", knows_nothing)
    outcome = await site.run()
    assert outcome.state == ("rejected" if held_out_before else "ready"), outcome.reason


@pytest.mark.parametrize("passing", [0, 2, 4, 6, 9])
async def test_a_run_killed_while_it_publishes_is_finished_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch, passing: int
) -> None:
    await site.upload("red-box", "other")
    writes = Requests(monkeypatch, s3, "write")
    writes.fail(Transient("killed"), after=passing)
    with pytest.raises(Transient):
        await site.run()
    writes.mend()
    outcome = await site.run()
    assert outcome.version == 1
    assert await site.ready() == {1}
    assert set(await versions.complete(site.stores.models, MODEL)) == {1}
    assert [event["version"] for event in site.named("model-ready")] == [1]


async def test_a_run_writes_its_head_once_beside_the_model_made_of_it(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    (head,) = (site.directory / "work").rglob("head.npz")
    assert await s3.read(site.stores.ready, f"models/{MODEL}/1/{HEAD}") == head.read_bytes()


async def test_a_parent_that_cannot_be_read_does_not_hold_up_its_successor(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    manifest = (await versions.complete(site.stores.ready, MODEL))[1]
    (head,) = [file for file in manifest.files if file.path.endswith("head.npz")]
    await s3.write(site.stores.ready, f"models/{MODEL}/1/{head.path}", b"x" * head.size)
    await site.upload("blue-ball")
    assert (await site.run()).state == "ready"
    report = await s3.read(site.stores.ready, f"models/{MODEL}/2/report/index.html")
    assert b"could not be compared with the version before" in report
    assert b"is not what its manifest says" in report


async def test_what_judged_an_accepted_version_judges_all_later_ones_under_its_first_label(
    site: Site,
) -> None:
    await site.upload("red-box", "blue-ball", "other", count=12)
    await site.run()
    labels = (await read_reference(site.stores.models, MODEL, Withdrawn())).labels
    assert set(labels.values()) == {"red-box", "blue-ball", "other"}

    for seed in range(12):  # A batch that says that all red boxes are blue balls.
        await s3.write(site.stores.data, f"images/blue-ball/again-{seed}.jpg", picture("red-box", seed))
    await site.upload("red-box", count=12, first=12)
    await site.run()

    manifest = (await versions.complete(site.stores.models, MODEL))[2]
    assert manifest.lineage.metrics["reference"] == len(labels)
    key, digest = members_key(MODEL, 2), manifest.lineage.metrics["members"]
    members = [member async for member in read_members(site.stores.models, key, digest)]
    asked = {sha: name for role, name, sha in members if role == "held-out"}
    assert labels.items() <= asked.items()
    assert not labels.keys() & {sha for role, _, sha in members if role == "learnt"}
    after = (await read_reference(site.stores.models, MODEL, Withdrawn())).labels
    assert labels.items() <= after.items()


async def send_in_a_batch(
    site: Site, batch: str, label: str, like: str, count: int, *, to: Stores | None = None
) -> set[str]:
    """Store photos of one product under a label, as the feeder does; return their SHA-256."""
    told, data = [], (to or site.stores).data
    for seed in range(count):
        content, key = picture(like, 500 + seed), f"images/{label}/{batch}-{seed}.jpg"
        await s3.write(data, key, content)
        told.append(ImageReceipt(key, "stored", key, hashlib.sha256(content).hexdigest(), size=len(content)))
    receipt = Receipt("done", "edge1", batch, 9, 0, 1, "then", "now", tuple(told))
    await s3.write(data, receipt_key(batch), receipt.to_json())
    return {image.sha256 for image in told}


async def test_a_batch_that_the_version_contradicts_waits_for_a_person_and_the_run_goes_on(
    site: Site,
) -> None:
    await site.upload("red-box", "green-rod", "other", count=15)
    await site.run()
    bad = await send_in_a_batch(site, "bad1", "green-rod", "red-box", 12)
    await site.upload("blue-ball")

    assert (await site.run()).version == 2
    assert [(event["batch"], event["images"]) for event in site.named("quarantine")] == [("bad1", 12)]
    (held,) = await read_quarantine(site.stores.data)
    assert {sha for _, sha in held.images} == bad
    assert "12 photos labelled green-rod are surely red-box" in held.reason
    assert (await read_page(site.stores.data, "bad1")).count(b"data:image/webp") == 12
    assert (await site.newest()).lineage.metrics["images"]["green-rod"] == 15
    assert (await site.run()).state == "skipped"
    assert len(site.named("quarantine")) == 1

    await release_batch(site.stores.data, "bad1")
    assert (await site.run()).version == 3
    images = (await versions.complete(site.stores.models, MODEL))[3].lineage.metrics["images"]
    assert images["green-rod"] == 27
    assert len(site.named("quarantine")) == 1


async def test_photos_that_were_released_are_learnt_from_though_another_batch_brought_them_too(
    site: Site,
) -> None:
    await site.upload("red-box", "green-rod", "other", count=15)
    await site.run()
    for batch in ("zipped", "zipped-again"):
        await send_in_a_batch(site, batch, "green-rod", "red-box", 12)
        await site.run()
    (held,) = await read_quarantine(site.stores.data)
    await release_batch(site.stores.data, held.batch)
    assert (await site.run()).version == 2
    assert (await site.newest()).lineage.metrics["images"]["green-rod"] == 27


async def test_what_stays_of_a_withdrawn_batch_waits_as_the_batch_that_brought_it_too(site: Site) -> None:
    await site.upload("red-box", "green-rod", "other", count=15)
    await site.run()
    for batch in ("zipped", "zipped-again"):
        await send_in_a_batch(site, batch, "green-rod", "red-box", 12)
    await site.run()
    (held,) = await read_waiting(site.stores.data)
    await s3.write(site.stores.data, batch_tombstone_key(held.batch), b"{}")
    await site.run()
    (other,) = await read_waiting(site.stores.data)
    assert {held.batch, other.batch} == {"zipped", "zipped-again"}
    assert len(other.images) == 12


async def test_with_nothing_else_that_is_new_a_batch_in_quarantine_trains_no_version(site: Site) -> None:
    await site.upload("red-box", "green-rod", "other", count=15)
    await site.run()
    await send_in_a_batch(site, "bad1", "green-rod", "red-box", 12)
    outcome = await site.run()
    assert (outcome.state, outcome.version) == ("skipped", 1)
    assert await site.ready() == {1}


async def test_data_that_cannot_be_trained_on_is_refused_with_the_reason(site: Site) -> None:
    await site.upload("red-box")
    with pytest.raises(Permanent, match="only one class"):
        await site.run()
    (rejected,) = site.named("model-rejected")
    assert rejected["version"] is None
    assert "only one class" in rejected["reason"]
    assert site.events[-1]["stage"] == "failed"
    assert await site.ready() == set()


async def test_a_damaged_image_is_left_aside_and_counted(site: Site) -> None:
    await site.upload("red-box", "other")
    await s3.write(site.stores.data, "images/red-box/bad.jpg", picture("red-box", 99)[:200])
    await s3.write(site.stores.data, "images/other/also-red.jpg", picture("red-box", 0))
    assert (await site.run()).state == "ready"
    metrics = (await versions.complete(site.stores.ready, MODEL))[1].lineage.metrics
    assert (metrics["unreadable"], metrics["contradictory"]) == (1, 1)
    assert metrics["images"] == {"other": 10, "red-box": 9}


# --- a rollback holds ---------------------------------------------------------------------------


async def test_after_a_rollback_an_upload_is_learnt_and_held_until_the_release(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("blue-ball")
    await site.run()
    await rollback(site.stores, MODEL, 1, key=None)
    await site.upload("red-box", count=3, first=10)
    reference = await read_reference(site.stores.models, MODEL, Withdrawn())

    outcome = await site.run()

    assert (outcome.state, outcome.version) == ("held", 4)
    assert await read_reference(site.stores.models, MODEL, Withdrawn()) == reference
    assert "an operator rolled back to version 1" in str(outcome.reason)
    assert (await site.newest()).version == 3
    assert set(await versions.complete(site.stores.models, MODEL)) == {1, 2, 3, 4}
    (told,) = site.named("model-rejected")
    assert (told["version"], told["held"], told["reason"]) == (4, True, outcome.reason)
    done = [event for event in site.named("training") if event["stage"] == "done"][-1]
    assert (done["outcome"], done["reason"]) == ("held", outcome.reason)
    again = await site.run()
    assert (again.state, again.version) == ("held", 4)

    published = await release(site.stores, MODEL, None)
    assert published is not None
    assert (await site.newest()).version == 4
    assert (await site.run()).state == "skipped"
    await site.upload("red-box", count=3, first=20)
    outcome = await site.run()
    assert (outcome.state, outcome.version) == ("ready", 5)


async def test_while_a_rollback_holds_the_version_it_went_back_from_does_not_come_back(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("blue-ball")
    await site.run()
    await rollback(site.stores, MODEL, 1, key=None)
    outcome = await site.run()
    assert (outcome.state, outcome.version) == ("held", 2)
    assert set(await versions.complete(site.stores.models, MODEL)) == {1, 2, 3}
    assert (await site.newest()).version == 3
    assert await release(site.stores, MODEL, None) is None
    assert (await site.newest()).version == 3
    outcome = await site.run()
    assert (outcome.state, outcome.version) == ("ready", 4)
    assert (await site.newest()).lineage.rollback_of == 2


async def test_a_publish_that_was_cut_off_before_a_rollback_is_held_by_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("blue-ball")
    with monkeypatch.context() as patch:

        async def cut_off(*_: Any) -> None:
            raise Transient("killed")

        patch.setattr(versions, "offer", cut_off)
        with pytest.raises(Transient):
            await site.run()
    await rollback(site.stores, MODEL, 1, key=None)
    outcome = await site.run()
    assert (outcome.state, outcome.version) == ("held", 2)
    assert (await site.newest()).version == 3


async def test_the_release_passes_over_a_version_that_learnt_from_what_was_withdrawn_since(
    site: Site,
) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await rollback(site.stores, MODEL, 1, key=None)
    await site.upload("red-box", first=10)
    assert (await site.run()).state == "held"
    await site.upload("red-box", first=20)
    assert (await site.run()).state == "held"
    for seed in range(20, 30):
        sha256 = hashlib.sha256(picture("red-box", seed)).hexdigest()
        await s3.write(site.stores.data, tombstone_key(sha256, "red-box"), b"{}")
    published = await release(site.stores, MODEL, None)
    assert published is not None
    assert published.manifest.version == 3


# --- what a version was made of -----------------------------------------------------------------


async def test_a_version_says_of_which_images_and_with_what_it_was_made(site: Site) -> None:
    await site.upload("red-box", "other")
    await s3.write(site.stores.data, "images/red-box/bad.jpg", picture("red-box", 99)[:200])
    await site.run()
    key = f"models/{MODEL}/1/members.jsonl.gz"
    raw = await s3.read(site.stores.models, key)
    facts, *lines = (json.loads(line) for line in gzip.decompress(raw).splitlines())
    shas = {
        name: {hashlib.sha256(picture(name, seed)).hexdigest() for seed in range(10)}
        for name in ("red-box", "other")
    }
    for name, of_class in shas.items():
        learnt = {sha for role, item, sha in lines if (role, item) == ("learnt", name)}
        out = {sha for role, item, sha in lines if (role, item) == ("held-out", name)}
        assert learnt | out == of_class
        assert learnt
        assert out
        assert not learnt & out
    assert len(lines) == 20
    assert facts["seed"] == 0
    assert facts["libraries"]["numpy"] == np.__version__
    assert {"tensorflow", "pillow"} <= facts["libraries"].keys()
    manifest = (await versions.complete(site.stores.ready, MODEL))[1]
    assert manifest.lineage.metrics["members"] == hashlib.sha256(raw).hexdigest()
    assert "members.jsonl.gz" not in {file.path for file in manifest.files}
    with pytest.raises(FileNotFoundError):
        await s3.read(site.stores.ready, key)


async def test_every_version_that_saw_an_image_is_named_also_after_a_rollback(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("blue-ball")
    await site.run()
    await rollback(site.stores, MODEL, 1, key=None)
    old, new = (hashlib.sha256(picture(name, 0)).hexdigest() for name in ("red-box", "blue-ball"))
    for image, expected in ((old, [(1, False), (2, False), (3, True)]), (new, [(2, False)])):
        seen, unknown = await which(site.stores.models, site.stores.ready, {image})
        assert [(one.version, one.serves) for one in seen] == expected
        assert len({one.role for one in seen}) == 1
        assert unknown == []


# --- the version of just the data that there is -------------------------------------------------


async def test_a_batch_that_is_taken_out_goes_on_serving_in_no_version(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("red-box", first=10)
    await site.run()
    await site.take_out("red-box", first=10)

    outcome = await site.run()

    newest = await site.newest()
    assert (outcome.state, outcome.version, newest.version) == ("ready", 3, 3)
    assert newest.lineage.rollback_of == 1
    first = (await versions.complete(site.stores.ready, MODEL))[1]
    assert (newest.files, newest.lineage.data_digest) == (first.files, first.lineage.data_digest)
    assert [event["version"] for event in site.named("model-ready")] == [1, 2, 3]
    assert (await site.run()).state == "skipped"
    await site.upload("red-box", first=10)
    outcome = await site.run()
    assert (outcome.state, (await site.newest()).lineage.rollback_of) == ("ready", 2)


async def test_a_rejected_version_is_tried_again_once_another_serves(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("red-box", count=4, first=10)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "fit", knows_nothing)
        assert (await site.run()).state == "rejected"
    await site.upload("blue-ball")
    assert (await site.run()).version == 3
    await site.take_out("blue-ball")
    outcome = await site.run()
    assert outcome.version == 4
    assert (await site.run()).state == "skipped"


async def test_a_version_of_this_data_that_is_damaged_is_trained_again(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    await site.upload("red-box", first=10)
    await site.run()
    await s3.write(site.stores.models, f"models/{MODEL}/1/saved_model.pb", b"c4ved_model.pb")
    await site.take_out("red-box", first=10)
    outcome = await site.run()
    assert outcome.state == "ready"
    newest = await site.newest()
    assert newest.lineage.rollback_of is None
    assert newest.lineage.metrics["images"] == {"other": 10, "red-box": 10}


async def test_a_model_that_was_made_without_a_twin_is_made_again(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    space = Workspace(site.directory / "work")
    trained = space.read_trained()
    made_of = trained.digest, trained.seed, trained.backbone
    assert space.is_trained(*made_of)
    (space.model / TWIN).unlink()
    assert not space.is_trained(*made_of)


async def test_what_a_step_of_an_earlier_build_wrote_is_read_by_the_next_step(site: Site) -> None:
    await site.upload("red-box", "other")
    await site.run()
    space = Workspace(site.directory / "work")
    trained, written = space.read_trained(), space.directory / "training.json"
    body = json.loads(written.read_bytes())
    body["curves"]["train_accuracy"] = body["curves"]["train_loss"]
    written.write_text(json.dumps(body))
    assert space.read_trained() == trained


# --- a group of edges ----------------------------------------------------------------------------


@pytest.fixture
def north(tmp_path: Path) -> Site:
    return Site(tmp_path, "north", shop("edge1"), shop("edge2"))


def shop(edge: str) -> Stores:
    return Stores(MemoryStore(), MemoryStore(), MemoryStore(), edge)


def alone(member: Stores, directory: Path) -> Site:
    """Return an edge that is in no group, or in none any more."""
    site = Site(directory / member.edge, member.edge)
    site.stores = member
    return site


async def offered(member: Stores) -> dict[int, Manifest]:
    """Return what an edge finds in its `E-ready`."""
    keys = [entry["path"] for entry in await s3.listed(member.ready, f"models/{MODEL}/")]
    found = [Manifest.from_json(await s3.read(member.ready, key)) for key in keys if "manifest" in key]
    return {manifest.version: manifest for manifest in found}


async def test_a_group_learns_from_all_its_edges_and_offers_each_the_same_files(north: Site) -> None:
    one, two = north.stores.members
    await north.upload("red-box", "other", to=one)
    await north.upload("blue-ball", "other", to=two)
    outcome = await north.run()
    assert (outcome.state, outcome.version) == ("ready", 1)
    trained = await north.newest()
    assert trained.lineage.classes == ("blue-ball", "other", "red-box")
    assert trained.lineage.metrics["images"] == {"blue-ball": 10, "other": 10, "red-box": 10}, (
        "an image that two edges have is one"
    )
    for member in north.stores.members:
        (manifest,) = (await offered(member)).values()
        assert (manifest.edge, manifest.shared) == (member.edge, Shared("north", 1))
        assert (manifest.files, manifest.lineage) == (trained.files, trained.lineage)
        paths = [entry["path"] for entry in await s3.listed(member.ready, "")]
        assert paths == ["index.json", f"models/{MODEL}/1/manifest.json"], "the files are the group's"
        assert await s3.listed(member.models, "") == []
    assert (await north.run()).state == "skipped"


async def test_what_one_edge_withdraws_its_group_forgets(north: Site) -> None:
    one, two = north.stores.members
    await north.upload("red-box", "other", to=one)
    await north.upload("red-box", "other", to=two)
    await s3.write(one.data, tombstone_key(hashlib.sha256(picture("red-box", 3)).hexdigest()), b"")
    await north.run()
    assert (await north.newest()).lineage.metrics["images"] == {"other": 10, "red-box": 9}


async def test_a_batch_that_the_groups_version_contradicts_waits_at_the_edge_that_it_came_from(
    north: Site,
) -> None:
    one, two = north.stores.members
    await north.upload("red-box", "green-rod", "other", count=15, to=one)
    await north.run()
    bad = await send_in_a_batch(north, "bad1", "green-rod", "red-box", 12, to=two)
    await north.upload("blue-ball", to=two)
    assert (await north.run()).version == 2
    (held,) = await read_quarantine(two.data)
    assert {sha for _, sha in held.images} == bad
    assert await read_quarantine(one.data) == ()
    assert [event["edge"] for event in north.named("quarantine")] == ["edge2"]
    await release_batch(two.data, "bad1")
    assert (await north.run()).version == 3


async def test_an_edge_that_joins_is_offered_what_the_group_has_under_a_number_above_its_own(
    north: Site, tmp_path: Path
) -> None:
    late = alone(shop("edge3"), tmp_path)
    for count in (10, 12, 14):
        await late.upload("green-rod", "other", count=count)
        await late.run()
    one, _ = north.stores.members
    await north.upload("red-box", "other", to=one)
    await north.run()

    ready = {member.edge: member.ready for member in (*north.stores.members, late.stores)}
    groups = {"north": ("edge1", "edge2", "edge3")}
    assert await unsettled(ready, {"north": ("edge1", "edge2")}, MODEL) == set()
    assert await unsettled(ready, groups, MODEL) == {"north"}

    north.join(late.stores)
    await share_step(north.opened())
    assert (await offered(late.stores))[4].shared == Shared("north", 1), "at once, before anything is learnt"
    assert await unsettled(ready, groups, MODEL) == set()
    told = sorted((event["edge"], event["version"]) for event in north.named("model-ready"))
    assert told == [("edge1", 1), ("edge2", 1), ("edge3", 4)], "each edge once, by its own number"
    assert (await north.run()).version == 5, "its images are the group's now"
    for member in north.stores.members:
        newest = (await offered(member))[5]
        assert (newest.shared, newest.lineage.classes) == (
            Shared("north", 5),
            ("green-rod", "other", "red-box"),
        )


async def test_an_edge_that_leaves_its_group_goes_back_to_its_own_under_a_higher_number(
    north: Site, tmp_path: Path
) -> None:
    one, two = north.stores.members
    own = alone(one, tmp_path)
    await own.upload("red-box", "other")
    await own.run()
    await north.upload("blue-ball", to=two)
    assert (await north.run()).version == 2
    assert await unsettled({"edge1": one.ready}, {}, MODEL) == {"edge1"}

    outcome = await own.run()
    assert (outcome.state, outcome.version) == ("ready", 3)
    assert (await own.newest()).lineage.classes == ("other", "red-box")
    assert (await offered(one))[3].shared is None
    assert await unsettled({"edge1": one.ready}, {}, MODEL) == set()
    assert (await own.run()).state == "skipped"


async def test_a_rollback_of_a_group_reaches_all_its_edges_and_holds_for_all(north: Site) -> None:
    one, two = north.stores.members
    await north.upload("red-box", "other", to=one)
    await north.run()
    await north.upload("blue-ball", to=two)
    await north.run()
    await rollback(north.stores, MODEL, 1, key=None)
    await north.upload("green-rod", to=two)
    assert (await north.run()).state == "held"
    for member in north.stores.members:
        there = await offered(member)
        assert {number: manifest.shared for number, manifest in there.items()} == {
            number: Shared("north", number) for number in (1, 2, 3)
        }
        assert there[3].lineage.rollback_of == 1
    await release(north.stores, MODEL, None)
    assert [max(await offered(member)) for member in north.stores.members] == [4, 4]


async def test_an_edge_that_cannot_be_offered_a_version_holds_up_neither_the_others_nor_the_next_one(
    north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = north.stores.members
    await north.upload("red-box", "other", to=one)
    real = s3.create

    async def away(store: Any, key: str, *how: Any) -> bool:
        if store is one.ready:
            raise Permanent("the store refuses us this bucket")
        return await real(store, key, *how)

    with monkeypatch.context() as patch:
        patch.setattr(s3, "create", away)
        with pytest.raises(Transient, match="1 edges of north are not offered its version, such as edge1"):
            await north.run()
        await north.upload("blue-ball", to=two)
        with pytest.raises(Transient):
            await north.run()
    assert (set(await offered(one)), set(await offered(two))) == (set(), {1, 2})
    assert (await north.run()).state == "skipped"
    assert {number: each.shared for number, each in (await offered(one)).items()} == {2: Shared("north", 2)}


@pytest.mark.parametrize("kind", ["P-256", "Ed25519"])
async def test_what_a_group_shares_is_signed_for_each_edge(north: Site, tmp_path: Path, kind: str) -> None:
    key: PrivateKey = generate_private_key(SECP256R1()) if kind == "P-256" else Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    north.facts["signing_key"] = tmp_path / "key.pem"
    north.facts["signing_key"].write_bytes(pem)
    one, _ = north.stores.members
    await north.upload("red-box", "other", to=one)
    await north.run()
    for member in north.stores.members:
        raw = await s3.read(member.ready, f"models/{MODEL}/1/manifest.json")
        manifest, public = Manifest.from_json(raw), key.public_key()
        if isinstance(public, Ed25519PublicKey):
            verify(manifest, [public])
        else:
            signature = await s3.read(member.ready, f"models/{MODEL}/1/model.sig")
            signed = model_signature.read(signature, [public])
            assert signed.digests == digests_of(manifest, raw)
            assert signed.provenance == Provenance.of(manifest, "run-of-north")
            assert signed.provenance.owner == "north"


# --- products of one edge, beside its group's -------------------------------------------------------


class Chain:
    """Three edges of a group, and a machine that trains for it and for those with products of their own."""

    def __init__(self, directory: Path, products: Products) -> None:
        self.groups = {"north": ("edge1", "edge2", "edge3")}
        names = ("north", *self.groups["north"])
        self.sites = {name: Site(directory / name, name) for name in names}
        self.shops = {name: site.stores for name, site in self.sites.items()}
        for site in self.sites.values():
            site.cache = directory / "cache"
        self.own(products)

    def own(self, products: Products) -> None:
        """Say anew whose a product is."""
        self.products, shared = products, sharing(self.groups, products)
        for name, site in self.sites.items():
            aside = sources(name, self.groups, products)
            site.stores = replace(
                self.shops[name],
                members=tuple(self.shops[edge] for edge in shared.get(name, ())),
                learns_from=tuple(replace(self.shops[edge], aside=those) for edge, those in aside.items()),
            )

    async def upload(self, edge: str, *classes: str, first: int = 0) -> dict[str, str]:
        """Store images at an edge; return how the runs end that its trigger asks for."""
        await self.sites[edge].upload(*classes, first=first)
        return await self.trigger(edge)

    async def trigger(self, edge: str) -> dict[str, str]:
        owners = learners(edge, self.groups, self.products)
        return {owner: (await self.sites[owner].run()).state for owner in owners}

    async def serves(self, edge: str) -> tuple[int, tuple[str, ...]]:
        """Return number and classes of what an edge is offered."""
        found = await offered(self.shops[edge])
        return max(found), tuple(found[max(found)].lineage.classes)

    async def everything(self) -> dict[str, bytes]:
        """Return all that is in the buckets of versions."""
        return {
            f"{name}/{entry['path']}": await s3.read(store, entry["path"])
            for name, shop in self.shops.items()
            for store in (shop.models, shop.ready)
            for entry in await s3.listed(store, "")
        }


@pytest.fixture
async def chain(tmp_path: Path) -> Chain:
    """Edge1 has a product of its own, and all are trained."""
    chain = Chain(tmp_path, {"edge1": ("green-rod",)})
    await chain.sites["edge2"].upload("red-box", "other")
    assert await chain.upload("edge1", "green-rod", "blue-ball") == {"north": "ready", "edge1": "ready"}
    return chain


SHARED = ("blue-ball", "other", "red-box")
OWN = ("blue-ball", "green-rod", "other", "red-box")


async def test_an_edge_serves_its_own_product_beside_its_groups_and_the_others_do_not(chain: Chain) -> None:
    assert [(await chain.serves(edge))[1] for edge in chain.groups["north"]] == [OWN, SHARED, SHARED]
    assert (await offered(chain.shops["edge1"]))[1].shared is None
    assert (await offered(chain.shops["edge3"]))[1].shared == Shared("north", 1)
    own, group = await chain.sites["edge1"].newest(), await chain.sites["north"].newest()
    assert own.lineage.metrics["images"] == {"green-rod": 10} | group.lineage.metrics["images"]
    report = await s3.read(chain.shops["north"].ready, f"models/{MODEL}/1/report/index.html")
    assert b"products of one edge" in report, "where they are counted"
    assert {event["name"] for event in chain.sites["edge1"].events if "version" in event} >= {"model-ready"}


async def test_its_own_product_is_learnt_by_it_alone_and_what_is_shared_by_all(chain: Chain) -> None:
    assert await chain.upload("edge1", "green-rod", first=10) == {"north": "skipped", "edge1": "ready"}
    assert await chain.upload("edge2", "red-box", first=10) == {"north": "ready", "edge1": "ready"}
    assert await chain.upload("edge1", "blue-ball", first=10) == {"north": "ready", "edge1": "ready"}
    assert [(await chain.serves(edge))[1] for edge in chain.groups["north"]] == [OWN, SHARED, SHARED]
    before = await chain.everything()
    assert await chain.trigger("edge3") == {"north": "skipped", "edge1": "skipped"}
    assert await chain.everything() == before, "a repeat does nothing"


async def test_what_another_edge_calls_by_the_name_of_ones_product_teaches_nobody(chain: Chain) -> None:
    assert await chain.upload("edge2", "green-rod", first=50) == {"north": "skipped", "edge1": "skipped"}


async def test_what_judged_a_class_that_is_one_edges_own_now_judges_the_group_under_the_shared_one(
    chain: Chain,
) -> None:
    north = chain.sites["north"]
    chain.own({})
    await chain.upload("edge2", "blue-ball", first=20)
    labels = (await read_reference(north.stores.models, MODEL, Withdrawn())).labels
    rods = {sha for sha, name in labels.items() if name == "green-rod"}
    for content in (picture("green-rod", seed) for seed in range(10)):
        if hashlib.sha256(content).hexdigest() in rods:  # Somebody else says that it is no product.
            await s3.write(chain.shops["edge2"].data, f"images/other/{len(content)}.jpg", content)
    chain.own({"edge1": ("green-rod",)})
    assert (await chain.trigger("edge2"))["north"] == "ready"

    version, metrics = (await north.newest()).version, (await north.newest()).lineage.metrics
    key = members_key(MODEL, version)
    members = [one async for one in read_members(north.stores.models, key, metrics["members"])]
    assert rods
    assert {name for _, name, sha in members if sha in rods} == {"other"}
    kept = (await read_reference(north.stores.models, MODEL, Withdrawn())).labels
    assert {kept[sha] for sha in rods} == {"green-rod"}, "should it be shared again"


async def test_what_others_taught_of_a_class_that_is_one_edges_own_now_judges_that_edges_model_no_more(
    chain: Chain,
) -> None:
    one = chain.sites["edge1"]
    chain.own({"edge1": ("blue-ball",)})  # a model of its own, to which all teach green rods
    await chain.upload("edge2", "green-rod", first=20)
    labels = (await read_reference(one.stores.models, MODEL, Withdrawn())).labels
    of_edge = {
        edge: {hashlib.sha256(picture("green-rod", seed)).hexdigest() for seed in range(first, first + 10)}
        for edge, first in (("edge1", 0), ("edge2", 20))
    }
    rods = {sha: edge for edge, those in of_edge.items() for sha in those if labels.get(sha) == "green-rod"}
    for content in (picture("green-rod", seed) for seed in range(40)):
        if hashlib.sha256(content).hexdigest() in rods:  # Somebody else says that it is no product.
            await s3.write(chain.shops["edge3"].data, f"images/other/{len(content)}.jpg", content)
    chain.own({"edge1": ("blue-ball", "green-rod")})
    assert (await chain.trigger("edge3"))["edge1"] == "ready"

    version, metrics = (await one.newest()).version, (await one.newest()).lineage.metrics
    key = members_key(MODEL, version)
    members = [each async for each in read_members(one.stores.models, key, metrics["members"])]
    now = {sha: name for _, name, sha in members if sha in rods}
    assert set(rods.values()) == {"edge1", "edge2"}
    assert now == {sha: "green-rod" if edge == "edge1" else "other" for sha, edge in rods.items()}
    kept = (await read_reference(one.stores.models, MODEL, Withdrawn())).labels
    assert {kept[sha] for sha in rods} == {"green-rod"}, "should it be shared again"


async def test_an_image_is_embedded_once_for_the_group_and_for_the_edge(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(self: Colours, file: Path) -> Array | str:
        asked.append(file.name)
        return real(self, file)

    real = Colours.one
    monkeypatch.setattr(Colours, "one", counting)
    assert await chain.upload("edge2", "red-box", first=10) == {"north": "ready", "edge1": "ready"}
    assert len(asked) == len(set(asked)) == 10


async def test_runs_that_are_killed_anywhere_end_as_if_they_were_not(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing = 0
    for number in range(1, 12):
        first, killed = 10 * number, True
        await chain.sites["edge2"].upload("red-box", first=first, count=2)
        writes = Requests(monkeypatch, s3, "write")
        writes.fail(Transient("killed"), after=passing)
        try:
            await chain.trigger("edge2")
            killed = False
        except Transient:
            writes.mend()
            await chain.trigger("edge2")
        writes.mend()
        for name in ("north", "edge1"):
            found = await versions.complete(chain.shops[name].ready, MODEL)
            digests = [found[version].lineage.data_digest for version in sorted(found)]
            assert len(digests) == number + 1 == len(set(digests)), "one version of each data, whole"
        if not killed:
            break
        passing += 3
    assert not killed
    assert passing > 9


async def test_its_versions_are_rolled_back_and_released_by_themselves(chain: Chain) -> None:
    await chain.upload("edge1", "green-rod", first=10)
    await rollback(chain.sites["edge1"].stores, MODEL, 1, key=None)
    assert await chain.upload("edge2", "red-box", first=10) == {"north": "ready", "edge1": "held"}
    assert (await offered(chain.shops["edge1"]))[3].lineage.rollback_of == 1
    await release(chain.sites["edge1"].stores, MODEL, None)
    newest = await chain.sites["edge1"].newest()
    assert newest.lineage.metrics["images"]["red-box"] == 20


async def test_what_is_withdrawn_anywhere_in_the_group_is_withdrawn_from_its_model(chain: Chain) -> None:
    gone = hashlib.sha256(picture("red-box", 3)).hexdigest()
    await s3.write(chain.shops["edge3"].data, tombstone_key(gone), b"")
    assert await chain.trigger("edge3") == {"north": "ready", "edge1": "ready"}
    for name in ("north", "edge1"):
        images = (await chain.sites[name].newest()).lineage.metrics["images"]
        assert images["red-box"] == 9


async def test_a_batch_of_another_edge_is_not_kept_back_by_the_version_of_one(chain: Chain) -> None:
    # What edge1 has for itself the group does not know: for edge1's version it is wrongly labelled.
    await send_in_a_batch(chain.sites["edge2"], "odd", "red-box", "green-rod", 12)
    await chain.trigger("edge2")
    assert await read_quarantine(chain.shops["edge2"].data) == ()
    bad = await send_in_a_batch(chain.sites["edge1"], "bad", "green-rod", "blue-ball", 12)
    await chain.trigger("edge1")
    (held,) = await read_quarantine(chain.shops["edge1"].data)
    assert {sha for _, sha in held.images} == bad
    (event,) = chain.sites["edge1"].named("quarantine")
    assert event["batch"] == "bad"


async def test_an_edge_that_has_no_product_of_its_own_any_more_shares_again_under_a_higher_number(
    chain: Chain,
) -> None:
    await chain.upload("edge1", "green-rod", first=10)
    ready = {edge: chain.shops[edge].ready for edge in chain.groups["north"]}
    assert await unsettled(ready, sharing(chain.groups, chain.products), MODEL) == set()

    chain.own({})
    assert await unsettled(ready, sharing(chain.groups, {}), MODEL) == {"north"}
    assert await chain.trigger("north") == {"north": "ready"}
    found = [(await offered(chain.shops[edge])) for edge in chain.groups["north"]]
    assert len({max(each) for each in found}) == 1
    assert max(found[0]) > 2, "above all that it had by itself"
    for each in found:
        newest = each[max(each)]
        assert newest.shared is not None
        assert newest.lineage.classes == OWN, "the product is everyone's now"

    chain.own({"edge1": ("green-rod",)})
    assert await unsettled(ready, sharing(chain.groups, chain.products), MODEL) == {"edge1"}
    assert await chain.trigger("edge1") == {"north": "ready", "edge1": "ready"}
    assert [(await chain.serves(edge))[1] for edge in chain.groups["north"]] == [OWN, SHARED, SHARED]
    assert (await chain.serves("edge1"))[0] > max(found[0])
