"""What edges say of their models on Kafka `edge-status`: the newest word of each. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import structlog
from aiokafka import ConsumerRecord
from pydantic import BaseModel, TypeAdapter, ValidationError

from caravan import evidence, strict_json
from caravan.contracts import of_evidence
from caravan.evidence import Finding

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Said:
    """What an edge said of a model, by its own numbers.

    Attributes:
        serving: the version that answers; 0 for none.
        refused: why, by version.
        finding: what it found last of a new version, whichever that is.

    """

    serving: int = 0
    refused: Mapping[int, str] = field(default_factory=dict)
    finding: Finding | None = None


class _Refused(BaseModel):
    version: int
    reason: str = ""


class _Model(BaseModel):
    serving: int | None = None
    refused: list[_Refused] = []


class _Status(BaseModel):
    models: dict[str, _Model]


_STATUS = TypeAdapter(_Status)


class Hearing:
    """The newest word of each edge on each model."""

    def __init__(self, edges: Collection[str]) -> None:
        self._edges = edges
        self._said: dict[tuple[str, str], Said] = {}
        self._heard: dict[str, float] = {}

    def said(self, edge: str, model: str) -> Said:
        """Return what an edge said of a model; nothing, if it was not heard of."""
        return self._said.get((edge, model), Said())

    def silent_for(self, edge: str, now: float) -> float:
        """Return the seconds since an edge was heard of; infinite if it never was."""
        if edge not in self._heard:
            return float("inf")
        self._heard[edge] = min(self._heard[edge], now)  # the clock may have been set back
        return now - self._heard[edge]

    def take(self, record: ConsumerRecord, at: float) -> set[tuple[str, str]]:
        """Take a message in; what cannot be read is passed over.

        Args:
            record: of `edge-status`.
            at: when it came, seconds since 1970.

        Returns:
            Edge and model of each word that is new.

        """
        key = (record.key or b"").decode(errors="replace")
        try:
            if key in self._edges:
                self._heard[key] = max(at, self._heard.get(key, at))
                return self._status(key, record.value or b"")
            edge, model = of_evidence(key) or ("", "")
            if edge in self._edges:
                told = evidence.read(record.value or b"")
                return self._note(edge, model, replace(self.said(edge, model), finding=told))
        except (ValueError, ValidationError) as exc:
            log.warning("a message of an edge cannot be read", key=key, offset=record.offset, error=repr(exc))
        return set()

    def _status(self, edge: str, raw: bytes) -> set[tuple[str, str]]:
        changed = set()
        for model, told in _STATUS.validate_python(strict_json.loads_object(raw)).models.items():
            refused = {each.version: each.reason for each in told.refused}
            changed |= self._note(
                edge, model, replace(self.said(edge, model), serving=told.serving or 0, refused=refused)
            )
        return changed

    def _note(self, edge: str, model: str, said: Said) -> set[tuple[str, str]]:
        is_new = self.said(edge, model) != said
        self._said[edge, model] = said
        return {(edge, model)} if is_new else set()
