"""shopper: images that come as msgpack tensors."""

import math
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest

from caravan.errors import BadInput
from shopper.doors import tensor_message
from shopper.ports import Pixels

WHOLE = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6)
UNIT = (WHOLE / 255).astype(np.float32)
MAX_PIXELS = 1_000_000


def message(image: Any, dtype: Any, height: Any = 4, width: Any = 6, **more: Any) -> bytes:
    fields = {"image": image, "dtype": dtype, "height": height, "width": width, **more}
    packed: bytes = msgpack.packb(fields)
    return packed


def pixels(payload: bytes) -> Pixels:
    return tensor_message.unpack(payload, 10**6).pixels(MAX_PIXELS)


def refusal(payload: bytes) -> tuple[int, str]:
    with pytest.raises(BadInput) as caught:
        pixels(payload)
    return caught.value.status, caught.value.reason


def packed_array(values: Any, **other: Any) -> dict[Any, Any]:
    array = {b"nd": True, b"type": values.dtype.str, b"kind": b"", b"shape": values.shape}
    return {**array, b"data": values.tobytes(), **other}


@pytest.mark.parametrize(
    "payload",
    [
        message(WHOLE.tolist(), "uint8"),
        message(WHOLE[:, :, None].tolist(), "uint8"),
        message(WHOLE[None, :, :, None].tolist(), "uint8"),
        message(WHOLE.tobytes(), "uint8"),
        message(WHOLE.tobytes(), "|u1"),
        message(WHOLE.tobytes(), "uint8", channels=1),
        message(WHOLE.astype("<i4").tobytes(), "int32"),
        message(WHOLE.astype(">i4").tobytes(), ">i4"),
        message(WHOLE.tolist(), "int64"),
        message(packed_array(WHOLE), "uint8"),
        msgpack.packb({"image": packed_array(WHOLE)}),
        msgpack.packb(
            {"image": WHOLE.tobytes(), "dtype": "uint8", "height": 4, "width": 6}, use_bin_type=False
        ),
    ],
)
def test_whole_numbers_arrive_in_every_form(payload: bytes) -> None:
    values = pixels(payload).values
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, WHOLE[:, :, None])


@pytest.mark.parametrize(
    "payload",
    [
        message(UNIT.tolist(), "float32"),
        message(UNIT.astype(float)[:, :, None].tolist(), "float64"),
        message(UNIT.tobytes(), "float32"),
        message(UNIT.astype(">f8").tobytes(), ">f8"),
        message((UNIT * 255).tobytes(), "float32", scale="0..255"),
        message((UNIT * 2 - 1).tobytes(), "float32", scale="-1..1"),
        message(packed_array(UNIT), "float32"),
    ],
)
def test_floats_arrive_in_every_form(payload: bytes) -> None:
    values = pixels(payload).values
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, UNIT[:, :, None], atol=1e-6)


def test_three_channels_arrive_by_the_size_of_the_data() -> None:
    colours = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    for payload in (message(colours.tolist(), "uint8"), message(colours.tobytes(), "uint8")):
        np.testing.assert_array_equal(pixels(payload).values, colours)


def test_bytes_of_pixels_are_not_copied() -> None:
    assert not pixels(message(WHOLE.tobytes(), "uint8")).values.flags.owndata


def test_a_message_says_who_sends_it_and_what_it_asks() -> None:
    payload = message([[1]], "uint8", 1, 1, camera="till 3", id=7, model="fashion")
    read = tensor_message.unpack(payload, 1000)
    assert (read.camera, read.model, read.echo) == ("till 3", "fashion", {"id": 7, "camera": "till 3"})
    assert tensor_message.unpack(msgpack.packb({"camera": b"\xff", "id": [1]}), 1000).echo == {"camera": "�"}


@pytest.mark.parametrize(
    ("payload", "status", "reason"),
    [
        (b"", 400, "not-msgpack"),
        (b"\xc1", 400, "not-msgpack"),
        (b"{}", 400, "not-msgpack"),
        (msgpack.packb([1, 2]), 400, "not-msgpack"),
        (msgpack.packb({1: 2}), 400, "not-msgpack"),
        (message([[1]], "uint8", 1, 1) + b"\x00", 400, "not-msgpack"),
        (message([[1]], "uint8", 1, 1)[:-1], 400, "not-msgpack"),
        (b"\x91" * 5000 + b"\x01", 400, "not-msgpack"),
        (b"\xdd\x7f\xff\xff\xff" * 900, 400, "not-msgpack"),
        (bytes(10**6 + 1), 413, "too-large"),
        (msgpack.packb({"dtype": "uint8", "height": 1, "width": 1}), 422, "no-image"),
        (message(None, "uint8"), 422, "no-image"),
        (message(b"", "uint8"), 422, "no-image"),
        (message([], "uint8"), 422, "no-image"),
        (message({"nd": False}, "uint8"), 422, "no-image"),
        (message(WHOLE.tobytes(), "object"), 422, "wrong-dtype"),
        (message(WHOLE.tobytes(), "O"), 422, "wrong-dtype"),
        (message(WHOLE.tobytes(), "complex64"), 422, "wrong-dtype"),
        (message(WHOLE.tobytes(), "(1000000,1000)u1"), 422, "wrong-dtype"),
        (message(WHOLE.tobytes(), "u1,u1"), 422, "wrong-dtype"),
        (message(WHOLE.tobytes(), [["a", "u1"]]), 422, "wrong-dtype"),
        (message(WHOLE.tobytes(), None), 422, "wrong-dtype"),
        (message(packed_array(WHOLE, type=[["a", "|O"]]), "uint8"), 422, "wrong-dtype"),
        (message([[0.5]], "uint8", 1, 1), 422, "wrong-dtype"),
        (message(WHOLE.tobytes(), "uint8", 0), 422, "wrong-shape"),
        (message(WHOLE.tobytes(), "uint8", -4, -6), 422, "wrong-shape"),
        (message(WHOLE.tobytes(), "uint8", "4"), 422, "wrong-shape"),
        (message(WHOLE.tobytes(), "uint8", height=True), 422, "wrong-shape"),
        (message(WHOLE.tobytes(), "uint8", 2**40), 422, "wrong-shape"),
        (message(WHOLE.tobytes(), "uint8", channels=7), 422, "wrong-shape"),
        (message(WHOLE.tobytes(), "uint8", 4, 7), 422, "shape-mismatch"),
        (message(WHOLE.tobytes(), "uint8", 4, 6, channels=3), 422, "shape-mismatch"),
        (message(WHOLE.tobytes(), "uint8", 4, 3, channels=2), 422, "shape-mismatch"),
        (message(WHOLE.tobytes(), "float64"), 422, "shape-mismatch"),
        (message(WHOLE.T.tolist(), "uint8"), 422, "shape-mismatch"),
        (message([*WHOLE.tolist()[:3], [1]], "uint8"), 422, "shape-mismatch"),
        (message([["a"]], "uint8", 1, 1), 422, "shape-mismatch"),
        (message([[{}]], "uint8", 1, 1), 422, "shape-mismatch"),
        (message([[[[[1]]]]], "uint8", 1, 1), 422, "shape-mismatch"),
        (message(packed_array(WHOLE), "uint8", 6, 4), 422, "shape-mismatch"),
        (message([[math.nan]], "float32", 1, 1), 422, "not-finite"),
        (message(np.array([[math.inf]], np.float32).tobytes(), "float32", 1, 1), 422, "not-finite"),
        (message([[2.0]], "float32", 1, 1), 422, "pixel-range"),
        (message([[1e300]], "float64", 1, 1), 422, "pixel-range"),
        (message([[-0.5]], "float32", 1, 1), 422, "pixel-range"),
        (message([[256]], "int32", 1, 1), 422, "pixel-range"),
        (message([[-1]], "int8", 1, 1), 422, "pixel-range"),
        (message([[0.5]], "float32", 1, 1, scale="0..7"), 422, "pixel-range"),
        (message([[0.5]], "float32", 1, 1, scale=[1]), 422, "pixel-range"),
        (message(WHOLE.tobytes(), "uint8", 16384, 16384), 413, "too-large"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_for_its_reason(payload: bytes, status: int, reason: str) -> None:
    assert refusal(payload) == (status, reason)


def test_a_shape_of_a_gigabyte_allocates_nothing() -> None:
    payload = message(b"\x00" * 100, "float64", 11_585, 11_585)
    tracemalloc.start()
    with pytest.raises(BadInput):
        tensor_message.unpack(payload, 10**6).pixels(2**30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


def test_lists_made_to_fill_the_memory_are_given_up() -> None:
    many = b"\x82\xa5image\x90\xa1x\xdc\x40\x00" + (b"\xdc\x04\x00" + b"\x80" * 1024) * 16384
    tracemalloc.start()
    with pytest.raises(BadInput) as caught:
        tensor_message.unpack(many, 10**8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == "too-large"
    assert peak < 2 * tensor_message.MAX_NUMBERS * tensor_message.BYTES_PER_NUMBER
