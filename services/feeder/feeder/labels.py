"""What a message on `training-images` says of itself: an encoded image, its class, its edge and its name.

The class is in the header `class` (or `label`, or `product`), else in the key as `class/name`. The edge is
in the header `edgeId` (or `edge`); where one edge alone is configured it may be missing. The name is in the
header `name`, else in the key, else made of the content.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection

from aiokafka import ConsumerRecord

from caravan.contracts import image_key, parse_edge
from caravan.errors import BadInput
from caravan.images import ImageInfo
from caravan.kafka import header
from caravan.names import FOLDER_RULE, as_class, is_file_name, is_folder, is_image_name, normal
from feeder.checks import Labelled

_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_DIGEST_DIGITS = 32


Verify = Callable[[bytes], Awaitable[ImageInfo]]
"""Reads an image to its end."""


async def read(record: ConsumerRecord, edges: Collection[str], verify: Verify) -> tuple[str, Labelled]:
    """Return the edge that a message is for and its image, read to its end.

    Raises:
        BadInput: if its edge, its class, its name or its image is missing or not to be taken.

    """
    edge = _edge(record, edges)
    item, name = _place(record)
    content: bytes = record.value or b""
    info = await verify(content)
    digest = (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()
    file = name or digest[:_DIGEST_DIGITS]
    if not is_image_name(file):
        file += _SUFFIX[info.format]
    if not is_file_name(file):
        raise BadInput(
            "its name has slashes or unprintable characters, or is too long", 422, reason="bad-name"
        )
    key = image_key(item, file)
    return edge, Labelled(key, key, digest, len(content), info.media_type, lambda: content)


def _edge(record: ConsumerRecord, edges: Collection[str]) -> str:
    text = header(record, "edgeId", "edge")
    if not text and len(edges) == 1:
        return next(iter(edges))
    try:
        return parse_edge(text, edges)
    except BadInput as exc:
        raise BadInput(exc.detail, exc.status, reason="unknown-edge" if text else "no-edge") from exc


def _place(record: ConsumerRecord) -> tuple[str, str]:
    """Return the class and the name; the name is empty where there is none."""
    key = _text(record.key)
    before, slash, after = key.partition("/")
    item = header(record, "class", "label", "product") or (before if slash else "")
    if not item:
        raise BadInput(
            "no class: name it in the header class, or in the key as class/name", 422, reason="no-class"
        )
    name = header(record, "name") or after or (key if is_image_name(key) else "")
    item = as_class(item)
    if not is_folder(item):
        raise BadInput(f"its class cannot be a folder's name: {FOLDER_RULE}", 422, reason="bad-class")
    return item, normal(name)


def _text(key: bytes | None) -> str:
    try:
        return (key or b"").decode()
    except UnicodeDecodeError:
        return ""  # a number, say, that chooses the partition: it names nothing
