"""The model server on an S3 base path, against a real S3 server."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import obstore
import onnx
import pytest
from obstore.store import S3Store
from onnx import TensorProto, helper

from local_stack.keys import PASSWORD, USER
from support.graphs import save_adder
from support.waiting import wait_until

BUCKET = "production"
WEED = Path(sys.executable).with_name("weed")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def answers(url: str) -> str:
    try:
        return httpx.get(url, timeout=5).text
    except httpx.TransportError:
        return ""


@contextmanager
def process(
    command: list[str], environment: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program for the length of the block."""
    with subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of a model, which add 1 and 2; and an ONNX model, which changes nothing."""
    folder = tmp_path_factory.mktemp("models")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(folder / "model.onnx"))
    for version in (1, 2):
        save_adder(folder / f"{version}", float(version))
    return folder


async def test_the_stack_finds_a_model_server_ready_that_asks_for_tokens(
    private_stack: Any, models: Path, eventually: Any
) -> None:
    stack = await private_stack("model-server", environment={"TOKENS": "stack:stack-secret"})
    endpoint = f"127.0.0.1:{stack.port('s3-edge1')}"
    url = stack.url("model-server-edge1", "rest")
    ready = "/v2/models/tea_model_b64/ready"
    known = {"Authorization": "Bearer stack-secret"}
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        assert (await client.get(ready)).status_code == 401

        async def is_at_rest() -> bool:
            return (await client.get("/v2/health/ready")).status_code == 200

        await eventually(is_at_rest)
        data = (models / "model.onnx").read_bytes()
        await obstore.put_async(bucket(endpoint), "models/tea_model_b64/1/model.onnx", data)

        async def serves() -> bool:
            return (await client.get(ready, headers=known)).status_code == 200

        await eventually(serves)
        metrics = (await client.get("/monitoring/prometheus/metrics")).text
    assert 'caravan_refusals_total{door="rest",reason="no-token"} 1' in metrics


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """An S3 server of its own: its host:port, and its process."""
    names = ("master", "volume", "filer")
    ports = iter(free_ports(2 * len(names) + 2))
    flags = [f"-{name}.port{kind}={next(ports)}" for name in names for kind in ("", ".grpc")]
    port = next(ports)
    (tmp_path / "weed").mkdir()
    command = [
        str(WEED),
        "server",
        "-s3",
        f"-dir={tmp_path / 'weed'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        *flags,
        f"-s3.port={port}",
        f"-s3.port.grpc={next(ports)}",
    ]
    with process(command) as running:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url) != "", "the S3 server did not start")
        wait_until(
            lambda: httpx.put(f"{url}/{BUCKET}", timeout=5).status_code == 200, "no bucket could be made"
        )
        yield f"127.0.0.1:{port}", running


def bucket(endpoint: str) -> S3Store:
    return S3Store(
        BUCKET,
        endpoint=f"http://{endpoint}",
        access_key_id=USER,
        secret_access_key=PASSWORD,
        region="us-east-1",
        client_options={"allow_http": True},
    )


def upload(endpoint: str, folder: Path, version: str, *, last: bool = True) -> None:
    """Put a version's files, `saved_model.pb` last or not at all."""
    store = bucket(endpoint)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == "saved_model.pb"):
        if last or path.name != "saved_model.pb":
            obstore.put(store, f"models/tea/{version}/{path.relative_to(folder)}", path)


def put_config(endpoint: str, *names: str) -> None:
    """List models under these names."""
    path = f"s3://{BUCKET}/models"
    entries = [
        f'config {{ name: "{name}" base_path: "{path}/{name}" model_platform: "tensorflow" }}'
        for name in names
    ]
    obstore.put(
        bucket(endpoint), "models/models.config", f"model_config_list {{ {' '.join(entries)} }}".encode()
    )


def test_versions_are_taken_from_a_bucket_once_complete_and_survive_its_absence(
    s3_server: tuple[str, "subprocess.Popen[bytes]"], models: Path, tmp_path: Path
) -> None:
    endpoint, s3_process = s3_server
    grpc_port, rest_port = free_ports(2)
    copies = tmp_path / "copies"
    copies.mkdir()
    environment = {
        "MODEL_NAME": "tea",
        "MODEL_BASE_PATH": f"s3://{BUCKET}/models",
        "S3_ENDPOINT": endpoint,
        "S3_USE_HTTPS": "0",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
        "TMPDIR": str(copies),
    }
    flags = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--file_system_poll_wait_seconds=0.1",
        f"--model_config_file=s3://{BUCKET}/models/models.config",
        "--model_config_file_poll_wait_seconds=0.1",
    ]
    url = f"http://127.0.0.1:{rest_port}/v1/models/tea"
    also = f"http://127.0.0.1:{rest_port}/v1/models/also"

    def states() -> dict[str, str]:
        try:
            listed = json.loads(answers(url) or "{}").get("model_version_status", [])
        except json.JSONDecodeError:
            return {}
        return {one["version"]: one["state"] for one in listed}

    def added() -> float:
        answer = httpx.post(f"{url}:predict", json={"instances": [0.0]}, timeout=10)
        assert answer.status_code == 200, answer.text
        number: float = answer.json()["predictions"][0]
        return number

    with process([sys.executable, "-m", "model_server", *flags], environment) as server:
        wait_until(
            lambda: "Could not find any versions of model tea" in answers(url), "the server did not start"
        )
        upload(endpoint, models / "1", "1")
        wait_until(lambda: states() == {"1": "AVAILABLE"}, "version 1 was not taken")
        assert added() == 1.0

        # The config that lists more models comes later, and another one after that.
        obstore.put(bucket(endpoint), "models/also/1/model.onnx", (models / "model.onnx").read_bytes())
        put_config(endpoint, "tea", "also")
        wait_until(lambda: "AVAILABLE" in answers(also), "the config was not taken")
        answer = httpx.post(f"{also}:predict", json={"instances": [0.5]}, timeout=10)
        assert answer.json() == {"predictions": [0.5]}
        assert added() == 1.0
        put_config(endpoint, "tea")
        wait_until(lambda: "Could not find any" in answers(also), "the model was not unloaded")
        assert states() == {"1": "AVAILABLE"}

        # Half a version is not a version; nor does an S3 server that does not answer unload anything.
        upload(endpoint, models / "2", "2", last=False)
        s3_process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            assert added() == 1.0
        s3_process.send_signal(signal.SIGCONT)
        assert states() == {"1": "AVAILABLE"}

        upload(endpoint, models / "2", "2")
        wait_until(lambda: states() == {"2": "AVAILABLE", "1": "END"}, "version 2 did not take over")
        assert added() == 2.0
        wait_until(lambda: len(list(copies.glob("model-server-*"))) == 1, "version 1's private copy stayed")

        # A version that is taken away is gone, though its folder is named for minutes; and it may return.
        store = bucket(endpoint)
        obstore.delete(store, [one["path"] for one in obstore.list(store, "models/tea/2/").collect()])
        wait_until(lambda: states() == {"2": "END", "1": "AVAILABLE"}, "version 1 did not come back")
        assert added() == 1.0
        upload(endpoint, models / "2", "2")
        wait_until(lambda: states() == {"2": "AVAILABLE", "1": "END"}, "version 2 was not taken again")
        assert added() == 2.0

        s3_process.kill()
        s3_process.wait(30)
        for _ in range(20):
            assert added() == 2.0
        server.terminate()
        assert server.wait(20) == 0
    assert list(copies.glob("model-server-*")) == []
