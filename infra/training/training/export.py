"""The model as TensorFlow Serving loads it: encoded images in, labels and probabilities out."""

import math
from pathlib import Path

import tensorflow as tf

from caravan.contracts import ONE_IMAGE, TWIN
from training.backbone import SIDE
from training.embedder import Embedder
from training.head import COLOURS, FAINT, LIKENESS, SCALE, Head

DECODED_AT_ONCE = 4
"""Images of a request that are decoded side by side: bounds memory, not the batch."""


class ServedModel(tf.Module):  # type: ignore[misc]
    """Backbone and head in one graph, with the two signatures of the contract."""

    def __init__(self, embedder: Embedder, head: Head) -> None:
        super().__init__()
        # Traced already, for the embeddings that the head learnt from; its variables are the backbone's.
        self._embedder, self._backbone = embedder, embedder.backbone
        self._classes = tf.constant(head.classes)
        self._other = tf.one_hot(head.other, len(head.classes))
        arrays = {**vars(head.space), **vars(head)}
        for name in ("mean", "weights", "bias", "directions", "damping", "centres", "thresholds", "slopes"):
            setattr(self, f"_{name}", tf.Variable(arrays[name], trainable=False, name=name))
        self._shapes = head.space.shapes
        images = tf.TensorSpec([None], tf.string, name="images")
        # Traced once; both signatures call this function.
        self._scored = tf.function(self._score, autograph=False, input_signature=[images])

    def classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encoded images [N] → labels [N], scores [N], probabilities [N, C], classes [C]."""
        p = self._scored(images)
        return {
            "labels": tf.gather(self._classes, tf.argmax(p, axis=1)),
            "scores": tf.reduce_max(p, axis=1),
            "probabilities": p,
            "classes": tf.identity(self._classes),
        }

    def serve(self, image_b64: tf.Tensor) -> dict[str, tf.Tensor]:
        """One encoded image [1] → `[label, probability]`, both strings; an error for any other number."""
        # A model server feeds however many come; TensorFlow itself would take the declared [1] for the truth.
        images = tf.raw_ops.PlaceholderWithDefault(input=image_b64, shape=[None])
        with tf.control_dependencies([tf.debugging.Assert(tf.size(images) == 1, [ONE_IMAGE])]):
            answer = self.classify(tf.identity(images))
        probability = tf.strings.as_string(answer["scores"][0], precision=6)
        return {"prediction": tf.stack([answer["labels"][0], probability])}

    def _score(self, images: tf.Tensor) -> tf.Tensor:
        pixels = tf.map_fn(
            self._embedder.decode,
            images,
            fn_output_signature=tf.TensorSpec([SIDE, SIDE, 3], tf.float32),
            parallel_iterations=DECODED_AT_ONCE,
        )
        return self._probabilities(self._embedder.run(pixels))

    def _probabilities(self, features: tf.Tensor) -> tf.Tensor:
        """Repeat `Head.probabilities`."""
        centred = features - self._mean
        damped = centred - tf.matmul(
            centred @ self._directions * self._damping, self._directions, transpose_b=True
        )
        shapes, colours = damped[:, : self._shapes], damped[:, self._shapes :]
        shapes = tf.nn.l2_normalize(shapes, 1, FAINT**2) * math.sqrt(1 - COLOURS)
        space = tf.concat([shapes, tf.nn.l2_normalize(colours, 1, FAINT**2) * math.sqrt(COLOURS)], 1)
        typical = tf.matmul(space, self._centres, transpose_b=True)
        products = 1 - self._other
        beyond = (
            typical - tf.reduce_sum(typical * products, 1, keepdims=True) / tf.reduce_sum(products)
        ) * products
        logits = tf.nn.l2_normalize(centred, 1) * SCALE @ self._weights + self._bias
        p = tf.nn.softmax(logits + LIKENESS * beyond)
        guard = tf.sigmoid(self._slopes * (typical - self._thresholds))
        p *= guard + (1 - guard) * self._other
        return p + self._other * (1 - tf.reduce_sum(p, axis=1, keepdims=True))


def export(embedder: Embedder, head: Head, directory: Path) -> None:
    """Write the SavedModel, and its twin for ONNX Runtime, into an empty or new directory."""
    model = ServedModel(embedder, head)
    one = tf.TensorSpec([1], tf.string, name="image_b64")
    many = tf.TensorSpec([None], tf.string, name="images")
    signatures = {
        "serving_default": tf.function(model.serve, autograph=False, input_signature=[one]),
        "classify": tf.function(model.classify, autograph=False, input_signature=[many]),
    }
    tf.saved_model.save(model, str(directory), signatures)
    twin = directory / TWIN
    twin.parent.mkdir()
    twin.write_bytes(embedder.twins.of(head))
