"""TensorFlow's own files, read without TensorFlow: real ones, damaged ones, compressed ones."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from caravan.errors import Permanent
from caravan.tf_index import SavedModel, read_index, read_saved_model

# In a process of its own: TensorFlow is heavy, and other tests rely on its absence.
EXPORT = """
import sys, tensorflow as tf
root = sys.argv[1]
open(root + "/vocab.txt", "w").write("a\\nb\\n")

class WithVariables(tf.Module):
    def __init__(self):
        self.first = tf.Variable(tf.zeros([100, 7]))
        self.many = [tf.Variable([float(n)], name=f"v{n}") for n in range(300)]
        index = tf.lookup.TextFileIndex
        table = tf.lookup.TextFileInitializer(
            root + "/vocab.txt", tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        self.table = tf.lookup.StaticVocabularyTable(table, 1)

    @tf.function(input_signature=[tf.TensorSpec([None, 7], tf.float32)])
    def serve(self, x):
        return {"y": x * self.first[0]}

module = WithVariables()
tf.saved_model.save(module, root + "/variables_and_assets", signatures={"serving_default": module.serve})

with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    x = tf.compat.v1.placeholder(tf.float32, [None], "x")
    builder = tf.compat.v1.saved_model.Builder(root + "/frozen")
    builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map={
        "serving_default": tf.compat.v1.saved_model.predict_signature_def({"x": x}, {"y": x * 2})})
    builder.save()
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved_models")
    subprocess.run([sys.executable, "-c", EXPORT, str(root)], check=True, capture_output=True, timeout=600)
    return root


def outline(raw: bytes) -> SavedModel:
    return read_saved_model(io.BytesIO(raw), len(raw))


def test_the_outline_of_a_real_model_tells_its_checkpoint_and_assets(exported: Path) -> None:
    whole = (exported / "variables_and_assets" / "saved_model.pb").read_bytes()
    assert outline(whole) == SavedModel(has_checkpoint=True, assets=("vocab.txt",))
    frozen = (exported / "frozen" / "saved_model.pb").read_bytes()
    assert outline(frozen) == SavedModel(has_checkpoint=False, assets=())


def test_the_index_of_a_real_model_ends_where_its_shard_does(exported: Path) -> None:
    variables = exported / "variables_and_assets" / "variables"
    shards = read_index((variables / "variables.index").read_bytes())
    assert shards == ((variables / "variables.data-00000-of-00001").stat().st_size,)


@pytest.mark.parametrize("raw", [b"", b"\x08\x01", b"\x08\x02\x12\x00", b"not a model", b"\x08\x01\x12\x7f"])
def test_what_is_not_a_saved_model_is_refused(raw: bytes) -> None:
    with pytest.raises(Permanent):
        outline(raw)


def test_a_cut_off_saved_model_is_refused_wherever_it_is_cut(exported: Path) -> None:
    raw = (exported / "frozen" / "saved_model.pb").read_bytes()
    # The outline of the last field is all that is visited, so a cut is found by the lengths.
    for end in range(3, len(raw), 7):
        with pytest.raises(Permanent):
            outline(raw[:end])


def test_a_damaged_index_is_refused_wherever_it_is_damaged(exported: Path) -> None:
    raw = (exported / "variables_and_assets" / "variables" / "variables.index").read_bytes()
    rng = random.Random(7)
    blocks = len(raw) - 48
    for place in rng.sample(range(blocks), 60):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << rng.randrange(8)
        try:
            shards = read_index(bytes(damaged))
        except Permanent:
            continue
        assert shards == read_index(raw), "only the meta-index, which holds no entries, may be damaged unseen"
    for end in range(0, len(raw), 97):
        with pytest.raises(Permanent):
            read_index(raw[:end])


def test_a_compressed_index_is_refused_and_says_so(exported: Path) -> None:
    raw = bytearray((exported / "variables_and_assets" / "variables" / "variables.index").read_bytes())
    # The first block ends where its trailer starts; find it by its handle in the index block.
    footer = raw[-48:]
    position, numbers = 0, list[int]()
    while len(numbers) < 4:
        value, shift = 0, 0
        while True:
            byte = footer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers.append(value)
    index_end = numbers[2] + numbers[3]
    struct.pack_into("<B", raw, index_end, 1)
    with pytest.raises(Permanent, match="compressed"):
        read_index(bytes(raw))
