"""Counters and distributions under TensorFlow Serving's names, in Prometheus' text format.

Those names start with a colon and a counter has no `_total`, which the client library would change; hence
these few lines of our own. Safe to call from any thread.
"""

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock

PREFIX = ":tensorflow:serving:"
REFUSALS = "caravan_refusals_total"
OVERDUE = "caravan_overdue_calls_total"
LATENCY_BOUNDS = tuple(10 * 1.8**power for power in range(33))  # microseconds, as in the original
SIZE_BOUNDS = tuple(float(2**power) for power in range(11))

Labels = tuple[tuple[str, str], ...]


class _Distribution:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Metrics:
    """What the server counts about requests."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: dict[Labels, int] = {}
        self._refusals: dict[Labels, int] = {}
        self._overdue: dict[Labels, int] = {}
        self._distributions: dict[str, dict[Labels, _Distribution]] = {}

    def answered(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """A request was answered, after `seconds`, with the canonical code `status`."""
        labels: Labels = (("model_name", model), ("status", status))
        with self._lock:
            self._requests[labels] = self._requests.get(labels, 0) + 1
        self._observe(
            "request_latency",
            (("model_name", model), ("API", api), ("entrypoint", entrypoint), ("status", status)),
            seconds * 1e6,
            LATENCY_BOUNDS,
        )

    def refused(self, door: str, reason: str) -> None:
        """Someone was not let in at a door, for a reason that is one of few."""
        labels: Labels = (("door", door), ("reason", reason))
        with self._lock:
            self._refusals[labels] = self._refusals.get(labels, 0) + 1

    def overdue(self, model: str) -> None:
        """A call of a model took too long."""
        labels: Labels = (("model_name", model),)
        with self._lock:
            self._overdue[labels] = self._overdue.get(labels, 0) + 1

    def queued(self, seconds: float) -> None:
        """A request waited for a thread."""
        self._observe(
            "batching_session:queuing_latency", (("thread_pool_name", ""),), seconds * 1e6, LATENCY_BOUNDS
        )

    def ran(self, model: str, seconds: float, requests: int) -> None:
        """TensorFlow ran `requests` requests as one."""
        self._observe("runtime_latency", (("model_name", model),), seconds * 1e6, LATENCY_BOUNDS)
        self._observe(
            "batching_session:processed_batch_size", (("model_name", model),), requests, SIZE_BOUNDS
        )

    def page(self) -> str:
        """The page Prometheus reads."""
        with self._lock:
            lines = [f"# TYPE {PREFIX}request_count counter"]
            lines += [f"{PREFIX}request_count{{{_text(key)}}} {n}" for key, n in self._requests.items()]
            lines.append(f"# TYPE {REFUSALS} counter")
            lines += [f"{REFUSALS}{{{_text(key)}}} {n}" for key, n in self._refusals.items()]
            lines.append(f"# TYPE {OVERDUE} counter")
            lines += [f"{OVERDUE}{{{_text(key)}}} {n}" for key, n in self._overdue.items()]
            for name, by_labels in self._distributions.items():
                lines.append(f"# TYPE {PREFIX}{name} histogram")
                for labels, distribution in by_labels.items():
                    lines += _histogram(f"{PREFIX}{name}", labels, distribution)
        return "\n".join(lines) + "\n"

    def _observe(self, name: str, labels: Labels, value: float, bounds: Sequence[float]) -> None:
        with self._lock:
            by_labels = self._distributions.setdefault(name, {})
            if labels not in by_labels:
                by_labels[labels] = _Distribution(bounds)
            by_labels[labels].add(value)


def _histogram(name: str, labels: Labels, distribution: _Distribution) -> list[str]:
    lines = []
    total = 0
    for bound, count in zip([*distribution.bounds, None], distribution.counts, strict=True):
        total += count
        limit = "+Inf" if bound is None else f"{bound:g}"
        lines.append(f"{name}_bucket{{{_text((*labels, ('le', limit)))}}} {total}")
    lines.append(f"{name}_sum{{{_text(labels)}}} {distribution.sum:g}")
    lines.append(f"{name}_count{{{_text(labels)}}} {total}")
    return lines


def _text(labels: Labels) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
