"""Images on a Kafka topic are answered on another, by a client of another make."""

import json

import pytest

from lab.photos import render
from support.kafka_clients import LARGEST, Message, noise, receive, send
from support.platform import EDGE, Platform


@pytest.mark.asyncio(loop_scope="session")
async def test_an_image_on_the_edges_topic_is_answered_with_its_key_and_headers(platform: Platform) -> None:
    stack = platform.stack
    kept = len(await platform.edge("valid"))
    lemon = render("tea-lemon", 5_000_001)
    headers = [("trace", b"\xff\x00"), ("camera", b"till-7"), ("trace", b"again")]
    large = noise(2300, 2200)
    assert 15_000_000 < len(large) < LARGEST
    await send(
        stack,
        f"{EDGE}-images",
        Message(lemon, b"till", headers),
        Message(b"no image", b"till"),
        Message(large, b"till"),
        Message(lemon, b"till", [("model", b"nobody")]),
        compression="gzip",
    )
    answers = await receive(stack, f"{EDGE}-detections", 4)
    known, *refused = [json.loads(answer.value) for answer in answers]
    assert (known["known"], known["pricetag"]) == ("true", "Lemon Tea: 4.99")
    assert (answers[0].key, list(answers[0].headers)) == (b"till", headers)
    assert [problem["status"] for problem in refused] == [422, 413, 404]
    codes = [b"not-an-image", b"too-large", b"unknown-model"]
    assert [dict(answer.headers)["error"] for answer in answers[1:]] == codes
    assert {answer.key for answer in answers} == {b"till"}

    letters = await receive(stack, f"{EDGE}-images-dead-letter", 3)
    assert [dict(letter.headers)["dead-letter-code"] for letter in letters] == codes
    assert [letter.value for letter in letters] == [b"no image", large, lemon]
    assert len(await platform.edge("valid")) == kept + 1
