"""delivery: what becomes of the triggers on Kafka."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import delivery.listener
from caravan.dead_letters import park
from caravan.errors import Permanent, Transient
from caravan.testing.kafka import Kafka, Topic, record
from delivery.listener import EventListener
from delivery.routes import policy, trigger_pipeline

TRIGGER = TopicPartition("trigger", 0)


class Listener:
    """A listener that answers each edge with the next of its prepared outcomes, then with success."""

    def __init__(self, **outcomes: list[Exception]) -> None:
        self.outcomes = outcomes
        self.asked: list[str] = []
        self.hangs: set[str] = set()

    async def start_run(self, edge: str) -> str:
        self.asked.append(edge)
        if edge in self.hangs:
            await asyncio.Event().wait()
        if self.outcomes.get(edge):
            raise self.outcomes[edge].pop(0)
        return "event"


class Triggers(Topic):
    """The topic, and what is parked: at the end of the same topic."""

    def __init__(self, *values: bytes | ConsumerRecord | None) -> None:
        super().__init__("trigger", *values)
        self.parked = 0

    async def park(self, message: ConsumerRecord) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.parked += 1
        await park(Kafka(self), "trigger", message)  # type: ignore[arg-type]

    async def deliver(
        self,
        listener: Any,
        until: Callable[[], bool],
        *,
        coalesce: float = 0.02,
        max_age: float = 3600.0,
        tried: float = 10.0,
    ) -> None:
        """Run the route until something holds."""
        route = trigger_pipeline(
            self,
            listener,
            self.send_dead_letter,
            self.park,
            policy(max_age, tried),
            coalesce_seconds=coalesce,
        )
        await self.run(route, until)


async def test_triggers_of_one_edge_become_one_run() -> None:
    kafka, listener = Triggers(b"edge1", b"edge1", b"edge1"), Listener()
    await kafka.deliver(listener, lambda: kafka.offset == 3)
    assert listener.asked == ["edge1"]


async def test_each_edge_gets_its_own_run() -> None:
    kafka, listener = Triggers(b"edge1", b"edge2"), Listener()
    await kafka.deliver(listener, lambda: kafka.offset == 2)
    assert sorted(listener.asked) == ["edge1", "edge2"]


async def test_nothing_that_waits_is_committed_while_the_listener_is_away() -> None:
    kafka, listener = Triggers(b"edge1"), Listener(edge1=[Transient("away")] * 3)
    await kafka.deliver(listener, lambda: len(listener.asked) == 2)
    assert kafka.offset == 0


async def test_a_run_is_asked_for_again_until_the_listener_is_back() -> None:
    kafka, listener = Triggers(b"edge1"), Listener(edge1=[Transient("away")] * 3)
    await kafka.deliver(listener, lambda: kafka.offset == 1)
    assert listener.asked == ["edge1"] * 4
    assert kafka.aside == []


async def test_triggers_that_come_while_the_listener_is_away_join_the_waiting_one() -> None:
    kafka, listener = Triggers(b"edge1"), Listener(edge1=[Transient("away")])

    def has_come() -> bool:
        if listener.asked and len(kafka.records[TRIGGER]) == 1:
            kafka.send(b"edge1", b"edge1")
        return kafka.offset == 3

    await kafka.deliver(listener, has_come)
    assert listener.asked == ["edge1", "edge1"]


async def test_while_the_listener_hangs_for_one_edge_the_runs_of_the_others_start() -> None:
    kafka, listener = Triggers(b"edge2", b"edge1", b"edge3"), Listener()
    listener.hangs = {"edge1"}
    await kafka.deliver(listener, lambda: len(listener.asked) == 3 and kafka.offset == 1)
    assert sorted(listener.asked) == ["edge1", "edge2", "edge3"]
    assert (kafka.aside, kafka.parked) == ([], 0)


async def test_an_edge_that_waits_long_is_committed_and_asked_for_again_from_the_end_of_the_topic() -> None:
    kafka, listener = Triggers(b"edge1", b"edge2"), Listener(edge1=[Transient("overloaded")] * 3)
    await kafka.deliver(listener, lambda: kafka.offset == 2 + kafka.parked > 2, tried=0)
    assert listener.asked.count("edge1") == 4
    assert listener.asked.count("edge2") == 1
    assert kafka.parked == 3
    assert kafka.aside == []


async def test_a_trigger_that_has_waited_for_too_long_is_a_dead_letter_with_the_reason() -> None:
    since = (("caravan-parked-since", b"1"), ("caravan-parked-offset", b"5"))
    old = record(b"edge1", headers=since)
    kafka, listener = (
        Triggers(old, b"edge2"),
        Listener(edge1=[Transient("the EventListener answers 503")] * 9),
    )
    await kafka.deliver(listener, lambda: kafka.offset == 2, tried=0)
    assert kafka.aside == [(b"edge1", "the EventListener answers 503", "away")]
    assert listener.asked.count("edge2") == 1


async def test_a_trigger_that_cannot_be_parked_is_not_committed() -> None:
    kafka, listener = Triggers(b"edge1"), Listener(edge1=[Transient("away")] * 9)
    kafka.refuses = Transient("Kafka is away")
    with pytest.raises(Transient, match="Kafka is away"):
        await kafka.deliver(listener, lambda: False, tried=0)
    assert kafka.offset == 0


def traced(number: int) -> ConsumerRecord:
    header = ("traceparent", f"00-{number:032x}-00f067aa0ba902b7-01".encode())
    return record(b"edge1", headers=(header,))


async def test_a_run_goes_on_with_the_trace_of_its_last_trigger_and_names_the_others(
    spans: InMemorySpanExporter,
) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(202, json={"eventID": "an-id"})

    kafka = Triggers(traced(7), traced(8), traced(9))
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await kafka.deliver(EventListener(client, "http://listener/"), lambda: kafka.offset == 3)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.context.trace_id) == ("trigger-pipeline", 9)
    assert [link.context.trace_id for link in span.links] == [7, 8]
    assert asked[0].headers["traceparent"] == f"00-{9:032x}-{span.context.span_id:016x}-01"
    assert json.loads(asked[0].content) == {"id-edge": "edge1"}


async def test_what_the_listener_refuses_becomes_a_dead_letter_with_the_reason_and_the_rest_goes_on() -> None:
    kafka, listener = Triggers(b"edge9", b"edge1"), Listener(edge9=[Permanent("refuses with 404")])
    await kafka.deliver(listener, lambda: kafka.offset == 2)
    assert kafka.aside == [(b"edge9", "refuses with 404", "refused")]
    assert "edge1" in listener.asked


@pytest.mark.parametrize("value", [None, b"", b"Not An Edge", b"\xff\xfe", b"-edge", b"e" * 64])
async def test_a_value_that_is_no_edge_id_becomes_a_dead_letter(value: bytes | None) -> None:
    kafka, listener = Triggers(value), Listener()
    await kafka.deliver(listener, lambda: kafka.offset == 1)
    assert kafka.aside == [(value, "the value is not an edge id", "not-an-edge")]
    assert listener.asked == []


async def test_if_the_dead_letter_cannot_be_written_nothing_is_committed() -> None:
    kafka = Triggers(b"NOT AN EDGE")
    kafka.refuses = Transient("Kafka is away")
    with pytest.raises(Transient):
        await kafka.deliver(Listener(), lambda: False, tried=0)
    assert kafka.offset == 0


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


async def test_a_listener_that_never_ends_its_answer_is_worth_another_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.001)

    monkeypatch.setattr(delivery.listener, "ANSWER_SECONDS", 0.05)
    with pytest.raises(Transient):
        await listener_answering(httpx.Response(202, content=drip())).start_run("edge1")


@pytest.mark.parametrize("status", [401, 403, 407])
async def test_triggers_wait_while_the_listener_lets_nobody_in_and_readiness_says_so(status: int) -> None:
    answers = [httpx.Response(status), httpx.Response(202)]
    transport = httpx.MockTransport(
        lambda asked: answers.pop(0) if asked.method == "POST" else httpx.Response(405)
    )
    async with httpx.AsyncClient(transport=transport) as client:
        listener = EventListener(client, "http://listener/")
        await listener.ping()
        with pytest.raises(Transient, match=f"does not let us in .{status}.*triggers wait"):
            await listener.start_run("edge1")
        with pytest.raises(Transient, match="does not let us in"):
            await listener.ping()
        await listener.start_run("edge1")
        await listener.ping()


@pytest.mark.parametrize("status", [301, 400, 404, 422])
async def test_a_refusal_says_what_the_listener_said(status: int) -> None:
    with pytest.raises(Permanent, match=f"{status}.*no such edge"):
        await listener_answering(httpx.Response(status, text="no such edge")).start_run("edge1")


async def test_a_listener_that_leads_elsewhere_is_named_with_where_it_leads() -> None:
    answer = httpx.Response(308, headers={"Location": "https://listener/runs/"})
    with pytest.raises(Permanent, match="308: it leads to https://listener/runs/"):
        await listener_answering(answer).start_run("edge1")
