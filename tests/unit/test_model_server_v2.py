"""The Open Inference Protocol at the REST port of the real server, for both kinds of model."""

import base64
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from caravan.testing.stores import Requests
from caravan.testing.waiting import until
from model_server.loading import load

SAVED = ("half", "pair", "text")
ONNX = ("scores", "words", "fixed")


@pytest.fixture(scope="module")
def web(
    saved_models: Path, onnx_models: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Any
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("config")
    paths = {name: saved_models / name for name in SAVED} | {name: onnx_models / name for name in ONNX}
    (folder / "empty").mkdir()
    (folder / "broken" / "1").mkdir(parents=True)
    paths |= {"empty": folder / "empty", "broken": folder / "broken"}
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
        for name, path in paths.items()
    )
    (folder / "models.config").write_text(f"model_config_list {{ {entries} }}")
    flags = ("--enable_prometheus", "--max_rest_body_bytes=100000", "--max_num_load_retries=0")
    with ExitStack() as stack:
        config = f"--model_config_file={folder / 'models.config'}"
        server = start_server(stack, config, *flags, wait=dict.fromkeys((*SAVED, *ONNX), 1))
        server.wait_for("broken", 1, "END")
        yield stack.enter_context(httpx.Client(base_url=server.url, timeout=10))


def tensor(name: str, datatype: str, shape: list[int], data: Any, **parameters: Any) -> dict[str, Any]:
    more = {"parameters": parameters} if parameters else {}
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def infer(web: httpx.Client, model: str, *inputs: Any, **more: Any) -> tuple[int, Any]:
    answer = web.post(f"/v2/models/{model}/infer", content=json.dumps({"inputs": inputs, **more}))
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


def outputs(web: httpx.Client, model: str, *inputs: Any, **more: Any) -> dict[str, Any]:
    """The data of each output, which has to be there once."""
    status, answer = infer(web, model, *inputs, **more)
    assert status == 200, answer
    return {one["name"]: one["data"] for one in answer["outputs"]}


# --- health and metadata --------------------------------------------------------------------------


def test_health_is_told_in_the_words_of_the_protocol(web: httpx.Client) -> None:
    live, ready = web.get("/v2/health/live"), web.get("/v2/health/ready")
    assert web.head("/v2/health/live").status_code == 200
    assert (live.status_code, live.json()) == (200, {"live": True})
    # A model without any version, and one that cannot be loaded, keep nobody waiting.
    assert (ready.status_code, ready.json()) == (200, {"ready": True})


def test_a_server_that_is_loading_a_model_is_not_ready_yet(
    serve_models: Any, saved_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slow(*args: Any) -> Any:
        assert go_on.wait(30)
        return load(*args)

    monkeypatch.setattr("model_server.app.load", slow)
    server = serve_models("--model_name=half", f"--model_base_path={saved_models / 'half'}")
    try:
        server.wait_for("half", 1, "LOADING")
        answer = httpx.get(f"{server.url}/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"ready": False})
        answer = httpx.get(f"{server.url}/v2/models/half/ready")
        assert (answer.status_code, answer.json()) == (503, {"name": "half", "ready": False})
        answer = httpx.get(f"{server.url}/v2/models/half")
        assert (answer.status_code, answer.json()) == (503, {"error": 'model "half" is not ready'})
    finally:
        go_on.set()
    server.wait_for("half", 1)
    assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200


OWN = ("--model_name=half", "--model_base_path=s3://production/models/half")
LISTED = ("--model_config_file=s3://production/models.config", "--model_config_file_poll_wait_seconds=0.05")


@pytest.mark.parametrize("flags", [OWN, LISTED, (*OWN, *LISTED)])
async def test_a_server_that_does_not_know_yet_what_is_asked_for_is_not_ready(
    flags: tuple[str, ...], serve_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 away at the first look: neither the models config nor any version is known, which is not "none"."""
    for module in ("config_file", "sources"):
        monkeypatch.setattr(f"model_server.{module}.open_store", lambda *_: MemoryStore())
    looks = {OWN: "list_with_delimiter_async", LISTED: "get_async"}
    away = [Requests(monkeypatch, obstore, look) for needs, look in looks.items() if set(needs) <= set(flags)]
    for requests in away:
        requests.fail(GenericError("connection refused"))
    server = serve_models(*flags)

    def is_ready() -> bool:
        return httpx.get(f"{server.url}/v2/health/ready").status_code == 200

    def has_failed(requests: Requests) -> bool:
        return requests.failed > 2

    for requests in away:
        await until(partial(has_failed, requests))
        assert not is_ready()
        requests.mend()
    await until(is_ready)  # S3 has answered that there is nothing


async def test_a_base_path_that_may_not_be_read_keeps_nobody_waiting(
    serve_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_server.sources.open_store", lambda *_: MemoryStore())
    refused = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code></Error>"
    Requests(monkeypatch, obstore, "list_with_delimiter_async").fail(GenericError(refused))
    server = serve_models(*OWN)
    await until(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 200)


def test_the_server_tells_its_name_and_extensions(web: httpx.Client) -> None:
    answer = web.get("/v2").json()
    assert answer["name"] == "caravan-model-server"
    assert answer["extensions"] == ["binary_tensor_data"]
    assert answer["version"]


def test_a_model_of_either_kind_tells_its_tensors(web: httpx.Client) -> None:
    assert web.get("/v2/models/scores").json() == {
        "name": "scores",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "best", "datatype": "INT64", "shape": [-1]},
            {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
        ],
        "parameters": {"signature_names": ["serving_default"]},
    }
    told = web.get("/v2/models/text/versions/1").json()
    assert (told["platform"], told["versions"]) == ("tensorflow_savedmodel", ["1"])
    assert told["inputs"] == [{"name": "image_b64", "datatype": "BYTES", "shape": [1]}]
    assert told["parameters"]["signature_names"] == ["classify", "echo", "serving_default"]


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("half/ready", 200, {"name": "half", "ready": True}),
        ("half/versions/1/ready", 200, {"name": "half", "ready": True}),
        ("empty/ready", 503, {"name": "empty", "ready": False}),
        ("broken/versions/1/ready", 503, {"name": "broken", "ready": False}),
        ("half/versions/7/ready", 404, {"error": "Servable not found for request: Specific(half, 7)"}),
        ("m/ready", 404, {"error": "Servable not found for request: Latest(m)"}),
        ("m", 404, {"error": "Servable not found for request: Latest(m)"}),
        ("empty", 503, {"error": 'model "empty" is not ready'}),
        ("half/versions/x", 400, {"error": "a model's version is a number: x"}),
        ("half/frob", 404, {"error": "There is nothing at /v2/models/half/frob"}),
        ("half/infer", 405, {"error": "/v2/models/half/infer is asked by POST, not GET"}),
    ],
)
def test_a_models_readiness_and_its_absence_are_told(
    web: httpx.Client, path: str, status: int, answer: Any
) -> None:
    told = web.get(f"/v2/models/{path}")
    assert (told.status_code, told.json()) == (status, answer)


# --- inference ------------------------------------------------------------------------------------


def test_an_answer_has_the_shape_of_the_protocol(web: httpx.Client) -> None:
    assert infer(web, "scores", tensor("x", "FP32", [2, 3], [[1, 2, 0], [5, 0, 0]]), id="a-1") == (
        200,
        {
            "model_name": "scores",
            "model_version": "1",
            "id": "a-1",
            "outputs": [
                {"name": "best", "shape": [2], "datatype": "INT64", "data": [1, 0]},
                {"name": "y", "shape": [2, 3], "datatype": "FP32", "data": [1, 3, 2, 5, 1, 2]},
            ],
        },
    )


def test_data_may_be_nested_or_flat_for_both_kinds_of_model(web: httpx.Client) -> None:
    flat, nested = [1.0, 2.0, 3.0, 4.0], [[1.0, 2.0], [3.0, 4.0]]
    choice = {"signature_name": "matrix"}
    for data in (flat, nested):
        assert outputs(web, "pair", tensor("x", "FP32", [2, 2], data), parameters=choice) == {"y": [3.0, 7.0]}
    for data in ([1.0, 2.0, 3.0], [[1.0, 2.0, 3.0]]):
        assert outputs(web, "fixed/versions/1", tensor("x", "FP32", [1, 3], data)) == {"y": [1.0, 3.0, 5.0]}


def test_several_inputs_and_wanted_outputs_are_named(web: httpx.Client) -> None:
    both = (tensor("a", "INT32", [2], [1, 2]), tensor("b", "FP32", [2], [0.5, 1.5]))
    assert outputs(web, "pair", *both) == {"sum": [1.5, 3.5]}
    assert outputs(web, "half", tensor("x", "FP32", [1], [2]), outputs=[{"name": "z"}]) == {"z": [6.0]}


def test_an_image_goes_in_as_base64_and_text_as_it_is(web: httpx.Client) -> None:
    image = base64.b64encode(b"0.75").decode()
    picture = tensor("image_b64", "BYTES", [1], [image], content_type="base64")
    assert outputs(web, "text", picture) == {"output": ["tea-green", "0.750000"]}
    assert outputs(web, "text", tensor("image_b64", "BYTES", [1], ["0.75"])) == {
        "output": ["tea-green", "0.750000"]
    }
    assert outputs(web, "words", tensor("x", "BYTES", [2], ["thé", ""])) == {"y": ["thé", ""]}


def test_another_signature_is_chosen_by_a_parameter(web: httpx.Client) -> None:
    images = tensor("images", "BYTES", [2], ["0.75", "0.1"])
    answer = outputs(web, "text", images, parameters={"signature_name": "classify"})
    assert answer["labels"] == ["tea-green", "tea-lemon"]
    assert answer["classes"] == ["tea-green", "tea-lemon", "other"]


def test_bytes_that_are_no_text_come_back_as_base64(web: httpx.Client) -> None:
    given = tensor("x", "BYTES", [2], ["/wA=", "YQ=="], content_type="base64")
    status, answer = infer(web, "text", given, parameters={"signature_name": "echo"})
    assert status == 200
    (output,) = answer["outputs"]
    assert (output["data"], output["parameters"]) == (["/wA=", "YQ=="], {"content_type": "base64"})


@pytest.mark.parametrize("content_type", ["np", "pd", "str", "base64"])
def test_content_types_of_a_whole_request_are_those_of_its_inputs(
    web: httpx.Client, content_type: str
) -> None:
    data = [base64.b64encode(b"0.75").decode()] if content_type == "base64" else ["0.75"]
    chosen = {"signature_name": "classify", "content_type": content_type}
    # MLServer's codecs write strings as a table of one column.
    for shape in ([1], [1, 1]):
        images = tensor("images", "BYTES", shape, data)
        assert outputs(web, "text", images, parameters=chosen)["labels"] == ["tea-green"]


def test_an_output_comes_as_base64_where_that_is_asked_for(web: httpx.Client) -> None:
    wanted = [{"name": "raw_bytes", "parameters": {"content_type": "base64"}}]
    given = tensor("x", "BYTES", [1], ["a"])
    chosen = {"signature_name": "echo"}
    assert outputs(web, "text", given, parameters=chosen, outputs=wanted) == {"raw_bytes": ["YQ=="]}


def test_numbers_that_json_has_no_words_for_are_taken_and_sent_as_bytes_only(web: httpx.Client) -> None:
    given = tensor("x", "FP32", [1], [float("nan")])
    status, answer = infer(web, "half", given, outputs=[{"name": "y"}])
    assert (status, answer["error"]) == (
        400,
        'output "y": NaN and Infinity are not in JSON: ask for it with binary_data',
    )
    wanted = {"inputs": [given], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    raw = web.post("/v2/models/half/infer", content=json.dumps(wanted))
    assert np.isnan(np.frombuffer(raw.content[-4:], "<f4")).all()


def test_parameters_that_ask_for_nothing_are_no_demand(web: httpx.Client) -> None:
    neutral = {
        "sequence_id": 0,
        "sequence_start": False,
        "sequence_end": False,
        "priority": 0,
        "timeout": 10**7,
    }
    assert outputs(web, "half", GOOD, parameters=neutral)["z"] == [3.0]


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({"sequence_id": 7}, 501, "parameter sequence_id is not served: models here keep no state"),
        ({"priority": 1}, 501, "parameter priority is not served: requests are answered in the order"),
        (
            {"content_type": "datetime"},
            501,
            "content_type datetime is not served here; served are base64, np",
        ),
        ({"content_type": 7}, 400, "content_type has to be a string"),
        ({"timeout": -1}, 400, "timeout has to be a number of microseconds"),
        ({"binary_data_output": "yes"}, 400, "binary_data_output has to be true or false"),
        ({"frob": 1}, 400, "parameter frob is not known here; known are binary_data_output, content_type"),
    ],
)
def test_a_parameter_is_obeyed_or_refused(
    web: httpx.Client, parameters: dict[str, Any], status: int, words: str
) -> None:
    told = infer(web, "half", GOOD, parameters=parameters)
    assert told[0] == status, told
    assert words in told[1]["error"]


def test_parameters_of_tensors_are_obeyed_or_refused_too(web: httpx.Client) -> None:
    status, answer = infer(web, "half", {**GOOD, "parameters": {"shared_memory_region": "r"}})
    assert (status, answer["error"]) == (
        501,
        'input "x": parameter shared_memory_region is not served: tensors travel in the request',
    )
    status, answer = infer(web, "half", GOOD, outputs=[{"name": "y", "parameters": {"classification": 2}}])
    assert (status, answer["error"]) == (
        501,
        'output "y": parameter classification is not served: ask for the scores, and sort them',
    )


@pytest.mark.parametrize(
    "path", ["models/half/stats", "models/half/versions/1/config", "models/stats", "repository/index"]
)
def test_extensions_that_are_not_served_say_so(web: httpx.Client, path: str) -> None:
    answer = web.post(f"/v2/{path}")
    assert (answer.status_code, answer.json()) == (
        501,
        {"error": f"/v2/{path} is an extension that is not served here"},
    )


def test_what_is_null_is_left_out(web: httpx.Client) -> None:
    given = {**GOOD, "parameters": None}
    assert outputs(web, "half", given, id=None, parameters=None, outputs=None)["z"] == [3.0]


def test_nothing_is_a_batch_too(web: httpx.Client) -> None:
    answer = infer(web, "scores", tensor("x", "FP32", [0, 3], []))[1]["outputs"]
    assert [(one["shape"], one["data"]) for one in answer] == [([0], []), ([0, 3], [])]


# --- tensors in bytes -----------------------------------------------------------------------------


def binary(web: httpx.Client, model: str, document: Any, tail: bytes, length: str | None = None) -> Any:
    head = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    return web.post(f"/v2/models/{model}/infer", content=head + tail, headers=headers)


def behind(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def test_tensors_go_and_come_as_bytes_behind_the_json(web: httpx.Client) -> None:
    given = np.array([[1, 2, 0], [5, 0, 0]], "<f4")
    wanted = [{"name": "y", "parameters": {"binary_data": True}}, {"name": "best"}]
    document = {"inputs": [behind("x", "FP32", [2, 3], 24)], "outputs": wanted}
    answer = binary(web, "scores", document, given.tobytes())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    length = int(answer.headers["Inference-Header-Content-Length"])
    told = json.loads(answer.content[:length])["outputs"]
    assert told[0]["parameters"] == {"binary_data_size": 24}
    assert told[1]["data"] == [1, 0]
    added = np.frombuffer(answer.content[length:], "<f4").reshape(2, 3) - given
    assert added.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_images_go_as_bytes_with_their_lengths(web: httpx.Client) -> None:
    images = [b"0.75", b"0.1"]
    tail = b"".join(struct.pack("<I", len(image)) + image for image in images)
    document = {
        "inputs": [behind("images", "BYTES", [2], len(tail))],
        "parameters": {"signature_name": "classify", "binary_data_output": True},
        "outputs": [{"name": "labels"}],
    }
    answer = binary(web, "text", document, tail)
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert answer.content[length:] == b"\t\0\0\0tea-green\t\0\0\0tea-lemon"


@pytest.mark.parametrize(
    ("given", "tail", "length", "words"),
    [
        (behind("x", "FP32", [2], 8), b"1234", None, "binary_data_size is 8, and the body has 4 left"),
        (behind("x", "FP32", [2], 4), b"1234", None, "there are 4 bytes, and shape [2] of FP32 has 8"),
        (behind("x", "FP32", [1], 4), b"12345", None, "1 bytes that belong to no input"),
        (behind("x", "FP32", [1], -4), b"1234", None, "binary_data_size has to be a number of bytes"),
        (behind("x", "FP32", [2**28], 2**30), b"1234", None, "the body has 4 left"),
        (behind("x", "FP32", [1], 4), b"1234", "99999", "Inference-Header-Content-Length"),
        (behind("x", "FP32", [1], 4), b"1234", "-1", "Inference-Header-Content-Length"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    web: httpx.Client, given: Any, tail: bytes, length: str | None, words: str
) -> None:
    answer = binary(web, "half", {"inputs": [given]}, tail, length)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (b"\x04\0\0\x00abc", "ends within an element"),
        (b"\xff\xff\xff\xffabc", "ends within an element"),
        (b"\x01\0\0\0a\0", "is not the 1 elements"),
        (b"", "is not the 1 elements"),
    ],
)
def test_elements_that_do_not_fit_are_refused(web: httpx.Client, tail: bytes, words: str) -> None:
    answer = binary(web, "text", {"inputs": [behind("image_b64", "BYTES", [1], len(tail))]}, tail)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


# --- refusals -------------------------------------------------------------------------------------

GOOD = tensor("x", "FP32", [1], [1.0])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("[1]", "Is not object"),
        ({}, "inputs are missing"),
        ({"inputs": {}}, "inputs has to be a list of objects"),
        ({"inputs": [1]}, "inputs has to be a list of objects"),
        ({"inputs": [GOOD], "outputs": "y"}, "outputs has to be a list of objects"),
        ({"inputs": [GOOD], "outputs": [{"name": "a"}]}, "has outputs y, z, and not a"),
        ({"inputs": [GOOD], "parameters": [1]}, "parameters has to be an object"),
        ({"inputs": [GOOD], "parameters": {"signature_name": "s"}}, 'model "half" has no signature "s", but'),
        ({"inputs": [GOOD], "id": 7}, "id of the request has to be a string"),
        ({"inputs": [{**GOOD, "name": 1}]}, "name of an input has to be a string"),
        ({"inputs": [GOOD, GOOD]}, 'input "x" comes twice'),
        ({"inputs": [{**GOOD, "name": "y"}]}, "takes inputs x, and the request has y"),
        ({"inputs": [{**GOOD, "datatype": "FP99"}]}, 'input "x": datatype has to be one of BOOL, UINT8'),
        ({"inputs": [{**GOOD, "datatype": "FP64"}]}, 'input "x": datatype is FP64, and the model takes FP32'),
        ({"inputs": [{**GOOD, "shape": [1, 1]}]}, 'input "x": shape is [1, 1], and the model takes [-1]'),
        ({"inputs": [{**GOOD, "shape": [2]}]}, 'input "x": data has 1 values, and shape [2] has 2'),
        ({"inputs": [{**GOOD, "shape": [2**28]}]}, "data has 1 values, and shape [268435456] has 268435456"),
        ({"inputs": [{**GOOD, "shape": [2**70]}]}, "elements"),
        ({"inputs": [{**GOOD, "shape": [0, 2**40]}]}, "elements"),
        ({"inputs": [{**GOOD, "shape": [-1]}]}, "shape has to be a list of sizes"),
        ({"inputs": [{**GOOD, "shape": [True]}]}, "shape has to be a list of sizes"),
        ({"inputs": [{**GOOD, "data": 1.0}]}, 'input "x": data has to be a list'),
        ({"inputs": [{**GOOD, "data": ["1"]}]}, 'input "x": data of FP32 has to be numbers'),
        ({"inputs": [{**GOOD, "data": [True]}]}, "data of FP32 has to be numbers"),
        ({"inputs": [{**GOOD, "data": [None]}]}, "data of FP32 has to be numbers"),
        ({"inputs": [{**GOOD, "data": [1e39]}]}, "data has a number that is no FP32"),
        ({"inputs": [{**GOOD, "data": [10**400]}]}, "data has a number that is no FP32"),
        ({"inputs": [{**GOOD, "data": [[1.0], [2.0]]}]}, "data is nested otherwise than shape [1] says"),
        ({"inputs": [{**GOOD, "data": [[[1.0]]]}]}, "data of FP32 has to be numbers"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, "either data or the parameter"),
        ('{"id":"\\ud800","inputs":[]}', "surrogate"),
        (json.dumps({"inputs": [GOOD], "id": "?"}).encode().replace(b"?", b"\xff"), "request is not UTF-8"),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_the_reason(web: httpx.Client, body: Any, words: str) -> None:
    answer = web.post(
        "/v2/models/half/infer", content=body if isinstance(body, (str, bytes)) else json.dumps(body)
    )
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert outputs(web, "half", GOOD)["z"] == [3.0]


@pytest.mark.parametrize(
    ("datatype", "value", "words"),
    [
        ("INT32", 2**31, "data has a number that is no INT32"),
        ("INT32", 1.5, "data of INT32 has to be whole numbers"),
        ("INT32", True, "data of INT32 has to be whole numbers"),
    ],
)
def test_whole_numbers_are_looked_at_closely(
    web: httpx.Client, datatype: str, value: Any, words: str
) -> None:
    both = (tensor("a", datatype, [1], [value]), tensor("b", "FP32", [1], [1.0]))
    status, answer = infer(web, "pair", *both)
    assert (status, answer["error"]) == (400, f'input "a": {words}')


def test_an_op_that_fails_on_bytes_is_a_400_in_its_own_words(web: httpx.Client) -> None:
    status, answer = infer(web, "text", tensor("image_b64", "BYTES", [1], ["/wA="], content_type="base64"))
    assert status == 400
    assert "could not correctly convert string" in answer["error"]


def test_what_is_no_base64_is_refused(web: httpx.Client) -> None:
    bad = tensor("image_b64", "BYTES", [1], ["*"], content_type="base64")
    assert infer(web, "text", bad) == (400, {"error": 'input "image_b64": Unable to base64 decode'})


def test_a_model_that_is_not_there_or_not_ready_is_told_apart(web: httpx.Client) -> None:
    assert infer(web, "m", GOOD)[0] == 404
    assert infer(web, "empty", GOOD) == (503, {"error": 'model "empty" is not ready'})
    assert infer(web, "half/versions/7", GOOD)[0] == 404
    page = web.get("/monitoring/prometheus/metrics").text
    assert 'request_count{model_name="",status="NOT_FOUND"}' in page  # no labels of the caller's making
    assert 'model_name="m"' not in page


def test_a_body_beyond_the_limit_is_a_413(web: httpx.Client) -> None:
    answer = web.post("/v2/models/half/infer", content=b" " * 100_001)
    assert (answer.status_code, answer.json()) == (413, {"error": "The body is larger than 100000 bytes"})
