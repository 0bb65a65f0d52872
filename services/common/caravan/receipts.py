"""Receipts: what became of every image of every batch, kept in `E-data` beside the images.

A batch is what came in at once: an uploaded ZIP, whose id is its SHA-256, so that a repeat has the same
receipt. `uploads/<batch>.json` is written twice: as `pending`, with every image and the key that it is
meant to get, before the first image is stored; and as `done`, with keys and outcomes, once every image is
in the bucket and training is triggered. A crash anywhere between leaves it pending until the batch is sent
again.

    {"schema": 1, "state": "done", "edge": "edge1", "batch": "9f86…", "bytes": 21753901, "ignored": 2,
     "uploads": 1, "received": "2026-11-21T09:14:01+00:00", "completed": "2026-11-21T09:14:03+00:00",
     "images": [
      {"name": "images/tea/a.jpg", "outcome": "stored", "key": "images/tea/a.jpg", "sha256": "…",
       "bytes": 36871, "etag": "…"},
      {"name": "images/tea/b.jpg", "outcome": "rejected", "reason": "the image is empty"}]}

`outcome` is one of pending, stored, duplicate, rejected. Whether an image was stored by this batch or found
there is what this batch saw, and a crash can blur it; so the account trusts keys and contents, not that word.
`etag` is what the store answered when the image was put or found: as long as it stands, the content does.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from caravan import strict_json
from caravan.contracts import IMAGES, possible_keys
from caravan.errors import Permanent
from caravan.names import is_addressable, is_printable
from caravan.withdrawn import Withdrawn

SCHEMA = 1
UPLOADS = "uploads/"

Outcome = Literal["pending", "stored", "duplicate", "rejected"]
State = Literal["pending", "done"]

_TYPES = {
    "edge": str,
    "batch": str,
    "bytes": int,
    "ignored": int,
    "uploads": int,
    "received": str,
    "completed": str,
    "images": list,
}
"""Types of a receipt's members."""


class NotAReceipt(Permanent):
    """An object where a receipt should be is none."""


def receipt_key(batch: str) -> str:
    """Key of a batch's receipt in the edge's data bucket."""
    return f"{UPLOADS}{batch}.json"


@dataclass(frozen=True, slots=True)
class ImageReceipt:
    """What became of one image.

    Attributes:
        name: its name in the batch.
        outcome: pending, stored, duplicate or rejected.
        key: key of the object, present or planned; empty if the image was rejected.
        sha256: of its content, in hex; empty if it was rejected.
        reason: why it was rejected; empty otherwise.
        size: bytes of the content; 0 if the receipt is older than this fact.
        etag: ETag of the stored object; empty before, or if the store gives none.

    """

    name: str
    outcome: Outcome
    key: str = ""
    sha256: str = ""
    reason: str = ""
    size: int = 0
    etag: str = ""

    def to_json(self) -> str:
        """Return one line without what is empty."""
        facts = {
            "name": self.name,
            "outcome": self.outcome,
            "key": self.key,
            "sha256": self.sha256,
            "reason": self.reason,
            "bytes": self.size,
            "etag": self.etag,
        }
        return json.dumps({name: fact for name, fact in facts.items() if fact}, ensure_ascii=False)

    @classmethod
    def from_json(cls, body: Any) -> Self:
        """Read the value of a line; facts that a later version adds are passed over.

        Raises:
            ValueError, KeyError, TypeError: if it is something else.

        """
        if not isinstance(body, dict):
            raise TypeError("an image is not an object")
        texts = {name: body.get(name, "") for name in ("key", "sha256", "reason", "etag")}
        size = body.get("bytes", 0)
        if (
            not all(isinstance(text, str) for text in (body["name"], *texts.values()))
            or type(size) is not int
        ):
            raise TypeError("a fact of an image has another type")
        if body["outcome"] not in get_args(Outcome):
            raise ValueError("an image has no known outcome")
        if body["outcome"] != "rejected" and not (is_addressable(texts["key"]) and texts["sha256"].isalnum()):
            raise ValueError("an image has no key or no SHA-256, or one that cannot be")
        if size < 0 or not (is_printable(texts["key"]) and texts["etag"].isprintable()):
            raise ValueError("a key or an ETag is not printable, or a size is negative")
        return cls(body["name"], body["outcome"], size=size, **texts)


def _check_facts(body: dict[str, Any]) -> None:
    if any(type(body[name]) is not kind for name, kind in _TYPES.items()):
        raise TypeError("a fact of the batch has another type")
    if body["state"] not in get_args(State):
        raise ValueError("the batch has no known state")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one batch.

    Attributes:
        state: `pending` until everything that was promised for the batch is durable.
        edge: id of the edge.
        batch: id of the batch; of a ZIP, its SHA-256 in hex.
        size: bytes that came in.
        ignored: number of entries whose names are not those of images.
        uploads: how often the batch was accepted; 0 while it is pending for the first time.
        received: ISO 8601 time, UTC, when it first came.
        completed: the same, of the last time that it was accepted; empty before.
        images: one for each image of the batch.

    """

    state: State
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
            NotAReceipt: if it is none.
            Permanent: if it is one of a later schema.

        """
        try:
            body = strict_json.loads_object(raw)
            if body["schema"] != SCHEMA:
                raise Permanent(f"the receipt has schema {body['schema']!r}; {SCHEMA} is known here")
            _check_facts(body)
            return cls(
                state=body["state"],
                edge=body["edge"],
                batch=body["batch"],
                size=body["bytes"],
                ignored=body["ignored"],
                uploads=body["uploads"],
                received=body["received"],
                completed=body["completed"],
                images=tuple(map(ImageReceipt.from_json, body["images"])),
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise NotAReceipt(f"not a receipt: {exc!r}") from exc

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


@dataclass(slots=True)
class Promise:
    """Content that receipts promise under a key: its SHA-256, the object's facts, the number of promises."""

    sha256: str
    etag: str
    size: int
    mentions: int


class Tally:
    """Sums over receipts; those of pending batches apart.

    Attributes:
        captured: images in all of them.
        rejected: number of captured images refused with a reason.
        promised: by key, the contents that done batches put there; more than one is a contradiction.
        open_images: images of pending batches.

    """

    def __init__(self) -> None:
        self.captured = 0
        self.rejected = 0
        self.promised: dict[str, list[Promise]] = {}
        self.open_images: list[ImageReceipt] = []

    def add(self, receipt: Receipt) -> None:
        """Add a receipt; a hundred thousand images take a moment: use a thread."""
        self.captured += len(receipt.images)
        for image in receipt.images:
            if image.outcome == "rejected":
                self.rejected += 1
            elif receipt.state == "pending":
                self.open_images.append(image)
            else:
                add_promise(
                    self.promised, image.key, Promise(image.sha256, image.etag.strip('"'), image.size, 1)
                )


def add_promise(promised: dict[str, list[Promise]], key: str, promise: Promise) -> None:
    """Add content under a key; the earlier promise's facts of the object stay."""
    there = promised.setdefault(key, [])
    for known in there:
        if known.sha256 == promise.sha256:
            known.mentions += promise.mentions
            if not known.etag:
                known.etag, known.size = promise.etag, promise.size
            return
    there.append(promise)


TOTALS = ("captured", "stored", "duplicates", "rejected", "pending", "withdrawn")


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
        unaccounted: keys under `images/` that no receipt speaks of, or whose content was withdrawn.
        withdrawn: taken out again by an operator; whatever mentions them.
        swapped: keys under which there is other content than what was stored.
        contradicted: keys to which receipts ascribe different contents.
        unreadable: receipts that are none, by their keys.

    """

    captured: int
    stored: int
    duplicates: int
    rejected: int
    pending: int
    missing: tuple[str, ...]
    unaccounted: tuple[str, ...]
    withdrawn: int = 0
    swapped: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """Return what does not add up, by kind: keys in their order."""
        return {
            "missing": self.missing,
            "swapped": self.swapped,
            "contradicted": self.contradicted,
            "unaccounted": self.unaccounted,
            "unreadable": self.unreadable,
        }

    @property
    def totals(self) -> dict[str, int]:
        """How many images met which fate."""
        return {name: getattr(self, name) for name in TOTALS}

    @classmethod
    def from_totals(cls, totals: Mapping[str, int]) -> Self:
        """Return the account without faults that has these totals.

        Raises:
            ValueError: if there are none.

        """
        if totals.keys() != {*TOTALS} or any(type(total) is not int for total in totals.values()):
            raise ValueError("not the totals of an account")
        return cls(missing=(), unaccounted=(), **totals)  # type: ignore[arg-type] # totals alone

    @property
    def adds_up(self) -> bool:
        """Whether each image has one of the five fates, and the bucket holds just what was stored."""
        total = self.stored + self.duplicates + self.rejected + self.pending + self.withdrawn
        return self.captured == total and not any(self.faults.values())


class Expected:
    """What should be in a bucket: older promises, out of a ledger, and then a tally of receipts.

    Args:
        promised: what done receipts promise, as in `Tally`; older promises under its keys are added to it.
        open_images: images of pending batches.
        withdrawn: withdrawn contents.
        disputed: keys of older promises that contradict each other.

    Attributes:
        places: a hash of each object that must be listed, by its key, ETag and size. They have 64 bits, and
            another secret in each process: that one of a million passes for another is out of the question.
        contradicted: keys to which different contents are ascribed.
        allowed: keys at which an object is no surprise.
        pending: images of cut-off batches that no done one brought.

    """

    def __init__(
        self,
        promised: dict[str, list[Promise]],
        open_images: Iterable[ImageReceipt],
        withdrawn: Withdrawn,
        disputed: Iterable[str] = (),
    ) -> None:
        self.places: set[int] = set()
        self.contradicted: set[str] = set()
        self.allowed: set[str] = set()
        self.pending = 0
        self._promised = promised
        self._withdrawn = withdrawn
        self._taken_out = self._promises = self._mentions = self._contradictions = 0
        self._open = [(image, possible_keys(image.key, image.sha256)) for image in open_images]
        for key in (*disputed, *(key for _, keys in self._open for key in keys)):
            promised.setdefault(key, [])

    def take(self, lines: Iterable[str]) -> None:
        """Add older promises, as `promise_line` writes them; thousands take a moment: use a thread."""
        held, withdrawn, places = self._promised, self._withdrawn, self.places
        looks_closer = bool(held or withdrawn)
        for line in lines:
            listed, sha256, mentions = line.rsplit("\t", 2)
            if looks_closer:
                key = listed.partition("\t")[0]
                if key in held:
                    add_promise(held, *parse_promise(line))
                    continue
                if withdrawn.covers(key, sha256):
                    self._taken_out += int(mentions)
                    continue
            places.add(hash(listed))
            self._promises += 1
            self._mentions += int(mentions)

    def settle(self) -> None:
        """Add the tally, once all older promises are taken."""
        for key, promises in self._promised.items():
            live = [each for each in promises if not self._withdrawn.covers(key, each.sha256)]
            mentions = sum(each.mentions for each in live)
            self._taken_out += sum(each.mentions for each in promises) - mentions
            self._mentions += mentions
            self._promises += len(live)
            if len(live) > 1:
                self.contradicted.add(key)
                self._contradictions += len(live) - 1
            elif live:
                self.places.add(hash(place(key, live[0].etag, live[0].size)))
        self.allowed |= self.contradicted
        for image, keys in self._open:
            if self._withdrawn.covers(image.key, image.sha256):
                self._taken_out += 1
            elif any(each.sha256 == image.sha256 for key in keys for each in self._promised[key]):
                self._mentions += 1  # Safe: a done batch brought it as well.
            else:
                self.pending += 1
                self.allowed.update(keys)

    def account(
        self,
        *,
        captured: int,
        rejected: int,
        missing: Collection[str],
        swapped: Collection[str] = (),
        unaccounted: Collection[str] = (),
        unreadable: Collection[str] = (),
    ) -> Account:
        """Return the account, given what was found in the bucket."""
        return Account(
            captured=captured,
            stored=self._promises - self._contradictions - len(missing) - len(swapped),
            duplicates=self._mentions - self._promises,
            rejected=rejected,
            pending=self.pending,
            missing=tuple(sorted(missing)),
            unaccounted=tuple(sorted(unaccounted)),
            withdrawn=self._taken_out,
            swapped=tuple(sorted(swapped)),
            contradicted=tuple(sorted(self.contradicted)),
            unreadable=tuple(sorted(unreadable)),
        )


def place(key: str, etag: str, size: int | str) -> str:
    """Return what must be listed of an object; the ETag without its quotes, which some leave out."""
    return f"{key}\t{etag}\t{size}"


def promise_line(key: str, promise: Promise) -> str:
    """Return a promise as a line: its place, its SHA-256, and how often it was made."""
    return f"{place(key, promise.etag, promise.size)}\t{promise.sha256}\t{promise.mentions}"


def parse_promise(line: str) -> tuple[str, Promise]:
    """Return the key and the promise of a line.

    Raises:
        ValueError: if it is none.

    """
    key, etag, size, sha256, mentions = line.split("\t")
    return key, Promise(sha256, etag, int(size), int(mentions))


def account(
    receipts: Iterable[Receipt], bucket: Collection[str], withdrawn: Withdrawn | None = None
) -> Account:
    """Add up by keys alone, in memory; `caravan.account` does it by contents, for buckets of any size.

    Args:
        receipts: every receipt of the edge, each once; read one at a time.
        bucket: the keys in its data bucket; those outside `images/` are passed over.
        withdrawn: withdrawn contents.

    """
    tally = Tally()
    for receipt in receipts:
        tally.add(receipt)
    withdrawn = withdrawn or Withdrawn()
    expected = Expected(tally.promised, tally.open_images, withdrawn)
    expected.settle()
    promised = {
        key
        for key, promises in tally.promised.items()
        if any(not withdrawn.covers(key, each.sha256) for each in promises)
    }
    there = {key for key in bucket if key.startswith(IMAGES)}
    return expected.account(
        captured=tally.captured,
        rejected=tally.rejected,
        missing=promised - there,
        unaccounted=there - promised - expected.allowed,
    )
