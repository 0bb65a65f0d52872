"""The one error of this server: a canonical code and a message, as TensorFlow Serving words it.

Every layer raises `ServingError`; the two doors translate it, gRPC to a status code and REST to an HTTP
status, by the tables below.
"""

import re
from enum import IntEnum

import grpc

# gRPC status messages travel in a header: longer ones are cut, as TensorFlow Serving cuts them.
MAX_GRPC_MESSAGE = 1024
TRUNCATED = "...TRUNCATED"

# What TensorFlow's eager runtime and its sessions wrap around an op's own words.
_FUNCTION_NODE = re.compile(r"\{\{function_node [^}]*\}\}\s*|^Graph execution error:\s*")
_OP_SUFFIX = re.compile(r"\s*\[Op:[^\]]*\](?: name:.*)?\s*$", re.DOTALL)


class Code(IntEnum):
    """The canonical codes of google.rpc and absl::Status."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_HTTP = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ABORTED: 409,
    Code.ALREADY_EXISTS: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


class ServingError(Exception):
    """A request or a load that cannot be done: `code` for machines, `message` for people."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status of the code; anything without an entry in the table is a 500."""
        return _HTTP.get(self.code, 500)

    @property
    def grpc_code(self) -> grpc.StatusCode:
        """The same code in gRPC's enumeration."""
        return grpc.StatusCode[self.code.name]

    @property
    def grpc_message(self) -> str:
        """The message, cut at 1,024 characters."""
        if len(self.message) <= MAX_GRPC_MESSAGE:
            return self.message
        return self.message[:MAX_GRPC_MESSAGE] + TRUNCATED


def invalid(message: str) -> ServingError:
    """The request is wrong, whatever the state of the server."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """What the request names is not here."""
    return ServingError(Code.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """The request does not fit the model or the server as it is now."""
    return ServingError(Code.FAILED_PRECONDITION, message)


def from_exception(error: BaseException) -> ServingError:
    """Translate what TensorFlow raised: an op's error keeps its code, all else is INTERNAL."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, UnicodeDecodeError):
        # An op failed, and its words, which hold some of the input, are no text: the code is lost on the way.
        return invalid(op_message(error.object.decode("utf-8", "replace")))
    number = getattr(error, "error_code", None)
    code = Code(number) if isinstance(number, int) and number in set(Code) else Code.INTERNAL
    return ServingError(code, op_message(getattr(error, "message", None) or str(error)))


def op_message(text: str) -> str:
    """The failing op's own words, without the names the eager runtime adds around them."""
    return _OP_SUFFIX.sub("", _FUNCTION_NODE.sub("", text)).strip()
