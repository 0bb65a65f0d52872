"""The span files of a stack, read: which traces there are, and which one is meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from caravan import strict_json


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work; times are nanoseconds since 1970, `links` the traces that it also answers."""

    trace: str
    id: str
    parent: str | None
    name: str
    service: str
    began: int
    ended: int
    error: str | None
    facts: Mapping[str, Any]
    links: tuple[str, ...]

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Read a line. Raises ValueError, KeyError or TypeError if it is none."""
        read = strict_json.loads_object(line)
        return cls(
            trace=str(read["trace"]),
            id=str(read["span"]),
            parent=read["parent"],
            name=str(read["name"]),
            service=str(read["service"]),
            began=int(read["began"]),
            ended=int(read["ended"]),
            error=read["error"],
            facts=dict(read["facts"]),
            links=tuple(str(link["trace"]) for link in read["links"]),
        )


@dataclass(frozen=True)
class Trace:
    """The spans of one trace."""

    id: str
    spans: list[Span] = field(default_factory=list)

    @property
    def services(self) -> list[str]:
        """Who took part, in the order of their first spans."""
        return list(dict.fromkeys(span.service for span in sorted(self.spans, key=_began)))

    @property
    def began(self) -> int:
        """When the first span began."""
        return min(span.began for span in self.spans)

    @property
    def ended(self) -> int:
        """When the last span ended."""
        return max(span.ended for span in self.spans)

    def children(self) -> dict[str | None, list[Span]]:
        """Return the spans by parent, in the order of time; under None those whose parent is not here."""
        ids = {span.id for span in self.spans}
        found: dict[str | None, list[Span]] = defaultdict(list)
        for span in sorted(self.spans, key=_began):
            found[span.parent if span.parent in ids else None].append(span)
        return found


def read_traces(folder: Path) -> dict[str, Trace]:
    """Read all span files of a folder; a line that is cut off, or none of ours, is passed over."""
    traces: dict[str, Trace] = {}
    for span in _spans(sorted(folder.glob("*.jsonl*"))):
        traces.setdefault(span.trace, Trace(span.trace)).spans.append(span)
    return traces


def last(traces: Iterable[Trace]) -> Trace | None:
    """Return the trace that began last, of those that went from one service to another if there are any."""
    return max(traces, key=lambda trace: (len(trace.services) > 1, trace.began), default=None)


def of_upload(traces: Iterable[Trace], batch: str) -> Trace | None:
    """Return the last trace of an upload, by the `batch` of the feeder's answer or its beginning."""
    return last(
        trace
        for trace in traces
        if any(str(span.facts.get("batch", "")).startswith(batch) for span in trace.spans)
    )


def of_id(traces: Iterable[Trace], trace_id: str) -> Trace | None:
    """Return the trace of an id, or of the beginning of one."""
    return last(trace for trace in traces if trace.id.startswith(trace_id))


def going_on(traces: Iterable[Trace], trace: Trace) -> list[str]:
    """Return the ids of traces in which this one is answered along with others."""
    return [
        other.id
        for other in traces
        if other is not trace and any(trace.id in span.links for span in other.spans)
    ]


def _spans(files: Sequence[Path]) -> Iterator[Span]:
    for file in files:
        try:
            lines = file.read_bytes().splitlines()
        except FileNotFoundError:  # it moved aside just now
            continue
        for line in lines:
            try:
                yield Span.from_json(line)
            except (ValueError, KeyError, TypeError):
                continue


def _began(span: Span) -> int:
    return span.began
