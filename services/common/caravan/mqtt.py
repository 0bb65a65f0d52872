"""MQTT: one connection that comes back, and a bounded outbox for best-effort events."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import aiomqtt
import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from caravan import telemetry, tracing
from caravan.contracts import to_json
from caravan.errors import Permanent, Transient
from caravan.retry import forever
from caravan.settings import MqttSettings

log = structlog.get_logger()

PUBLISH_SECONDS = 10
OUTBOX = 1000
"""Most events that wait while the broker is away; the oldest give way."""
INBOX = 1000
PAUSE_SECONDS = 0.05
"""Pause between two windows of events: a message sent alone costs three times as much as in a window."""
WINDOW = 50
"""Most messages on their way to the broker."""

FIRST_REFUSAL = 0x80
"""Lowest reason code of a refusal in PUBACK and SUBACK (MQTT 5, 2.4; SUBACK of MQTT 3.1.1 too)."""

_CORK: int | None = getattr(socket, "TCP_CORK", None)
"""The socket option TCP_CORK, which only Linux has."""

_REFUSED = re.compile("CERTIFICATE_REQUIRED|ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_)", re.IGNORECASE)
"""OpenSSL's words for a certificate that the other side refused."""

_PROTOCOLS = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}

OnMessage = Callable[[aiomqtt.Message], Awaitable[None]]


class Mqtt:
    """A connection to the broker that is made again whenever it breaks.

    Args:
        settings: the broker's settings.
        subscriptions: topic filters to subscribe to, at QoS 1.
        on_message: called for each message in turn; it must not wait for long.

    """

    def __init__(
        self, settings: MqttSettings, subscriptions: Sequence[str] = (), on_message: OnMessage | None = None
    ) -> None:
        self._settings = settings
        self._subscriptions = dict.fromkeys(subscriptions)
        self._on_message = on_message
        self._client: _Client | None = None
        self._connected = asyncio.Event()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(OUTBOX)
        self._client_log = _ClientLog()

    async def run(self) -> NoReturn:
        """Keep the connection; to be run as a task."""
        await forever("mqtt", self._session)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1 and wait until the broker has it.

        Raises:
            Transient: if it is not acknowledged within the deadline, or the broker refuses it (MQTT 5).

        """
        await self.publish_all(topic, [payload])

    async def publish_all(self, topic: str, payloads: Sequence[bytes]) -> None:
        """Publish messages at QoS 1, in order, and wait until the broker has them all.

        Args:
            topic: topic of all messages.
            payloads: at most `WINDOW`.

        Raises:
            Transient: if one is not acknowledged within the deadline, or the broker refuses it (MQTT 5). None
                is on its way any more then.

        """
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._connected.wait()
                client = self._client
                if client is None:
                    raise Transient("the MQTT connection broke")
                await client.publish_all(topic, payloads, self._properties())
        except (aiomqtt.MqttError, OSError) as exc:  # of the deadline, and of the connection itself
            message = f"MQTT did not acknowledge a message on {topic}: {exc!r}"
            raise Transient(message) from exc

    def _properties(self) -> Properties | None:
        """The current trace, where the protocol has room for it."""
        carries = self._settings.mqtt_version == "5" and self._settings.mqtt_traces
        carrier = tracing.headers() if carries else {}
        if not carrier:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho has no types here
        properties.UserProperty = list(carrier.items())
        return properties

    async def subscribe(self, topic: str) -> None:
        """Hear a topic filter too, at QoS 1, over this connection and those that follow.

        Raises:
            Transient: if the broker does not answer, or refuses it.

        """
        self._subscriptions[topic] = None
        if self._client is not None:
            try:
                await self._subscribe(self._client, topic)
            except aiomqtt.MqttError as exc:
                message = f"MQTT did not take a subscription to {topic}: {exc!r}"
                raise Transient(message) from exc
            except Transient:
                del self._subscriptions[topic]  # or no connection would be one
                raise

    async def unsubscribe(self, topic: str) -> None:
        """Hear a topic filter no more."""
        self._subscriptions.pop(topic, None)
        if self._client is not None:
            with suppress(aiomqtt.MqttError):  # with the connection it ends anyway
                await self._client.unsubscribe(topic)

    async def ping(self) -> None:
        """Check that there is a connection.

        Raises:
            Transient: if not.

        """
        if not self._connected.is_set():
            message = f"no connection to {self._settings.mqtt_host}:{self._settings.mqtt_port}"
            raise Transient(message)

    # --- best effort ----------------------------------------------------------------------------

    def post(self, event: Mapping[str, Any]) -> None:
        """Put an event for topic `monitor` into the outbox; never waits, never fails."""
        if self._outbox.full():
            self._outbox.get_nowait()
            telemetry.BEST_EFFORT_FAILURES.labels("monitor").inc()
        self._outbox.put_nowait(to_json(event))
        telemetry.MQTT_OUTBOX.set(self._outbox.qsize())

    async def drain(self, topic: str) -> NoReturn:
        """Publish the outbox in order, events that come close together in one window; to be run as a task."""
        while True:
            events = [await self._outbox.get()]
            while len(events) < WINDOW and not self._outbox.empty():
                events.append(self._outbox.get_nowait())
            telemetry.MQTT_OUTBOX.set(self._outbox.qsize())
            with telemetry.best_effort("monitor", count=len(events)):
                await self.publish_all(topic, events)
            await asyncio.sleep(PAUSE_SECONDS)

    # --- the connection -------------------------------------------------------------------------

    async def _session(self) -> None:
        where = f"{self._settings.mqtt_host}:{self._settings.mqtt_port}"
        try:
            self._client_log.last_error = ""
            tls = await asyncio.to_thread(self._settings.mqtt_tls)
            async with self._make_client(tls) as client:
                self._client = client
                for topic in tuple(self._subscriptions):
                    await self._subscribe(client, topic)
                self._connected.set()
                log.info("mqtt connected", broker=where)
                async for incoming in client.messages:
                    if self._on_message is not None:
                        await self._on_message(incoming)
        except Permanent as exc:  # its files were right when the service started, and may be again
            raise Transient(f"MQTT at {where}: {exc}") from exc
        except (aiomqtt.MqttError, OSError) as exc:
            error = ": ".join(filter(None, (str(exc), self._client_log.last_error)))
            raise Transient(f"MQTT at {where}: {error}{self._hint(error)}") from exc
        finally:
            self._connected.clear()
            self._client = None

    async def _subscribe(self, client: _Client, topic: str) -> None:
        granted = await client.subscribe(topic, qos=1)
        if any(map(_is_refusal, granted)):
            where = f"{self._settings.mqtt_host}:{self._settings.mqtt_port}"
            raise Transient(f"MQTT at {where} refuses the subscription to {topic}: {granted[0]}")

    def _hint(self, error: str) -> str:
        """Return what to change, if waiting does not mend the error."""
        settings = self._settings
        if "CERTIFICATE_VERIFY_FAILED" in error:
            whose = f"MQTT_TLS_CA ({settings.mqtt_tls_ca})" if settings.mqtt_tls_ca else "the system's CAs"
            return f"; the broker's certificate must be signed by {whose} and name {settings.mqtt_host}"
        if "WRONG_VERSION_NUMBER" in error or "UNEXPECTED_EOF" in error:
            return f"; does port {settings.mqtt_port} speak TLS? MQTT_PORT must be the one that does"
        if _REFUSED.search(error):
            return "; the broker refuses the client: set MQTT_TLS_CERT and MQTT_TLS_KEY to a pair of its CA"
        return ""

    def _make_client(self, context: ssl.SSLContext | None) -> _Client:
        settings = self._settings
        return _Client(
            settings.mqtt_host,
            settings.mqtt_port,
            username=settings.mqtt_username or None,
            password=settings.mqtt_password.get_secret_value() or None,
            tls_context=context,
            protocol=_PROTOCOLS[settings.mqtt_version],
            keepalive=15,
            max_queued_incoming_messages=INBOX,
            max_inflight_messages=WINDOW,
            logger=self._client_log.logger,
        )


def trace_of(message: aiomqtt.Message) -> dict[str, str]:
    """Return what a message says of its trace, for `tracing.following`; nothing before MQTT 5."""
    pairs = getattr(message.properties, "UserProperty", ())
    return {name: value for name, value in pairs if name == tracing.TRACEPARENT}


def _is_refusal(code: ReasonCode | int) -> bool:
    return (code if isinstance(code, int) else code.value) >= FIRST_REFUSAL


class _Client(aiomqtt.Client):
    """aiomqtt's client, with a publish of many messages, which also sees when the broker refuses one.

    By aiomqtt's own each message costs a timer, a task and a packet on the network, and what is refused in a
    PUBACK looks as if it were taken.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_their_way: dict[int, _Window] = {}

    async def publish_all(self, topic: str, payloads: Sequence[bytes], properties: Properties | None) -> None:
        """Publish at QoS 1, in order, and wait until all are acknowledged.

        Raises:
            MqttError: if the connection breaks, or the broker refuses one.

        """
        window = _Window(len(payloads))
        try:
            with _joined(self._client.socket()):
                for payload in payloads:
                    info = self._client.publish(topic, payload, qos=1, properties=properties)
                    if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                        raise aiomqtt.MqttCodeError(info.rc, "the connection broke")
                    window.mids.append(info.mid)
                    self._on_their_way[info.mid] = window
            await asyncio.wait([window.end, self._disconnected], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for mid in window.mids:
                self._on_their_way.pop(mid, None)
        if not window.end.done():
            raise aiomqtt.MqttError("the connection broke")
        if window.refusal is not None:
            raise aiomqtt.MqttCodeError(window.refusal, "the broker refused the message")

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        try:
            super()._on_message(client, userdata, message)
        except ValueError as exc:
            # Not all brokers turn away a topic with a wildcard; raised, it would end the connection, and a
            # retained message each one that follows.
            log.warning("message passed over", error=str(exc))

    def _on_publish(self, _: Any, __: Any, mid: int, reason_code: ReasonCode, ___: Properties) -> None:
        if (window := self._on_their_way.pop(mid, None)) is not None:
            window.acknowledge(reason_code)


class _Window:
    """Messages that are on their way together; `end` is done once all are acknowledged."""

    def __init__(self, count: int) -> None:
        self.mids: list[int] = []
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refusal: ReasonCode | None = None
        self._left = count

    def acknowledge(self, code: ReasonCode) -> None:
        if _is_refusal(code):
            self.refusal = code
        self._left -= 1
        if not self._left and not self.end.done():
            self.end.set_result(None)


@contextmanager
def _joined(connection: Any) -> Iterator[None]:
    """Let what is written meanwhile leave in as few segments as it fits in, not one for each write.

    Each segment wakes the broker, which costs both more than the message does.
    """
    if connection is None or _CORK is None:
        yield
        return
    connection.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
    try:
        yield
    finally:
        with suppress(OSError):  # it broke meanwhile
            connection.setsockopt(socket.IPPROTO_TCP, _CORK, 0)


class _ClientLog(logging.Handler):
    """What the client library only logs: that the broker hung up on a connection, and with which alert."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last_error = ""
        # Of this connection alone; at a lower level each packet would be a record that nobody reads.
        self.logger = logging.Logger("mqtt", logging.ERROR)  # noqa: LOG001
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it for the error that follows."""
        self.last_error = record.getMessage()
