"""The account of an edge by contents: what it finds, what it costs, and that a ledger is only a shortcut."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore
from rich.console import Console
from rich.table import Table

from caravan import s3
from caravan.account import read_account
from caravan.errors import BadInput, Transient
from caravan.inventory import PageFile
from caravan.ledger import BODIES, CLOSED, LAST, LEDGER
from caravan.receipts import UPLOADS, Account, ImageReceipt, Receipt, receipt_key
from caravan.withdrawn import WITHDRAWN, tombstone_key
from caravan_cli.__main__ import tell_account
from caravan_cli.withdraw import withdraw


async def forget(store: MemoryStore) -> None:
    """Take away the last answer, which would be given again."""
    await s3.delete(store, [LAST])


async def added_up(store: MemoryStore) -> Account:
    await forget(store)
    return await read_account(store)


async def account_closing(store: MemoryStore) -> Account:
    """Ask, and have every receipt closed."""
    await forget(store)
    return await read_account(store, kept=timedelta(0), closed_together=1)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def a_batch(store: MemoryStore, name: str, count: int = 3, *, completed: str = "now") -> None:
    """Store a batch as the feeder does."""
    images = []
    for number in range(count):
        key, content = f"images/tea/{name}-{number}.jpg", f"{name} {number}".encode()
        placed = await s3.put_new(store, key, content)
        images.append(
            ImageReceipt(key, "stored", placed.key, sha(content), size=len(content), etag=placed.etag)
        )
    images.append(ImageReceipt("images/tea/x.jpg", "rejected", reason="no image"))
    await s3.write(store, receipt_key(name), a_receipt(name, *images, completed=completed))


def a_receipt(name: str, *images: ImageReceipt, completed: str = "now", state: Any = "done") -> bytes:
    return Receipt(state, "edge1", name, 9, 0, 1, "then", completed, images).to_json()


async def keys(store: MemoryStore, prefix: str) -> list[str]:
    return [entry["path"] async for entry in s3.listing(store, prefix)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the objects that are read, by the first part of their keys."""
    counted: Counter[str] = Counter()
    real = obstore.get_async

    async def counting(store: Any, key: str, **more: Any) -> Any:
        counted[key.split("/", maxsplit=1)[0]] += 1
        return await real(store, key, **more)

    monkeypatch.setattr(obstore, "get_async", counting)
    return counted


async def test_asked_again_the_account_reads_only_the_receipts_that_are_new(reads: Counter[str]) -> None:
    store = MemoryStore()
    for number in range(12):
        await a_batch(store, f"b{number}")
    first = await added_up(store)
    assert (first.captured, first.stored, first.rejected, first.adds_up) == (48, 36, 12, True)

    reads.clear()
    assert await added_up(store) == first
    assert reads == {"accounts": 3}, "the last account, the ledger and its body"

    await a_batch(store, "new")
    reads.clear()
    again = await added_up(store)
    assert (again.captured, again.stored, again.adds_up) == (52, 39, True)
    assert reads == {"accounts": 3, "uploads": 1}


async def test_an_image_that_was_swapped_for_another_of_the_same_name_is_found() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    assert (await added_up(store)).adds_up
    await s3.write(store, "images/tea/b-1.jpg", b"another")

    total = await added_up(store)

    assert (total.swapped, total.missing, total.stored, total.adds_up) == (
        ("images/tea/b-1.jpg",),
        (),
        2,
        False,
    )


async def test_content_counts_and_not_the_etag_that_a_store_gives_it(reads: Counter[str]) -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    # As it is written anew, this store gives it another ETag; and an older receipt knows of none.
    await s3.write(store, "images/tea/b-1.jpg", b"b 1")
    old = ImageReceipt("images/tea/old.jpg", "stored", "images/tea/old.jpg", sha(b"old"))
    await s3.write(store, "images/tea/old.jpg", b"old")
    await s3.write(store, receipt_key("old"), a_receipt("old", old))

    assert (await added_up(store)).adds_up
    reads.clear()
    assert (await added_up(store)).adds_up
    assert reads["images"] == 0, "what was compared once is known by its ETag"


async def test_two_receipts_with_different_contents_for_one_key_do_not_add_up() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    await added_up(store)
    other = ImageReceipt("images/tea/b-1.jpg", "duplicate", "images/tea/b-1.jpg", sha(b"another"))
    await s3.write(store, receipt_key("c"), a_receipt("c", other))

    for _ in range(2):
        total = await added_up(store)
        assert (total.contradicted, total.swapped, total.adds_up) == (("images/tea/b-1.jpg",), (), False)
        await s3.delete(store, [LEDGER])


async def test_what_is_missing_in_no_receipt_or_no_receipt_is_named() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    await added_up(store)
    await s3.delete(store, ["images/tea/b-0.jpg"])
    await s3.write(store, "images/tea/stray.jpg", b"stray")
    await s3.write(store, receipt_key("odd"), b"{}")

    total = await added_up(store)

    assert total.faults == {
        "missing": ("images/tea/b-0.jpg",),
        "swapped": (),
        "contradicted": (),
        "unaccounted": ("images/tea/stray.jpg",),
        "unreadable": (receipt_key("odd"),),
    }


@pytest.mark.parametrize(
    "odd",
    [
        {"images": {"a": 1}},
        {"images": ["a.jpg"]},
        {"completed": {}},
        {"state": "begun"},
        {"uploads": "1"},
        {"images": [{"name": "a", "outcome": "stored", "key": "images//a.jpg", "sha256": "a" * 64}]},
        {"images": [{"name": "a", "outcome": "pending", "key": "images/tea/a.jpg", "sha256": "a/b"}]},
        {
            "images": [
                {"name": "a", "outcome": "stored", "key": "images/tea/a.jpg", "sha256": "a", "bytes": -1}
            ]
        },
        {"batch": "another"},
    ],
)
async def test_a_receipt_of_odd_facts_is_named_and_the_others_are_added_up(odd: dict[str, Any]) -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    await s3.write(store, receipt_key("odd"), json.dumps(json.loads(a_receipt("odd")) | odd).encode())

    total = await added_up(store)

    assert (total.unreadable, total.stored, total.missing) == ((receipt_key("odd"),), 3, ())


def test_keys_at_fault_are_printed_as_they_are() -> None:
    odd = "images/[/tea]/[red]a.jpg"
    total = Account(1, 0, 0, 0, 0, missing=(odd,), unaccounted=())
    console = Console(record=True, width=80, file=io.StringIO())

    tell_account(console, "edge1", total, Table())

    assert f"missing: {odd}\nIt does not add up." in console.export_text()


async def test_an_image_that_is_on_its_way_is_pending_under_any_of_its_keys() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    await added_up(store)
    content = b"on its way"
    way = ImageReceipt("images/tea/b-0.jpg", "pending", "images/tea/b-0.jpg", sha(content))
    safe = ImageReceipt("images/tea/b-1.jpg", "pending", "images/tea/b-1.jpg", sha(b"b 1"))
    await s3.write(store, receipt_key("c"), a_receipt("c", way, safe, state="pending", completed=""))
    await s3.put_new(store, way.key, content)

    total = await added_up(store)

    assert (total.captured, total.stored, total.duplicates, total.pending) == (6, 3, 1, 1)
    assert total.adds_up


@pytest.mark.parametrize(
    "damage",
    [
        lambda store, body: s3.delete(store, [LEDGER]),
        lambda store, body: s3.delete(store, [body]),
        lambda store, body: s3.write(store, LEDGER, b"\xff"),
        lambda store, body: s3.write(store, LEDGER, b'{"schema": 1, "receipts": []}'),
        lambda store, body: s3.write(store, LEDGER, b'{"schema": 99}'),
        lambda store, body: s3.write(store, body, b"images/tea/a.jpg\te\t1\ts\t1\n"),
        lambda store, body: s3.write(store, body, b"\xff\t\n"),
        lambda store, body: s3.write(store, body, b""),
    ],
    ids=[
        "no ledger",
        "no body",
        "no JSON",
        "no receipts",
        "another schema",
        "another body",
        "no lines",
        "empty",
    ],
)
async def test_a_ledger_that_is_gone_damaged_or_of_another_version_is_made_again(damage: Any) -> None:
    store = MemoryStore()
    await a_batch(store, "closed")
    await account_closing(store)
    await a_batch(store, "b")
    first = await added_up(store)
    assert first.adds_up
    (body,) = [
        key for key in await keys(store, BODIES) if key == json.loads(await s3.read(store, LEDGER))["body"]
    ]

    await damage(store, body)

    assert await added_up(store) == first
    assert await added_up(store) == first


async def test_while_nothing_has_changed_the_last_account_is_given_again(reads: Counter[str]) -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    first = await read_account(store)
    reads.clear()
    assert await read_account(store) == first
    assert reads == {"accounts": 1}, "nothing is added up"


async def test_whatever_changes_is_seen_though_an_account_was_given() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    first = await read_account(store)
    await s3.write(store, "images/tea/b-1.jpg", b"another")
    assert (await read_account(store)).swapped == ("images/tea/b-1.jpg",)
    assert (await read_account(store)).swapped == ("images/tea/b-1.jpg",), "what is amiss is looked at again"
    await s3.write(store, "images/tea/b-1.jpg", b"b 1")
    assert await read_account(store) == first, "the same content again"
    await s3.write(store, "images/tea/nobodys.jpg", b"x")
    assert (await read_account(store)).unaccounted == ("images/tea/nobodys.jpg",)
    await s3.delete(store, ["images/tea/nobodys.jpg", "images/tea/b-2.jpg"])
    assert (await read_account(store)).missing == ("images/tea/b-2.jpg",)
    await s3.write(store, "images/tea/b-2.jpg", b"b 2")
    assert await read_account(store) == first
    await a_batch(store, "c")
    assert (await read_account(store)).captured == 8
    await s3.write(store, tombstone_key(sha(b"b 0")), b"{}")
    await s3.delete(store, ["images/tea/b-0.jpg"])
    assert (await read_account(store)).withdrawn == 1


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema": 1, "of": "x"}', b'{"schema": 2}'])
async def test_a_last_account_that_is_none_is_passed_over(content: bytes) -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    first = await read_account(store)
    await s3.write(store, LAST, content)
    assert await read_account(store) == first


async def test_totals_that_are_none_are_passed_over() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    first = await read_account(store)
    last = json.loads(await s3.read(store, LAST))
    odd: list[Any] = [[], {"captured": 4}, last["totals"] | {"stored": "3"}]
    for totals in odd:
        await s3.write(store, LAST, json.dumps(last | {"totals": totals}).encode())
        assert await read_account(store) == first


async def test_a_ledger_whose_totals_do_not_fit_is_made_again() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    first = await added_up(store)
    ledger = json.loads(await s3.read(store, LEDGER))
    await s3.write(store, LEDGER, json.dumps(ledger | {"captured": 7}).encode())

    assert await added_up(store) == first
    assert json.loads(await s3.read(store, LEDGER))["captured"] == first.captured


async def test_old_receipts_are_closed_together_and_count_as_before() -> None:
    store = MemoryStore()
    for number in range(5):
        await a_batch(store, f"b{number}")
    first = await account_closing(store)
    assert await keys(store, UPLOADS) == []
    assert len(await keys(store, CLOSED)) == 1

    assert await account_closing(store) == first
    await s3.delete(store, [LEDGER])
    assert await account_closing(store) == first
    # Sent again after that, its images are duplicates of another batch.
    await a_batch(store, "b1", completed="later")
    again = await account_closing(store)
    assert (again.captured, again.stored, again.duplicates, again.rejected) == (24, 15, 3, 6)
    assert again.adds_up


async def test_a_batch_that_is_sent_again_counts_once() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    first = await added_up(store)
    await a_batch(store, "b", completed="later")
    assert await added_up(store) == first
    await a_batch(store, "b", count=4, completed="later still")
    assert (await added_up(store)).captured == 5


async def test_two_who_ask_at_once_and_an_upload_in_between_agree() -> None:
    store = MemoryStore()
    for number in range(20):
        await a_batch(store, f"b{number}")
    await added_up(store)

    async def upload() -> None:
        for number in range(20):
            await a_batch(store, f"c{number}")

    totals = await asyncio.gather(*(account_closing(store) for _ in range(4)))
    assert all(total.adds_up for total in totals)
    await upload()
    totals = await asyncio.gather(*(account_closing(store) for _ in range(4)))
    last = await added_up(store)
    assert (last.captured, last.stored, last.adds_up) == (160, 120, True)


async def test_a_withdrawn_image_is_gone_counted_and_not_to_come_back() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    await s3.put_new(store, "images/coffee/b.jpg", b"b 1")
    copy = ImageReceipt("b", "stored", "images/coffee/b.jpg", sha(b"b 1"))
    await s3.write(store, receipt_key("c"), a_receipt("c", copy))
    await added_up(store)

    done = await withdraw(store, "images/tea/b-1.jpg", reason="a face", label_only=False)

    assert done.removed == ("images/coffee/b.jpg", "images/tea/b-1.jpg")
    assert await keys(store, WITHDRAWN) == [f"{WITHDRAWN}{sha(b'b 1')}.json"]
    for _ in range(2):
        total = await added_up(store)
        assert (total.captured, total.stored, total.withdrawn, total.adds_up) == (5, 2, 2, True)
        await s3.delete(store, [LEDGER])
    assert (await withdraw(store, sha(b"b 1"), reason="", label_only=False)).removed == ()

    await s3.write(store, "images/tea/b-1.jpg", b"b 1")
    assert (await added_up(store)).unaccounted == ("images/tea/b-1.jpg",)


async def test_a_wrong_label_is_withdrawn_alone() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    await s3.put_new(store, "images/coffee/b.jpg", b"b 1")
    copy = ImageReceipt("b", "stored", "images/coffee/b.jpg", sha(b"b 1"))
    await s3.write(store, receipt_key("c"), a_receipt("c", copy))

    done = await withdraw(store, "images/tea/b-1.jpg", reason="it is coffee", label_only=True)

    assert done.removed == ("images/tea/b-1.jpg",)
    total = await added_up(store)
    assert (total.stored, total.withdrawn, total.adds_up) == (3, 1, True)


async def test_an_image_that_someone_removed_is_withdrawn_by_its_key() -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    await s3.delete(store, ["images/tea/b-1.jpg"])
    assert not (await added_up(store)).adds_up

    assert (await withdraw(store, "images/tea/b-1.jpg", reason="", label_only=False)).removed == ()

    assert (await added_up(store)).adds_up


@pytest.mark.parametrize("image", ["images/tea/none.jpg", "0" * 64, "uploads/b.json", "images/tea"])
async def test_what_is_no_image_there_is_not_withdrawn(image: str) -> None:
    store = MemoryStore()
    await a_batch(store, "b")
    with pytest.raises(BadInput):
        await withdraw(store, image, reason="", label_only=False)
    assert await keys(store, WITHDRAWN) == []


def test_a_listing_for_which_there_is_no_room_says_where_to_make_some() -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(Transient, match="no room for a listing in /"):
        PageFile(Full()).add(b"page")
