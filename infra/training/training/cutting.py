"""Where a version's files are cut into pieces: at the arrays in them, so that what is learnt anew is apart.

The same arrays make the same pieces, whatever lies beside them: TensorFlow's index tells where they lie in
`variables/`, and an ONNX model and a `saved_model.pb` are messages whose fields are visited. Where it is told
which arrays are learnt anew, these are looked for in all files, and the rest is left whole.
"""

import io
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from caravan.contracts import ONNX_MODEL, SAVED_MODEL
from caravan.errors import Permanent
from caravan.pieces import LEAST, PIECES, to_json
from caravan.tf_index import Field, fields, read_tensors

_SHARD = re.compile(r"variables/variables\.data-(\d{5})-of-\d{5}")
_INDEX = "variables/variables.index"
_OF_INDEX = 2**10
"""Bytes of a piece of it: it has a checksum of each array."""
LEAST_LEARNT = 2**9
"""Bytes of an array learnt anew that is a piece of its own."""
_HEADER = 64
"""Bytes at the start of a message, and before the first such array in it, that tell sizes. They change
with the number of classes."""
_GRAPHS = 2
"""`SavedModel.meta_graphs`."""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""`ModelProto.graph`, `GraphProto.initializer`, `TensorProto.raw_data`."""


def with_pieces(files: Mapping[str, Path], target: Path, learnt: Collection[bytes] = ()) -> dict[str, Path]:
    """Write of which pieces a version's files are, if any is of several; return its files with that one.

    Args:
        files: of the version, by their path within it.
        target: where it is written.
        learnt: the arrays that are learnt anew, as they lie in files, if that is known.

    """
    told = {path: file for path, file in files.items() if path != PIECES}
    contents = {path: file.read_bytes() for path, file in sorted(told.items())}
    shards = _of_shards(contents, math.inf if learnt else LEAST)
    cut = {
        path: (
            content,
            [*shards.get(path, ()), *(_around_these(learnt, path, content) or _seams(path, content))],
        )
        for path, content in contents.items()
    }
    if (raw := to_json(cut)) is None:
        return {path: file for path, file in files.items() if path != PIECES}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(raw)
    return {**files, PIECES: target}


def _of_shards(contents: Mapping[str, bytes], least: float) -> dict[str, list[int]]:
    """Return the seams of a checkpoint: of its index, and of its shards at arrays of so many bytes.

    There are none where the index cannot be read.
    """
    shards = {int(match[1]): path for path in contents if (match := _SHARD.fullmatch(path))}
    found: dict[str, list[int]] = {path: [] for path in shards.values()}
    with suppress(Permanent):
        before, index = "", contents.get(_INDEX, b"")
        tensors = read_tensors(index)[1]
        found[_INDEX] = list(range(0, len(index), _OF_INDEX))
        for tensor in tensors:
            whose = tensor.name.partition("/")[0]
            if tensor.shard in shards:
                seams = found[shards[tensor.shard]]
                seams += _around(tensor.start, tensor.end, least)
                if whose != before:
                    seams.append(tensor.start)
            before = whose
    return found


def _around_these(arrays: Collection[bytes], path: str, content: bytes) -> list[int]:
    """Return the seams around arrays where they lie in a file; none if it has none of them."""
    places = [(content.find(array), len(array)) for array in arrays if len(array) >= LEAST_LEARNT]
    seams = [seam for at, size in places if at >= 0 for seam in (at, at + size)]
    if seams and _is_onnx(path):
        seams += [_HEADER, min(seams) - _HEADER]
    return seams


def _seams(path: str, content: bytes) -> list[int]:
    file = io.BytesIO(content)
    try:
        if path == SAVED_MODEL:
            return [
                seam for one in _inside(file, len(content), _GRAPHS) for seam in _around(one.start, one.end)
            ]
        if _is_onnx(path):
            return list(_of_onnx(file, len(content)))
    except Permanent:
        pass  # who loads it says what is wrong with it
    return []


def _is_onnx(path: str) -> bool:
    return path == ONNX_MODEL or PurePosixPath(path).suffix == ".onnx"


def _of_onnx(file: io.BytesIO, size: int) -> Iterator[int]:
    for one in _inside(file, size, _GRAPH):
        if one.number != _INITIALIZER:
            continue
        for part in fields(file, one.start, one.end):
            if part.number == _RAW_DATA:
                yield from _around(part.start, part.end)


def _inside(file: io.BytesIO, size: int, number: int) -> Iterator[Field]:
    """Yield the fields of a message's parts of a number."""
    for one in fields(file, 0, size):
        if one.number == number:
            yield from fields(file, one.start, one.end)


def _around(start: int, end: int, least: float = LEAST) -> Iterable[int]:
    return (start, end) if end - start >= least else ()
