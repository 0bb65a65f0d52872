"""Where spans go: into a file of JSON lines, or to a collector by OTLP over HTTP.

Imported only where there are traces.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceState, format_span_id, format_trace_id
from opentelemetry.util.types import Attributes

from caravan.contracts import to_json
from caravan.settings import TraceSettings
from caravan.telemetry import BEST_EFFORT_FAILURES

log = structlog.get_logger()

SINK = "traces"
MOST_BYTES = 8 * 2**20
"""Most bytes of a file; one older file of that size is kept as `.1`."""
QUEUED = 2048
FILE_SECONDS, OTLP_SECONDS = 0.5, 2.0
"""From a span's end until it is sent, with those that ended meanwhile."""
SELDOM_MILLISECONDS = 24 * 3600 * 1000
SEND_SECONDS = 5
NAMES = 256


def make_provider(service: str, settings: TraceSettings) -> TracerProvider:
    """Make what makes the spans of a service, as the settings say; nothing is sent before the first."""
    exporter: SpanExporter
    if settings.traces == "file":
        file = settings.traces_file or Path(".caravan", "traces", f"{service}.jsonl")
        exporter, pause = FileExporter(file, service), FILE_SECONDS
    else:
        exporter, pause = _collector(settings), OTLP_SECONDS
    # A collector that is away is counted, not told of again and again.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider = TracerProvider(
        ParentBased(AtMost(settings.traces_per_second)),
        Resource.create({"service.name": service}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(Batches(Counted(exporter), pause))
    return provider


def _collector(settings: TraceSettings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - a tenth of a second
        OTLPSpanExporter,
    )

    endpoint = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    return OTLPSpanExporter(endpoint, timeout=SEND_SECONDS)


class Batches(BatchSpanProcessor):
    """Sends spans a while after the first of them; OpenTelemetry's own thread looks all the time for some.

    Args:
        exporter: where to.
        pause: how long after, in seconds.

    """

    def __init__(self, exporter: SpanExporter, pause: float) -> None:
        super().__init__(exporter, QUEUED, SELDOM_MILLISECONDS)
        self._pause = pause
        self._some = threading.Event()
        threading.Thread(target=self._send, name="spans", daemon=True).start()

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span."""
        super().on_end(span)
        self._some.set()

    def shutdown(self) -> None:
        """Send what is left, and end."""
        super().shutdown()  # type: ignore[no-untyped-call] # as OpenTelemetry has it
        self._some.set()

    def _send(self) -> None:
        is_open = True
        while is_open:
            self._some.wait()
            time.sleep(self._pause)
            self._some.clear()
            is_open = self.force_flush()


class AtMost(Sampler):
    """Lets a bounded number of traces begin each second, by the name of their first span.

    So an upload is traced whatever else goes on, and a thousand detections a second cost little.

    Args:
        rate: traces a second, for each name; as many may begin at once.

    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left: dict[str, tuple[float, float]] = {}

    def should_sample(  # noqa: PLR0917 - OpenTelemetry's own
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Take or drop a trace that begins here."""
        del parent_context, trace_id, kind, links
        now, most = time.monotonic(), max(self._rate, 1.0)
        left, last = self._left.get(name, (most, now))
        left = min(most, left + (now - last) * self._rate)
        takes = left >= 1
        if name in self._left or len(self._left) < NAMES:
            self._left[name] = (left - takes, now)
        if not takes:
            return SamplingResult(Decision.DROP, trace_state=trace_state)
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)

    def get_description(self) -> str:
        """Name it, for whoever looks."""
        return f"AtMost{{{self._rate:g}}}"


class Counted(SpanExporter):
    """Counts the spans that another exporter could not send, and logs the first such failure in a row."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, or count them."""
        try:
            result, error = self._exporter.export(spans), ""
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is only the trace that misses something
            result, error = SpanExportResult.FAILURE, repr(exc)
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            BEST_EFFORT_FAILURES.labels(SINK).inc(len(spans))
            if not self._fails:
                log.warning("best-effort sink failed", sink=SINK, error=error)
        self._fails = failed
        return result

    def shutdown(self) -> None:
        """End it."""
        self._exporter.shutdown()


class FileExporter(SpanExporter):
    """Appends spans to a file, a line each; a full one moves aside.

    The file is opened for each batch, so that processes may share one, and who removes it harms nobody.
    """

    def __init__(self, path: Path, service: str) -> None:
        self._path = path
        self._service = service

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans. Raises OSError."""
        lines = b"".join(to_json(_told(span, self._service)) + b"\n" for span in spans)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size + len(lines) <= MOST_BYTES or not size:
                file.write(lines)
                return SpanExportResult.SUCCESS
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._path.write_bytes(lines)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing: no file is held open."""


def _told(span: ReadableSpan, service: str) -> dict[str, Any]:
    return {
        **_named(span.get_span_context()),
        "parent": format_span_id(span.parent.span_id) if span.parent else None,
        "name": span.name,
        "service": service,
        "began": span.start_time,
        "ended": span.end_time,
        "error": (span.status.description or "failed") if not span.status.is_ok else None,
        "facts": dict(span.attributes or {}),
        "links": [_named(link.context) for link in span.links],
    }


def _named(context: SpanContext | None) -> dict[str, str]:
    if context is None:
        return {}
    return {"trace": format_trace_id(context.trace_id), "span": format_span_id(context.span_id)}
