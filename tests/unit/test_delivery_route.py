"""delivery: what becomes of the triggers on Kafka."""

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from caravan.errors import Permanent, Transient
from delivery.listener import EventListener
from delivery.routes import trigger_pipeline
from delivery.triggers import Triggers

PARTITION = TopicPartition("trigger", 0)


def record(value: bytes | None, offset: int) -> ConsumerRecord:
    return ConsumerRecord("trigger", 0, offset, 0, 0, None, value, None, 0, len(value or b""), ())


class Source:
    """A consumer that hands out the batches it was given, then nothing."""

    def __init__(self, *batches: list[bytes | ConsumerRecord | None]) -> None:
        self.batches = list(batches)
        self.offset = 0
        self.commits: list[int] = []

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        if not self.batches:
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        values = self.batches.pop(0)
        records = [
            value if isinstance(value, ConsumerRecord) else record(value, self.offset + i)
            for i, value in enumerate(values)
        ]
        self.offset += len(records)
        return {PARTITION: records}

    async def commit(self) -> None:
        self.commits.append(self.offset)


class Listener:
    """A listener that answers each edge with the next of its prepared outcomes, then with success."""

    def __init__(self, **outcomes: list[Exception]) -> None:
        self.outcomes = outcomes
        self.asked: list[str] = []

    async def start_run(self, edge: str) -> str:
        self.asked.append(edge)
        if self.outcomes.get(edge):
            raise self.outcomes[edge].pop(0)
        return "event"


class Aside(list[tuple[bytes | None, str]]):
    """Dead letters, kept."""

    async def __call__(self, record: ConsumerRecord, reason: str, code: str = "") -> None:
        self.append((record.value, reason))


async def run_until(done: Callable[[], bool], source: Source, listener: Listener, aside: Aside) -> None:
    task = asyncio.create_task(trigger_pipeline(source, listener, aside, Triggers(coalesce=0.02)))
    async with asyncio.timeout(10):
        while not done() and not task.done():
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        raise error


async def test_triggers_of_one_edge_become_one_run() -> None:
    source, listener, aside = Source([b"edge1", b"edge1"], [b"edge1"]), Listener(), Aside()
    await run_until(lambda: bool(source.commits), source, listener, aside)
    assert listener.asked == ["edge1"]
    assert source.commits == [3]


async def test_each_edge_gets_its_own_run() -> None:
    source, listener, aside = Source([b"edge1", b"edge2"]), Listener(), Aside()
    await run_until(lambda: bool(source.commits), source, listener, aside)
    assert sorted(listener.asked) == ["edge1", "edge2"]


async def test_nothing_is_committed_while_the_listener_is_away() -> None:
    away = [Transient("away")] * 3
    source, listener, aside = Source([b"edge1"]), Listener(edge1=list(away)), Aside()
    await run_until(lambda: len(listener.asked) == 2, source, listener, aside)
    assert source.commits == []


async def test_a_run_is_asked_for_again_until_the_listener_is_back() -> None:
    source, listener, aside = Source([b"edge1"]), Listener(edge1=[Transient("away")] * 3), Aside()
    await run_until(lambda: bool(source.commits), source, listener, aside)
    assert listener.asked == ["edge1"] * 4
    assert aside == []


async def test_triggers_that_come_while_the_listener_is_away_join_the_waiting_one() -> None:
    source = Source([b"edge1"], [b"edge1"], [b"edge1"])
    listener, aside = Listener(edge1=[Transient("away")]), Aside()
    await run_until(lambda: bool(source.commits), source, listener, aside)
    assert listener.asked == ["edge1", "edge1"]
    assert source.commits == [3]


def traced(number: int, offset: int) -> ConsumerRecord:
    header = ("traceparent", f"00-{number:032x}-00f067aa0ba902b7-01".encode())
    return ConsumerRecord("trigger", 0, offset, 0, 0, None, b"edge1", None, 0, 5, (header,))


async def test_a_run_goes_on_with_the_trace_of_its_last_trigger_and_names_the_others(
    spans: InMemorySpanExporter,
) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(202, json={"eventID": "an-id"})

    source = Source([traced(7, 0), traced(8, 1), traced(9, 2)])
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        listener = EventListener(client, "http://listener/")
        await run_until(lambda: bool(source.commits), source, listener, Aside())  # type: ignore[arg-type]
    (span,) = spans.get_finished_spans()
    assert (span.name, span.context.trace_id) == ("trigger-pipeline", 9)
    assert [link.context.trace_id for link in span.links] == [7, 8]
    assert asked[0].headers["traceparent"] == f"00-{9:032x}-{span.context.span_id:016x}-01"
    assert json.loads(asked[0].content) == {"id-edge": "edge1"}


async def test_what_the_listener_refuses_is_put_aside_with_the_reason_and_the_rest_goes_on() -> None:
    source = Source([b"edge9", b"edge1"])
    listener, aside = Listener(edge9=[Permanent("refuses with 404")]), Aside()
    await run_until(lambda: bool(source.commits), source, listener, aside)
    assert aside == [(b"edge9", "refuses with 404")]
    assert "edge1" in listener.asked
    assert source.commits == [2]


@pytest.mark.parametrize("value", [None, b"", b"Not An Edge", b"\xff\xfe", b"-edge", b"e" * 64])
async def test_a_value_that_is_no_edge_id_is_put_aside(value: bytes | None) -> None:
    source, listener, aside = Source([value]), Listener(), Aside()
    await run_until(lambda: bool(source.commits), source, listener, aside)
    assert aside == [(value, "the value is not an edge id")]
    assert listener.asked == []


async def test_if_the_dead_letter_cannot_be_written_nothing_is_committed() -> None:
    async def broken(record: ConsumerRecord, reason: str, code: str = "") -> None:
        raise Transient("Kafka is away")

    source = Source([b"NOT AN EDGE"])
    with pytest.raises(Transient):
        async with asyncio.timeout(10):
            await trigger_pipeline(source, Listener(), broken, Triggers(coalesce=0))
    assert source.commits == []


def listener_answering(answer: httpx.Response | Exception) -> EventListener:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        assert request.read() == b'{"id-edge":"edge1"}'
        return answer

    return EventListener(httpx.AsyncClient(transport=httpx.MockTransport(handle)), "http://listener/")


async def test_the_listener_is_asked_as_tekton_expects_and_its_event_id_returned() -> None:
    answer = httpx.Response(202, json={"eventListener": "x", "eventID": "abc"})
    assert await listener_answering(answer).start_run("edge1") == "abc"


async def test_an_answer_that_is_not_json_is_still_a_success() -> None:
    assert await listener_answering(httpx.Response(202, text="accepted")).start_run("edge1") == ""


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_an_overloaded_listener_is_worth_another_try(status: int) -> None:
    with pytest.raises(Transient):
        await listener_answering(httpx.Response(status)).start_run("edge1")


async def test_a_listener_that_does_not_answer_is_worth_another_try() -> None:
    with pytest.raises(Transient):
        await listener_answering(httpx.ConnectTimeout("slow")).start_run("edge1")


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
async def test_a_refusal_says_what_the_listener_said(status: int) -> None:
    with pytest.raises(Permanent, match=f"{status}.*no such edge"):
        await listener_answering(httpx.Response(status, text="no such edge")).start_run("edge1")
