"""Requests in TensorFlow Serving's JSON, to its messages. Pure."""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from model_server.decimals import decimals
from model_server.errors import Code, ServingError, invalid
from model_server.stubs import example_pb2, feature_pb2, input_pb2, meta_graph_pb2, tensor_pb2, types_pb2
from model_server.tensors import VALUE_FIELDS, dtype_words

MAX_ECHO = 1024

Document = dict[str, Any]
Infos = Mapping[str, meta_graph_pb2.TensorInfo]

_FLOAT_MAX = float(np.finfo(np.float32).max)
_EXACT_INT = {types_pb2.DT_FLOAT: 2**24 - 1, types_pb2.DT_DOUBLE: 2**53 - 1}
_INT_RANGE = {
    types_pb2.DT_INT8: (-(2**31), 2**31),
    types_pb2.DT_INT16: (-(2**31), 2**31),
    types_pb2.DT_INT32: (-(2**31), 2**31),
    types_pb2.DT_UINT8: (-(2**31), 2**31),
    types_pb2.DT_INT64: (-(2**63), 2**63),
    types_pb2.DT_UINT32: (0, 2**32),
    types_pb2.DT_UINT64: (0, 2**64),
}


class Form(Enum):
    """How a predict request was written, and so how its answer is."""

    ROW = "instances"
    COLUMNAR = "inputs"


_PARSE_ERRORS = (
    ("Expecting property name", "Missing a name for object member."),
    ("Illegal trailing comma before end of object", "Missing a name for object member."),
    ("Expecting ':'", "Missing a colon after a name of object member."),
    ("Expecting ','", "Missing a comma or ] after an array element."),
    ("Unterminated string", "Missing a closing quotation mark in string."),
    ("Extra data", "The document root must not be followed by other values."),
    ("Invalid \\u", "Incorrect hex digit after \\u escape in string."),
    ("Invalid \\", "Invalid escape character in string."),
    ("Invalid control character", "Invalid encoding in string."),
)


def parse(body: bytes) -> Document:
    """Read a request's JSON object (NaN and Infinity are allowed). Raises ServingError."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode("utf-8", "surrogateescape")
    if not text.strip():
        raise invalid(f"JSON Parse error: The document is empty. at offset: {len(body)}")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as exc:
        words = next((ours for theirs, ours in _PARSE_ERRORS if exc.msg.startswith(theirs)), "Invalid value.")
        offset = len(text[: exc.pos].encode("utf-8", "surrogateescape"))
        raise invalid(f"JSON Parse error: {words} at offset: {offset}") from exc
    except (RecursionError, ValueError) as exc:
        raise invalid("JSON Parse error: Invalid value. at offset: 0") from exc
    if "\\u" in text:
        _check_surrogates(document)
    if not isinstance(document, dict):
        raise _format_error(document, "Is not object")
    return document


def _check_surrogates(document: Any) -> None:
    """Half of a pair is no character, and cannot be sent back."""
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid. at offset: 0") from exc


def signature_name(document: Document) -> str:
    """The optional `signature_name`, or "". Raises ServingError if it is not a string."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_echo(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def tensors(
    document: Document, infos: Infos, signature: str
) -> tuple[dict[str, tensor_pb2.TensorProto], Form]:
    """Decode `instances` or `inputs` by the signature's inputs. Raises ServingError."""
    if not infos:
        raise invalid(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        raise _format_error(
            document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _format_error(document, "Excepting 'instances' to be an list/array")
        if not instances:
            raise _format_error(document, "No values in 'instances' array")
        return _from_instances(instances, infos), Form.ROW
    if "inputs" in document:
        return _from_inputs(document["inputs"], infos), Form.COLUMNAR
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_instances(instances: list[Any], infos: Infos) -> dict[str, tensor_pb2.TensorProto]:
    if not isinstance(instances[0], dict) and len(infos) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    named = _is_named(instances[0])
    builders: dict[str, _Builder] = {}
    for number, element in enumerate(instances):
        if named:
            _add_named(number, element, infos, builders)
        elif _is_named(element):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
        else:
            try:
                _add_item(element, next(iter(infos)), infos, builders)
            except ServingError as exc:
                raise invalid(
                    f"Failed to process element: {number} of 'instances' list. Error: {exc}"
                ) from exc
    return {name: builder.proto(len(instances)) for name, builder in builders.items()}


def _add_named(number: int, element: Any, infos: Infos, builders: "dict[str, _Builder]") -> None:
    if not _is_named(element):
        raise invalid(f"Expecting object but got list at item {number} of input list")
    for name, value in element.items():
        try:
            _add_item(value, name, infos, builders)
        except ServingError as exc:
            raise invalid(
                f"Failed to process element: {number} key: {name} of 'instances' list. Error: {exc}"
            ) from exc
    if set(element) != set(infos):
        raise invalid(
            f"Failed to process element: {number} of 'instances' list. JSON object: {_echo(element)} "
            f"keys must be equal to: {','.join(sorted(infos))}"
        )


def _add_item(value: Any, name: str, infos: Infos, builders: "dict[str, _Builder]") -> None:
    if name not in infos:
        raise invalid(f"JSON object: does not have named input: {name}")
    if name not in builders:
        builders[name] = _Builder(infos[name].dtype)
    builders[name].add(value)


def _from_inputs(value: Any, infos: Infos) -> dict[str, tensor_pb2.TensorProto]:
    if not _is_named(value):
        if len(infos) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        value = {next(iter(infos)): value}
    tensors_by_name = {}
    for name, info in infos.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        builder = _Builder(info.dtype)
        builder.add(value[name])
        tensors_by_name[name] = builder.proto(None)
    return tensors_by_name


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


class _Builder:
    """Collects the values of one tensor; every item added must have the shape of the first."""

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._shape: list[int] | None = None
        self._values: list[Any] = []

    def add(self, item: Any) -> None:
        shape = _shape_of(item)
        before = len(self._values)
        self._fill(item, 0, shape)
        if self._shape is None:
            self._shape = shape
            return
        size, expected = len(self._values) - before, math.prod(self._shape)
        if size != expected:
            raise invalid(f"Expecting tensor size: {expected} but got: {size}")
        if shape != self._shape:
            raise invalid(f"Expecting shape {_brackets(self._shape)} but got: {_brackets(shape)}")

    def proto(self, rows: int | None) -> tensor_pb2.TensorProto:
        """The tensor; `rows` is its first dimension, unless the item was the whole of it."""
        proto = tensor_pb2.TensorProto(dtype=self._dtype)
        for size in [*([] if rows is None else [rows]), *(self._shape or [])]:
            proto.tensor_shape.dim.add().size = size
        if self._values:
            getattr(proto, VALUE_FIELDS[self._dtype]).extend(self._values)
        return proto

    def _fill(self, value: Any, level: int, shape: Sequence[int]) -> None:
        rank = len(shape)
        if not isinstance(value, list):
            if level != rank:
                raise invalid(
                    f"JSON Value: {_echo(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {rank}"
                )
            self._values.append(_scalar(value, self._dtype))
            return
        if level >= rank:
            raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        if level == rank - 1 and self._fill_floats(value):
            return
        for inner in value:
            self._fill(inner, level + 1, shape)

    def _fill_floats(self, values: list[Any]) -> bool:
        """The quick way for what large requests are made of: lists of plain decimal numbers."""
        if self._dtype not in _EXACT_INT or set(map(type, values)) != {float}:
            return False
        if self._dtype == types_pb2.DT_FLOAT and not all(
            -_FLOAT_MAX <= value <= _FLOAT_MAX for value in values
        ):
            return False
        self._values.extend(values)
        return True


def _shape_of(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _brackets(shape: Iterable[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _scalar(value: Any, dtype: int) -> Any:
    """One JSON value as a value of the tensor's type. Raises ServingError."""
    if dtype == types_pb2.DT_STRING:
        if isinstance(value, dict):
            return _base64_bytes(value)
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
    elif dtype not in VALUE_FIELDS and not isinstance(value, dict):
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {_echo(value)} to type: {dtype_words(dtype)}"
        )
    elif dtype in _EXACT_INT and _is_number(value):
        _check_lossless(value, dtype)
        return float(value)
    elif isinstance(value, bool) and dtype == types_pb2.DT_BOOL:
        return value
    elif type(value) is int and dtype in _INT_RANGE:
        low, high = _INT_RANGE[dtype]
        if low <= value < high:
            return value
    raise _type_error(value, dtype)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_lossless(value: float, dtype: int) -> None:
    if type(value) is int and -(2**63) <= value < 2**64:
        exact = abs(value) <= _EXACT_INT[dtype]
    elif type(value) is int:
        exact = abs(value) <= (_FLOAT_MAX if dtype == types_pb2.DT_FLOAT else 10**308)
    else:
        exact = dtype == types_pb2.DT_DOUBLE or not math.isfinite(value) or abs(value) <= _FLOAT_MAX
    if not exact:
        raise invalid(
            f"Cannot convert JSON value: {_echo(value)} to {dtype_words(dtype)} without loss of precision."
        )


def _base64_bytes(value: Document) -> bytes:
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_echo(value)} not formatted correctly for base64 data")
    return decode_base64(value["b64"])


def decode_base64(text: str) -> bytes:
    """Decode base64, with or without its padding and line breaks. Raises ServingError."""
    text = "".join(text.split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise invalid("Unable to base64 decode") from exc


def _type_error(value: Any, dtype: int) -> ServingError:
    return invalid(
        f"JSON Value: {_echo(value)} Type: {_type_word(value)} is not of expected type: {dtype_words(dtype)}"
    )


def _format_error(value: Any, words: str) -> ServingError:
    return invalid(f"JSON Value: {_echo(value)} {words}")


def _type_word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    names = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
    return names[type(value)]


def _echo(value: Any) -> str:
    """A JSON value inside a message, cut if it is long."""
    if isinstance(value, float):
        narrow = abs(value) <= _FLOAT_MAX
        return decimals(np.array([value], np.float32 if narrow else np.float64))[0]
    text = json.dumps(value, indent=4, ensure_ascii=False)
    return text if len(text) <= MAX_ECHO else f"{text[:MAX_ECHO]}..."


def examples(document: Document) -> input_pb2.Input:
    """Decode `examples` and the optional `context` of classify and regress. Raises ServingError."""
    given = input_pb2.Input()
    has_context = "context" in document
    if has_context:
        given.example_list_with_context.context.CopyFrom(_example(document["context"]))
    if "examples" not in document:
        raise _format_error(document, "When method is classify, key 'examples' is expected and was not found")
    rows = document["examples"]
    if not isinstance(rows, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not rows:
        raise _format_error(document, "'examples' value is an empty array")
    target = given.example_list_with_context if has_context else given.example_list
    target.examples.extend(_example(row) for row in rows)
    return given


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {_type_word(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        feature = feature_pb2.Feature()
        for one in content if isinstance(content, list) else [content]:
            _add_to_feature(one, name, feature)
        example.features.feature[name].CopyFrom(feature)
    return example


_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def _add_to_feature(value: Any, name: str, feature: feature_pb2.Feature) -> None:
    kind, converted = _feature_value(value, name)
    current = feature.WhichOneof("kind")
    if current not in {None, kind}:
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[current or '']}")
    getattr(feature, kind).value.append(converted)


def _feature_value(value: Any, name: str) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, str):
        return "bytes_list", value.encode("utf-8", "surrogateescape")
    if isinstance(value, float):
        _check_lossless(value, types_pb2.DT_FLOAT)
        return "float_list", value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", value
    if _is_base64(value):
        return "bytes_list", _base64_bytes(value)
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {_type_word(value)}")
