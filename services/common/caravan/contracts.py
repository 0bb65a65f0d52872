"""Names that others rely on: buckets, keys, topics and events. Change none of them lightly."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from caravan import names
from caravan.errors import BadInput
from caravan.names import as_class, cut, folder_of, is_file_name, is_folder, is_image_name

DEFAULT_MODEL = "tea_model_b64"
OTHER = names.OTHER
"""The class of unknown things."""

# --- buckets ------------------------------------------------------------------------------------

PRODUCTION = "production"
DATA = "data"
VALID = "valid"
UNCLASSIFIED = "unclassified"


def data_bucket(edge: str) -> str:
    """Training images of an edge, at central."""
    return f"{edge}-data"


def models_bucket(edge: str) -> str:
    """Versions made for an edge, rejected ones too, at central: the newest of each kind."""
    return f"{edge}-models"


def ready_bucket(edge: str) -> str:
    """Versions that may go to the edge, at central."""
    return f"{edge}-ready"


def central_buckets(edge: str) -> tuple[str, str, str]:
    """Return the three buckets that an edge has at central."""
    return data_bucket(edge), models_bucket(edge), ready_bucket(edge)


def group_buckets(group: str) -> tuple[str, str]:
    """Return the two buckets that a group of edges has at central; its images are its members'."""
    return models_bucket(group), ready_bucket(group)


# --- keys ---------------------------------------------------------------------------------------

IMAGES = "images/"
REJECTED = "rejected/"
"""Prefix of rejected images: in `data` what central rejected, in `unclassified` what shows no product."""
MODELS = "models/"
MANIFEST = "manifest.json"
SIGNATURE = "model.sig"
"""OpenSSF model signature over every other file of a version, the manifest included."""
SAVED_MODEL = "saved_model.pb"
ONNX_MODEL = "model.onnx"
ENTRY_FILES = (SAVED_MODEL, ONNX_MODEL)
"""The file that makes a version visible to a model server, and so the last to be written."""
TWIN = "assets.extra/twin.onnx"
"""The same model for ONNX Runtime, beside a SavedModel of ours: TensorFlow Serving leaves the folder alone.

Input `pixels` [N, 224, 224, 3] uint8, RGB, upright; output `probabilities` [N, C] float32; the C names are
in its metadata under `classes`, as a JSON array."""
HEAD = "assets.extra/head.npz"
"""Arrays that a version has learnt, by which central compares later versions with it."""
ONE_IMAGE = "serving_default answers one image: ask for each by itself, or ask classify"
"""Error of our models for a request with several images."""
MODELS_CONFIG = "models/models.config"
"""Models that an edge's model server serves, beside them, in TensorFlow Serving's format."""
CLAIMS = "claims/"
"""Prefix in `E-models` of version numbers that are taken: by which attempt, when, and in which run."""
UPLOADS = "uploads/"
"""Prefix in `E-models` of models that people sent, until the pipeline has judged them."""


def image_key(item: str, file: str) -> str:
    """Key of an image of class `item`."""
    return f"{IMAGES}{folder_of(item)}/{file}"


def image_of(key: str) -> tuple[str, str] | None:
    """Return class and file of the key of an image that can be learnt from; None for any other key."""
    parts = key.removeprefix(IMAGES).split("/")
    if not key.startswith(IMAGES) or len(parts) != 2:  # noqa: PLR2004 - class and file
        return None
    item, file = as_class(parts[0]), parts[1]
    return (item, file) if is_folder(item) and is_file_name(file) and is_image_name(file) else None


def class_of(key: str) -> str:
    """Return the class in the key of an image; empty if it is none."""
    images, _, rest = key.partition("/")
    item, slash, _ = rest.partition("/")
    return as_class(item) if slash and f"{images}/" == IMAGES else ""


def key_by_content(key: str, sha256: str) -> str:
    """Key of content whose name is taken by other content: `images/tea/a-<12 hex digits>.jpg`."""
    path = PurePosixPath(key)
    return str(path.with_name(f"{path.stem}-{sha256[:12]}{path.suffix}"))


def possible_keys(key: str, sha256: str) -> tuple[str, str, str]:
    """Keys that content with a name may have, in the order in which they are tried.

    Its own; that with a suffix, if other content has it; and where that is taken too, its whole SHA-256.
    """
    path = PurePosixPath(key)
    return key, key_by_content(key, sha256), str(path.with_name(f"{sha256}{path.suffix}"))


def version_prefix(model: str, version: int) -> str:
    """Prefix, with its slash, of every file of a model version."""
    return f"{MODELS}{model}/{version}/"


def claim_key(model: str, version: int | str) -> str:
    """Key, in `E-models`, of the claim on a version's number."""
    return f"{CLAIMS}{model}/{version}.json"


@dataclass(frozen=True, slots=True, order=True)
class VersionKey:
    """One file of a model version: `models/<model>/<version>/<path>`."""

    model: str
    version: int
    path: str

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """Return the parts of a key, or None where it is not a file of a version."""
        match = re.fullmatch(r"models/([^/]+)/(\d+)/(.+)", key)
        if match is None or int(match[2]) < 1:
            return None
        return cls(match[1], int(match[2]), match[3])


MODEL_RULE = "a model's name has letters, digits, _, - and inner dots, at most 128"
_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def is_model_name(text: str) -> bool:
    """Tell whether a name is safe in a path and a URL, and cannot be taken for what is ours."""
    return _MODEL_NAME.fullmatch(text) is not None and text != PurePosixPath(MODELS_CONFIG).name


def parse_model(text: str | None) -> str:
    """Check the name of a model that comes from outside.

    Raises:
        BadInput: 400 if missing or malformed.

    """
    if not text:
        raise BadInput("the model's name is missing: add &name=<model>", reason="no-model-name")
    if not is_model_name(text):
        raise BadInput(MODEL_RULE, reason="bad-model-name")
    return text


# --- edge ids -----------------------------------------------------------------------------------

_EDGE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def parse_edge(text: str | None, known: Collection[str]) -> str:
    """Check the id of an edge: a DNS label, and one of those configured.

    Raises:
        BadInput: 400 if missing or malformed, 404 if unknown.

    """
    if not text:
        raise BadInput("the edge id is missing: add ?edgeId=<edge> or the header edgeId")
    if not is_edge_id(text):
        raise BadInput("an edge id is a DNS label: a-z, 0-9 and inner hyphens, at most 63 characters")
    if text not in known:
        raise BadInput(f"edge {text!r} is not configured here", status=404)
    return text


def is_edge_id(text: str) -> bool:
    """Tell whether a text is a DNS label."""
    return _EDGE.fullmatch(text) is not None


LONGEST_EDGE = 63 - len("-models")
"""Most characters of an edge's id: a bucket's name has at most 63, and `models_bucket` is the longest."""
_NO_BUCKETS = ("xn--", "sthree-")


# --- Kafka and MQTT -----------------------------------------------------------------------------

TRIGGER = "trigger"
"""Kafka topic: value is the bare edge id, further facts are headers."""

MONITOR = "monitor"
"""MQTT topic of all that an edge's dashboard shows."""

MODEL_READY = "model-ready"
"""Name of the event that a version is on its way to the edge."""

TRUSTED = "trusted"
"""Name of the event by which an edge's shopper says which version it trusts, where it compares versions."""

TRAINING = "training"
"""Name of the event that tells how far a run is."""

EDGE_METRICS = "edge-metrics"
"""Kafka topic of the shoppers' counts and uncertain images, and of images where two versions differ."""

EDGE_STATUS = "edge-status"
"""Kafka topic of what each edge serves, told by its edge-manager when that changes and every minute.

The key is the edge's id, the value `{"schema": 1, "at": "<ISO 8601>", …}` with all that its `GET /versions`
answers; an edge's newest message is how things stand there. Central cannot ask: links are opened by edges.

The edge's shopper tells here, by the key `answers_key`, how good its answers of the last seven days are:
`{"at", "asked", "versions", "answers", "labelled", "accuracy", "low", "high", "products": […]}`.
While it compares a new version of a model with the one before, it tells by the key `evidence_key` what that
showed so far: `caravan.evidence`. Pictures of the images that it names there are on `EDGE_METRICS`.

Central tells here, by the key `rollout_key`, how far a version has come at the edges of a group:
`caravan.rollouts`, `Told`.
"""

_ANSWERS = "/answers"
_EVIDENCE = "/evidence/"
_ROLLOUT = "/rollout/"

TRAINING_IMAGES = "training-images"
"""Kafka topic of labelled images on their way into training data."""

TRAINING_IMAGES_RETRY = "training-images-retry"
"""Kafka topic of labelled images that wait, as when their edge's bucket refuses them."""

_SHARED_TOPICS = (TRIGGER, EDGE_METRICS, EDGE_STATUS, TRAINING_IMAGES, TRAINING_IMAGES_RETRY)


def answers_key(edge: str) -> bytes:
    """Key in `EDGE_STATUS` of how good an edge's answers are; no edge's id has a slash."""
    return f"{edge}{_ANSWERS}".encode()


def edge_of_answers(key: str) -> str | None:
    """Return the edge in a key that `answers_key` made; None for any other key."""
    return key.removesuffix(_ANSWERS) if key.endswith(_ANSWERS) else None


def evidence_key(edge: str, model: str) -> bytes:
    """Key in `EDGE_STATUS` of what an edge found of a new version of a model; neither name has a slash."""
    return f"{edge}{_EVIDENCE}{model}".encode()


def of_evidence(key: str) -> tuple[str, str] | None:
    """Return edge and model in a key that `evidence_key` made; None for any other key."""
    edge, slash, model = key.partition(_EVIDENCE)
    return (edge, model) if slash else None


def rollout_key(group: str, model: str) -> bytes:
    """Key in `EDGE_STATUS` of how far a version has come at the edges of a group."""
    return f"{group}{_ROLLOUT}{model}".encode()


def of_rollout(key: str) -> tuple[str, str] | None:
    """Return group and model in a key that `rollout_key` made; None for any other key."""
    group, slash, model = key.partition(_ROLLOUT)
    return (group, model) if slash else None


def images_topic(edge: str) -> str:
    """Kafka topic of images to be classified at an edge: the value is the encoded image."""
    return f"{edge}-images"


def detections_topic(edge: str) -> str:
    """Kafka topic of the answers to `images_topic`, with the request's key and headers."""
    return f"{edge}-detections"


def events_topic(edge: str) -> str:
    """Kafka topic of an edge's events."""
    return edge


def dead_letter(topic: str) -> str:
    """Kafka topic of the messages of `topic` that could not be handled."""
    return f"{topic}-dead-letter"


def first_topic(topic: str) -> str:
    """Kafka topic that the messages of a topic first came on."""
    return TRAINING_IMAGES if topic == TRAINING_IMAGES_RETRY else topic


def edge_faults(edges: Sequence[str]) -> list[str]:
    """Return what keeps these ids from being edges beside each other, a sentence each.

    An edge's topics and buckets are made of its id: they must be names, and nobody else's.
    """
    owners = {topic: "all edges" for name in _SHARED_TOPICS for topic in (name, dead_letter(name))}
    faults = [fault for edge in dict.fromkeys(edges) if (fault := _edge_fault(edge, owners))]
    return [*faults, "an edge is named twice"] if len(set(edges)) < len(edges) else faults


def _edge_fault(edge: str, owners: dict[str, str]) -> str:
    """Return what is wrong with one id, or enter its topics among those that have owners."""
    if not is_edge_id(edge):
        return f"{edge!r} is not an edge id: a DNS label of a-z, 0-9 and inner hyphens"
    if len(edge) > LONGEST_EDGE:
        bucket = models_bucket("<edge>")
        return f"the edge id {edge!r} has more than {LONGEST_EDGE} characters: {bucket} is a bucket, of 63"
    if edge.startswith(_NO_BUCKETS):
        return f"{edge!r} cannot be an edge id: S3 keeps such names of buckets for itself"
    own = (events_topic(edge), images_topic(edge), detections_topic(edge))
    topics = [topic for name in own for topic in (name, dead_letter(name))]
    for topic in topics:
        if topic in owners:
            return f"{edge!r} cannot be an edge id: {topic!r} is a Kafka topic of {owners[topic]}"
    owners.update(dict.fromkeys(topics, f"the edge {edge!r}"))
    return ""


Event = dict[str, Any]

LONGEST_FACT = 500
"""Most characters of a text in an event, as of a reason."""


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_json(value: object) -> bytes:
    """Encode what goes out, compact as the systems before wrote it: some clients match its text."""
    return _COMPACT.encode(value).encode()


def zipfile_event() -> Event:
    """One training image was stored."""
    return {"name": "zipfile"}


def pipeline_event(files: int) -> Event:
    """Training was triggered by an upload of so many images."""
    return {"name": "pipeline", "files": str(files)}


def model_upload_event(model: str, upload: str, size: int) -> Event:
    """Tell that a model was sent, as a ZIP of so many bytes, and is going to be judged."""
    return {"name": "model-upload", "model": model, "upload": upload, "bytes": size}


def training_event(stage: str, progress: float, **facts: Any) -> Event:
    """Training is at `stage`, `progress` in 0..1 of the whole run."""
    short = {name: cut(fact, LONGEST_FACT) if isinstance(fact, str) else fact for name, fact in facts.items()}
    return {"name": TRAINING, "stage": stage, "progress": round(progress, 3), **short}


def model_ready_event(model: str, version: int, **facts: Any) -> Event:
    """Tell that a version passed the gate and is on its way to the edge."""
    return {"name": MODEL_READY, "model": model, "version": version, **facts}


def model_rejected_event(model: str, version: int | None, reason: str, **facts: Any) -> Event:
    """Tell that a version, or the data for one, was refused, and why."""
    return {
        "name": "model-rejected",
        "model": model,
        "version": version,
        "reason": cut(reason, LONGEST_FACT),
        **facts,
    }


def quarantine_event(batch: str, images: int, reason: str) -> Event:
    """Tell that so many images of a batch are not learnt from until a person says so, and why."""
    return {"name": "quarantine", "batch": batch, "images": images, "reason": cut(reason, LONGEST_FACT)}


def pushmodel_event(model: str, version: int) -> Event:
    """Tell that the edge's model server answers with this version."""
    return {"name": "pushmodel", "model": model, "version": version}


def trusted_event(model: str, version: int) -> Event:
    """Tell that the edge's shopper trusts this version; a newer one may answer a share of the images."""
    return {"name": TRUSTED, "model": model, "version": version}
