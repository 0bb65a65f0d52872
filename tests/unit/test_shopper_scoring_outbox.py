"""shopper: detections are noted before their replies, and Kafka gets each of them once."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from caravan.errors import Permanent, Transient
from caravan.retry import forever
from caravan.testing.kafka import Kafka, Sent
from caravan.testing.waiting import until
from shopper import routes
from shopper.catalogue_file import CatalogueFile
from shopper.detection import judge
from shopper.ports import Prediction, Sender
from shopper.scoring.journal import FILE, Journal
from shopper.scoring.outbox import ScoringOutbox

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
JPEG = b"\xff\xd8 an image"


class Bench:
    """An outbox with a broker behind it and a clock in hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kafka = Kafka()
        self.now = 1000.0
        self.open_journal: Callable[[], Journal] = partial(Journal, folder, "edge1", 0.1, 0.8, 10**9)

    async def make_topic(self) -> None:
        self.kafka.strike(Sent("edge-metrics", None))

    def messages(self) -> list[dict[str, Any]]:
        """Return what Kafka has."""
        assert {message.topic for message in self.kafka.sent} <= {"edge-metrics"}
        return [
            json.loads(text)
            for message in self.kafka.sent
            for text in json.loads(message.value or b"").values()
        ]

    def counted(self) -> Counter[str]:
        """Images by camera, each message counted once by its id."""
        total: Counter[str] = Counter()
        for body in {body["id"]: body for body in self.messages() if "camera_metrics" in body}.values():
            for camera, counts in body["camera_metrics"].items():
                total[camera] += sum(counts["certain"]) + sum(counts["uncertain"])
        return total

    def uncertain(self) -> list[dict[str, Any]]:
        """Return the messages of uncertain images."""
        return [body for body in self.messages() if "result_class" in body]

    def open(self) -> Journal:
        """Open the journal, by whatever opens it now."""
        return self.open_journal()

    @asynccontextmanager
    async def outbox(self, *, sending: bool = True) -> AsyncIterator[ScoringOutbox]:
        """Run an outbox and its loops."""
        async with ScoringOutbox(
            self.open,
            self.kafka.send,
            self.make_topic,
            certain_score=0.8,
            window_seconds=0.1,
            max_message_bytes=10**6,
            clock=lambda: self.now,
        ) as outbox:
            sender = partial(forever, routes.EDGE_METRICS.id, partial(routes.edge_metrics, outbox))
            loops: list[Callable[[], Awaitable[None]]] = [outbox.write, outbox.close_windows]
            if sending:
                loops.append(sender)
            tasks = [asyncio.ensure_future(loop()) for loop in loops]
            try:
                yield outbox
                assert not [task for task in tasks if task.done()]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def note(outbox: ScoringOutbox, camera: str = "till-3", score: float = 0.9) -> None:
    prediction = Prediction("tea-green", score, "m", 1, {}, ("tea-green", "tea-lemon"), 0.001, 0.002)
    recognition = judge(prediction, CatalogueFile().catalogue, 0.6)
    await outbox.record(recognition, Sender("http", camera), JPEG, AT, "images/tea-green/a.jpg")


def missing() -> float:
    labels = {"sink": "edge-metrics"}
    return REGISTRY.get_sample_value("caravan_best_effort_failures_total", labels) or 0.0


async def test_every_detection_is_counted_once_and_each_uncertain_image_is_sent(bench: Bench) -> None:
    async with bench.outbox() as outbox:
        await asyncio.gather(*(note(outbox, f"cam-{n % 3}", 0.9 if n % 5 else 0.5) for n in range(60)))
        await note(outbox, "")
        bench.now += 1
        await until(lambda: bench.counted().total() == 61)
        assert bench.counted() == {"cam-0": 20, "cam-1": 20, "cam-2": 20, "unknown": 1}
        assert len(bench.uncertain()) == 12
    assert all(
        sent.key == body.get("camera", next(iter(body.get("camera_metrics", {})), "")).encode()
        for sent, body in zip(bench.kafka.sent, bench.messages(), strict=True)
    )


async def test_a_detection_is_on_the_disk_before_its_reply(bench: Bench) -> None:
    async with bench.outbox(sending=False) as outbox:
        await note(outbox)
        other = sqlite3.connect(bench.folder / FILE)
        assert other.execute("SELECT camera, item, certain FROM detections").fetchall() == [
            ("till-3", "tea-green", 1)
        ]
        other.close()


async def test_what_kafka_could_not_take_is_sent_by_the_next_process_and_counted_once(bench: Bench) -> None:
    bench.kafka.fail(Transient("Kafka is away"))
    async with bench.outbox() as outbox:
        for n in range(10):
            await note(outbox, score=0.5 if n == 3 else 0.9)
            bench.now += 0.05
    assert bench.kafka.sent == []
    bench.kafka.mend()
    bench.kafka.loses_answers = 1
    bench.now += 1
    async with bench.outbox():
        await until(lambda: bench.counted() == {"till-3": 10} and len(bench.uncertain()) > 0)
        await until(lambda: in_outbox(bench.folder) == 0)
    ids = [body["id"] for body in bench.messages()]
    assert len(ids) == len(set(ids)) + 1


async def test_what_has_ended_is_sent_before_the_process_ends(bench: Bench) -> None:
    async with bench.outbox(sending=False) as outbox:
        await note(outbox)
        bench.now += 1
    assert bench.counted() == {"till-3": 1}


async def test_an_image_that_the_broker_refuses_goes_without_and_counts_are_never_dropped(
    bench: Bench,
) -> None:
    # smaller than any window's message
    bench.kafka.fail(Permanent("larger than Kafka takes"), where=lambda sent: len(sent.value or b"") > 300)
    async with bench.outbox() as outbox:
        await note(outbox, score=0.5)
        bench.now += 1
        await note(outbox, "other")
        bench.now += 1
        await until(lambda: in_outbox(bench.folder, "refused") == 3)
    assert bench.kafka.sent == []
    bench.kafka.mend()
    async with bench.outbox():
        await until(lambda: bench.counted() == {"till-3": 1, "other": 1})


async def test_detections_go_on_when_the_disk_does_not_and_what_is_missing_is_counted(bench: Bench) -> None:
    def broken() -> Journal:
        raise OSError("the disk is gone")

    mend, bench.open_journal = bench.open_journal, broken
    async with ScoringOutbox(
        bench.open,
        bench.kafka.send,
        bench.make_topic,
        certain_score=0.8,
        window_seconds=0.1,
        max_message_bytes=10**6,
        clock=lambda: bench.now,
    ) as outbox:
        writer = asyncio.create_task(outbox.write())
        before = missing()
        await note(outbox)
        assert missing() == before + 1
        bench.open_journal = mend
        await note(outbox, "later")
        assert missing() == before + 1
        writer.cancel()
        await asyncio.wait([writer])
        bench.now += 1
    assert bench.counted() == {"later": 1}


async def test_a_file_damaged_while_it_is_open_is_renamed_and_the_next_detection_counted(
    bench: Bench,
) -> None:
    def corrupt(journal: Journal) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    async with bench.outbox() as outbox:
        await note(outbox)
        with pytest.raises(Transient):
            await outbox.on_disk(corrupt)
        await note(outbox, "later")
        bench.now += 1
        await until(lambda: bench.counted() == {"later": 1})
    assert (bench.folder / f"{FILE}.damaged").exists()


def in_outbox(folder: Path, where: str = "TRUE") -> int:
    db = sqlite3.connect(folder / FILE)
    try:
        (count,) = db.execute(f"SELECT count(*) FROM outbox WHERE {where}").fetchone()
    finally:
        db.close()
    return int(count)
