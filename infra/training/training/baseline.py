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
from training.quarantining import without_quarantined
from training.reference import Reference, read_reference
from training.steps import Run


@dataclass(frozen=True)
class Baseline:
    """What an uploaded model is compared with.

    Attributes:
        parent: the version that serves now, and its answers on the held-out images.
        out: those images.

    """

    parent: Against
    out: HeldOut


async def baseline(run: Run) -> Baseline | None:
    """Ask the parent; None where there is no parent, none that answers, or nothing held out.

    Raises:
        Transient: if a store is away.
        Permanent: if the reference set cannot be read.

    """
    try:
        parent = await parents.newest(run.stores.ready, run.settings.model_name, BACKBONE)
    except Permanent:
        return None  # As for a trained version: a parent that cannot answer holds nobody up.
    if parent is None:
        return None
    dataset = await acquire(run.stores, run.images, lambda *_: None)
    withdrawn = await run.stores.withdrawn()
    dataset = await without_quarantined(run.stores, dataset, withdrawn)
    reference = await read_reference(run.stores.models, run.settings.model_name, withdrawn)
    learnt = await parents.learnt(run.stores, run.settings.model_name)
    try:
        out = await asyncio.to_thread(_held_out, run, dataset, reference, learnt)
        if not out.judged:
            return None
        answers = await parents.ask(parent, out, run.settings.trial_seconds)
    except Permanent:
        return None
    return Baseline(Against(parent.version, answers), out)


def _held_out(run: Run, dataset: Dataset, reference: Reference, learnt: frozenset[str] | None) -> HeldOut:
    kept = reference.among(dataset.members, run.stores.own)
    images = {sha: run.images.path(sha) for sha in (*(sha for _, sha in dataset.usable()), *kept)}
    embedded = embed(images, EmbeddingCache(run.settings.cache_dir), run.embedder, lambda *_: None)
    division = divide(dataset.usable(embedded.unreadable), embedded.features, kept, learnt)
    return HeldOut.of(division.held_out, embedded, run.images.path)
