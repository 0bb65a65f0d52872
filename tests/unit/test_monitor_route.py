"""monitor: what becomes of an edge's events."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from caravan.consume import Stopped
from caravan.errors import Permanent, Transient
from caravan.testing.kafka import Topic
from monitor.routes import bridge


def event(number: int) -> bytes:
    return json.dumps({"name": "zipfile", "number": number}).encode()


class Bridge(Topic):
    """The topic and the ports of the route, with what went through them."""

    def __init__(self, *values: bytes | None, breaks: bool = False) -> None:
        super().__init__("edge1", *values)
        self.breaks = breaks
        self.published: list[tuple[str, bytes]] = []

    async def until(self, committed: int) -> None:
        await self.run(
            bridge(self, self.publish_all, self.send_dead_letter, max_bytes=1000),
            lambda: self.offset == committed,
        )

    async def publish_all(self, topic: str, payloads: Sequence[bytes]) -> None:
        ends = [self.publish(topic, payload) for payload in payloads]
        for error in filter(None, await asyncio.gather(*ends, return_exceptions=True)):
            raise error

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.breaks and len(self.published) == 70:
            # The connection breaks: this one and all that were handed over after it fail.
            if json.loads(payload)["number"] == 99:
                self.breaks = False
            raise Transient("MQTT is away")
        self.published.append((topic, payload))
        await asyncio.sleep(0)


async def test_events_reach_mqtt_in_order_and_unchanged() -> None:
    ports = Bridge(*(event(n) for n in range(121)))
    await ports.until(121)
    assert ports.published == [("monitor", event(n)) for n in range(121)]


async def test_after_mqtt_was_away_every_event_is_there_in_order() -> None:
    ports = Bridge(*(event(n) for n in range(120)), breaks=True)
    await ports.until(120)
    numbers = [json.loads(payload)["number"] for _, payload in ports.published]
    assert list(dict.fromkeys(numbers)) == list(range(120))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "not JSON"),
        (None, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 500, "not JSON"),
        (rb'{"name":"detection","item":"\ud800"}', "not JSON"),
        (b'{"name":"training","progress":NaN}', "not JSON"),
        (json.dumps({"x": "y" * 2000}).encode(), "bytes"),
    ],
)
async def test_what_is_no_event_becomes_a_dead_letter_and_the_rest_goes_on(
    value: bytes | None, reason: str
) -> None:
    ports = Bridge(event(1), value, event(2))
    await ports.until(3)
    assert [payload for _, payload in ports.published] == [event(1), event(2)]
    assert [(v, reason in r) for v, r, _ in ports.aside] == [(value, True)]


async def test_nothing_is_committed_before_mqtt_has_it() -> None:
    class Away(Bridge):
        async def publish(self, topic: str, payload: bytes) -> None:
            self.published.append((topic, payload))
            await asyncio.Event().wait()

    ports = Away(event(1))
    await ports.run(
        bridge(ports, ports.publish_all, ports.send_dead_letter, 1000), lambda: bool(ports.published)
    )
    assert ports.offset == 0


async def test_an_event_that_mqtt_refuses_becomes_a_dead_letter_and_those_of_its_window_go_on() -> None:
    class Refusing(Bridge):
        async def publish(self, topic: str, payload: bytes) -> None:
            if payload == event(1):
                raise Permanent("more than the broker takes")
            await super().publish(topic, payload)

    ports = Refusing(*(event(n) for n in range(3)))
    await ports.until(3)
    assert [value for value, _, _ in ports.aside] == [event(1)]
    assert {payload for _, payload in ports.published} == {event(0), event(2)}


async def test_a_fault_of_ours_does_not_make_dead_letters_of_all_events() -> None:
    class Broken(Bridge):
        async def publish(self, topic: str, payload: bytes) -> None:
            raise ZeroDivisionError

    ports = Broken(*(event(n) for n in range(500)))
    with pytest.raises(Stopped):
        await ports.until(500)
    assert len(ports.aside) <= 20
    assert ports.offset == 0
