"""For a model that is sent under the trained model's name: the parent, asked about the held-out images."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caravan.errors import Permanent
from training import parent as parents
from training.acquire import acquire
from training.dataset import Dataset, Member
from training.embeddings import BACKBONE, EmbeddingCache, embed
from training.evaluate import evaluate, held_out
from training.steps import Run


@dataclass(frozen=True)
class Comparison:
    """What a version has to stand up to.

    Attributes:
        parent: the version that serves now.
        accuracy: its accuracy on the held-out images.
        members: (class, SHA-256) of each of those.
        files: where each of them is, in the same order.

    """

    parent: int
    accuracy: float
    members: tuple[Member, ...]
    files: tuple[Path, ...]


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
        return await asyncio.to_thread(_asked, run, parent, dataset)
    except Permanent:
        return None  # As for a trained version: a parent that cannot answer holds nobody up.


def _asked(run: Run, parent: parents.Parent, dataset: Dataset) -> Comparison | None:
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
    before = evaluate(parents.ask(parent, asked, features, files)).accuracy
    return Comparison(parent.version, before, tuple(asked), files)
