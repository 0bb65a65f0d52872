"""The reference set: images that every version is judged on and none learns from, with labels that stay.

    reference/<model>.json    in `E-models`
    {"schema": 1, "images": {"<SHA-256>": "tea-green", …}}

It grows by images that an accepted version held out, under the class that they had then. What a later batch
says of such an image changes nothing: only an operator does, who edits this file, or withdraws the image. It
is written in one piece, under the condition that nobody else did since it was read; so it is whole whenever a
run is killed, and what was not added is added with the next version.

Of a class that one edge has for itself only labels of its own images count, and in its own model alone. The
others stay, should the class be shared again.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import structlog
from obstore.store import ObjectStore
from pydantic import Field, TypeAdapter, ValidationError

from caravan import s3, strict_json
from caravan.contracts import image_key
from caravan.errors import Permanent
from caravan.names import as_class, cut
from caravan.strict_json import NotJson, faults_of
from caravan.withdrawn import Withdrawn
from training.dataset import Member
from training.holdout import Judged

log = structlog.get_logger()

SCHEMA = 1
MOST = 20_000
MOST_OF_CLASS = 200
MOST_OF_GROUP = 3
"""Most images of a group of near-copies: they say the same, and other places need the room."""

_IMAGES = TypeAdapter(dict[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], str])


@dataclass(frozen=True)
class Reference:
    """The reference set as it was read.

    Attributes:
        labels: the class of each image, by SHA-256.
        etag: ETag of the object; None if there is none yet.

    """

    labels: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None

    def among(self, members: Collection[Member], own: Collection[str] = ()) -> dict[str, str]:
        """Return the labels of those images that are there, under whatever class.

        Args:
            members: the images.
            own: classes that one edge has for itself, see `Stores.own`: their images have to be under them.

        """
        labels = {sha: self.labels[sha] for _, sha in members if sha in self.labels}
        there = {member for member in members if member[0] in own}
        return {sha: name for sha, name in labels.items() if name not in own or (name, sha) in there}


async def read_reference(store: ObjectStore, model: str, withdrawn: Withdrawn) -> Reference:
    """Return the reference set of a model out of `E-models`, without what was withdrawn.

    Raises:
        Transient: if the store is away.
        Permanent: if it cannot be read: an operator has to mend or remove it.

    """
    key = _key(model)
    try:
        raw, etag = await s3.read_with_etag(store, key)
    except FileNotFoundError:
        return Reference()
    labels = await asyncio.to_thread(_labels, key, raw)
    return Reference(
        {sha: name for sha, name in labels.items() if not withdrawn.covers(image_key(name, ""), sha)}, etag
    )


def _labels(key: str, raw: bytes) -> dict[str, str]:
    try:
        body = strict_json.loads_object(raw)
        known, images = body.get("schema") == SCHEMA, _IMAGES.validate_python(body.get("images"))
    except (ValidationError, NotJson) as exc:
        fault = faults_of(exc) if isinstance(exc, ValidationError) else str(exc)
        raise Permanent(cut(f"the reference set {key} cannot be read: mend or remove it: {fault}")) from exc
    if not known:
        raise Permanent(f"the reference set {key} has another schema: mend or remove it")
    return {sha: as_class(name) for sha, name in images.items()}


def grown(labels: Mapping[str, str], judged: Iterable[Judged], own: Collection[str] = ()) -> dict[str, str]:
    """Add the images that an accepted version was judged on, as far as there is room; earlier ones stay.

    Labels of the classes `own` that judged nothing take no room.
    """
    after = dict(labels)
    judged = sorted(judged, key=lambda image: image.sha256)
    of_group = Counter(image.group for image in judged if image.sha256 in labels)
    asked = {image.sha256 for image in judged}
    of_class = Counter(name for sha, name in labels.items() if name not in own or sha in asked)
    most_of_class = min(MOST_OF_CLASS, MOST // max(len({*of_class, *(image.name for image in judged)}), 1))
    for image in judged:
        if (
            image.sha256 not in after
            and of_group[image.group] < MOST_OF_GROUP
            and of_class[image.name] < most_of_class
        ):
            after[image.sha256] = image.name
            of_group[image.group] += 1
            of_class[image.name] += 1
    return after


async def grow(
    store: ObjectStore,
    model: str,
    withdrawn: Withdrawn,
    judged: Iterable[Judged],
    own: Collection[str] = (),
) -> None:
    """Let the reference set grow by what an accepted version was judged on; `own` as in `grown`.

    Raises:
        Transient: if the store is away.
        Permanent: if the set cannot be read.

    """
    reference = await read_reference(store, model, withdrawn)
    body = {"schema": SCHEMA, "images": grown(reference.labels, judged, own)}
    raw = await asyncio.to_thread(lambda: json.dumps(body, indent=0, sort_keys=True).encode())
    if not await s3.replace(store, _key(model), raw, reference.etag):
        log.info("somebody else changed the reference set; it grows with the next version", model=model)


def _key(model: str) -> str:
    return f"reference/{model}.json"
