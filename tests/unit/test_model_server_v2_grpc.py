"""The Open Inference Protocol at the gRPC port of the real server, for both kinds of model."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from model_server import open_inference_pb2 as messages
from model_server.loading import load

SERVICE = "/inference.GRPCInferenceService/"
MODELS = ("half", "pair", "text", "scores", "words")


@pytest.fixture(scope="module")
def channel(
    saved_models: Path, onnx_models: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Any
) -> Iterator[grpc.Channel]:
    config = tmp_path_factory.mktemp("config") / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}'
        for folder, names in ((saved_models, MODELS[:3]), (onnx_models, MODELS[3:]))
        for name in names
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    with ExitStack() as stack:
        server = start_server(stack, f"--model_config_file={config}", wait=dict.fromkeys(MODELS, 1))
        yield stack.enter_context(grpc.insecure_channel(server.target))


def call(channel: grpc.Channel, method: str, request: Any, **more: Any) -> Any:
    answer = getattr(messages, f"{method}Response")
    ask = channel.unary_unary(SERVICE + method, lambda sent: sent.SerializeToString(), answer.FromString)
    return ask(request, timeout=10, **more)


def refusal(channel: grpc.Channel, method: str, request: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, request, **more)
    return caught.value.code().name, str(caught.value.details())


def infer(model: str, *inputs: dict[str, Any], **more: Any) -> messages.ModelInferRequest:
    return messages.ModelInferRequest(model_name=model, inputs=inputs, **more)


def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "contents": contents}


def parameters(**values: Any) -> dict[str, messages.InferParameter]:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
    return {name: messages.InferParameter(**{kinds[type(value)]: value}) for name, value in values.items()}


X = tensor("x", "FP32", [2], fp32_contents=[1, 3])


def test_the_python_messages_are_those_of_the_proto_file(tmp_path: Path) -> None:
    source = Path(messages.__file__).parent / "open_inference.proto"
    arguments = (f"-I{source.parents[1]}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(source))
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, timeout=60)
    for name in ("open_inference_pb2.py", "open_inference_pb2.pyi"):
        written = (tmp_path / "model_server" / name).read_text()
        assert (source.parent / name).read_text() == written, "run `make protos`"


def test_health_and_metadata_are_told(channel: grpc.Channel) -> None:
    assert call(channel, "ServerLive", messages.ServerLiveRequest()).live
    assert call(channel, "ServerReady", messages.ServerReadyRequest()).ready
    assert call(channel, "ModelReady", messages.ModelReadyRequest(name="half", version="1")).ready
    server = call(channel, "ServerMetadata", messages.ServerMetadataRequest())
    assert (server.name, list(server.extensions)) == ("caravan-model-server", ["binary_tensor_data"])
    model = call(channel, "ModelMetadata", messages.ModelMetadataRequest(name="scores"))
    assert (model.name, list(model.versions), model.platform) == ("scores", ["1"], "onnx_onnxv1")
    (x,) = model.inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 3])
    assert [output.name for output in model.outputs] == ["best", "y"]


def test_an_answer_comes_as_its_request_did_in_contents_or_raw(channel: grpc.Channel) -> None:
    plain = call(channel, "ModelInfer", infer("half", X, id="a-1"))
    assert (plain.model_name, plain.model_version, plain.id) == ("half", "1", "a-1")
    assert [list(output.contents.fp32_contents) for output in plain.outputs] == [[2.5, 3.5], [3, 9]]
    given = np.array([1, 3], "<f4").tobytes()
    unfilled = {"name": "x", "datatype": "FP32", "shape": [2]}
    raw = call(channel, "ModelInfer", infer("half", unfilled, raw_input_contents=[given]))
    assert [np.frombuffer(output, "<f4").tolist() for output in raw.raw_output_contents] == [
        [2.5, 3.5],
        [3, 9],
    ]
    assert not any(output.HasField("contents") for output in raw.outputs)


def test_both_kinds_of_model_take_numbers_flags_and_strings(channel: grpc.Channel) -> None:
    both = (
        tensor("a", "INT32", [2], int_contents=[1, 2]),
        tensor("b", "FP32", [2], fp32_contents=[0.5, 1.5]),
    )
    assert list(call(channel, "ModelInfer", infer("pair", *both)).outputs[0].contents.fp32_contents) == [
        1.5,
        3.5,
    ]
    count = infer("pair", tensor("x", "INT64", [2], int64_contents=[1, 2]))
    count.parameters["signature_name"].string_param = "count"
    even, more = call(channel, "ModelInfer", count).outputs
    assert (list(even.contents.bool_contents), list(more.contents.int64_contents)) == ([False, True], [2, 3])
    words = infer("words", tensor("x", "BYTES", [2], bytes_contents=["thé".encode(), b""]))
    assert list(call(channel, "ModelInfer", words).outputs[0].contents.bytes_contents) == [
        "thé".encode(),
        b"",
    ]


def test_outputs_come_in_the_order_in_which_they_are_asked_for(channel: grpc.Channel) -> None:
    answer = call(channel, "ModelInfer", infer("half", X, outputs=[{"name": "z"}, {"name": "y"}]))
    assert [output.name for output in answer.outputs] == ["z", "y"]


def test_what_json_cannot_say_travels_here(channel: grpc.Channel) -> None:
    given = tensor("x", "FP32", [1], fp32_contents=[float("nan")])
    (y, _) = call(channel, "ModelInfer", infer("half", given)).outputs
    assert np.isnan(y.contents.fp32_contents).all()


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (infer("m", X), "NOT_FOUND", "Servable not found for request: Latest(m)"),
        (infer("half", X, model_version="7"), "NOT_FOUND", "Specific(half, 7)"),
        (infer("half", X, model_version="x"), "INVALID_ARGUMENT", "a model's version is a number: x"),
        (infer("half"), "INVALID_ARGUMENT", "inputs are missing"),
        (infer("half", X, X), "INVALID_ARGUMENT", 'input "x" comes twice'),
        (infer("half", tensor("x", "FP32", [3], fp32_contents=[1])), "INVALID_ARGUMENT", "data has 1 values"),
        (infer("half", tensor("x", "FP99", [1])), "INVALID_ARGUMENT", "datatype has to be one of"),
        (infer("half", tensor("x", "FP32", [-1])), "INVALID_ARGUMENT", "shape has to be a list of sizes"),
        (infer("half", tensor("x", "FP32", [2**40])), "INVALID_ARGUMENT", "elements"),
        (
            infer("half", tensor("x", "FP32", [1], fp64_contents=[1])),
            "INVALID_ARGUMENT",
            "values of FP32 belong into fp32_contents, not fp64_contents",
        ),
        (infer("half", tensor("x", "FP16", [1])), "INVALID_ARGUMENT", "FP16 travels in raw_input_contents"),
        (
            infer("half", tensor("x", "INT8", [1], int_contents=[300])),
            "INVALID_ARGUMENT",
            "datatype is INT8, and the model takes FP32",
        ),
        (infer("half", X, raw_input_contents=[b"1234"]), "INVALID_ARGUMENT", "raw, and in contents too"),
        (
            infer("half", X, raw_input_contents=[b"", b""]),
            "INVALID_ARGUMENT",
            "has 2 tensors, and there are 1",
        ),
        (
            infer("half", X, parameters=parameters(sequence_id=7)),
            "UNIMPLEMENTED",
            "parameter sequence_id is not served: models here keep no state",
        ),
        (infer("half", X, parameters=parameters(frob=1)), "INVALID_ARGUMENT", "parameter frob is not known"),
        (
            infer("half", X | {"parameters": parameters(shared_memory_region="r")}),
            "UNIMPLEMENTED",
            'input "x": parameter shared_memory_region is not served',
        ),
        (
            infer("half", X, outputs=[{"name": "y", "parameters": parameters(classification=2)}]),
            "UNIMPLEMENTED",
            'output "y": parameter classification is not served',
        ),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_the_reason(
    channel: grpc.Channel, request_: Any, code: str, words: str
) -> None:
    told = refusal(channel, "ModelInfer", request_)
    assert told[0] == code, told
    assert words in told[1]


def test_a_parameter_that_asks_for_nothing_is_no_demand(channel: grpc.Channel) -> None:
    neutral = parameters(sequence_id=0, sequence_start=False, priority=0, timeout=10_000_000)
    assert call(channel, "ModelInfer", infer("half", X, parameters=neutral)).model_name == "half"


@pytest.mark.parametrize("method", ["ModelStreamInfer", "RepositoryIndex", "ModelConfig", "Frob"])
def test_methods_that_are_not_served_say_so(channel: grpc.Channel, method: str) -> None:
    ask = channel.unary_unary(SERVICE + method, None, None)
    with pytest.raises(grpc.RpcError) as caught:
        ask(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"{method} is not served here; served are ServerLive" in str(caught.value.details())


def test_a_request_that_takes_longer_than_its_own_timeout_is_told_so(
    serve_models: Any, saved_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def held(*args: Any) -> Any:
        servable = load(*args)
        run = type(servable.signatures["serving_default"]).call

        def wait(signature: Any, arrays: Any) -> Any:
            assert go_on.wait(30)
            return run(signature, arrays)

        monkeypatch.setattr(type(servable.signatures["serving_default"]), "call", wait)
        return servable

    monkeypatch.setattr("model_server.app.load", held)
    path = saved_models / "half"
    untried = ("--enable_model_warmup=false", "--enable_batching=false")
    server = serve_models("--model_name=half", f"--model_base_path={path}", *untried, wait={"half": 1})
    with grpc.insecure_channel(server.target) as channel:
        hurried = infer("half", X, parameters=parameters(timeout=50_000))
        told = refusal(channel, "ModelInfer", hurried)
        go_on.set()
    assert told == ("DEADLINE_EXCEEDED", "not answered within the request's timeout of 0.05 s")
