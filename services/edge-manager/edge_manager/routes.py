"""The route of the edge-manager."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from edge_manager import steps
from edge_manager.edge import Edge

ROUTE = steps.ROUTE


async def model_sync(edge: Edge) -> NoReturn:
    """FROM S3 `E-ready` (central) → judge → copy, verified → TO the sinks → model server → `pushmodel`.

    Route `model-sync`. Mandatory: every sink. Best effort: MQTT `monitor` (`pushmodel`, `model-rejected`).
    `E-ready` is only ever read. One round:

    1. *Look* at `E-ready`. If central is away that is said once, and the round goes on without it.
    2. *See* what the sinks hold.
    3. *Sweep* what was refused. Killed between remembering a refusal and removing the version: this step
       does the rest after the restart.
    4. *Confirm* the newest version at the edge. Once the server says AVAILABLE: remember that it has served
       here, announce it, remove what is older than the versions kept. Killed after AVAILABLE: after
       the restart the same is confirmed again, and announced once per process; a listener may hear of a
       version twice, which does no harm. If the server fails on it, or answers for `LOAD_SECONDS` without
       loading it: remember the refusal, remove the version, tell; the version before goes on serving, and
       one in between is looked for. A version that has once served here, or that central does not offer, is
       never refused; a server that does not answer is waited for.
    5. *Bring* the newest complete version that the edge does not have; the next round confirms it. Older ones
       that it missed are not needed. Killed anywhere while copying: the entry file comes last (or the
       rename does), so the model server sees nothing; a repeat skips the files that are there with their
       SHA-256, and ends the same. Killed after a mismatch: the repeat finds it again.
    6. *Configure* the model server, once all models are seen to: which there are, where that has changed.
       Killed before it: the next life writes it, whatever it finds.
    """
    with structlog.contextvars.bound_contextvars(route=ROUTE):
        await steps.open_edge(edge)
        while True:
            await one_round(edge)
            await asyncio.sleep(edge.rules.poll_seconds)


async def one_round(edge: Edge) -> None:
    """Go once through the steps, for each model, and configure the model server.

    Raises:
        Transient: if a sink is away.

    """
    await steps.look(edge)
    await steps.see(edge)
    for name in sorted(edge.models):
        await steps.sweep(edge, name)
        await steps.confirm(edge, name)
        await steps.bring(edge, name)
    await steps.configure(edge)
    edge.is_seen = True
