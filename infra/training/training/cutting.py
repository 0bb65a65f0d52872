"""Where a version's files are cut into pieces: at the arrays in them, so that what is learnt anew is apart.

The same arrays make the same pieces, whatever lies beside them: TensorFlow's index tells where they lie in
`variables/`, and an ONNX model and a `saved_model.pb` are messages whose fields are visited.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path, PurePosixPath

from caravan.contracts import HEAD, ONNX_MODEL, SAVED_MODEL
from caravan.errors import Permanent
from caravan.pieces import LEAST, PIECES, to_json
from caravan.tf_index import Field, fields, read_tensors

_SHARD = re.compile(r"variables/variables\.data-(\d{5})-of-\d{5}")
_INDEX = "variables/variables.index"
_GRAPHS = 2
"""`SavedModel.meta_graphs`."""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""`ModelProto.graph`, `GraphProto.initializer`, `TensorProto.raw_data`."""


def with_pieces(files: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """Write of which pieces a version's files are, if any is of several; return its files with that one.

    Args:
        files: of the version, by their path within it.
        target: where it is written.

    """
    told = {path: file for path, file in files.items() if path != PIECES}
    contents = {path: file.read_bytes() for path, file in sorted(told.items())}
    seams = _of_shards(contents)
    if HEAD in contents:
        seams[HEAD] = list(_of_head(contents, seams))
    cut = {path: (content, seams.get(path) or _seams(path, content)) for path, content in contents.items()}
    if (raw := to_json(cut)) is None:
        return {path: file for path, file in files.items() if path != PIECES}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(raw)
    return {**files, PIECES: target}


def _of_shards(contents: Mapping[str, bytes]) -> dict[str, list[int]]:
    """Return the seams of the shards of a checkpoint; none where the index does not fit."""
    shards = {int(match[1]): path for path in contents if (match := _SHARD.fullmatch(path))}
    found: dict[str, list[int]] = {path: [] for path in shards.values()}
    with suppress(Permanent):
        before = ""
        for tensor in read_tensors(contents.get(_INDEX, b""))[1]:
            whose = tensor.name.partition("/")[0]
            if tensor.shard in shards:
                seams = found[shards[tensor.shard]]
                seams += _around(tensor.start, tensor.end)
                if whose != before:
                    seams.append(tensor.start)
            before = whose
    return found


def _of_head(contents: Mapping[str, bytes], shards: Mapping[str, list[int]]) -> Iterator[int]:
    """Yield the seams of the head's archive, in which arrays of the checkpoint lie as they are there."""
    for path, seams in shards.items():
        for start, end in pairwise(sorted({0, *seams, len(contents[path])})):
            if end - start >= LEAST and (at := contents[HEAD].find(contents[path][start:end])) >= 0:
                yield from (at, at + end - start)


def _seams(path: str, content: bytes) -> list[int]:
    file = io.BytesIO(content)
    try:
        if path == SAVED_MODEL:
            return [
                seam for one in _inside(file, len(content), _GRAPHS) for seam in _around(one.start, one.end)
            ]
        if path == ONNX_MODEL or PurePosixPath(path).suffix == ".onnx":
            return list(_of_onnx(file, len(content)))
    except Permanent:
        pass  # who loads it says what is wrong with it
    return []


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


def _around(start: int, end: int) -> Iterable[int]:
    return (start, end) if end - start >= LEAST else ()
