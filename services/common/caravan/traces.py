"""Where a process begins to trace. What makes spans (`tracing`) knows nothing of where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caravan import tracing

if TYPE_CHECKING:
    from caravan.settings import TraceSettings


def start(service: str, settings: TraceSettings) -> None:
    """Begin to trace as the settings say; to be called once, where a process starts."""
    if settings.traces != "off":
        from caravan.trace_export import make_provider  # noqa: PLC0415 - half of it is imported only where wanted

        tracing.use(make_provider(service, settings))
