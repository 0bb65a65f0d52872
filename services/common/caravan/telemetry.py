"""Logs and metrics. A route's id, and the id of the exchange on it, are on every line that it logs."""

from __future__ import annotations

import functools
import io
import logging
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

import structlog
from prometheus_client import Counter, Gauge, Histogram

from caravan import tracing

log = structlog.get_logger()

EXCHANGES = Counter("caravan_exchanges_total", "Messages that a route has finished", ["route", "outcome"])
IN_FLIGHT = Gauge("caravan_exchanges_in_flight", "Messages that are on a route now", ["route"])
DURATION = Histogram("caravan_exchange_seconds", "Time that a message spends on a route", ["route"])
RETRIES = Counter("caravan_retries_total", "Attempts repeated after a transient error", ["dependency"])
BEST_EFFORT_FAILURES = Counter(
    "caravan_best_effort_failures_total", "Best-effort effects that failed or were dropped", ["sink"]
)
DEAD_LETTERS = Counter("caravan_dead_letters_total", "Messages made dead letters", ["route", "reason"])
PARKED = Counter("caravan_parked_total", "Messages sent to where they are read again later", ["topic"])
DEAD_LETTERS_WITHOUT_VALUE = Counter(
    "caravan_dead_letters_without_value_total",
    "Dead letters whose message was too large to be kept",
    ["route"],
)
KAFKA_LAG = Gauge(
    "caravan_kafka_lag", "Messages that a consumer has not taken yet", ["group", "topic", "partition"]
)
MQTT_OUTBOX = Gauge("caravan_mqtt_outbox_messages", "Events that wait for the MQTT broker")
CIRCUIT_OPEN = Gauge(
    "caravan_circuit_open", "Whether a dependency is spared for a while, having failed", ["dependency"]
)
REFUSALS = Counter("caravan_refusals_total", "Input sent back to its sender", ["door", "reason"])
"""`door` is a method and path (`POST /detection`), or a route's id."""


def configure_logging(level: str, log_format: str) -> None:
    """Set up structured logs on standard error: readable lines, or JSON for collectors."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [_trace_ids, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            # The plain trace: a pretty one shows local variables, and secrets among them.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    stream = cast("TextIO", _StandardError())
    structlog.configure(
        processors=shared + renderer,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream, format="%(levelname)s %(name)s: %(message)s")
    # The client retries by itself and would fill the log while a broker is away; our own loops say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _trace_ids(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.update(tracing.ids())
    return event


class _StandardError(io.TextIOBase):
    """Standard error as it is when a line is written: a progress bar takes its place, to stay below."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@functools.cache
def _of(metric: Counter | Gauge | Histogram, *labels: str) -> Any:
    """Return what is counted of a route: to find it among all by its labels costs as much as to count."""
    return metric.labels(*labels)


@contextmanager
def exchange(route: str, *, begins_trace: bool = True) -> Iterator[str]:
    """Count and time one message on a route, and name both in its log lines; yields the exchange's id.

    It is a span of the current trace, or begins one, unless `begins_trace` is off: for what the system tells
    itself.
    """
    exchange_id = uuid.uuid4().hex[:12]
    began = time.perf_counter()
    with (
        structlog.contextvars.bound_contextvars(route=route, exchange=exchange_id),
        _of(IN_FLIGHT, route).track_inprogress(),
        tracing.span(route, begins=begins_trace, exchange=exchange_id),
    ):
        try:
            yield exchange_id
        except BaseException:
            _of(EXCHANGES, route, "failed").inc()
            raise
        else:
            _of(EXCHANGES, route, "done").inc()
        finally:
            _of(DURATION, route).observe(time.perf_counter() - began)


@contextmanager
def best_effort(sink: str, count: int = 1) -> Iterator[None]:
    """Guard `count` effects that may fail without failing their messages: logged, counted, not raised."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - whatever it is, the message is already done
        BEST_EFFORT_FAILURES.labels(sink).inc(count)
        log.warning("best-effort sink failed", sink=sink, error=repr(exc))
