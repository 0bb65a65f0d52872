"""The route of the edge-manager."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn

import structlog

from caravan.errors import CaravanError, Permanent, Transient
from caravan.retry import forever
from edge_manager import bringing, metrics, steps
from edge_manager.bringing import MODEL_SYNC
from edge_manager.confirming import confirm
from edge_manager.edge import Edge, Model
from edge_manager.looking import keep_looking

log = structlog.get_logger()

ROUTES = (MODEL_SYNC,)


async def model_sync(edge: Edge) -> NoReturn:
    """FROM S3 `E-ready` (central) → judge → copy, verified → TO the sinks → model server → `pushmodel`.

    `E-ready` is only ever read. *Look* and *bring* wait for the link, and so run beside the rounds of the
    others, *bring* once for each model: neither a link that hangs nor another model delays a confirmation.

    1. *Look* at `E-ready`. If central is away that is said once, and the rest goes on.
    2. *See* what the sinks hold.
    3. *Configure* the model server: which models there are, where that has changed.
    4. *Sweep* what was refused and is still there.
    5. *Confirm* the newest version at the edge. Once the server says AVAILABLE: remember that it has served
       here, announce it, remove what is older than the versions kept. If the server fails on it for good:
       remember the refusal, remove the version, tell. If the failure may pass, or the version is not loaded
       within `LOAD_SECONDS`: hide it for a while, tell once. The version before serves on.
    6. *Bring* the newest complete version that the edge does not have.

    What a life leaves that is killed before or after each effect is a table of the service's README.
    A version that has once served here, or that central does not offer, is never refused; a server that does
    not answer is waited for.
    """
    with structlog.contextvars.bound_contextvars(route=MODEL_SYNC.id):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_looking(edge), name="look")
            await forever(MODEL_SYNC.id, partial(rounds, edge, tasks))


async def rounds(edge: Edge, tasks: asyncio.TaskGroup) -> NoReturn:
    """Go through the steps every `POLL_SECONDS`, in the long run five times as seldom, or when there is news.

    Raises:
        Transient: if a sink is away.

    """
    while True:
        edge.news.clear()
        try:
            await steps.open_edge(edge)
            await one_round(edge, tasks)
        except FileNotFoundError as exc:
            edge.is_open = False
            raise Transient(f"a sink is gone, and is made again: {exc}") from exc
        except Permanent as exc:
            # Rights can be mended while we run; until then the edge serves what it has.
            raise Transient(str(exc)) from exc
        with suppress(TimeoutError):
            if not edge.is_settled:
                edge.pace.stir()
            async with asyncio.timeout(edge.pace.pause):
                await edge.news.wait()


async def one_round(edge: Edge, tasks: asyncio.TaskGroup) -> None:
    """Configure the model server, and go once through the steps of each model, in no other's way.

    Raises:
        Transient: if a sink is away.

    """
    await steps.see(edge)
    await steps.configure(edge)
    for name in sorted(edge.models):
        with _told_if_stuck(name, edge.models[name]):
            await steps.sweep(edge, name)
            await confirm(edge, name)
    bringing.begin(edge, tasks)
    refused = edge.refused()
    for name, model in edge.models.items():
        metrics.READY.labels(name).set(model.ready(refused))
    edge.is_seen = edge.has_looked


@contextmanager
def _told_if_stuck(name: str, model: Model) -> Iterator[None]:
    """Tell once what fails with a model; the next round tries it again."""
    was, model.stuck = model.stuck, None
    try:
        yield
    except CaravanError as exc:
        model.stuck = str(exc)
        if was is None:
            log.warning("a model is stuck; the others go on", model=name, error=model.stuck)
    except Exception as exc:
        model.stuck = repr(exc)
        if was is None:
            log.exception("a model is stuck; the others go on", model=name)
