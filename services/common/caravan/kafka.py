"""Kafka: a producer that starts when first needed, and consumers that commit by hand.

Nothing is committed here on its own: a loop commits a batch after its effects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from caravan import telemetry, tracing
from caravan.errors import BadInput, Permanent, Transient
from caravan.gaps import Gaps, Shortened
from caravan.settings import KafkaSettings
from caravan.unreadable import Past

log = structlog.get_logger()

CONNECT_SECONDS = 5
"""Seconds for connecting, beside the request itself."""
JOIN_SECONDS = 30
"""Deadline of joining a group. The broker waits for the former members; the embedded one up to 20 s."""
POLL_SECONDS = 5.0
WAIT_MILLISECONDS = 500
"""Longest fetch of a reader that may seek: its position is known once the broker has answered."""
LONG_WAIT_MILLISECONDS = 5000
"""Longest fetch of a reader that only reads on; the broker answers as soon as something comes."""
FETCHER_MILLISECONDS = 5000
"""Between two looks of aiokafka's at whether there is something to fetch: whatever makes it so tells it by
itself, and the 200 that it comes with are most of what an idle consumer costs."""
POLL_AGAIN_SECONDS = 0.05
LAG_SECONDS = 5.0
"""Seconds between two measurements of a consumer's lag; they send nothing."""
BATCH_BYTES = 64 * 1024
"""Most bytes of small messages sent together as one batch."""
ROOM_BYTES = 64 * 1024
"""Bytes beyond the largest message, for a dead letter's reason."""
IDLE_MILLISECONDS = 24 * 3600 * 1000
"""A loop whose places are all taken does not ask for more; whether it lives, its heartbeat tells."""

Headers = Mapping[str, str]
RawHeaders = Sequence[tuple[str, bytes | None]]
"""Headers as received: a name may come twice, a value may be any bytes or None."""
Batch = Mapping[TopicPartition, Sequence[ConsumerRecord]]


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """Return what every aiokafka client is made with.

    Raises:
        Transient: if a TLS file cannot be read any more.

    """
    try:
        tls = settings.kafka_tls()
    except Permanent as exc:
        # They were whole at the start, so someone is about to renew them.
        raise Transient(str(exc)) from exc
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.kafka_bootstrap_servers.split(",")],
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": tls,
        "request_timeout_ms": int(settings.kafka_request_seconds * 1000),
        "retry_backoff_ms": 200,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return options


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise an error of Kafka's client or of the network as a Transient that says `what` failed."""
    try:
        yield
    except (KafkaError, TimeoutError, OSError) as exc:
        message = f"{what}: {exc!r}"
        raise Transient(message) from exc


class Producer:
    """Sends with acknowledgement by all replicas; connects when first needed, and again when it must."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._pinger: AIOKafkaAdminClient | None = None
        self._pinging = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.stop()
        if self._pinger is not None:
            await self._pinger.close()

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | RawHeaders | None = None,
        traced: bool = True,
    ) -> None:
        """Send one message and wait until the broker has it.

        It carries the current trace, unless it has one already, or is to be sent with just these headers.

        Raises:
            Transient: if it is not acknowledged within the deadline.
            Permanent: if it is larger than the broker takes.

        """
        raw = raw_headers(headers or {})
        if value is None and key is None:
            value = b""  # Kafka takes a message with neither, aiokafka does not
        try:
            async with asyncio.timeout(self._settings.kafka_request_seconds + CONNECT_SECONDS):
                client = await self._started()
                await client.send_and_wait(topic, value, key=key, headers=_traced(raw) if traced else raw)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as exc:
            message = f"a message of {len(value or b'')} bytes is more than Kafka takes here"
            raise Permanent(message) from exc
        except (KafkaError, TimeoutError, OSError) as exc:
            message = f"Kafka did not acknowledge a message on {topic}: {exc!r}"
            raise Transient(message) from exc

    async def ping(self) -> None:
        """Check that the broker answers, over a connection of its own.

        One that was once not answered on is given up. It may have been cut off: TCP sends what was lost again
        only after a while that grows with the cut, and the producer would wait for that.

        Raises:
            Transient: if not.

        """
        with translated(f"Kafka at {self._settings.kafka_bootstrap_servers}"):
            async with self._pinging:
                await self._ping()

    async def _ping(self) -> None:
        client, self._pinger = self._pinger or AIOKafkaAdminClient(**connection(self._settings)), None
        try:
            await client.start()  # which it does once
            await client.list_topics()
        except BaseException:  # also when there is no more time
            await client.close()
            raise
        self._pinger = client

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._client is None:
                client = AIOKafkaProducer(
                    **connection(self._settings),
                    acks="all",
                    enable_idempotence=self._settings.kafka_idempotence,
                    max_request_size=self._settings.kafka_max_message_bytes + ROOM_BYTES,
                    linger_ms=2,
                    max_batch_size=BATCH_BYTES,
                )
                try:
                    await client.start()
                except BaseException:
                    await client.stop()
                    raise
                self._client = client
        return self._client


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka's consumer has no types
    """Reads from the beginning, commits nothing by itself, and waits for messages that come out of turn.

    Args:
        settings: Kafka's settings.
        topics: which; none for a consumer that is assigned its partitions.
        options: more of aiokafka's.

    """

    def __init__(self, settings: KafkaSettings, *topics: str, **options: Any) -> None:
        super().__init__(
            *topics,
            **connection(settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=settings.kafka_max_message_bytes,
            consumer_timeout_ms=FETCHER_MILLISECONDS,
            **{"fetch_max_wait_ms": WAIT_MILLISECONDS, **options},
        )
        self._gaps = Gaps(settings.kafka_gap_seconds, time.monotonic) if settings.kafka_gap_seconds else None
        self._past = Past(self)
        self._shortened = Shortened(time.monotonic)
        self._of_a_group = options.get("group_id") is not None
        self._expected: dict[TopicPartition, int | None] = {}
        """By partition, the offset to be read next; None where nothing was read."""

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_ms: int, max_records: int | None
    ) -> dict[TopicPartition, Sequence[ConsumerRecord]]:
        """Return what has come; raise one of UNREADABLE if a message cannot be read."""
        self._expected = {
            partition: self._expected[partition]
            if partition in self._expected
            else await self.committed(partition)
            for partition in (self.assignment() if self._of_a_group else ())
        }
        found: dict[TopicPartition, Sequence[ConsumerRecord]]
        found = await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        for partition, records in found.items():
            await self._tell_of_what_is_gone(partition, records[0].offset)
            if partition in self._expected:
                self._expected[partition] = records[-1].offset + 1
        return found

    async def _tell_of_what_is_gone(self, partition: TopicPartition, offset: int) -> None:
        """Tell of messages that the topic did not keep until they were read: what follows is read instead."""
        expected = self._expected.get(partition)
        if expected is None or offset <= expected:
            return
        with suppress(KafkaError, TimeoutError):
            # Offsets are missing for other reasons, too: compaction, or the markers of transactions.
            begins = (await self.beginning_offsets([partition]))[partition]
            if begins > expected:
                place = {"topic": partition.topic, "partition": partition.partition}
                log.error(
                    "messages are gone unread, as the topic keeps them no longer",
                    **place,
                    first=expected,
                    last=begins - 1,
                )

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, Sequence[ConsumerRecord]]:
        """Return what has come, of each partition up to an offset that may still come."""
        await self._begin_anew_where_the_topic_has()
        if self._gaps is None:
            return await self._past.fetch(partitions, timeout_ms, max_records)
        expected = {p: await self.position(p) for p in partitions or self.assignment()}
        batch = await self._past.fetch(partitions, timeout_ms, max_records)
        found = dict(batch)
        for partition in found.keys() & expected.keys():
            found[partition], again = self._gaps.taken(partition, found[partition], expected[partition])
            if again is not None:
                self.seek(partition, again)
        found = {partition: records for partition, records in found.items() if records}
        if batch and not found:
            await asyncio.sleep(POLL_AGAIN_SECONDS)
        return found

    async def _begin_anew_where_the_topic_has(self) -> None:
        ends = {partition: self.highwater(partition) for partition in self.assignment()}
        for partition, end in ends.items():
            with suppress(IllegalStateError):  # given back meanwhile
                if end is not None and self._shortened.is_so(partition, end, await self.position(partition)):
                    log.warning(
                        "a topic was made again, and is read from its beginning", topic=partition.topic
                    )
                    await self.seek_to_beginning(partition)


@asynccontextmanager
async def consumer(
    settings: KafkaSettings, topic: str, *, group: str, wait_milliseconds: int = LONG_WAIT_MILLISECONDS
) -> AsyncIterator[Consumer]:
    """Join a consumer group on one topic, reading from the beginning what the group has not read.

    A message larger than `max_partition_fetch_bytes` is still delivered, alone: the size bounds memory and
    stalls nobody. Where nothing has come, the broker holds a request for `wait_milliseconds`.

    Raises:
        Transient: if the broker is away.

    """
    client = Consumer(
        settings,
        topic,
        group_id=group,
        max_poll_interval_ms=IDLE_MILLISECONDS,
        fetch_max_wait_ms=min(wait_milliseconds, int(settings.kafka_request_seconds * 500)),
    )
    with translated(f"Kafka consumer of {topic}"):
        try:
            async with asyncio.timeout(settings.kafka_request_seconds + JOIN_SECONDS):
                await client.start()
            async with lag_told(client, group):
                yield client
        finally:
            await client.stop()


async def ends(client: Consumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the offsets after the last messages of assigned partitions; their positions move there."""
    for partition, offset in (await client.end_offsets(partitions)).items():
        client.seek(partition, offset)
    return await told_ends(client, partitions)


async def told_ends(
    client: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return the offsets after the last messages of partitions, as the broker says with its next answer.

    Asked for by themselves, the embedded one leaves out most of the last second in which something came, for
    good. Positions stay where they are.
    """
    while any(client.highwater(partition) is None for partition in partitions):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(POLL_AGAIN_SECONDS)
    return {partition: client.highwater(partition) for partition in partitions}


@asynccontextmanager
async def lag_told(client: AIOKafkaConsumer, group: str) -> AsyncIterator[None]:
    """Keep the metric `caravan_kafka_lag` of a consumer, by what the broker says along with its messages."""
    shown: set[TopicPartition] = set()

    async def tell() -> None:
        while True:
            ends = {partition: client.highwater(partition) for partition in client.assignment()}
            for partition in shown - ends.keys():
                telemetry.KAFKA_LAG.remove(group, partition.topic, partition.partition)
            shown.intersection_update(ends)
            for partition, end in ends.items():
                if end is not None:
                    with suppress(KafkaError, TimeoutError):
                        async with asyncio.timeout(LAG_SECONDS):
                            lag = max(0, end - await client.position(partition))
                        telemetry.KAFKA_LAG.labels(group, partition.topic, partition.partition).set(lag)
                        shown.add(partition)
            await asyncio.sleep(LAG_SECONDS)

    teller = asyncio.create_task(tell(), name="kafka-lag")
    try:
        yield
    finally:
        teller.cancel()
        await asyncio.wait([teller])
        for partition in shown:
            telemetry.KAFKA_LAG.remove(group, partition.topic, partition.partition)


async def batches(client: Consumer, *, most: int = 500) -> AsyncIterator[Batch]:
    """Yield what has arrived, in order within each partition; nothing is yielded while nothing is there."""
    while True:
        batch = await client.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=most)
        if batch:
            yield batch


def written(record: ConsumerRecord, now: float) -> float:
    """Return when a record was written, in seconds since 1970; whoever wrote it may have said any time.

    It is no time that is still to come, nor one before 1970.
    """
    milliseconds: int = record.timestamp
    return min(max(milliseconds, 0) / 1000, now)


def raw_headers(headers: Headers | RawHeaders) -> list[tuple[str, bytes | None]]:
    """Return headers as Kafka has them."""
    if isinstance(headers, Mapping):
        return [(name, text.encode()) for name, text in headers.items()]
    return list(headers)


def _traced(headers: RawHeaders) -> RawHeaders:
    """Add the current trace, unless the message comes from one already."""
    if any(name == tracing.TRACEPARENT for name, _ in headers):
        return headers
    return [*headers, *raw_headers(tracing.headers())]


def trace_of(record: ConsumerRecord) -> dict[str, str]:
    """Return what a message says of its trace, for `tracing.following`."""
    return {
        name: value.decode("latin-1")
        for name, value in record.headers
        if name == tracing.TRACEPARENT and value
    }


def header(record: ConsumerRecord, *names: str) -> str:
    """Return the text of the first of these headers that a message has, the last where it came twice.

    Returns:
        The text, white space around it removed; empty if there is none.

    Raises:
        BadInput: 400 if it is not UTF-8.

    """
    for name in names:
        found: list[bytes] = [value for other, value in record.headers if other == name and value]
        if found:
            try:
                return found[-1].decode().strip()
            except UnicodeDecodeError as exc:
                raise BadInput(f"the header {name} is not UTF-8", reason="not-utf-8") from exc
    return ""
