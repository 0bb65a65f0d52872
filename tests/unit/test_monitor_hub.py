"""monitor: what the hub makes of the messages of `edge-metrics`, and shows at its doors."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition
from fastapi import FastAPI
from PIL import Image
from prometheus_client import REGISTRY

from caravan import http
from caravan.errors import BadInput
from caravan.history import History
from caravan.kafka import Batch
from caravan.testing.kafka import record
from monitor import hub_messages, routes
from monitor.doors import hub as hub_door
from monitor.doors.events import PIECE, Snapshots, in_pieces
from monitor.hub_feed import Feed
from monitor.hub_messages import Uncertain
from monitor.hub_state import Hub, HubLimits
from support.files import as_file

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
PARTITION = TopicPartition("edge-metrics", 0)
TIMES = {"min": 0.0, "max": 0.2, "mean": 0.1, "std": 0.0, "percentiles": [0.1, 0.1, 0.1, 0.2]}
CLASSES = ["tea-green", "tea-lemon"]


def image(image_format: str = "JPEG") -> bytes:
    return as_file(Image.new("RGB", (16, 12), (0, 200, 0)), image_format)


def window(number: int = 1, camera: str = "till-3", edge: str = "edge1", **changes: Any) -> bytes:
    body = {
        "id": f"a-{number}w",
        "edge": edge,
        "camera_metrics": {camera: {"certain": [3, 0], "uncertain": [0, 1]}},
        "latency_metrics": {"prep": TIMES, "predict": TIMES},
        "timestamp": f"2026-11-21T12:00:{number % 60:02}.000+00:00",
        "window_start": "2026-11-21T12:00:00.000+00:00",
        "classes": CLASSES,
        "config": {"window_size": 10, "threshold": 0.8, "model": "m", "model_version": 2},
    }
    return json.dumps({"metrics_json": json.dumps(body | changes)}).encode()


def uncertain(number: int = 1, picture: bytes | None = None, **changes: Any) -> bytes:
    body = {
        "id": f"a-{number}",
        "edge": "edge1",
        "image": base64.b64encode(image() if picture is None else picture).decode(),
        "result_class": "tea-lemon",
        "result_probability": 0.6,
        "predictions": [0.4, 0.6],
        "classes": CLASSES,
        "camera": "till-3",
        "timestamp_str": "2026-11-21T12:00:03.000+00:00",
        "predict_time": 0.02,
        "prep_time": 0.001,
    }
    return json.dumps({"uncertain_metrics_json": json.dumps(body | changes)}).encode()


class WatchedFeed(Feed):
    """A feed that knows how many of its readers have read all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[int] = []

    async def wait(self, number: int) -> None:
        self.waiting.append(number)
        await super().wait(number)

    async def read_by(self, readers: int) -> None:
        async with asyncio.timeout(20):
            while self.waiting.count(self.last) < readers:
                await asyncio.sleep(0.001)


class Bench:
    """A hub with a topic before it, a web app behind it, and a clock in hand."""

    def __init__(self, limits: HubLimits | None = None) -> None:
        self.now = NOW
        self.feed = WatchedFeed()
        self.hub = Hub(limits or HubLimits(), self.feed.tell, NOW)
        self.history = History(self.feed.start_over, clock=lambda: self.now)
        self.offset = 0
        app = FastAPI()
        hub_door.install(app, self.hub, self.feed)
        http.install(app, {"history": self.history.ping})
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub:8086")

    async def read(self, *values: bytes | None, sent: float | None = None) -> None:
        """Let these messages arrive; `sent` is the time that Kafka has for them."""
        await routes.hub(self._batches(values, sent), self.history, self.hub)
        self.hub.tick(self.now)

    async def _batches(self, values: tuple[bytes | None, ...], sent: float | None) -> AsyncIterator[Batch]:
        stamp = int((self.now if sent is None else sent) * 1000)
        first, self.offset = self.offset, self.offset + len(values)
        yield {
            PARTITION: [
                record(value, topic="edge-metrics", offset=first + i, timestamp=stamp)
                for i, value in enumerate(values)
            ]
        }

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def camera(self, name: str = "till-3") -> Any:
        return await self.get(f"/hub/cameras/edge1/{name}")


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.history.starts({PARTITION: 0}, {PARTITION: 0})
    return bench


# --- cameras --------------------------------------------------------------------------------------


async def test_totals_and_windows_are_shown_by_camera(bench: Bench) -> None:
    await bench.read(window(1), window(2), window(3, "till/4", "edge2"))
    answer = await bench.client.get("/hub")
    assert answer.headers["content-length"] == str(len(answer.content))  # not in chunks
    shown = answer.json()
    assert [(c["edge"], c["camera"], c["state"], len(c["windows"])) for c in shown["cameras"]] == [
        ("edge1", "till-3", "live", 2),
        ("edge2", "till/4", "live", 1),
    ]
    totals = {"certain": {"tea-green": 6}, "uncertain": {"tea-lemon": 2}, "images": 8}
    assert shown["cameras"][0]["totals"] == totals
    assert shown["images"] == 12
    assert shown["images_per_second"] == 0.8
    assert shown["edges"][0] == {"edge": "edge1", "cameras": 1, "live": 1, "images": 8}
    assert await bench.get("/hub/cameras/edge2/till/4") == shown["cameras"][1]
    assert shown["cameras"][0]["windows"][0]["latency"] == {"prep": TIMES, "predict": TIMES}
    assert (await bench.client.get("/hub/cameras/edge1/nobody")).status_code == 404


async def test_a_message_that_comes_again_is_counted_once(bench: Bench) -> None:
    await bench.read(window(1), uncertain(1), window(1), uncertain(1))
    await bench.read(window(1))
    assert (await bench.camera())["totals"]["images"] == 4
    assert len((await bench.get("/hub/uncertain"))["uncertain"]) == 1


async def test_messages_of_others_have_no_id_and_are_still_counted_once(bench: Bench) -> None:
    cameras = {name: {"certain": [1, 2], "uncertain": [0, 0]} for name in ("a", "b")}
    plain = {"camera_metrics": cameras, "latency_metrics": {"prep": TIMES, "predict": TIMES}}
    values = [
        json.dumps({"metrics_json": json.dumps({**plain, "timestamp": str(n), "config": {}})}).encode()
        for n in range(2)
    ]
    await bench.read(*values, *values)
    shown = await bench.get("/hub/cameras/unknown/b")
    assert shown["totals"] == {"certain": {"0": 2, "1": 4}, "uncertain": {}, "images": 6}


async def test_the_last_25_windows_and_200_uncertain_images_are_kept(bench: Bench) -> None:
    await bench.read(*(window(n) for n in range(1, 31)), *(uncertain(n) for n in range(1, 231)))
    shown = await bench.camera()
    assert [w["id"] for w in shown["windows"]] == [f"a-{n}w" for n in range(6, 31)]
    assert shown["totals"]["images"] == 120
    listed = (await bench.get("/hub/uncertain"))["uncertain"]
    assert [u["id"] for u in listed] == [f"a-{n}" for n in range(230, 30, -1)]


async def test_a_camera_without_windows_is_silent_until_the_next_comes(bench: Bench) -> None:
    await bench.read(window(1))
    bench.now += 29
    bench.hub.tick(bench.now)
    assert (await bench.camera())["state"] == "live"
    bench.now += 2
    bench.hub.tick(bench.now)
    assert (await bench.camera())["state"] == "silent"
    assert (await bench.get("/hub"))["images_per_second"] == 0
    await bench.read(window(2))
    assert (await bench.camera())["state"] == "live"


async def test_a_camera_falls_silent_in_time_after_the_hubs_clock_was_set_back(bench: Bench) -> None:
    await bench.read(window(1))
    for passed in (-3600, 31):
        bench.now += passed
        bench.hub.tick(bench.now)
    assert (await bench.camera())["state"] == "silent"


async def test_an_edge_whose_clock_is_wrong_is_live_while_its_messages_come(bench: Bench) -> None:
    await bench.read(window(1), sent=NOW - 10**6)
    await bench.read(window(2, "fast"), sent=NOW + 10**6)
    assert (await bench.camera())["state"] == (await bench.camera("fast"))["state"] == "live"
    assert (await bench.camera())["totals"]["images"] == 4


async def test_a_hub_that_was_restarted_shows_the_same(bench: Bench) -> None:
    values = [window(1), window(2, "other"), uncertain(3)]
    await bench.read(*values, sent=NOW - 100)
    bench.now += 5
    await bench.read(window(4))
    again = Bench()
    again.now = bench.now
    again.history.starts({PARTITION: 0}, {PARTITION: 4})
    assert (await again.client.get("/readyz")).status_code == 503
    await again.read(*values, sent=NOW - 100)
    await again.read(window(4))
    assert (await again.client.get("/readyz")).status_code == 200
    before, after = await bench.get("/hub"), await again.get("/hub")
    assert [(c["camera"], c["totals"], c["windows"]) for c in before["cameras"]] == [
        (c["camera"], c["totals"], c["windows"]) for c in after["cameras"]
    ]
    # What it read of the time before its start does not make a camera live.
    assert [(c["camera"], c["state"]) for c in after["cameras"]] == [("other", "silent"), ("till-3", "live")]


async def test_totals_forget_what_is_older_than_the_history(bench: Bench) -> None:
    await bench.read(window(1))
    bench.now += 12 * 3600
    await bench.read(window(2))
    assert (await bench.camera())["totals"]["images"] == 8
    bench.now += 12 * 3600 + 1000
    bench.hub.tick(bench.now)
    assert (await bench.camera())["totals"] == {
        "certain": {"tea-green": 3},
        "uncertain": {"tea-lemon": 1},
        "images": 4,
    }


async def test_the_camera_that_was_heard_of_longest_ago_makes_room() -> None:
    bench = Bench(HubLimits(max_cameras=2))
    bench.history.starts({PARTITION: 0}, {PARTITION: 0})
    for number, camera in enumerate(["a", "b", "a", "c"]):
        bench.now += 1
        await bench.read(window(number, camera))
    assert [c["camera"] for c in (await bench.get("/hub"))["cameras"]] == ["a", "c"]


# --- uncertain images -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "media_type"), [("JPEG", "image/jpeg"), ("MPO", "image/jpeg"), ("PNG", "image/png")]
)
async def test_an_uncertain_image_is_shown_so_that_a_browser_takes_it_for_nothing_else(
    bench: Bench, kind: str, media_type: str
) -> None:
    await bench.read(uncertain(1, image(kind)))
    (one,) = (await bench.get("/hub/uncertain"))["uncertain"]
    assert (one["class"], one["probability"], one["image"]) == ("tea-lemon", 0.6, "/hub/uncertain/a-1.jpg")
    assert one["predictions"] == {"tea-green": 0.4, "tea-lemon": 0.6}
    answer = await bench.client.get(one["image"])
    assert answer.content == image(kind)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("content", [b"<script>alert(1)</script>", b"GIF89a", image("WEBP"), b""])
async def test_what_is_no_image_for_browsers_is_not_shown_but_its_facts_are(
    bench: Bench, content: bytes
) -> None:
    await bench.read(uncertain(1, content))
    assert (await bench.get("/hub/uncertain"))["uncertain"][0]["image"] is None
    assert (await bench.client.get("/hub/uncertain/a-1.jpg")).status_code == 404


async def test_an_id_that_is_not_safe_in_an_address_is_replaced(bench: Bench) -> None:
    await bench.read(uncertain(1, id="../../etc/passwd"))
    path = (await bench.get("/hub/uncertain"))["uncertain"][0]["image"]
    assert (await bench.client.get(path)).content == image()


async def test_images_beyond_the_limit_of_memory_go_and_their_facts_stay() -> None:
    bench = Bench(HubLimits(max_image_bytes=2 * len(image())))
    await bench.read(*(uncertain(n) for n in range(1, 5)))
    listed = (await bench.get("/hub/uncertain"))["uncertain"]
    assert [(u["id"], u["image"] is not None) for u in listed] == [
        ("a-4", True),
        ("a-3", True),
        ("a-2", False),
        ("a-1", False),
    ]


async def test_names_of_classes_beyond_the_limit_are_counted_as_one() -> None:
    bench = Bench(HubLimits(max_classes=3))
    bench.history.starts({PARTITION: 0}, {PARTITION: 0})
    for number in range(3):
        classes = [f"made-up-{number}-{n}" for n in range(4)]
        counts = {"certain": [1, 1, 1, 1], "uncertain": [0, 0, 0, 0]}
        await bench.read(window(number, classes=classes, camera_metrics={"till-3": counts}))
    totals = (await bench.camera())["totals"]
    assert totals["certain"] == {" more": 9, "made-up-0-0": 1, "made-up-0-1": 1, "made-up-0-2": 1}
    assert totals["images"] == 12
    bench.now += 25 * 3600
    bench.hub.tick(bench.now)
    await bench.read(window(9))
    assert (await bench.camera())["totals"]["certain"] == {"tea-green": 3}


async def test_where_there_are_too_many_numbers_all_images_are_still_counted() -> None:
    bench = Bench(HubLimits(max_entries=8))
    bench.history.starts({PARTITION: 0}, {PARTITION: 0})
    for number in range(30):
        classes = [f"a-{number}", "b"]
        counts = {"certain": [2, 1], "uncertain": [0, 0]}
        cameras = {f"till-{number % 3}": counts}
        await bench.read(window(number, classes=classes, camera_metrics=cameras), sent=NOW - number * 1800)
    shown = await bench.get("/hub")
    assert shown["images"] == 90
    assert sum(len(camera["totals"]["certain"]) for camera in shown["cameras"]) <= 8
    assert {len(camera["windows"]) for camera in shown["cameras"]} == {1, 2}
    bench.now += 25 * 3600
    bench.hub.tick(bench.now)
    assert (await bench.get("/hub"))["cameras"] == []


async def test_a_window_shows_the_classes_with_the_most_images_and_the_sum_of_the_others(
    bench: Bench,
) -> None:
    counts = {"certain": list(range(1, 151)), "uncertain": [0] * 150}
    classes = [f"c{n}" for n in range(150)]
    await bench.read(window(classes=classes, camera_metrics={"till-3": counts}))
    (shown,) = (await bench.camera())["windows"]
    assert len(shown["certain"]) == 101
    assert (shown["certain"]["c149"], shown["certain"][" more"]) == (150, sum(range(1, 51)))
    assert shown["images"] == sum(range(1, 151))


async def test_cameras_of_one_message_beyond_the_bound_are_one(bench: Bench) -> None:
    counts = {"certain": [1, 0], "uncertain": [0, 0]}
    await bench.read(window(camera_metrics={f"till-{n}": counts for n in range(250)}))
    shown = await bench.get("/hub")
    assert (len(shown["cameras"]), shown["images"]) == (201, 250)
    assert shown["cameras"][0]["camera"] == " more"
    assert shown["cameras"][0]["totals"]["certain"] == {"tea-green": 50}


async def test_texts_of_a_message_are_cut(bench: Bench) -> None:
    long = "x" * 10_000
    await bench.read(
        window(timestamp=long, window_start=long, classes=[long, "b"], config={"model": long}),
        uncertain(result_class=long, timestamp_str=long, model=long),
    )
    assert len(json.dumps(await bench.get("/hub"))) < 3000
    assert len(json.dumps(await bench.get("/hub/uncertain"))) < 1500


# --- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "unknown-message"),
        (b"not json", "not-json"),
        (b"\xff\xfe", "not-json"),
        (b"[1]", "unknown-message"),
        (b"[" * 100_000, "not-json"),
        (b'{"other": "{}"}', "unknown-message"),
        (b'{"metrics_json": 7}', "not-json"),
        (b'{"metrics_json": {"a": 1}}', "not-json"),
        (window(camera_metrics=[1]), "bad-message"),
        (window(camera_metrics={"a": {"certain": [1], "uncertain": [1]}}), "bad-message"),
        (window(camera_metrics={"a": {"certain": [-1, 0], "uncertain": [0, 0]}}), "bad-message"),
        (window(latency_metrics={"prep": TIMES}), "bad-message"),
        (window(config={"window_size": float("nan")}), "not-json"),
        (window(config={"window_size": -1}), "bad-message"),
        (window(config={"model_version": 10**400}), "bad-message"),
        (window(camera_metrics={"a": {"certain": [10**400, 0], "uncertain": [0, 0]}}), "bad-message"),
        (uncertain(predictions="many"), "bad-message"),
        (uncertain(result_probability=None), "bad-message"),
    ],
)
async def test_what_cannot_be_read_is_counted_by_reason_and_the_rest_goes_on(
    bench: Bench, value: bytes | None, reason: str
) -> None:
    def refused() -> float:
        labels = {"door": "hub", "reason": reason}
        return REGISTRY.get_sample_value("caravan_refusals_total", labels) or 0.0

    before = refused()
    await bench.read(window(1), value, window(2))
    assert refused() == before + 1
    assert (await bench.camera())["totals"]["images"] == 8


def test_a_refusal_says_what_is_wrong() -> None:
    with pytest.raises(BadInput, match="timestamp"):
        hub_messages.read(window().replace(b"timestamp", b"time"))
    assert isinstance(hub_messages.read(uncertain()), Uncertain)


# --- events ---------------------------------------------------------------------------------------


async def follow(bench: Bench, last: str = "") -> list[dict[str, str]]:
    """Read the events until the hub ends."""
    headers = {"Last-Event-ID": last} if last else {}
    answer = await bench.client.get("/hub/events", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


async def test_events_begin_with_a_snapshot_and_tell_what_changes(bench: Bench) -> None:
    await bench.read(window(1))
    following = asyncio.create_task(follow(bench))
    await bench.feed.read_by(1)
    await bench.read(window(2), uncertain(3))
    bench.now += 31
    bench.hub.tick(bench.now)
    await bench.feed.read_by(1)
    bench.feed.close()
    events = await following
    assert [event["event"] for event in events] == ["snapshot", "window", "uncertain", "silent"]
    assert json.loads(events[0]["data"])["images"] == 4
    told = json.loads(events[1]["data"])
    assert (told["camera"], told["totals"]["images"], told["window"]["id"]) == ("till-3", 8, "a-2w")
    assert json.loads(events[3]["data"])["camera"] == "till-3"
    assert len({event["id"] for event in events}) == 4


async def test_those_who_start_together_share_one_snapshot_that_was_made_once() -> None:
    made: list[int] = []

    def take() -> dict[str, Any]:
        made.append(feed.last)
        return {"cameras": [{"number": number} for number in range(3)], "since": "today"}

    feed = Feed()
    feed.start_over()
    snapshots = Snapshots(feed, take)
    found = await asyncio.gather(*(snapshots.recent() for _ in range(25)))
    assert len({id(content) for _, content in found}) == 1
    assert json.loads(found[0][1]) == take()
    feed.tell("window", {"number": 3})
    number, _ = await snapshots.recent()
    assert [change.name for change in feed.after(number) or []] == ["window"]
    assert len(made) == 2
    await snapshots.newest()
    feed.start_over()
    await snapshots.recent()
    assert len(made) == 4


async def test_a_long_snapshot_comes_in_pieces_and_whole() -> None:
    content = bytes(range(256)) * 1000
    pieces = [piece async for piece in in_pieces(content)]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= PIECE < len(content)


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "", "\u0661"])
async def test_an_id_that_was_never_given_is_a_strangers(bench: Bench, number: str) -> None:
    boot = bench.feed.id_of(0).partition("-")[0]
    assert bench.feed.number_of(f"{boot}-{number}") is None


async def test_who_comes_back_gets_what_it_missed_and_a_stranger_a_snapshot(bench: Bench) -> None:
    await bench.read(window(1))
    seen = bench.feed.id_of(bench.feed.last)
    await bench.read(window(2), window(3))
    following = [asyncio.create_task(follow(bench, last)) for last in (seen, "0123abcd-1", "nonsense")]
    await bench.feed.read_by(3)
    bench.feed.close()
    names = [[event["event"] for event in await task] for task in following]
    assert names == [["window", "window"], ["snapshot"], ["snapshot"]]


async def test_a_reader_that_is_too_slow_starts_over(bench: Bench) -> None:
    small = Feed(kept=3)
    small.start_over()
    start = small.last
    for number in range(3):
        small.tell("window", {"number": number})
    assert [change.data for change in small.after(start) or []] == [b'{"number":%d}' % n for n in range(3)]
    small.tell("window", {"number": 3})
    assert small.after(start) is None
    assert small.after(small.last + 1) is None


async def test_reading_the_history_tells_one_snapshot_and_not_every_window() -> None:
    bench = Bench()
    bench.history.starts({PARTITION: 0}, {PARTITION: 2})
    following = asyncio.create_task(follow(bench))
    await bench.feed.read_by(1)
    await bench.read(window(1), window(2))
    await bench.feed.read_by(1)
    bench.feed.close()
    events = await following
    assert [event["event"] for event in events] == ["snapshot", "snapshot"]
    assert [json.loads(event["data"])["images"] for event in events] == [0, 8]
