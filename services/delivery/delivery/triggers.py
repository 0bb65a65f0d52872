"""Triggers that wait for their run: at most one per edge, whatever arrives. Pure; times are seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord

from caravan.kafka import trace_of
from caravan.retry import pause

LINKS = 20
"""Traces of joined messages that are remembered."""


@dataclass(slots=True)
class Trigger:
    """An edge that wants a training run.

    Attributes:
        edge: its id.
        latest: the last of the messages that asked for it.
        joined: traces of those before, the last few.
        count: how many messages asked.
        due: when to try (again).
        failures: tries that failed.

    """

    edge: str
    latest: ConsumerRecord
    due: float
    count: int = 1
    failures: int = 0
    joined: deque[Mapping[str, str]] = field(default_factory=lambda: deque(maxlen=LINKS))


@dataclass(slots=True)
class Triggers:
    """The triggers that wait, one per edge.

    Args:
        coalesce: seconds that a first trigger waits for more of its edge.

    """

    coalesce: float
    waiting: dict[str, Trigger] = field(default_factory=dict)

    def add(self, edge: str, record: ConsumerRecord, now: float) -> None:
        """Take a message; a second one for the same edge joins the first."""
        if (trigger := self.waiting.get(edge)) is None:
            self.waiting[edge] = Trigger(edge, record, due=now + self.coalesce)
        else:
            trigger.joined.append(trace_of(trigger.latest))
            trigger.latest = record
            trigger.count += 1

    def due(self, now: float) -> list[Trigger]:
        """Return those to try now."""
        return [trigger for trigger in self.waiting.values() if trigger.due <= now]

    def next_due(self, now: float, *, at_most: float) -> float:
        """Return the seconds until the next is due, between 0 and `at_most`."""
        return max(0.0, min([at_most, *(t.due - now for t in self.waiting.values())]))

    def done(self, trigger: Trigger) -> None:
        """Forget a trigger: its run was accepted, or it was put aside."""
        del self.waiting[trigger.edge]

    def failed(self, trigger: Trigger, now: float) -> None:
        """Put a trigger off, longer with each failure."""
        trigger.failures += 1
        trigger.due = now + pause(trigger.failures)
