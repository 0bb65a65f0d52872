"""How a model is asked and how its answer is read: decided by the signatures that it has. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caravan.errors import Permanent
from shopper.ports import Prediction
from shopper.stubs import DT_STRING, PredictRequest
from shopper.tensors import numbers, string_tensor, texts

CLASSIFY = "classify"
DEFAULT = "serving_default"
_PAIR = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to ask: which signature, which input, and of which version that was true.

    Args:
        model: the model's name.
        version: the version whose metadata this was decided from; 0 where the server does not say.
        signature: `classify` or `serving_default`.
        input: name of the one input, a string tensor.
        scalar: whether the input has no dimension.

    """

    model: str
    version: int
    signature: str
    input: str
    scalar: bool

    def request(self, image: bytes) -> Any:
        """Return the PredictRequest for one encoded image."""
        request = PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = self.signature
        request.inputs[self.input].CopyFrom(string_tensor(image, scalar=self.scalar))
        return request

    def read(self, response: Any) -> Prediction:
        """Read a PredictResponse.

        Raises:
            Permanent: if it is not what the signature promises.

        """
        outputs = response.outputs
        try:
            item, score, probabilities = (
                _classified(outputs) if self.signature == CLASSIFY else _pair(outputs)
            )
        except (KeyError, IndexError, ValueError) as exc:
            message = f"the model {self.model} answered in a form that is not known: {exc!r}"
            raise Permanent(message) from exc
        version = int(response.model_spec.version.value) or self.version
        score = score if math.isfinite(score) else 0.0
        return Prediction(item, score, self.model, version, probabilities, tuple(probabilities))


def decide(model: str, version: int, signatures: Mapping[str, Any]) -> Plan:
    """Choose the signature: `classify` if the model has it, else `serving_default`.

    Args:
        model: the model's name.
        version: whose signatures these are.
        signatures: a SignatureDef by name.

    Raises:
        Permanent: if neither takes one image as a string.

    """
    for name in (CLASSIFY, DEFAULT):
        signature = signatures.get(name)
        if signature is None or len(signature.inputs) != 1:
            continue
        (key, tensor), *_ = signature.inputs.items()
        if tensor.dtype != DT_STRING:
            continue
        if name == CLASSIFY and not (key == "images" and {"labels", "scores"} <= set(signature.outputs)):
            continue
        shape = tensor.tensor_shape
        return Plan(model, version, name, key, scalar=not shape.unknown_rank and not shape.dim)
    message = f"version {version} of model {model} has no signature that takes an image as a string"
    raise Permanent(message)


def _classified(outputs: Mapping[str, Any]) -> tuple[str, float, dict[str, float]]:
    probabilities: dict[str, float] = {}
    if "probabilities" in outputs and "classes" in outputs:
        probabilities = dict(zip(texts(outputs["classes"]), numbers(outputs["probabilities"]), strict=True))
    return texts(outputs["labels"])[0], numbers(outputs["scores"])[0], probabilities


def _pair(outputs: Mapping[str, Any]) -> tuple[str, float, dict[str, float]]:
    (output,) = outputs.values()
    values = texts(output)
    if len(values) != _PAIR:
        message = f"{len(values)} values instead of [label, probability]"
        raise ValueError(message)
    return values[0], float(values[1]), {}
