"""Each form of an image gives the same pixels, or the same refusal, at every door and in the graph."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from caravan import image_headers as headers
from caravan import images
from caravan.decoding import Decoding
from caravan.errors import BadInput
from caravan.testing.kafka import record
from feeder import labels
from shopper.images.budget import MemoryBudget
from shopper.images.limits import ImageLimits
from support.image_forms import HEIGHT, WIDTH, colours, encode, forms
from training import pixels
from training.measures import SIDE
from training.thumbnails import data_url

in_one_loop = pytest.mark.asyncio(loop_scope="module")
"""So that the processes that decode are started once."""

FORMS = forms()
TAKEN = [name for name, form in FORMS.items() if form.pixels is not None]
REFUSED = [name for name, form in FORMS.items() if form.refused]
CLOSE = 6
"""How far a value may be from the true one, of 255, after one or two JPEGs."""

Graph = Callable[[bytes], np.ndarray]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """`preprocess`, saved and loaded as a model server would; returns RGB of 0..255."""
    module = tf.Module()
    module.run = tf.function(
        pixels.preprocess, autograph=False, input_signature=[tf.TensorSpec([], tf.string)]
    )
    path = tmp_path_factory.mktemp("pixels")
    tf.saved_model.save(module, str(path))
    loaded = tf.saved_model.load(str(path))
    return lambda encoded: np.asarray(loaded.run(tf.constant(encoded))) * 128 + 127


@pytest.fixture
def limits() -> ImageLimits:
    return ImageLimits(Decoding(2), MemoryBudget(10**9))


def decoded(jpeg: bytes) -> np.ndarray:
    """Read the pixels as they lie: a viewer that knows no EXIF."""
    image = Image.open(io.BytesIO(jpeg))
    assert image.format in {"JPEG", "MPO"}
    return np.asarray(image.convert("RGB"))


def assert_alike(found: np.ndarray, true: np.ndarray) -> None:
    assert found.shape == true.shape
    assert np.abs(found.astype(float) - true).mean() < CLOSE


@in_one_loop
@pytest.mark.parametrize("name", TAKEN)
async def test_a_form_has_the_same_pixels_everywhere(name: str, graph: Graph, limits: ImageLimits) -> None:
    form = FORMS[name]
    assert form.pixels is not None
    assert (await Decoding(1).verify(form.encoded)).media_type == f"image/{form.format.lower()}"

    assert_alike(decoded(await limits.as_jpeg(form.encoded)), form.pixels)
    assert_alike(decoded(images.thumbnail(form.encoded, WIDTH, 95)), form.pixels)
    assert_alike((await limits.resized(form.encoded, HEIGHT, WIDTH, 3)).values, form.pixels)
    expected = tf.image.resize(form.pixels, [SIDE, SIDE], antialias=True).numpy()
    assert_alike(graph(form.encoded), expected)


@pytest.mark.parametrize("name", TAKEN)
def test_whoever_asks_with_pixels_sees_what_the_graph_sees(name: str, graph: Graph) -> None:
    encoded = FORMS[name].encoded
    ours = np.frombuffer(images.resized(encoded, "RGB", SIDE, SIDE), np.uint8).reshape(SIDE, SIDE, 3)
    assert np.abs(graph(encoded) - ours).max() <= 2, "two roundings"


@in_one_loop
@pytest.mark.parametrize("name", REFUSED)
async def test_a_form_that_is_not_taken_is_refused_everywhere_with_the_same_reason(
    name: str, graph: Graph, limits: ImageLimits, tmp_path: Path
) -> None:
    form = FORMS[name]
    for door in (Decoding(1).verify, limits.as_jpeg, limits.verify, limits.thumbnail):
        with pytest.raises(BadInput) as refused:
            await door(form.encoded)
        assert refused.value.detail == form.refused
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        graph(form.encoded)
    assert pixels.reason(raised.value) == form.refused
    (tmp_path / "image").write_bytes(form.encoded)
    assert data_url(tmp_path / "image", 32) == ""


@in_one_loop
@pytest.mark.parametrize("name", ["a JPEG of several pictures", "a WebP", "a PNG"])
async def test_an_image_from_kafka_is_named_by_what_it_is(name: str) -> None:
    form = FORMS[name]
    message = record(form.encoded, key=b"tea/a", topic="training-images")
    _, image = await labels.read(message, ["edge1"], Decoding(1).verify)
    assert image.media_type == f"image/{form.format.lower()}"
    assert image.key == f"images/tea/a.{ {'JPEG': 'jpg'}.get(form.format, form.format.lower()) }"


def without_palette() -> bytes:
    """Return a grey PNG whose header says that its numbers choose from a palette."""
    grey = encode(colours()[:, :, 0], "PNG")
    header = grey[12:25] + b"\x03" + grey[26:29]
    return grey[:12] + header + struct.pack(">I", zlib.crc32(header)) + grey[33:]


@in_one_loop
@pytest.mark.parametrize(
    "cut",
    [
        without_palette(),
        encode(colours(), "PNG")[:-12],
        encode(colours(), "PNG").replace(b"IEND", b"IENE"),
        encode(colours(), "JPEG")[:-2],
        encode(colours(), "WEBP")[:-9],
    ],
    ids=[
        "a PNG without its palette",
        "a PNG without its end",
        "a wrong checksum",
        "a JPEG without its end",
        "a WebP cut off",
    ],
)
async def test_what_training_could_not_read_is_damaged_at_the_door(cut: bytes, graph: Graph) -> None:
    with pytest.raises(BadInput, match="damaged"):
        await Decoding(1).verify(cut)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        graph(cut)
    assert pixels.reason(raised.value) == pixels.DAMAGED


def with_scans(count: int) -> bytes:
    """Say of a progressive JPEG that it has more scans: what follows its end is counted as well."""
    jpeg = encode(colours(), "JPEG", progressive=True)
    return jpeg + b"\xff\xda" * (count - jpeg.count(b"\xff\xda"))


@in_one_loop
async def test_scans_are_counted_before_they_are_decoded(graph: Graph) -> None:
    await Decoding(1).verify(with_scans(headers.MAX_SCANS))
    graph(with_scans(headers.MAX_SCANS))
    with pytest.raises(BadInput, match="scans"):
        images.inspect(with_scans(headers.MAX_SCANS + 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="scans"):
        graph(with_scans(headers.MAX_SCANS + 1))


def read(encoded: bytes) -> dict[str, int]:
    """Read a header as the graph does: the reason of a refusal by its place."""
    try:
        info = images.inspect(encoded)
    except BadInput as refused:
        return {
            "height": 0,
            "width": 0,
            "weight": 1,
            "orientation": 1,
            "verdict": pixels.REASONS.index(refused.detail),
        }
    return {
        "height": info.height,
        "width": info.width,
        "weight": info.weight,
        "orientation": info.orientation,
        "verdict": len(pixels.REASONS),
    }


def test_a_header_that_is_cut_anywhere_is_read_alike() -> None:
    header = tf.function(pixels.read_header, autograph=False).get_concrete_function(
        tf.TensorSpec([], tf.string)
    )
    for form in (
        FORMS["a JPEG of orientation 6"],
        FORMS["a PNG of orientation 6"],
        FORMS["a WEBP of orientation 6"],
    ):
        for length in range(1, min(len(form.encoded), 400), 7):
            cut = form.encoded[:length]
            found = {name: int(value) for name, value in header(tf.constant(cut)).items()}
            expected = read(cut)
            assert found["verdict"] == expected["verdict"]
            assert found == expected or expected["height"] == 0
