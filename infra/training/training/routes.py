"""The listener's routes, in the order in which a trigger travels."""

from collections.abc import AsyncIterable, Mapping, Sequence
from uuid import uuid4

from caravan import kafka
from caravan.contracts import parse_edge
from caravan.history import History
from caravan.route import Route
from training.rolling import Rolling
from training.runs import TRAINING_RUN, Runs

TRAINING_TRIGGER = Route("training-trigger", source="`POST /`", mandatory="the marker on the disk")
ROLLOUT = Route(
    "rollout",
    source="Kafka `edge-status`",
    mandatory="the rollout in S3 `G-models`; the manifest in S3 `E-ready` of the edges that it reaches",
    best_effort="events on Kafka `E`; how it stands on `edge-status`",
)
ROUTES = (TRAINING_TRIGGER, TRAINING_RUN, ROLLOUT)


async def training_trigger(edge: str | None, learners: Mapping[str, Sequence[str]], runs: Runs) -> str:
    """FROM HTTP `POST /` → a marker on disk → TO the place in the queue of the edge, or of its group.

    There is a marker for each that learns from the edge's images (`caravan.groups.learners`), and 202 is
    answered after the last. Returns the id of the event.
    """
    with TRAINING_TRIGGER.exchange():
        event = str(uuid4())
        for owner in learners[parse_edge(edge, learners)]:
            await runs.accept(owner, event)
        return event


async def training_run(runs: Runs) -> None:
    """FROM the queue → acquire, train, evaluate, publish → TO S3 `E-models`, `E-ready`.

    The marker stays until the run has ended; one that could not reach its stores is made again.
    """
    await runs.work()


async def rollout(batches: AsyncIterable[kafka.Batch], history: History, rolling: Rolling) -> None:
    """FROM what edges say on `edge-status` → decide → the next ring, or back → TO `G-models`, `E-ready`.

    Nothing is committed: it is read again at the next start. What cannot be read is logged and passed over.
    """
    async for batch in batches:
        for partition, records in batch.items():
            with ROLLOUT.exchange(begins_trace=False):
                for record in records:
                    rolling.hear(record, history.times(record)[1])
            history.read_up_to(partition, records[-1].offset + 1)
