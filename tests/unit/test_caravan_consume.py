"""The loop that all consumers share: what it commits, what becomes a dead letter, and when it stops."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, TopicAuthorizationFailedError
from prometheus_client import REGISTRY

from caravan.consume import Consumption, Effect, LogAndContinue, Offsets, Policy, Stopped, consume
from caravan.errors import BadInput, CaravanError, Permanent, Transient
from caravan.testing.kafka import Topic, record

ONE, TWO = TopicPartition("t", 0), TopicPartition("t", 1)


def policy(**changed: Any) -> Policy:
    plain: dict[str, Any] = {
        "route": "a-route",
        "sink": "a-sink",
        "at_once": 100,
        "in_flight": 100,
        "within": 0.0,
        "then": "stop",
    }
    return Policy(**(plain | changed))


# --- offsets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_only_what_has_nothing_undone_before_it_is_ever_committed(seed: int) -> None:
    """Two partitions with gaps, as compaction leaves them, done in any order between the takings."""
    rng = random.Random(seed)
    offsets = Offsets()
    coming = {p: sorted(rng.sample(range(100), 40)) for p in (ONE, TWO)}
    undone: list[tuple[TopicPartition, int, Callable[[], None]]] = []
    left: dict[TopicPartition, set[int]] = {p: set(taken) for p, taken in coming.items()}
    committed: dict[TopicPartition, int] = {}
    while any(coming.values()) or undone:
        partition = rng.choice((ONE, TWO))
        if coming[partition] and rng.random() < 0.6:
            offset = coming[partition].pop(0)
            undone.append((partition, offset, offsets.take(partition, offset)))
        elif undone:
            partition, offset, done = undone.pop(rng.randrange(len(undone)))
            done()
            left[partition].remove(offset)
        moved = offsets.to_commit()
        for where, to in moved.items():
            assert to > committed.get(where, -1)
            assert all(offset >= to for offset in left[where])
        committed |= moved
        offsets.committed(moved)
    for partition in (ONE, TWO):
        offsets.take(partition, 1000)
    assert offsets.to_commit() == dict.fromkeys((ONE, TWO), 1000), "everything before was done"


def test_an_offset_that_the_broker_has_is_not_committed_again() -> None:
    offsets = Offsets()
    offsets.take(ONE, 5)()
    assert offsets.to_commit() == {ONE: 6}
    assert offsets.to_commit() == {ONE: 6}, "it failed, say"
    offsets.committed({ONE: 6})
    assert offsets.to_commit() == {}


def test_of_a_partition_that_was_given_back_nothing_is_committed() -> None:
    offsets = Offsets()
    done = offsets.take(ONE, 5)
    offsets.take(TWO, 7)()
    offsets.keep([TWO])
    done()
    assert offsets.to_commit() == {TWO: 8}


def test_what_was_taken_before_a_partition_came_back_does_not_count_for_it() -> None:
    offsets = Offsets()
    before = offsets.take(ONE, 5)
    offsets.take(ONE, 6)
    again = offsets.take(ONE, 5)
    before()
    assert offsets.to_commit() == {}
    again()
    assert offsets.to_commit() == {ONE: 6}


# --- policies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"at_once": 0}, "at least one"),
        ({"in_flight": 99}, "as many messages are in flight"),
        ({"within": -1.0}, "not negative"),
        ({"then": "park", "age": 60.0, "order": "key"}, "no order to keep"),
        ({"then": "park"}, "an age beyond"),
        ({"age": 60.0}, "for messages that are parked"),
        ({"in_flight_bytes": 0}, "has bytes"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"a-route contradicts itself: .*{says}"):
        policy(**changed)


async def test_who_parks_says_where() -> None:
    topic = Topic("t")
    with pytest.raises(ValueError, match="do not fit"):
        await consume(topic, Handler().handle, topic.send_dead_letter, policy(then="park", age=60.0))


# --- the loop -----------------------------------------------------------------------------------


class Handler:
    """Does what a message's value says: fails in a way, waits for a gate, or is done."""

    def __init__(self, **gates: asyncio.Event) -> None:
        self.gates = gates
        self.handled: list[str] = []
        self.done: list[str] = []
        self.fails_again = True

    async def handle(self, record: ConsumerRecord) -> Effect:
        text = (record.value or b"").decode()
        self.handled.append(text)

        async def effect() -> None:
            if gate := self.gates.get(text):
                await gate.wait()
            match text:
                case "refused":
                    raise BadInput("it is odd", reason="odd")
                case "permanent":
                    raise Permanent("not here")
                case "later" if self.fails_again:
                    raise Transient("the sink is away")
                case "fault":
                    raise ZeroDivisionError
            self.done.append(text)

        return effect


def batch(text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


async def test_each_failure_has_its_code_and_the_rest_goes_on() -> None:
    topic, handler = Topic("t", *batch("a refused permanent fault b")), Handler()
    await topic.run(
        consume(topic, handler.handle, topic.send_dead_letter, policy()), lambda: topic.offset == 5
    )
    assert handler.done == ["a", "b"]
    assert sorted(topic.aside) == [
        (b"fault", "ZeroDivisionError()", "unexpected"),
        (b"permanent", "not here", "refused"),
        (b"refused", "it is odd", "odd"),
    ]


async def test_one_that_waits_holds_back_neither_the_others_nor_the_commits_before_it() -> None:
    topic, handler = Topic("t", *batch("a b slow c d")), Handler(slow=asyncio.Event())
    route = consume(topic, handler.handle, topic.send_dead_letter, policy())
    await topic.run(route, lambda: topic.offset == 2 and handler.done == ["a", "b", "c", "d"])


@pytest.mark.parametrize("then", ["stop", "dead-letter"])
async def test_what_may_work_later_is_tried_for_a_while(then: str) -> None:
    topic, handler = Topic("t", *batch("later")), Handler()
    route = consume(topic, handler.handle, topic.send_dead_letter, policy(within=20.0, then=then))

    def mended() -> bool:
        handler.fails_again = not handler.handled
        return topic.offset == 1

    await topic.run(route, mended)
    assert topic.aside == []


async def nothing() -> None:
    """An effect."""


async def test_between_two_tries_a_message_holds_no_place() -> None:
    topic = Topic("t", *batch("waits a b c"))
    handled: list[bytes] = []

    async def handle(record: ConsumerRecord) -> Effect:
        handled.append(record.value)
        if record.value == b"waits" and b"c" not in handled:
            raise Transient("until all others are done")
        return nothing

    await topic.run(
        consume(topic, handle, topic.send_dead_letter, policy(at_once=1, within=20)),
        lambda: topic.offset == 4,
    )
    assert handled[0] == handled[-1] == b"waits"


async def test_what_does_not_work_in_time_stops_the_loop_and_keeps_its_offset() -> None:
    topic, handler = Topic("t", *batch("a later b")), Handler()
    with pytest.raises(Transient, match="sink is away"):
        await topic.run(consume(topic, handler.handle, topic.send_dead_letter, policy()), lambda: False)
    assert topic.offset == 1


async def test_what_alone_does_not_work_while_others_are_done_becomes_a_dead_letter() -> None:
    topic, handler = Topic("t", *batch("later")), Handler()
    route = consume(topic, handler.handle, topic.send_dead_letter, policy(within=0.5))

    def others_go_on() -> bool:
        if not topic.aside:
            topic.send(b"other")
        return bool(topic.aside) and topic.offset == len(topic.records[ONE])

    await topic.run(route, others_go_on)
    assert topic.aside == [(b"later", "the sink is away", "away")]


async def test_what_does_not_work_in_time_becomes_a_dead_letter_where_the_policy_says_so() -> None:
    topic, handler = Topic("t", *batch("a later b")), Handler()
    route = consume(topic, handler.handle, topic.send_dead_letter, policy(then="dead-letter"))
    await topic.run(route, lambda: topic.offset == 3)
    assert topic.aside == [(b"later", "the sink is away", "away")]


async def test_what_cannot_be_parked_becomes_a_dead_letter() -> None:
    async def park(_: ConsumerRecord) -> None:
        raise Permanent("too large")

    topic, handler = Topic("t", *batch("later")), Handler()
    route = consume(topic, handler.handle, topic.send_dead_letter, policy(then="park", age=60.0), park)
    await topic.run(route, lambda: topic.offset == 1)
    assert topic.aside == [(b"later", "the sink is away; it cannot be parked: too large", "away")]


# --- faults of our own --------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 7, 100])
async def test_a_fault_of_ours_drains_no_topic(at_once: int) -> None:
    topic, handler = Topic("t", *batch("a b" + " fault" * 500)), Handler()
    route = consume(topic, handler.handle, topic.send_dead_letter, policy(at_once=at_once))
    with pytest.raises(Stopped, match=r"21 messages in a row .* ZeroDivisionError"):
        await topic.run(route, lambda: False)
    assert len(topic.aside) <= 20
    assert topic.offset == 2, "of the first of them"


async def test_a_message_that_is_handled_ends_the_row() -> None:
    topic, handler = Topic("t", *batch(" ".join(["fault " * 20 + "a"] * 3))), Handler()
    await topic.run(
        consume(topic, handler.handle, topic.send_dead_letter, policy(at_once=1)), lambda: topic.offset == 63
    )
    assert len(topic.aside) == 60


async def test_a_refused_message_does_not_end_the_row() -> None:
    topic, handler = Topic("t", *batch("fault refused " * 100)), Handler()
    with pytest.raises(Stopped):
        await topic.run(
            consume(topic, handler.handle, topic.send_dead_letter, policy(at_once=1)), lambda: False
        )
    assert [code for _, _, code in topic.aside].count("unexpected") == 20
    assert topic.offset == 0


async def test_a_fault_that_nothing_follows_is_committed_and_still_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("caravan.consume.POLL_SECONDS", 0.02)
    topic, handler = Topic("t", b"fault"), Handler()
    sent = 1

    def one_by_one() -> bool:
        nonlocal sent
        if topic.offset == sent:
            sent += 1
            topic.send(b"fault")
        return False

    with pytest.raises(Stopped):
        await topic.run(
            consume(topic, handler.handle, topic.send_dead_letter, policy(unforeseen=3)), one_by_one
        )
    assert (topic.offset, len(topic.aside)) == (3, 3)


async def ping_until_it_fails(route: Consumption) -> None:
    async with asyncio.timeout(20):
        while True:
            await asyncio.sleep(0.002)
            await route.ping()


async def fails(route: Consumption) -> bool:
    try:
        await route.ping()
    except CaravanError:
        return True
    return False


async def test_a_stopped_route_is_not_ready_and_says_why_until_it_begins_again() -> None:
    topic, handler = Topic("t", *batch("fault " * 30)), Handler()

    async def attempt() -> None:
        await consume(topic, handler.handle, topic.send_dead_letter, policy())

    route = Consumption("a-route", attempt)
    await route.ping()
    life = asyncio.create_task(route.run())
    with pytest.raises(CaravanError, match="21 messages in a row"):
        await ping_until_it_fails(route)
    assert not life.done(), "the rest of the service goes on"
    life.cancel()
    await asyncio.wait([life])
    await Consumption("a-route", attempt).ping()


async def test_a_route_that_the_broker_does_not_let_read_is_not_ready_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("caravan.consume.LONGEST_WAIT", 0.05)
    granted = asyncio.Event()

    async def attempt() -> None:
        if granted.is_set():
            await asyncio.Event().wait()
        raise Transient("consumer of t: no right") from TopicAuthorizationFailedError("t")

    route = Consumption("a-route", attempt)
    life = asyncio.create_task(route.run())
    with pytest.raises(CaravanError, match="no right"):
        await ping_until_it_fails(route)
    granted.set()
    async with asyncio.timeout(20):
        while await fails(route):
            await asyncio.sleep(0.01)
    life.cancel()
    await asyncio.wait([life])


# --- order, bounds, ends --------------------------------------------------------------------------


def keyed(*pairs: tuple[str, str]) -> list[ConsumerRecord]:
    return [record(text.encode(), key=key.encode() or None) for key, text in pairs]


async def test_effects_of_one_key_follow_one_another_while_others_pass() -> None:
    topic = Topic("t", *keyed(("x", "slow"), ("x", "after"), ("y", "other"), ("", "none")))
    gate = asyncio.Event()
    handler = Handler(slow=gate)

    def all_but_one() -> bool:
        if handler.done == ["other", "none"]:
            gate.set()
        return topic.offset == 4

    await topic.run(consume(topic, handler.handle, topic.send_dead_letter, policy(order="key")), all_but_one)
    assert handler.handled == ["slow", "after", "other", "none"], "handled side by side all the same"
    assert handler.done == ["other", "none", "slow", "after"]


async def test_effects_of_a_partition_begin_in_its_order_however_long_each_is_handled() -> None:
    topic = Topic("t", *batch("3 2 1 0"))
    topic.send(*batch("second"), partition=1)
    begun: list[str] = []

    async def handle(record: ConsumerRecord) -> Effect:
        text = (record.value or b"").decode()
        await asyncio.sleep(int(text) * 0.003 if text.isdigit() else 0)

        async def effect() -> None:
            begun.append(text)
            await asyncio.sleep(0.001)

        return effect

    route = consume(topic, handle, topic.send_dead_letter, policy(order="partition"))
    await topic.run(route, lambda: sum(topic.committed.values()) == 5)
    assert begun[0] == "second"
    assert begun[1:] == ["3", "2", "1", "0"]


@pytest.mark.parametrize("bound", [{"in_flight": 4, "at_once": 4}, {"in_flight_bytes": 4, "fetch": 1}])
async def test_no_more_is_taken_than_may_be_in_flight(bound: dict[str, int]) -> None:
    fetch = bound.pop("fetch", 1000)
    gate = asyncio.Event()
    topic, handler = Topic("t", *batch("s " * 20), fetch=fetch), Handler(s=gate)
    taken = 0

    def most() -> bool:
        nonlocal taken
        taken = max(taken, len(handler.handled) - len(handler.done))
        if len(handler.handled) == 4:
            gate.set()
        return topic.offset == 20

    await topic.run(consume(topic, handler.handle, topic.send_dead_letter, policy(**bound)), most)
    assert taken == 4


async def test_a_stop_commits_what_is_done() -> None:
    topic, handler = Topic("t", *batch("a slow b")), Handler(slow=asyncio.Event())
    route = consume(topic, handler.handle, topic.send_dead_letter, policy())
    await topic.run(route, lambda: len(handler.done) == 2)
    assert topic.offset == 1


async def test_a_commit_that_comes_too_late_for_its_partition_ends_nothing() -> None:
    class Rebalancing(Topic):
        late = 0

        async def commit(self, offsets: Any) -> None:
            if not self.late:
                self.late += 1
                raise CommitFailedError
            await super().commit(offsets)

    topic, handler = Rebalancing("t", *batch("a b")), Handler()

    def goes_on() -> bool:
        if topic.late and len(topic.records[ONE]) == 2:
            topic.send(b"c")
        return topic.offset == 3

    await topic.run(consume(topic, handler.handle, topic.send_dead_letter, policy()), goes_on)


# --- routes without an effect ---------------------------------------------------------------------


def test_where_nothing_is_committed_a_message_that_fails_is_counted_and_passed_over() -> None:
    def count(reason: str) -> float:
        labels = {"door": "a-reader", "reason": reason}
        return REGISTRY.get_sample_value("caravan_refusals_total", labels) or 0

    reading, read = LogAndContinue("a-reader"), []
    for error in (None, BadInput("it is odd", reason="odd"), ZeroDivisionError(), KeyError(), None):
        with reading.of(keyed(("k", "x"))[0]):
            if error is not None:
                raise error
            read.append("x")
    assert (read, count("odd"), count("unexpected")) == (["x", "x"], 1, 2)
