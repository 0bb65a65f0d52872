"""Images and archives as the bytes of files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

from PIL import Image


def as_file(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Return an image as a file, with Pillow's options of that form."""
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP of these files, by their names; the same files make the same ZIP."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return target.getvalue()
