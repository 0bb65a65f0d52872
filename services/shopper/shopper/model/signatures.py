"""How a model is asked and how its answer is read: decided by the signatures that it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from caravan.errors import Refused
from shopper.model import outputs
from shopper.model.inputs import Form, Size, StringInput, form_of
from shopper.model.outputs import Opinion
from shopper.model.stubs import PredictRequest

CLASSIFY = "classify"
DEFAULT = "serving_default"


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to ask: which signature, which input, and of which version that was true.

    Args:
        model: the model's name.
        version: the version whose metadata this was decided from; 0 where the server does not say.
        signature: `classify` or `serving_default`.
        input: name of the one input.
        form: shape and type that the input needs.

    """

    model: str
    version: int
    signature: str
    input: str
    form: Form

    def request(self, tensor: Any) -> Any:
        """Return the PredictRequest for one image, as a TensorProto of the plan's form."""
        request = PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = self.signature
        request.inputs[self.input].CopyFrom(tensor)
        return request

    def read(self, response: Any) -> tuple[Opinion, int]:
        """Read a PredictResponse: what the model says, and which version said it.

        Raises:
            Refused: if it is not what the signature promises.

        """
        try:
            opinion = outputs.read(response.outputs)
        except (KeyError, IndexError, ValueError) as exc:
            message = f"the model {self.model} answered in a form that is not known: {exc!r}"
            raise Refused(message) from exc
        return opinion, int(response.model_spec.version.value) or self.version


def decide(model: str, version: int, signatures: Mapping[str, Any], size: Size | None = None) -> Plan:
    """Choose the signature: `classify` if the model has it, else `serving_default`.

    Args:
        model: the model's name.
        version: the version that has these signatures.
        signatures: a SignatureDef by name.
        size: height and width of the images where the signature leaves them open.

    Raises:
        Refused: if neither takes one image.

    """
    for name in (CLASSIFY, DEFAULT):
        signature = signatures.get(name)
        if signature is None or len(signature.inputs) != 1:
            continue
        (key, info), *_ = signature.inputs.items()
        form = form_of(info, size)
        if form is None:
            continue
        if name == CLASSIFY:
            if not isinstance(form, StringInput) or not _is_ours(key, signature):
                continue
            form = replace(form, as_sent=True)
        return Plan(model, version, name, key, form)
    message = (
        f"version {version} of model {model} has no signature that takes an image: a string, or a tensor of"
        " [N, height, width, channels], with 1 or 3 channels; where height and width are open, set its size"
    )
    raise Refused(message)


def _is_ours(key: str, signature: Any) -> bool:
    # `classify` is also a signature of TensorFlow's own, for tf.Examples.
    return key == "images" and {"labels", "scores"} <= set(signature.outputs)
