"""Traces by OpenTelemetry: what one message does in which service, under one id that travels with it.

Nothing here fails or waits for anybody, and where `TRACES` is off nothing happens at all. Spans are sent from
a thread of their own; those that do not fit its queue, and those that cannot be sent, are dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TRACEPARENT = "traceparent"
"""Name of the trace's header in HTTP, Kafka, gRPC, MQTT and S3's metadata."""

LAST_SECONDS = 3.0
"""Deadline in seconds for the last spans when a process ends."""

_W3C = TraceContextTextMapPropagator()

Fact = str | int | float | bool


class _Traces:
    """What `use` sets up, once per process."""

    provider: TracerProvider | None = None
    tracer: trace.Tracer | None = None


def use(provider: TracerProvider | None) -> None:
    """Make spans with this provider from now on; with None, make no more."""
    _Traces.provider = provider
    _Traces.tracer = None if provider is None else provider.get_tracer("caravan")


def stop() -> None:
    """Send what is left, for `LAST_SECONDS` at most, and end; to be called where a process ends."""
    if _Traces.provider is not None:
        sending = threading.Thread(target=_Traces.provider.shutdown, name="traces", daemon=True)
        use(None)
        sending.start()
        sending.join(LAST_SECONDS)


def is_on() -> bool:
    """Tell whether spans are made."""
    return _Traces.tracer is not None


# --- spans --------------------------------------------------------------------------------------


@contextmanager
def span(name: str, *, begins: bool = True, **facts: Fact) -> Iterator[None]:
    """Make a span of what is done within: part of the current trace, else the first of a new one.

    Args:
        name: name of the work: a route's id, or a step.
        begins: whether a trace may begin here.
        facts: its attributes.

    """
    before = _current()
    is_dropped = before.is_valid and not before.trace_flags.sampled
    if _Traces.tracer is None or is_dropped or not (begins or before.is_valid):
        yield
        return
    kind = SpanKind.INTERNAL if before.is_valid and not before.is_remote else SpanKind.SERVER
    with _Traces.tracer.start_as_current_span(name, kind=kind, attributes=facts, record_exception=False):
        yield


def past(name: str, began: int, carrier: Mapping[str, str] | None = None, **facts: Fact) -> None:
    """Make a span of what began at `began` (`time.time_ns`) and ends now: part of the trace of the carrier.

    Without a carrier it is part of the current trace; without a trace there is none.
    """
    context = None if carrier is None else _extracted(carrier)
    if _Traces.tracer is not None and trace.get_current_span(context).get_span_context().is_valid:
        _Traces.tracer.start_span(name, context, attributes=facts, start_time=began).end(time.time_ns())


def note(**facts: Fact) -> None:
    """Add attributes to the current span."""
    if _Traces.tracer is not None:
        trace.get_current_span().set_attributes(facts)


def link(carrier: Mapping[str, str]) -> None:
    """Tell that the current span also answers what another trace asked."""
    if _Traces.tracer is not None:
        other = trace.get_current_span(_extracted(carrier)).get_span_context()
        if other.is_valid:
            trace.get_current_span().add_link(other)


# --- from service to service ----------------------------------------------------------------------


def headers() -> dict[str, str]:
    """Return what a message carries so that its receiver goes on with the current trace; maybe nothing."""
    carrier: dict[str, str] = {}
    if _Traces.tracer is not None:
        _W3C.inject(carrier)
    return carrier


@contextmanager
def following(carrier: Mapping[str, str]) -> Iterator[None]:
    """Go on, within, with the trace that a message carries; without one, a new one may begin there."""
    if _Traces.tracer is None:
        yield
        return
    token = attach(_extracted(carrier))
    try:
        yield
    finally:
        detach(token)


def follow(carrier: Mapping[str, str]) -> None:
    """Go on with the trace that a message carries, if it does, to the end of the current task."""
    if _Traces.tracer is not None and TRACEPARENT in carrier:
        attach(_extracted(carrier))


def ids() -> dict[str, str]:
    """Return the ids of the current trace and span, for logs; nothing where there is none."""
    if _Traces.tracer is None or not (here := _current()).is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(here.trace_id), "span_id": trace.format_span_id(here.span_id)}


def _current() -> SpanContext:
    return trace.get_current_span().get_span_context()


def _extracted(carrier: Mapping[str, str]) -> Context:
    # On an empty context: what is malformed, or not there, is no reason to go on with whatever was before.
    return _W3C.extract(carrier, Context()) if TRACEPARENT in carrier else Context()
