"""The gRPC side of TensorFlow Serving's contract, asked of the real server."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

MODELS = ("half", "pair", "text", "examples")


@pytest.fixture(scope="module")
def channel(saved_models: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Any) -> Iterator[Any]:
    config = tmp_path_factory.mktemp("config") / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{saved_models / name}" model_platform: "tensorflow" }}'
        for name in MODELS
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    with ExitStack() as stack:
        server = start_server(stack, f"--model_config_file={config}", wait=dict.fromkeys(MODELS, 1))
        yield stack.enter_context(grpc.insecure_channel(server.target))


@pytest.fixture
def predictions(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def models(channel: Any) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def predict_request(model: str | None, signature: str = "", **inputs: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    if model is not None:
        request.model_spec.name = model
        request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def refusal(call: Any, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    return caught.value.code().name, str(caught.value.details())


def test_predict_answers_typed_values_and_the_effective_model_spec(predictions: Any) -> None:
    answer = predictions.Predict(predict_request("half", x=[1.0, 2.0, 5.0]), timeout=10)
    assert list(answer.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert list(answer.outputs["z"].float_val) == [3.0, 6.0, 15.0]
    assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [3]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half", 1, "serving_default")


def test_a_call_goes_on_with_its_callers_trace(predictions: Any, spans: InMemorySpanExporter) -> None:
    metadata = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
    predictions.Predict(predict_request("half", x=[1.0]), timeout=10, metadata=metadata)
    (span,) = spans.get_finished_spans()
    assert (span.name, f"{span.context.trace_id:032x}") == ("Predict", metadata[0][1][3:35])
    assert dict(span.attributes or {}) == {"model": "half"}


def test_an_output_filter_chooses_outputs(predictions: Any) -> None:
    request = predict_request("half", x=[1.0])
    request.output_filter.append("z")
    assert set(predictions.Predict(request, timeout=10).outputs) == {"z"}


def test_inputs_reach_the_graph_by_name_whatever_their_order(predictions: Any) -> None:
    answer = predictions.Predict(predict_request("pair", b=[0.5], a=[2]), timeout=10)
    assert list(answer.outputs["sum"].float_val) == [2.5]


def test_a_tensor_with_fewer_values_than_elements_repeats_the_last(predictions: Any) -> None:
    request = predict_request("half", x=[1.0])
    request.inputs["x"].tensor_shape.dim[0].size = 3
    del request.inputs["x"].float_val[:]
    request.inputs["x"].tensor_content = b""
    request.inputs["x"].float_val.append(2.0)
    assert list(predictions.Predict(request, timeout=10).outputs["y"].float_val) == [3.0, 3.0, 3.0]


def test_a_model_of_tensorflow_1_predicts(predictions: Any) -> None:
    answer = predictions.Predict(predict_request("examples", x=[[2.0], [4.0]]), timeout=10)
    assert list(answer.outputs["y"].float_val) == [3.0, 4.0]


def test_the_signatures_of_a_caravan_model_answer(predictions: Any) -> None:
    default = predictions.Predict(predict_request("text", image_b64=[b"0.75"]), timeout=10)
    assert list(default.outputs["output"].string_val) == [b"tea-green", b"0.750000"]
    answer = predictions.Predict(predict_request("text", "classify", images=[b"0.75", b"0.1"]), timeout=10)
    assert list(answer.outputs["labels"].string_val) == [b"tea-green", b"tea-lemon"]
    assert list(answer.outputs["scores"].float_val) == pytest.approx([0.75, 0.9])
    assert [dim.size for dim in answer.outputs["probabilities"].tensor_shape.dim] == [2, 3]
    assert list(answer.outputs["classes"].string_val) == [b"tea-green", b"tea-lemon", b"other"]


@pytest.mark.parametrize(
    ("request_text", "code", "message"),
    [
        ("", "INVALID_ARGUMENT", "Missing ModelSpec"),
        ("model_spec { }", "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ("model_spec { name: 'm' }", "NOT_FOUND", "Servable not found for request: Latest(m)"),
        (
            "model_spec { name: 'half' version { value: 7 } }",
            "NOT_FOUND",
            "Servable not found for request: Specific(half, 7)",
        ),
        (
            "model_spec { name: 'half' version_label: 'x' }",
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: x",
        ),
        (
            "model_spec { name: 'half' signature_name: 's' }",
            "FAILED_PRECONDITION",
            'Serving signature key "s" not found.',
        ),
        (
            "model_spec { name: 'pair' } inputs { key: 'a' value { dtype: DT_INT32 int_val: 1 } }",
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 1!=2 len({a}) != len({a,b}). "
                "Sent extra: {}. Missing but required: {b}."
            ),
        ),
        (
            "model_spec { name: 'half' } inputs { key: 'w' value { dtype: DT_FLOAT float_val: 1 } }",
            "INVALID_ARGUMENT",
            (
                "Signature input alias: x(feed name: serving_default_x:0) not found in request and no "
                "default value provided. Inputs expected to be in the request {w}, "
                "or default input alias set: "
            ),
        ),
        (
            (
                "model_spec { name: 'half' } inputs { key: 'x' value { dtype: DT_FLOAT "
                "tensor_shape { dim { size: 2 } } tensor_content: 'abc' } }"
            ),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        ("model_spec { name: 'half' } inputs { key: 'x' }", "INVALID_ARGUMENT", "tensor parsing error: x"),
        (
            (
                "model_spec { name: 'half' } inputs { key: 'x' value { dtype: DT_FLOAT float_val: 1 "
                "tensor_shape { dim { size: 999999999999 } } } }"
            ),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            (
                "model_spec { name: 'half' } inputs { key: 'x' value { dtype: DT_FLOAT float_val: 1 } } "
                "output_filter: 'w'"
            ),
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: w Outputs expected to be in the set {y,z}.",
        ),
        (
            (
                "model_spec { name: 'half' } inputs { key: 'x' value { dtype: DT_FLOAT float_val: 1 } } "
                "output_filter: 'y' output_filter: 'y'"
            ),
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: y",
        ),
        (
            (
                "model_spec { name: 'half' } inputs { key: 'x' value { dtype: DT_INT32 int_val: 1 "
                "tensor_shape { dim { size: 1 } } } }"
            ),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but int32 is provided",
        ),
    ],
)
def test_predict_refuses_in_the_words_of_the_contract(
    predictions: Any, request_text: str, code: str, message: str
) -> None:
    request = text_format.Parse(request_text, predict_pb2.PredictRequest())
    assert refusal(predictions.Predict, request) == (code, message)


def test_a_tensor_declared_far_larger_than_it_was_sent_is_refused(predictions: Any) -> None:
    request = predict_request("half", x=[1.0])
    request.inputs["x"].tensor_shape.dim[0].size = 3
    answer = predictions.Predict(request, timeout=10)  # the last value is repeated, as in the original
    assert list(answer.outputs["z"].float_val) == [3.0, 3.0, 3.0]
    request.inputs["x"].tensor_shape.dim[0].size = 2**28
    assert refusal(predictions.Predict, request) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def test_a_shape_that_the_graph_cannot_take_is_the_failing_ops_own_error(predictions: Any) -> None:
    code, message = refusal(predictions.Predict, predict_request("pair", "matrix", x=[[1.0, 2.0, 3.0]]))
    assert code == "INVALID_ARGUMENT"
    assert "Matrix size-incompatible" in message
    assert "function_node" not in message


def test_the_declared_shape_itself_is_not_checked(predictions: Any) -> None:
    answer = predictions.Predict(predict_request("half", x=[[1.0, 2.0]]), timeout=10)
    assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [1, 2]


def test_a_bad_image_is_refused_with_the_ops_words(predictions: Any) -> None:
    code, message = refusal(predictions.Predict, predict_request("text", "classify", images=[b"no number"]))
    assert code == "INVALID_ARGUMENT"
    assert "could not correctly convert string: no number" in message


def test_a_long_message_is_cut(predictions: Any) -> None:
    _, message = refusal(predictions.Predict, predict_request("m" * 2000, x=[1.0]))
    assert message == f"Servable not found for request: Latest({'m' * 2000})"[:1024] + "...TRUNCATED"


def test_large_messages_pass(predictions: Any) -> None:
    answer = predictions.Predict(
        predict_request("text", "classify", images=[b"0.5" + b" " * (9 << 20)]), timeout=30
    )
    assert list(answer.outputs["labels"].string_val) == [b"tea-green"]


def example_input(request: Any, *values: float, context: float | None = None) -> Any:
    target = request.input.example_list if context is None else request.input.example_list_with_context
    if context is not None:
        target.context.features.feature["k"].float_list.value.append(context)
    for value in values:
        target.examples.add().features.feature["x"].float_list.value.append(value)
    return request


def classify_request(signature: str) -> Any:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "examples"
    request.model_spec.signature_name = signature
    return request


def regress_request(signature: str) -> Any:
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "examples"
    request.model_spec.signature_name = signature
    return request


@pytest.mark.parametrize("signature", ["classify", "native"])
def test_classify_answers_labels_and_scores_for_each_example(predictions: Any, signature: str) -> None:
    answer = predictions.Classify(example_input(classify_request(signature), 2.0, 4.0), timeout=10)
    rows = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
    assert rows == [[("positive", 3.0)], [("positive", 4.0)]]
    assert answer.model_spec.version.value == 1


def test_regress_merges_the_shared_context_into_each_example(predictions: Any) -> None:
    answer = predictions.Regress(
        example_input(regress_request("regress"), 2.0, 4.0, context=10.0), timeout=10
    )
    assert [one.value for one in answer.result.regressions] == [8.0, 9.0]


def test_multi_inference_answers_each_task_in_order(predictions: Any) -> None:
    request = inference_pb2.MultiInferenceRequest()
    for method in ("regress", "classify"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = "examples"
        task.model_spec.signature_name = method
    answer = predictions.MultiInference(example_input(request, 2.0), timeout=10)
    first, second = answer.results
    assert [one.value for one in first.regression_result.regressions] == [3.0]
    assert second.classification_result.classifications[0].classes[0].label == "positive"
    assert second.model_spec.signature_name == "classify"


def test_multi_inference_refuses_what_the_contract_refuses(predictions: Any) -> None:
    def asked(*tasks: tuple[str, str, str]) -> tuple[str, str]:
        request = inference_pb2.MultiInferenceRequest()
        for model, signature, method in tasks:
            task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
            task.model_spec.name = model
            task.model_spec.signature_name = signature
        return refusal(predictions.MultiInference, example_input(request, 2.0))

    assert asked() == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")
    twice = ("examples", "regress", "regress")
    assert asked(twice, twice) == ("INVALID_ARGUMENT", "Duplicate evaluation of signature: regress")
    assert asked(twice, ("half", "", "regress"))[1].startswith("All ModelSpecs in a MultiInferenceRequest")
    assert asked(("examples", "s", "regress"))[1] == "Requested signature not found in model graph: s"
    assert (
        asked(twice, ("examples", "regress_x", "regress"))[1]
        == "Input tensor must be the same for all Signatures."
    )
    assert asked(("examples", "regress", "predict")) == (
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    )


def test_classify_and_regress_refuse_what_the_contract_refuses(predictions: Any) -> None:
    missing = classification_pb2.ClassificationRequest()
    assert refusal(predictions.Classify, missing) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refusal(predictions.Classify, example_input(classify_request("s"), 1.0)) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: s",
    )
    code, words = refusal(predictions.Classify, example_input(classify_request("regress"), 1.0))
    assert code == "FAILED_PRECONDITION"
    assert words.startswith('Expected classification signature outputs to contain at least one of "classes"')
    assert refusal(predictions.Regress, example_input(regress_request("s"), 1.0)) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: s",
    )
    assert refusal(predictions.Regress, regress_request("regress")) == ("INVALID_ARGUMENT", "Input is empty.")
    assert refusal(predictions.Regress, example_input(regress_request("regress_x"), 1.0)) == (
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but string is provided",
    )


def test_metadata_tells_the_signatures(predictions: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "pair"
    answer = predictions.GetModelMetadata(request, timeout=10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["serving_default"].inputs) == {"a", "b"}
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("pair", 1)


def test_metadata_refuses_what_the_contract_refuses(predictions: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    assert refusal(predictions.GetModelMetadata, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "half"
    assert refusal(predictions.GetModelMetadata, request) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("weights")
    assert refusal(predictions.GetModelMetadata, request)[0] == "INVALID_ARGUMENT"


def test_status_tells_versions_and_refuses_unknown_ones(models: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    assert refusal(models.GetModelStatus, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "half"
    status = models.GetModelStatus(request, timeout=10).model_version_status[0]
    assert (status.version, status.state, status.status.error_code) == (1, 30, 0)
    request.model_spec.version.value = 7
    assert refusal(models.GetModelStatus, request) == ("NOT_FOUND", "Could not find version 7 of model half")
    request.model_spec.name = "m"
    request.model_spec.ClearField("version")
    assert refusal(models.GetModelStatus, request) == ("NOT_FOUND", "Could not find any versions of model m")


def test_more_calls_at_once_than_there_is_room_for_are_refused_before_they_are_read(
    saved_models: Path, start_server: Any
) -> None:
    flags = ("--model_name=half", f"--model_base_path={saved_models / 'half'}")
    go_on = threading.Event()

    def nothing_yet() -> Iterator[bytes]:
        go_on.wait(30)
        yield b""

    with ExitStack() as stack:
        server = start_server(stack, *flags, wait={"half": 1}, environment={"MAX_CONNECTIONS": "2"})
        channel = stack.enter_context(grpc.insecure_channel(server.target))
        stack.callback(go_on.set)
        unfinished: Any = channel.stream_unary("/tensorflow.serving.PredictionService/Predict", bytes, bytes)
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
        calls = [unfinished.future(nothing_yet(), timeout=60) for _ in range(2)]
        deadline = time.monotonic() + 30
        while predict.future(request, timeout=10).code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert time.monotonic() < deadline
            # One that met a request above was itself the call too many.
            calls = [unfinished.future(nothing_yet(), timeout=60) if call.done() else call for call in calls]
        for call in calls:
            call.cancel()
        while predict.future(request, timeout=10).code() is not grpc.StatusCode.OK:
            assert time.monotonic() < deadline


def test_the_session_service_is_not_served(channel: Any) -> None:
    call = channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
    assert refusal(call, b"")[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    "method",
    [
        "tensorflow.serving.PredictionService/Predict",
        "tensorflow.serving.ModelService/GetModelStatus",
        "inference.GRPCInferenceService/ModelInfer",
    ],
)
def test_a_message_that_cannot_be_read_is_the_senders_fault_in_words(channel: Any, method: str) -> None:
    code, words = refusal(channel.unary_unary(f"/{method}"), b"no message")
    assert (code, words) == ("INVALID_ARGUMENT", "the message cannot be read: it is none of this method's")
