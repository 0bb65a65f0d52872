"""The dashboard's part of Kafka, read into its state."""

from __future__ import annotations

import structlog
from aiokafka import ConsumerRecord

from caravan import telemetry
from caravan.contracts import EDGE_STATUS, edge_of_answers, of_evidence, of_rollout
from caravan.errors import BadInput
from caravan.history import History
from monitor.dashboard.messages import read_comparison, read_event, read_quality, read_rollout, read_status
from monitor.dashboard.state import Dashboard

log = structlog.get_logger()


def take(state: Dashboard, record: ConsumerRecord, route: str, history: History) -> None:
    """Take one message in; count and log an unreadable one, which stays on its topic.

    Args:
        state: the dashboard's state.
        record: a message of a topic `E`, or of `edge-status`.
        route: for counting.
        history: tells when an edge was heard of, whose clock may be wrong; the clocks at central are trusted.

    """
    at = history.written(record)
    name = f"{record.topic}-{record.partition}-{record.offset}"
    try:
        if record.topic == EDGE_STATUS:
            key = (record.key or b"").decode(errors="replace")
            edge = state.edges.get(key)
            if edge is not None:
                edge.hear(read_status(record.value), history.times(record)[1], name)
            elif (rolled_out := of_rollout(key)) is not None:
                state.hear_rollout(read_rollout(record.value, *rolled_out), at, name)
            elif (answering := state.edges.get(edge_of_answers(key) or "")) is not None:
                answering.hear_quality(read_quality(record.value), history.times(record)[1], name)
            elif (comparing := state.edges.get((of_evidence(key) or ("",))[0])) is not None:
                comparing.hear_comparison(read_comparison(record.value), history.times(record)[1], name)
        else:
            event = read_event(record.value)
            if event is not None:
                state.edges[record.topic].take(event, at, name)
    except BadInput as exc:
        telemetry.REFUSALS.labels(route, exc.reason).inc()
        log.warning("message ignored", topic=record.topic, offset=record.offset, reason=exc.detail)
