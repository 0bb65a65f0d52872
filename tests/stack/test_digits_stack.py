"""Handwritten digits: what the ordinary pipeline learns of them, asked through HTTP."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from caravan.contracts import DEFAULT_MODEL
from local_stack.samples.digits import Digit, digits, split, write_zip
from local_stack.stack import Stack

pytest.importorskip("sklearn")
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300, func_only=True)]

EDGE = "edge2"
LEARNED, ASKED = 600, 100
"""A third of the data set: all of it takes twice as long, and gets 96 of 100 right."""
RIGHT = 0.95


async def test_digits_that_were_held_out_are_recognised_through_http(
    stack: Stack, http: Any, eventually: Any, tmp_path: Path
) -> None:
    learned, held_out = await asyncio.to_thread(lambda: split(digits()))
    archive = tmp_path / "digits.zip"
    write_zip(archive, learned[:LEARNED])
    feeder, server = stack.url("feeder"), stack.url(f"model-server-{EDGE}", "rest")
    answer = await http.put(f"{feeder}/zip", params={"edgeId": EDGE}, content=archive.read_bytes())
    assert answer.json()["stored"] == LEARNED

    async def serves() -> bool:
        return bool((await http.get(f"{server}/v1/models/{DEFAULT_MODEL}")).is_success)

    await eventually(serves, 240)

    async def is_right(digit: Digit) -> bool:
        """Tell whether the answer is the digit; one that is not sure enough to be known is `other`."""
        answer = await http.post(f"{stack.url(f'shopper-{EDGE}')}/binary", content=digit.png)
        return bool(answer.json().get("item") == digit.name.split("/")[1])

    right = [await is_right(digit) for digit in held_out[:ASKED]]
    assert sum(right) >= RIGHT * ASKED
