"""The REST side of TensorFlow Serving's contract, asked of the real server."""

import base64
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

MODELS = ("half", "pair", "text", "examples")


@pytest.fixture(scope="module")
def web(
    saved_models: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Any
) -> Iterator[httpx.Client]:
    config = tmp_path_factory.mktemp("config") / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{saved_models / name}" model_platform: "tensorflow" }}'
        for name in MODELS
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    flags = ["--enable_cors_support", "--enable_prometheus", "--max_rest_body_bytes=100000"]
    with ExitStack() as stack:
        server = start_server(stack, f"--model_config_file={config}", *flags, wait=dict.fromkeys(MODELS, 1))
        yield stack.enter_context(httpx.Client(base_url=server.url, timeout=10))


def ask(web: httpx.Client, path: str, body: Any) -> tuple[int, Any]:
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    answer = web.post(f"/v1/models/{path}", content=content)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


def error(web: httpx.Client, path: str, body: Any) -> tuple[int, str]:
    status, answer = ask(web, path, body)
    assert set(answer) == {"error"}
    return status, answer["error"]


# --- status, metadata, paths ----------------------------------------------------------------------


def test_status_is_printed_as_the_original_prints_it(web: httpx.Client) -> None:
    for path in ("half", "half/versions/1", "half/versions/001"):
        assert web.get(f"/v1/models/{path}").json() == {
            "model_version_status": [
                {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
        }


def test_metadata_holds_the_signature_definitions(web: httpx.Client) -> None:
    answer = web.get("/v1/models/half/metadata").json()
    assert answer["model_spec"] == {"name": "half", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "serving_default_x:0",
    }
    assert web.get("/v1/models/half/versions/1/metadata").json() == answer


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("GET", "/v1/models/half:predict", 400, "Malformed request: GET /v1/models/half:predict"),
        ("POST", "/v1/models/half", 400, "Malformed request: POST /v1/models/half"),
        ("DELETE", "/v1/models/half", 400, "Malformed request: DELETE /v1/models/half"),
        ("POST", "/v1/models/half:frob?x=1", 400, "Malformed request: POST /v1/models/half:frob"),
        ("GET", "/v1/models/half/versions/x", 400, "Malformed request: GET /v1/models/half/versions/x"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/m", 404, "Could not find any versions of model m"),
        ("GET", "/v1/models/a%20b", 404, "Could not find any versions of model a b"),
        ("GET", "/v1/models/half/versions/7", 404, "Could not find version 7 of model half"),
        ("GET", "/v1/models/m/metadata", 404, "Servable not found for request: Latest(m)"),
        ("GET", "/v1/models/half/labels/x/metadata", 400, "Unrecognized servable version label: x"),
        (
            "GET",
            "/v1/models/half/versions/99999999999999999999",
            400,
            "Failed to convert version: 99999999999999999999 to numeric.",
        ),
    ],
)
def test_paths_are_refused_in_the_words_of_the_contract(
    web: httpx.Client, method: str, path: str, status: int, message: str
) -> None:
    answer = web.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"error": message})


# --- predict --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "half:predict",
            {"instances": [1.0, 2, 5.0]},
            {"predictions": [{"y": 2.5, "z": 3.0}, {"y": 3.0, "z": 6.0}, {"y": 4.5, "z": 15.0}]},
        ),
        ("half/versions/1:predict", {"inputs": [1.0]}, {"outputs": {"y": [2.5], "z": [3.0]}}),
        ("half:predict", {"inputs": {"x": [1.0], "extra": 3}}, {"outputs": {"y": [2.5], "z": [3.0]}}),
        ("half:predict", {"instances": [{"x": 1.0}]}, {"predictions": [{"y": 2.5, "z": 3.0}]}),
        ("half:predict", {"inputs": [[1.0, 3.0]]}, {"outputs": {"y": [[2.5, 3.5]], "z": [[3.0, 9.0]]}}),
        ("pair:predict", {"instances": [{"a": 1, "b": 2}, {"b": 0.5, "a": 4}]}, {"predictions": [3.0, 4.5]}),
        ("pair:predict", {"inputs": {"a": [1], "b": [2]}}, {"outputs": [3.0]}),
        ("pair:predict", {"signature_name": "matrix", "instances": [[1, 2]]}, {"predictions": [[3.0]]}),
        ("pair:predict", {"signature_name": "total", "inputs": [1, 2]}, {"outputs": 3.0}),
        (
            "pair:predict",
            {"signature_name": "count", "instances": [1, 4]},
            {"predictions": [{"even": False, "y": 2}, {"even": True, "y": 5}]},
        ),
        ("text:predict", {"instances": [{"b64": "MC43NQ=="}]}, {"predictions": ["tea-green", "0.750000"]}),
        ("text:predict", {"inputs": [{"b64": "MC43NQ=="}]}, {"outputs": ["tea-green", "0.750000"]}),
        (
            "text:predict",
            {"instances": [{"image_b64": {"b64": "MC43NQ=="}}]},
            {"predictions": ["tea-green", "0.750000"]},
        ),
        (
            "text:predict",
            {"signature_name": "echo", "instances": [{"b64": "AP8="}, "é"]},
            {"predictions": [{"b64": "AP8="}, {"b64": "w6k="}]},
        ),
        ("examples:predict", {"instances": [[2.0], [4.0]]}, {"predictions": [[3.0], [4.0]]}),
    ],
)
def test_predict_answers_in_the_form_it_was_asked(
    web: httpx.Client, path: str, body: Any, expected: Any
) -> None:
    assert ask(web, path, body) == (200, expected)


def test_a_string_model_is_asked_with_a_bare_value_in_columnar_form(web: httpx.Client) -> None:
    body = {"signature_name": "classify", "inputs": ["0.75"]}
    status, answer = ask(web, "text:predict", body)
    assert status == 200
    assert answer["outputs"]["classes"] == ["tea-green", "tea-lemon", "other"]
    assert answer["outputs"]["labels"] == ["tea-green"]


def test_whole_floats_and_tokens_are_printed_as_the_original_prints_them(web: httpx.Client) -> None:
    answer = web.post("/v1/models/half:predict", content='{"inputs": [1, NaN, Infinity, -Infinity, 0.2]}')
    assert answer.json()["outputs"]["y"][0] == 2.5
    assert math.isnan(answer.json()["outputs"]["y"][1])
    assert '"z":[3.0,NaN,Infinity,-Infinity,0.6]' in answer.text


def test_answers_are_compact(web: httpx.Client) -> None:
    answer = web.post("/v1/models/pair:predict", json={"instances": [{"a": 1, "b": 2}, {"a": 1, "b": 3}]})
    assert answer.text == '{"predictions":[3.0,4.0]}'


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("half:predict", "", "JSON Parse error: The document is empty"),
        ("half:predict", "{", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("half:predict", "instances", "JSON Parse error: Invalid value. at offset: 0"),
        ("half:predict", "[1]", "JSON Value: [\n    1\n] Is not object"),
        ("half:predict", "[" * 100000, "JSON Parse error: Invalid value. at offset: 0"),
        ("half:predict", {}, "Missing 'inputs' or 'instances' key"),
        (
            "half:predict",
            {"signature_name": "s", "instances": [1]},
            'Serving signature name: "s" not found in signature def',
        ),
        (
            "half:predict",
            {"signature_name": 1},
            (
                'JSON Value: {\n    "signature_name": 1\n} not formatted correctly. '
                "'signature_name' key must be a string value."
            ),
        ),
        (
            "half:predict",
            {"instances": 1},
            "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array",
        ),
        (
            "half:predict",
            {"instances": []},
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            "half:predict",
            {"instances": ["x"]},
            (
                "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
                'Value: "x" Type: String is not of expected type: float'
            ),
        ),
        (
            "half:predict",
            {"instances": [{"w": 1}]},
            (
                "Failed to process element: 0 key: w of 'instances' list. Error: INVALID_ARGUMENT: JSON "
                "object: does not have named input: w"
            ),
        ),
        (
            "half:predict",
            {"instances": [1, {"x": 1}]},
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            "half:predict",
            {"instances": [{"x": 1}, 1]},
            "Expecting object but got list at item 1 of input list",
        ),
        (
            "half:predict",
            {"instances": [[1, 2], [1]]},
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                "Expecting tensor size: 2 but got: 1"
            ),
        ),
        (
            "half:predict",
            {"instances": [16777216]},
            (
                "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
                "Cannot convert JSON value: 16777216 to float without loss of precision."
            ),
        ),
        ("half:predict", {"inputs": {"w": 1}}, "Missing named input: x in 'inputs' object."),
        (
            "half:predict",
            {"inputs": [[1], 2]},
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            "half:predict",
            {"inputs": [[1, 2], [3]]},
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        ("half:predict", {"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
        (
            "pair:predict",
            {"instances": [1]},
            (
                "instances is a plain list, but expecting list of objects as multiple input tensors required "
                "as per tensorinfo_map"
            ),
        ),
        (
            "pair:predict",
            {"instances": [{"a": 1}]},
            (
                "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} "
                "keys must be equal to: a,b"
            ),
        ),
        (
            "pair:predict",
            {"inputs": [1]},
            (
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            ),
        ),
        (
            "pair:predict",
            {"inputs": {"a": [1.0], "b": [1]}},
            "JSON Value: 1.0 Type: Number is not of expected type: int32",
        ),
        (
            "pair:predict",
            {"signature_name": "shapes", "instances": [1]},
            "Tensor name: b has inconsistent batch size: 2 expecting: 1",
        ),
        (
            "pair:predict",
            {"signature_name": "total", "instances": [1]},
            "Tensor name: total has no shape information ",
        ),
        ("text:predict", {"inputs": {"b64": "?"}}, "Unable to base64 decode"),
        (
            "text:predict",
            {"signature_name": "classify", "instances": ["0.5", "0.1"]},
            "Tensor name: labels has inconsistent batch size: 2 expecting: 3",
        ),
    ],
)
def test_predict_is_refused_in_the_words_of_the_contract(
    web: httpx.Client, path: str, body: Any, message: str
) -> None:
    assert error(web, path, body) == (400, message)


def test_both_instances_and_inputs_are_refused(web: httpx.Client) -> None:
    status, message = error(web, "half:predict", {"instances": [1], "inputs": [1]})
    assert status == 400
    assert message.endswith("expecting only one of 'inputs' or 'instances' keys to exist ")


def test_an_unknown_model_is_404_and_its_text_is_the_contracts(web: httpx.Client) -> None:
    assert error(web, "m:predict", {"instances": [1]}) == (404, "Servable not found for request: Latest(m)")
    assert error(web, "half/versions/7:predict", {"instances": [1]}) == (
        404,
        "Servable not found for request: Specific(half, 7)",
    )
    assert error(web, "half/labels/x:predict", {"instances": [1]}) == (
        400,
        "Unrecognized servable version label: x",
    )


def test_a_bad_image_is_a_400_with_the_ops_words(web: httpx.Client) -> None:
    encoded = base64.b64encode(b"no number").decode()
    status, message = error(web, "text:predict", {"instances": [{"b64": encoded}]})
    assert status == 400
    assert "could not correctly convert string: no number" in message


# --- classify and regress -------------------------------------------------------------------------


def test_classify_and_regress_answer_results(web: httpx.Client) -> None:
    body: dict[str, Any] = {"signature_name": "classify", "examples": [{"x": 2.0}, {"x": [4.0]}]}
    assert ask(web, "examples:classify", body) == (
        200,
        {"results": [[["positive", 3.0]], [["positive", 4.0]]]},
    )
    body = {"signature_name": "regress", "context": {"k": 10.0}, "examples": [{"x": 2.0}]}
    assert ask(web, "examples:regress", body) == (200, {"results": [8.0]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"signature_name": "s", "examples": [{"x": 1.0}]}, "No signature was found with the name: s"),
        (
            {"examples": 1},
            "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array",
        ),
        ({"examples": []}, "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        ({}, "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [1.0, "a"]}]}, "Unexpected element type in feature: x expecting type: float"),
    ],
)
def test_classify_is_refused_in_the_words_of_the_contract(web: httpx.Client, body: Any, message: str) -> None:
    assert error(web, "examples:classify", body) == (400, message)


# --- the door itself ------------------------------------------------------------------------------


def test_a_gzipped_body_is_unpacked(web: httpx.Client) -> None:
    body = gzip.compress(b'{"instances": [1.0]}')
    answer = web.post("/v1/models/half:predict", content=body, headers={"content-encoding": "gzip"})
    assert answer.json() == {"predictions": [{"y": 2.5, "z": 3.0}]}
    answer = web.post("/v1/models/half:predict", content=b"no", headers={"content-encoding": "gzip"})
    assert answer.status_code == 400


def test_a_body_that_is_too_large_is_refused_packed_or_not(web: httpx.Client) -> None:
    body = b" " * 200_000
    assert web.post("/v1/models/half:predict", content=body).status_code == 413
    packed = gzip.compress(body)
    answer = web.post("/v1/models/half:predict", content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413


def test_cors_headers_are_sent_when_switched_on(web: httpx.Client) -> None:
    for answer in (web.get("/v1/models/half"), web.options("/v1/models/half:predict")):
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "POST, GET"
        assert answer.headers["access-control-allow-headers"] == "Content-Type"


def test_metrics_count_requests_under_the_originals_names(web: httpx.Client) -> None:
    web.post("/v1/models/half:predict", json={"instances": [1.0]})
    page = web.get("/monitoring/prometheus/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert '\n:tensorflow:serving:request_count{model_name="half",status="OK"} ' in page.text
    assert '\n:tensorflow:serving:request_latency_bucket{model_name="half",API="Predict",' in page.text


def test_what_is_not_the_api_is_not_served(web: httpx.Client) -> None:
    assert web.get("/").status_code == 404


def test_metrics_and_cors_are_off_unless_switched_on(saved_models: Path, serve_models: Any) -> None:
    server = serve_models("--model_name=half", f"--model_base_path={saved_models / 'half'}", wait={"half": 1})
    assert httpx.get(f"{server.url}/monitoring/prometheus/metrics").status_code == 404
    assert "access-control-allow-origin" not in httpx.get(f"{server.url}/v1/models/half").headers
    assert httpx.options(f"{server.url}/v1/models/half").status_code == 400


def test_an_offer_of_http_2_is_ignored_and_the_body_read(web: httpx.Client) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}
    answer = web.post("/v1/models/half:predict", json={"instances": [1.0]}, headers=offer)
    assert answer.json() == {"predictions": [{"y": 2.5, "z": 3.0}]}


def test_a_deflated_body_is_unpacked_and_another_encoding_refused(web: httpx.Client) -> None:
    body = b'{"instances": [1.0]}'
    for encoding, packed, status in (("deflate", zlib.compress(body), 200), ("br", body, 415)):
        headers = {"content-encoding": encoding}
        answer = web.post("/v1/models/half:predict", content=packed, headers=headers)
        assert answer.status_code == status
    assert "gzip, deflate" in answer.json()["error"]
