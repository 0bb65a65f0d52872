"""Files in, embeddings out: decoded on a few threads, run through the backbone in batches."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from training.backbone import SIDE, load_backbone
from training.embeddings import Array
from training.pixels import preprocess, reason

DECODERS = 2


class Embedder:
    """The backbone, loaded and traced.

    Attributes:
        decode: an encoded image, scalar string → [224, 224, 3] float32.
        run: [N, 224, 224, 3] float32 → features [N, 1280] float32.

    """

    def __init__(self) -> None:
        self.backbone = load_backbone()
        self.decode = tf.function(
            preprocess, autograph=False, input_signature=[tf.TensorSpec([], tf.string)]
        ).get_concrete_function()
        self.run = tf.function(
            self.backbone.__call__,
            autograph=False,
            input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)],
        ).get_concrete_function()

    def warm_up(self) -> None:
        """Run once on nothing, so that the first image does not pay for TensorFlow's set-up."""
        self.run(tf.zeros([1, SIDE, SIDE, 3]))

    def __call__(self, files: Sequence[Path]) -> list[Array | str]:
        """Return for each file its embedding, [1280] float32, or why it cannot be read."""
        with ThreadPoolExecutor(DECODERS) as pool:
            decoded = list(pool.map(self._read, files))
        pixels = [image for image in decoded if not isinstance(image, str)]
        rows = iter(self.run(tf.stack(pixels)).numpy() if pixels else ())
        return [image if isinstance(image, str) else next(rows) for image in decoded]

    def _read(self, file: Path) -> tf.Tensor | str:
        try:
            return self.decode(tf.constant(file.read_bytes()))
        except tf.errors.InvalidArgumentError as exc:
            return reason(exc)
