"""Other people's clients of the Open Inference Protocol ask the real server about both kinds of model."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support import clients

ASK = Path(clients.__file__).parent / "inference_clients"
Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def ask(
    saved_models: Path, onnx_models: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Any
) -> Iterator[Ask]:
    """Run `ask_<client>.py` in that client's environment, and return what it was answered."""
    models = {"half": saved_models, "text": saved_models, "scores": onnx_models}
    config = tmp_path_factory.mktemp("config") / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}'
        for name, folder in models.items()
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    with ExitStack() as stack:
        server = start_server(stack, f"--model_config_file={config}", wait=dict.fromkeys(models, 1))

        def run(client: str) -> Any:
            try:
                python = clients.python_of(client)
            except clients.NotInstalled as exc:
                pytest.skip(f"{client} cannot be installed here: {str(exc).splitlines()[-1]}")
            done = subprocess.run(
                [python, ASK / f"ask_{client}.py", server.url, server.target],
                env={},  # no proxies: the server is on this machine
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        yield run


SCORES = {"best": [1, 0], "y": [[1, 3, 2], [5, 1, 2]]}


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_tritonclient_is_answered_or_told_what_is_not_served(ask: Ask, door: str) -> None:
    answer = ask("tritonclient")[door]
    assert (answer["live"], answer["ready"], answer["model_ready"]) == (True, True, True)
    assert (answer["platform"], answer["server"]) == ("onnx_onnxv1", "caravan-model-server")
    assert answer["scores"] == [SCORES["y"], SCORES["best"]]
    assert (answer["half"], answer["labels"]) == ([2.5, 3.5], ["tea-green", "tea-lemon"])
    assert answer["packed"] == [[1, 3, 2]]
    refused = answer["refused"]
    assert "Servable not found" in refused["unknown"]
    assert "shape is [2], and the model takes [-1, 3]" in refused["shape"]
    for parameter, name in (("sequence_id", "sequence"), ("priority", "priority"), ("classification",) * 2):
        assert f"parameter {parameter} is not served" in refused[name]
    assert "not served here" in refused["statistics"]
    assert "not served here" in refused["index"]


def test_kserves_clients_are_answered_with_and_without_raw_tensors(ask: Ask) -> None:
    answer = ask("kserve")
    assert answer["ready"] == answer["grpc ready"] == [True, True, True]
    for raw in (False, True):
        assert answer[f"scores {raw}"] == answer[f"grpc scores {raw}"] == SCORES
        assert answer[f"grpc text {raw}"] == ["tea-green", "tea-lemon"]
    assert "shape is [2, 3], and the model takes [-1]" in answer["refused"]


def test_mlservers_codecs_are_read_and_what_is_no_tensor_is_refused(ask: Ask) -> None:
    answer = ask("mlserver")
    assert answer["ready"] == [True, True]
    for door in ("rest", "grpc"):
        assert answer[f"{door} scores"] == answer[f"{door} table"] == SCORES
        assert answer[f"{door} half"] == {"y": [2.5, 3.5], "z": [3, 9]}
        assert answer[f"{door} text"]["labels"] == ["tea-green", "tea-lemon"]
        assert answer[f"{door} base64"]["labels"] == ["tea-green"]
        assert "content_type datetime is not served here" in answer[f"{door} datetime"]["error"]
