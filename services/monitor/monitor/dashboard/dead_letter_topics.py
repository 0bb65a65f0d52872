"""Where dead letters are found, followed, and sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from caravan import kafka
from caravan.errors import BadInput, CaravanError
from caravan.replay import GROUP, DeadLettersLeft, replay
from caravan.settings import KafkaSettings
from monitor.dashboard.dead_letters import KEPT, SUFFIX, DeadLetters, result

log = structlog.get_logger()

FIND_SECONDS = 10.0
LOOK_MILLISECONDS = 1000
"""Milliseconds between two reads of replayed offsets while letters wait; a new letter is taken at once."""
REPLAY_SECONDS = 600.0
MOST_TOPICS = 200


class DeadLetterTopics:
    """Follows every `*-dead-letter` topic, and sends letters again when asked.

    Args:
        settings: Kafka's settings.
        letters: the dead letters as shown.

    """

    def __init__(self, settings: KafkaSettings, letters: DeadLetters) -> None:
        self._settings = settings
        self._letters = letters
        self._wanted: asyncio.Queue[str] = asyncio.Queue(MOST_TOPICS)

    def ask(self, topic: str) -> None:
        """Ask for a topic's letters to be sent again; asking twice is asking once.

        Raises:
            BadInput: 404 if it has none.

        """
        known = self._letters.topics.get(topic)
        if known is None or not (known.count or known.replaying):
            message = f"there are no dead letters of {topic!r}"
            raise BadInput(message, 404, reason="no-letters")
        if not known.replaying:
            known.replaying, known.result = True, None
            self._wanted.put_nowait(topic)

    async def send(self) -> None:
        """Send letters again, a topic at a time; to be run as a task."""
        while True:
            name = await self._wanted.get()
            topic = self._letters.topics[name]
            try:
                async with asyncio.timeout(REPLAY_SECONDS):
                    topic.result = result(await replay(self._settings, name), "")
                log.info("dead letters sent again", topic=name, sent=topic.result["sent"])
            except DeadLettersLeft as exc:
                topic.result = result(exc.sent, str(exc))
                log.warning("dead letters left", topic=name, sent=exc.sent, left=exc.left)
            except (CaravanError, TimeoutError) as exc:
                topic.result = result(None, str(exc) or "it took too long")
                log.warning("dead letters not sent again", topic=name, error=repr(exc))
            finally:
                topic.replaying = False

    async def follow(self) -> None:
        """Follow the letters; to be run as a task, again and again.

        Raises:
            Transient: if Kafka is away.

        """
        with kafka.translated("the dead letters cannot be read"):
            admin = AIOKafkaAdminClient(**kafka.connection(self._settings))
            reader = kafka.Consumer(
                self._settings, group_id=None, fetch_max_wait_ms=kafka.LONG_WAIT_MILLISECONDS
            )
            try:
                async with asyncio.timeout(kafka.JOIN_SECONDS):
                    await admin.start()
                    await reader.start()
                await self._follow(admin, reader)
            finally:
                await reader.stop()
                await admin.close()

    async def _follow(self, admin: AIOKafkaAdminClient, reader: kafka.Consumer) -> None:
        clock = asyncio.get_running_loop().time
        find_at = 0.0
        begins: Mapping[TopicPartition, int] = {}
        while True:
            async with asyncio.timeout(kafka.JOIN_SECONDS):
                if clock() >= find_at:
                    begins = await self._assign(admin, reader, begins)
                    find_at = clock() + FIND_SECONDS
                if self._letters.as_json():
                    self._letters.sent_again(await _sent(admin, begins))
            if not begins:
                await asyncio.sleep(find_at - clock())
                continue
            look = LOOK_MILLISECONDS if self._letters.as_json() else int((find_at - clock()) * 1000)
            batch = await reader.getmany(timeout_ms=max(look, 0), max_records=100)
            for partition, records in batch.items():
                for record in records:
                    self._letters.take(partition, record)

    async def _assign(
        self, admin: AIOKafkaAdminClient, reader: kafka.Consumer, begins: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Find the topics; begin with the last letters of each that were not sent again."""
        names = [name for name in sorted(await admin.list_topics()) if name.endswith(SUFFIX)][:MOST_TOPICS]
        if set(names) == {partition.topic for partition in begins} and not self._letters.as_json():
            return begins
        described = await admin.describe_topics(names) if names else []
        partitions = [
            TopicPartition(topic["topic"], one["partition"])
            for topic in described
            for one in topic["partitions"]
        ]
        begins = dict(await reader.beginning_offsets(partitions)) if partitions else {}
        if set(partitions) == reader.assignment():
            return begins
        sent = await _sent(admin, begins)
        self._letters.sent_again(sent)
        reader.assign(partitions)
        ends = await kafka.ends(reader, partitions)
        for partition in partitions:
            seen = self._letters.topic_of(partition).next.get(partition.partition, 0)
            start = max(sent[partition], seen, ends[partition] - KEPT)
            self._letters.topic_of(partition).next[partition.partition] = start
            reader.seek(partition, start)
        return begins


async def _sent(
    admin: AIOKafkaAdminClient, begins: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Return for each partition the offset before which there is nothing left to send."""
    # Asked for by name: not every broker answers a question for all of them.
    partitions: Collection[TopicPartition] = list(begins)
    found = await admin.list_consumer_group_offsets(GROUP, partitions=list(partitions)) if partitions else {}
    return {
        partition: max(begin, found[partition].offset if partition in found else 0)
        for partition, begin in begins.items()
    }
