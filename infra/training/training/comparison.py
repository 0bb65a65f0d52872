"""For a model that is sent under the trained model's name: the parent, asked about the held-out images."""

import asyncio
from dataclasses import dataclass

import numpy as np

from caravan.errors import Permanent
from training import parent as parents
from training.acquire import acquire
from training.dataset import Dataset
from training.embeddings import BACKBONE, EmbeddingCache, embed
from training.evaluate import evaluate, held_out
from training.steps import Run


@dataclass(frozen=True)
class Comparison:
    """What a version has to stand up to.

    Attributes:
        parent: the version that serves now.
        accuracy: its accuracy on the held-out images.
        out: those images.

    """

    parent: int
    accuracy: float
    out: parents.HeldOut


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
        before = evaluate(await parents.ask(parent, out, run.settings.trial_seconds))
    except Permanent:
        return None  # As for a trained version: a parent that cannot answer holds nobody up.
    return Comparison(parent.version, before.accuracy, out)


def _held_out(run: Run, dataset: Dataset) -> parents.HeldOut | None:
    members = dataset.usable()
    out = held_out(members)
    asked = [member for member in members if member[1] in out]
    images = {sha: run.images.path(sha) for _, sha in asked}
    embedded = embed(images, EmbeddingCache(run.settings.cache_dir), run.embedder, lambda *_: None)
    asked = [member for member in asked if member[1] not in embedded.unreadable]
    if not asked:
        return None
    files = tuple(images[sha] for _, sha in asked)
    features = np.stack([embedded.features[sha] for _, sha in asked])
    return parents.HeldOut(tuple(asked), features, files)
