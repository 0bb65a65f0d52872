"""A version is cut at the arrays in its files, so that the same array is the same piece wherever it lies."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from caravan.pieces import LONGEST, PIECES
from training.cutting import with_pieces

Tiles = dict[str, list[list[object]]]


def cut(root: Path, contents: dict[str, bytes] | None = None) -> Tiles:
    """Cut what is in a folder, and return the pieces of each file."""
    for path, content in (contents or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    found = with_pieces(files, root.parent / f"{root.name}.json")
    tiles: Tiles = json.loads(found[PIECES].read_bytes())["files"] if PIECES in found else {}
    for path, parts in tiles.items():
        assert sum(int(str(size)) for size, _ in parts) == files[path].stat().st_size
    return tiles


def layers(seed: int) -> list[NDArray[np.float32]]:
    """Four layers, of which the third is learnt anew with each seed."""
    return [
        np.random.default_rng([seed if at == 2 else 0, at]).normal(size=(100, 100)).astype(np.float32)
        for at in range(4)
    ]


def onnx_of(arrays: list[NDArray[np.float32]]) -> bytes:
    constants = [onnx.numpy_helper.from_array(array, f"layer{at}") for at, array in enumerate(arrays)]
    graph = onnx.helper.make_graph([], "g", [], [], constants)
    return bytes(onnx.helper.make_model(graph).SerializeToString())


def test_of_a_model_made_elsewhere_only_the_layer_that_changed_is_new(tmp_path: Path) -> None:
    pieces = []
    for seed in (1, 2):
        module = tf.Module()
        module.layers = [tf.Variable(array) for array in layers(seed)]
        root = tmp_path / str(seed)
        tf.saved_model.save(module, str(root))
        pieces.append(cut(root, {"model.onnx": onnx_of(layers(seed))}))
    for path in ("variables/variables.data-00000-of-00001", "model.onnx"):
        new = {tuple(tile) for tile in pieces[1][path]} - {tuple(tile) for tile in pieces[0][path]}
        assert [size for size, _ in new if size != 40_000] == [], "no more than the layer"
        assert len(new) == 1
    data = {name for _, name in pieces[1]["variables/variables.data-00000-of-00001"]}
    assert len(data & {name for _, name in pieces[1]["model.onnx"]}) == 4, "one array is one piece in both"


def test_what_is_small_is_not_cut(tmp_path: Path) -> None:
    assert cut(tmp_path / "model", {"saved_model.pb": b"small"}) == {}


@pytest.mark.parametrize("content", [b"\xff" * 2 * LONGEST, bytes(2 * LONGEST), b""])
def test_a_damaged_file_is_cut_by_length_alone(tmp_path: Path, content: bytes) -> None:
    named = (
        "saved_model.pb",
        "model.onnx",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    )
    tiles = cut(tmp_path / "model", dict.fromkeys(named, content))
    assert {size for parts in tiles.values() for size, _ in parts} <= {LONGEST}


def test_pieces_that_were_sent_with_a_model_are_not_believed(tmp_path: Path) -> None:
    sent = {PIECES: b"lies", "model.onnx": onnx_of(layers(1))}
    assert set(cut(tmp_path / "model", sent)) == {"model.onnx"}
    assert cut(tmp_path / "small", {PIECES: b"lies", "model.onnx": b""}) == {}
