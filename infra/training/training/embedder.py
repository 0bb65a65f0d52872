"""Images in, embeddings of their views out: decoded on a few threads, run through the backbone in batches."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from training.backbone import SIDE, load_backbone
from training.embeddings import Array, Wanted
from training.pixels import drawn, preprocess, reason
from training.twin import Twins
from training.views import view_of

DECODERS = 2
AT_ONCE = 32
"""Pictures that go through the backbone together."""


class Embedder:
    """The backbone, loaded and traced.

    Attributes:
        decode: an encoded image, scalar string → [224, 224, 3] float32.
        run: [N, 224, 224, 3] → features [N, F].
        twins: makes of a head what ONNX Runtime runs.

    """

    def __init__(self) -> None:
        self.backbone = load_backbone()
        self.twins = Twins(self.backbone)
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

    def __call__(self, wanted: Sequence[Wanted]) -> list[Array | str]:
        """Return for each image its views' embeddings, [V, F] float32, or why it cannot be read."""
        with ThreadPoolExecutor(DECODERS) as pool:
            drawn = list(pool.map(self._drawn, wanted))
        pixels = [picture for pictures in drawn if not isinstance(pictures, str) for picture in pictures]
        batches = [tf.stack(pixels[i : i + AT_ONCE]) for i in range(0, len(pixels), AT_ONCE)]
        rows = iter([row for batch in batches for row in self.run(batch).numpy()])
        return [
            pictures if isinstance(pictures, str) else np.stack([next(rows) for _ in pictures])
            for pictures in drawn
        ]

    def _drawn(self, wanted: Wanted) -> list[tf.Tensor] | str:
        try:
            upright = self.decode(tf.constant(wanted.file.read_bytes()))
        except tf.errors.InvalidArgumentError as exc:
            return reason(exc)
        pixels = drawn(upright.numpy())
        return [
            upright if view == 0 else (view_of(pixels, wanted.sha256, view).astype(np.float32) - 127) / 128
            for view in wanted.views
        ]
