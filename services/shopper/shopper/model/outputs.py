"""What a model says: read from whatever its outputs are. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shopper.model.tensors import is_of_floats, is_of_strings, numbers, shape, texts

PREFERRED = ("probabilities", "probability", "softmax", "predictions", "scores", "logits", "output_0")
"""Names by which one output is preferred if several have floats, the best first."""
SUM_TOLERANCE = 0.01
"""How far from 1 the sum of probabilities may be; half precision is no better."""
_PAIR = 2


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model says of one image, in its own words.

    Args:
        probabilities: probability per class, in the model's order; empty if the model does not say.
        classes: names of all the classes, in the same order; empty where it does not say.
        label: the class that it names as the first; empty where it gives numbers alone.
        score: the probability of that class, 0..1 or NaN.

    """

    probabilities: tuple[float, ...]
    classes: tuple[str, ...]
    label: str
    score: float


def read(outputs: Mapping[str, Any]) -> Opinion:
    """Read the outputs of a model: TensorProtos by name.

    Known are: `labels` with a score each in `scores` (with `probabilities` and `classes`, or without); one
    string tensor `[label, probability]`; and a float tensor of one number a class, with a string tensor of
    as many names, or one label, beside it or not. Numbers that are no probabilities count as logits: their
    softmax is taken, of a single one the sigmoid, and that is the probability of the second of two classes.

    Raises:
        KeyError, IndexError, ValueError: if they are of no form that is known.
        Refused: if a tensor is broken.

    """
    if _is_classified(outputs):
        return _classified(outputs)
    if not any(is_of_floats(output) for output in outputs.values()):
        return _pair(outputs)
    return _numbered(outputs)


def normalised(values: Sequence[float]) -> list[float]:
    """Return probabilities: the values, or their softmax where they do not sum to 1.

    A single value is the probability, or the logit, of the second of two classes.
    """
    if not all(map(math.isfinite, values)):
        return [0.0] * max(len(values), _PAIR)
    if len(values) == 1:
        (value,) = values
        one = value if 0 <= value <= 1 else 1 / (1 + math.exp(-min(max(value, -700), 700)))
        return [1 - one, one]
    if min(values) >= 0 and abs(math.fsum(values) - 1) <= SUM_TOLERANCE:
        return list(values)
    most = max(values)
    powers = [math.exp(value - most) for value in values]
    total = math.fsum(powers)
    return [power / total for power in powers]


def _is_classified(outputs: Mapping[str, Any]) -> bool:
    """Whether `scores` are those of `labels`, and not one number a class."""
    labels, scores = outputs.get("labels"), outputs.get("scores")
    if labels is None or scores is None or not (is_of_strings(labels) and is_of_floats(scores)):
        return False
    return math.prod(shape(scores)) == math.prod(shape(labels))


def _classified(outputs: Mapping[str, Any]) -> Opinion:
    probabilities: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    if "probabilities" in outputs:
        probabilities = tuple(numbers(outputs["probabilities"]))
        classes = tuple(texts(outputs["classes"])) if "classes" in outputs else ()
        if classes and len(classes) != len(probabilities):
            message = f"{len(classes)} classes and {len(probabilities)} probabilities"
            raise ValueError(message)
    return Opinion(probabilities, classes, texts(outputs["labels"])[0], numbers(outputs["scores"])[0])


def _pair(outputs: Mapping[str, Any]) -> Opinion:
    values = [text for output in outputs.values() for text in texts(output)]
    if len(values) != _PAIR or len(outputs) > 1:
        message = f"{len(values)} values in {len(outputs)} outputs instead of [label, probability] in one"
        raise ValueError(message)
    return Opinion((), (), values[0], float(values[1]))


def _numbered(outputs: Mapping[str, Any]) -> Opinion:
    floats = {name: output for name, output in outputs.items() if is_of_floats(output)}
    names = [name for name in PREFERRED if name in floats] or list(floats)
    if len(names) > 1 and names[0] not in PREFERRED:
        message = f"which of the outputs {sorted(names)} has the probabilities?"
        raise ValueError(message)
    values, sizes = numbers(floats[names[0]]), shape(floats[names[0]])
    if not values or len(values) != max(sizes, default=1):
        message = f"a tensor of shape {sizes} instead of [1, classes]"
        raise ValueError(message)
    probabilities = normalised(values)
    strings = [texts(output) for output in outputs.values() if is_of_strings(output)]
    classes = next((tuple(each) for each in strings if len(each) == len(probabilities)), ())
    label = next((each[0] for each in strings if len(each) == 1), "")
    return Opinion(tuple(probabilities), classes, label, max(probabilities))
