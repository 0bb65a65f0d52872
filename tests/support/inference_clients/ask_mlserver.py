"""Ask a server with MLServer's types and codecs, REST and gRPC; print answers. Needs only that package."""

import json
import sys
import urllib.error
import urllib.request

import grpc
import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec, NumpyRequestCodec, StringCodec
from mlserver.codecs.string import StringRequestCodec
from mlserver.grpc import converters, dataplane_pb2, dataplane_pb2_grpc
from mlserver.types import InferenceRequest, InferenceResponse, Parameters


def main(url, target):
    scores = np.array([[1, 2, 0], [5, 0, 0]], np.float32)
    requests = {
        "scores": ("scores", NumpyRequestCodec.encode_request(scores)),
        "half": ("half", NumpyRequestCodec.encode_request(np.array([1, 3], np.float32))),
        "text": ("text", StringRequestCodec.encode_request(["0.75", "0.1"])),
        "base64": ("text", InferenceRequest(inputs=[Base64Codec.encode_input("images", [b"0.75"])])),
        "table": (
            "scores",
            InferenceRequest(
                inputs=[NumpyCodec.encode_input("x", scores)], parameters=Parameters(content_type="pd")
            ),
        ),
        "datetime": (
            "text",
            InferenceRequest(
                inputs=[StringCodec.encode_input("images", ["0.75"])],
                parameters=Parameters(content_type="datetime"),
            ),
        ),
    }
    names = {"scores": "x", "half": "x", "text": "images"}
    found = {}
    stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(target))
    found["ready"] = [
        stub.ServerLive(dataplane_pb2.ServerLiveRequest()).live,
        stub.ModelReady(dataplane_pb2.ModelReadyRequest(name="scores")).ready,
    ]
    for case, (model, request) in requests.items():
        request.inputs[0].name = names[model]
        if model == "text":
            request.parameters = (request.parameters or Parameters()).model_copy(
                update={"signature_name": "classify"}
            )
        body = request.model_dump_json(exclude_none=True).encode()
        try:
            with urllib.request.urlopen(f"{url}/v2/models/{model}/infer", body, timeout=10) as answer:
                found[f"rest {case}"] = told(InferenceResponse.model_validate_json(answer.read()))
        except urllib.error.HTTPError as exc:
            found[f"rest {case}"] = json.load(exc)
        try:
            message = converters.ModelInferRequestConverter.from_types(
                request, model_name=model, use_raw=False
            )
            found[f"grpc {case}"] = told(
                converters.ModelInferResponseConverter.to_types(stub.ModelInfer(message))
            )
        except grpc.RpcError as exc:
            found[f"grpc {case}"] = {"error": exc.details()}
    print(json.dumps(found))


def told(answer):
    found = {}
    for output in answer.outputs:
        codec = StringCodec if output.datatype == "BYTES" else NumpyCodec
        values = codec.decode_output(output)
        found[output.name] = values if isinstance(values, list) else values.tolist()
    return found


main(*sys.argv[1:])
