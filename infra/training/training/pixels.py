"""From encoded image to the backbone's input, in the exported graph.

It does what `caravan.images` does with each form, in TensorFlow's operations, so that whoever asks the graph
gets the pixels that training saw. TensorFlow 2.21's `decode_image` takes JPEG, PNG and WebP, and
allocates what a header promises: so the header is read first, in the graph as well, in bounded steps.
"""

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from caravan import image_headers as headers
from training.measures import SIDE

DAMAGED = "the image is damaged"
REASONS = (
    headers.NOT_AN_IMAGE,
    headers.TOO_MANY_PARTS,
    headers.TOO_MANY_PIXELS,
    headers.TOO_MANY_SCANS,
    headers.ANIMATED,
    headers.CODING,
    headers.INKS,
)
"""Reasons for refusing an image before it is decoded; a verdict is an index into them."""
_FINE = len(REASONS)

Fields = dict[str, tf.Tensor]
"""Scalars, int64:
`height`, `width`, `orientation`, `weight` as of ImageInfo; `verdict`: a place in REASONS.
A format's reader returns, in place of the orientation, `exif` and `exif_length`: where an EXIF block lies (0:
there is none) and its bytes."""

Powers = NDArray[np.int64]

_EXIF_BYTES = 2**16
_ENTRY = 12
"""Bytes of an EXIF directory's entry."""


def preprocess(encoded: tf.Tensor) -> tf.Tensor:
    """Decode, shrink, turn upright and scale one image.

    Args:
        encoded: scalar string, a JPEG, PNG or WebP; colours become RGB, an alpha channel is dropped.

    Returns:
        [224, 224, 3] float32, `(x - 127) / 128` of whole numbers x, 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: if it is no such image, is damaged, or costs more than is allowed.

    """
    header = read_header(encoded)
    height, width = (tf.minimum(header[name], 2**24) for name in ("height", "width"))
    allowed = height * width * header["weight"] <= headers.MAX_PIXELS
    verdict = tf.where(
        (header["verdict"] == _FINE) & ~allowed,
        tf.constant(REASONS.index(headers.TOO_MANY_PIXELS), tf.int64),
        header["verdict"],
    )
    is_fine = tf.debugging.Assert(verdict == _FINE, [tf.gather([*REASONS, ""], verdict)])
    with tf.control_dependencies([is_fine]):
        image = tf.case(
            [
                # The accurate one of libjpeg's transforms, which Pillow uses: all others then see what we do.
                (
                    _starts(encoded, headers.JPEG),
                    lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
                ),
                # Of a WebP with transparency, no other number of channels may be asked for than it has.
                (
                    _starts(encoded, headers.RIFF),
                    lambda: tf.io.decode_image(encoded, channels=0, expand_animations=False)[:, :, :3],
                ),
            ],
            default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
        )
    image = tf.ensure_shape(image, [None, None, 3])
    # Antialiased, so that a 12-megapixel photo and its thumbnail come out alike; whole numbers, as a twin
    # is given.
    image = tf.round(tf.image.resize(image, [SIDE, SIDE], antialias=True))
    return (_upright(image, header["orientation"]) - 127.0) / 128.0


def drawn(preprocessed: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the pixels, 0 to 255, of what `preprocess` returned."""
    return np.rint(preprocessed * 128 + 127).astype(np.uint8)


def reason(error: tf.errors.InvalidArgumentError) -> str:
    """Say in a few words why `preprocess` refused an image; TensorFlow's own message holds a stack trace."""
    return next((text for text in REASONS if text in str(error)), DAMAGED)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn a square image: EXIF's eight orientations are a transposition, then two mirrors."""

    def when(orientations: list[int], changed: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.reduce_any(orientation == orientations), changed, image)

    image = when([5, 6, 7, 8], tf.transpose(image, [1, 0, 2]), image)
    image = when([2, 3, 6, 7], tf.reverse(image, [1]), image)
    return when([3, 4, 7, 8], tf.reverse(image, [0]), image)


# --- headers ------------------------------------------------------------------------------------


def read_header(encoded: tf.Tensor) -> Fields:
    """Read what `caravan.images.inspect` reads, but for the number of bytes and pixels that are allowed."""
    webp = _starts(encoded, headers.RIFF) & _starts(encoded, b"WEBP", 8)
    readers = [
        (_starts(encoded, headers.JPEG), lambda: _jpeg(encoded)),
        (_starts(encoded, headers.PNG), lambda: _png(encoded)),
        (webp, lambda: _webp(encoded)),
    ]
    fields: Fields = tf.case(readers, default=lambda: _fields(0, 0, verdict=headers.NOT_AN_IMAGE))
    start, length = fields.pop("exif"), fields.pop("exif_length")
    exif = _chunk(encoded, start, tf.where(start > 0, length, 0))
    return fields | {"orientation": _orientation(exif)}


def _fields(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    *,
    weight: tf.Tensor | int = 1,
    exif: tf.Tensor | int = 0,
    exif_length: tf.Tensor | int = 0,
    verdict: tf.Tensor | str,
) -> Fields:
    place = REASONS.index(verdict) if isinstance(verdict, str) else verdict
    fields = {
        "height": height,
        "width": width,
        "weight": weight,
        "exif": exif,
        "exif_length": exif_length,
        "verdict": place,
    }
    return {name: tf.cast(value, tf.int64) for name, value in fields.items()}


def _first_fault(faults: list[tuple[tf.Tensor, str]]) -> tf.Tensor:
    verdict = tf.constant(_FINE, tf.int64)
    for is_so, text in reversed(faults):
        verdict = tf.where(is_so, tf.constant(REASONS.index(text), tf.int64), verdict)
    return verdict


def _jpeg(encoded: tf.Tensor) -> Fields:
    size, no = _length(encoded), tf.constant(value=False)

    def step(step: tf.Tensor, state: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        at = state["at"]
        part = _bytes(encoded, at, 10)
        marker, length = part[1], _big(part, 2, 2)
        is_fill = (part[0] == 0xFF) & (marker == 0xFF)  # noqa: PLR2004 - markers may be padded
        end = at + 2 + length
        is_bad = (part[0] != 0xFF) | (length < 2) | (end > size) | _is_one_of(marker, headers.STANDALONE)  # noqa: PLR2004
        is_frame = _is_one_of(marker, set(headers.FRAMES) - set(headers.NO_FRAMES)) & (state["frame"] == 0)
        starts_exif = tf.reduce_all(part[4:10] == list(headers.EXIF))
        is_exif = (marker == headers.APP1) & starts_exif & (state["exif"] == 0)
        is_adobe = (marker == headers.APP14) & tf.reduce_all(part[4:9] == list(b"Adobe"))
        is_segment = ~is_fill & ~is_bad
        return step + 1, {
            "at": tf.where(is_fill, at + 1, tf.where(marker == headers.SCAN, at, end)),
            "frame": tf.where(is_segment & is_frame, at, state["frame"]),
            "exif": tf.where(is_segment & is_exif, at, state["exif"]),
            "adobe": state["adobe"] | (is_segment & is_adobe),
            "bad": ~is_fill & is_bad,
            "scan": is_segment & (marker == headers.SCAN),
        }

    steps, found = tf.while_loop(
        lambda step, state: (step < headers.MAX_PARTS) & ~state["bad"] & ~state["scan"],
        step,
        (
            tf.constant(0),
            {
                "at": tf.constant(2, tf.int64),
                "frame": tf.constant(0, tf.int64),
                "exif": tf.constant(0, tf.int64),
                "adobe": no,
                "bad": no,
                "scan": no,
            },
        ),
        parallel_iterations=1,
    )
    frame = _bytes(encoded, found["frame"] + 1, 9)
    components = frame[8]
    in_scan = _bytes(encoded, found["at"] + 4, 1)[0]
    several = (frame[0] == headers.PROGRESSIVE) | (in_scan < components)
    height, width = _big(frame, 4, 2), _big(frame, 6, 2)
    faults = [
        (~found["bad"] & ~found["scan"] & (steps == headers.MAX_PARTS), headers.TOO_MANY_PARTS),
        (~found["scan"] | (found["frame"] == 0), headers.NOT_AN_IMAGE),
        (
            ~_is_one_of(frame[0], headers.TAKEN_FRAMES)
            | (frame[3] != 8)  # noqa: PLR2004 - bits
            | ~_is_one_of(components, (1, 3, 4)),
            headers.CODING,
        ),
        ((components == 4) & ~found["adobe"], headers.INKS),  # noqa: PLR2004 - four inks
        (several & (_scans(encoded, several) > headers.MAX_SCANS), headers.TOO_MANY_SCANS),
        (height * width == 0, headers.NOT_AN_IMAGE),
    ]
    exif = found["exif"]
    return _fields(
        height,
        width,
        weight=tf.where(several, headers.WHOLE, 1),
        exif=tf.where(exif > 0, exif + 4, 0),
        exif_length=_big(_bytes(encoded, exif + 2, 2), 0, 2) - 2,
        verdict=_first_fault(faults),
    )


def _scans(encoded: tf.Tensor, several: tf.Tensor) -> tf.Tensor:
    """Count what may be the beginning of a scan, of a JPEG that has several; else 0."""

    def count() -> tf.Tensor:
        raw = tf.io.decode_raw(encoded, tf.uint8)
        return tf.math.count_nonzero((raw[:-1] == 0xFF) & (raw[1:] == headers.SCAN))  # noqa: PLR2004

    return tf.cond(several, count, lambda: tf.constant(0, tf.int64))


def _png(encoded: tf.Tensor) -> Fields:
    ihdr = _bytes(encoded, tf.constant(8, tf.int64), 16)
    width, height = _big(ihdr, 8, 4), _big(ihdr, 12, 4)
    is_ihdr = (_big(ihdr, 0, 4) == 13) & tf.reduce_all(ihdr[4:8] == list(b"IHDR"))  # noqa: PLR2004 - its length
    verdict, exif, length = _chunks(encoded, 33, b"eXIf", b"IDAT", _big, padding=4)
    verdict = tf.where(is_ihdr & (height > 0) & (width > 0), verdict, REASONS.index(headers.NOT_AN_IMAGE))
    return _fields(height, width, weight=headers.WHOLE, exif=exif, exif_length=length, verdict=verdict)


def _webp(encoded: tf.Tensor) -> Fields:
    start = _bytes(encoded, tf.constant(12, tf.int64), 18)

    def is_cut(header: int) -> tuple[tf.Tensor, str]:
        return _length(encoded) < header, headers.NOT_AN_IMAGE

    def simple(height: tf.Tensor, width: tf.Tensor, header: int) -> Fields:
        verdict = _first_fault([is_cut(header), (height * width == 0, headers.NOT_AN_IMAGE)])
        return _fields(height, width, weight=headers.WEBP, verdict=verdict)

    def extended() -> Fields:
        verdict, exif, length = _chunks(encoded, 12, b"EXIF", None, _little, padding=0)
        first = _first_fault([is_cut(30), ((start[8] & headers.ANIMATION_FLAG) != 0, headers.ANIMATED)])
        verdict = tf.where(first == _FINE, verdict, first)
        size = _little(start, 15, 3) + 1, _little(start, 12, 3) + 1
        return _fields(*size, weight=headers.WEBP, exif=exif, exif_length=length, verdict=verdict)

    # Three layouts: lossy (14 bits each), lossless (14, less one), extended (24, less one).
    layouts = [
        (
            _starts(encoded, b"VP8 ", 12),
            lambda: simple(_little(start, 16, 2) % 2**14, _little(start, 14, 2) % 2**14, header=30),
        ),
        (
            _starts(encoded, b"VP8L", 12),
            lambda: simple(
                _little(start, 10, 3) // 2**6 % 2**14 + 1,
                _little(start, 9, 2) % 2**14 + 1,
                header=25,
            ),
        ),
        (_starts(encoded, b"VP8X", 12), extended),
    ]
    fields: Fields = tf.case(layouts, default=lambda: _fields(0, 0, verdict=headers.NOT_AN_IMAGE))
    return fields


def _chunks(
    encoded: tf.Tensor,
    start: int,
    exif: bytes,
    last: bytes | None,
    number: Callable[[tf.Tensor, int, int], tf.Tensor],
    *,
    padding: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Walk over chunks up to `last`, or to the end; return the verdict, and EXIF's place and bytes.

    A PNG has each chunk's length before its name, in big-endian, and four bytes behind it; a WebP has it
    after the name, in little-endian, and fills odd lengths.
    """
    size = _length(encoded)
    is_png = last is not None

    def is_named(part: tf.Tensor, name: bytes) -> tf.Tensor:
        return tf.reduce_all((part[4:8] if is_png else part[:4]) == list(name))

    def step(step: tf.Tensor, at: tf.Tensor, found: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        part = _bytes(encoded, at, 8)
        length = number(part, 0 if is_png else 4, 4)
        found = tf.where((found == 0) & is_named(part, exif), at, found)
        ended = (at + 8 > size) | (is_named(part, last) if last else False)
        after = at + 8 + length + (padding if is_png else length % 2)
        return step + 1, tf.where(ended, at, after), found, ended

    zero = tf.constant(0, tf.int64)
    _, at, found, ended = tf.while_loop(
        lambda step, _, __, ended: (step < headers.MAX_PARTS) & ~ended,
        step,
        (tf.constant(0), tf.constant(start, tf.int64), zero, tf.constant(value=False)),
        parallel_iterations=1,
    )
    faults = [(~ended, headers.TOO_MANY_PARTS)]
    if last is not None:
        faults.append((at + 8 > size, headers.NOT_AN_IMAGE))
    length = number(_bytes(encoded, found, 8), 0 if is_png else 4, 4)
    return _first_fault(faults), tf.where(found > 0, found + 8, 0), length


def _orientation(exif: tf.Tensor) -> tf.Tensor:
    """Return the orientation, 1 to 8, of an EXIF block (with or without its prefix); else 1."""
    has_prefix = _starts(exif, headers.EXIF)
    tiff = tf.strings.substr(exif, tf.where(has_prefix, len(headers.EXIF), 0), _EXIF_BYTES)
    is_little, is_big = _starts(tiff, b"II*\0"), _starts(tiff, b"MM\0*")

    def number(raw: tf.Tensor, at: int, count: int) -> tf.Tensor:
        big = _powers(count)
        return _number(raw, at, tf.where(is_little, big[::-1], big))

    directory = number(_bytes(tiff, tf.constant(4, tf.int64), 4), 0, 4)
    tags = number(_bytes(tiff, directory, 2), 0, 2)
    entries = tf.reshape(_bytes(tiff, directory + 2, headers.MAX_TAGS * _ENTRY), [headers.MAX_TAGS, _ENTRY])
    is_it = (
        (number(entries, 0, 2) == headers.ORIENTATION)
        & (number(entries, 2, 2) == headers.SHORT)
        & (number(entries, 4, 4) == 1)
        & (tf.range(headers.MAX_TAGS, dtype=tf.int64) < tags)
    )
    value = number(entries, 8, 2)[tf.argmax(tf.cast(is_it, tf.int64))]
    is_one = (is_little | is_big) & tf.reduce_any(is_it) & (value >= 1) & (value <= 8)  # noqa: PLR2004
    return tf.where(is_one, value, 1)


# --- bytes --------------------------------------------------------------------------------------


def _length(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(encoded), tf.int64)


def _chunk(encoded: tf.Tensor, at: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return a part of a string; the end of it if it is shorter."""
    start = tf.clip_by_value(at, 0, _length(encoded))
    return tf.strings.substr(encoded, start, tf.clip_by_value(length, 0, _EXIF_BYTES))


def _bytes(encoded: tf.Tensor, at: tf.Tensor, count: int) -> tf.Tensor:
    """Return `count` bytes, [count] int64; zeros beyond the end."""
    part = _chunk(encoded, at, tf.constant(count, tf.int64))
    return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=count), tf.int64)


def _starts(encoded: tf.Tensor, magic: bytes, at: int = 0) -> tf.Tensor:
    return tf.reduce_all(_bytes(encoded, tf.constant(at, tf.int64), len(magic)) == list(magic))


def _is_one_of(value: tf.Tensor, those: Iterable[int]) -> tf.Tensor:
    return tf.reduce_any(value == sorted(those))


def _big(raw: tf.Tensor, at: int, count: int) -> tf.Tensor:
    return _number(raw, at, _powers(count))


def _little(raw: tf.Tensor, at: int, count: int) -> tf.Tensor:
    return _number(raw, at, _powers(count)[::-1])


def _number(raw: tf.Tensor, at: int, powers: tf.Tensor | Powers) -> tf.Tensor:
    """Return the number that bytes of `raw`, [B] or [N, B], make from place `at` on; a scalar, or [N]."""
    return tf.reduce_sum(raw[..., at : at + powers.shape[0]] * powers, -1)


def _powers(count: int) -> Powers:
    """Return what each byte of a number in big-endian counts."""
    return 256 ** np.arange(count - 1, -1, -1, dtype=np.int64)
