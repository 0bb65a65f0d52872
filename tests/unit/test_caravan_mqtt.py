"""common: MQTT, asked of a broker that refuses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from caravan import tracing
from caravan.errors import Transient
from caravan.mqtt import PUBLISH_SECONDS, WINDOW, Mqtt, OnMessage
from caravan.settings import MqttSettings

CONNECT, PUBLISH, SUBSCRIBE, PING = 0x10, 0x30, 0x80, 0xC0
NOT_AUTHORIZED = 135


class Broker:
    """Answers in MQTT 5, with the reason codes that the test has, and no more than the tests need."""

    def __init__(self, puback: int = 0, suback: int = 1) -> None:
        self.puback = puback
        self.suback = suback
        self.subscribed = 0
        self.published: list[bytes] = []
        self.refuses = self.hangs_up_at = b""
        self.brings: list[bytes] = []
        """Topics on which each subscriber is brought a message."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                kind = (await reader.readexactly(1))[0]
                length = (await reader.readexactly(1))[0]  # short messages alone
                packet = await reader.readexactly(length)
                if kind & 0xF0 == CONNECT:
                    writer.write(bytes([0x20, 3, 0, 0, 0]))
                elif kind & 0xF0 == PUBLISH:
                    self.published.append(packet)
                    if self.hangs_up_at and packet.endswith(self.hangs_up_at):
                        return
                    topic = int.from_bytes(packet[:2], "big")
                    is_refused = self.refuses and packet.endswith(self.refuses)
                    code = NOT_AUTHORIZED if is_refused else self.puback
                    writer.write(bytes([0x40, 4, *packet[2 + topic : 4 + topic], code, 0]))
                elif kind & 0xF0 == SUBSCRIBE:
                    self.subscribed += 1
                    writer.write(bytes([0x90, 4, *packet[:2], 0, self.suback]))
                    for brought in self.brings:
                        writer.write(bytes([PUBLISH, 3 + len(brought), 0, len(brought), *brought, 0]))
                elif kind & 0xF0 == PING:
                    writer.write(bytes([0xD0, 0]))


@asynccontextmanager
async def connected(
    broker: Broker, *subscriptions: str, traces: bool = True, on_message: OnMessage | None = None
) -> AsyncIterator[Mqtt]:
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = MqttSettings(mqtt_host="127.0.0.1", mqtt_port=port, mqtt_version="5", mqtt_traces=traces)
    mqtt = Mqtt(settings, subscriptions, on_message)
    task = asyncio.create_task(mqtt.run())
    try:
        yield mqtt
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        server.close()


async def test_a_message_that_the_broker_takes_is_published() -> None:
    async with connected(Broker()) as mqtt, asyncio.timeout(10):
        await mqtt.publish("monitor", b"{}")
        await mqtt.publish("monitor", b"{}")


@pytest.mark.usefixtures("spans")
@pytest.mark.parametrize("traces", [True, False])
async def test_a_message_carries_its_trace_unless_it_must_not(*, traces: bool) -> None:
    broker = Broker()
    async with connected(broker, traces=traces) as mqtt, asyncio.timeout(10):
        with tracing.span("detect-mqtt"):
            await mqtt.publish("monitor", b"{}")
    assert [b"traceparent" in message for message in broker.published] == [traces]


@pytest.mark.parametrize("code", [NOT_AUTHORIZED, 128, 151])
async def test_a_message_that_the_broker_refuses_is_not_taken_for_published(code: int) -> None:
    broker = Broker(puback=code)
    async with connected(broker) as mqtt, asyncio.timeout(10):
        with pytest.raises(Transient, match="refused"):
            await mqtt.publish("monitor", b"{}")
        broker.puback = 16  # taken, though nobody listens
        await mqtt.publish("monitor", b"{}")


async def test_one_refused_message_of_many_is_told_once_all_are_answered() -> None:
    broker = Broker()
    broker.refuses = b"[7]"
    messages = [b"[%d]" % number for number in range(WINDOW)]
    async with connected(broker) as mqtt, asyncio.timeout(10):
        with pytest.raises(Transient, match="refused"):
            await mqtt.publish_all("monitor", messages)
        assert [
            packet[-len(message) :] for packet, message in zip(broker.published, messages, strict=True)
        ] == messages
        broker.refuses = b""
        await mqtt.publish_all("monitor", messages)


async def test_a_connection_that_breaks_with_messages_on_their_way_is_told_at_once() -> None:
    broker = Broker()
    broker.hangs_up_at = b"[7]"
    async with connected(broker) as mqtt:
        async with asyncio.timeout(PUBLISH_SECONDS / 2):
            with pytest.raises(Transient, match="broke"):
                await mqtt.publish_all("monitor", [b"[%d]" % number for number in range(WINDOW)])
        broker.hangs_up_at = b""
        async with asyncio.timeout(10):
            await mqtt.publish_all("monitor", [b"[7]", b"[8]"])


async def test_a_topic_can_be_heard_later_and_is_then_heard_over_each_connection() -> None:
    broker = Broker()
    async with connected(broker) as mqtt, asyncio.timeout(20):
        await mqtt.publish("monitor", b"{}")
        await mqtt.subscribe("monitor")
        assert broker.subscribed == 1
        broker.hangs_up_at = b"[7]"
        with pytest.raises(Transient, match="broke"):
            await mqtt.publish("monitor", b"[7]")
        await mqtt.publish("monitor", b"{}")
        assert broker.subscribed == 2
        broker.suback = NOT_AUTHORIZED
        with pytest.raises(Transient, match="refuses the subscription"):
            await mqtt.subscribe("refused")
        with pytest.raises(Transient, match="broke"):
            await mqtt.publish("monitor", b"[7]")
        broker.suback = 1
        await mqtt.publish("monitor", b"{}")
        assert broker.subscribed == 4


async def test_a_subscription_that_the_broker_refuses_is_no_connection() -> None:
    broker = Broker(suback=NOT_AUTHORIZED)
    async with connected(broker, "detection/#") as mqtt, asyncio.timeout(20):
        while not broker.subscribed:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        with pytest.raises(Transient, match="no connection"):
            await mqtt.ping()
        broker.suback = 1
        while broker.subscribed < 2:
            await asyncio.sleep(0.01)
        await mqtt.publish("monitor", b"{}")


async def test_a_message_on_a_topic_with_a_wildcard_is_passed_over_and_the_connection_stays() -> None:
    broker, heard = Broker(), asyncio.Queue[str]()
    broker.brings = [b"detection/a+b", b"detection/\xff", b"detection/till"]

    async def hear(message: aiomqtt.Message) -> None:
        heard.put_nowait(message.topic.value)

    async with connected(broker, "detection/#", on_message=hear) as mqtt, asyncio.timeout(20):
        assert await heard.get() == "detection/till"
        await mqtt.publish("monitor", b"{}")
    assert (broker.subscribed, heard.empty()) == (1, True)
