"""What this edge has learned about versions, kept across restarts: which served here, which were refused.

Each fact is one small object, `served/<model>/<version>.json` or `rejected/<model>/<version>.json`, beside
the models: in the sink bucket, or in `<sink directory>/.caravan`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import structlog
from obstore.store import ObjectStore

from caravan import s3, strict_json
from edge_manager.versions import Ref, Refused

log = structlog.get_logger()

KEPT = 20
"""Refusals of versions that nobody will ask for again, for people to read."""
_SERVED, _REJECTED = "served", "rejected"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version was refused, and the fingerprint that it had then; `at` is ISO 8601, UTC."""

    fingerprint: str
    cause: str
    reason: str
    at: str
    may_pass: bool = False


class Records:
    """The facts, in memory and in a store; written to the store first."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._served: dict[Ref, datetime] = {}
        self._refused: dict[Ref, Refusal] = {}

    async def load(self) -> None:
        """Read what was learned before; a record that cannot be read is passed over, and so made anew."""
        self._served = {ref: since async for ref, _, since in self._keys(_SERVED)}
        refused = {}
        async for ref, key, _ in self._keys(_REJECTED):
            try:
                refused[ref] = Refusal(**strict_json.loads_object(await s3.read(self._store, key)))
            except (ValueError, TypeError, FileNotFoundError) as exc:
                log.warning("record not readable", key=key, error=repr(exc))
        self._refused = refused

    @property
    def refused(self) -> dict[Ref, Refusal]:
        """The versions refused."""
        return dict(self._refused)

    def has_served(self, ref: Ref) -> bool:
        """Tell whether a version has once answered here."""
        return ref in self._served

    def served_since(self, ref: Ref) -> datetime | None:
        """Tell when a version first answered here, UTC; None if it has not."""
        return self._served.get(ref)

    async def refuse(self, ref: Ref, fingerprint: str, refused: Refused) -> None:
        """Remember a refusal."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        refusal = Refusal(fingerprint, refused.cause, refused.reason, now, refused.may_pass)
        await s3.write(self._store, _key(_REJECTED, ref), json.dumps(asdict(refusal), indent=1).encode())
        self._refused[ref] = refusal

    async def reconsider(self, ref: Ref) -> None:
        """Forget a refusal, because the version has changed, or is to be tried again."""
        if ref in self._refused:
            await s3.delete(self._store, [_key(_REJECTED, ref)])
            del self._refused[ref]

    async def forget(self, serving: Ref) -> None:
        """Forget refusals of versions older than the one that serves, but for the newest of them."""
        old = sorted(ref for ref in self._refused if ref.model == serving.model and ref < serving)
        for ref in old[:-KEPT]:
            await self.reconsider(ref)

    async def serves(self, ref: Ref) -> None:
        """Remember that a version has answered here."""
        if ref not in self._served:
            await s3.write(self._store, _key(_SERVED, ref), b"{}")
            self._served[ref] = datetime.now(UTC)

    async def gone(self, ref: Ref) -> None:
        """Forget that a version has answered, because it is no longer here."""
        if ref in self._served:
            await s3.delete(self._store, [_key(_SERVED, ref)])
            del self._served[ref]

    async def _keys(self, kind: str) -> AsyncIterator[tuple[Ref, str, datetime]]:
        async for entry in s3.listing(self._store, f"{kind}/"):
            match = re.fullmatch(rf"{kind}/([^/]+)/([0-9]+)\.json", entry["path"])
            if match is not None:
                yield Ref(match[1], int(match[2])), entry["path"], entry["last_modified"].astimezone(UTC)


def _key(kind: str, ref: Ref) -> str:
    return f"{kind}/{ref.model}/{ref.version}.json"
