"""The REST port, as an ASGI application: who may come in, which API is asked, and how errors look."""

from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from caravan import tracing
from caravan.errors import BadInput, Unavailable
from caravan.problems import RETRY_AFTER_SECONDS
from caravan.tokens import Tokens
from model_server import rest_answer
from model_server.doors.rest import Rest
from model_server.doors.v2_rest import HEALTH, V2
from model_server.errors import Code, ServingError
from model_server.metrics import Metrics
from model_server.predict import Core
from model_server.rest_port import RestPort, TooLargeError, json_response
from model_server.v2_core import OpenInference

DOOR = "rest"


@dataclass(frozen=True)
class WebOptions:
    """How the port behaves. `timeout` is in seconds, `max_body` in bytes after unpacking."""

    timeout: float
    max_body: int
    cors: bool = False
    prometheus_path: str | None = None


class Web:
    """The application: `/v1/`, `/v2`, and the metrics."""

    def __init__(self, core: Core, metrics: Metrics, tokens: Tokens, options: WebOptions) -> None:
        port = RestPort(core, metrics, timeout=options.timeout, max_body=options.max_body)
        self._rest = Rest(core, port)
        self._v2 = V2(OpenInference(core), port)
        self._metrics = metrics
        self._tokens = tokens
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        if self._options.cors:
            response.headers.update(self._cors())
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = (
            request.scope.get("raw_path", request.scope["path"].encode()).decode("latin-1").partition("?")[0]
        )
        if path == self._options.prometheus_path:
            return Response(self._metrics.page(), media_type="text/plain")
        api = self._api(path)
        if api is None:
            return Response("Not Found", 404, media_type="text/plain")
        if request.method == "OPTIONS" and self._options.cors:
            return Response()
        return await self._ask(api, request, path)

    async def _ask(self, api: Rest | V2, request: Request, path: str) -> Response:
        try:
            if path not in HEALTH:
                self._tokens.holder(request.headers.get("authorization"))
            with tracing.following(request.headers):
                return await api.answer(request, path)
        except BadInput as exc:
            self._metrics.refused(DOOR, exc.reason)
            headers = {"WWW-Authenticate": "Bearer"} if exc.status == HTTPStatus.UNAUTHORIZED else {}
            return _refusal(exc.detail, exc.status, headers)
        except Unavailable as exc:
            return _refusal(exc.detail, exc.status, {"Retry-After": str(RETRY_AFTER_SECONDS)})
        except ServingError as exc:
            return json_response(rest_answer.error(exc), exc.http_status)
        except TooLargeError as exc:
            return _refusal(str(exc), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {})

    def _api(self, path: str) -> Rest | V2 | None:
        if path.lower().startswith("/v1/"):
            return self._rest
        return self._v2 if path == "/v2" or path.startswith("/v2/") else None

    def _cors(self) -> dict[str, str]:
        return {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "POST, GET",
            "Access-Control-Allow-Headers": "Content-Type, Authorization" if self._tokens else "Content-Type",
        }


def _refusal(detail: str, status: int, headers: dict[str, str]) -> Response:
    # The status says what kind of fault it is; of the error only its words are sent.
    response = json_response(rest_answer.error(ServingError(Code.UNKNOWN, detail)), status)
    response.headers.update(headers)
    return response
