"""shopper: what becomes of the images on its Kafka topic."""

import asyncio
import json
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from caravan.consume import Stopped, consume
from caravan.errors import BadInput, Permanent, Transient, Unavailable
from caravan.testing import kafka
from caravan.testing.kafka import Topic
from shopper.detection import Answer, answer
from shopper.doors.kafka import KafkaDoor, policy
from shopper.ports import Picture, Sender, Silent

HEADERS = (("camera", b"till-1"), ("trace", b"\xff\x00"), ("trace", b"again"), ("nothing", None))


def record(
    offset: int, value: bytes | None = b"image", key: bytes | None = b"k", headers: Any = ()
) -> ConsumerRecord:
    return kafka.record(value, key=key, headers=headers, topic="edge1-images", offset=offset)


class Kafka(Topic):
    """The topic, and the door with fakes on all sides; an image's content says what becomes of it."""

    def __init__(self, *records: ConsumerRecord, concurrency: int = 8, within: float = 0.05) -> None:
        super().__init__("edge1-images", *records)
        self.seen: list[tuple[Picture, Sender]] = []
        self.errors: dict[bytes, list[Exception]] = {}
        self.gates: dict[bytes, asyncio.Event] = {}
        self.at_once = self.most_at_once = 0
        self.replies: list[tuple[bytes | None, dict[str, Any], list[tuple[str, bytes | None]]]] = []
        self.full = False
        door = KafkaDoor(self.detect, self.reply, "edge1-detections", patience=10)
        self.door = consume(self, door.handle, self.send_dead_letter, policy(concurrency, within))

    async def answered(self, count: int) -> None:
        """Run until so many messages are committed."""
        await self.run(self.door, lambda: self.offset == count)

    async def detect(self, image: Picture, sender: Sender, answer: Answer = answer) -> dict[str, Any]:
        assert isinstance(image, bytes)
        self.seen.append((image, sender))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if gate := self.gates.get(image):
                await gate.wait()
            await asyncio.sleep(0)
            if self.errors.get(image):
                raise self.errors[image].pop(0)
            return {"known": "true", "item": image.decode()}
        finally:
            self.at_once -= 1

    async def reply(self, topic: str, value: bytes | None, *, key: bytes | None, headers: Any) -> None:
        assert topic == "edge1-detections"
        if self.full:
            raise Permanent("more than Kafka takes here")
        self.replies.append((key, json.loads(value or b""), headers))

    @property
    def items_or_reasons(self) -> list[str]:
        return [reply.get("item") or reply["reason"] for _, reply, _ in self.replies]

    @property
    def items(self) -> list[str]:
        return [reply["item"] for _, reply, _ in self.replies]


async def test_the_answer_has_the_key_and_all_headers_of_the_request_as_they_came() -> None:
    kafka = Kafka(record(0, b"tea", b"\xfe\x01", HEADERS))
    await kafka.answered(1)
    assert kafka.replies == [(b"\xfe\x01", {"known": "true", "item": "tea"}, list(HEADERS))]
    assert kafka.aside == []


async def test_an_image_goes_on_with_its_trace_and_so_does_the_answer(spans: InMemorySpanExporter) -> None:
    parent = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    kafka = Kafka(record(0, headers=(parent,)))
    await kafka.answered(1)
    (span,) = spans.get_finished_spans()
    assert (span.name, f"{span.context.trace_id:032x}".encode()) == ("detect-kafka", parent[1][3:35])
    ((_, _, headers),) = kafka.replies
    assert headers == [parent]


@pytest.mark.parametrize(
    ("key", "headers", "sender"),
    [
        (None, (), Sender("kafka")),
        (b"till-2", (), Sender("kafka", "till-2")),
        (b"till-2", (("camera", b"till-1"),), Sender("kafka", "till-1")),
        (b"\xff", (("model", b"digits"),), Sender("kafka", "\N{REPLACEMENT CHARACTER}", "digits")),
    ],
)
async def test_headers_choose_the_model_and_name_the_camera_as_the_key_does(
    key: bytes | None, headers: Any, sender: Sender
) -> None:
    kafka = Kafka(record(0, key=key, headers=headers))
    await kafka.answered(1)
    assert kafka.seen == [(b"image", sender)]


@pytest.mark.parametrize(
    ("error", "status", "code", "says"),
    [
        (BadInput("not an image", 422, reason="not-an-image"), 422, "not-an-image", "not an image"),
        (BadInput("no such model", 404, reason="unknown-model"), 404, "unknown-model", "no such model"),
        (Permanent("secret"), 502, "refused", "refused"),
        (ZeroDivisionError("secret"), 500, "unexpected", "ZeroDivisionError"),
    ],
)
async def test_what_is_refused_is_answered_with_a_problem_and_made_a_dead_letter_and_the_rest_goes_on(
    error: Exception, status: int, code: str, says: str
) -> None:
    kafka = Kafka(record(0, b"bad", headers=HEADERS), record(1, b"good"))
    kafka.errors[b"bad"] = [error]
    await kafka.answered(2)
    key, problem, headers = kafka.replies[0]
    assert (key, problem["status"]) == (b"k", status)
    assert says in problem["detail"]
    assert "secret" not in problem["detail"]
    assert headers == [*HEADERS, ("error", code.encode())]
    assert [(value, code) for value, _, code in kafka.aside] == [(b"bad", code)]
    assert kafka.replies[1][1]["item"] == "good"


async def test_a_refusal_is_counted_by_its_reason() -> None:
    def count() -> float:
        labels = {"door": "detect-kafka", "reason": "not-utf-8"}
        return REGISTRY.get_sample_value("caravan_refusals_total", labels) or 0

    before = count()
    kafka = Kafka(record(0, headers=(("model", b"\xff"),)))
    await kafka.answered(1)
    assert count() == before + 1
    assert kafka.replies[0][1]["status"] == 400
    assert kafka.seen == []


async def test_answers_of_one_key_keep_their_order_while_images_are_classified_side_by_side() -> None:
    names = [b"first", b"second", b"third", b"other"]
    keys = [b"a", b"a", b"a", b"b"]
    kafka = Kafka(*(record(0, name, key) for name, key in zip(names, keys, strict=True)))
    gate = kafka.gates[b"first"] = asyncio.Event()

    def all_but_the_first() -> bool:
        if kafka.items == ["other"]:
            assert (kafka.most_at_once, kafka.offset) == (4, 0)
            gate.set()
        return kafka.offset == 4

    await kafka.run(kafka.door, all_but_the_first)
    assert kafka.items == ["other", "first", "second", "third"]


async def test_no_more_than_so_many_are_classified_at_once() -> None:
    kafka = Kafka(*(record(n, b"%d" % n, None) for n in range(12)), concurrency=3)
    await kafka.answered(12)
    assert kafka.most_at_once == 3
    assert len(kafka.replies) == 12


async def test_while_the_model_server_is_away_for_a_moment_images_wait_and_are_answered() -> None:
    kafka = Kafka(record(0, b"tea"), within=20)
    kafka.errors[b"tea"] = [Unavailable("the model server is away"), Unavailable("still")]
    await kafka.answered(1)
    assert kafka.items == ["tea"]


async def test_what_cannot_be_answered_in_time_is_not_committed_but_what_came_before_is() -> None:
    kafka = Kafka(*(record(0, name, b"k" + name) for name in (b"a", b"b", b"stuck", b"d")), within=0.5)
    kafka.errors[b"stuck"] = [Transient("away")] * 100
    with pytest.raises(Transient):
        await kafka.run(kafka.door, lambda: False)
    assert set(kafka.items) >= {"a", "b"}
    assert kafka.offset == 2
    assert kafka.aside == []


async def test_an_image_whose_model_alone_is_away_does_not_stop_the_others() -> None:
    kafka = Kafka(record(0, b"stuck", b"k"), within=0.5)
    kafka.errors[b"stuck"] = [Unavailable("the model is away")] * 1000

    def others_come() -> bool:
        if not kafka.aside:
            kafka.send(record(0, b"good", b"other"))
        return bool(kafka.aside) and kafka.offset == len(kafka.items) + 1

    await kafka.run(kafka.door, others_come)
    assert kafka.aside == [(b"stuck", "the model is away", "away")]


async def test_images_for_a_model_that_hangs_wait_for_a_while_then_make_way() -> None:
    kafka = Kafka(*(record(0, name, name) for name in [b"stuck"] * 20 + [b"tea"]), concurrency=2, within=20)
    kafka.errors[b"stuck"] = [Silent("slow", seconds) for seconds in [9.0] * 10 + [11.0] * 20]
    await kafka.answered(21)
    assert sorted(kafka.items_or_reasons) == ["refused"] * 20 + ["tea"]
    assert {why for _, why, _ in kafka.aside} == {"the model slow did not answer in time: try again"}


async def test_a_fault_of_ours_does_not_make_dead_letters_of_all_images() -> None:
    kafka = Kafka(*(record(0, b"image", None) for _ in range(500)))
    kafka.errors[b"image"] = [ZeroDivisionError() for _ in range(500)]
    with pytest.raises(Stopped):
        await kafka.run(kafka.door, lambda: False)
    assert len(kafka.aside) <= 20
    assert kafka.offset == 0


async def test_if_the_dead_letter_cannot_be_written_nothing_is_committed() -> None:
    kafka = Kafka(record(0, b"bad"), record(1, b"good"))
    kafka.refuses = Transient("Kafka is away")
    kafka.errors[b"bad"] = [BadInput("no")]
    with pytest.raises(Transient):
        await kafka.run(kafka.door, lambda: False)
    assert kafka.offset == 0


async def test_an_answer_that_kafka_will_not_take_becomes_a_dead_letter_and_does_not_stop_the_door() -> None:
    kafka = Kafka(record(0), record(1))
    kafka.full = True
    await kafka.answered(2)
    assert [code for _, _, code in kafka.aside] == ["answer-too-large"] * 2


async def test_a_stop_in_the_middle_commits_what_is_done_and_is_not_held_up() -> None:
    kafka = Kafka(record(0, b"a", b"x"), record(1, b"stuck", b"y"))
    kafka.gates[b"stuck"] = asyncio.Event()
    await kafka.run(kafka.door, lambda: kafka.items == ["a"])
    assert kafka.offset == 1
