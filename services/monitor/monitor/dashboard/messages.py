"""The events of Kafka `E` and the words of `edge-status`, read. Pure; what is not known is passed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caravan import evidence, strict_json
from caravan.contracts import is_model_name
from caravan.errors import BadInput
from caravan.evidence import Differing, verdict
from caravan.rollout import Told
from caravan.strict_json import NotJson

LONGEST = 300
"""Most characters kept of a text."""
MOST_MODELS = 50
MOST_REFUSED = 20
MOST_PRODUCTS = 100
NAMES = frozenset(
    {"zipfile", "pipeline", "model-upload", "training", "model-ready", "model-rejected", "quarantine"}
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened for an edge at central.

    Args:
        name: one of `NAMES`.
        files: images of a `pipeline`.
        run: id of a training's run; empty if the event does not say.
        stage: stage of that run.
        progress: progress of that run, 0..1.
        model: whose; empty where the event does not say.
        version: version of the model; 0 if there is none.
        reason: why not; empty where there is none.
        outcome: how a training ended; empty while it runs.

    """

    name: str
    files: int = 0
    run: str = ""
    stage: str = ""
    progress: float = 0.0
    model: str = ""
    version: int = 0
    reason: str = ""
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that the edge refused; `at` is ISO 8601."""

    version: int
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What an edge says of one model; 0 is no version."""

    serving: int
    since: str
    fault: str
    waiting: Mapping[int, str]
    refused: Mapping[int, Refusal]
    at_edge: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What an edge says of itself; faults are empty where all is well."""

    central_fault: str
    server_fault: str
    models: Mapping[str, ModelStatus]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an edge found of a new version of a model beside the one before.

    Args:
        model: whose.
        version: the new version.
        beside: the one before.
        outcome: `stop`, `promote`, or `wait` while they are compared.
        says: the evidence, a sentence.
        differing: images to look at, the newest first.

    """

    model: str
    version: int
    beside: int
    outcome: str
    says: str
    differing: tuple[Differing, ...] = ()


def read_event(value: bytes | None) -> Event | None:
    """Read an event; None for one of a name that is not shown.

    Raises:
        BadInput: if it is none; `reason` is `not-json` or `bad-message`.

    """
    body = _object(value)
    name = body.get("name")
    if not isinstance(name, str) or name not in NAMES:
        return None
    try:
        return Event(
            name=name,
            files=_count(body.get("files")),
            run=_text(body.get("run")),
            stage=_text(body.get("stage")),
            progress=_share(body.get("progress")),
            model=_text(body.get("model")),
            version=_count(body.get("version")),
            reason=_text(body.get("reason")),
            outcome=_text(body.get("outcome")),
        )
    except (TypeError, ValueError, OverflowError) as exc:
        raise _bad(exc) from exc


def read_status(value: bytes | None) -> Status:
    """Read what an edge says of itself.

    Raises:
        BadInput: if it is none; `reason` is `not-json` or `bad-message`.

    """
    body = _object(value)
    try:
        models = list(body["models"].items())[:MOST_MODELS]
        return Status(
            central_fault=_fault(body.get("central")),
            server_fault=_fault(body.get("model_server")),
            models={name: _model(model) for name, model in models if is_model_name(name)},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise _bad(exc) from exc


def read_rollout(value: bytes | None, group: str, model: str) -> Told:
    """Read how far a version has come at the edges of a group.

    Raises:
        BadInput: if it is not told, or of another group or model; `reason` is `not-json` or `bad-message`.

    """
    try:
        told = Told.of(_object(value))
    except NotJson as exc:
        raise BadInput(f"the message tells of no rollout: {exc}", reason="bad-message") from exc
    if (told.group, told.model) != (group, model):
        raise BadInput("the message is of another rollout than its key", reason="bad-message")
    return told


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often answers are right: `answers` is their number, of which some are labelled.

    `share`, `low` and `high` (an interval of 95 %) are 0..1, None where nothing is labelled.
    """

    answers: int
    labelled: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ProductAccuracy:
    """The accuracy of one product's answers; `wrong_for` is what its wrong confident ones mostly show."""

    item: str
    label: str
    accuracy: Accuracy
    confidently_wrong: bool
    wrong_for: str


@dataclass(frozen=True, slots=True)
class Drift:
    """Answers of a version look unlike those before `since` (ISO 8601); `images` of them wait for a label."""

    version: int
    since: str
    images: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How good an edge's answers of the last seven days are; `asked` is how many people were asked about."""

    asked: int
    versions: tuple[int, ...]
    all: Accuracy
    products: tuple[ProductAccuracy, ...]
    drift: Drift | None


def read_comparison(value: bytes | None) -> Comparison:
    """Read what an edge found of a new version beside the one before.

    Raises:
        BadInput: if it does not tell; `reason` is `bad-message`.

    """
    try:
        found = evidence.read(value or b"")
    except NotJson as exc:
        raise BadInput(f"the message is no evidence: {exc}", reason="bad-message") from exc
    seen = found.evidence
    return Comparison(
        seen.model, seen.version, seen.beside, found.outcome, verdict(seen).says, found.differing
    )


def read_quality(value: bytes | None) -> Quality:
    """Read how good an edge's answers are.

    Raises:
        BadInput: if it is none; `reason` is `not-json` or `bad-message`.

    """
    body = _object(value)
    try:
        return Quality(
            asked=_count(body["asked"]),
            versions=tuple(_count(version) for version in body["versions"][-MOST_REFUSED:]),
            all=_accuracy(body),
            products=tuple(
                ProductAccuracy(
                    item=_text(one["item"]),
                    label=_text(one["label"]),
                    accuracy=_accuracy(one),
                    confidently_wrong=one["confidently_wrong"] is True,
                    wrong_for=_text(one.get("taken_for_it")),
                )
                for one in body["products"][:MOST_PRODUCTS]
            ),
            drift=_drift(body["drift"]) if body.get("drift") else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise _bad(exc) from exc


def _drift(body: dict[str, Any]) -> Drift:
    return Drift(_count(body["version"]), _text(body["since"]), _count(body["images"]))


def _accuracy(body: dict[str, Any]) -> Accuracy:
    share, low, high = (
        None if body[name] is None else _share(body[name]) for name in ("accuracy", "low", "high")
    )
    return Accuracy(_count(body["answers"]), _count(body["labelled"]), share, low, high)


def _model(body: dict[str, Any]) -> ModelStatus:
    waiting = {_count(one["version"]): _text(one["reason"]) for one in body["waiting"][-MOST_REFUSED:]}
    refused = [
        Refusal(_count(one["version"]), _text(one["reason"]), _text(one.get("at")))
        for one in body["refused"][-MOST_REFUSED:]
    ]
    return ModelStatus(
        serving=_count(body["serving"]),
        since=_text(body.get("serving_since")),
        fault=_text(body.get("fault")),
        waiting=waiting,
        refused={one.version: one for one in refused},
        at_edge=tuple(_count(version) for version in body["at_edge"][-MOST_REFUSED:]),
    )


def _object(value: bytes | None) -> dict[str, Any]:
    try:
        body = strict_json.loads(value or b"")
    except NotJson as exc:
        raise BadInput(f"the message is not JSON: {exc}", reason="not-json") from exc
    if not isinstance(body, dict):
        raise BadInput("the message is not a JSON object", reason="bad-message")
    return body


def _bad(exc: Exception) -> BadInput:
    return BadInput(f"the message lacks something, or it is of another type: {exc!r}", reason="bad-message")


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text.encode(errors="replace").decode()[:LONGEST]


def _fault(value: Any) -> str:
    return "" if value == "ok" else _text(value)


def _count(value: Any) -> int:
    number = int(value or 0)
    if not 0 <= number < 2**53:
        message = f"{value!r} is no count"
        raise ValueError(message)
    return number


def _share(value: Any) -> float:
    number = float(value or 0)
    if not math.isfinite(number):
        message = f"{value!r} is no share"
        raise ValueError(message)
    return min(max(number, 0.0), 1.0)
