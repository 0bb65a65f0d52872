"""Models that people sent: what is kept of each in `E-models` until it is judged, and of the verdict.

    uploads/<model>/<SHA-256 of the ZIP>.zip    the ZIP, as it came
    uploads/<model>/<upload>.json               what its sender said, while pending; written after the ZIP
    judged/<model>/<upload>.json                the same, and what became of it; written last, and kept

The id of an upload is the SHA-256 of its ZIP; where class names come with the request, of both, so that the
same model with other names is another upload. One that was rejected and is sent again loses its verdict and
is judged again; one that is ready stays as it is. So `uploads/`, which each training run lists, holds what is
new: a judged ZIP stays there for `ZIP_KEPT` and is then removed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from obstore.store import ObjectStore
from pydantic import TypeAdapter, ValidationError

from caravan import s3, strict_json
from caravan.contracts import UPLOADS
from caravan.errors import Permanent
from caravan.names import cut, is_sha256
from caravan.strict_json import faults_of

SCHEMA = 1
JUDGED = "judged/"
ZIP_KEPT = timedelta(days=30)
_KEY = re.compile(rf"(?:{UPLOADS}|{JUDGED})([^/]+)/([0-9a-f]{{64}})\.(json|verdict\.json|zip)")


def is_upload_id(text: str) -> bool:
    """Tell whether a text can be the id of an upload."""
    return is_sha256(text)


def upload_id(sha256: str, classes: tuple[str, ...]) -> str:
    """Return the id of an upload of a ZIP with class names that came beside it, if any."""
    if not classes:
        return sha256
    return hashlib.sha256("\n".join((sha256, *classes)).encode()).hexdigest()


def zip_key(model: str, sha256: str) -> str:
    """Key of the ZIP."""
    return f"{UPLOADS}{model}/{sha256}.zip"


@dataclass(frozen=True, slots=True)
class Upload:
    """A model that was sent.

    Attributes:
        model: name of the model.
        id: id of the upload.
        sha256: of the ZIP, in hex.
        size: bytes of the ZIP.
        entry: `saved_model.pb` or `model.onnx`.
        classes: names given with it, in the order of the model's outputs; may be empty.
        ignored: number of files in the ZIP that do not belong to the model.
        received: ISO 8601 time, UTC, of the last time that it came to be judged.

    """

    model: str
    id: str
    sha256: str
    size: int
    entry: str
    classes: tuple[str, ...]
    ignored: int
    received: str

    @property
    def key(self) -> str:
        """Where this is kept."""
        return f"{UPLOADS}{self.model}/{self.id}.json"

    def to_json(self) -> bytes:
        """Return the bytes to store."""
        return _to_json(asdict(self))

    @classmethod
    def from_json(cls, raw: bytes) -> Upload:
        """Read what `to_json` made.

        Raises:
            Permanent: if it is something else.

        """
        with _reading("an upload"):
            return _UPLOAD.validate_python(_from_json(raw))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an upload.

    Attributes:
        state: `ready` once it is a version in `E-ready`; `held` while a rollback keeps that version in
            `E-models`; or `rejected`.
        upload: id of the upload.
        version: its number; None if it was rejected.
        classes: class names, the model's own or those given.
        reason: why it was rejected or is held; empty otherwise.
        judged: ISO 8601 time, UTC.

    """

    state: Literal["ready", "held", "rejected"]
    upload: str
    version: int | None
    classes: tuple[str, ...]
    reason: str
    judged: str

    def to_json(self) -> bytes:
        """Return the bytes to store."""
        return _to_json(asdict(self))

    @classmethod
    def from_json(cls, raw: bytes) -> Verdict:
        """Read what `to_json` made.

        Raises:
            Permanent: if it is something else.

        """
        with _reading("a verdict"):
            return _VERDICT.validate_python(_from_json(raw))


_UPLOAD = TypeAdapter(Upload)
_VERDICT = TypeAdapter(Verdict)


async def read_upload(store: ObjectStore, model: str, upload: str) -> Upload | None:
    """Return an upload; None if it is not there."""
    try:
        return Upload.from_json(await s3.read(store, f"{UPLOADS}{model}/{upload}.json"))
    except FileNotFoundError:
        judged = await _read_judged(store, model, upload)
        return None if judged is None else judged[0]


async def read_verdict(store: ObjectStore, upload: Upload) -> Verdict | None:
    """Return the verdict on an upload; None while it is pending."""
    judged = await _read_judged(store, upload.model, upload.id)
    return None if judged is None else judged[1]


async def write_verdict(store: ObjectStore, upload: Upload, verdict: Verdict) -> None:
    """Write a verdict, in place of an earlier one; the upload is pending no longer."""
    both = {"upload": asdict(upload), "verdict": asdict(verdict)}
    await s3.write(store, _judged_key(upload.model, upload.id), _to_json(both))
    await s3.delete(store, [upload.key, _earlier_verdict_key(upload.model, upload.id)])


async def drop_verdict(store: ObjectStore, upload: Upload) -> None:
    """Make an upload, whose ZIP is there, pending again."""
    await s3.delete(store, [_judged_key(upload.model, upload.id)])
    await s3.write(store, upload.key, upload.to_json())


@dataclass(frozen=True, slots=True)
class Listed:
    """An upload as the names of its objects tell of it."""

    model: str
    id: str
    is_judged: bool


async def uploads_of(store: ObjectStore, model: str) -> list[Listed]:
    """Return the uploads of a model, those written first before those written later."""
    written: dict[tuple[str, str], datetime] = {}
    judged: set[tuple[str, str]] = set()
    for prefix in (UPLOADS, JUDGED):
        for entry in await s3.listed(store, f"{prefix}{model}/"):
            match = _KEY.fullmatch(entry["path"])
            if match is not None and match[3] == "json":
                written[model, match[2]] = entry["last_modified"]
                judged |= {(model, match[2])} if prefix == JUDGED else set()
    return [Listed(*name, name in judged) for name in await _in_order(store, written)]


async def pending_uploads(store: ObjectStore) -> list[Listed]:
    """Return the pending uploads of all models, those written first before those written later.

    On the way ZIPs go that are older than `ZIP_KEPT` and for nothing pending; and what earlier versions of
    this module left here is put where it belongs.
    """
    listed = await s3.listed(store, UPLOADS)
    matches = [(match, entry) for entry in listed if (match := _KEY.fullmatch(entry["path"]))]
    earlier = {(match[1], match[2]) for match, _ in matches if match[3] == "verdict.json"}
    for model, upload in earlier:
        await _move(store, model, upload)
    pending = {
        (match[1], match[2]): entry["last_modified"]
        for match, entry in matches
        if match[3] == "json" and (match[1], match[2]) not in earlier
    }
    before = datetime.now(UTC) - ZIP_KEPT
    old = [entry["path"] for match, entry in matches if match[3] == "zip" and entry["last_modified"] < before]
    if old:
        uploads = [await _readable(store, *name) for name in pending]
        needed = {zip_key(upload.model, upload.sha256) for upload in uploads if upload is not None}
        await s3.delete(store, [key for key in old if key not in needed])
    return [Listed(*name, is_judged=False) for name in await _in_order(store, pending)]


async def _in_order(store: ObjectStore, written: Mapping[tuple[str, str], datetime]) -> list[tuple[str, str]]:
    """Return uploads in the order in which they came; within a second, as stores tell it, by `received`."""
    crowded = Counter(written.values())
    received: dict[tuple[str, str], str] = {}
    for name, at in written.items():
        if crowded[at] > 1 and (upload := await _readable(store, *name)) is not None:
            received[name] = upload.received
    return sorted(written, key=lambda name: (written[name], received.get(name, ""), name))


async def _read_judged(store: ObjectStore, model: str, upload: str) -> tuple[Upload, Verdict] | None:
    try:
        raw = await s3.read(store, _judged_key(model, upload))
    except FileNotFoundError:
        return None
    with _reading("a judged upload"):
        body = _from_json(raw)
        return _UPLOAD.validate_python(body["upload"]), _VERDICT.validate_python(body["verdict"])


async def _readable(store: ObjectStore, model: str, upload: str) -> Upload | None:
    try:
        return await read_upload(store, model, upload)
    except Permanent:
        return None


async def _move(store: ObjectStore, model: str, upload: str) -> None:
    kept = await _readable(store, model, upload)
    try:
        verdict = Verdict.from_json(await s3.read(store, _earlier_verdict_key(model, upload)))
    except (Permanent, FileNotFoundError):
        return
    if kept is not None:
        await write_verdict(store, kept, verdict)


def _judged_key(model: str, upload: str) -> str:
    return f"{JUDGED}{model}/{upload}.json"


def _earlier_verdict_key(model: str, upload: str) -> str:
    return f"{UPLOADS}{model}/{upload}.verdict.json"


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Say of bytes that are something else that they are not `what`."""
    try:
        yield
    except ValidationError as exc:
        raise Permanent(cut(f"not {what}: {faults_of(exc)}")) from exc
    except (ValueError, KeyError) as exc:
        raise Permanent(f"not {what}: {exc}") from exc


def _to_json(body: dict[str, Any]) -> bytes:
    return json.dumps({"schema": SCHEMA, **body}, indent=1, ensure_ascii=False).encode()


def _from_json(raw: bytes) -> dict[str, Any]:
    body = strict_json.loads_object(raw)
    if body.pop("schema") != SCHEMA:
        raise ValueError("another schema")
    return body
