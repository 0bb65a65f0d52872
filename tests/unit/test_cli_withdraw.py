"""A batch is withdrawn by its id: what it alone brought goes, whatever is killed when, and stays out."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from caravan import s3
from caravan.account import read_account
from caravan.contracts import IMAGES
from caravan.errors import BadInput, Transient
from caravan.receipts import ImageReceipt, Receipt, receipt_key
from caravan.withdrawn import BATCHES, WITHDRAWN, read_withdrawn
from caravan_cli.__main__ import commands
from caravan_cli.withdraw import Withdrawal, withdraw, withdraw_everywhere


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def feed(store: MemoryStore, batch: str, *images: str, state: Any = "done") -> str:
    """Store a batch as the feeder does, of images written `<class>/<content>`; return its id."""
    told = []
    for image in images:
        key, content = f"{IMAGES}{image}.jpg", image.split("/")[1].encode()
        placed = await s3.put_new(store, key, content)
        outcome: Any = "pending" if state == "pending" else "stored" if placed.new else "duplicate"
        sha256 = hashlib.sha256(content).hexdigest()
        told.append(ImageReceipt(key, outcome, placed.key, sha256, size=len(content), etag=placed.etag))
    receipt = Receipt(state, "edge1", sha(batch), 9, 0, 1, "then", "now", tuple(told))
    await s3.write(store, receipt_key(receipt.batch), receipt.to_json())
    return receipt.batch


async def images(store: MemoryStore) -> list[str]:
    keys = [entry["path"] async for entry in s3.listing(store, IMAGES)]
    return sorted(key.removeprefix(IMAGES).removesuffix(".jpg") for key in keys)


async def take_out(store: MemoryStore, what: str, *, label_only: bool = False) -> Withdrawal:
    return await withdraw(store, what, reason="wrong", label_only=label_only)


async def adds_up(store: MemoryStore) -> bool:
    return (await read_account(store)).adds_up


async def test_all_that_a_batch_alone_brought_goes_and_the_account_adds_up() -> None:
    store = MemoryStore()
    await feed(store, "good", "green/a", "lemon/b")
    bad = await feed(store, "bad", "lemon/c", "lemon/d", "green/e")
    await read_account(store)

    done = await take_out(store, bad)

    assert set(done.contents) == {sha("c"), sha("d"), sha("e")}
    assert done.removed == ("images/green/e.jpg", "images/lemon/c.jpg", "images/lemon/d.jpg")
    assert await images(store) == ["green/a", "lemon/b"]
    total = await read_account(store)
    assert (total.captured, total.stored, total.withdrawn, total.adds_up) == (5, 2, 3, True)
    withdrawn = await read_withdrawn(store)
    assert all(withdrawn.covers(f"images/{item}/x.jpg", sha("c")) for item in ("lemon", "green"))
    assert (await take_out(store, bad)).removed == ()


async def test_what_another_batch_brought_under_the_same_class_stays_until_that_is_withdrawn_too() -> None:
    store = MemoryStore()
    one = await feed(store, "one", "green/a", "green/b")
    two = await feed(store, "two", "green/b", "green/c")
    done = await take_out(store, one)
    assert done.kept == (f"green/{sha('b')}",)
    assert await images(store) == ["green/b", "green/c"]
    assert await adds_up(store)
    done = await take_out(store, two)
    assert done.kept == ()
    assert await images(store) == []
    assert await adds_up(store)
    assert (await read_withdrawn(store)).everywhere == {sha("a"), sha("b"), sha("c")}


async def test_what_another_batch_brought_under_another_class_keeps_that_class() -> None:
    store = MemoryStore()
    await feed(store, "good", "green/a")
    bad = await feed(store, "bad", "lemon/a", "lemon/b")
    done = await take_out(store, bad)
    assert done.removed == ("images/lemon/a.jpg", "images/lemon/b.jpg")
    assert await images(store) == ["green/a"]
    assert await adds_up(store)
    withdrawn = await read_withdrawn(store)
    assert withdrawn.covers("images/lemon/a.jpg", sha("a"))
    assert not withdrawn.covers("images/green/a.jpg", sha("a"))


async def test_wrong_labels_are_taken_off_a_batch_and_the_photos_may_come_under_the_right_ones() -> None:
    store = MemoryStore()
    bad = await feed(store, "bad", "lemon/a", "lemon/b")
    await take_out(store, bad, label_only=True)
    withdrawn = await read_withdrawn(store)
    assert withdrawn.covers("images/lemon/a.jpg", sha("a"))
    assert not withdrawn.covers("images/green/a.jpg", sha("a"))
    await feed(store, "mended", "green/a", "green/b")
    assert await images(store) == ["green/a", "green/b"]
    assert await adds_up(store)


async def test_a_batch_whose_receipt_is_closed_or_pending_is_withdrawn_like_any_other() -> None:
    store = MemoryStore()
    closed = await feed(store, "closed", "green/a")
    await feed(store, "other", "green/b")
    await read_account(store, kept=timedelta(0), closed_together=1)
    with pytest.raises(FileNotFoundError):
        await s3.read(store, receipt_key(closed))
    pending = await feed(store, "pending", "green/c", state="pending")
    for batch in (closed, pending):
        assert len((await take_out(store, batch)).removed) == 1
    assert await images(store) == ["green/b"]
    total = await read_account(store)
    assert (total.captured, total.stored, total.pending, total.withdrawn) == (3, 1, 0, 2)
    assert total.adds_up


async def test_killed_at_any_write_and_given_again_it_is_as_if_it_was_given_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, left = s3.write, 0

    async def write(store: Any, key: str, *more: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Transient("killed")
        await real(store, key, *more)

    for passing in range(5):
        store = MemoryStore()
        await feed(store, "good", "green/a", "green/b")
        bad = await feed(store, "bad", "green/b", "lemon/c", "lemon/d")
        left = passing
        with monkeypatch.context() as patch, suppress(Transient):
            patch.setattr(s3, "write", write)
            await take_out(store, bad)
        await take_out(store, bad)
        assert await images(store) == ["green/a", "green/b"]
        assert len([key async for key in s3.listing(store, WITHDRAWN)]) == 2
        assert len([key async for key in s3.listing(store, BATCHES)]) == 1
        assert await adds_up(store)


@pytest.mark.parametrize("what", [sha("no batch"), "batch"])
async def test_a_batch_that_nobody_knows_is_not_withdrawn(what: str) -> None:
    store = MemoryStore()
    await feed(store, "good", "green/a")
    with pytest.raises(BadInput):
        await take_out(store, what)
    assert [key async for key in s3.listing(store, WITHDRAWN)] == []


async def test_a_label_is_not_taken_off_a_content_that_may_have_several() -> None:
    store = MemoryStore()
    await feed(store, "good", "green/a")
    with pytest.raises(BadInput, match="may have several"):
        await take_out(store, sha("a"), label_only=True)


async def test_of_a_group_it_is_taken_out_at_each_edge_that_knows_it() -> None:
    one, two, three = MemoryStore(), MemoryStore(), MemoryStore()
    await feed(one, "one", "green/a", "green/b")
    await feed(two, "two", "lemon/a")
    await feed(three, "three", "lemon/c")
    stores = (one, two, three)
    done = await withdraw_everywhere(stores, sha("a"), reason="wrong", label_only=False)
    assert (done.contents, done.removed) == ((sha("a"),), ("images/green/a.jpg", "images/lemon/a.jpg"))
    assert [await images(store) for store in stores] == [["green/b"], [], ["lemon/c"]]
    with pytest.raises(BadInput, match="neither the bucket nor a receipt knows"):
        await withdraw_everywhere(stores, sha("z"), reason="wrong", label_only=False)


def test_a_batch_of_which_another_brought_all_is_told_to_have_taken_nothing_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    for batch in ("zipped", "zipped-again"):
        asyncio.run(feed(store, batch, "green/a"))
    monkeypatch.setattr(s3, "open_bucket", lambda *_: store)
    monkeypatch.setenv("EDGE", "edge1")

    done = CliRunner().invoke(commands, ["withdraw", sha("zipped")])

    kept = f"stays, as another batch brought it too: green/{sha('a')}\n"
    assert (done.exit_code, done.output) == (0, f"{kept}withdrawn: nothing\n")


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (("green/b", "lemon/c"), ""),
        (
            ("green/b",),
            "only images of green are left",
        ),
        ((), "no image is left"),
    ],
)
def test_it_is_told_where_too_little_is_left_for_a_version_without_what_was_withdrawn(
    kept: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    asyncio.run(feed(store, "good", *kept))
    bad = asyncio.run(feed(store, "bad", "lemon/a"))

    async def ask(*_: object) -> None:
        pass

    monkeypatch.setattr(s3, "open_bucket", lambda *_: store)
    monkeypatch.setattr("caravan_cli.__main__._ask_for_training", ask)
    monkeypatch.setenv("EDGE", "edge1")

    done = CliRunner().invoke(commands, ["withdraw", bad])

    more = f"{told} for edge1 to train on: its last version goes on serving as it is\n" if told else ""
    assert (done.exit_code, done.output.partition("withdrawn: ")[2]) == (0, f"{sha('a')}\n{more}")


def test_a_sha256_in_capitals_is_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    asyncio.run(feed(store, "good", "green/a", "lemon/b"))

    async def ask(*_: object) -> None:
        pass

    monkeypatch.setattr(s3, "open_bucket", lambda *_: store)
    monkeypatch.setattr("caravan_cli.__main__._ask_for_training", ask)
    monkeypatch.setenv("EDGE", "edge1")

    done = CliRunner().invoke(commands, ["withdraw", sha("a").upper()])

    assert done.output.startswith(f"removed images/green/a.jpg\nwithdrawn: {sha('a')}\n")
    asked = CliRunner().invoke(commands, ["which", sha("a").upper()])
    assert (asked.exit_code, asked.output) == (1, "No version says that it saw this image.\n")
