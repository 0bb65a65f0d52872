"""The version that serves now, asked about held-out images; a stranger's in a process of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caravan.errors import Permanent
from training.evaluate import Answer
from training.holdout import HeldOut, Judged
from training.parent import Parent, ask

SECONDS = 120


@pytest.fixture
def out(tmp_path: Path) -> HeldOut:
    """A short file and a long one."""
    files = (tmp_path / "short.jpg", tmp_path / "long.jpg")
    for file, size in zip(files, (10, 50_000), strict=True):
        file.write_bytes(b"x" * size)
    return HeldOut(
        (Judged("short", "5" * 64, 0), Judged("long", "1" * 64, 1)), np.zeros((2, 4), np.float32), files
    )


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    """A version of no backbone of ours, which tells files by their length."""
    import tensorflow as tf  # noqa: PLC0415 - by this module alone

    directory = tmp_path_factory.mktemp("stranger")

    def serve(image_b64: Any) -> Any:
        long = tf.strings.length(image_b64) > 20_000
        return {
            "answers": tf.stack([tf.where(long, "long", "short"), tf.fill(tf.shape(long), "0.75")], axis=1)
        }

    net = tf.Module()
    signature = tf.function(serve, input_signature=[tf.TensorSpec([None], tf.string, name="image_b64")])
    tf.saved_model.save(net, str(directory), signatures=signature)
    files = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    return Parent(7, None, files)


async def test_a_strangers_version_answers_image_by_image(stranger: Parent, out: HeldOut) -> None:
    assert await ask(stranger, out, SECONDS) == [
        Answer("5" * 64, "short", "short", 0.75),
        Answer("1" * 64, "long", "long", 0.75),
    ]


async def test_a_strangers_version_that_takes_too_long_is_let_go(stranger: Parent, out: HeldOut) -> None:
    with pytest.raises(Permanent, match="version 7 does not answer: it was not loaded and asked within"):
        await ask(stranger, out, -1)


async def test_a_strangers_version_that_cannot_be_loaded_says_so(out: HeldOut) -> None:
    with pytest.raises(Permanent, match="version 7 does not answer: it does not load"):
        await ask(Parent(7, None, {"saved_model.pb": b"no graph"}), out, SECONDS)
