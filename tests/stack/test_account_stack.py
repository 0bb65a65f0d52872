"""The account, receipts and buckets against a real S3 server: what it calls an ETag, and how it says no."""

import asyncio
import hashlib
import os
import sys

import pytest
from pydantic import SecretStr

from caravan import s3
from caravan.account import read_account
from caravan.ledger import LEDGER
from caravan.receipts import ImageReceipt, Receipt, receipt_key
from caravan.settings import S3Address
from caravan_cli.withdraw import withdraw
from local_stack.keys import PASSWORD, USER
from local_stack.stack import Stack


async def bucket(stack: Stack, name: str) -> s3.Bucket:
    address = S3Address(stack.url("s3-central"), SecretStr(USER), SecretStr(PASSWORD), "us-east-1", None)
    store = s3.open_bucket(address, name)
    await s3.ensure_buckets(address, [name])
    return store


async def test_a_swapped_image_is_found_by_the_listing_and_a_withdrawn_one_stays_accounted_for(
    stack: Stack,
) -> None:
    store = await bucket(stack, "swapped-data")
    images = []
    for number in range(3):
        key, content = f"images/tea/{number}.jpg", f"image {number}".encode()
        placed = await s3.put_new(store, key, content)
        sha256 = hashlib.sha256(content).hexdigest()
        images.append(ImageReceipt(key, "stored", key, sha256, size=len(content), etag=placed.etag))
    receipt = Receipt("done", "swapped", "b", 9, 0, 1, "then", "now", tuple(images))
    await s3.write(store, receipt_key("b"), receipt.to_json())
    assert (await read_account(store)).adds_up
    ledger = await s3.read_with_etag(store, LEDGER)

    await s3.write(store, "images/tea/1.jpg", b"another")

    assert (await read_account(store)).swapped == ("images/tea/1.jpg",)
    assert await s3.read_with_etag(store, LEDGER) == ledger, "nothing new was written"
    await withdraw(store, images[1].sha256, reason="", label_only=False)
    await withdraw(store, "images/tea/2.jpg", reason="", label_only=False)
    assert (await read_account(store)).unaccounted == ("images/tea/1.jpg",)
    await s3.delete(store, ["images/tea/1.jpg"])
    assert await _command(stack, "swapped") == 0
    total = await read_account(store)
    assert (total.captured, total.stored, total.withdrawn) == (3, 1, 2)


async def test_a_replacement_is_made_once_however_many_try(stack: Stack) -> None:
    store = await bucket(stack, "replaced-data")
    assert sum(await asyncio.gather(*(s3.replace(store, "a", b"0", None) for _ in range(9)))) == 1
    _, etag = await s3.read_with_etag(store, "a")
    assert sum(await asyncio.gather(*(s3.replace(store, "a", b"1", etag) for _ in range(9)))) == 1


async def test_a_key_that_is_too_long_is_a_fault_of_its_own(stack: Stack) -> None:
    store = await bucket(stack, "long-data")
    with pytest.raises(s3.Unstorable):
        await s3.put_new(store, f"images/tea/{'a' * 1200}.jpg", b"content")


async def _command(stack: Stack, edge: str) -> int | None:
    """Run `caravan account` for an edge; return its exit code."""
    environment = os.environ | {
        "EDGE": edge,
        "S3_CENTRAL_ENDPOINT": stack.url("s3-central"),
        "S3_EDGE_ENDPOINT": stack.url("s3-edge1"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caravan", "account", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    return await process.wait()
