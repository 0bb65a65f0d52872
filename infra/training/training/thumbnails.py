"""Small copies of images, inside a page: JPEGs as `data:` addresses."""

import base64
import io
from pathlib import Path

from PIL import Image


def data_url(file: Path, side: int) -> str:
    """Return an image, shrunk to `side` x `side` pixels, as a `data:` address; empty if it cannot be read."""
    target = io.BytesIO()
    try:
        with Image.open(file) as image:
            # A JPEG is then decoded near the size that is wanted, not at that of the camera.
            image.draft("RGB", (2 * side, 2 * side))
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    small.thumbnail((side, side))
    small.save(target, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"
