"""Small SavedModels, made in the process of the tests: TensorFlow is imported once for all of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from caravan.start import TENSORFLOW_UNUSED, lean

CLASSES = ("tea-licorice", "tea-green", "other")


@cache
def tensorflow() -> Any:
    """Import TensorFlow, which takes seconds: what has no use for it does without."""
    with lean(*TENSORFLOW_UNUSED):
        import tensorflow as tf  # noqa: PLC0415
    return tf


def save_adder(path: Path, added: float = 1.0, ballast: int = 0) -> None:
    """Write a model of x [N] whose y is x + added; `ballast` floats make it heavy."""
    tf = tensorflow()
    module = tf.Module()
    module.added = tf.Variable(added)
    module.ballast = tf.Variable(np.random.default_rng(1).random(ballast, np.float32))
    module.run = tf.function(
        lambda x: {"y": x + module.added}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(path), signatures=module.run)


def save_colours(folder: Path) -> None:
    """Write a model that tells images by colour: red is licorice, green green tea, blue other, grey any.

    `folder/1` has the signature `serving_default` alone, `folder/2` has `classify` too.
    """
    tf = tensorflow()
    classes = tf.constant(CLASSES)

    def mean(encoded: Any) -> Any:
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.reduce_mean(tf.cast(pixels, tf.float32), [0, 1]) / 255

    def probabilities(images: Any) -> Any:
        return tf.nn.softmax(10 * tf.map_fn(mean, images, fn_output_signature=tf.TensorSpec([3], tf.float32)))

    def classify(images: Any) -> Any:
        found = probabilities(images)
        return {
            "labels": tf.gather(classes, tf.argmax(found, 1)),
            "scores": tf.reduce_max(found, 1),
            "probabilities": found,
            "classes": tf.identity(classes),
        }

    def default(image_b64: Any) -> Any:
        found = probabilities(image_b64)[0]
        return tf.stack([tf.gather(classes, tf.argmax(found)), tf.strings.as_string(tf.reduce_max(found))])

    module = tf.Module()
    module.default = tf.function(default, [tf.TensorSpec([1], tf.string, name="image_b64")])
    module.classify = tf.function(classify, [tf.TensorSpec([None], tf.string, name="images")])
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": module.default})
    both = {"serving_default": module.default, "classify": module.classify}
    tf.saved_model.save(module, str(folder / "2"), signatures=both)


def save_shades(path: Path) -> None:
    """Write a model of pixels [N, 2, 3, 1] whose logits [N, 2] say how dark and how bright they are."""
    tf = tensorflow()

    def shades(pixels: Any) -> Any:
        bright = tf.reduce_mean(pixels, [1, 2, 3])
        return {"logits": 10 * tf.stack([1 - bright, bright], 1)}

    module = tf.Module()
    module.run = tf.function(shades, [tf.TensorSpec([None, 2, 3, 1], tf.float32, name="pixels")])
    tf.saved_model.save(module, str(path), signatures=module.run)
