"""gRPC services that say so where a message cannot be read.

By itself grpc answers UNKNOWN with the name of a Python class, and logs where it was raised.
"""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

Handler = Any
"""An RpcMethodHandler."""


class Services:
    """The services of a server: what generated code takes for it."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, services: "Iterable[grpc.GenericRpcHandler[Any, Any]]") -> None:
        """Add services to the server."""
        self._server.add_generic_rpc_handlers(tuple(map(_Service, services)))


class _Service(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs alone
    def __init__(self, service: "grpc.GenericRpcHandler[Any, Any]") -> None:
        self._service = service
        self._handlers: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a method; None if it is another service's."""
        method = str(handler_call_details.method)
        if method not in self._handlers:
            handler: Handler = self._service.service(handler_call_details)
            if handler is None or handler.unary_unary is None:
                return handler
            self._handlers[method] = _reading(handler)
        return self._handlers[method]


def _reading(handler: Handler) -> Handler:
    def read(message: bytes) -> Any:
        try:
            return handler.request_deserializer(message)
        except DecodeError:
            return None

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if request is None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be read: it is none of this method's"
            )
        return await handler.unary_unary(request, context)

    return grpc.unary_unary_rpc_method_handler(answer, read, handler.response_serializer)
