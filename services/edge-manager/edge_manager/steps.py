"""The short steps of the route `model-sync`, each of which may be repeated at any time."""

from __future__ import annotations

import structlog

from edge_manager.edge import Edge, Model
from edge_manager.refusing import remove
from edge_manager.versions import Ref

log = structlog.get_logger()


async def open_edge(edge: Edge) -> None:
    """Make the sinks ready and recall what was learned, once per process."""
    if not edge.is_open:
        for sink in edge.sinks:
            await sink.open()
        await edge.records.load()
        edge.is_open = True


async def see(edge: Edge) -> None:
    """List what the sinks hold. Of a version that is being copied, what its copy says counts."""
    arriving = {name: model.arriving for name, model in edge.models.items()}
    holdings = {sink.name: await sink.held() for sink in edge.sinks}
    for name in edge.models.keys() | {name for held in holdings.values() for name in held}:
        model = edge.models.setdefault(name, Model())
        known = {version for version in (arriving.get(name, 0), model.arriving) if version}
        for sink, held in holdings.items():
            kept = {v: whole for v, whole in model.held.get(sink, {}).items() if v in known}
            seen = {v: whole for v, whole in held.get(name, {}).items() if v not in known}
            model.held[sink] = seen | kept


async def sweep(edge: Edge, name: str) -> None:
    """Remove versions that were refused but are still in a sink; while one is brought, that is left alone."""
    model = edge.models[name]
    held = {Ref(name, v) for versions in model.held.values() for v in versions}
    for ref in () if model.is_bringing else sorted(held & edge.records.refused.keys()):
        await remove(edge, ref)


async def configure(edge: Edge) -> None:
    """Tell the model server which models there are, where that has changed.

    Only those that have a version: TensorFlow Serving waits for the others, and takes no further change.
    """
    for sink in edge.sinks:
        models = frozenset(
            n for n, model in edge.models.items() if any(model.held.get(sink.name, {}).values())
        )
        if edge.configured.get(sink.name) != models:
            await sink.configure(models)
            edge.configured[sink.name] = models
            log.info("models configured", sink=sink.name, models=sorted(models))
