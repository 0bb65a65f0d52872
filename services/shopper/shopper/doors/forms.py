"""Images in forms, as `curl -F image=@photo.jpg` and web pages send them (RFC 7578)."""

from __future__ import annotations

import base64
import binascii
import codecs
import quopri
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from caravan.errors import BadInput

MAX_PARTS = 16
MAX_NAME = 40
"""Most characters shown of a field's name."""
IMAGE = "image"
FILE_TYPES = (b"image/", b"application/octet-stream")
CHARSETS = ("utf-8", "iso-8859-1", "iso-8859-15", "us-ascii", "windows-1252")
"""Charsets that a text may name; one that names none is UTF-8."""
_CODECS = {codecs.lookup(charset).name for charset in CHARSETS}
TRANSFER_ENCODINGS: Mapping[bytes, Callable[[bytes], bytes]] = {
    **dict.fromkeys((b"", b"7bit", b"8bit", b"binary"), bytes),
    b"base64": base64.b64decode,
    b"quoted-printable": quopri.decodestring,
}
"""What `Content-Transfer-Encoding` may say of a part, as old clients, and curl with `;encoder=`, have it."""
_TRUE = frozenset({"true", "1", "on", "yes"})


def is_form(content_type: str) -> bool:
    """Tell whether a body is a form with files in it."""
    return content_type.lower().startswith("multipart/")


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""
    value: bytearray = field(default_factory=bytearray)

    def disposition(self) -> dict[bytes, bytes]:
        return parse_options_header(self.headers.get(b"content-disposition", b""))[1]

    def is_file(self) -> bool:
        """Tell whether it is a file: by its name, or by a type that no text has."""
        return b"filename" in self.disposition() or self._header(b"content-type").startswith(FILE_TYPES)

    def is_unfilled(self) -> bool:
        """Tell whether it is a page's field for a file that nobody chose."""
        return not self.value and not self.disposition().get(b"filename")

    def content(self) -> bytes:
        """Return its bytes as they were before they were encoded for the way.

        Raises:
            BadInput: 415 for an encoding that is not taken, 400 if they are not that.

        """
        encoding = self._header(b"content-transfer-encoding")
        decode = TRANSFER_ENCODINGS.get(encoding)
        if decode is None:
            message = "a part of the form has a Content-Transfer-Encoding that is not taken: send it as it is"
            raise BadInput(message, 415, reason="wrong-encoding")
        try:
            return decode(bytes(self.value))
        except binascii.Error as exc:
            raise BadInput(f"a part of the form is not {encoding.decode()}", reason="wrong-encoding") from exc

    def text(self, name: str) -> str:
        """Return its text, which is field `name`.

        Raises:
            BadInput: as `content`, and 415 if it is in no charset that is taken.

        """
        said = parse_options_header(self._header(b"content-type"))[1].get(b"charset", b"utf-8")
        charset = said.decode(errors="replace")
        try:
            # One charset has several names: utf8, latin1.
            if codecs.lookup(charset).name in _CODECS:
                return self.content().decode(charset)
        except (LookupError, ValueError):
            pass
        message = f"the field {name[:MAX_NAME]!r} is not in UTF-8, nor names another charset that is taken"
        raise BadInput(f"{message}: {', '.join(CHARSETS[1:])}", 415, reason="wrong-charset")

    def _header(self, name: bytes) -> bytes:
        return self.headers.get(name, b"").strip().lower()


@dataclass(frozen=True, slots=True)
class Form:
    """A form with one image in it.

    Attributes:
        image: the bytes of its one file.
        fields: its texts by name.

    """

    image: bytes
    fields: dict[str, str]

    def text(self, name: str) -> str:
        """Return a field, or nothing."""
        return self.fields.get(name, "").strip()

    def flag(self, name: str) -> bool:
        """Tell whether a field says yes."""
        return self.text(name).lower() in _TRUE


def read(raw: bytes, content_type: str) -> Form:
    """Read a form.

    Raises:
        BadInput: 400 if it is none, 415 if a part comes in a way that is not taken, 422 without one file.

    """
    parts = _parts(raw, content_type)
    images: list[bytes] = []
    fields: dict[str, str] = {}
    for part in parts:
        if not part.is_file():
            name = part.disposition().get(b"name", b"").decode(errors="replace")
            fields[name] = part.text(name)
        elif not part.is_unfilled():
            images.append(part.content())
    if len(images) != 1:
        message = f"the form has {len(images)} files: one is taken, as by curl -F {IMAGE}=@photo.jpg"
        raise BadInput(message, 422, reason="no-image")
    return Form(images[0], fields)


def _parts(raw: bytes, content_type: str) -> list[_Part]:
    parts: list[_Part] = []
    ended = False

    def begin() -> None:
        if len(parts) == MAX_PARTS:
            raise BadInput(f"the form has more than {MAX_PARTS} parts", 413, reason="too-large")
        parts.append(_Part())

    def name(data: bytes, start: int, end: int) -> None:
        parts[-1].name += data[start:end].lower()

    def value(data: bytes, start: int, end: int) -> None:
        part = parts[-1]
        part.headers[part.name] = part.headers.get(part.name, b"") + data[start:end]

    def header_end() -> None:
        parts[-1].name = b""

    def content(data: bytes, start: int, end: int) -> None:
        parts[-1].value += data[start:end]

    def end() -> None:
        nonlocal ended
        ended = True

    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": name,
                "on_header_value": value,
                "on_header_end": header_end,
                "on_part_data": content,
                "on_end": end,
            },
        )
        parser.write(raw)
    except FormParserError as exc:
        raise BadInput("the body is not the form that its Content-Type says", reason="not-a-form") from exc
    if not ended:
        raise BadInput("the form ends before its last boundary", reason="not-a-form")
    return parts
