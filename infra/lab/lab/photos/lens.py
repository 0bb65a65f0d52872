"""What phone and hand do to a picture: exposure, white balance, vignette, shake, noise, JPEG."""

import io
import math

import numpy as np
from PIL import Image, ImageFilter

from lab.photos.paint import Rng, chance, grain


def taken(picture: Image.Image, rng: Rng) -> bytes:
    """Take the photo: return it as the bytes of a JPEG, about 8 to 30 kB at 324 by 432 pixels."""
    light = np.asarray(_shaken(picture, rng), np.float32) / 255
    light *= _white_balance(rng) * rng.uniform(0.9, 1.35)
    light *= _unevenness(picture.size, rng)
    light **= np.float32(rng.uniform(0.8, 1.1))
    sigma = rng.uniform(0.004, 0.015)
    light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(sigma)
    developed = Image.fromarray((light * 255).clip(0, 255).astype(np.uint8))
    encoded = io.BytesIO()
    developed.save(encoded, "JPEG", quality=int(rng.integers(58, 88)))
    return encoded.getvalue()


def _shaken(picture: Image.Image, rng: Rng) -> Image.Image:
    if chance(rng, 0.4):
        return picture
    if chance(rng, 0.75):
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2)))
    angle, length = rng.uniform(0, math.pi), 5
    kernel = np.zeros((length, length))
    for t in np.linspace(-2, 2, 9):
        kernel[round(2 + t * math.sin(angle)), round(2 + t * math.cos(angle))] = 1
    weights = [float(k) for k in kernel.ravel()]
    return picture.filter(ImageFilter.Kernel((length, length), weights, scale=sum(weights)))


def _white_balance(rng: Rng) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return gains for red, green and blue: from lamplight to shade."""
    warmth, tint = rng.normal(0, 0.07), rng.normal(0, 0.035)
    return np.array([1 + warmth, 1 + tint, 1 - warmth], np.float32).clip(0.6, 1.4)


def _unevenness(size: tuple[int, int], rng: Rng) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return a gain per pixel `[height, width, 1]`: light from one side, dark corners, a shadow."""
    width, height = size
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.3)
    gain = 1 + np.float32(slope) * (x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle)))
    gain = gain * (1 - np.float32(rng.uniform(0, 0.22)) * (x * x + y * y))
    if chance(rng, 0.25):
        edge = (grain(rng, size, (2, 2), 1) - np.float32(rng.uniform(0.4, 0.7))) * np.float32(
            rng.uniform(6, 30)
        )
        gain = gain * (1 - np.float32(rng.uniform(0.12, 0.32)) * edge.clip(0, 1)[:height, :width])
    return np.asarray(gain[..., None], np.float32)
