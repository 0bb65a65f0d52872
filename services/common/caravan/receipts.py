"""Receipts: what became of every image of every batch, kept in `E-data` beside the images.

A batch is what came in at once: an uploaded ZIP, whose id is its SHA-256, so that a repeat has the same
receipt. `uploads/<batch>.json` is written twice: as `pending`, with every image and the key that it is
meant to get, before the first image is stored; and as `done`, with keys and outcomes, once every image is
in the bucket and training is triggered. A crash anywhere between leaves it pending until the batch is sent
again.

    {"schema": 1, "state": "done", "edge": "edge1", "batch": "9f86…", "bytes": 21753901, "ignored": 2,
     "uploads": 1, "received": "2026-11-21T09:14:01+00:00", "completed": "2026-11-21T09:14:03+00:00",
     "images": [
      {"name": "images/tea/a.jpg", "outcome": "stored", "key": "images/tea/a.jpg", "sha256": "…"},
      {"name": "images/tea/b.jpg", "outcome": "rejected", "reason": "the image is empty"}]}

`outcome` is one of pending, stored, duplicate, rejected. Whether an image was stored by this batch or found
there is what this batch saw, and a crash can blur it; so the account below trusts keys, not that word.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, Self

from caravan import strict_json
from caravan.contracts import IMAGES, key_by_content
from caravan.errors import Permanent

SCHEMA = 1
UPLOADS = "uploads/"

Outcome = Literal["pending", "stored", "duplicate", "rejected"]


def receipt_key(batch: str) -> str:
    """Key of a batch's receipt in the edge's data bucket."""
    return f"{UPLOADS}{batch}.json"


@dataclass(frozen=True, slots=True)
class ImageReceipt:
    """What became of one image.

    Attributes:
        name: its name in the batch.
        outcome: pending, stored, duplicate or rejected.
        key: where it is, or is meant to be; empty if it was rejected.
        sha256: of its content, in hex; empty if it was rejected.
        reason: why it was rejected; empty otherwise.

    """

    name: str
    outcome: Outcome
    key: str = ""
    sha256: str = ""
    reason: str = ""

    def to_json(self) -> str:
        """Return one line without what is empty."""
        facts = {
            "name": self.name,
            "outcome": self.outcome,
            "key": self.key,
            "sha256": self.sha256,
            "reason": self.reason,
        }
        return json.dumps({name: fact for name, fact in facts.items() if fact}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one batch.

    Attributes:
        state: `pending` until everything that was promised for the batch is durable.
        edge: id of the edge.
        batch: id of the batch; of a ZIP, its SHA-256 in hex.
        size: bytes that came in.
        ignored: how many entries were no images by their names.
        uploads: how often the batch was accepted; 0 while pending for the first time.
        received: ISO 8601 time, UTC, when it first came.
        completed: the same, of the last time that it was accepted; empty before.
        images: one for each image of the batch.

    """

    state: Literal["pending", "done"]
    edge: str
    batch: str
    size: int
    ignored: int
    uploads: int
    received: str
    completed: str
    images: tuple[ImageReceipt, ...]

    def to_json(self) -> bytes:
        """Return the bytes to store, an image a line; a hundred thousand take a moment: use a thread."""
        head = {
            "schema": SCHEMA,
            "state": self.state,
            "edge": self.edge,
            "batch": self.batch,
            "bytes": self.size,
            "ignored": self.ignored,
            "uploads": self.uploads,
            "received": self.received,
            "completed": self.completed,
        }
        lines = ",\n  ".join(image.to_json() for image in self.images)
        return f'{json.dumps(head)[:-1]},\n "images": [\n  {lines}]}}\n'.encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read what `to_json` made.

        Raises:
            Permanent: if it is no receipt, or one of a later schema.

        """
        try:
            body = strict_json.loads_object(raw)
            if body["schema"] != SCHEMA:
                raise Permanent(f"the receipt has schema {body['schema']!r}; {SCHEMA} is known here")
            return cls(
                state=body["state"],
                edge=body["edge"],
                batch=body["batch"],
                size=body["bytes"],
                ignored=body["ignored"],
                uploads=body["uploads"],
                received=body["received"],
                completed=body["completed"],
                images=tuple(ImageReceipt(**image) for image in body["images"]),
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise Permanent(f"not a receipt: {exc!r}") from exc

    def following(self, earlier: Receipt | None) -> Receipt:
        """Return this receipt as that of a batch which came before: counted again, first outcomes kept."""
        if earlier is None:
            return self
        first = {image.key for image in earlier.images if image.outcome == "stored"}
        images = []
        for image in self.images:
            if image.outcome == "duplicate" and image.key in first:
                first.remove(image.key)
                images.append(replace(image, outcome="stored"))
            else:
                images.append(image)
        return replace(
            self,
            uploads=self.uploads + earlier.uploads,
            received=earlier.received,
            images=tuple(images),
        )


@dataclass(frozen=True, slots=True)
class Account:
    """Every image of an edge's receipts, set against its bucket.

    Attributes:
        captured: images in all batches; a batch that was sent again counts once.
        stored: distinct images that are promised and there.
        duplicates: further mentions of those.
        rejected: refused with a reason.
        pending: of batches that were cut off and must be sent again.
        missing: keys that are promised and not there.
        unaccounted: keys under `images/` that no receipt speaks of.

    """

    captured: int
    stored: int
    duplicates: int
    rejected: int
    pending: int
    missing: tuple[str, ...]
    unaccounted: tuple[str, ...]

    @property
    def adds_up(self) -> bool:
        """Whether all images are stored, duplicates, rejected or pending, and the bucket holds just those."""
        total = self.stored + self.duplicates + self.rejected + self.pending
        return self.captured == total and not self.missing and not self.unaccounted


def account(receipts: Iterable[Receipt], bucket: Collection[str]) -> Account:
    """Add up.

    An image of a pending batch that a done one brought as well is safe: it counts as a duplicate.

    Args:
        receipts: every receipt of the edge, each once; read one at a time.
        bucket: the keys in its data bucket; those outside `images/` are passed over.

    """
    captured = rejected = 0
    promised: dict[str, str] = {}
    mentions = 0
    open_images: list[ImageReceipt] = []
    for receipt in receipts:
        captured += len(receipt.images)
        for image in receipt.images:
            if image.outcome == "rejected":
                rejected += 1
            elif receipt.state == "pending":
                open_images.append(image)
            else:
                mentions += 1
                promised[image.key] = image.sha256
    there = {key for key in bucket if key.startswith(IMAGES)}
    missing = promised.keys() - there
    expected = set(promised)
    pending = 0
    for image in open_images:
        keys = (image.key, key_by_content(image.key, image.sha256))
        if any(promised.get(key) == image.sha256 for key in keys):
            mentions += 1
        else:
            pending += 1
            expected.update(keys)
    return Account(
        captured=captured,
        stored=len(promised) - len(missing),
        duplicates=mentions - len(promised),
        rejected=rejected,
        pending=pending,
        missing=tuple(sorted(missing)),
        unaccounted=tuple(sorted(there - expected)),
    )
