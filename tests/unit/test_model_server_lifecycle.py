"""Versions coming, going and failing under the real server, and the process's start and stop."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from edge_manager.models_config import models_config
from model_server import app
from model_server.settings import read
from support.ports import free_port
from support.waiting import wait_until

SaveHalf = Callable[[Path, float], None]
QUICK_RETRY = ("--max_num_load_retries=1", "--load_retry_interval_micros=50000")


@pytest.fixture
def base(tmp_path: Path, save_half: SaveHalf) -> Path:
    """A base path with version 1, and version 2 staged beside it."""
    save_half(tmp_path / "half" / "1", 1.0)
    save_half(tmp_path / "staged", 2.0)
    return tmp_path / "half"


def flags(base: Path, *more: str) -> tuple[str, ...]:
    return ("--model_name=half", f"--model_base_path={base}", *more)


def added(server: Any, path: str = "half") -> float:
    """What the version that answers adds."""
    answer = httpx.post(f"{server.url}/v1/models/{path}:predict", json={"instances": [0.0]}, timeout=10)
    assert answer.status_code == 200, answer.text
    number: float = answer.json()["predictions"][0]["y"]
    return number


def stays(server: Any, number: float) -> None:
    """Ask for the time of several polls: the same version has to answer each time."""
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert added(server) == number


def reload(server: Any, text: str) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(text, request.config)
    with grpc.insecure_channel(server.target) as channel:
        return model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30)


def refused(server: Any, text: str) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        reload(server, text)
    return caught.value.code().name, str(caught.value.details())


def entry(name: str, base: Path, more: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more} }}'


# --- versions -------------------------------------------------------------------------------------


def test_a_new_version_takes_over_under_load_without_one_error(serve_models: Any, base: Path) -> None:
    server = serve_models(*flags(base), wait={"half": 1})
    seen: list[tuple[int, str]] = []
    done = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=10) as client:
            while not done.is_set():
                answer = client.post(f"{server.url}/v1/models/half:predict", json={"instances": [0.0]})
                seen.append((answer.status_code, answer.text))

    callers = [threading.Thread(target=load) for _ in range(4)]
    for caller in callers:
        caller.start()
    (base.parent / "staged").rename(base / "002")
    server.wait_for("half", 1, "END")
    before = len(seen)
    wait_until(lambda: len(seen) > before + 20)
    done.set()
    for caller in callers:
        caller.join()
    assert {status for status, _ in seen} == {200}
    assert added(server) == 2.0
    assert server.states("half") == {2: "AVAILABLE", 1: "END"}


def test_whoever_asks_for_the_state_has_it_look_for_a_new_version(serve_models: Any, base: Path) -> None:
    server = serve_models(*flags(base), "--file_system_poll_wait_seconds=3600", wait={"half": 1})
    (base.parent / "staged").rename(base / "2")
    server.wait_for("half", 2)
    assert added(server) == 2.0


def test_a_version_that_vanishes_gives_way_to_the_one_before(serve_models: Any, base: Path) -> None:
    (base.parent / "staged").rename(base / "2")
    server = serve_models(*flags(base), wait={"half": 2})
    (base / "2").rename(base.parent / "away")
    server.wait_for("half", 1)
    server.wait_for("half", 2, "END")
    assert added(server) == 1.0


def test_an_empty_or_missing_base_path_unloads_nothing(serve_models: Any, base: Path) -> None:
    server = serve_models(*flags(base), wait={"half": 1})
    (base / "1").rename(base.parent / "away")
    (base / "x").mkdir()
    stays(server, 1.0)
    shutil.rmtree(base)
    stays(server, 1.0)
    (base.parent / "staged").rename(base.parent / "new")
    base.mkdir()
    (base.parent / "new").rename(base / "2")
    server.wait_for("half", 2)
    assert added(server) == 2.0


def test_a_broken_version_ends_with_its_error_and_the_old_one_serves_on(
    serve_models: Any, base: Path
) -> None:
    server = serve_models(*flags(base, *QUICK_RETRY), wait={"half": 1})
    broken = base / "2"
    broken.mkdir()
    server.wait_for("half", 2, "END")
    answer = httpx.get(f"{server.url}/v1/models/half/versions/2").json()["model_version_status"][0]["status"]
    assert answer["error_code"] == "NOT_FOUND"
    assert answer["error_message"].startswith("Could not find SavedModel .pb")
    assert added(server) == 1.0

    # Mending it changes nothing: it is tried again only after it vanished and returned.
    shutil.copytree(base.parent / "staged", broken, dirs_exist_ok=True)
    stays(server, 1.0)
    assert server.states("half")[2] == "END"
    broken.rename(base.parent / "away")
    stays(server, 1.0)
    (base.parent / "away").rename(broken)
    server.wait_for("half", 2)
    assert added(server) == 2.0


def test_a_damaged_saved_model_ends_with_its_error(serve_models: Any, base: Path) -> None:
    server = serve_models(*flags(base, "--max_num_load_retries=0"), wait={"half": 1})
    (base.parent / "damaged").mkdir()
    (base.parent / "damaged" / "saved_model.pb").write_bytes(b"\xff" * 100)
    (base.parent / "damaged").rename(base / "2")
    server.wait_for("half", 2, "END")
    status = httpx.get(f"{server.url}/v1/models/half/versions/2").json()["model_version_status"][0]["status"]
    assert status["error_code"] == "DATA_LOSS"


def test_a_failing_version_does_not_keep_the_next_one_out(serve_models: Any, base: Path) -> None:
    server = serve_models(*flags(base), wait={"half": 1})  # a retry would come after a minute
    (base / "2").mkdir()
    server.wait_for("half", 2, "LOADING")
    (base.parent / "staged").rename(base / "3")
    server.wait_for("half", 3)
    server.wait_for("half", 1, "END")


def test_a_server_without_a_model_is_up_and_says_so(
    serve_models: Any, tmp_path: Path, save_half: SaveHalf
) -> None:
    server = serve_models(*flags(tmp_path / "half"))
    answer = httpx.get(f"{server.url}/v1/models/half")
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": "Could not find any versions of model half"},
    )
    save_half(tmp_path / "staged", 1.0)
    (tmp_path / "half").mkdir()
    (tmp_path / "staged").rename(tmp_path / "half" / "7")
    server.wait_for("half", 7)
    assert added(server, "half/versions/7") == 1.0


# --- configuration --------------------------------------------------------------------------------


def test_a_reload_adds_models_policies_and_labels_and_removes_models(serve_models: Any, base: Path) -> None:
    server = serve_models(*flags(base), wait={"half": 1})
    (base.parent / "staged").rename(base / "2")
    server.wait_for("half", 2)
    both = "model_version_policy { specific { versions: 1 versions: 2 } }"
    reload(server, f"model_config_list {{ {entry('half', base, both)} {entry('other', base)} }}")
    assert added(server, "other") == 2.0
    server.wait_for("half", 1)
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    reload(server, f"model_config_list {{ {entry('half', base, both + labels)} }}")
    assert (added(server, "half/labels/stable"), added(server, "half/labels/canary")) == (1.0, 2.0)
    assert added(server, "half/versions/1") == 1.0
    answer = httpx.post(f"{server.url}/v1/models/other:predict", json={"instances": [0.0]})
    assert answer.json() == {"error": "Servable not found for request: Latest(other)"}


def test_a_label_on_a_version_that_does_not_serve_is_refused_and_nothing_changes(
    serve_models: Any, base: Path
) -> None:
    server = serve_models(*flags(base), wait={"half": 1})
    label = 'version_labels { key: "stable" value: 5 }'
    assert refused(server, f"model_config_list {{ {entry('half', base, label)} }}") == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 5 of model half, which is not currently available for inference",
    )
    assert added(server) == 1.0


def test_a_reload_with_nothing_to_serve_is_refused(serve_models: Any, base: Path) -> None:
    server = serve_models(*flags(base, "--max_num_load_retries=0"), wait={"half": 1})
    (base.parent / "broken" / "1").mkdir(parents=True)
    code, words = refused(
        server, f"model_config_list {{ {entry('half', base)} {entry('broken', base.parent / 'broken')} }}"
    )
    assert (code, words) == ("UNKNOWN", "Some models did not become available: {{name: broken version: 1}, }")
    assert refused(server, "")[0] == "INVALID_ARGUMENT"
    assert added(server) == 1.0


def test_a_label_at_the_start_needs_the_switch_that_allows_it(
    serve_models: Any, base: Path, tmp_path: Path
) -> None:
    config = tmp_path / "models.config"
    label = 'version_labels { key: "a" value: 1 }'
    config.write_text(f"model_config_list {{ {entry('half', base, label)} }}")
    with pytest.raises(Exception, match="not currently available for inference"):
        serve_models(f"--model_config_file={config}")
    server = serve_models(
        f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models", wait={"half": 1}
    )
    assert added(server, "half/labels/a") == 1.0


def test_a_polled_config_file_brings_models_and_takes_them_away(
    serve_models: Any, base: Path, tmp_path: Path
) -> None:
    def listing(*names: str) -> str:
        return f"model_config_list {{ {' '.join(entry(name, base) for name in names)} }}"

    def asked(name: str) -> int:
        body = {"instances": [0.0]}
        return httpx.post(f"{server.url}/v1/models/{name}:predict", json=body, timeout=10).status_code

    config = tmp_path / "models.config"
    config.write_text(listing("first", "second"))
    polled = (f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=0.02")
    server = serve_models(*flags(base), *polled, wait={"half": 1, "first": 1, "second": 1})
    config.write_text(listing("second", "third"))
    server.wait_for("third", 1)
    wait_until(lambda: asked("first") == 404)
    for broken in ("nonsense", "", listing("fourth", "fourth"), listing("third") + "\xff"):
        config.write_bytes(broken.encode("latin-1"))
        stays(server, 1.0)
        assert (asked("half"), asked("second"), asked("third")) == (200, 200, 200)
    config.unlink()
    stays(server, 1.0)
    assert (asked("second"), asked("third")) == (200, 200)
    config.write_text(listing("first"))
    server.wait_for("first", 1)
    wait_until(lambda: asked("second") == 404)
    assert asked("half") == 200  # named by itself, and so beside whatever the file lists


def test_where_versions_are_compared_the_newest_and_the_one_before_answer(
    serve_models: Any, base: Path, save_half: SaveHalf, tmp_path: Path
) -> None:
    """By the file that an edge-manager writes, at first without and then with `CANARY`."""
    (base.parent / "staged").rename(base / "2")
    config = tmp_path / "models.config"
    config.write_bytes(models_config(str(tmp_path), {"half": ()}))
    polled = (f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=0.02")
    server = serve_models(*polled, wait={"half": 2})
    version_1 = f"{server.url}/v1/models/half/versions/1"
    assert '"AVAILABLE"' not in httpx.get(version_1).text
    config.write_bytes(models_config(str(tmp_path), {"half": ()}, 2))
    wait_until(lambda: '"AVAILABLE"' in httpx.get(version_1).text)
    assert (added(server), added(server, "half/versions/1")) == (2.0, 1.0)
    save_half(tmp_path / "3", 3.0)
    (tmp_path / "3").rename(base / "3")
    wait_until(lambda: added(server) == 3.0)
    assert added(server, "half/versions/2") == 2.0
    wait_until(lambda: '"AVAILABLE"' not in httpx.get(version_1).text)
    assert httpx.get(f"{server.url}/v1/models/half").text.count('"AVAILABLE"') == 2


# --- the process ----------------------------------------------------------------------------------


def test_the_process_says_where_it_listens_and_ends_with_0_on_sigterm(base: Path) -> None:
    ports = free_port(), free_port()
    command = [sys.executable, "-m", "model_server", f"--port={ports[0]}", f"--rest_api_port={ports[1]}"]
    with subprocess.Popen(
        [*command, *flags(base)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "hidden-key", "TOKENS": "probe:hidden-token"},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        environment = Path(f"/proc/{process.pid}/environ")
        assert not environment.exists() or b"hidden" not in environment.read_bytes()
        assert f"gRPC 127.0.0.1:{ports[0]}, REST http://127.0.0.1:{ports[1]}" in line
        status = f"http://127.0.0.1:{ports[1]}/v1/models/half"
        assert httpx.get(status).status_code == 401
        token = {"Authorization": "Bearer hidden-token"}
        wait_until(lambda: "AVAILABLE" in httpx.get(status, headers=token).text)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output == ""
    assert "oneDNN" not in errors


def test_help_teaches_and_bad_flags_end_with_2() -> None:
    command = [sys.executable, "-m", "model_server"]
    shown = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert "MODEL_BASE_PATH" in shown
    assert "--max_num_load_retries" in shown
    wrong = subprocess.run(
        [*command, "--model_config_file=/nowhere"], capture_output=True, text=True, timeout=120, check=False
    )
    assert wrong.returncode == 2
    assert "Invalid protobuf file: '/nowhere'" in wrong.stderr


def speaks_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not speaks_ipv6(), reason="this machine has no IPv6")
async def test_it_listens_on_an_address_of_ipv6(base: Path) -> None:
    settings = read(["--host=::1", "--port=0", "--rest_api_port=0", *flags(base)], {})
    async with app.serving(settings) as running, httpx.AsyncClient() as http:
        answer = await http.get(f"http://[::1]:{running.rest_port}/v2/health/live")
        assert (answer.status_code, running.grpc_port > 0) == (200, True)


async def test_a_taken_port_is_named(base: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flag in ("--port", "--rest_api_port"):
            other = "--rest_api_port=0" if flag == "--port" else "--port=0"
            with pytest.raises(
                OSError, match=f"{flag} {port}, --host .HOST. 127.0.0.1: nothing can listen there"
            ):
                async with app.serving(read([f"{flag}={port}", other, *flags(base)], {})):
                    await asyncio.sleep(0)
