"""monitor: what becomes of an edge's events."""

import json
from collections.abc import AsyncIterator

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from caravan.errors import Transient
from caravan.kafka import Batch
from monitor.routes import bridge

PARTITION = TopicPartition("edge1", 0)


def event(number: int) -> bytes:
    return json.dumps({"name": "zipfile", "number": number}).encode()


class Bridge:
    """The ports of the route, with what went through them."""

    def __init__(self, *batches: list[bytes | None], breaks: bool = False) -> None:
        self.source = batches
        self.breaks = breaks
        self.published: list[tuple[str, bytes]] = []
        self.committed: list[int] = []
        self.aside: list[tuple[bytes | None, str]] = []

    async def run(self) -> None:
        await bridge(self.batches(), self.publish, self.commit, self.put_aside, max_bytes=1000)

    async def batches(self) -> AsyncIterator[Batch]:
        offset = 0
        for values in self.source:
            yield {
                PARTITION: [
                    ConsumerRecord("edge1", 0, offset + i, 0, 0, None, v, None, 0, len(v or b""), ())
                    for i, v in enumerate(values)
                ]
            }
            offset += len(values)

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.breaks and len(self.published) == 70:
            # The connection breaks: this one and all that were handed over after it fail.
            if json.loads(payload)["number"] == 99:
                self.breaks = False
            raise Transient("MQTT is away")
        self.published.append((topic, payload))

    async def commit(self, batch: Batch) -> None:
        self.committed.append(batch[PARTITION][-1].offset + 1)

    async def put_aside(self, record: ConsumerRecord, reason: str, code: str = "") -> None:
        self.aside.append((record.value, reason))


async def test_events_reach_mqtt_in_order_and_unchanged() -> None:
    ports = Bridge([event(n) for n in range(120)], [event(120)])
    await ports.run()
    assert ports.published == [("monitor", event(n)) for n in range(121)]
    assert ports.committed == [120, 121]


async def test_after_mqtt_was_away_every_event_is_there_in_order() -> None:
    ports = Bridge([event(n) for n in range(120)], breaks=True)
    await ports.run()
    numbers = [json.loads(payload)["number"] for _, payload in ports.published]
    assert list(dict.fromkeys(numbers)) == list(range(120))
    assert ports.committed == [120]


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
async def test_what_is_no_event_is_put_aside_and_the_rest_goes_on(value: bytes | None, reason: str) -> None:
    ports = Bridge([event(1), value, event(2)])
    await ports.run()
    assert [payload for _, payload in ports.published] == [event(1), event(2)]
    assert [(v, reason in r) for v, r in ports.aside] == [(value, True)]
    assert ports.committed == [3]


async def test_nothing_is_committed_before_mqtt_has_it() -> None:
    class Away(Bridge):
        async def publish(self, topic: str, payload: bytes) -> None:
            raise RuntimeError("the process dies here")

    ports = Away([event(1)])
    with pytest.raises(RuntimeError):
        await ports.run()
    assert ports.committed == []
