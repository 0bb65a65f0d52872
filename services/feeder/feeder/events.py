"""Events on Kafka `E` about images as they are stored: best effort, never in the way of the storing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import structlog

from caravan import telemetry
from caravan.contracts import events_topic, model_upload_event, pipeline_event, to_json, zipfile_event
from caravan.kafka import Headers
from caravan.uploads import Upload

log = structlog.get_logger()

SINK = "events"
FLUSH_SECONDS = 5
GATHER_SECONDS = 0.25
"""Seconds for which events are gathered: a batch costs the embedded broker the same, however many it has."""
_BATCH = 500


class MessageProducer(Protocol):
    """Sends one message and returns once it is acknowledged."""

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, headers: Headers | None = None
    ) -> None:
        """Raise Transient or Permanent if it is not acknowledged."""
        ...


@asynccontextmanager
async def zipfile_events(producer: MessageProducer, edge: str) -> AsyncIterator[Callable[[], None]]:
    """Yield a function that reports one more stored image; send unsent reports at the end.

    The events are all alike, so a number is the whole queue. Once Kafka takes none of a batch, the rest is
    given up; what was not told is counted and logged once.
    """
    untold = lost = 0
    more, last = asyncio.Event(), asyncio.Event()

    def one_stored() -> None:
        nonlocal untold
        untold += 1
        more.set()

    async def tell() -> None:
        nonlocal untold, lost
        while untold or not last.is_set():
            await more.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(last.wait(), GATHER_SECONDS)
            more.clear()
            while untold:
                number = min(untold, _BATCH)
                failed = await _send(producer, edge, number)
                untold -= number
                lost += failed
                if failed == number:
                    return

    teller = asyncio.create_task(tell(), name="zipfile-events")
    try:
        yield one_stored
        last.set()
        more.set()
        await asyncio.wait([teller], timeout=FLUSH_SECONDS)
    finally:
        teller.cancel()
        lost += untold
        if lost:
            telemetry.BEST_EFFORT_FAILURES.labels(SINK).inc(lost)
            log.warning("best-effort sink failed", sink=SINK, lost=lost)


async def tell_pipeline(producer: MessageProducer, edge: str, files: int) -> None:
    """Tell that training was triggered by so many images."""
    with telemetry.best_effort(SINK):
        async with asyncio.timeout(FLUSH_SECONDS):
            await producer.send(events_topic(edge), to_json(pipeline_event(files)))


async def tell_model(producer: MessageProducer, edges: Iterable[str], upload: Upload) -> None:
    """Tell edges that a model was sent and is going to be judged."""
    event = to_json(model_upload_event(upload.model, upload.id, upload.size))

    async def tell(edge: str) -> None:
        with telemetry.best_effort(SINK):
            async with asyncio.timeout(FLUSH_SECONDS):
                await producer.send(events_topic(edge), event)

    await asyncio.gather(*map(tell, edges))


async def _send(producer: MessageProducer, edge: str, number: int) -> int:
    """Send so many zipfile events side by side; return how many failed."""
    value = to_json(zipfile_event())
    sent = (producer.send(events_topic(edge), value) for _ in range(number))
    results = await asyncio.gather(*sent, return_exceptions=True)
    return sum(isinstance(result, BaseException) for result in results)
