"""Small copies of images, inside a page: JPEGs as `data:` addresses."""

import base64
from pathlib import Path

from caravan import images
from caravan.errors import BadInput

QUALITY = 72


def data_url(file: Path, side: int) -> str:
    """Return an image, at most `side` pixels a side, as a `data:` address; empty if it cannot be read."""
    try:
        small = images.thumbnail(file.read_bytes(), side, QUALITY)
    except (OSError, BadInput):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
