"""What this edge has learned about versions, kept across restarts: which served, were refused, are trusted.

Each fact is one small object, `served/<model>/<version>.json`, `rejected/<model>/<version>.json`, or
`trusted/<model>.json`, beside the models: in the sink bucket, or in `<sink directory>/.caravan`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import structlog
from obstore.store import ObjectStore

from caravan import s3, strict_json, times
from edge_manager.versions import Ref, Refused

log = structlog.get_logger()

_SERVED, _REJECTED, _TRUSTED = "served", "rejected", "trusted"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version was refused, and the fingerprint that it had then; `at` is ISO 8601, UTC."""

    fingerprint: str
    cause: str
    reason: str
    at: str
    may_pass: bool = False


class Records:
    """The facts in a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def load(self) -> tuple[dict[Ref, datetime], dict[Ref, Refusal], dict[str, int]]:
        """Return since when versions have served, UTC, which were refused, and by model which is trusted.

        A record that cannot be read is passed over, and so made anew.
        """
        served = {ref: since async for ref, _, since in self._keys(_SERVED)}
        refused = {}
        async for ref, key, _ in self._keys(_REJECTED):
            try:
                refused[ref] = Refusal(**strict_json.loads_object(await s3.read(self._store, key)))
            except (ValueError, TypeError, FileNotFoundError) as exc:
                log.warning("record not readable", key=key, error=repr(exc))
        trusted = {}
        async for entry in s3.listing(self._store, f"{_TRUSTED}/"):
            try:
                told = strict_json.loads_object(await s3.read(self._store, entry["path"]))
                trusted[str(told["model"])] = int(told["version"])
            except (ValueError, TypeError, KeyError, FileNotFoundError) as exc:
                log.warning("record not readable", key=entry["path"], error=repr(exc))
        return served, refused, trusted

    async def trust(self, ref: Ref) -> None:
        """Remember which version of a model the shopper trusts."""
        told = {"model": ref.model, "version": ref.version}
        await s3.write(self._store, f"{_TRUSTED}/{ref.model}.json", json.dumps(told).encode())

    async def refuse(self, ref: Ref, fingerprint: str, refused: Refused) -> Refusal:
        """Remember a refusal."""
        now = times.now()
        refusal = Refusal(fingerprint, refused.cause, refused.reason, now, refused.may_pass)
        await s3.write(self._store, _key(_REJECTED, ref), json.dumps(asdict(refusal), indent=1).encode())
        return refusal

    async def forget_refusal(self, ref: Ref) -> None:
        """Forget a refusal: the version has changed, is to be tried again, or is long past."""
        await s3.delete(self._store, [_key(_REJECTED, ref)])

    async def serve(self, ref: Ref) -> datetime:
        """Remember that a version has answered here; return since when, UTC."""
        await s3.write(self._store, _key(_SERVED, ref), b"{}")
        return datetime.now(UTC)

    async def forget_served(self, ref: Ref) -> None:
        """Forget that a version has answered, because it is no longer here."""
        await s3.delete(self._store, [_key(_SERVED, ref)])

    async def _keys(self, kind: str) -> AsyncIterator[tuple[Ref, str, datetime]]:
        async for entry in s3.listing(self._store, f"{kind}/"):
            match = re.fullmatch(rf"{kind}/([^/]+)/([0-9]+)\.json", entry["path"])
            if match is not None:
                yield Ref(match[1], int(match[2])), entry["path"], entry["last_modified"].astimezone(UTC)


def _key(kind: str, ref: Ref) -> str:
    return f"{kind}/{ref.model}/{ref.version}.json"
