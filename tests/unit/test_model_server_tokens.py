"""Tokens at the model server's doors: gRPC, REST version 1, and the Open Inference Protocol."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from model_server import open_inference_pb2 as messages
from model_server.settings import SettingsError, read

KNOWN = {"Authorization": "Bearer second-secret"}
PREDICT = "/v1/models/half:predict"
INFER = "/v2/models/half/infer"


@pytest.fixture(scope="module")
def server(saved_models: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Any) -> Iterator[Any]:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text("second:second-secret\n")
    flags = (
        "--model_name=half",
        f"--model_base_path={saved_models / 'half'}",
        "--enable_cors_support",
        "--enable_prometheus",
    )
    with ExitStack() as stack:
        started = start_server(
            stack, *flags, environment={"TOKENS": "first:first-secret", "TOKENS_FILE": str(file)}
        )
        deadline = time.monotonic() + 120
        while httpx.get(f"{started.url}/v2/health/ready", timeout=10).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield started


@pytest.fixture
def web(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as client:
        yield client


def refusals(web: httpx.Client) -> dict[str, int]:
    lines = web.get("/monitoring/prometheus/metrics").text.splitlines()
    counted = [line.split(" ") for line in lines if line.startswith("caravan_refusals_total")]
    return {name.removeprefix("caravan_refusals_total"): int(number) for name, number in counted}


def test_who_shows_no_token_or_a_wrong_one_is_refused_and_counted(web: httpx.Client) -> None:
    before = refusals(web)
    for path in (PREDICT, INFER, "/v1/models/half", "/v2", "/v2/models/half", "/v2/models/half/ready"):
        for headers in ({}, {"Authorization": "Bearer wrong-secret"}, {"Authorization": "first-secret"}):
            answer = web.request("POST" if path in {PREDICT, INFER} else "GET", path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert list(answer.json()) == ["error"]
    counted = refusals(web)
    wrong, none = '{door="rest",reason="wrong-token"}', '{door="rest",reason="no-token"}'
    assert counted[wrong] - before.get(wrong, 0) == 6
    assert counted[none] - before.get(none, 0) == 12


def test_the_open_inference_protocol_over_grpc_asks_for_a_token_but_not_for_health(channel: Any) -> None:
    def ask(method: str, request: bytes, **more: Any) -> bytes:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}", None, None)
        return bytes(call(request, timeout=10, **more))

    assert messages.ServerLiveResponse.FromString(ask("ServerLive", b"")).live
    with pytest.raises(grpc.RpcError) as caught:
        ask("ServerMetadata", b"")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert ask("ServerMetadata", b"", metadata=(("authorization", "Bearer first-secret"),))


def test_each_token_opens_both_apis(web: httpx.Client) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}
    for token in ("first-secret", "second-secret"):
        headers = {"Authorization": f"Bearer {token}"}
        assert web.post(PREDICT, json={"instances": [1.0]}, headers=headers).status_code == 200
        assert web.post(INFER, json=body, headers=headers).status_code == 200
        assert web.get("/v1/models/half", headers=headers).status_code == 200


def test_health_metrics_and_preflight_stay_open(web: httpx.Client) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/monitoring/prometheus/metrics"):
        assert web.get(path).status_code in {200, 503}
    preflight = web.options(PREDICT)
    assert preflight.status_code == 200
    assert "Authorization" in preflight.headers["access-control-allow-headers"]


def test_the_refusal_comes_before_the_body_is_read(server: Any) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


@pytest.fixture
def channel(server: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as channel:
        yield channel


def refusal(call: Any, request: Any, metadata: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10, metadata=metadata)
    return f"{caught.value.code().name}: {caught.value.details()}"


def test_grpc_asks_for_a_token_in_the_metadata(channel: grpc.Channel, web: httpx.Client) -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "half"
    before = refusals(web)
    assert refusal(predict, request, None).startswith("UNAUTHENTICATED: a token is needed")
    assert refusal(status, asked, None).startswith("UNAUTHENTICATED: a token is needed")
    wrong = (("authorization", "Bearer wrong-secret"),)
    assert refusal(predict, request, wrong) == "UNAUTHENTICATED: this token is not known"
    counted = refusals(web)
    for reason, times in (("no-token", 2), ("wrong-token", 1)):
        label = f'{{door="grpc",reason="{reason}"}}'
        assert counted[label] - before.get(label, 0) == times
    known = (("authorization", "Bearer first-secret"),)
    assert predict(request, timeout=10, metadata=known).outputs["z"].float_val[0] == 3.0
    assert status(asked, timeout=10, metadata=known).model_version_status[0].version == 1


def test_faults_in_the_tokens_are_told_without_the_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("first:first-secret\n")
    for environment in (
        {"TOKENS": "hush-hush-hush"},
        {"TOKENS": "first:hush-hush-hush", "TOKENS_FILE": str(file)},
        {"TOKENS_FILE": str(tmp_path / "nowhere")},
    ):
        with pytest.raises(SettingsError, match="TOKENS") as caught:
            read([], environment)
        assert "hush" not in str(caught.value)
    assert "first-secret" not in repr(read([], {"TOKENS": "first:first-secret"}))
