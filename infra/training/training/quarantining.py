"""Keeps back what the version that serves contradicts: FROM new images → its answers → TO the quarantine."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from caravan import times
from caravan.account import each_receipt
from caravan.concurrency import for_each
from caravan.contracts import Event, class_of, quarantine_event
from caravan.errors import Permanent
from caravan.names import cut
from caravan.quarantine import Quarantined, forget_pictures, put_in_quarantine, read_quarantine
from caravan.receipts import Receipt
from caravan.withdrawn import Withdrawn, read_withdrawn_batches
from training import parent as parents
from training.dataset import Dataset, Member
from training.embeddings import BACKBONE, Embedded
from training.head import Head
from training.inspection import Batch, Contradiction, contradictions, doubtful, sure_answers
from training.stores import EDGES_AT_ONCE, Stores
from training.templates import render
from training.thumbnails import data_url

log = structlog.get_logger()

MOST_PICTURES = 24
"""Most pictures of each contradiction on the page."""
PICTURE_SIDE = 160
NOWHERE = ("", "")
UNLISTED = "unlisted-"
"""Prefix of a batch's name whose images have no receipt."""

Embed = Callable[[Sequence[Member]], Embedded]


async def without_quarantined(stores: Stores, dataset: Dataset, withdrawn: Withdrawn) -> Dataset:
    """Leave out what waits for a person, and remove the pages that may show what was withdrawn."""
    held: list[Quarantined] = []

    async def look(source: Stores) -> None:
        found = await read_quarantine(source.data)
        await forget_pictures(source.data, found, withdrawn)
        # An image of a withdrawn batch stays if another batch brought it too, and belongs to that one.
        gone = await read_withdrawn_batches(source.data)
        held.extend(each for each in found if each.state == "held" and each.batch not in gone)

    await for_each(stores.sources, look, at_once=EDGES_AT_ONCE)
    return dataset.without(image for each in held for image in each.images)


async def keep_back(
    stores: Stores,
    model: str,
    dataset: Dataset,
    embed: Embed,
    *,
    path: Callable[[str], Path],
    announce: Callable[[Event], None],
) -> Dataset:
    """Put what the version that serves contradicts into quarantine, and return the dataset without it.

    It is asked about images that it has not seen, if they are in the sample or in another class as well. What
    somebody released is left alone: whole batches, and each of their images in another batch. A version of
    another backbone is not asked: it may be anyone's. What other edges of its group send is not for the
    version of one edge to keep back.

    Args:
        stores: the edge's buckets.
        model: name of the model.
        dataset: without what is in quarantine already.
        embed: embeds members, mostly from the cache; called in a thread.
        path: returns an image's file, given its SHA-256.
        announce: sends an event.

    Raises:
        Transient: if a store is away.

    """
    head = await _head(stores, model)
    if head is None:
        return dataset
    new = await _to_be_asked(stores, model, dataset)
    members, answers = await asyncio.to_thread(_answers, head, new, embed)
    labels = doubtful(members, answers)
    if not labels:
        return dataset
    batches = await _batches(stores, dataset, sorted(member for member in members if member[0] in labels))
    released, confirmed = await _released(stores)
    asked = [place for place, member in enumerate(members) if member not in confirmed]
    members, answers = [members[i] for i in asked], [answers[i] for i in asked]
    of_batch: defaultdict[Batch, list[Contradiction]] = defaultdict(list)
    for each in contradictions(members, [batches.get(member, NOWHERE) for member in members], answers):
        if each.batch not in released:
            of_batch[each.batch].append(each)
    for batch, several in of_batch.items():
        await _put(stores, batch, several, path, announce)
    return dataset.without(member for several in of_batch.values() for member in _members(several))


async def _to_be_asked(stores: Stores, model: str, dataset: Dataset) -> list[Member]:
    seen = await parents.seen(stores, model) or {}
    sample, contradictory = dataset.sample, dataset.contradictory
    return [
        member
        for member in dataset.members
        if member not in seen
        and (member in sample or member[1] in contradictory)
        and (stores.members or dataset.edges.get(member[1], stores.edge) == stores.edge)
    ]


async def _released(stores: Stores) -> tuple[set[Batch], set[Member]]:
    """Return the batches that somebody released, and all of their images that were in quarantine."""
    batches: set[Batch] = set()
    images: set[Member] = set()

    async def look(source: Stores) -> None:
        for each in await read_quarantine(source.data):
            if each.state == "released":
                batches.add((source.edge, each.batch))
                images.update(each.images)

    await for_each(stores.sources, look, at_once=EDGES_AT_ONCE)
    return batches, images


async def _put(
    stores: Stores,
    of: Batch,
    several: Sequence[Contradiction],
    path: Callable[[str], Path],
    announce: Callable[[Event], None],
) -> None:
    """Put the contradictions of one batch into quarantine, with a page that shows them, and tell."""
    edge, batch = of
    page = await asyncio.to_thread(_page, edge, batch, several, path)
    images = _members(several)
    reason = cut("; ".join(each.reason for each in several))
    now = times.now("milliseconds")
    (data,) = (source.data for source in stores.sources if source.edge == edge)
    await put_in_quarantine(data, Quarantined(batch, reason, now, images), page)
    log.warning("batch in quarantine", edge=edge, batch=batch, images=len(images), reason=reason)
    announce(quarantine_event(batch, len(images), reason) | ({"edge": edge} if stores.members else {}))


def _members(several: Iterable[Contradiction]) -> tuple[Member, ...]:
    return tuple(sorted(member for each in several for member in each.members))


async def _head(stores: Stores, model: str) -> Head | None:
    try:
        return await parents.head(stores.ready, model, BACKBONE)
    except Permanent as exc:
        log.warning("new images are not inspected", edge=stores.edge, error=str(exc))
        return None


def _answers(head: Head, new: Sequence[Member], embed: Embed) -> tuple[list[Member], list[str | None]]:
    """Return those images that can be read, and what `sure_answers` says of them."""
    features = embed(new).features
    members = [member for member in new if member[1] in features]
    if not members:
        return [], []
    probabilities = head.probabilities(np.stack([features[sha] for _, sha in members]))
    return members, sure_answers(members, probabilities, head.names)


async def _batches(stores: Stores, dataset: Dataset, members: Sequence[Member]) -> dict[Member, Batch]:
    """Return the newest batch of each image under its class that is not withdrawn; the rest form one, too."""
    digest = hashlib.sha256("".join(sha for _, sha in members).encode()).hexdigest()
    unlisted = f"{UNLISTED}{digest[:12]}"
    found = {member: ("", (dataset.edges.get(member[1], stores.edge), unlisted)) for member in members}

    def take(edge: str, gone: frozenset[str], receipt: Receipt) -> None:
        for image in receipt.images if receipt.batch not in gone else ():
            member = class_of(image.key), image.sha256
            if member in found:
                found[member] = max(found[member], (receipt.received, (edge, receipt.batch)))

    async def look(source: Stores) -> None:
        gone = await read_withdrawn_batches(source.data)
        await each_receipt(source.data, partial(take, source.edge, gone))

    await for_each(stores.sources, look, at_once=EDGES_AT_ONCE)
    return {member: batch for member, (_, batch) in found.items()}


def _page(edge: str, batch: str, several: Sequence[Contradiction], path: Callable[[str], Path]) -> bytes:
    page = render(
        "quarantine.html.j2",
        edge=edge,
        batch=batch,
        contradictions=several,
        is_listed=not batch.startswith(UNLISTED),
        most=MOST_PICTURES,
        picture=lambda sha: data_url(path(sha), PICTURE_SIDE),
    )
    return page.encode()
