"""Answers of the Open Inference Protocol: facts for both doors, and JSON. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from caravan.contracts import to_json
from model_server import v2_tensors
from model_server.errors import invalid
from model_server.servable import DEFAULT_SIGNATURE, Servable
from model_server.stubs import meta_graph_pb2, predict_pb2
from model_server.tensors import to_array
from model_server.v2_parameters import BASE64, CONTENT_TYPE
from model_server.v2_request import Inference, naming
from model_server.v2_tensors import datatype_of

NAME = "caravan-model-server"
EXTENSIONS = ["binary_tensor_data"]


def model(servable: Servable, versions: Sequence[int]) -> dict[str, Any]:
    """A model's metadata: of `serving_default`, and the names of all signatures."""
    definition = definition_of(servable, DEFAULT_SIGNATURE)
    return {
        "name": servable.name,
        "versions": [str(number) for number in versions],
        "platform": servable.platform,
        "inputs": _tensors(definition.inputs),
        "outputs": _tensors(definition.outputs),
        "parameters": {"signature_names": sorted(servable.signatures)},
    }


def definition_of(servable: Servable, signature: str) -> meta_graph_pb2.SignatureDef:
    """A signature that can be called. Raises ServingError naming those that there are."""
    if signature not in servable.signatures:
        known = ", ".join(sorted(servable.signatures))
        raise invalid(f'model "{servable.name}" has no signature "{signature}", but {known or "none"}')
    return servable.signatures[signature].definition


def wanted(request: Inference, response: predict_pb2.PredictResponse) -> list[str]:
    """The outputs that are sent, in the order in which they were asked for."""
    return list(request.outputs) or sorted(response.outputs)


def inference(request: Inference, response: predict_pb2.PredictResponse) -> tuple[bytes, bytes | None]:
    """The answer of an inference: JSON, and the bytes that follow it, if any do. Raises ServingError."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name in wanted(request, response):
        array = to_array(name, response.outputs[name])
        output: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype_of(response.outputs[name].dtype),
        }
        if request.is_binary(name):
            tail.append(v2_tensors.to_bytes(array))
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            with naming("output", name):
                output["data"], in_base64 = v2_tensors.to_json(array, in_base64=request.output(name).base64)
            if in_base64:
                output["parameters"] = {CONTENT_TYPE: BASE64}
        outputs.append(output)
    spec = response.model_spec
    answer = {"model_name": spec.name, "model_version": str(spec.version.value)}
    if request.id:
        answer["id"] = request.id
    return to_json({**answer, "outputs": outputs}), b"".join(tail) if tail else None


def _tensors(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": datatype_of(infos[name].dtype),
            # The protocol has no word for a shape that is not known.
            "shape": [-1]
            if infos[name].tensor_shape.unknown_rank
            else [dim.size for dim in infos[name].tensor_shape.dim],
        }
        for name in sorted(infos)
    ]
