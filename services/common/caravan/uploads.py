"""Models that people sent: what is kept of each in `E-models` until it is judged, and of the verdict.

    uploads/<model>/<SHA-256 of the ZIP>.zip    the ZIP, as it came
    uploads/<model>/<upload>.json               what its sender said; written after the ZIP
    uploads/<model>/<upload>.verdict.json       what became of it; written last

The id of an upload is the SHA-256 of its ZIP; where class names come with the request, of both, so that the
same model with other names is another upload. An upload is pending until there is a verdict on it. One that
was rejected and is sent again loses its verdict and is judged again; one that is ready stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from obstore.store import ObjectStore
from pydantic import TypeAdapter, ValidationError

from caravan import s3, strict_json
from caravan.contracts import UPLOADS
from caravan.errors import Permanent
from caravan.names import cut
from caravan.strict_json import faults_of

SCHEMA = 1
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(rf"{UPLOADS}([^/]+)/([0-9a-f]{{64}})(\.verdict)?\.json")


def is_upload_id(text: str) -> bool:
    """Tell whether a text can be the id of an upload."""
    return _HEX_SHA256.fullmatch(text) is not None


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
        id: of the upload.
        sha256: of the ZIP, in hex.
        size: bytes of the ZIP.
        entry: `saved_model.pb` or `model.onnx`.
        classes: names given with it, in the order of the model's outputs; may be empty.
        ignored: how many files of the ZIP do not belong to the model.
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
        try:
            return _UPLOAD.validate_python(_from_json(raw))
        except ValidationError as exc:
            raise Permanent(cut(f"not an upload: {faults_of(exc)}")) from exc
        except (ValueError, KeyError) as exc:
            raise Permanent(f"not an upload: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an upload.

    Attributes:
        state: `ready` once it is a version in `E-ready`, or `rejected`.
        upload: id of the upload.
        version: its number; None if it was rejected.
        classes: class names, the model's own or those given.
        reason: why it was rejected; empty otherwise.
        judged: ISO 8601 time, UTC.

    """

    state: Literal["ready", "rejected"]
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
        try:
            return _VERDICT.validate_python(_from_json(raw))
        except ValidationError as exc:
            raise Permanent(cut(f"not a verdict: {faults_of(exc)}")) from exc
        except (ValueError, KeyError) as exc:
            raise Permanent(f"not a verdict: {exc}") from exc


_UPLOAD = TypeAdapter(Upload)
_VERDICT = TypeAdapter(Verdict)


async def read_upload(store: ObjectStore, model: str, upload: str) -> Upload | None:
    """Return an upload; None if it is not there."""
    try:
        return Upload.from_json(await s3.read(store, f"{UPLOADS}{model}/{upload}.json"))
    except FileNotFoundError:
        return None


async def read_verdict(store: ObjectStore, upload: Upload) -> Verdict | None:
    """Return the verdict on an upload; None while it is pending."""
    try:
        return Verdict.from_json(await s3.read(store, _verdict_key(upload)))
    except FileNotFoundError:
        return None


async def write_verdict(store: ObjectStore, upload: Upload, verdict: Verdict) -> None:
    """Write a verdict, in place of an earlier one."""
    await s3.write(store, _verdict_key(upload), verdict.to_json())


async def drop_verdict(store: ObjectStore, upload: Upload) -> None:
    """Make an upload pending again."""
    await s3.delete(store, [_verdict_key(upload)])


@dataclass(frozen=True, slots=True)
class Listed:
    """An upload as the names of its objects tell of it."""

    model: str
    id: str
    is_judged: bool


async def uploads_of(store: ObjectStore, model: str | None = None) -> list[Listed]:
    """Return the uploads of one model, or of all, those written first before those written later."""
    written: dict[tuple[str, str], datetime] = {}
    judged: set[tuple[str, str]] = set()
    async for entry in s3.listing(store, UPLOADS if model is None else f"{UPLOADS}{model}/"):
        match = _KEY.fullmatch(entry["path"])
        if match is None:
            continue
        name = (match[1], match[2])
        if match[3]:
            judged.add(name)
        else:
            written[name] = entry["last_modified"]
    return [Listed(*name, name in judged) for name in sorted(written, key=lambda name: (written[name], name))]


def _verdict_key(upload: Upload) -> str:
    return f"{UPLOADS}{upload.model}/{upload.id}.verdict.json"


def _to_json(body: dict[str, Any]) -> bytes:
    return json.dumps({"schema": SCHEMA, **body}, indent=1, ensure_ascii=False).encode()


def _from_json(raw: bytes) -> dict[str, Any]:
    body = strict_json.loads_object(raw)
    if body.pop("schema") != SCHEMA:
        raise ValueError("another schema")
    return body
