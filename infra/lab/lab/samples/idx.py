"""The idx format of MNIST and its kin: a magic number, the dimensions, then the values in a row.

The magic number is two zero bytes, the type of the values (8: unsigned bytes, the only one here) and how many
dimensions follow, each a big-endian 32-bit number. Files are gzipped.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from local_stack.errors import StackError

UNSIGNED_BYTES = 8
MOST_BYTES = 2**30
"""Most bytes of values in one file."""


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the values of a gzipped idx file of unsigned bytes, in its own shape.

    Args:
        path: the file.
        dimensions: how many it must have.

    Raises:
        StackError: if it cannot be read, is damaged, or holds anything else, more or less than it says.

    """
    try:
        with gzip.open(path) as file:
            magic = file.read(4)
            if magic != bytes((0, 0, UNSIGNED_BYTES, dimensions)):
                raise _unfit(
                    path, f"it begins with {magic.hex(' ')}, not as {dimensions} dimensions of bytes"
                )
            head = file.read(4 * dimensions)
            if len(head) < 4 * dimensions:
                raise _unfit(path, "it ends within its head")
            shape = struct.unpack(f">{dimensions}I", head)
            size = math.prod(shape)
            if size > MOST_BYTES:
                raise _unfit(path, f"it says that it holds {size} values")
            values = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise StackError(f"{path} cannot be read: {exc}") from exc
    if len(values) != size:
        much = "more" if len(values) > size else f"{len(values)}"
        raise _unfit(path, f"it says that it holds {size} values, and holds {much}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _unfit(path: Path, why: str) -> StackError:
    return StackError(f"{path} is not what it should be: {why}")
