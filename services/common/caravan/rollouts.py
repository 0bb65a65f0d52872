"""Rollouts, kept where all at central see them.

rollouts/<model>.json    in `G-models`: how far the newest version has come, and what keeps it there
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from obstore.store import ObjectStore
from pydantic import TypeAdapter, ValidationError

from caravan import s3, strict_json
from caravan.errors import Permanent, Transient
from caravan.names import cut
from caravan.rollout import SCHEMA, Order, Rollout
from caravan.strict_json import NotJson, faults_of

ROLLOUTS = "rollouts/"
ATTEMPTS = 5

_ROLLOUT = TypeAdapter(Rollout)


async def read(store: ObjectStore, model: str) -> tuple[Rollout | None, str | None]:
    """Return the newest rollout of a model, given `G-models`, and its ETag; None where there was none.

    Raises:
        Transient: if the store is away.
        Permanent: if what is there is no rollout; nothing goes on then.

    """
    key = _key(model)
    try:
        raw, etag = await s3.read_with_etag(store, key)
    except FileNotFoundError:
        return None, None
    try:
        body = strict_json.loads_object(raw)
        known = body.pop("schema", None) == SCHEMA
        found = _ROLLOUT.validate_python(body)
    except (ValidationError, NotJson) as exc:
        fault = faults_of(exc) if isinstance(exc, ValidationError) else str(exc)
        raise Permanent(cut(f"{key} is no rollout; remove it to begin anew: {fault}")) from exc
    if not known:
        raise Permanent(f"{key} has another schema; remove it to begin anew")
    return found, etag


async def write(store: ObjectStore, model: str, rollout: Rollout, etag: str | None) -> bool:
    """Write a rollout in place of the one that had this ETag (None: of none); tell whether it was there."""
    body = json.dumps({"schema": SCHEMA, **asdict(rollout)}).encode()
    return await s3.replace(store, _key(model), body, etag)


async def models(store: ObjectStore) -> list[str]:
    """Return the models of which there is a rollout."""
    keys = [entry["path"] async for entry in s3.listing(store, ROLLOUTS)]
    return [key.removeprefix(ROLLOUTS).removesuffix(".json") for key in keys]


async def order(store: ObjectStore, model: str, what: Order, edges: Sequence[str], why: str = "") -> Rollout:
    """Do with a rollout what a person says, and return it. What edges are offered is up to who shares it.

    Args:
        store: `G-models`.
        model: its name.
        what: to do.
        edges: of the group, in their order.
        why: what is noted with it.

    Raises:
        Permanent: if there is none, or it is over.
        Transient: if the store is away, or others change it again and again.

    """
    said = f"a person said so: {why}" if why else "a person said so"
    for _ in range(ATTEMPTS):
        found, etag = await read(store, model)
        if found is None:
            raise Permanent(f"there is no rollout of {model}")
        changed = found.ordered(what, edges, said)
        if await write(store, model, changed, etag):
            return changed
    raise Transient(f"others change the rollout of {model} at the same time, again and again")


def _key(model: str) -> str:
    return f"{ROLLOUTS}{model}.json"
