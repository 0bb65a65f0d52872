"""Base64 as clients really send it."""

from __future__ import annotations

import base64
import binascii

from pydantic import BaseModel, ConfigDict, TypeAdapter

from caravan.errors import BadInput

_SPACE = str.maketrans("", "", " \t\r\n\f\v")
_STANDARD = str.maketrans("-_", "+/")
_PLAIN = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
"""A base64 decoder for both alphabets, padded or not, eight times as fast as Python's own."""


AROUND_BYTES = 2**16
"""Bytes that a JSON message may have beside its image."""


def json_limit(max_image_bytes: int) -> int:
    """Return how many bytes a message with an image in base64 may have."""
    return max_image_bytes * 4 // 3 + AROUND_BYTES


class ImageMessage(BaseModel):
    """`{"image": "<base64>"[, "model": "<name>"]}`."""

    image: str
    model: str = ""


class LabelledImage(ImageMessage):
    """`{"image": "<base64>", "product": "Green Tea"}`; `"new": true` where the catalogue need not have it."""

    product: str
    new: bool = False


class ProductName(BaseModel):
    """`{"product": "Green Tea"}`."""

    product: str


def decode_image(text: str) -> bytes:
    """Decode base64, standard or URL-safe, with or without padding, white space or a `data:` prefix.

    Raises:
        BadInput: 400 if it is none of these.

    """
    text = text.lstrip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or head.lower().rpartition(";")[2].strip() != "base64":
            raise BadInput("the image is a data: URL without ;base64", reason="not-base64")
    try:
        return _PLAIN.validate_strings(text)
    except ValueError:
        pass  # not the plain form; one of the others then
    plain = text.translate(_SPACE).translate(_STANDARD).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadInput("the image is not base64", reason="not-base64") from exc
