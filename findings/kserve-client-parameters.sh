#!/usr/bin/env bash
# kserve 0.21.0: what its client says beside the tensors. Over gRPC a raw input keeps the parameter `binary_data_size`,
# which the Open Inference Protocol has for REST alone: a server that refuses parameters it does not know refuses every
# raw request of this client. Over REST, NaN in an input that is sent as JSON leaves as `null` without an error, as the
# client's serializer has no NaN, so the server is asked about something else than was given.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kserve==0.21.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
from importlib.metadata import version

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

print("kserve", version("kserve"))
x = InferInput("x", [2], "FP32")
x.set_data_from_numpy(np.array([1, 3], np.float32), binary_data=True)
message = InferRequest("m", [x]).to_grpc()
size = message.inputs[0].parameters["binary_data_size"].int64_param
print("raw bytes over gRPC:", len(message.raw_input_contents[0]), "and binary_data_size beside them:", size)
assert size == 8, size

sent = []


def answer(request: httpx.Request) -> httpx.Response:
    sent.append(request.content)
    return httpx.Response(200, json={"model_name": "m", "id": "1", "outputs": []})


async def ask() -> None:
    config = RESTConfig(protocol="v2", transport=httpx.MockTransport(answer))
    x = InferInput("x", [2], "FP32")
    x.set_data_from_numpy(np.array([1, np.nan], np.float32), binary_data=False)
    async with InferenceRESTClient(config) as client:
        await client.infer("http://server.invalid", InferRequest("m", [x], request_id="1"), model_name="m")


asyncio.run(ask())
print("NaN over REST:", sent[0].decode())
assert b"null" in sent[0], sent[0]
PYTHON
# Printed on 2026-11-28:
#   kserve 0.21.0
#   raw bytes over gRPC: 8 and binary_data_size beside them: 8
#   NaN over REST: {"id":"1","model_name":"m","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1.0,null]}]}
