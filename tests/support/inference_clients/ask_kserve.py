"""Ask a server by kserve's clients, REST and gRPC; print what is answered. Needs only that package."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def request(model, name, values, *, binary, **parameters):
    given = InferInput(name, list(values.shape), "BYTES" if values.dtype == object else "FP32")
    given.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model, [given], request_id="a-1", parameters=parameters)


def told(answer):
    return {output.name: decoded(output.as_numpy().tolist()) for output in answer.outputs}


def decoded(values):
    return [
        decoded(each) if isinstance(each, list) else each.decode() if isinstance(each, bytes) else each
        for each in values
    ]


async def main(url, target):
    scores = np.array([[1, 2, 0], [5, 0, 0]], np.float32)
    images = np.array([b"0.75", b"0.1"], object)
    found = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as rest:
        found["ready"] = [
            await rest.is_server_live(url),
            await rest.is_server_ready(url),
            await rest.is_model_ready(url, "half"),
        ]
        for binary in (False, True):
            found[f"scores {binary}"] = told(
                await rest.infer(url, request("scores", "x", scores, binary=binary), model_name="scores")
            )
        try:
            await rest.infer(url, request("half", "x", scores, binary=False), model_name="half")
        except Exception as exc:  # noqa: BLE001 what it raises is what is asked
            found["refused"] = str(exc)
    async with InferenceGRPCClient(target) as grpc:
        found["grpc ready"] = [
            await grpc.is_server_live(),
            await grpc.is_server_ready(),
            await grpc.is_model_ready("half"),
        ]
        for binary in (False, True):
            found[f"grpc scores {binary}"] = told(
                await grpc.infer(request("scores", "x", scores, binary=binary))
            )
            found[f"grpc text {binary}"] = told(
                await grpc.infer(request("text", "images", images, binary=binary, signature_name="classify"))
            )["labels"]
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
