"""What people are asked to look at: images not known or not sure, and audits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self
from urllib.parse import unquote

from caravan.contracts import UNCLASSIFIED, VALID, image_of
from caravan.errors import BadInput
from caravan.names import metadata
from shopper.canary.comparing import Said
from shopper.catalogue import Catalogue, Product

BUCKETS = (UNCLASSIFIED, VALID)
"""Buckets of images that wait, in the order in which they are shown."""
Why = Literal["unknown", "uncertain", "audit", "drift", "differing"]

_MODEL = ("label", "score", "model", "version")


@dataclass(frozen=True, slots=True)
class Ref:
    """One image that waits: `unclassified/images/other/2026-11-21_09-05-03-007.jpg`."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference.

        Raises:
            BadInput: 422 if it is none.

        """
        bucket, _, key = text.partition("/")
        if bucket not in BUCKETS or not is_image(key):
            message = f"an image is named <bucket>/images/<item>/<file>, bucket {' or '.join(BUCKETS)}"
            raise BadInput(message, 422, reason="no-such-image")
        return cls(bucket, key)

    @property
    def file(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class RecordedOpinion:
    """The model's answer to an image when it came in. Unknown facts are empty, an unknown score is None."""

    label: str = ""
    score: float | None = None
    model: str = ""
    version: str = ""
    camera: str = ""

    @classmethod
    def of(cls, facts: Mapping[str, str]) -> Self:
        """Read it from the facts that are kept beside an image."""
        plain = {name: unquote(facts.get(name, "")) for name in (*_MODEL, "camera")}
        return cls(plain["label"], _score(plain["score"]), plain["model"], plain["version"], plain["camera"])


@dataclass(frozen=True, slots=True)
class Waiting:
    """An image that waits for someone to say what it shows."""

    ref: Ref
    at: datetime
    why: Why
    opinion: RecordedOpinion
    answers: Sequence[Said] = ()

    def as_json(self, catalogue: Catalogue) -> dict[str, Any]:
        """Return it as a page is told; of an audit nothing that the model said, which would lead people.

        Where two versions differ, both answers are told, which lead to neither.
        """
        opinion = (
            self.opinion
            if self.why in {"unknown", "uncertain"}
            else RecordedOpinion(camera=self.opinion.camera)
        )
        answers = [
            {
                "version": each.version,
                "item": each.item,
                "label": catalogue.product(each.item).label,
                "score": each.score,
            }
            for each in self.answers
        ]
        return {
            **({"answers": answers} if answers else {}),
            "image": str(self.ref),
            "at": self.at.isoformat(),
            "why": self.why,
            "guess": opinion.label,
            "guess_label": catalogue.product(opinion.label).label if opinion.label else "",
            "score": opinion.score,
            "model": opinion.model,
            "version": opinion.version,
            "camera": opinion.camera,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What someone says of an image: the product, or None where it shows none."""

    ref: Ref
    product: Product | None


def is_image(key: str) -> bool:
    """Tell whether a key is one of an image that can be learnt from."""
    return image_of(key) is not None


def why(ref: Ref, opinion: RecordedOpinion, model: str, certain_score: float) -> Why | None:
    """Tell why people should look at an image; None where they need not.

    Args:
        ref: the image.
        opinion: the model's recorded answer.
        model: the one that training images are for; what was asked of another is no lesson for it.
        certain_score: least score of a known answer that needs no review, 0..1.

    """
    if opinion.model not in {"", model}:
        return None
    if ref.bucket == UNCLASSIFIED:
        return "unknown"
    return "uncertain" if opinion.score is not None and opinion.score < certain_score else None


def facts(decision: Decision, before: Mapping[str, str], who: str, at: datetime) -> dict[str, str]:
    """Return what is kept beside a decided image, header-safe: the decision, and the opinion before it."""
    opinion = {
        f"model-{name}" if name in {"label", "score"} else name: unquote(before.get(name, ""))
        for name in _MODEL
    }
    pairs = {
        "label": decision.product.item if decision.product else "",
        "reason": "" if decision.product else "not a product",
        "reviewed-by": who,
        "reviewed-at": at.isoformat(timespec="seconds"),
        "source": str(decision.ref),
        "origin": unquote(before.get("origin", "")),
        "camera": unquote(before.get("camera", "")),
        **opinion,
    }
    return metadata(pairs)


def _score(text: str) -> float | None:
    try:
        score = float(text)
    except ValueError:
        return None
    return score if 0 <= score <= 1 else None
