"""Ask a server by tritonclient, HTTP and gRPC; print what is answered. Needs only that package."""

import json
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException


def tensor(api, name, values, datatype="FP32", **how):
    given = api.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, **how)
    return given


def ask(api, client, **more):
    """What one door answers; `more` is what only this door's client can do."""
    x = tensor(api, "x", np.array([[1, 2, 0], [5, 0, 0]], np.float32))
    half = tensor(api, "x", np.array([1, 3], np.float32))
    images = tensor(api, "images", np.array([b"0.75", b"0.1"], object), "BYTES")
    scores = client.infer("scores", [x], request_id="a-1")
    halves = client.infer(
        "half", [half], model_version="1", outputs=[api.InferRequestedOutput("y")], timeout=10_000_000
    )
    text = client.infer("text", [images], parameters={"signature_name": "classify"})
    refused = {}
    for name, call in {
        "unknown": lambda: client.infer("nothing", [half]),
        "shape": lambda: client.infer("scores", [half]),
        "sequence": lambda: client.infer("half", [half], sequence_id=7, sequence_start=True),
        "priority": lambda: client.infer("half", [half], priority=1),
        "classification": lambda: client.infer(
            "half", [half], outputs=[api.InferRequestedOutput("y", class_count=2)]
        ),
        "statistics": lambda: client.get_inference_statistics("half"),
        "index": client.get_model_repository_index,
    }.items():
        try:
            call()
            refused[name] = "answered"
        except InferenceServerException as exc:
            refused[name] = exc.message()
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("half", "1"),
        "scores": [scores.as_numpy("y").tolist(), scores.as_numpy("best").tolist()],
        "half": halves.as_numpy("y").tolist(),
        "labels": [label.decode() for label in text.as_numpy("labels")],
        "refused": refused,
        **more,
    }


def main(url, target):
    """Ask both doors."""
    http = over_http.InferenceServerClient(url.removeprefix("http://"))
    grpc = over_grpc.InferenceServerClient(target)
    row = np.array([[1, 2, 0]], np.float32)
    packed = http.infer(
        "scores",
        [tensor(over_http, "x", row, binary_data=False)],
        request_compression_algorithm="gzip",
        response_compression_algorithm="gzip",
    )
    answers = {
        "http": ask(
            over_http,
            http,
            platform=http.get_model_metadata("scores")["platform"],
            server=http.get_server_metadata()["name"],
            packed=packed.as_numpy("y").tolist(),
        )
    }
    packed = grpc.infer("scores", [tensor(over_grpc, "x", row)], compression_algorithm="gzip")
    answers["grpc"] = ask(
        over_grpc,
        grpc,
        platform=grpc.get_model_metadata("scores").platform,
        server=grpc.get_server_metadata().name,
        packed=packed.as_numpy("y").tolist(),
    )
    print(json.dumps(answers))


main(*sys.argv[1:])
