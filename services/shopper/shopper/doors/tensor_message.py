"""Images as msgpack tensors: `{image, dtype, height, width[, channels, scale, model, camera, id]}`. Pure.

`image` is a nested list, raw bytes, or an array as msgpack-numpy packs it. No shape is believed before the
data is seen to fill it, and nothing is allocated for one that is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from caravan.errors import BadInput
from shopper.ports import Pixels

MAX_NUMBERS = 2**20
"""Most numbers in one message's lists and maps. Larger images are sent as bytes."""
BYTES_PER_NUMBER = 104
"""Most bytes of memory per number: a list that holds a single float."""
MAX_LIST = 2**14
MAX_MAP = 64
MAX_EXTENSION = 16
MAX_TEXT = 200
MAX_SIDE = 2**14
CHANNELS = (1, 3)
WHITE = 255

SCALES = {"0..1": (1.0, 0.0), "0..255": (1 / 255, 0.0), "-1..1": (0.5, 0.5)}
"""Factor and summand that bring floats of each range to 0..1."""
ROUNDING = 1e-3
"""How far a float may lie beyond black or white, by rounding."""

_DTYPE = re.compile(r"(?:[<>|=]?[iu](?:1|2|4|8)|[<>=]?f(?:2|4|8)|u?int(?:8|16|32|64)|float(?:16|32|64))")


@dataclass(frozen=True, slots=True)
class TensorMessage:
    """A message whose form is known; its image is looked at when it is asked for."""

    fields: Mapping[str, Any]

    @property
    def camera(self) -> str:
        """The camera as it calls itself; empty if it does not."""
        return _text(self.fields.get("camera"))

    @property
    def model(self) -> str:
        """The model that is asked; empty for the topic's."""
        return _text(self.fields.get("model"))

    @property
    def echo(self) -> dict[str, Any]:
        """What the sender finds again in its reply: `id` and `camera`."""
        number = self.fields.get("id")
        sent = {"id": number if isinstance(number, int) else _text(number), "camera": self.camera}
        return {name: value for name, value in sent.items() if value != ""}

    def pixels(self, max_pixels: int) -> Pixels:
        """Return the image; its values are not copied where they came as bytes 0..255.

        Raises:
            BadInput: 413 if it has too many pixels, 422 if it is none; the reason says in a word what is
                wrong: `no-image`, `wrong-dtype`, `wrong-shape`, `shape-mismatch`, `not-finite`,
                `pixel-range`, `too-large`.

        """
        image, fields = self._image()
        dtype = _dtype(fields.get("dtype"))
        height, width, channels = (_side(fields, name) for name in ("height", "width", "channels"))
        if height * width > max_pixels:
            message = f"the image is {width} x {height} pixels; {max_pixels} are allowed"
            raise BadInput(message, 413, reason="too-large")
        if isinstance(image, bytes):
            shape = _shape(len(image), height, width, channels, dtype.itemsize)
            values = np.frombuffer(image, dtype)
        else:
            values = _numbers(image, height, width)
            shape = _shape(values.size, height, width, channels)
        scale = fields.get("scale", "0..1")
        return Pixels(_pixels(values, dtype, scale).reshape(shape))

    def _image(self) -> tuple[bytes | list[Any], Mapping[str, Any]]:
        image = self.fields.get("image")
        fields = self.fields
        if isinstance(image, dict):
            image, fields = _of_msgpack_numpy(image, fields)
        if isinstance(image, str):
            # The bytes of an old msgpack, which had one type for both.
            image = image.encode(errors="surrogateescape")
        if not isinstance(image, bytes | list) or not image:
            message = "the message has no image: a nested list, or bytes, under the key image"
            raise BadInput(message, 422, reason="no-image")
        return image, fields


def unpack(payload: bytes, max_bytes: int) -> TensorMessage:
    """Read a message without its image. `MAX_NUMBERS` and the message's length bound the memory.

    Raises:
        BadInput: 400 `not-msgpack` if it is none, 413 `too-large` if it has too much in it.

    """
    if len(payload) > max_bytes:
        raise BadInput(f"the message is larger than {max_bytes} bytes", 413, reason="too-large")
    count = 0

    def counted(part: Any) -> Any:
        nonlocal count
        count += 1 + len(part)
        if count > 2 * MAX_NUMBERS:
            message = f"more than {MAX_NUMBERS} numbers in lists: send the image as bytes"
            raise BadInput(message, 413, reason="too-large")
        return part

    try:
        fields = msgpack.unpackb(
            payload,
            raw=False,
            unicode_errors="surrogateescape",
            strict_map_key=True,
            max_array_len=MAX_LIST,
            max_map_len=MAX_MAP,
            max_ext_len=MAX_EXTENSION,
            list_hook=counted,
            object_hook=counted,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as exc:
        raise BadInput("the message is not msgpack, or not as we take it", reason="not-msgpack") from exc
    if not isinstance(fields, dict):
        raise BadInput("the message is not a msgpack map", reason="not-msgpack")
    return TensorMessage({_text(key): value for key, value in fields.items()})


def pack(reply: Mapping[str, Any]) -> bytes:
    """Return a reply as a msgpack map."""
    packed: bytes = msgpack.packb(reply)
    return packed


# --- what a message says of its image -----------------------------------------------------------


def _of_msgpack_numpy(image: Mapping[Any, Any], fields: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    own = {_text(key): value for key, value in image.items()}
    dims, data = own.get("shape"), own.get("data")
    if own.get("nd") is not True or not isinstance(dims, list) or not isinstance(data, bytes | str):
        raise BadInput("the image is a map, but no packed array", 422, reason="no-image")
    dims = dims[1:] if len(dims) > len(("height", "width", "channels")) and dims[0] == 1 else dims
    if not 2 <= len(dims) <= len(("height", "width", "channels")):  # noqa: PLR2004 - height and width
        raise _mismatch("the array is not [height, width] or [height, width, channels]")
    sides = dict(zip(("height", "width", "channels"), dims, strict=False))
    said = {name: fields.get(name, side) for name, side in sides.items()}
    if said != sides:
        raise _mismatch(f"the message says {said}, its array {sides}")
    return data, {"channels": 1, **fields, **sides, "dtype": own.get("type")}


def _dtype(name: object) -> np.dtype[Any]:
    text = _text(name)
    if not _DTYPE.fullmatch(text):
        message = "the dtype is one of uint8 to uint64, int8 to int64, float16, float32 and float64"
        raise BadInput(message, 422, reason="wrong-dtype")
    dtype = np.dtype(text)
    # Without a sign it is little endian, whatever this machine is.
    return dtype if text[0] in "<>" else dtype.newbyteorder("<")


def _side(fields: Mapping[str, Any], name: str) -> int:
    side = fields.get(name, 0 if name == "channels" else None)
    least, most = (0, max(CHANNELS)) if name == "channels" else (1, MAX_SIDE)
    if not isinstance(side, int) or isinstance(side, bool) or not least <= side <= most:
        message = f"{name} is a whole number of {least} to {most}"
        raise BadInput(message, 422, reason="wrong-shape")
    return side


def _shape(size: int, height: int, width: int, channels: int, itemsize: int = 1) -> tuple[int, int, int]:
    for each in CHANNELS:
        if channels in {0, each} and size == height * width * each * itemsize:
            return height, width, each
    unit = "numbers" if itemsize == 1 else f"bytes, {itemsize} a number,"
    raise _mismatch(f"{size} {unit} do not fill {height} x {width} pixels of {channels or '1 or 3'} channels")


def _numbers(image: list[Any], height: int, width: int) -> NDArray[np.float64]:
    """Return a nested list as numbers in a row: of [H, W], [H, W, C], or either in a batch of one."""
    dims: list[int] = []
    inner: Any = image
    while isinstance(inner, list) and len(dims) < 5:  # noqa: PLR2004 - a batch, its image's three, and one more
        dims.append(len(inner))
        inner = inner[0] if inner else None
    if len(dims) > 2 and dims[0] == 1 and dims[1:3] == [height, width]:  # noqa: PLR2004
        dims = dims[1:]
    if dims[:2] != [height, width] or len(dims) > 3:  # noqa: PLR2004
        raise _mismatch(f"the lists are {dims}, not [{height}, {width}] or [{height}, {width}, channels]")
    try:
        # Its type is given: found out by numpy, a text among them would make all of them as long as it.
        return np.array(image, np.float64).reshape(-1)
    except (ValueError, TypeError, OverflowError) as exc:
        raise _mismatch("the lists are not all of one length, or have something else than numbers") from exc


def _pixels(values: NDArray[Any], dtype: np.dtype[Any], scale: object) -> NDArray[Any]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadInput("a pixel is not a finite number", 422, reason="not-finite")
    if dtype.kind != "f":
        if values.min() < 0 or values.max() > WHITE:
            raise BadInput("whole numbers are pixels of 0 to 255", 422, reason="pixel-range")
        whole = values.astype(np.uint8)
        if values.dtype.kind == "f" and (whole != values).any():
            raise BadInput(f"a pixel of dtype {dtype.name} is not whole", 422, reason="wrong-dtype")
        return whole
    known = SCALES.get(scale) if isinstance(scale, str) else None
    if known is None:
        raise BadInput(f"the scale is one of {', '.join(SCALES)}", 422, reason="pixel-range")
    factor, summand = known
    # In no less than single precision, and in double where that came: it may be far out of range.
    unit = values.astype(np.result_type(values.dtype, np.float32)) * factor + summand
    if unit.min() < -ROUNDING or unit.max() > 1 + ROUNDING:
        message = f"floats are pixels of {scale}; say otherwise by scale: {', '.join(SCALES)}"
        raise BadInput(message, 422, reason="pixel-range")
    return unit.clip(0, 1).astype(np.float32, copy=False)


def _mismatch(detail: str) -> BadInput:
    return BadInput(detail, 422, reason="shape-mismatch")


def _text(value: object) -> str:
    if isinstance(value, str):
        value = value.encode(errors="surrogateescape")
    return value[:MAX_TEXT].decode(errors="replace") if isinstance(value, bytes) else ""
