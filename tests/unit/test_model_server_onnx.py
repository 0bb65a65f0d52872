"""ONNX models behind the doors of the real server: asked and told of as any other model."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import onnx
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from caravan.graphs.onnx import OnnxError, open_session

MODELS = ("scores", "words", "fixed", "product")


@pytest.fixture(scope="module")
def server(onnx_models: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Any) -> Iterator[Any]:
    config = tmp_path_factory.mktemp("config") / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{onnx_models / name}" model_platform: "tensorflow" }}'
        for name in (*MODELS, "zipmap")
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    batching = tmp_path_factory.mktemp("config") / "batching"
    batching.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 20000 }")
    flags = (
        f"--model_config_file={config}",
        f"--batching_parameters_file={batching}",
        "--enable_prometheus",
        "--max_num_load_retries=0",
    )
    with ExitStack() as stack:
        yield start_server(stack, *flags, wait=dict.fromkeys(MODELS, 1))


@pytest.fixture
def predictions(server: Any) -> Iterator[Any]:
    with grpc.insecure_channel(server.target) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request_of(model: str, **inputs: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def refusal(call: Any, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    return caught.value.code().name, str(caught.value.details())


def rest(server: Any, model: str, body: Any) -> tuple[int, Any]:
    answer = httpx.post(f"{server.url}/v1/models/{model}:predict", json=body, timeout=10)
    return answer.status_code, answer.json()


def test_an_onnx_model_answers_over_grpc(predictions: Any) -> None:
    answer = predictions.Predict(request_of("scores", x=[[1.0, 2.0, 0.0], [5.0, 0.0, 0.0]]), timeout=10)
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [[1.0, 3.0, 2.0], [5.0, 1.0, 2.0]]
    assert tf.make_ndarray(answer.outputs["best"]).tolist() == [1, 0]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("scores", 1, "serving_default")


def test_an_onnx_model_answers_over_rest(server: Any) -> None:
    assert rest(server, "scores", {"instances": [[1.0, 2.0, 0.0]]}) == (
        200,
        {"predictions": [{"best": 1, "y": [1.0, 3.0, 2.0]}]},
    )
    assert rest(server, "fixed/versions/1", {"inputs": {"x": [[0, 0, 0]]}}) == (
        200,
        {"outputs": [[0.0, 1.0, 2.0]]},
    )


def test_text_goes_through_an_onnx_model_and_bytes_that_are_none_are_refused(server: Any) -> None:
    assert rest(server, "words", {"instances": ["thé", ""]}) == (200, {"predictions": ["thé", ""]})
    status, answer = rest(server, "words", {"instances": [{"b64": "/wA="}]})
    assert (status, answer["error"]) == (400, "tensor parsing error: x: an ONNX string has to be UTF-8")


def test_an_onnx_model_tells_its_signature_as_a_saved_model_does(predictions: Any, server: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "scores"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    predictions.GetModelMetadata(request, timeout=10).metadata["signature_def"].Unpack(signatures)
    definition = signatures.signature_def["serving_default"]
    assert definition.method_name == "tensorflow/serving/predict"
    assert (definition.inputs["x"].dtype, definition.outputs["best"].dtype) == (1, 9)
    assert [dim.size for dim in definition.inputs["x"].tensor_shape.dim] == [-1, 3]
    told = httpx.get(f"{server.url}/v1/models/scores/metadata").json()["metadata"]["signature_def"]
    assert told["signature_def"]["serving_default"]["outputs"]["y"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (request_of("scores", x=[[1, 2, 3]]), "INVALID_ARGUMENT", "Expects arg[0] to be float but int32 is"),
        (request_of("scores", x=[[1.0]]), "INVALID_ARGUMENT", "Got: 1 Expected: 3"),
        (request_of("scores", x=[1.0]), "INVALID_ARGUMENT", "Invalid rank for input: x"),
        (request_of("scores", y=[[1.0]]), "INVALID_ARGUMENT", "Signature input alias: x(feed name: x:0)"),
        (request_of("scores"), "INVALID_ARGUMENT", "input size does not match signature: 0!=1"),
        (request_of("product", a=[[1.0]], b=[[1.0], [2.0]]), "INVALID_ARGUMENT", "dimension mismatch"),
        (request_of("zipmap", x=[[1.0]]), "NOT_FOUND", "Servable not found for request: Latest(zipmap)"),
    ],
)
def test_what_does_not_fit_an_onnx_model_is_refused_with_the_reason(
    predictions: Any, request_: Any, code: str, words: str
) -> None:
    refused, message = refusal(predictions.Predict, request_)
    assert refused == code
    assert words in message


def test_a_model_with_an_output_that_is_no_tensor_is_refused_with_what_to_do(server: Any) -> None:
    server.wait_for("zipmap", 1, "END")
    answer = httpx.get(f"{server.url}/v1/models/zipmap").json()["model_version_status"][0]["status"]
    assert answer["error_code"] == "UNIMPLEMENTED"
    assert 'The output "y" is a seq(map(string,tensor(float)))' in answer["error_message"]
    assert "zipmap" in answer["error_message"]


async def test_concurrent_requests_to_an_onnx_model_share_calls(server: Any) -> None:
    def counted(url: str) -> Counter[str]:
        prefix = ":tensorflow:serving:batching_session:processed_batch_size"
        lines = [
            line.removeprefix(prefix).split(" ")
            for line in httpx.get(f"{url}/monitoring/prometheus/metrics").text.splitlines()
            if line.startswith(prefix) and 'model_name="scores"' in line
        ]
        return Counter({name.partition("{")[0]: int(float(n)) for name, n in lines})

    before = await asyncio.to_thread(counted, server.url)
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        bad = request_of("scores", x=[[1.0]])
        good = [stub.Predict(request_of("scores", x=[[float(n), 0.0, 0.0]]), timeout=20) for n in range(16)]
        outcomes: list[Any] = await asyncio.gather(
            *good, stub.Predict(bad, timeout=20), return_exceptions=True
        )
    assert [tf.make_ndarray(one.outputs["y"])[0, 0] for one in outcomes[:16]] == list(range(16))
    assert isinstance(outcomes[16], grpc.aio.AioRpcError)
    told = await asyncio.to_thread(counted, server.url) - before
    assert told["_sum"] == 17
    assert told["_count"] < 17


def test_versions_of_both_kinds_follow_each_other(
    serve_models: Any, onnx_models: Path, save_half: Any, tmp_path: Path
) -> None:
    base = tmp_path / "half"
    shutil.copytree(onnx_models / "scores" / "1", base / "1")
    server = serve_models("--model_name=half", f"--model_base_path={base}", wait={"half": 1})
    assert rest(server, "half", {"instances": [[0.0, 0.0, 0.0]]})[1]["predictions"][0]["best"] == 2
    save_half(tmp_path / "staged", 2.0)
    # A SavedModel goes before an ONNX model in the same directory.
    shutil.copy(onnx_models / "scores" / "1" / "model.onnx", tmp_path / "staged")
    (tmp_path / "staged").rename(base / "2")
    server.wait_for("half", 2)
    server.wait_for("half", 1, "END")
    assert rest(server, "half", {"instances": [0.0]})[1]["predictions"][0]["y"] == 2.0
    shutil.copytree(onnx_models / "scores" / "1", tmp_path / "next")
    (tmp_path / "next").rename(base / "3")
    server.wait_for("half", 3)
    assert rest(server, "half", {"instances": [[9.0, 0.0, 0.0]]})[1]["predictions"][0]["best"] == 0


def test_a_file_that_is_no_onnx_model_ends_with_its_error(serve_models: Any, tmp_path: Path) -> None:
    (tmp_path / "half" / "1").mkdir(parents=True)
    (tmp_path / "half" / "1" / "model.onnx").write_bytes(b"nonsense")
    flags = ("--model_name=half", f"--model_base_path={tmp_path / 'half'}", "--max_num_load_retries=0")
    server = serve_models(*flags)
    server.wait_for("half", 1, "END")
    status = httpx.get(f"{server.url}/v1/models/half").json()["model_version_status"][0]["status"]
    assert status["error_code"] == "DATA_LOSS"
    assert "Protobuf parsing failed" in status["error_message"]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("model.onnx.data", ""),
        ("weights/model.data", ""),
        ("../beside.data", "its data ../beside.data is outside of the model's own directory"),
        ("/beside.data", "its data has an absolute path: it has to be in the model's own directory"),
        ("none.data", "its data none.data is missing"),
    ],
)
def test_data_beside_a_model_is_read_from_its_own_directory_alone(
    tmp_path: Path, location: str, words: str
) -> None:
    directory = tmp_path / "m"
    (directory / "weights").mkdir(parents=True)
    for name in ("m/model.onnx.data", "m/weights/model.data", "beside.data"):
        (tmp_path / name).write_bytes(np.array([0, 1, 2], np.float32).tobytes())
    value = onnx.helper.make_tensor_value_info
    added = onnx.TensorProto(name="added", data_type=onnx.TensorProto.FLOAT, dims=[3])
    added.data_location = onnx.TensorProto.EXTERNAL
    added.external_data.add(key="location", value=location)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "added"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["n", 3])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [added],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    if not words:
        (answer,) = open_session(directory, 1).run(None, {"x": np.zeros((1, 3), np.float32)})
        assert answer.tolist() == [[0, 1, 2]]
        return
    with pytest.raises(OnnxError) as caught:
        open_session(directory, 1)
    assert caught.value.words == words
