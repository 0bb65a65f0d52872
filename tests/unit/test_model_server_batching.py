"""Joining concurrent requests, seen from the doors of the real server."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def images(*values: bytes) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "text"
    request.model_spec.signature_name = "classify"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(list(values)))
    return request


def batching(tmp_path: Path, text: str) -> str:
    file = tmp_path / "batching"
    file.write_text(text)
    return f"--batching_parameters_file={file}"


def served(serve_models: Any, saved_models: Path, *flags: str) -> Any:
    flags = ("--model_name=text", f"--model_base_path={saved_models / 'text'}", "--enable_prometheus", *flags)
    return serve_models(*flags, wait={"text": 1})


async def ask_at_once(target: str, requests: list[predict_pb2.PredictRequest]) -> list[Any]:
    """Send all requests together; return the answers, and the refusals as `code: words`."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        async def ask(request: predict_pb2.PredictRequest) -> Any:
            try:
                return await stub.Predict(request, timeout=20)
            except grpc.aio.AioRpcError as exc:
                return f"{exc.code().name}: {exc.details()}"

        return list(await asyncio.gather(*(ask(request) for request in requests)))


def batches(url: str) -> Counter[str]:
    """How often TensorFlow was called, and for how many requests altogether."""
    page = httpx.get(f"{url}/monitoring/prometheus/metrics").text
    prefix = ":tensorflow:serving:batching_session:processed_batch_size"
    lines = [line.split(" ") for line in page.splitlines() if line.startswith(prefix)]
    return Counter({name.partition("{")[0].removeprefix(prefix + "_"): int(float(n)) for name, n in lines})


async def test_concurrent_requests_share_calls_and_each_gets_its_own_rows(
    serve_models: Any, saved_models: Path, tmp_path: Path
) -> None:
    held = "max_batch_size { value: 8 } batch_timeout_micros { value: 200000 }"
    server = served(serve_models, saved_models, batching(tmp_path, held))
    values = [f"0.{n:02}".encode() for n in range(10, 34)]
    answers = await ask_at_once(server.target, [images(value) for value in values])
    for value, answer in zip(values, answers, strict=True):
        assert answer.outputs["probabilities"].float_val[0] == pytest.approx(float(value))
        assert list(answer.outputs["classes"].string_val) == [b"tea-green", b"tea-lemon", b"other"]
        assert [dim.size for dim in answer.outputs["labels"].tensor_shape.dim] == [1]
    counted = batches(server.url)
    assert counted["sum"] == 24
    assert counted["count"] < 24


async def test_a_bad_image_in_a_batch_fails_its_own_caller_only(
    serve_models: Any, saved_models: Path, tmp_path: Path
) -> None:
    held = "max_batch_size { value: 4 } batch_timeout_micros { value: 200000 }"
    server = served(serve_models, saved_models, batching(tmp_path, held))
    requests = [images(b"0.75"), images(b"bad"), images(b"0.1", b"0.2"), images(b"0.9")]
    good, bad, two, last = await ask_at_once(server.target, requests)
    assert bad.startswith("INVALID_ARGUMENT: ")
    assert "could not correctly convert string: bad" in bad
    assert list(good.outputs["labels"].string_val) == [b"tea-green"]
    assert list(two.outputs["labels"].string_val) == [b"tea-lemon", b"tea-lemon"]
    assert list(last.outputs["scores"].float_val) == pytest.approx([0.9])


async def test_requests_whose_shapes_differ_do_not_disturb_each_other(
    serve_models: Any, saved_models: Path, tmp_path: Path
) -> None:
    held = "max_batch_size { value: 4 } batch_timeout_micros { value: 200000 }"
    flags = ("--model_name=half", f"--model_base_path={saved_models / 'half'}", batching(tmp_path, held))
    server = serve_models(*flags, wait={"half": 1})
    requests = []
    for value in ([1.0], [[1.0, 2.0]], 5.0):
        request = predict_pb2.PredictRequest(output_filter=["y"])
        request.model_spec.name = "half"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(value))
        requests.append(request)
    answers = await ask_at_once(server.target, requests)
    assert [tf.make_ndarray(answer.outputs["y"]).tolist() for answer in answers] == [[2.5], [[2.5, 3.0]], 4.5]


async def test_batches_are_filled_up_to_an_allowed_size_without_a_trace_in_the_answer(
    serve_models: Any, saved_models: Path, tmp_path: Path
) -> None:
    sizes = "max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8"
    server = served(serve_models, saved_models, batching(tmp_path, sizes))
    (answer,) = await ask_at_once(server.target, [images(b"0.1", b"0.2", b"0.9")])
    assert list(answer.outputs["labels"].string_val) == [b"tea-lemon", b"tea-lemon", b"tea-green"]


async def test_a_request_larger_than_a_batch_runs_whole_or_is_refused_as_told(
    serve_models: Any, saved_models: Path, tmp_path: Path
) -> None:
    many = images(*[b"0.1"] * 5)
    small = "max_batch_size { value: 2 }"
    server = served(serve_models, saved_models, batching(tmp_path, small))
    (answer,) = await ask_at_once(server.target, [many])
    assert len(answer.outputs["labels"].string_val) == 5
    strict = small + " enable_large_batch_splitting { value: false }"
    server = served(serve_models, saved_models, batching(tmp_path, strict))
    assert await ask_at_once(server.target, [many]) == [
        "INVALID_ARGUMENT: Task size 5 is larger than maximum input batch size 2"
    ]


async def test_a_full_queue_is_answered_unavailable_and_the_rest_is_served(
    serve_models: Any, saved_models: Path, tmp_path: Path
) -> None:
    tiny = (
        "max_batch_size { value: 2 } max_enqueued_batches { value: 1 } num_batch_threads { value: 1 } "
        "batch_timeout_micros { value: 100000 }"
    )
    server = served(serve_models, saved_models, batching(tmp_path, tiny))
    answers: list[Any] = []
    refused: list[str] = []
    async with asyncio.timeout(60):
        while not refused:  # whether they come faster than they are answered is up to the machine
            answers += await ask_at_once(server.target, [images(b"0.75") for _ in range(60)])
            refused = [answer for answer in answers if isinstance(answer, str)]
    assert set(refused) == {
        "UNAVAILABLE: The batch scheduling queue to which this task was submitted is full"
    }
    assert 0 < len(refused) < len(answers)


async def test_without_batching_each_request_is_a_call_of_its_own(
    serve_models: Any, saved_models: Path
) -> None:
    server = served(serve_models, saved_models, "--enable_batching=false")
    await ask_at_once(server.target, [images(b"0.75") for _ in range(8)])
    assert batches(server.url)["count"] == 8
