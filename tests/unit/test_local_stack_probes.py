"""When a part counts as ready."""

from collections.abc import Callable

import httpx
import pytest

from local_stack.errors import NotReady
from local_stack.probes import ask

S3_NAMES = '<R xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</R>'
VOLUMES = {"Topology": {"DataCenters": [{"Racks": [{"DataNodes": [{"Url": "127.0.0.1:1"}]}]}]}}

Answer = Callable[[httpx.Request], httpx.Response]


def names(tag: str, *texts: str) -> str:
    return S3_NAMES.format("".join(f"<{tag}>{text}</{tag}>" for text in texts))


async def asked(address: str, answer: Answer, *buckets: str) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await ask(http, address, buckets)


def readyz(**checks: str) -> Answer:
    return lambda _: httpx.Response(503, json={"ready": False, "checks": checks})


async def test_a_service_that_answers_with_success_is_ready() -> None:
    await asked("http://a:1/readyz", lambda _: httpx.Response(200))


async def test_a_service_that_is_not_ready_says_which_dependency_is_away() -> None:
    with pytest.raises(NotReady, match=r"^/readyz answers 503: kafka: no answer$") as caught:
        await asked("http://a:1/readyz", readyz(kafka="no answer", s3="ok"))
    assert caught.value.checks == {"kafka"}


async def test_an_answer_without_checks_is_told_as_it_is() -> None:
    with pytest.raises(NotReady, match="503: busy"):
        await asked("http://a:1/readyz", lambda _: httpx.Response(503, text="busy"))


async def test_a_refused_connection_is_not_ready() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(NotReady, match="no answer: refused"):
        await asked("http://a:1/readyz", refuse)


async def test_an_s3_server_is_given_the_buckets_it_lacks() -> None:
    made: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/dir/status":
            return httpx.Response(200, json=VOLUMES)
        assert "Credential=me/" in request.headers["authorization"]
        if request.method == "PUT":
            made.append(request.url.path)
        return httpx.Response(200, text=names("Name", "data", *(path[1:] for path in made)))

    for _ in range(2):
        await asked("s3://me:secret@a:1?master=a:2", answer, "data", "valid", "production")
    assert made == ["/valid", "/production"]


async def test_an_s3_server_without_volumes_is_not_ready() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/dir/status":
            return httpx.Response(200, json={"Topology": {"DataCenters": None}})
        return httpx.Response(200, text=names("Name"))

    with pytest.raises(NotReady, match="volumes"):
        await asked("s3://a:1?master=a:2", answer)


def model_server(status: int, *keys: str, ready: bool = True) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "s3":
            return httpx.Response(200, text=names("Key", *keys))
        if request.url.path == "/v2/health/ready":
            return httpx.Response(200 if ready else 503, json={"ready": ready})
        return httpx.Response(status)

    return answer


MODEL_SERVER = "model-server://a:1?s3=s3:2&model=tea&bucket=production"


async def test_a_model_server_without_any_version_to_load_is_ready() -> None:
    await asked(MODEL_SERVER, model_server(404))


async def test_a_model_server_that_has_not_seen_its_versions_is_not_ready() -> None:
    for file in ("saved_model.pb", "model.onnx"):
        with pytest.raises(NotReady, match="not found the versions"):
            await asked(MODEL_SERVER, model_server(404, f"models/tea/1/{file}"))


async def test_a_model_server_that_loads_any_of_its_models_is_not_ready_until_it_says_so() -> None:
    with pytest.raises(NotReady, match="/v2/health/ready answers 503"):
        await asked(MODEL_SERVER, model_server(200, ready=False))
    await asked(MODEL_SERVER, model_server(200))


async def test_a_model_server_that_asks_for_a_token_is_shown_the_stacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        is_health = request.url.path == "/v2/health/ready"
        known = request.headers.get("authorization") == "Bearer stack-secret"
        return httpx.Response(200 if known or is_health else 401)

    with pytest.raises(NotReady, match="401"):
        await asked(MODEL_SERVER, answer)
    monkeypatch.setenv("TOKENS", "stack:stack-secret")
    await asked(MODEL_SERVER, answer)
    monkeypatch.setenv("TOKENS", "stack-secret")
    with pytest.raises(NotReady, match="cannot be read") as caught:
        await asked(MODEL_SERVER, answer)
    assert "stack-secret" not in str(caught.value)
