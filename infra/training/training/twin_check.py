"""Tells whether a model's twin (`caravan.contracts.TWIN`) answers as the SavedModel beside it does."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from caravan.graphs.onnx import OnnxError
from caravan.graphs.plausible import Input, examples
from caravan.graphs.twin import SIDE, UnfitError, open_twin, pixels_of
from training.pixels import drawn, preprocess

CLOSE = 0.01
"""Largest difference of a probability from the SavedModel's; labels then agree unless the best two are within
twice as much."""
AT_ONCE = 8
ANSWERS = {"labels", "scores", "probabilities", "classes"}

Asked = tuple[bytes, NDArray[np.uint8]]
"""A picture, encoded, and its pixels for the backbone's graph, [224, 224, 3]."""
Arrays = Mapping[str, NDArray[Any]]
Classify = Callable[[Arrays], Arrays]


def scaled(images: Iterable[bytes]) -> Iterator[Asked]:
    """Yield three made-up pictures (a drawing, noise, darkness), then images, all as small PNGs.

    Their pixels are what a model server gives the twin.
    """
    shape = (1, SIDE, SIDE, 3)
    for made_up in examples([Input("pixels", np.uint8, shape)], {"pixels": shape}, [b""]):
        yield _png(made_up["pixels"][0])
    for image in images:
        yield _png(pixels_of(image))


def unscaled(images: Iterable[bytes]) -> Iterator[Asked]:
    """Yield the made-up pictures, then images as they are: a stranger's graph may tell one from a PNG."""
    yield from scaled([])
    decode = tf.function(preprocess, autograph=False, input_signature=[tf.TensorSpec([], tf.string)])
    for image in images:
        yield image, drawn(decode(image).numpy())


def check_twin(directory: Path, classify: Classify, asked: Iterable[Asked]) -> None:
    """Ask a twin, and the signature `classify` of its SavedModel, about the same pixels.

    Args:
        directory: directory of the version.
        classify: the signature of the contract: encoded images in, the four answers out.
        asked: pictures, encoded for the SavedModel, and as pixels for the twin.

    Raises:
        UnfitError: if it does not load, is not of the contract's form, or answers otherwise.
        tf.errors.OpError: if TensorFlow does not answer.

    """
    session, classes = open_twin(directory, threads=1)
    left = iter(asked)
    while batch := list(islice(left, AT_ONCE)):
        expected = classify({"images": np.array([encoded for encoded, _ in batch], object)})
        if not expected.keys() >= ANSWERS:
            raise UnfitError(f"classify has to answer {', '.join(sorted(ANSWERS))} to be compared with")
        if [name.decode() for name in expected["classes"].tolist()] != classes:
            raise UnfitError("its classes are not those that classify answers")
        try:
            (answer,) = session.run(["probabilities"], {"pixels": np.stack([pixels for _, pixels in batch])})
        except Exception as exc:  # ONNX Runtime's errors have no public base class
            raise UnfitError(f"it does not answer: {OnnxError(exc)}") from exc
        if not _is_alike(answer, expected):
            raise UnfitError("it answers otherwise than the SavedModel")


def _is_alike(answer: NDArray[np.float32], expected: Arrays) -> bool:
    """Tell whether probabilities [N, C] are those expected, and say the label and the score expected."""
    if answer.shape != expected["probabilities"].shape:
        return False
    best = answer.max(axis=1)
    of_label = np.where(expected["labels"][:, None] == expected["classes"], answer, 0).max(axis=1)
    distances = answer - expected["probabilities"], best - expected["scores"], (best - of_label) / 2
    # NaN is not close.
    return all(np.abs(each).max() <= CLOSE for each in distances)


def _png(pixels: NDArray[np.uint8]) -> Asked:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=1)
    return target.getvalue(), pixels
