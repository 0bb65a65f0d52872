"""Reads TFRecord files: records with their lengths before them, and checksums of both."""

import struct
from collections.abc import Iterator
from pathlib import Path

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK = 0xA282EAD8


class DamagedError(ValueError):
    """A file that is no TFRecord file, or has ended too early."""


def read(file: Path) -> Iterator[bytes]:
    """Yield the records of an uncompressed file, in order.

    Raises:
        DamagedError: at the first record that is not what was written, in TensorFlow's words.

    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        while (at := opened.tell()) < size:
            header = opened.read(_LENGTH.size)
            _check(header, opened.read(_CHECKSUM.size), at)
            (length,) = _LENGTH.unpack(header)
            if length > size - opened.tell():
                raise DamagedError(f"truncated record at {at}")
            record = opened.read(length)
            _check(record, opened.read(_CHECKSUM.size), at)
            yield record


def _check(data: bytes, checksum: bytes, at: int) -> None:
    if len(checksum) < _CHECKSUM.size:
        raise DamagedError(f"truncated record at {at}")
    # Few versions have records, and this loads a Kafka client.
    from aiokafka.record.util import calc_crc32c  # noqa: PLC0415

    # Rotated and shifted, since a checksum of data that hold checksums says little.
    plain = calc_crc32c(data)
    masked = (((plain >> 15) | (plain << 17)) + _MASK) & 0xFFFFFFFF
    if (masked,) != _CHECKSUM.unpack(checksum):
        raise DamagedError(f"corrupted record at {at}")
