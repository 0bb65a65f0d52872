"""Rollbacks that hold: while one does, no other version of the model goes to `E-ready`.

    holds/<model>.json    in `E-models`; written before the version that is rolled back to has its number

Whoever brings a version to `E-ready` looks here after that version has its number and its manifest. So a
version with a number above that of the rollback meets the hold; and one that met it is found by the release,
which looks for versions once the hold is gone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from obstore.store import ObjectStore
from pydantic import TypeAdapter, ValidationError

from caravan import s3, strict_json, times
from caravan.errors import Permanent, Transient
from caravan.names import cut
from caravan.strict_json import NotJson, faults_of

SCHEMA = 1
HOLDS = "holds/"

State = Literal["held", "releasing", "released"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A rollback that an operator ordered.

    Attributes:
        to: the version whose files serve again.
        since: ISO 8601 time, UTC.
        state: `held`; `releasing` while what was held back is brought to `E-ready`; then `released`.

    """

    to: int
    since: str
    state: State = "held"

    @property
    def reason(self) -> str:
        """Why a version is held back, in words."""
        return (
            f"held since {self.since}: an operator rolled back to version {self.to}; "
            "the command `release` lets newer versions through"
        )


_HOLD = TypeAdapter(Hold)


async def read_hold(store: ObjectStore, model: str) -> Hold | None:
    """Return the hold on a model, given the edge's `E-models`; None where none holds.

    Raises:
        Transient: if the store is away.
        Permanent: if what is there is no hold: nothing is let through.

    """
    found, _ = await _read(store, model)
    return found if found is not None and found.state == "held" else None


async def hold(store: ObjectStore, model: str, to: int) -> None:
    """Hold a model at a version, in place of an earlier hold; a repeat changes nothing."""
    try:
        found, _ = await _read(store, model)
    except Permanent:
        found = None
    if found is None or (found.to, found.state) != (to, "held"):
        held = Hold(to, times.now())
        await s3.write(store, _key(model), _to_json(held))


async def begin_release(store: ObjectStore, model: str) -> Hold:
    """Let versions through again; return the hold, which `end_release` ends.

    Raises:
        Permanent: if there is no hold.
        Transient: if the store is away, or somebody else changes the hold.

    """
    found, etag = await _read(store, model)
    if found is None or found.state == "released":
        raise Permanent(f"no rollback of {model} is held: there is nothing to release")
    releasing = replace(found, state="releasing")
    if found != releasing and not await s3.replace(store, _key(model), _to_json(releasing), etag):
        raise Transient(f"somebody else changes the hold on {model}")
    return releasing


async def end_release(store: ObjectStore, model: str, releasing: Hold) -> None:
    """Note that what was held back is released. A rollback that came meanwhile stays.

    Raises:
        Transient: if the store is away.

    """
    found, etag = await _read(store, model)
    if found == releasing:
        await s3.replace(store, _key(model), _to_json(replace(found, state="released")), etag)


async def _read(store: ObjectStore, model: str) -> tuple[Hold | None, str | None]:
    try:
        raw, etag = await s3.read_with_etag(store, _key(model))
    except FileNotFoundError:
        return None, None
    try:
        body = strict_json.loads_object(raw)
        known = body.pop("schema", None) == SCHEMA
        found = _HOLD.validate_python(body)
    except (ValidationError, NotJson) as exc:
        fault = faults_of(exc) if isinstance(exc, ValidationError) else str(exc)
        raise Permanent(cut(f"{_key(model)} is no hold; a rollback writes it anew: {fault}")) from exc
    if not known:
        raise Permanent(f"{_key(model)} has another schema; a rollback writes it anew")
    return found, etag


def _key(model: str) -> str:
    return f"{HOLDS}{model}.json"


def _to_json(held: Hold) -> bytes:
    return json.dumps({"schema": SCHEMA, **asdict(held)}, sort_keys=True).encode()
