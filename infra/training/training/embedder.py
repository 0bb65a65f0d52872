"""Images in, embeddings of their views out, by ONNX Runtime: of the very pixels that a model server sees."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from caravan.errors import BadInput
from caravan.graphs.onnx import session_of
from caravan.graphs.twin import pixels_of
from training.backbone import load_backbone
from training.embeddings import Array, Wanted
from training.twin import features_of
from training.views import view_of

WORKERS = 2
"""Images decoded and embedded side by side, one thread each."""


class Embedder:
    """The backbone, loaded.

    Attributes:
        blurriest: [1], the sharpness below which an image is sharpened, as a head asks for it; None to learn.

    """

    def __init__(self, blurriest: Array | None = None) -> None:
        self._session = session_of(features_of(load_backbone(), blurriest), threads=1)

    def __call__(self, wanted: Sequence[Wanted]) -> list[Array | str]:
        """Return for each image its views' embeddings, [V, F + 1] float32, or why it cannot be read."""
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(self._embedded, wanted))

    def embeddings(self, pixels: NDArray[np.uint8]) -> Array:
        """Embed pictures, [N, 224, 224, 3] → [N, F + 1]: features, and how sharp they are."""
        return np.concatenate(self._session.run(["features", "sharpness"], {"pixels": pixels}), axis=1)

    def _embedded(self, wanted: Wanted) -> Array | str:
        try:
            pixels = pixels_of(wanted.file.read_bytes())
        except BadInput as exc:
            return exc.detail
        views = [view_of(pixels, wanted.sha256, view) if view else pixels for view in wanted.views]
        return self.embeddings(np.stack(views))
