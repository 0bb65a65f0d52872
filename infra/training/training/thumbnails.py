"""Small copies of images, inside a page: WebP as `data:` addresses."""

import base64
from pathlib import Path

from caravan import images
from caravan.errors import BadInput

QUALITY = 55
"""WebP's quality: a page of such pictures travels with each version, and takes half of what JPEG does."""


def data_url(file: Path, side: int) -> str:
    """Return an image, at most `side` pixels a side, as a `data:` address; empty if it cannot be read."""
    try:
        small = images.thumbnail(file.read_bytes(), side, QUALITY, form="WEBP")
    except (OSError, BadInput):
        return ""
    return f"data:image/webp;base64,{base64.b64encode(small).decode()}"
