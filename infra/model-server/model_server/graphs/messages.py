"""Messages between the server and the process that runs its SavedModels: a head in JSON, then arrays.

Both ends are of one version and on one machine: arrays are sent as they are. Each begins at a multiple of 64
bytes, where TensorFlow takes it without a copy.
"""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravan.graphs.dtypes import numpy_type, tensorflow_type

Head = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]
Buffer = bytes | memoryview

_SIZES = struct.Struct("=QQ")
"""The sizes of the head and of all arrays, in bytes."""
_ALIGNMENT = 64
_MAX_BUFFERS = 512
"""Buffers that one system call may take: IOV_MAX is 1,024."""


class HungUpError(Exception):
    """The other end is gone."""


def encode(head: Head, arrays: Arrays) -> list[Buffer]:
    """Return a message, which holds the arrays' own memory.

    Raises:
        TypeError: if an array has a type that TensorFlow has not.

    """
    described, buffers, size = [], [], 0
    for name, array in arrays.items():
        parts = _parts(array)
        length = sum(map(len, parts))
        described.append([name, tensorflow_type(array.dtype), array.shape, length])
        buffers += [*parts, bytes(-length % _ALIGNMENT)]
        size += length + -length % _ALIGNMENT
    text = json.dumps([head, described]).encode()
    return [_SIZES.pack(len(text), size), text, *buffers]


def send(channel: socket.socket, message: Sequence[Buffer]) -> None:
    """Send a message (blocking).

    Raises:
        HungUpError: if the other end is gone.

    """
    left = [memoryview(buffer) for buffer in message if len(buffer)]
    try:
        while left:
            sent = channel.sendmsg(left[:_MAX_BUFFERS])
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]
    except OSError as exc:
        raise HungUpError from exc


def receive(channel: socket.socket) -> tuple[Head, dict[str, NDArray[Any]]]:
    """Return the next message (blocking); strings are object arrays of bytes.

    Raises:
        HungUpError: if the other end is gone.

    """
    try:
        length, size = _SIZES.unpack(_receive(channel, memoryview(bytearray(_SIZES.size))))
        head, described = json.loads(bytes(_receive(channel, memoryview(bytearray(length)))))
        body = _receive(channel, _aligned(size))
    except OSError as exc:
        raise HungUpError from exc
    arrays, start = {}, 0
    for name, dtype, shape, length in described:
        arrays[name] = _array(body[start : start + length], numpy_type(dtype), shape)
        start += length + -length % _ALIGNMENT
    return head, arrays


def _parts(array: NDArray[Any]) -> list[Buffer]:
    if not array.dtype.hasobject:
        return [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data]
    strings = array.ravel().tolist()
    lengths = np.fromiter(map(len, strings), np.uint64, len(strings))
    # One large string is not copied; many small ones are sooner sent as one.
    joined = strings if len(strings) == 1 else [b"".join(strings)]
    return [lengths.view(np.uint8).data, *joined]


def _array(body: memoryview, dtype: np.dtype[Any], shape: Sequence[int]) -> NDArray[Any]:
    if not dtype.hasobject:
        return np.frombuffer(body, np.uint8).view(dtype).reshape(shape)
    flat = np.empty(int(np.prod(shape)), object)
    start = flat.size * np.dtype(np.uint64).itemsize
    for index, length in enumerate(np.frombuffer(body[:start], np.uint64).tolist()):
        flat[index] = bytes(body[start : start + length])
        start += length
    return flat.reshape(shape)


def _receive(channel: socket.socket, into: memoryview) -> memoryview:
    """Fill it. Raises HungUpError if the other end is gone."""
    filled = 0
    while filled < len(into):
        count = channel.recv_into(into[filled:])
        if not count:
            raise HungUpError
        filled += count
    return into


def _aligned(size: int) -> memoryview:
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % _ALIGNMENT
    return room[start : start + size].data
