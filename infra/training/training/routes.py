"""The listener's routes, in the order in which a trigger travels."""

from collections.abc import Collection
from uuid import uuid4

from caravan.contracts import parse_edge
from caravan.groups import Groups, owner_of
from caravan.route import Route
from training.runs import TRAINING_RUN, Runs

TRAINING_TRIGGER = Route("training-trigger", source="`POST /`", mandatory="the marker on the disk")
ROUTES = (TRAINING_TRIGGER, TRAINING_RUN)


async def training_trigger(edge: str | None, edges: Collection[str], groups: Groups, runs: Runs) -> str:
    """FROM HTTP `POST /` → a marker on disk → TO the place in the queue of the edge, or of its group.

    202 is answered after the marker. Returns the id of the event.
    """
    with TRAINING_TRIGGER.exchange():
        known = parse_edge(edge, [*edges, *groups])
        event = str(uuid4())
        await runs.accept(owner_of(known, groups), event)
        return event


async def training_run(runs: Runs) -> None:
    """FROM the queue → acquire, train, evaluate, publish → TO S3 `E-models`, `E-ready`.

    The marker stays until the run has ended; one that could not reach its stores is made again.
    """
    await runs.work()
