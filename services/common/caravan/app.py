"""A service's web app: Starlette's, whose doors are declared where the functions behind them are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

Answer = Callable[..., Awaitable[Response]]
"""Is given the request, and what a path names as `{name}` by that name."""
E = TypeVar("E", bound=Exception)


class App(Starlette):
    """A web app.

    Args:
        admit: is asked before every door, and raises for who may not come in.

    """

    def __init__(self, admit: Callable[[Request], None] | None = None) -> None:
        super().__init__()
        self._admit = admit

    def get(self, path: str) -> Callable[[Answer], Answer]:
        """Have a function answer `GET` at a path."""
        return self.door(path, "GET")

    def post(self, path: str) -> Callable[[Answer], Answer]:
        """Have a function answer `POST` at a path."""
        return self.door(path, "POST")

    def door(self, path: str, *methods: str) -> Callable[[Answer], Answer]:
        """Have a function answer these methods at a path."""

        def declare(answer: Answer) -> Answer:
            self.router.routes.append(_Door(path, self._endpoint(answer), methods))
            return answer

        return declare

    def on(self, error: type[E]) -> Callable[[Callable[[Request, E], Awaitable[Response]]], None]:
        """Have a function answer where this error is raised."""

        def declare(answer: Callable[[Request, E], Awaitable[Response]]) -> None:
            self.exception_handlers[error] = answer

        return declare

    def _endpoint(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if self._admit is not None:
                self._admit(request)
            return await answer(request, **request.path_params)

        return endpoint


class _Door(Route):
    def __init__(
        self, path: str, endpoint: Callable[[Request], Awaitable[Response]], methods: Collection[str]
    ) -> None:
        super().__init__(path, endpoint, methods=methods)
        self.methods = set(methods)  # HEAD is not among them where a GET does something: see `http.Heads`

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}
