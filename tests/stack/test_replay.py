"""Dead letters: kept with their reason, and sent again as they first came."""

import asyncio
import hashlib
import os
import sys
from typing import Any

import pytest

from caravan import kafka
from caravan.replay import replay
from caravan.settings import KafkaSettings


async def test_a_dead_letter_is_sent_again_as_it_first_came_and_only_once(
    private_stack: Any, consumer: Any
) -> None:
    stack = await private_stack("kafka")
    settings = KafkaSettings(kafka_bootstrap_servers=stack.kafka)
    await kafka.ensure_topics(settings, ["trigger", "trigger-dead-letter"])
    async with kafka.Producer(settings) as producer, asyncio.timeout(120):
        await producer.send("trigger", b"edge9", key=b"k", headers={"batch": "b"})
        source = await consumer(stack.kafka, "trigger")
        await kafka.put_aside(producer, "trigger-pipeline", await source.getone(), "no such edge")

        letters = await consumer(stack.kafka, "trigger-dead-letter")
        letter = await letters.getone()
        assert letter.value == b"edge9"
        assert dict(letter.headers)["dead-letter-reason"] == b"no such edge"

        assert await replay(settings, "trigger") == 1
        again = await source.getone()
        assert (again.value, again.key, again.headers) == (b"edge9", b"k", (("batch", b"b"),))
        assert await replay(settings, "trigger") == 0


async def test_a_message_too_large_to_be_kept_is_put_aside_without_its_value_and_found_again(
    private_stack: Any, consumer: Any, producer: Any
) -> None:
    stack = await private_stack("kafka")
    small = KafkaSettings(kafka_bootstrap_servers=stack.kafka, kafka_max_message_bytes=1)
    settings = KafkaSettings(kafka_bootstrap_servers=stack.kafka)
    value = b"image" * 20_000
    await kafka.ensure_topics(settings, ["edge1-images", "edge1-images-dead-letter"])
    async with kafka.Producer(small) as bounded, asyncio.timeout(120):
        headers = [("camera", b"\xff"), ("nothing", None)]
        await (await producer(stack.kafka)).send_and_wait("edge1-images", value, key=b"k", headers=headers)
        source = await consumer(stack.kafka, "edge1-images")
        await kafka.put_aside(bounded, "detect-kafka", await source.getone(), "not an image")

        letter = await (await consumer(stack.kafka, "edge1-images-dead-letter")).getone()
        facts = dict(letter.headers)
        assert (letter.key, letter.value, facts["camera"]) == (b"k", None, b"\xff")
        assert facts["dead-letter-reason"] == b"not an image"
        assert facts["dead-letter-offset"] == b"0"
        assert facts["dead-letter-size"] == b"100000"
        assert facts["dead-letter-sha256"].decode() == hashlib.sha256(value).hexdigest()

        assert await replay(settings, "edge1-images") == 1
        again = await source.getone()
        assert (again.key, again.value, again.headers) == (b"k", value, tuple(headers))


@pytest.mark.parametrize("command", [["account"], ["replay", "trigger"]])
async def test_an_operators_command_says_in_one_line_what_is_away(command: list[str]) -> None:
    away = {"S3_CENTRAL_ENDPOINT": "http://127.0.0.1:1", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caravan", *command, env=os.environ | away, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" not in said
    assert b"127.0.0.1:1" in said
