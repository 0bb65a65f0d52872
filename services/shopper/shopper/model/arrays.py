"""Pixels into the tensor that a model takes: loaded only for models that take numbers. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shopper.model.inputs import DTYPES, RGB, Scale, TensorInput
from shopper.model.stubs import TensorProto
from shopper.ports import Pixels

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in grey (ITU-R 601-2), as in Pillow."""
_CODES = {name: code for code, name in DTYPES.items()}


def prepare(picture: Pixels, form: TensorInput, scale: Scale) -> NDArray[Any]:
    """Return the tensor for one image; takes milliseconds if the image is large.

    It is made grey or RGB, resized bilinearly without regard to its aspect, as image_dataset_from_directory
    does it, and scaled.
    """
    values = _fitted(picture, form)
    scaled = _scaled(values, np.dtype(form.dtype), scale)
    if form.channels_first:
        scaled = scaled.transpose(2, 0, 1)
    return scaled.reshape(form.shape)


def number_tensor(values: NDArray[Any]) -> Any:
    """Return a TensorProto of the array's dtype (one of `inputs.DTYPES`) and shape."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    tensor = TensorProto(dtype=_CODES[values.dtype.name], tensor_content=little.tobytes())
    for size in values.shape:
        tensor.tensor_shape.dim.add().size = size
    return tensor


def _fitted(picture: Pixels, form: TensorInput) -> NDArray[Any]:
    values: NDArray[Any] = picture.values
    height, width, channels = values.shape
    if channels != form.channels:
        if form.channels == RGB:
            values = np.repeat(values, RGB, axis=2)
        elif values.dtype == np.uint8:
            values = np.asarray(Image.fromarray(values).convert("L"))[:, :, np.newaxis]
        else:
            values = (values @ LUMA)[:, :, np.newaxis]
    if (height, width) == (form.height, form.width):
        return values
    # Pillow resizes floats one channel at a time; bytes go the same way.
    planes = [_resized(Image.fromarray(values[:, :, plane]), form) for plane in range(form.channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _resized(image: Image.Image, form: TensorInput) -> Image.Image:
    size = (form.width, form.height)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _scaled(values: NDArray[Any], dtype: np.dtype[Any], scale: Scale) -> NDArray[Any]:
    whole = values.dtype == np.uint8
    if dtype.kind != "f":
        return (values if whole else np.rint(np.clip(values, 0, 1) * 255)).astype(dtype, copy=False)
    if scale == "0..255":
        return (values if whole else values * 255).astype(dtype, copy=False)
    unit = values.astype(np.float32) / 255 if whole else values
    return (unit * 2 - 1 if scale == "-1..1" else unit).astype(dtype, copy=False)
