"""The pipeline's commands: each step alone, a whole run, and what operators do."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from caravan import concurrency, traces, tracing
from caravan.contracts import central_buckets, group_buckets, parse_edge
from caravan.errors import CaravanError, Permanent, Transient
from caravan.holds import read_hold
from caravan.s3 import ensure_buckets
from caravan.settings import load
from caravan.telemetry import configure_logging
from training import versions
from training.codes import AGAIN, REFUSED
from training.console import console, stages, versions_table
from training.events import Reporter
from training.judge import judge_step
from training.listening import listen
from training.made import learnt_from_withdrawn
from training.pipeline import run_pipeline
from training.publish import read_key
from training.publish import rollback as roll_back
from training.release import release as end_hold
from training.session import load_embedder, session, telling
from training.settings import TrainingSettings
from training.steps import (
    Run,
    acquire_step,
    evaluate_step,
    publish_step,
    retain_step,
    share_step,
    train_step,
)
from training.stores import open_stores

commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train, judge and publish an edge's model. The steps acquire, train, evaluate and publish run in "
    "this order, each alone (a Tekton task) or all by `run`; each may be repeated at any time. Exit code 65: "
    "refused for good; 75: a store is away, try again. Addresses and credentials come from the environment, "
    "see README.md.",
)

Edge = Annotated[str, typer.Option(help="Whose images and models: one of EDGES, or of EDGE_GROUPS.")]
Work = Annotated[
    Path | None,
    typer.Option(help="Directory that the steps share; by default WORK_DIR/<edge>.", file_okay=False),
]
Again = Annotated[bool, typer.Option("--again", help="Train even if a version of the same data is there.")]
Model = Annotated[str | None, typer.Option(help="Name of the model; by default MODEL_NAME.")]


@commands.command()
def judge(edge: Edge, work: Work = None) -> None:
    """Before the steps: judge the models that people sent, and publish those that load and answer."""

    async def step() -> None:
        async with _opened(edge, work) as (run, _):
            await ensure_buckets(run.settings.central, _buckets(run))
            verdicts = await judge_step(run)
        for upload, verdict in verdicts:
            fate = verdict.reason if verdict.version is None else f"version {verdict.version}"
            console.print(f"{upload.model}, upload {upload.id[:12]}, {verdict.state}: {fate}")

    _finish(step())


@commands.command()
def acquire(edge: Edge, work: Work = None, again: Again = False) -> None:
    """Step 1: download the images that are new; see whether there is anything to train."""

    async def step() -> None:
        async with _opened(edge, work) as (run, _):
            await ensure_buckets(run.settings.central, _buckets(run))
            acquired = await acquire_step(run, again=again)
        console.print(f"{len(acquired.dataset.members)} images, data {acquired.dataset.digest[:12]}")
        if acquired.settled is not None:
            console.print(f"nothing to train: version {acquired.settled.version}, {acquired.settled.reason}")

    _finish(step())


@commands.command()
def train(edge: Edge, work: Work = None) -> None:
    """Step 2: embed what is new, train the head, write the SavedModel."""

    async def step() -> None:
        async with _opened(edge, work) as (run, _):
            acquired = run.workspace.read_acquired()
            if acquired.settled is None:
                trained = await train_step(run, acquired)
                console.print(f"trained on {', '.join(f'{n} {c}' for c, n in trained.counts.items())}")

    _finish(step())


@commands.command()
def evaluate(edge: Edge, work: Work = None) -> None:
    """Step 3: judge it on held-out images, beside its parent; smoke-test it; write the report."""

    async def step() -> None:
        async with _opened(edge, work) as (run, _):
            acquired = run.workspace.read_acquired()
            if acquired.settled is None:
                evaluated = await evaluate_step(run, acquired)
                verdict = evaluated.verdict.rejected or "passed"
                accuracy = evaluated.metrics["accuracy"]
                measured = "nothing was held out" if accuracy is None else f"accuracy {accuracy:.2%}"
                console.print(f"{measured}: {verdict}")

    _finish(step())


@commands.command()
def publish(edge: Edge, work: Work = None) -> None:
    """Step 4: give it a version number, upload it, and offer it to the edge, or the group, if it passed."""

    async def step() -> None:
        async with _opened(edge, work) as (run, _):
            acquired = run.workspace.read_acquired()
            if acquired.settled is None:
                published = await publish_step(run, acquired)
                rejected, held = published.manifest.lineage.rejected, published.held
                state = "ready" if rejected is None else f"rejected: {rejected}"
                kept = state if held is None else held.reason
                console.print(f"version {published.manifest.version} {kept}")
            await share_step(run)
            await retain_step(run)

    _finish(step())


@commands.command()
def run(edge: Edge, work: Work = None, again: Again = False) -> None:
    """Judge what was sent, then do all four steps."""

    async def whole() -> None:
        async with _opened(edge, work) as (opened, reporter):
            await ensure_buckets(opened.settings.central, _buckets(opened))
            outcome = await run_pipeline(opened, reporter, again=again)
        accuracy = "" if outcome.accuracy is None else f", accuracy {outcome.accuracy:.2%}"
        reason = "" if outcome.reason is None else f": {outcome.reason}"
        what = "training" if outcome.version is None else f"version {outcome.version}"
        console.print(f"{what} {outcome.state}{accuracy}{reason}")

    _finish(whole())


@commands.command()
def rollback(
    edge: Edge, to: Annotated[int, typer.Option(help="Version to go back to.", min=1)], model: Model = None
) -> None:
    """Publish an older version's files again, as the next version; no other serves until `release`."""
    settings = _settings(edge)
    name = model or settings.model_name
    _is_its_own(edge, settings)

    async def back() -> None:
        stores = open_stores(settings, edge)
        async with telling(settings, edge) as events:
            with tracing.span("rollback", model=name, to=to):
                key = read_key(settings.signing_key)
                published = await roll_back(stores, name, to, key, events.emit)
            doubtful = await learnt_from_withdrawn(stores, published.manifest)
        console.print(f"version {published.manifest.version} ready: version {to} again, until `release`")
        if doubtful:
            console.print(f"version {to} learnt from images that were withdrawn since")

    _finish(back())


@commands.command()
def release(edge: Edge, model: Model = None) -> None:
    """End the hold of a rollback: the newest version that passed meanwhile is offered to the edge.

    Exit code 65: no rollback is held.
    """
    settings = _settings(edge)
    name = model or settings.model_name
    _is_its_own(edge, settings)

    async def let_through() -> None:
        stores = open_stores(settings, edge)
        async with telling(settings, edge) as events:
            with tracing.span("release", model=name):
                published = await end_hold(stores, name, read_key(settings.signing_key), events.emit)
        if published is None:
            console.print("released: nothing was held back; the next version that passes serves")
        elif published.held is not None:
            console.print(f"another rollback holds: {published.held.reason}")
        else:
            console.print(f"released: version {published.manifest.version} ready")

    _finish(let_through())


@commands.command("list")
def list_versions(edge: Edge, model: Model = None) -> None:
    """Show an edge's versions, the newest first."""
    settings = _settings(edge)
    name = model or settings.model_name
    _is_its_own(edge, settings)

    async def show() -> None:
        stores = open_stores(settings, edge)
        whole = await versions.complete(stores.models, name)
        ready = await versions.complete(stores.ready, name)
        there = {*await versions.stored(stores.models, name), *ready}
        found = {version: whole.get(version) or ready.get(version) for version in there}
        held = await read_hold(stores.models, name)
        # On standard output: this is the answer, not progress.
        type(console)().print(
            versions_table(edge, name, found, set(ready), held, retained=settings.retain_versions)
        )

    _finish(show())


commands.command()(listen)


def _settings(edge: str) -> TrainingSettings:
    settings = load(TrainingSettings)
    configure_logging(settings.log_level, settings.log_format)
    traces.start("training", settings)
    tracing.follow({tracing.TRACEPARENT: settings.traceparent})
    try:
        parse_edge(edge, [*settings.edges, *settings.sharing])
    except CaravanError as exc:
        groups = f", EDGE_GROUPS {', '.join(settings.sharing)}" if settings.sharing else ""
        console.print(f"{exc}: EDGES has {', '.join(settings.edges)}{groups}")
        raise typer.Exit(2) from exc
    return settings


def _is_its_own(edge: str, settings: TrainingSettings) -> None:
    """End with a word on whose the versions are, if they are not the edge's own."""
    owner = settings.owner_of(edge)
    if owner != edge:
        console.print(f"{edge} shares its model with the group {owner}: --edge {owner}")
        raise typer.Exit(2)


def _buckets(run: Run) -> list[str]:
    own = group_buckets(run.edge) if run.stores.members else ()
    return [*own, *(bucket for source in run.stores.sources for bucket in central_buckets(source.edge))]


@asynccontextmanager
async def _opened(edge: str, work: Path | None) -> AsyncIterator[tuple[Run, Reporter]]:
    settings = _settings(edge)
    owner = settings.owner_of(edge)
    if owner != edge:
        console.print(f"{edge} shares its model with the group {owner}: this is a run of {owner}")
    directory = work or Path(settings.work_dir, owner)
    facts = {"run": settings.run_id or uuid4().hex[:12]}
    with stages() as show:
        async with session(settings, owner, directory, cache(load_embedder), show, facts=facts) as opened:
            yield opened


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end, and say in one sentence why it could not."""
    try:
        concurrency.run(work)
    except Transient as exc:
        console.print(f"not now: {exc}")
        raise typer.Exit(AGAIN) from exc
    except Permanent as exc:
        console.print(f"refused: {exc}")
        raise typer.Exit(REFUSED) from exc
    finally:
        tracing.stop()
