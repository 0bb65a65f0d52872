"""One run: judge what was sent → acquire → train → evaluate → publish, and what became of it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import structlog

from caravan.contracts import model_rejected_event
from caravan.errors import Permanent, Transient
from training.events import Reporter
from training.judge import judge_step
from training.steps import (
    Run,
    acquire_step,
    begin_publishing,
    evaluate_step,
    publish_step,
    retain_step,
    share_step,
    train_step,
)

log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """How a run ended: a version for the edge, one kept back with the reason, or nothing to train."""

    state: Literal["ready", "rejected", "held", "skipped"]
    version: int | None
    reason: str | None = None
    accuracy: float | None = None


async def run_pipeline(run: Run, reporter: Reporter, *, again: bool = False) -> Outcome:
    """FROM `E-data` → acquire → train → evaluate → publish → TO `E-models` and `E-ready`, telling Kafka `E`.

    Of a group: FROM each member's `E-data` → TO `G-models` and `G-ready`, and to each member's `E-ready`.
    Models that people sent come first: FROM `E-models`, `uploads/` → judge → TO the same two, with a verdict.
    Mandatory: the verdicts; a complete version in `E-models`, and in `E-ready` if it passed. Best effort: the
    events.

    Raises:
        Transient: if a store is away; the same run may be made again.
        Permanent: if the data cannot be trained on; told as `model-rejected`.

    """
    try:
        outcome = await _steps(run, again=again)
        await share_step(run)
        await retain_step(run)
    except Permanent as exc:
        run.announce(model_rejected_event(run.settings.model_name, None, str(exc)))
        reporter.tell("failed", 1, reason=str(exc))
        raise
    except Transient as exc:
        reporter.tell("failed", 0, reason=str(exc), again=True)
        raise
    stage = "skipped" if outcome.state == "skipped" else "done"
    held = {"reason": outcome.reason} if outcome.state == "held" else {}
    reporter.tell(stage, 1, version=outcome.version, outcome=outcome.state, **held)
    log.info("run ends", edge=run.edge, outcome=outcome.state, version=outcome.version, reason=outcome.reason)
    return outcome


async def _steps(run: Run, *, again: bool) -> Outcome:
    with suppress(Transient):  # Here for who joined; at the end of the run it counts.
        await share_step(run)
    await judge_step(run)
    run.progress("acquire", 0)
    acquired = await acquire_step(run, again=again)
    if not acquired.dataset.members:
        return Outcome("skipped", None, "there are no images to train on")
    if acquired.settled is not None:
        return Outcome(acquired.settled.state, acquired.settled.version, acquired.settled.reason)
    await train_step(run, acquired)
    beginning = asyncio.create_task(begin_publishing(run, acquired))
    try:
        await evaluate_step(run, acquired)
        published = await publish_step(run, acquired, await beginning)
    finally:
        beginning.cancel()
        await asyncio.wait([beginning])
    version, lineage = published.manifest.version, published.manifest.lineage
    accuracy = lineage.metrics.get("accuracy")
    if published.held is not None:
        return Outcome("held", version, published.held.reason, accuracy)
    return Outcome("ready" if lineage.rejected is None else "rejected", version, lineage.rejected, accuracy)
