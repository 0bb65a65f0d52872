"""The HTTP door: errors as `application/problem+json` (RFC 9457), bounded bodies, HEAD, health, metrics."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from typing import TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caravan import encodings, strict_json, telemetry, tracing
from caravan.contracts import to_json
from caravan.errors import BadInput, CaravanError, Unavailable
from caravan.intake import DoorLimits, Intake, Senders
from caravan.lingering import LingeringClose
from caravan.problems import RETRY_AFTER_SECONDS, Problem, problem, problem_of, unexpected
from caravan.strict_json import NotJson, faults_of

log = structlog.get_logger()
M = TypeVar("M", bound=BaseModel)

CHECK_SECONDS = 3
TRY_AGAIN = (503, 507)
NO_FILES_LEFT = (errno.EMFILE, errno.ENFILE)

Check = Callable[[], Awaitable[None]]


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a problem document; whoever may try again is told when, or with what."""
    more: dict[str, str] = {}
    if problem["status"] in TRY_AGAIN:
        more["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if problem["status"] == HTTPStatus.UNAUTHORIZED:
        more["WWW-Authenticate"] = "Bearer"
    media_type = "application/problem+json"
    return Response(to_json(problem), problem["status"], {**more, **(headers or {})}, media_type)


def fresh_json(content: object, status: int = HTTPStatus.OK) -> Response:
    """Answer with JSON that no cache keeps."""
    return Response(to_json(content), status, {"Cache-Control": "no-store"}, "application/json")


async def bounded_body(
    request: Request, limit: int, charge: Callable[[int, int], Awaitable[None]] | None = None
) -> bytes:
    """Read a request's body into memory, unpacked, up to `limit` bytes.

    Args:
        request: the request.
        limit: bytes of it at most, unpacked.
        charge: is told how many bytes came before they are kept, and how many may come in all from there on,
            these among them; it may wait or raise.

    Raises:
        BadInput: 413 beyond the limit, 415 for an encoding that is not taken, 400 if it is not that.

    """
    message = f"the body is larger than {limit} bytes"
    declared = int(request.headers.get("content-length") or limit)
    if declared > limit:
        raise BadInput(message, status=413)
    encoding = encodings.encoding_of(request.headers)
    most = limit if encoding else declared
    body = bytearray()
    async for part in encodings.unpacked(request.stream(), encoding):
        if len(body) + len(part) > limit:
            raise BadInput(message, status=413)
        if charge is not None:
            await charge(len(part), most - len(body))
        body += part
    return bytes(body)


def decode_json(model: type[M], raw: bytes) -> M:
    """Decode a JSON body.

    Raises:
        BadInput: 400 if it is not JSON, 422 if it has not the shape asked for.

    """
    try:
        value = strict_json.loads(raw)
    except NotJson as exc:
        raise BadInput(f"the body is not JSON: {exc}", reason="not-json") from exc
    if not isinstance(value, dict):
        raise BadInput("the body is not a JSON object", status=422)
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise BadInput(faults_of(exc), status=422) from exc


class Traced:
    """Has a request's spans follow its sender's, where the header `traceparent` names them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or not tracing.is_on():
            await self._app(scope, receive, send)
        else:
            with tracing.following(Headers(scope=scope)):
                await self._app(scope, receive, send)


class Heads:
    """ASGI middleware: answers HEAD as GET is answered, without the body.

    Of an answer without end, as a stream of events, only the head is asked: then the client is gone.

    Args:
        app: the wrapped ASGI app.
        unsafe: paths that are left to the app, as a GET does something there.

    """

    def __init__(self, app: ASGIApp, unsafe: Collection[str] = ()) -> None:
        self._app = app
        self._unsafe = unsafe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"] in self._unsafe:
            await self._app(scope, receive, send)
            return
        answered = asyncio.Event()
        body_comes = True

        async def receive_body() -> Message:
            nonlocal body_comes
            if not body_comes:
                await answered.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            body_comes = message.get("more_body", False)
            return message

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})
                answered.set()

        await self._app({**scope, "method": "GET"}, receive_body, send_head)


def install(
    app: FastAPI,
    checks: Mapping[str, Check],
    senders: Senders | None = None,
    unsafe: Collection[str] = (),
) -> None:
    """Give an app error answers, a place in traces, bounds on senders, `/healthz`, `/readyz` and `/metrics`.

    Args:
        app: the service's app.
        checks: by name, what `/readyz` asks of each dependency; a check that raises is not ready.
        senders: those who send a body now; None for the usual limits.
        unsafe: paths of which a GET does something: a HEAD is not answered there.

    """
    app.router.redirect_slashes = False  # for a body; `_nothing_here` says why
    app.add_middleware(Heads, unsafe=unsafe)
    app.add_middleware(Intake, senders=Senders(DoorLimits()) if senders is None else senders)
    app.add_middleware(LingeringClose)
    app.add_middleware(Traced)

    _answer_errors(app)

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> dict[str, str]:
        """Tell that the process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operations"])
    async def readyz(response: Response) -> dict[str, object]:
        """Tell for each dependency whether it answers; 503 if one does not."""
        results = await asyncio.gather(*(_outcome(check) for check in checks.values()))
        ready = all(result == "ok" for result in results)
        response.status_code = 200 if ready else 503
        return {"ready": ready, "checks": dict(zip(checks, results, strict=True))}

    @app.get("/metrics", tags=["operations"])
    async def metrics() -> Response:
        """Give Prometheus its text."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(CaravanError)
    async def _ours(request: Request, exc: CaravanError) -> Response:
        if isinstance(exc, BadInput):
            telemetry.REFUSALS.labels(_door(request), exc.reason).inc()
        else:
            log.warning("request not served", error=str(exc))
        return answer(problem_of(exc))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, exc: HTTPException) -> Response:
        return _nothing_here(app, request, exc)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, exc: RequestValidationError) -> Response:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in exc.errors())
        return answer(problem(422, faults))

    @app.exception_handler(OSError)
    async def _system(_: Request, exc: OSError) -> Response:
        if exc.errno not in NO_FILES_LEFT:
            raise exc
        return answer(problem_of(Unavailable("too many files are open: try again")))

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, __: ClientDisconnect) -> Response:
        return answer(problem(400, "the body ended early"))

    @app.exception_handler(Exception)
    async def _bug(_: Request, exc: Exception) -> Response:
        # uvicorn logs the trace; the sender gets none of it.
        return answer(unexpected(exc))


def _nothing_here(app: FastAPI, request: Request, exc: HTTPException) -> Response:
    """Answer what the framework refuses: a path, or a method, that no route has."""
    if exc.status_code == HTTPStatus.NOT_FOUND:
        path = request.url.path
        if path == "/" or not path.endswith("/"):
            return answer(problem(404, "there is nothing at this path"))
        if request.method == "GET":
            # From here, as a proxy may serve it beneath another path, and under another name.
            page = path.rstrip("/") or "/"
            there = "../" * (len(path) - len(page)) + page.rpartition("/")[2]
            return RedirectResponse(f"{there}?{request.url.query}" if request.url.query else there)
        # Whoever follows a redirect has sent the body for nothing; one that does not takes it for an answer.
        return answer(problem(404, "there is nothing at this path: leave out the slash at its end"))
    if exc.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        return answer(problem(exc.status_code, str(exc.detail)), exc.headers)
    # The framework tells the methods of the first route alone.
    routes = (route for route in app.routes if isinstance(route, Route))
    here = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    allowed = ", ".join(sorted({method for route in here for method in route.methods or ()}))
    return answer(problem(405, f"{request.method} is not taken here, but {allowed}"), {"Allow": allowed})


def _door(request: Request) -> str:
    # The path as declared, not as sent: senders must not make up labels.
    route = request.scope.get("route")
    return f"{request.method} {getattr(route, 'path', '')}"


async def _outcome(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS} s"
    except CaravanError as exc:
        return str(exc)
    return "ok"
