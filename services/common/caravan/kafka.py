"""Kafka: a producer that starts when first needed, consumers that commit by hand, dead letters.

Nothing is committed here on its own: a loop commits a batch after its effects.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, TopicAlreadyExistsError, for_code

from caravan import telemetry
from caravan.contracts import dead_letter
from caravan.errors import Permanent, Transient
from caravan.settings import KafkaSettings

log = structlog.get_logger()

SEND_SECONDS = 20
START_SECONDS = 15
JOIN_SECONDS = 45
"""A broker may hold a group back for its members before; the embedded one takes up to 20 s."""
POLL_SECONDS = 1.0

Headers = Mapping[str, str]
Batch = Mapping[TopicPartition, Sequence[ConsumerRecord]]


class PutAside(Protocol):
    """Keeps a message that cannot be handled: `put_aside` with its first two arguments given."""

    async def __call__(self, record: ConsumerRecord, reason: str, code: str = "refused") -> None:
        """Return once the broker has it."""
        ...


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """Return what every aiokafka client is made with."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.replace(" ", "").split(","),
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": 15_000,
        "retry_backoff_ms": 200,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca)
        if settings.kafka_ssl_cert is not None:
            context.load_cert_chain(settings.kafka_ssl_cert, settings.kafka_ssl_key)
        options["ssl_context"] = context
    if settings.kafka_security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return options


class Producer:
    """Sends with acknowledgement by all replicas; connects when first needed, and again when it must."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.stop()

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, headers: Headers | None = None
    ) -> None:
        """Send one message and wait until the broker has it.

        Raises:
            Transient: if it is not acknowledged within the deadline.
            Permanent: if it is larger than the broker takes.

        """
        raw = [(name, text.encode()) for name, text in (headers or {}).items()]
        try:
            async with asyncio.timeout(SEND_SECONDS):
                client = await self._started()
                await client.send_and_wait(topic, value, key=key, headers=raw)
        except MessageSizeTooLargeError as exc:
            message = f"a message of {len(value or b'')} bytes is more than Kafka takes here"
            raise Permanent(message) from exc
        except (KafkaError, TimeoutError, OSError) as exc:
            message = f"Kafka did not acknowledge a message on {topic}: {exc!r}"
            raise Transient(message) from exc

    async def ping(self) -> None:
        """Check that the broker answers.

        Raises:
            Transient: if not.

        """
        try:
            client = await self._started()
            await client.client.fetch_all_metadata()
        except (KafkaError, OSError) as exc:
            message = f"Kafka at {self._settings.kafka_bootstrap_servers}: {exc!r}"
            raise Transient(message) from exc

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._client is None:
                client = AIOKafkaProducer(
                    **connection(self._settings),
                    acks="all",
                    enable_idempotence=self._settings.kafka_idempotence,
                    max_request_size=self._settings.kafka_max_message_bytes,
                    linger_ms=2,
                )
                try:
                    await client.start()
                except BaseException:
                    await client.stop()
                    raise
                self._client = client
        return self._client


@asynccontextmanager
async def consumer(settings: KafkaSettings, topic: str, *, group: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Join a consumer group on one topic, reading from the beginning what the group has not read.

    Raises:
        Transient: if the broker is away.

    """
    client = AIOKafkaConsumer(
        topic,
        **connection(settings),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=settings.kafka_max_message_bytes,
        fetch_max_wait_ms=200,
    )
    try:
        async with asyncio.timeout(JOIN_SECONDS):
            await client.start()
        yield client
    except (KafkaError, TimeoutError, OSError) as exc:
        message = f"Kafka consumer of {topic}: {exc!r}"
        raise Transient(message) from exc
    finally:
        await client.stop()


async def batches(client: AIOKafkaConsumer, *, most: int = 500) -> AsyncIterator[Batch]:
    """Yield what has arrived, in order within each partition; nothing is yielded while nothing is there."""
    while True:
        batch = await client.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=most)
        if batch:
            yield batch


async def commit(client: AIOKafkaConsumer, batch: Batch) -> None:
    """Commit the offset after the last message of each partition of a batch."""
    await client.commit({partition: records[-1].offset + 1 for partition, records in batch.items()})


async def put_aside(
    producer: Producer, route: str, record: ConsumerRecord, reason: str, code: str = "refused"
) -> None:
    """Send a message that cannot be handled to its dead-letter topic, as it came, with the reason.

    Args:
        producer: to send it with.
        route: which could not handle it.
        record: the message.
        reason: a sentence for who looks at it.
        code: the reason in a word or three, one of few, for counting.

    """
    await producer.send(
        dead_letter(record.topic),
        record.value,
        key=record.key,
        headers={
            **{name: value.decode(errors="replace") for name, value in record.headers},
            "dead-letter-route": route,
            "dead-letter-reason": reason,
            "dead-letter-code": code,
            "dead-letter-partition": str(record.partition),
            "dead-letter-offset": str(record.offset),
        },
    )
    telemetry.DEAD_LETTERS.labels(route, code).inc()
    log.warning("dead letter", topic=record.topic, offset=record.offset, reason=reason)


async def ensure_topics(settings: KafkaSettings, topics: Collection[str]) -> None:
    """Make the topics that are not there yet, unless `KAFKA_CREATE_TOPICS` says that others do.

    Raises:
        Transient: if the broker is away or will not.

    """
    if not settings.kafka_create_topics:
        return
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        async with asyncio.timeout(START_SECONDS):
            await admin.start()
            missing = set(topics) - set(await admin.list_topics())
            if not missing:
                return
            answer = await admin.create_topics(
                [NewTopic(name, 1, settings.kafka_replication) for name in sorted(missing)]
            )
            for name, code, *_ in answer.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    message = f"Kafka did not make topic {name}: {for_code(code).__name__}"
                    raise Transient(message)
    except (KafkaError, TimeoutError, OSError) as exc:
        message = f"Kafka at {settings.kafka_bootstrap_servers}: {exc!r}"
        raise Transient(message) from exc
    finally:
        await admin.close()
