"""Images as the training pipeline learns from them: embedded, with their views, by its own functions."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from training.dataset import Member
from training.embeddings import Embedded, EmbeddingCache, embed
from training.session import load_embedder
from training.views import views_of


def embedded(images: Mapping[str, tuple[str, bytes]], kept: Path) -> tuple[dict[str, Member], Embedded]:
    """Embed images that can be read; of two with the same content, the last.

    Args:
        images: class and content, by name.
        kept: where embeddings are kept from run to run.

    Returns:
        class and SHA-256 of each image, by name, and what was embedded.

    """
    by_sha = {hashlib.sha256(content).hexdigest(): name for name, (_, content) in images.items()}
    members = {name: (images[name][0], sha) for sha, name in by_sha.items()}
    with tempfile.TemporaryDirectory() as folder:
        files = {sha: Path(folder, sha) for sha in by_sha}
        for sha, file in files.items():
            file.write_bytes(images[by_sha[sha]][1])
        done = embed(
            files, EmbeddingCache(kept), cache(load_embedder), lambda *_: None, views_of([*members.values()])
        )
    return {name: member for name, member in members.items() if member[1] in done.features}, done
