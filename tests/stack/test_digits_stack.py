"""Handwritten digits: what the ordinary pipeline learns of them, asked through HTTP."""

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lab.samples.digits import Digit, digits, split, write_zip
from local_stack.stack import Stack

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed"),
]

EDGE = "edge2"
LEARNED, ASKED = 600, 100
"""A third of the data set, which is quick to learn."""
RIGHT = 0.975


async def test_digits_that_were_held_out_are_recognised_through_http(
    stack: Stack, http: Any, eventually: Any, tmp_path: Path
) -> None:
    learned, held_out = await asyncio.to_thread(lambda: split(digits()))
    archive = tmp_path / "digits.zip"
    write_zip(archive, learned[:LEARNED])
    url = f"{stack.url('feeder')}/zip"
    answer = await http.put(url, params={"edgeId": EDGE}, content=archive.read_bytes())
    assert answer.json()["stored"] == LEARNED

    async def ask(digit: Digit) -> Any:
        return await http.post(f"{stack.url(f'shopper-{EDGE}')}/binary", content=digit.png)

    async def serves() -> bool:
        return bool((await ask(held_out[0])).is_success)

    await eventually(serves, 240)
    answers = [(await ask(digit)).raise_for_status().json()["item"] for digit in held_out[:ASKED]]
    # An answer that is not sure enough to be known is `other`, and wrong.
    wrong = [
        (digit.name, item)
        for digit, item in zip(held_out, answers, strict=False)
        if item != digit.name.split("/")[1]
    ]
    assert len(wrong) <= (1 - RIGHT) * ASKED, wrong
