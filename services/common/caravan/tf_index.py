"""What TensorFlow's own files say about which files a SavedModel needs.

Two formats are read, without TensorFlow:

- `saved_model.pb`, a `SavedModel` message (tensorflow/core/protobuf/saved_model.proto, meta_graph.proto),
  of which only the outermost fields are visited, so that a file of any size costs little memory;
- `variables/variables.index`, a table in LevelDB's format whose entries are `BundleHeaderProto` (under the
  empty key) and `BundleEntryProto` (tensorflow/core/protobuf/tensor_bundle.proto).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from caravan.errors import Permanent

SCHEMA = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 100_000
_MOST_SHARDS = 100_000
_VARINT_BYTES = 10

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_UNCOMPRESSED = 0


class Readable(Protocol):
    """A binary file that can be read anywhere: `io.BytesIO`, or a reader of an object store."""

    def read(self, size: int, /) -> object:
        """Return up to `size` bytes, as an object that `bytes()` takes."""

    def seek(self, offset: int, /) -> int:
        """Go to a position counted from the start."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What a `saved_model.pb` asks for.

    Attributes:
        has_checkpoint: a graph has a saver, so `variables/` must be there. Exporters write the saver
            whenever they write variables, and leave it out of a model that has none.
        assets: names of the files that must be in `assets/`.

    """

    has_checkpoint: bool
    assets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: where its value lies, or the number that it is."""

    number: int
    wire: int
    start: int
    end: int
    value: int


# --- saved_model.pb -----------------------------------------------------------------------------


def read_saved_model(file: Readable, size: int) -> SavedModel:
    """Read the outline of a `saved_model.pb` of `size` bytes; blocking.

    Raises:
        Permanent: if it is not one.

    """
    schema, graphs, has_checkpoint = 0, 0, False
    assets: list[str] = []
    for field in fields(file, 0, size):
        if field.number == 1 and field.wire == _VARINT:  # SavedModel.saved_model_schema_version
            schema = field.value
        if field.number == 2 and field.wire == _BYTES:  # noqa: PLR2004 - SavedModel.meta_graphs
            graphs += 1
            for part in fields(file, field.start, field.end):
                if part.number == 3:  # noqa: PLR2004 - MetaGraphDef.saver_def
                    has_checkpoint = True
                if part.number == 6 and part.wire == _BYTES:  # noqa: PLR2004 - MetaGraphDef.asset_file_def
                    assets += [
                        _read(file, name.start, name.end - name.start).decode(errors="replace")
                        for name in fields(file, part.start, part.end)
                        if name.number == 2  # noqa: PLR2004 - AssetFileDef.filename
                    ]
    if schema != SCHEMA or graphs == 0:
        raise Permanent("saved_model.pb is not a SavedModel")
    return SavedModel(has_checkpoint, tuple(dict.fromkeys(assets)))


def fields(file: Readable, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message between two positions, without reading what they hold.

    Raises:
        Permanent: if it is none.

    """
    position = start
    for _ in range(_MOST_FIELDS):
        if position == end:
            return
        tag, position = _varint_at(file, position, end)
        number, wire = tag >> 3, tag & 7
        value, length = 0, 0
        if wire == _VARINT:
            value, position = _varint_at(file, position, end)
        elif wire == _BYTES:
            length, position = _varint_at(file, position, end)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise Permanent(f"a field of wire type {wire} is in no TensorFlow message")
        if number == 0 or position + length > end:
            raise Permanent("the message is cut off or damaged")
        yield Field(number, wire, position, position + length, value)
        position += length
    raise Permanent(f"the message has more than {_MOST_FIELDS} fields")


def _varint_at(file: Readable, position: int, end: int) -> tuple[int, int]:
    raw = _read(file, position, min(_VARINT_BYTES, end - position))
    value, used = _varint(raw, 0)
    return value, position + used


def _read(file: Readable, position: int, length: int) -> bytes:
    file.seek(position)
    raw = memoryview(file.read(length))  # type: ignore[arg-type]  # a Buffer, which 3.11 cannot name
    if len(raw) != length:
        raise Permanent("the file is shorter than it should be")
    return bytes(raw)


# --- variables.index ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: bytes `start` to `end` of the shard."""

    name: str
    shard: int
    start: int
    end: int


def read_tensors(raw: bytes) -> tuple[int, list[Tensor]]:
    """Read a `variables.index`; blocking, and slow beyond a few MB.

    Returns:
        How many shards there are, and the tensors in the order of their names.

    Raises:
        Permanent: if it is damaged, or compressed (TensorFlow writes it uncompressed).

    """
    count, tensors = 0, list[Tensor]()
    for key, value in _table(raw):
        entry = {f.number: f.value for f in fields(io.BytesIO(value), 0, len(value)) if f.wire == _VARINT}
        if key == b"":  # BundleHeaderProto: num_shards = 1
            count = entry.get(1, 0)
            if not 1 <= count <= _MOST_SHARDS:
                raise Permanent(f"the index names {count} shards")
            continue
        if not count:
            raise Permanent("the index has no header")
        # BundleEntryProto: shard_id = 3, offset = 4, size = 5; zero is left out.
        shard, start, size = (entry.get(number, 0) for number in (3, 4, 5))
        if shard >= count:
            raise Permanent(f"the index points into shard {shard} of {count}")
        tensors.append(Tensor(key.decode(errors="replace"), shard, start, start + size))
    if not count:
        raise Permanent("the index is empty")
    return count, tensors


def read_index(raw: bytes) -> tuple[int, ...]:
    """Return for each shard, in order, the bytes that it must have at least; as `read_tensors`."""
    count, tensors = read_tensors(raw)
    shards = [0] * count
    for tensor in tensors:
        shards[tensor.shard] = max(shards[tensor.shard], tensor.end)
    return tuple(shards)


def _table(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a LevelDB table, in the order of their keys.

    The footer is the last 48 bytes: handles of the meta-index and of the index block, padding, a magic
    number. Each entry of the index block holds the handle of a data block.
    """
    if len(raw) < _FOOTER_BYTES:
        raise Permanent("the index is cut off")
    footer = raw[-_FOOTER_BYTES:]
    if struct.unpack_from("<Q", footer, _FOOTER_BYTES - 8)[0] != _MAGIC:
        raise Permanent("the index does not end as a table does")
    _, _, position = _handle(footer, 0)
    offset, size, _ = _handle(footer, position)
    for _, handle in _block(raw, offset, size):
        offset, size, _ = _handle(handle, 0)
        yield from _block(raw, offset, size)


def _block(raw: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of one block.

    A block is its entries, the positions of restarts (uint32 each) and their number; behind it come
    one byte for the compression and a masked CRC-32C of all before. A key is given as the number of bytes
    that it shares with the key before, and the rest.
    """
    end = offset + size
    if end + _TRAILER_BYTES > len(raw) or size < 4:  # noqa: PLR2004 - the number of restarts
        raise Permanent("the index points outside of itself")
    kind, checksum = struct.unpack_from("<BI", raw, end)
    if kind != _UNCOMPRESSED:
        raise Permanent(f"the index is compressed (kind {kind}), which TensorFlow does not write")
    if checksum != _masked(_crc32c(raw[offset : end + 1])):
        raise Permanent("the index is damaged: a checksum does not fit")
    (restarts,) = struct.unpack_from("<I", raw, end - 4)
    block = raw[offset : end - 4 * (restarts + 1)] if 4 * (restarts + 1) <= size else b""
    key, position = b"", 0
    while position < len(block):
        shared, position = _varint(block, position)
        fresh, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or position + fresh + length > len(block):
            raise Permanent("the index is damaged: an entry does not fit its block")
        key = key[:shared] + block[position : position + fresh]
        position += fresh + length
        yield key, block[position - length : position]


def _handle(raw: bytes, position: int) -> tuple[int, int, int]:
    offset, position = _varint(raw, position)
    size, position = _varint(raw, position)
    return offset, size, position


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """Return the number that starts at a position, and the position behind it."""
    value = 0
    for count, byte in enumerate(raw[position : position + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follows
            return value, position + count + 1
    raise Permanent("a number is cut off")


def _crc_row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(_crc_row(byte) for byte in range(256))


def _crc32c(raw: bytes) -> int:
    """CRC-32C (Castagnoli), as RFC 3720 has it."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """Mask a checksum as LevelDB does, so that it can be stored beside its data."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
