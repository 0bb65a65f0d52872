"""What a build of the first week kept, as it was recorded (`earlier/`), is read by this one."""

from pathlib import Path

from obstore.store import MemoryStore

from caravan import s3
from caravan.manifest import Manifest
from caravan.receipts import Receipt
from caravan_cli.origin import read_origin
from training import parent
from training.stores import Stores

EARLIER = Path(__file__).parent / "earlier"
MODEL = "tea_model_b64"


def test_a_receipt_that_was_left_pending_is_read() -> None:
    receipt = Receipt.from_json((EARLIER / "receipt.json").read_bytes())
    assert (receipt.edge, receipt.state, len(receipt.images)) == ("edge1", "pending", 4)
    assert {image.outcome for image in receipt.images} == {"pending"}


async def test_of_a_rollback_it_is_told_where_it_comes_from_as_far_as_it_says() -> None:
    models = MemoryStore()
    raw = (EARLIER / "manifest.json").read_bytes()
    await s3.write(models, f"models/{MODEL}/3/manifest.json", raw)
    facts = dict((await read_origin(models, MODEL, None, None)).facts())
    assert facts["rollback of"] == "1"
    assert facts["parent"] == f"models/{MODEL}/2/", "it does not say of which edge"


async def test_nobody_knows_what_its_version_learnt_from() -> None:
    manifest = Manifest.from_json((EARLIER / "manifest.json").read_bytes())
    stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge1")
    for file in manifest.files:
        await s3.write(stores.ready, f"models/{MODEL}/3/{file.path}", b"x" * file.size)
    await s3.write(stores.ready, f"models/{MODEL}/3/manifest.json", manifest.to_json())
    assert await parent.learnt(stores, MODEL) is None
    assert await parent.seen(stores, MODEL) is None
