"""A plain Keras convnet over small grey pictures, exported as Keras exports any model.

Nothing in it knows of Caravan: it stands for the model that somebody brings along. Float [N, 28, 28, 1] of
0..1 goes in, the probabilities [N, C] come out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.samples.apparel import CLASSES, SIDE
from lab.samples.fashion_mnist import Apparel
from local_stack.errors import StackError

BATCH, ASKED_AT_ONCE = 128, 1000
FIRST_RATE = 2e-3
"""Learning rate at the beginning; it falls along a cosine to nothing at the end."""
SEED = 1
THREADS = 2
"""Threads of one operation; more are no use to a net this small, and results differ with their number."""
WHITE = np.float32(255)

OnBatch = Callable[[int, int], None]
"""Told how many batches of an epoch are done, of how many."""


class Epoch(NamedTuple):
    """What came of an epoch: on the pictures that it learnt from."""

    loss: float
    accuracy: float


class Convnet:
    """A net to be trained, asked and exported.

    Args:
        batches: how many it will learn from in all.

    Raises:
        StackError: if TensorFlow is not installed.

    """

    def __init__(self, batches: int) -> None:
        keras = _keras()
        keras.utils.set_random_seed(SEED)
        layers = keras.layers
        self._keras = keras
        self._net = keras.Sequential(
            [
                layers.Input((SIDE, SIDE, 1)),
                layers.Conv2D(24, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(48, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dropout(0.25),
                layers.Dense(128, activation="relu"),
                layers.Dense(len(CLASSES), activation="softmax"),
            ]
        )
        rate = keras.optimizers.schedules.CosineDecay(FIRST_RATE, batches)
        self._net.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )

    def learn(self, apparel: Apparel, on_batch: OnBatch) -> Epoch:
        """Go once through the pictures."""
        batches = batches_of(apparel)
        told = self._keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, **_: on_batch(batch + 1, batches)
        )
        seen = self._net.fit(
            _floats(apparel.images), apparel.labels, batch_size=BATCH, verbose=0, callbacks=[told]
        )
        return Epoch(seen.history["loss"][-1], seen.history["accuracy"][-1])

    def accuracy(self, apparel: Apparel) -> float:
        """Return the share of pictures that it names rightly."""
        scores = self._net.predict(_floats(apparel.images), batch_size=ASKED_AT_ONCE, verbose=0)
        return float(np.mean(scores.argmax(axis=1) == apparel.labels))

    def export(self, folder: Path) -> None:
        """Write it as a SavedModel with `serving_default`."""
        self._net.export(str(folder), verbose=False)


def batches_of(apparel: Apparel) -> int:
    """Return how many batches an epoch has."""
    return -(-len(apparel.labels) // BATCH)


def _floats(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.divide(images[..., np.newaxis], WHITE, dtype=np.float32)


def _keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _silence():
            # Imported here: it takes seconds and half a gigabyte, and no other command needs it.
            import keras  # noqa: PLC0415
            import tensorflow as tf  # noqa: PLC0415
    except ImportError as exc:
        raise StackError(
            f"TensorFlow is needed, which comes with the model server: make setup ({exc})"
        ) from exc
    if tf.config.threading.get_intra_op_parallelism_threads() == 0:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    return keras


@contextmanager
def _silence() -> Iterator[None]:
    """Swallow what TensorFlow says of this machine's hardware before its log can be set."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
