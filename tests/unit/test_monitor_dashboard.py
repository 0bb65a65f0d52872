"""monitor: what the dashboard makes of events, statuses and dead letters, and how little it tells of many."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from obstore.store import MemoryStore, ObjectStore
from PIL import Image
from pydantic import ValidationError

from caravan import contracts, evidence, model_index
from caravan.contracts import to_json
from caravan.errors import BadInput
from caravan.history import History
from caravan.rollout import Rollout, Told
from caravan.testing.waiting import running, until
from caravan.times import iso
from monitor import hub_messages
from monitor.dashboard import frames, news, ready, versions
from monitor.dashboard.dead_letters import KEPT, DeadLetters
from monitor.dashboard.edge import SILENT_SECONDS, Edge
from monitor.dashboard.messages import ModelStatus, Refusal, Status, read_event, read_status
from monitor.dashboard.source import take
from monitor.dashboard.state import Dashboard
from monitor.hub_feed import Feed
from monitor.hub_state import Hub, HubLimits
from monitor.settings import MonitorSettings
from shopper.canary.telling import picture_message
from support.files import as_file

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
WEB = Path(__file__).parents[2] / "services/monitor/monitor/dashboard/web"


def record(topic: str, offset: int, value: bytes, at: float = NOW, **more: Any) -> ConsumerRecord:
    facts = {
        "topic": topic,
        "partition": 0,
        "offset": offset,
        "timestamp": int(at * 1000),
        "timestamp_type": 0,
        "key": None,
        "value": value,
        "checksum": None,
        "serialized_key_size": 0,
        "serialized_value_size": len(value),
        "headers": (),
    }
    return ConsumerRecord(**(facts | more))


class Bench:
    """A dashboard with topics before it, and a clock in hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.feed = Feed()
        self.letters = DeadLetters()
        groups = {"north": ("edge1", "edge2")}
        self.state = Dashboard(
            ("edge1", "edge2", "edge3"), self.feed, self.letters.as_json, lambda: self.now, groups
        )
        self.hub = Hub(HubLimits(), self.state.tell, NOW)
        self.state.shows(self.hub)
        self.history = History(lambda: None, clock=lambda: self.now)
        self.offsets: dict[str, int] = {}
        self.records: list[ConsumerRecord] = []
        self.state.start_over()
        self.state.tick()
        self.told = self.feed.last

    def event(self, event: dict[str, Any], edge: str = "edge1", at: float | None = None) -> None:
        self._take(edge, to_json(event), at)

    def status(self, edge: str = "edge1", at: float | None = None, **models: Any) -> None:
        body = {"schema": 1, "edge": edge, "central": "ok", "model_server": "ok", "models": models}
        self._take(contracts.EDGE_STATUS, to_json(body), at, key=edge.encode())

    def _take(self, topic: str, value: bytes, at: float | None, **more: Any) -> None:
        offset = self.offsets[topic] = self.offsets.get(topic, -1) + 1
        self.records.append(record(topic, offset, value, self.now if at is None else at, **more))
        take(self.state, self.records[-1], "dashboard", self.history)

    def edge(self, name: str = "edge1") -> dict[str, Any]:
        shown: dict[str, Any] = next(e for e in self.state.snapshot()["edges"] if e["edge"] == name)
        return shown

    def frames(self) -> list[dict[str, Any]]:
        self.state.tick()
        changes = self.feed.after(self.told) or []
        self.told = self.feed.last
        return [json.loads(change.data) for change in changes]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def model(serving: int, **more: Any) -> dict[str, Any]:
    known = {"serving": serving, "serving_since": "2026-11-21T11:00:00+00:00", "at_edge": [serving]}
    return {**known, "fault": None, "waiting": [], "refused": [], **more}


# --- an upload, a training, a version -----------------------------------------------------------


def test_an_upload_counts_up_and_is_done_once_training_is_asked_for(bench: Bench) -> None:
    for _ in range(3):
        bench.event(contracts.zipfile_event())
    assert (bench.edge()["upload"]["state"], bench.edge()["upload"]["images"]) == ("storing", 3)
    bench.event(contracts.pipeline_event(3))
    assert (bench.edge()["upload"]["state"], bench.edge()["upload"]["files"]) == ("done", 3)
    bench.event(contracts.zipfile_event())
    assert (bench.edge()["upload"]["state"], bench.edge()["upload"]["images"]) == ("storing", 1)
    assert bench.edge("edge2")["upload"] is None


def test_a_batch_in_quarantine_is_told_of(bench: Bench) -> None:
    bench.event(contracts.quarantine_event("9f86", 61, "61 of 61 photos labelled lemon are surely green"))
    (frame,) = bench.frames()
    assert (
        frame["log"][0]["text"]
        == "a batch waits for a person: 61 of 61 photos labelled lemon are surely green"
    )


def test_a_training_shows_its_stage_and_how_it_ended(bench: Bench) -> None:
    bench.event(contracts.training_event("train", 0.4, run="a"))
    training = bench.edge()["training"]
    assert (training["doing"], training["progress"], training["running"]) == ("learning", 0.4, True)
    bench.event(contracts.model_rejected_event("tea", 2, "it is worse"))
    bench.event(contracts.training_event("done", 1, run="a", version=2, outcome="rejected"))
    assert bench.edge()["training"]["running"] is False
    assert bench.edge()["rejected"] == {
        "model": "tea",
        "version": 2,
        "reason": "it is worse",
        "at": "2026-11-21T12:00:00.000+00:00",
    }
    bench.event(contracts.model_ready_event("tea", 3))
    assert bench.edge()["rejected"] is None


def test_a_word_that_was_overtaken_by_the_last_one_starts_no_new_run(bench: Bench) -> None:
    bench.event(contracts.training_event("done", 1, run="a"))
    bench.event(contracts.training_event("publish", 1, run="a"))
    assert bench.edge()["training"]["running"] is False
    bench.event(contracts.training_event("acquire", 0.1, run="b"))
    assert bench.edge()["training"]["running"] is True


def test_what_an_edge_serves_is_told_when_it_changes_and_not_at_its_first_word(bench: Bench) -> None:
    bench.status(tea=model(1))
    assert bench.state.snapshot()["log"] == []
    bench.status(tea=model(2, refused=[{"version": 3, "cause": "load", "reason": "it broke", "at": "x"}]))
    texts = [line["text"] for line in bench.state.snapshot()["log"]]
    assert texts == ["serves version 2 of tea", "refused version 3 of tea: it broke"]
    assert bench.edge()["models"][0]["since"] == "2026-11-21T11:00:00+00:00"


def test_an_edge_that_says_nothing_for_long_counts_as_down(bench: Bench) -> None:
    bench.status(tea=model(1))
    bench.state.edges["edge1"].ready = {"tea": 1}
    assert bench.edge()["link"]["state"] == "up"
    bench.now += SILENT_SECONDS + 30
    bench.state.tick()
    assert bench.edge()["link"]["state"] == "down"
    assert bench.edge()["models"][0]["reason"] == "the edge was last heard of 3 min ago: is its link down?"
    bench.status(tea=model(1))
    assert bench.edge()["link"]["state"] == "up"


REFUSED = Refusal(3, "a byte is wrong", "")


def known(serving: int = 2, **more: Any) -> ModelStatus:
    facts = {"since": "", "fault": "", "waiting": {}, "refused": {}, "at_edge": (serving,)}
    return ModelStatus(serving=serving, **(facts | more))


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (None, "differs", "has not been heard of"),
        (Status("", "", {"tea": known(3)}), "same", ""),
        (Status("", "", {}), "coming", "version 3 is on its way"),
        (Status("", "", {"tea": known()}), "coming", "version 3 is on its way"),
        (Status("", "", {"tea": known(at_edge=(2, 3))}), "coming", "its model server loads it"),
        (Status("", "", {"tea": known(waiting={3: "a file is missing"})}), "coming", "a file is missing"),
        (
            Status("", "", {"tea": known(refused={3: REFUSED})}),
            "differs",
            "refused version 3: a byte is wrong",
        ),
        (Status("", "", {"tea": known(fault="who?")}), "differs", "who?"),
        (Status("", "refused", {"tea": known(0)}), "differs", "the model server is away"),
        (Status("cut", "", {"tea": known()}), "differs", "does not reach central's store: cut"),
        (Status("", "", {"tea": known(4)}), "differs", "no longer offers version 4"),
    ],
)
def test_where_serving_and_ready_differ_the_reason_is_said(
    status: Status | None, state: str, words: str
) -> None:
    (row,) = versions.beside({"tea": 3}, status, None)
    assert (row["ready"], row["state"]) == (3, state)
    assert words in row["reason"]


async def test_folders_at_central_are_looked_at_only_where_the_index_has_changed_whichever_edge_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, edge, looks, reads = MemoryStore(), Edge("edge1"), 0, 0
    hanging = MemoryStore()
    real, real_read = model_index.newest, model_index.read

    async def newest(store: ObjectStore) -> dict[str, int]:
        nonlocal looks
        looks += 1
        return await real(store)

    async def until(version: int) -> None:
        async with asyncio.timeout(30):
            while edge.ready.get("tea") != version:
                await asyncio.sleep(0.001)

    async def read(*arguments: Any) -> model_index.Index:
        nonlocal reads
        if arguments[0] is hanging:
            await asyncio.Event().wait()
        reads += 1
        return await real_read(*arguments)

    monkeypatch.setattr(model_index, "newest", newest)
    monkeypatch.setattr(model_index, "read", read)
    monkeypatch.setattr(ready, "LOOK_SECONDS", 0)
    monkeypatch.setattr(news, "AT_LEAST_SECONDS", 0.001)
    obstore.put(store, "models/tea/1/saved_model.pb", b"x")
    await model_index.add(store, "tea", 1, b"one")
    edges = {"edge0": Edge("edge0"), "edge1": edge}
    watching = asyncio.create_task(ready.watch(edges, {"edge0": hanging, "edge1": store}))
    await until(1)
    before, reads = looks, 0
    obstore.put(store, "models/tea/2/saved_model.pb", b"x")
    async with asyncio.timeout(30):
        while reads < 3:
            await asyncio.sleep(0.001)
    assert looks == before
    await model_index.add(store, "tea", 2, b"two")
    await until(2)
    assert looks == before + 1
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


# --- many events, few frames --------------------------------------------------------------------


def test_thousands_of_events_are_one_frame_with_counts(bench: Bench) -> None:
    for _ in range(5000):
        bench.event(contracts.zipfile_event())
    (frame,) = bench.frames()
    assert frame["flow"] == {"edge1": {"upload": 5000, "events": 5000}}
    assert [line["text"] for line in frame["log"]] == ["5,000 images stored"]
    assert [edge["edge"] for edge in frame["edges"]] == ["edge1"]
    assert len(json.dumps(frame)) < 2000


def test_nothing_is_told_when_nothing_happens(bench: Bench) -> None:
    bench.status(tea=model(1))
    assert len(bench.frames()) == 1
    for _ in range(20):
        bench.now += 0.25
        bench.state.tick()
    assert bench.frames() == []


async def test_frames_are_drawn_only_as_long_as_somebody_reads_and_who_comes_then_gets_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "FRAME_SECONDS", 0.001)
    monkeypatch.setattr(frames, "UNREAD_SECONDS", 0.05)
    bench.feed.readers, begun = 1, bench.feed.last
    async with running(frames.draw(bench.state, bench.feed)):
        bench.event(contracts.zipfile_event())
        await until(lambda: len(bench.feed.after(begun) or []) == 1)
        bench.feed.readers = 0
        await until(lambda: bench.feed.after(begun) is None)  # it rests: that reader would start over
        resting = bench.feed.last
        bench.event(contracts.pipeline_event(1))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert bench.feed.last == resting

        bench.now += SILENT_SECONDS
        shown = bench.state.snapshot()
        assert shown["at"] == iso(bench.now)
        assert [line["kind"] for line in shown["log"]] == ["upload", "trigger"]
        bench.event(contracts.training_event("acquire", 0.0, run="a"))
        await until(lambda: bench.feed.after(resting))
    (change,) = bench.feed.after(resting) or []
    frame = json.loads(change.data)
    assert frame["flow"] == {"edge1": {"training": 1, "events": 1}}
    assert [line["kind"] for line in frame["log"]] == ["training"]


def test_a_line_that_counts_up_keeps_its_id_and_is_told_anew(bench: Bench) -> None:
    bench.event(contracts.zipfile_event())
    (first,) = bench.frames()
    bench.event(contracts.zipfile_event())
    (second,) = bench.frames()
    assert first["log"][0]["id"] == second["log"][0]["id"]
    assert second["log"][0]["text"] == "2 images stored"


def test_a_restart_shows_the_same(bench: Bench) -> None:
    for edge in ("edge1", "edge2"):
        for _ in range(3):
            bench.event(contracts.zipfile_event(), edge)
            bench.now += 1
        bench.event(contracts.pipeline_event(3), edge)
        bench.event(contracts.training_event("train", 0.3, run="a"), edge)
        bench.event(contracts.model_rejected_event("tea", 1, "it is worse"), edge)
        bench.status(edge, tea=model(1))
        bench.now += 1
        bench.status(edge, tea=model(2))
    again = Bench()
    again.now = bench.now
    ends = {TopicPartition(topic, 0): last + 1 for topic, last in bench.offsets.items()}
    again.history.starts(dict.fromkeys(ends, 0), ends)
    # Kafka keeps the order of a partition, not that of several.
    for one in sorted(bench.records, key=lambda one: one.topic, reverse=True):
        take(again.state, one, "dashboard", again.history)
    bench.state.tick()
    again.state.tick()
    assert again.state.snapshot() == bench.state.snapshot()


def test_what_is_kept_is_bounded_however_long_it_goes_on(bench: Bench) -> None:
    for number in range(3000):
        bench.event(contracts.model_rejected_event("tea", number, "no" * 5000))
        bench.event(contracts.training_event("failed", 1, run=str(number), reason="x" * 5000))
    assert len(json.dumps(bench.state.snapshot())) < 60_000
    (frame,) = bench.frames()
    assert len(frame["log"]) == 20


@pytest.mark.parametrize("value", [b"no json", b"[]", b'{"name":"training","progress":"x"}', None])
def test_what_is_no_event_is_passed_over(value: bytes | None) -> None:
    with pytest.raises(BadInput):
        read_event(value)


@pytest.mark.parametrize("value", [b"{}", b"[]", b'{"models":[]}', b'{"models":{"tea":{}}}', b"\xff"])
def test_what_is_no_status_is_passed_over(value: bytes) -> None:
    with pytest.raises(BadInput):
        read_status(value)


@pytest.mark.parametrize("milliseconds", [1_796_000_000_000_000, 2**63 - 1, -(10**15), -1])
def test_a_message_of_a_time_that_no_calendar_has_is_shown_and_does_not_end_the_dashboard(
    bench: Bench, milliseconds: int
) -> None:
    stored = record("edge1", 0, b'{"name":"zipfile"}', timestamp=milliseconds)
    take(bench.state, stored, "dashboard", bench.history)
    bench.letters.take(TRIGGER, letter(0, timestamp=milliseconds))
    assert bench.state.tick()
    (line,) = bench.state.snapshot()["log"]
    assert line["at"] in {iso(bench.now), iso(0)}


def test_events_of_other_names_are_nobodys_business(bench: Bench) -> None:
    bench.event({"name": "sold-out"})
    bench.event({"name": ["zipfile"]})
    bench.event({"name": "ingestion"})
    assert bench.frames() == []


# --- dead letters -------------------------------------------------------------------------------

TRIGGER = TopicPartition("trigger-dead-letter", 0)
HEADERS = (
    ("dead-letter-route", b"trigger-pipeline"),
    ("dead-letter-reason", b"no such edge"),
    ("dead-letter-code", b"refused"),
    ("batch", b"b1"),
)


def letter(offset: int, value: bytes = b"edge9", **more: Any) -> ConsumerRecord:
    return record(TRIGGER.topic, offset, value, headers=HEADERS, key=b"k", **more)


def test_a_letter_is_shown_with_its_reason_and_a_look_at_it(bench: Bench) -> None:
    bench.letters.sent_again({TRIGGER: 0})
    bench.letters.take(TRIGGER, letter(0))
    (topic,) = bench.frames()[-1]["letters"]
    (one,) = topic["letters"]
    assert (topic["topic"], topic["count"]) == ("trigger", 1)
    assert (one["reason"], one["route"], one["key"], one["headers"]) == (
        "no such edge",
        "trigger-pipeline",
        "k",
        {"batch": "b1"},
    )
    assert (one["kind"], one["look"], one["size"], one["whole"]) == ("text", "edge9", 5, True)


@pytest.mark.parametrize("size", ["²", "9" * 5000, "-1", ""])
def test_a_letter_whose_headers_say_no_size_is_shown_with_its_own(bench: Bench, size: str) -> None:
    headers = (("dead-letter-size", size.encode()),)
    bench.letters.take(TRIGGER, record(TRIGGER.topic, 0, b"edge9", headers=headers))
    ((shown,),) = (topic["letters"] for topic in bench.letters.as_json())
    assert shown["size"] == len(b"edge9")


def test_a_letter_that_was_sent_again_disappears(bench: Bench) -> None:
    bench.letters.sent_again({TRIGGER: 0})
    for offset in range(3):
        bench.letters.take(TRIGGER, letter(offset))
    bench.letters.sent_again({TRIGGER: 2})
    (topic,) = bench.letters.as_json()
    assert (topic["count"], [one["offset"] for one in topic["letters"]]) == (1, [2])
    bench.letters.sent_again({TRIGGER: 3})
    assert bench.letters.as_json() == []


def test_of_many_letters_the_newest_are_shown_and_all_are_counted(bench: Bench) -> None:
    bench.letters.sent_again({TRIGGER: 0})
    for offset in range(1000):
        bench.letters.take(TRIGGER, letter(offset, b"x" * 10_000))
    (topic,) = bench.letters.as_json()
    assert topic["count"] == 1000
    assert [one["offset"] for one in topic["letters"]] == list(range(999, 999 - KEPT, -1))
    assert len(json.dumps(topic)) < 20_000


@pytest.mark.parametrize(
    ("value", "kind", "look"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(400), "JPEG image", ""),
        (bytes(range(256)) * 2, "bytes", bytes(range(32)).hex(" ")),
        ("Grün".encode(), "text", "Grün"),
        (("ü" * 5000).encode(), "text", "ü" * 299 + "…"),
        (b"", "text", ""),
    ],
)
def test_the_look_at_a_value_is_short_and_safe(value: bytes, kind: str, look: str) -> None:
    letters = DeadLetters()
    letters.sent_again({TRIGGER: 0})
    letters.take(TRIGGER, letter(0, value))
    (one,) = letters.as_json()[0]["letters"]
    assert (one["kind"], one["look"]) == (kind, look)


# --- settings and files -------------------------------------------------------------------------


def test_the_dashboard_runs_beside_the_hub_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTES", "dashboard")
    with pytest.raises(ValidationError, match="hub,dashboard"):
        MonitorSettings()
    monkeypatch.setenv("ROUTES", "hub,dashboard")
    assert MonitorSettings().routes == ("hub", "dashboard")


@pytest.mark.parametrize(
    "pattern", [r"https?://(?!www\.w3\.org/2000/svg)", r"\sstyle=", r"\son[a-z]+=\"", r"=\"/"]
)
def test_the_pages_have_nothing_inline_absolute_or_from_elsewhere(pattern: str) -> None:
    files = [path for path in WEB.iterdir() if path.suffix in {".html", ".css", ".js"}]
    assert len(files) > 10
    assert [path.name for path in files if re.search(pattern, path.read_text())] == []


# --- how good the answers are -------------------------------------------------------------------


def quality(*wrong: str) -> bytes:
    figures = {"answers": 900, "labelled": 20, "accuracy": 0.95, "low": 0.9, "high": 0.98}
    products = [
        {
            **figures,
            "item": item,
            "label": item,
            "confidently_wrong": item in wrong,
            "taken_for_it": "tea-green",
        }
        for item in ("tea-green", "tea-lemon")
    ]
    return to_json({"asked": 55, "versions": [3], **figures, "products": products})


def test_an_edges_accuracy_is_shown_and_a_confidently_wrong_product_is_named_once(bench: Bench) -> None:
    assert bench.edge()["quality"] is None
    for wrong in ((), ("tea-lemon",), ("tea-lemon",)):
        bench._take(contracts.EDGE_STATUS, quality(*wrong), None, key=contracts.answers_key("edge1"))
    shown = bench.edge()["quality"]
    assert shown["all"] == {"answers": 900, "labelled": 20, "share": 0.95, "low": 0.9, "high": 0.98}
    assert [each["confidently_wrong"] for each in shown["products"]] == [False, True]
    lines = [line["text"] for line in bench.state.snapshot()["log"] if line["kind"] == "confidently-wrong"]
    assert lines == ["answers tea-lemon with confidence where it is not: mostly tea-green"]


def test_a_drift_is_told_on_the_edges_card_and_once_in_the_log(bench: Bench) -> None:
    drift = {"version": 3, "since": "2026-11-21T11:00:00.000+00:00", "images": 20}
    for _ in range(2):
        body = json.loads(quality()) | {"drift": drift}
        bench._take(contracts.EDGE_STATUS, to_json(body), None, key=contracts.answers_key("edge1"))
    assert bench.edge()["quality"]["drift"] == drift
    lines = [line["text"] for line in bench.state.snapshot()["log"] if line["kind"] == "drift"]
    assert lines == ["answers of version 3 look unlike those before"]


def test_a_version_that_is_compared_is_shown_and_how_it_ended_is_a_line(bench: Bench) -> None:
    seen, key = evidence.Evidence("tea", 8, 7, 3, compared=30), contracts.evidence_key("edge1", "tea")
    stopped = replace(seen, answers=20, compared=200, worse=19)
    words: list[tuple[evidence.Evidence, evidence.Outcome]] = [
        (seen, "wait"),
        (replace(seen, compared=31), "wait"),
        (stopped, "stop"),
    ]
    for found, outcome in words:
        bench._take(
            contracts.EDGE_STATUS, evidence.write(evidence.Finding(found, outcome), ""), None, key=key
        )
    for unreadable in (b"{}", b"no JSON", b""):
        bench._take(contracts.EDGE_STATUS, unreadable, None, key=key)
    (shown,) = bench.edge()["comparisons"]
    assert (shown["version"], shown["beside"], shown["outcome"]) == (8, 7, "stop")
    lines = [line["text"] for line in bench.state.snapshot()["log"] if line["kind"] == "canary"]
    begun, ended = sorted(lines)
    assert begun == "tea: version 8 answers a share beside version 7"
    assert ended == f"tea: version 8 is stopped: {evidence.verdict(stopped).says}"


def image(number: int, **more: Any) -> evidence.Differing:
    name = f"{number:064x}-8"
    return evidence.Differing(
        name, f"valid/images/tea-green/{number}.jpg", "tea-green", 0.9, "tea-lemon", 0.8, **more
    )


def jpeg() -> bytes:
    return as_file(Image.new("RGB", (16, 16), "green"))


def picture_of(found: evidence.Differing) -> bytes:
    """Return the message of `edge-metrics` with an image's picture."""
    seen = evidence.Evidence("tea", 8, 7)
    return picture_message("edge1", seen, found, jpeg(), "2026-11-29T12:00:00+00:00")


def test_images_where_versions_differ_are_shown_once_their_pictures_came(bench: Bench) -> None:
    seen, key = evidence.Evidence("tea", 8, 7, compared=30, worse=2), contracts.evidence_key("edge1", "tea")
    finding = evidence.Finding(seen, "wait", (image(2, reviewed="tea-lemon"), image(1)))
    bench._take(contracts.EDGE_STATUS, evidence.write(finding, ""), None, key=key)
    newest, before = bench.edge()["comparisons"][0]["differing"]
    assert newest == {
        "id": image(2).id,
        "image": "valid/images/tea-green/2.jpg",
        "item": "tea-green",
        "score": 0.9,
        "beside_item": "tea-lemon",
        "beside_score": 0.8,
        "reviewed": "tea-lemon",
        "edge": "",
        "picture": None,
    }
    bench.frames()
    for each in (image(1), image(2), image(2)):
        bench.hub.take(hub_messages.read(picture_of(each)), NOW, NOW)
    (frame,) = bench.frames()
    newest, before = frame["edges"][0]["comparisons"][0]["differing"]
    assert newest["picture"] == f"hub/uncertain/{image(2).id}.jpg"
    assert before["picture"] == f"hub/uncertain/{image(1).id}.jpg"
    assert bench.hub.image(image(2).id) == (jpeg(), "image/jpeg")
    assert bench.hub.uncertain() == []  # of these a model was sure


def test_pictures_where_versions_differ_are_bounded_and_the_oldest_go(bench: Bench) -> None:
    most = 4 * 3 * len(jpeg())  # a quarter of it is theirs
    hub = Hub(HubLimits(max_image_bytes=most), bench.state.tell, NOW)
    for number in (1, 2, 3, 1, 4):  # the first is told again
        hub.take(hub_messages.read(picture_of(image(number))), NOW, NOW)
    assert [number for number in range(6) if hub.picture(image(number).id)] == [1, 3, 4]


def test_an_accuracy_that_cannot_be_read_is_passed_over(bench: Bench) -> None:
    for value in (b"{}", b"no JSON", to_json({"asked": -1})):
        bench._take(contracts.EDGE_STATUS, value, None, key=contracts.answers_key("edge1"))
    bench._take(contracts.EDGE_STATUS, quality(), None, key=contracts.answers_key("edge9"))
    assert bench.edge()["quality"] is None


# --- rollouts ------------------------------------------------------------------------------------


def roll(bench: Bench, rollout: Rollout, group: str = "north", key: bytes | None = None) -> None:
    told = Told(group, "tea", ("edge1", "edge2"), rollout)
    key = contracts.rollout_key("north", "tea") if key is None else key
    bench._take(contracts.EDGE_STATUS, told.to_json(), None, key=key)


def test_how_far_a_version_has_come_is_shown_at_each_edge_of_its_group(bench: Bench) -> None:
    begun = Rollout(3, 2, 2, "1,100%").changed("rolling", "it passed the gate")
    roll(bench, begun)
    first, second, third = (bench.edge(f"edge{number}") for number in (1, 2, 3))
    assert [edge["group"] for edge in (first, second, third)] == ["north", "north", None]
    (shown,) = first["rollouts"]
    assert shown == {
        "model": "tea",
        "version": 3,
        "beside": 2,
        "state": "rolling",
        "ring": 1,
        "rings": 2,
        "edges": 2,
        "reached": 1,
        "here": True,
        "since": begun.since,
        "why": "it passed the gate",
        "differing": [],
    }
    assert second["rollouts"] == [shown | {"here": False}]
    assert third["rollouts"] == []

    roll(bench, replace(begun, differing=(image(1, edge="edge1"), image(2, edge="edge2"))))
    (of_others,) = bench.edge("edge1")["rollouts"][0]["differing"]
    assert (of_others["edge"], of_others["id"]) == ("edge2", image(2).id)
    assert bench.edge("edge2")["rollouts"][0]["differing"] == []

    why = "2 of 2 edges refuse it: edge1, edge2"
    for rollout in (begun, replace(begun, why="edge1 is silent"), begun.changed("stopped", why)):
        roll(bench, rollout)
    assert bench.edge("edge2")["rollouts"][0]["state"] == "stopped"
    lines = [(line["edge"], line["text"]) for line in bench.state.snapshot()["log"]]
    assert lines == [
        ("edge1", "version 3 of tea at north: goes to ring 1 of 2"),
        ("edge1", f"version 3 of tea at north: stopped in ring 1 of 2: {why}"),
    ]


def test_what_tells_of_no_rollout_changes_nothing(bench: Bench) -> None:
    roll(bench, Rollout(3, 2, 2, "1,100%"), group="south")
    for raw in (b"", b"{}", b'{"group": "north"}', b"[]"):
        bench._take(contracts.EDGE_STATUS, raw, None, key=contracts.rollout_key("north", "tea"))
    assert bench.edge()["rollouts"] == []
