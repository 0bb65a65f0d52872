"""The route of the edge-manager."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NoReturn

import structlog

from caravan.errors import CaravanError, Permanent, Transient
from caravan.retry import forever
from edge_manager import metrics, plan
from edge_manager.bringing import MODEL_SYNC, bring
from edge_manager.edge import Edge
from edge_manager.effects import carry_out

log = structlog.get_logger()

ROUTES = (MODEL_SYNC,)


async def model_sync(edge: Edge) -> NoReturn:
    """FROM S3 `E-ready` (central) → judge → copy, verified → TO the sinks → model server → `pushmodel`.

    `E-ready` is only ever read. A round observes, decides and carries out: what is known is a value
    (`known.py`), each observation is added to it (`observations.py`), what is to be done is decided from it
    purely (`plan.py`), and done in one place (`effects.py`). *Look* and *bring* wait for the link, and so run
    beside the rounds, which learn from the inbox what came of them: neither a link that hangs nor another
    model delays a confirmation.

    What a life leaves that is killed before or after each effect is a table of the service's README.
    A version that has once served here, or that central does not offer, is never refused; a server that does
    not answer is waited for.
    """
    with structlog.contextvars.bound_contextvars(route=MODEL_SYNC.id):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_looking(edge), name="look")
            await forever(MODEL_SYNC.id, partial(rounds, edge, tasks))


async def keep_looking(edge: Edge) -> NoReturn:
    """Look at central again and again, at once where a hint comes; while it is away, less and less often."""
    failures = 0
    while True:
        looked = await edge.look()
        edge.inbox.put_nowait(looked)
        failures = 0 if looked.fault is None else failures + 1
        await edge.wait_for_hint(failures)


async def rounds(edge: Edge, tasks: asyncio.TaskGroup) -> NoReturn:
    """Go round and round, at the edge's pace and whenever there is news.

    Raises:
        Transient: if a sink is away.

    """
    while True:
        try:
            await one_round(edge, tasks)
        except FileNotFoundError as exc:
            edge.is_open = False
            raise Transient(f"a sink is gone, and is made again: {exc}") from exc
        except Permanent as exc:
            # Rights can be mended while we run; until then the edge serves what it has.
            raise Transient(str(exc)) from exc
        await edge.pause()


async def one_round(edge: Edge, tasks: asyncio.TaskGroup) -> None:
    """Go once through the steps, those of each model in no other's way.

    Raises:
        Transient: if a sink is away.

    """
    edge.catch_up()
    await edge.open()
    edge.learn(await edge.list())
    await carry_out(edge, plan.configure(edge.known, [sink.name for sink in edge.sinks], edge.rules))
    for name in sorted(edge.known.models):
        with _told_if_stuck(edge, name):
            await carry_out(edge, plan.sweep(edge.known, name))
            edge.learn(await edge.ask(name))
            await carry_out(edge, plan.confirm(edge.known, name, edge.clock(), edge.rules))
    for offered in plan.bring(edge.known, edge.clock()):
        name, version = offered.ref.model, offered.ref.version
        edge.known = edge.known.with_model(name, replace(edge.known.model(name), bringing=version))
        tasks.create_task(bring(edge, offered), name=f"bring {offered.ref}")
    edge.known = replace(edge.known, is_seen=edge.known.has_looked)
    refused = edge.known.fingerprints_refused(edge.clock())
    for name, model in edge.known.models.items():
        metrics.READY.labels(name).set(model.ready(refused))


@contextmanager
def _told_if_stuck(edge: Edge, name: str) -> Iterator[None]:
    """Tell once what fails with a model; the next round tries it again."""
    was, error = edge.known.model(name).stuck, None
    try:
        yield
    except CaravanError as exc:
        error = str(exc)
        if was is None:
            log.warning("a model is stuck; the others go on", model=name, error=error)
    except Exception as exc:
        error = repr(exc)
        if was is None:
            log.exception("a model is stuck; the others go on", model=name)
    edge.known = edge.known.with_model(name, replace(edge.known.model(name), stuck=error))
