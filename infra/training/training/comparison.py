"""For a model that is sent under the trained model's name: the parent, asked about the held-out images."""

import asyncio
from dataclasses import dataclass

from caravan.errors import Permanent
from training import parent as parents
from training.acquire import acquire
from training.dataset import Dataset
from training.embeddings import BACKBONE, EmbeddingCache, embed
from training.gate import Against
from training.holdout import HeldOut, divide
from training.steps import Run


@dataclass(frozen=True)
class Comparison:
    """What a version has to stand up to.

    Attributes:
        parent: the version that serves now, and its answers on the held-out images.
        out: those images.

    """

    parent: Against
    out: HeldOut


async def comparison(run: Run) -> Comparison | None:
    """Ask the parent; None where there is no parent, none that answers, or nothing held out.

    Raises:
        Transient: if a store is away.

    """
    try:
        parent = await parents.newest(run.stores.ready, run.settings.model_name, BACKBONE)
        if parent is None:
            return None
        dataset = await acquire(run.stores.data, run.images, run.edge, lambda *_: None)
        out = await asyncio.to_thread(_held_out, run, dataset)
        if out is None:
            return None
        answers = await parents.ask(parent, out, run.settings.trial_seconds)
    except Permanent:
        return None  # As for a trained version: a parent that cannot answer holds nobody up.
    return Comparison(Against(parent.version, answers), out)


def _held_out(run: Run, dataset: Dataset) -> HeldOut | None:
    members = dataset.usable()
    images = {sha: run.images.path(sha) for _, sha in members}
    embedded = embed(images, EmbeddingCache(run.settings.cache_dir), run.embedder, lambda *_: None)
    members = dataset.usable(embedded.unreadable)
    division = divide(members, embedded.features)
    out = HeldOut.of(members, division.held_out, embedded.features, run.images.path)
    return out if out.members else None
