"""The parameters of an Open Inference Protocol request: obeyed, or refused in words, never passed over.

A parameter that asks for what is done anyway, such as Triton's `priority` of 0, is no demand. Pure.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from model_server.errors import Code, ServingError, invalid
from model_server.servable import DEFAULT_SIGNATURE

Parameters = Mapping[str, Any]

CONTENT_TYPE = "content_type"
BASE64 = "base64"
TEXT = "str"
PLAIN_TYPES = {"np", TEXT}
"""MLServer's words for tensors, and for text in UTF-8: what values are anyway."""
COLUMNS = "pd"
"""MLServer's word for a request whose inputs are the columns of a table: they are tensors all the same."""
MICROSECONDS = 1_000_000
_DEMANDS = {
    "sequence_id": "models here keep no state from one request to the next",
    "sequence_start": "models here keep no state from one request to the next",
    "sequence_end": "models here keep no state from one request to the next",
    "priority": "requests are answered in the order in which they come",
    "classification": "ask for the scores, and sort them",
    "triton_enable_empty_final_response": "a request has one response",
    "shared_memory_region": "tensors travel in the request",
    "shared_memory_offset": "tensors travel in the request",
    "shared_memory_byte_size": "tensors travel in the request",
}
"""Known to other servers, and why not here."""


@dataclass(frozen=True)
class RequestOptions:
    """What a request's own parameters ask for.

    Attributes:
        signature: which is run.
        binary: whether outputs come as bytes where they do not say so themselves.
        content_type: of the inputs that have none of their own; "" where they are what they look like.
        timeout: seconds within which the answer is wanted; None if there is no hurry.

    """

    signature: str = DEFAULT_SIGNATURE
    binary: bool = False
    content_type: str = ""
    timeout: float | None = None


@dataclass(frozen=True)
class OutputOptions:
    """What is asked of one output: its values as bytes (None: as the request says), or in base64."""

    binary: bool | None = None
    base64: bool = False


def of_request(parameters: Parameters) -> RequestOptions:
    """Read a request's parameters. Raises ServingError."""
    known = _demanded(parameters, {"signature_name", "binary_data_output", "timeout", CONTENT_TYPE})
    timeout = known.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise invalid("timeout has to be a number of microseconds")
    signature = known.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(signature, str) or not signature:
        raise invalid("signature_name of the request has to be a string")
    return RequestOptions(
        signature,
        _flag(known, "binary_data_output") or False,
        _content_type(known, {*PLAIN_TYPES, BASE64, COLUMNS}),
        timeout / MICROSECONDS if timeout else None,
    )


def of_input(parameters: Parameters, inherited: str) -> tuple[str, int | None]:
    """Return an input's content type, and its bytes behind the JSON. Raises ServingError."""
    known = _demanded(parameters, {CONTENT_TYPE, "binary_data_size"})
    size = known.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise invalid("binary_data_size has to be a number of bytes")
    return _content_type(known, {*PLAIN_TYPES, BASE64}) or inherited, size


def of_output(parameters: Parameters) -> OutputOptions:
    """Read an output's parameters. Raises ServingError."""
    known = _demanded(parameters, {CONTENT_TYPE, "binary_data"})
    content_type = _content_type(known, {*PLAIN_TYPES, BASE64})
    return OutputOptions(_flag(known, "binary_data"), content_type == BASE64)


def _demanded(parameters: Parameters, known: Collection[str]) -> dict[str, Any]:
    """Return the parameters that ask for something; some clients write null for what they leave out."""
    demanded = {name: value for name, value in parameters.items() if value is not None}
    for name, value in sorted(demanded.items()):
        if name in _DEMANDS and value:
            raise ServingError(Code.UNIMPLEMENTED, f"parameter {name} is not served: {_DEMANDS[name]}")
        if name in _DEMANDS:
            del demanded[name]
        elif name not in known:
            raise invalid(f"parameter {name[:100]} is not known here; known are {', '.join(sorted(known))}")
    return demanded


def _flag(parameters: Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name} has to be true or false")
    return value


def _content_type(parameters: Parameters, known: Collection[str]) -> str:
    value = parameters.get(CONTENT_TYPE, "")
    if not isinstance(value, str):
        raise invalid("content_type has to be a string")
    if value and value not in known:
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"content_type {value[:100]} is not served here; served are {', '.join(sorted(known))}",
        )
    return value
