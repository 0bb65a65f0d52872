"""shopper: what a model's signature asks for, and the tensors that are made for it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from caravan import images
from caravan.errors import BadInput
from shopper.model.arrays import number_tensor, prepare
from shopper.model.inputs import Scale, StringInput, TensorInput, form_of
from shopper.model.stubs import DT_DOUBLE, DT_FLOAT, DT_INT64, DT_STRING, DT_UINT8, SignatureDef
from shopper.model.tensors import numbers, shape
from shopper.ports import Pixels
from support.files import as_file

GREY = TensorInput("float32", 28, 28, 1, (1, 28, 28, 1))
RGB = TensorInput("float32", 4, 6, 3, (1, 4, 6, 3))
FIRST = TensorInput("float32", 32, 32, 3, (1, 3, 32, 32), channels_first=True)
RAMP = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28, 1).astype(np.uint8)


def info(dtype: int, *dims: int) -> Any:
    tensor = SignatureDef().inputs["x"]
    tensor.dtype = dtype
    for size in dims:
        tensor.tensor_shape.dim.add().size = size
    return tensor


def pixels_of(photo: bytes, form: TensorInput) -> Pixels:
    mode = "L" if form.channels == 1 else "RGB"
    raw = images.resized(photo, mode, form.width, form.height)
    return Pixels(np.frombuffer(raw, np.uint8).reshape(form.height, form.width, form.channels))


def encoded(values: Any, image_format: str = "PNG") -> bytes:
    return as_file(Image.fromarray(values), image_format)


@pytest.mark.parametrize(
    ("tensor", "form"),
    [
        (info(DT_STRING, -1), StringInput()),
        (info(DT_STRING), StringInput(scalar=True)),
        (info(DT_FLOAT, -1, 28, 28, 1), GREY),
        (info(DT_FLOAT, 1, 28, 28, 1), GREY),
        (info(DT_DOUBLE, -1, 28, 28), TensorInput("float64", 28, 28, 1, (1, 28, 28))),
        (info(DT_FLOAT, -1, 784), TensorInput("float32", 28, 28, 1, (1, 784))),
        (info(DT_FLOAT, -1, 3072), TensorInput("float32", 32, 32, 3, (1, 3072))),
        (info(DT_UINT8, -1, 224, 200, 3), TensorInput("uint8", 224, 200, 3, (1, 224, 200, 3))),
        (
            info(DT_FLOAT, -1, 3, 32, 32),
            TensorInput("float32", 32, 32, 3, (1, 3, 32, 32), channels_first=True),
        ),
        (
            info(DT_FLOAT, -1, 1, 28, 28),
            TensorInput("float32", 28, 28, 1, (1, 1, 28, 28), channels_first=True),
        ),
        (info(DT_INT64, -1, 8, 8, 1), TensorInput("int64", 8, 8, 1, (1, 8, 8, 1))),
        (info(DT_FLOAT, -1, 10, 12, -1), TensorInput("float32", 10, 12, 3, (1, 10, 12, 3))),
    ],
)
def test_a_signature_says_what_the_model_wants(tensor: Any, form: Any) -> None:
    assert form_of(tensor) == form


@pytest.mark.parametrize(
    ("tensor", "size", "shape"),
    [
        (info(DT_FLOAT, -1, -1, -1, 3), (96, 128), (1, 96, 128, 3)),
        (info(DT_FLOAT, -1, 3, -1, -1), (96, 128), (1, 3, 96, 128)),
        (info(DT_FLOAT, -1, 128), (8, 16), (1, 128)),
        (info(DT_FLOAT, -1, 28, 28, 1), (96, 128), (1, 28, 28, 1)),
    ],
)
def test_a_size_is_used_where_the_signature_leaves_it_open(
    tensor: Any, size: tuple[int, int], shape: tuple[int, ...]
) -> None:
    form = form_of(tensor, size)
    assert isinstance(form, TensorInput)
    assert form.shape == shape


@pytest.mark.parametrize(
    "tensor",
    [
        info(DT_FLOAT),
        info(DT_FLOAT, -1),
        info(DT_FLOAT, -1, 785),
        info(DT_FLOAT, -1, 28, 28, 5),
        info(DT_FLOAT, 32, 28, 28, 1),
        info(DT_FLOAT, -1, -1, -1, 3),
        info(DT_FLOAT, -1, 3, 28, 28, 1),
    ],
)
def test_what_is_not_one_image_is_no_form(tensor: Any) -> None:
    assert form_of(tensor) is None


@pytest.mark.parametrize("dims", [(4,), (1,), (12,), (5, 3), (100, 2)])
def test_a_row_of_few_numbers_is_no_image_unless_its_size_is_said(dims: tuple[int, ...]) -> None:
    assert form_of(info(DT_FLOAT, -1, *dims)) is None
    assert form_of(info(DT_FLOAT, -1, 4), (2, 2)) is not None


def test_pixels_of_the_right_size_arrive_as_they_were() -> None:
    tensor = prepare(Pixels(RAMP), GREY, "0..1")
    assert (tensor.dtype.name, tensor.shape) == ("float32", (1, 28, 28, 1))
    np.testing.assert_array_equal(tensor[0], RAMP.astype(np.float32) / 255)


@pytest.mark.parametrize(("scale", "black", "white"), [("0..1", 0, 1), ("-1..1", -1, 1), ("0..255", 0, 255)])
@pytest.mark.parametrize("whole", [True, False])
def test_black_and_white_are_what_the_setting_says(
    scale: Scale, black: float, white: float, whole: bool
) -> None:
    values = np.zeros((28, 28, 1), np.uint8 if whole else np.float32)
    values[0, 0] = 255 if whole else 1
    tensor = prepare(Pixels(values), GREY, scale)
    assert (tensor[0, 1, 0, 0], tensor[0, 0, 0, 0]) == (black, white)


@pytest.mark.parametrize("scale", ["0..1", "-1..1", "0..255"])
def test_a_tensor_of_integers_has_0_to_255_whatever_the_scale(scale: Scale) -> None:
    form = TensorInput("uint8", 2, 2, 1, (1, 2, 2))
    values = np.array([0, 0.2, 0.5, 1], np.float32).reshape(2, 2, 1)
    assert prepare(Pixels(values), form, scale).tolist() == [[[0, 51], [128, 255]]]


def test_a_photo_becomes_grey_and_small() -> None:
    photo = encoded(np.full((300, 400, 3), (255, 0, 0), np.uint8), "JPEG")
    tensor = prepare(pixels_of(photo, GREY), GREY, "0..255")
    assert tensor.shape == (1, 28, 28, 1)
    assert tensor.mean() == pytest.approx(255 * 0.299, abs=2)


def test_a_photo_keeps_its_colours_and_sides() -> None:
    values = np.zeros((40, 60, 3), np.uint8)
    values[:20, :, 0] = 255  # red above
    values[20:, 30:, 2] = 255  # blue below on the right
    tensor = prepare(pixels_of(encoded(values), RGB), RGB, "0..1")
    assert tensor.shape == (1, 4, 6, 3)
    assert tensor[0, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.1)
    assert tensor[0, 3, 0].tolist() == pytest.approx([0, 0, 0], abs=0.1)
    assert tensor[0, 3, 5].tolist() == pytest.approx([0, 0, 1], abs=0.1)


def test_a_model_with_the_channels_first_gets_them_first() -> None:
    values = np.zeros((4, 6, 3), np.float32)
    values[:, :, 1] = 1
    tensor = prepare(
        Pixels(values), TensorInput("float32", 4, 6, 3, (1, 3, 4, 6), channels_first=True), "0..1"
    )
    assert tensor[0].mean(axis=(1, 2)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_are_made_grey_coloured_and_resized(dtype: Any) -> None:
    white = 255 if dtype is np.uint8 else 1
    red = np.zeros((8, 8, 3), dtype)
    red[:, :, 0] = white
    assert prepare(Pixels(red), GREY, "0..1").mean() == pytest.approx(0.299, abs=0.01)
    grey = np.full((8, 8, 1), white // 1, dtype)
    tensor = prepare(Pixels(grey), RGB, "0..1")
    assert tensor.shape == (1, 4, 6, 3)
    assert tensor.min() == pytest.approx(1)


def test_a_damaged_photo_is_an_error() -> None:
    photo = encoded(np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8), "JPEG")
    with pytest.raises(BadInput, match="damaged"):
        pixels_of(photo[: len(photo) // 2], GREY)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_tensor_goes_over_the_wire_as_it_was(dtype: str) -> None:
    values = np.linspace(0, 1, 12).astype(dtype).reshape(1, 2, 2, 3)
    tensor = number_tensor(values)
    assert numbers(tensor) == values.reshape(-1).tolist()
    assert shape(tensor) == list(values.shape)
