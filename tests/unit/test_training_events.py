"""Events are sent in order and at a bounded rate, and never hold up a run."""

import asyncio
import json
from typing import Any

from caravan.contracts import training_event
from caravan.errors import Transient
from training import events
from training.events import QUEUED, Events, Reporter


class Broker:
    def __init__(self, *, away: bool = False) -> None:
        self.got: list[dict[str, Any]] = []
        self.topics: list[str] = []
        self.away = away

    async def send(self, topic: str, value: bytes) -> None:
        if self.away:
            raise Transient("no broker")
        self.topics.append(topic)
        self.got.append(json.loads(value))


async def test_events_arrive_in_order_before_the_end() -> None:
    broker = Broker()
    async with Events(broker.send, "edge1") as sent:
        for n in range(50):
            sent.emit({"n": n})
    assert [event["n"] for event in broker.got] == list(range(50))
    assert set(broker.topics) == {"edge1"}


async def test_a_broker_that_is_away_costs_nothing_but_the_events() -> None:
    async with Events(Broker(away=True).send, "edge1") as sent:
        for n in range(QUEUED * 3):
            sent.emit({"n": n})


async def test_an_event_that_cannot_be_encoded_costs_no_other() -> None:
    broker = Broker()
    async with Events(broker.send, "edge1") as sent:
        sent.emit({"n": object()})
        sent.emit({"n": 1})
    assert broker.got == [{"n": 1}]


async def test_a_broker_that_hangs_is_not_waited_for_long(monkeypatch: Any) -> None:
    monkeypatch.setattr(events, "FLUSH_SECONDS", 0.05)

    async def hang(topic: str, value: bytes) -> None:
        await asyncio.sleep(600)

    async with asyncio.timeout(10):
        async with Events(hang, "edge1") as sent:
            sent.emit({"n": 1})


async def test_progress_is_thinned_out_but_each_stages_begin_and_end_are_told() -> None:
    got: list[dict[str, Any]] = []
    reporter = Reporter({"edge": "edge1", "run": "r"}, got.append)

    def busy() -> None:
        for stage in ("acquire", "train"):
            for i in range(1001):
                reporter.progress(stage, i / 1000)

    await asyncio.to_thread(busy)
    await asyncio.sleep(0)
    assert len(got) < 40
    for stage in ("acquire", "train"):
        of_stage = [event["progress"] for event in got if event["stage"] == stage]
        assert (of_stage[0], of_stage[-1]) == events.SHARES[stage]
    progress = [event["progress"] for event in got]
    assert progress == sorted(progress)
    assert {(event["name"], event["edge"], event["run"]) for event in got} == {("training", "edge1", "r")}


async def test_of_the_progress_within_a_stage_many_edges_are_told_less_often_but_of_each_stage() -> None:
    broker = Broker()
    edges = [f"edge{n}" for n in range(300)]
    async with Events(broker.send, *edges) as sent:
        for stage in ("acquire", "train", "done"):
            for n in range(20):
                sent.emit(training_event(stage, n / 20))
    assert len(broker.got) == 3 * len(edges)
    assert [event["stage"] for event in broker.got[:3]] == ["acquire", "train", "done"]


async def test_a_slow_answer_of_one_edges_topic_holds_up_no_other_and_each_is_told_in_order() -> None:
    broker, slow = Broker(), asyncio.Event()

    async def send(topic: str, value: bytes) -> None:
        if topic == "edge1":
            await slow.wait()
        await broker.send(topic, value)

    async with Events(send, "edge1", *(f"edge{n}" for n in range(2, QUEUED + 2))) as sent:
        for edge in ("edge1", *(f"edge{n}" for n in range(2, QUEUED + 2))):
            sent.emit({"name": "model-ready", "edge": edge})
        async with asyncio.timeout(30):
            while len(broker.got) < QUEUED:
                await asyncio.sleep(0.01)
        slow.set()
    assert len(broker.got) == QUEUED + 1
    assert broker.topics[-1] == "edge1"


async def test_what_a_group_tells_goes_to_all_its_edges_but_what_is_of_one_to_that_one() -> None:
    broker = Broker()
    async with Events(broker.send, "edge1", "edge2", known=("edge3",)) as sent:
        sent.emit({"name": "training", "edge": "north"})
        sent.emit({"name": "quarantine", "edge": "edge2"})
        sent.emit({"name": "quarantine", "edge": "edge3"})  # It sends images, and serves a model of its own.
    told = sorted((topic, event["name"]) for topic, event in zip(broker.topics, broker.got, strict=True))
    assert told == [
        ("edge1", "training"),
        ("edge2", "quarantine"),
        ("edge2", "training"),
        ("edge3", "quarantine"),
    ]
