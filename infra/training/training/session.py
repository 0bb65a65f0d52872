"""What surrounds a run: buckets of an edge or a group, events that go to Kafka, progress that is watched."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caravan import kafka, locks
from caravan.contracts import Event
from training.events import Events, Reporter
from training.exporter import Exporter, ExporterProcess
from training.settings import TrainingSettings
from training.steps import Run
from training.stores import open_stores
from training.workspace import Workspace

if TYPE_CHECKING:
    from training.embedder import Embedder

Sink = Callable[[Event], None]


@asynccontextmanager
async def telling(settings: TrainingSettings, edge: str) -> AsyncIterator[Events]:
    """Open the way to the edge's event topic, or to those of a group's members."""
    edges = settings.sharing.get(edge, (edge,))
    async with (
        kafka.Producer(settings) as producer,
        Events(producer.send, *edges, known=settings.edges) as events,
    ):
        yield events


@asynccontextmanager
async def session(
    settings: TrainingSettings,
    edge: str,
    work: Path,
    embedder: "Callable[[], Embedder]",
    *sinks: Sink,
    facts: Mapping[str, Any],
    exporter: Exporter | None = None,
) -> AsyncIterator[tuple[Run, Reporter]]:
    """Open what a run needs; `sinks` see each `training` event beside Kafka.

    Without an exporter it has a process of its own for that.
    """
    with locks.held(work, "the folder of the run"):
        async with telling(settings, edge) as events:
            reporter = Reporter({"edge": edge, **facts}, events.emit, *sinks)
            stores = open_stores(settings, edge)
            async with ExporterProcess(settings.cache_dir) as own:
                run = Run(
                    settings,
                    edge,
                    stores,
                    Workspace(work),
                    embedder,
                    exporter or Exporter(own.ask, own.start),
                    reporter.progress,
                    events.emit,
                    facts.get("run"),
                )
                yield run, reporter


def load_embedder() -> "Embedder":
    """Load the backbone: half a second, which the caller may spend in a thread."""
    from training.embedder import Embedder  # noqa: PLC0415 - only here, and only when asked

    return Embedder()
