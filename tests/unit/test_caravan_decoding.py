"""Decoding in processes that can be ended, in turns that are fair."""

import asyncio
from typing import Any

import pytest
from PIL import Image

from caravan.decoding import Decoding, FairQueue
from caravan.errors import BadInput
from caravan.images import ImageBounds
from support.files import as_file


def photo(side: int = 64, form: str = "PNG", **options: Any) -> bytes:
    return as_file(Image.new("RGB", (side, side), "green"), form, **options)


async def test_a_decoding_that_takes_too_long_is_ended_and_the_next_one_is_done() -> None:
    await Decoding(1).as_jpeg(photo(form="WEBP"))  # a process is there
    with pytest.raises(BadInput, match="more than 1e-05 s") as refused:
        await Decoding(1, seconds=1e-5).verify(photo(2000))
    assert (refused.value.status, refused.value.reason) == (422, "too-slow")
    assert (await Decoding(1).verify(photo())).format == "PNG"


async def test_an_image_that_its_form_bounds_is_read_to_its_end_without_a_process() -> None:
    no_time = Decoding(1, seconds=0)
    for form in ("JPEG", "PNG"):
        assert (await no_time.verify(photo(form=form))).format == form
        with pytest.raises(BadInput) as refused:
            await no_time.verify(photo(300, form)[:-200])
        assert (refused.value.status, refused.value.reason) == (422, "damaged-image")
    for other in (photo(1001, "JPEG"), photo(800), photo(64, "WEBP"), photo(64, "JPEG", progressive=True)):
        with pytest.raises(BadInput) as refused:
            await no_time.verify(other)
        assert refused.value.reason == "too-slow"


async def test_an_image_that_its_form_bounds_is_made_another_without_a_process() -> None:
    no_time = Decoding(1, seconds=0)
    assert (await no_time.as_jpeg(photo())).startswith(b"\xff\xd8")
    for form in ("JPEG", "PNG"):
        assert (await no_time.thumbnail(photo(200, form), 20, 80)).startswith(b"\xff\xd8")
        assert len(await no_time.resized(photo(form=form), "L", 8, 4)) == 8 * 4
    with pytest.raises(BadInput) as refused:
        await no_time.thumbnail(photo(1001, "JPEG"), 20, 80)
    assert refused.value.reason == "too-slow"


async def test_what_an_image_may_have_is_known_in_the_process_too() -> None:
    webp = photo(form="WEBP")
    needed = 64 * 64 * Decoding(1).inspect(webp).weight
    assert await Decoding(1, bounds=ImageBounds(max_pixels=needed)).as_jpeg(webp)
    with pytest.raises(BadInput) as refused:
        await Decoding(1, bounds=ImageBounds(max_pixels=needed - 1)).as_jpeg(webp)
    assert refused.value.reason == "too-many-pixels"


async def test_a_decoding_that_is_cancelled_gives_its_turn_back() -> None:
    decoding = Decoding(1)
    task = asyncio.create_task(decoding.verify(photo(2000)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await decoding.verify(photo())).format == "PNG"


async def test_the_next_turn_is_of_whoever_has_had_least() -> None:
    turns, served = FairQueue(1), []

    async def go(name: str, cost: float) -> None:
        async with turns.take(name, cost):
            served.append(name)
            await asyncio.sleep(0)

    costly = [go("costly", 50.0) for _ in range(3)]
    honest = [go("honest", 1.0) for _ in range(3)]
    await asyncio.gather(*costly, *honest)
    assert served == ["costly", "honest", "honest", "honest", "costly", "costly"]


async def test_turns_are_held_by_so_many_at_once_and_given_back() -> None:
    turns, most, now = FairQueue(2), 0, 0

    async def go(name: str) -> None:
        nonlocal most, now
        async with turns.take(name, 1.0):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(go(str(number % 3)) for number in range(12)))
    assert (most, now) == (2, 0)


async def test_who_leaves_before_the_turn_holds_nobody_up() -> None:
    turns = FairQueue(1)

    async def go() -> str:
        async with turns.take("next", 1.0):
            return "done"

    async def wait() -> None:
        async with turns.take("leaves", 1.0):
            raise AssertionError("it has left")

    async with turns.take("first", 1.0):
        leaves, stays = asyncio.create_task(wait()), asyncio.create_task(go())
        await asyncio.sleep(0)
        leaves.cancel()
    assert await stays == "done"
    with pytest.raises(asyncio.CancelledError):
        await leaves


async def test_whoever_comes_late_has_nothing_saved() -> None:
    turns, served = FairQueue(1), []

    async def go(name: str) -> None:
        async with turns.take(name, 1.0):
            served.append(name)
            if len(served) == 3:
                group.create_task(go("late"))
                group.create_task(go("late"))
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(go("early"))
    assert served == ["early", "early", "early", "late", "early", "late", "early", "early"]
