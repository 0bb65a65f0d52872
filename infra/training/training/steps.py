"""The four steps, each from what the one before left in the workspace; each may be run again at any time."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog

from caravan import model_index, tracing
from caravan.contracts import HEAD, Event
from caravan.errors import CaravanError, Permanent, Transient
from caravan.files import write_file
from caravan.manifest import Lineage
from caravan.members import write_members
from caravan.names import cut
from training import parent as parents
from training.acquire import ImageCache, acquire
from training.dataset import Dataset, Member
from training.embeddings import BACKBONE, Embedded, EmbeddingCache, embed
from training.evaluate import Evaluation, answers_of, evaluate
from training.exporter import Exporter
from training.fit import fit
from training.gate import Against, gate
from training.head import Head
from training.holdout import HeldOut, divide
from training.made import made_with
from training.publish import Begun, Published, announce_outcome, begin, publish, read_key
from training.quarantining import keep_back, without_quarantined
from training.reference import Reference, grow, read_reference
from training.report import Facts, Material, write_report
from training.retention import keep_newest
from training.rolling import go_back
from training.samples import gather
from training.settings import TrainingSettings
from training.settled import settle_data
from training.sharing import share
from training.stores import Stores
from training.views import views_of
from training.workspace import Acquired, Evaluated, Settled, Trained, Workspace

if TYPE_CHECKING:
    from training.embedder import Embedder

log = structlog.get_logger()

SMOKE_IMAGES = 4


class Progress(Protocol):
    """Told how far a step is, 0..1; may be called from any thread."""

    def __call__(self, stage: str, fraction: float, /) -> None:
        """Take note."""


@dataclass(frozen=True)
class Run:
    """What every step needs.

    Attributes:
        embedder: makes, or has ready, what turns files into embeddings.
        exporter: writes and tries SavedModels.
        progress: told how far a step is; from any thread.
        announce: sends an event on Kafka `E`, best effort, without waiting.
        id: the run's, as its events have it; None if it has none.

    """

    settings: TrainingSettings
    edge: str
    stores: Stores
    workspace: Workspace
    embedder: "Callable[[], Embedder]"
    exporter: Exporter
    progress: Progress
    announce: Callable[[Event], None]
    id: str | None = None

    @property
    def images(self) -> ImageCache:
        """The images on disk."""
        return ImageCache(self.settings.cache_dir)

    def counter(self, stage: str) -> Callable[[int, int], None]:
        """Return progress as `(done, of)`."""
        return lambda done, of: self.progress(stage, done / max(of, 1))


async def share_step(run: Run) -> None:
    """FROM `G-ready` → TO each member's `E-ready`: what the group has, as far as its rollout has come."""
    key = read_key(run.settings.signing_key)
    for model in await model_index.models(run.stores.ready) if run.stores.members else ():
        await go_back(run.stores, model, key)
        await share(run.stores, model, key, run.announce)


async def retain_step(run: Run) -> None:
    """FROM `E-models`, `E-ready` → the oldest versions beyond RETAIN_VERSIONS are removed: best effort."""
    try:
        for model in await model_index.models(run.stores.models):
            await keep_newest(run.stores, model, run.settings.retain_versions)
    except (CaravanError, FileNotFoundError) as exc:
        log.warning("old versions stay until the next run", edge=run.edge, error=str(exc))


async def acquire_step(run: Run, *, again: bool = False) -> Acquired:
    """FROM `E-data` → every image once → TO the cache, the quarantine and `dataset.json`.

    If a complete version has this data already, its fate is settled: one that passed is brought to `E-ready`,
    unless it serves or a rollback holds. Else what the version that serves contradicts goes into quarantine.
    """
    with tracing.span("acquire"):
        dataset = await acquire(run.stores, run.images, run.counter("acquire"))
        withdrawn = await run.stores.withdrawn()
        gone = withdrawn.gone({sha for _, sha in dataset.members})
        await asyncio.to_thread(EmbeddingCache(run.settings.cache_dir).forget, run.edge, gone)
        tracing.note(images=len(dataset.members))
        dataset = await without_quarantined(run.stores, dataset, withdrawn)
        settled = await _settled(run, dataset, again=again)
        if settled is None:
            inspected = await _inspected(run, dataset)
            if inspected is not dataset:
                dataset, settled = inspected, await _settled(run, inspected, again=again)
    return await asyncio.to_thread(run.workspace.write_acquired, dataset, settled, again=again)


async def _settled(run: Run, dataset: Dataset, *, again: bool) -> Settled | None:
    if again:
        return None
    model, key = run.settings.model_name, read_key(run.settings.signing_key)
    return await settle_data(run.stores, model, dataset.digest, key, run.announce, run=run.id)


async def _inspected(run: Run, dataset: Dataset) -> Dataset:
    def embed_new(members: Iterable[Member]) -> Embedded:
        # Training finds them in the cache then.
        return _embedded(run, members, "train", 0.7, views_of(dataset.usable()))

    model = run.settings.model_name
    return await keep_back(run.stores, model, dataset, embed_new, path=run.images.path, announce=run.announce)


async def train_step(run: Run, acquired: Acquired) -> Trained:
    """FROM `dataset.json` and the cache → embeddings → head → TO a SavedModel.

    Raises:
        Transient: if a store is away.
        Permanent: if the images are of fewer than two classes, or the reference set cannot be read.

    """
    with tracing.span("train"):
        space, model = run.workspace, run.settings.model_name
        if space.is_trained(acquired.dataset.digest, run.settings.seed, BACKBONE):
            return space.read_trained()
        await run.exporter.start()
        withdrawn = await run.stores.withdrawn()
        reference = await read_reference(run.stores.models, model, withdrawn)
        learnt = await parents.learnt(run.stores, model)
        trained = await asyncio.to_thread(_train, run, acquired, reference, learnt)
        run.progress("train", 0.85)
        await run.exporter.export(space.staged)
        space.staged.rename(space.model)
        await asyncio.to_thread(space.write_trained, trained)
        run.progress("train", 1)
        return trained


def _train(run: Run, acquired: Acquired, reference: Reference, learnt: frozenset[str] | None) -> Trained:
    """Learn a head, and leave it in the workspace."""
    space, seed, dataset = run.workspace, run.settings.seed, acquired.dataset
    kept = reference.among(dataset.members, run.stores.own)
    wanted = [*dataset.usable(), *((name, sha) for sha, name in kept.items())]
    embedded = _embedded(run, wanted, "train", 0.7, views_of(dataset.usable()))
    members = dataset.usable(embedded.unreadable)
    division = divide(members, embedded.features, kept, learnt, dataset.taken, edges=dataset.edges)
    head, curves = fit(gather(division.learned, embedded), seed)
    for before in (space.model, space.staged):
        shutil.rmtree(before, ignore_errors=True)
    write_file(space.staged / HEAD, head.to_bytes())
    return Trained(
        dataset.digest,
        seed,
        BACKBONE,
        dict(Counter(name for name, _ in members)),
        dict(embedded.unreadable),
        curves,
        division.held_out,
        dict(division.groups),
    )


async def evaluate_step(run: Run, acquired: Acquired) -> Evaluated:
    """FROM model and held-out images → figures, parent, smoke test → TO the verdict and the report."""
    with tracing.span("evaluate"):
        await run.exporter.start()
        out = await asyncio.to_thread(_held_out, run, acquired)
        before = await _asked(run, out)
        run.progress("evaluate", 0.5)
        fault = await _smoke(run, out)
        evaluated = await asyncio.to_thread(_evaluate, run, acquired, out, before, fault)
        tracing.note(passed=evaluated.verdict.rejected is None)
        return evaluated


def _held_out(run: Run, acquired: Acquired) -> HeldOut:
    trained = run.workspace.read_trained()
    if trained.digest != acquired.dataset.digest:
        raise Permanent("the model is of other data: run train again")
    asked = [(image.name, image.sha256) for image in trained.held_out]
    embedded = _embedded(run, asked, "evaluate", 0.3)
    return HeldOut.of(trained.held_out, embedded, run.images.path)


@dataclass(frozen=True)
class Before:
    """The version that serves, how it did, and why it could not be asked; all may be missing."""

    version: int | None = None
    evaluation: Evaluation | None = None
    fault: str = ""

    @property
    def against(self) -> Against | None:
        """What a version has to stand up to, if anything."""
        if self.version is None or self.evaluation is None:
            return None
        return Against(self.version, self.evaluation.answers)


async def _asked(run: Run, out: HeldOut) -> Before:
    """Ask the parent; one that cannot answer holds nobody up."""
    version = None
    try:
        parent = await parents.newest(run.stores.ready, run.settings.model_name, BACKBONE)
        if parent is None:
            return Before()
        version = parent.version
        return Before(version, evaluate(await parents.ask(parent, out, run.settings.trial_seconds)))
    except Permanent as exc:
        log.warning("the parent cannot be compared with", edge=run.edge, error=str(exc))
        return Before(version, fault=str(exc))


async def _smoke(run: Run, out: HeldOut) -> str | None:
    """Ask the SavedModel about a few of the images; return what is wrong with it."""
    space = run.workspace
    head = Head.from_bytes(await asyncio.to_thread(space.head.read_bytes))
    few = np.linspace(0, len(out.files) - 1, min(SMOKE_IMAGES, len(out.files))).astype(int)
    files, expected = [out.files[i] for i in few], head.probabilities(out.features[few])
    return await run.exporter.fault_of(space.model, files, expected)


def _evaluate(run: Run, acquired: Acquired, out: HeldOut, before: Before, fault: str | None) -> Evaluated:
    space, digest = run.workspace, acquired.dataset.digest
    trained = space.read_trained()
    head = Head.from_bytes(space.head.read_bytes())
    probabilities = head.probabilities(out.features)
    evaluation = evaluate(answers_of(probabilities, head.classes, out.truths))
    margin = run.settings.gate_tolerance
    verdict = gate(out.judged, evaluation.answers, before.against, margin=margin, fault=fault)
    run.progress("evaluate", 0.7)

    members = acquired.dataset.usable(trained.unreadable)
    held = {sha for _, sha in out.members}
    learned = [member for member in members if member[1] not in held]
    metrics = _metrics(evaluation, before.evaluation, acquired, trained)
    facts = Facts(
        edge=run.edge,
        model=run.settings.model_name,
        digest=digest,
        parent=before.version,
        learned=Counter(name for name, _ in learned),
        groups=trained.groups,
        left_aside={
            "ignored": acquired.dataset.ignored,
            "in quarantine": acquired.dataset.quarantined,
            "products of one edge": acquired.dataset.others,
            "in two classes": len(acquired.dataset.contradictory),
            "beyond the sample": acquired.dataset.beyond,
            "unreadable": len(trained.unreadable),
        },
        seed=trained.seed,
        backbone=trained.backbone,
        verdict=verdict,
        not_compared=before.fault,
    )
    shutil.rmtree(space.report, ignore_errors=True)
    pictures = {sha: run.images.path(sha) for _, sha in (*members, *out.members)}
    write_report(
        space.report, Material(evaluation, before.evaluation, trained.curves, facts, members, pictures)
    )
    made = made_with(run.settings, trained.seed, trained.backbone)
    write_members(space.members, made, learned, out.members)
    evaluated = Evaluated(digest, metrics, before.version, head.classes, verdict)
    space.write_evaluated(evaluated)
    run.progress("evaluate", 1)
    return evaluated


def _metrics(
    evaluation: Evaluation, before: Evaluation | None, acquired: Acquired, trained: Trained
) -> dict[str, object]:
    """Return what the manifest keeps; the same for the same data and parent."""
    return evaluation.metrics | {
        "parent_accuracy": None if before is None else before.metrics["accuracy"],
        "images": dict(sorted(trained.counts.items())),
        "groups": trained.groups,
        "reference": sum(image.in_reference for image in trained.held_out),
        "contradictory": len(acquired.dataset.contradictory),
        "unreadable": len(trained.unreadable),
        "backbone": trained.backbone,
    }


def _embedded(
    run: Run, members: Iterable[Member], stage: str, share: float, views: Mapping[str, int] | None = None
) -> Embedded:
    """Embed images and some views, mostly from the cache; `share` is how much of the stage that is."""
    images = {sha: run.images.path(sha) for _, sha in members}
    cache = EmbeddingCache(run.settings.cache_dir)

    def progress(done: int, of: int) -> None:
        run.progress(stage, share * done / max(of, 1))

    return embed(images, cache, run.embedder, progress, views)


async def begin_publishing(run: Run, acquired: Acquired) -> Begun | None:
    """FROM model → TO `E-models`, while it is judged: best effort, `publish_step` writes the rest."""
    files = await asyncio.to_thread(run.workspace.model_files)
    with suppress(Transient):
        return await begin(run.stores, run.settings.model_name, acquired.attempt, files, run.id)
    return None


async def publish_step(run: Run, acquired: Acquired, begun: Begun | None = None) -> Published:
    """FROM model, report and verdict → TO `E-models`, and to `E-ready` if it passed; then an event."""
    evaluated = run.workspace.read_evaluated(acquired.dataset.digest)
    run.progress("publish", 0)
    rejected = evaluated.verdict.rejected
    lineage = Lineage(
        data_digest=acquired.dataset.digest,
        parent=evaluated.parent,
        classes=evaluated.classes,
        metrics=evaluated.metrics,
        rejected=None if rejected is None else cut(rejected),
    )
    key = read_key(run.settings.signing_key)
    model, files = run.settings.model_name, run.workspace.files()
    with tracing.span("publish", model=model):
        members = run.workspace.members
        published = await publish(
            run.stores,
            model,
            acquired.attempt,
            files,
            lineage,
            key=key,
            members=members,
            begun=begun,
            run=run.id,
        )
        tracing.note(version=published.manifest.version)
    announce_outcome(run.stores, published, run.announce)
    if rejected is None and published.held is None:
        await _grow_reference(run)
    run.progress("publish", 1)
    return published


async def _grow_reference(run: Run) -> None:
    """Keep what the accepted version was judged on; the version is out, so a fault here is only told."""
    try:
        withdrawn = await run.stores.withdrawn()
        trained = await asyncio.to_thread(run.workspace.read_trained)
        model, own = run.settings.model_name, run.stores.own
        await grow(run.stores.models, model, withdrawn, trained.held_out, own)
    except (CaravanError, FileNotFoundError) as exc:
        log.warning("the reference set does not grow", edge=run.edge, error=str(exc))
