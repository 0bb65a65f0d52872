"""The Open Inference Protocol's gRPC messages, to and from what both doors share. Pure."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from model_server import open_inference_pb2 as messages
from model_server import v2_answer, v2_parameters, v2_tensors
from model_server.errors import invalid
from model_server.stubs import predict_pb2
from model_server.tensors import to_array
from model_server.v2_parameters import Parameters, RequestOptions
from model_server.v2_request import Inference, Input, naming
from model_server.v2_tensors import BYTES, datatype_of

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Where a message holds values that are not raw; FP16 and BF16 have no place there."""


def read(request: messages.ModelInferRequest) -> Inference:
    """Read a request. Raises ServingError."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise invalid(
            f"raw_input_contents has {len(raw)} tensors, and there are {len(request.inputs)} inputs"
        )
    options = v2_parameters.of_request(_parameters(request.parameters))
    inputs: dict[str, Input] = {}
    for number, one in enumerate(request.inputs):
        if one.name in inputs:
            raise invalid(f'input "{one.name}" comes twice')
        with naming("input", one.name):
            inputs[one.name] = _input(one, raw[number] if raw else None, options)
    if not inputs:
        raise invalid("inputs are missing")
    outputs = {}
    for wanted in request.outputs:
        with naming("output", wanted.name):
            outputs[wanted.name] = v2_parameters.of_output(_parameters(wanted.parameters))
    return Inference(request.id, options, inputs, outputs)


def inference(
    request: Inference, response: predict_pb2.PredictResponse, *, raw: bool
) -> messages.ModelInferResponse:
    """Return the answer: all tensors raw, as they are asked for or have to be, or none."""
    spec = response.model_spec
    names = v2_answer.wanted(request, response)
    datatypes = {name: datatype_of(response.outputs[name].dtype) for name in names}
    raw = raw or any(request.is_binary(name) or datatypes[name] not in FIELDS for name in names)
    answer = messages.ModelInferResponse(
        model_name=spec.name, model_version=str(spec.version.value), id=request.id
    )
    for name, datatype in datatypes.items():
        array = to_array(name, response.outputs[name])
        output = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            answer.raw_output_contents.append(v2_tensors.to_bytes(array))
        else:
            getattr(output.contents, FIELDS[datatype]).extend(array.ravel().tolist())
    return answer


def _input(
    one: messages.ModelInferRequest.InferInputTensor, raw: bytes | None, options: RequestOptions
) -> Input:
    datatype = v2_tensors.check_datatype(one.datatype)
    shape = v2_tensors.check_shape(list(one.shape))
    content_type, size = v2_parameters.of_input(_parameters(one.parameters), options.content_type)
    # KServe's client says it here too.
    if size is not None and (raw is None or size != len(raw)):
        raise invalid(f"binary_data_size is {size}, and its raw contents have {len(raw or b'')} bytes")
    filled = {field.name for field, _ in one.contents.ListFields()}
    if raw is not None:
        if filled:
            raise invalid("its values are raw, and in contents too")
        return Input(
            one.name, datatype, shape, partial(v2_tensors.from_bytes, raw, datatype, shape), content_type
        )
    if datatype not in FIELDS:
        raise invalid(f"{datatype} travels in raw_input_contents only")
    if filled - {FIELDS[datatype]}:
        raise invalid(f"values of {datatype} belong into {FIELDS[datatype]}, not {', '.join(sorted(filled))}")
    values = getattr(one.contents, FIELDS[datatype])
    return Input(
        one.name, datatype, shape, partial(v2_tensors.from_values, values, datatype, shape), content_type
    )


def _parameters(given: Mapping[str, messages.InferParameter]) -> Parameters:
    found: dict[str, Any] = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[name] = getattr(parameter, choice) if choice else None
    return found
