"""What is in quarantine is kept back until it is released, and then for good no more."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from caravan import s3
from caravan.errors import BadInput, Permanent
from caravan.quarantine import (
    Quarantined,
    forget_pictures,
    put_in_quarantine,
    read_page,
    read_quarantine,
    read_waiting,
    release_batch,
)
from caravan.withdrawn import Withdrawn, batch_tombstone_key, read_withdrawn, tombstone_key
from caravan_cli.__main__ import commands

ONE, TWO = ("lemon", "1" * 64), ("lemon", "2" * 64)
FIRST = Quarantined("b1", "they look green", "2026-11-28T09:00:00.000+00:00", (ONE,))


async def test_a_batch_is_kept_back_until_it_is_released() -> None:
    store = MemoryStore()
    await put_in_quarantine(store, FIRST, b"<p>")
    assert await read_quarantine(store) == (FIRST,)
    assert await read_page(store, "b1") == b"<p>"
    for _ in range(2):
        assert (await release_batch(store, "b1")).images == (ONE,)
        assert [each.state for each in await read_quarantine(store)] == ["released"]


async def test_more_of_a_batch_is_added_to_what_is_there() -> None:
    store = MemoryStore()
    await put_in_quarantine(store, FIRST, b"")
    await put_in_quarantine(store, Quarantined("b1", "more", "2026-11-29", (TWO,)), b"")
    (both,) = await read_quarantine(store)
    assert (both.images, both.reason, both.at) == ((ONE, TWO), "more", FIRST.at)


async def test_what_was_kept_back_and_withdrawn_as_other_with_a_capital_is_other() -> None:
    store = MemoryStore()
    await put_in_quarantine(store, replace(FIRST, images=(("Other", "1" * 64), ("Other", "2" * 64))), b"")
    await s3.write(store, tombstone_key("1" * 64, "Other"), b"{}")
    assert [each.images for each in await read_waiting(store)] == [(("other", "2" * 64),)]
    withdrawn = await read_withdrawn(store)
    assert withdrawn.covers("images/Other/a.jpg", "1" * 64)
    assert withdrawn.covers("images/other/a.jpg", "1" * 64)


async def test_a_batch_that_was_withdrawn_waits_no_more() -> None:
    store = MemoryStore()
    await put_in_quarantine(store, FIRST, b"")
    assert await read_waiting(store) == (FIRST,)
    await s3.write(store, batch_tombstone_key("b1"), b"{}")
    assert await read_waiting(store) == ()


async def test_a_batch_whose_images_were_withdrawn_one_by_one_waits_no_more_and_is_not_released() -> None:
    store = MemoryStore()
    await put_in_quarantine(store, replace(FIRST, images=(ONE, TWO)), b"")
    await s3.write(store, tombstone_key(ONE[1]), b"{}")
    assert [each.images for each in await read_waiting(store)] == [(TWO,)]
    assert (await release_batch(store, "b1")).images == (TWO,)
    await s3.write(store, tombstone_key(TWO[1]), b"{}")
    assert await read_waiting(store) == ()
    with pytest.raises(BadInput, match="no batch b1"):
        await release_batch(store, "b1")


async def test_no_page_shows_what_was_withdrawn_or_released() -> None:
    store = MemoryStore()
    for batch, image in (("b1", ONE), ("b2", TWO)):
        await put_in_quarantine(store, replace(FIRST, batch=batch, images=(image,)), b"<p>")
    await forget_pictures(store, await read_quarantine(store), Withdrawn({ONE[1]}))
    with pytest.raises(BadInput):
        await read_page(store, "b1")
    assert await read_page(store, "b2") == b"<p>"
    await release_batch(store, "b2")
    with pytest.raises(BadInput):
        await read_page(store, "b2")


async def test_what_is_not_there_is_a_404() -> None:
    with pytest.raises(BadInput, match="no batch b1"):
        await release_batch(MemoryStore(), "b1")
    with pytest.raises(BadInput, match="no batch b1"):
        await read_page(MemoryStore(), "b1")


@pytest.mark.parametrize(
    "body", ["{}", "no JSON", '{"schema": 1, "batch": "b2", "reason": "", "at": "", "images": []}']
)
async def test_one_that_cannot_be_read_keeps_everything_back(body: str) -> None:
    store = MemoryStore()
    await s3.write(store, "quarantine/b1.json", body.encode())
    with pytest.raises(Permanent, match=r"quarantine/b1\.json"):
        await read_quarantine(store)


def test_the_operator_lists_shows_and_releases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = MemoryStore()
    told: list[object] = []

    async def ask(_: object, why: str, images: int) -> None:
        told.append((why, images))

    monkeypatch.setattr("caravan.s3.open_bucket", lambda *_: store)
    monkeypatch.setattr("caravan_cli.__main__._ask_for_training", ask)
    asyncio.run(put_in_quarantine(store, FIRST, b"<p>"))
    runner = CliRunner()
    listed = runner.invoke(commands, ["quarantine"])
    assert "b1" in listed.output
    assert "they look green" in listed.output
    shown = runner.invoke(commands, ["quarantine", "show", "b1", "--out", str(tmp_path)])
    assert shown.exit_code == 0
    assert (tmp_path / "edge1-quarantine-b1.html").read_bytes() == b"<p>"
    assert "1 images" in runner.invoke(commands, ["quarantine", "release", "b1"]).output
    assert told == [("released", 1)]
    assert "nothing" in runner.invoke(commands, ["quarantine"]).output
    assert runner.invoke(commands, ["quarantine", "release", "b9"]).exit_code == 1
