"""Names that come from outside: what each may be, the same at every door.

Names are compared composed (NFC): some systems write `ü` as two characters, others as one. All blanks are
one, as macOS has a narrow one in the names of screenshots. A class is what a model answers and what the
catalogue calls an item; the folder of its images has its name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

OTHER = "other"
"""The class of unknown things, in whatever letter case a sender or a model has it."""
CLASS_CHARACTERS = 200
FOLDER_CHARACTERS = 100
FILE_BYTES = 240
"""Most bytes of a folder's or file's name in UTF-8: file systems take 255, and suffixes are added."""
CAMERA_CHARACTERS = 100
METADATA_BYTES = 1900
"""Most bytes of an object's metadata, names and values: S3 takes 2,048, and a trace's header is added."""

CLASS_RULE = f"a class is 1 to {CLASS_CHARACTERS} printable characters, without blanks around them"
FOLDER_RULE = (
    f"a class with images is 1 to {FOLDER_CHARACTERS} printable characters (at most {FILE_BYTES} bytes), "
    "without slashes, blanks around them, or a dot before them"
)

MORE = " more"
"""The name under which classes or cameras beyond a bound are counted; no real name begins with a blank."""
LONGEST_REASON = 2000
"""Most characters of a refusal's reason where it is kept; an event may have fewer."""

JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Not printable to Python, but in words of Persian, Hindi and Malayalam, and in emoji."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes of images that can be learnt from, in any letter case."""

_SAFE = re.compile(r"[A-Za-z0-9_.~ ,:;/()+'-]*")
_NO_JOINERS = dict.fromkeys(map(ord, JOINERS))
_BLANKS = dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
"""Unicode's other blanks (Zs)."""
_NO_PATH = re.compile(r"[\x00-\x1f\x7f]|(?:\A|/)\.{0,2}(?:/|\Z)")


def normal(text: str) -> str:
    """Return a name as it is compared and kept: composed, without blanks around it, those within plain."""
    return unicodedata.normalize("NFC", text).translate(_BLANKS).strip()


def as_class(text: str) -> str:
    """Return the name of a class as it is compared and kept."""
    name = normal(text)
    return OTHER if name.casefold() == OTHER else name


def is_printable(text: str) -> bool:
    """Tell whether a text can be shown; what joins letters or parts them counts as a part of them."""
    return text.isprintable() or text.translate(_NO_JOINERS).isprintable()


def is_class(text: str) -> bool:
    """Tell whether a text can be the name of a class."""
    is_some = 0 < len(text) <= CLASS_CHARACTERS and text.translate(_NO_JOINERS) != ""
    return is_some and is_printable(text) and text == normal(text)


def is_folder(text: str) -> bool:
    """Tell whether images of a class with this name can lie in a folder of its name."""
    return len(text) <= FOLDER_CHARACTERS and _is_folder(text)


@lru_cache(1024)
def _is_folder(text: str) -> bool:
    return is_class(text) and is_file_name(text)


def is_file_name(text: str) -> bool:
    """Tell whether a text can be the last part of an image's key."""
    return (
        0 < len(text.encode(errors="replace")) <= FILE_BYTES
        and is_printable(text)
        and not text.startswith(".")
        and not set(text) & set("/\\")
    )


def is_addressable(key: str) -> bool:
    """Tell whether obstore has a path for a key: no segment empty, `.` or `..`, no control characters."""
    return _NO_PATH.search(key) is None


def folder_of(item: str) -> str:
    """Return the folder for images of a class: its name, with `_` in place of what a folder cannot have."""
    if is_folder(item):
        return item
    plain = "".join(
        letter if is_printable(letter) and letter not in "/\\" else "_" for letter in normal(item)
    )
    fitting = plain[:FOLDER_CHARACTERS].encode(errors="replace")[:FILE_BYTES].decode(errors="ignore")
    return fitting.lstrip(". ").rstrip() or "_"


def is_image_name(file: str) -> bool:
    """Tell whether a file is an image by its name."""
    return file.lower().endswith(SUFFIXES)


def class_name(text: str) -> str:
    """Return what a model calls a class, as it is shown and kept: a model made elsewhere may say anything."""
    return as_class(_printable(text, CLASS_CHARACTERS))


def cut(text: str, most: int = LONGEST_REASON) -> str:
    """Return text of at most `most` characters; where some are left out, it ends with `…`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def camera_name(text: str) -> str:
    """Return the name of a camera or client as it is shown and counted; empty where it has none."""
    return _printable(text, CAMERA_CHARACTERS)


def _printable(text: str, most: int) -> str:
    return _shown(text[:most])


@lru_cache(1024)
def _shown(text: str) -> str:
    name = normal(text)
    if is_printable(name):
        return name
    return "".join(letter if is_printable(letter) else "\N{REPLACEMENT CHARACTER}" for letter in name)


def header_safe(text: str) -> str:
    """Return text that may stand in an HTTP header: ASCII, percent-encoded UTF-8 where it must be."""
    return text if _SAFE.fullmatch(text) else quote(text, safe=" ,:;/()+'", errors="replace")


def metadata(facts: Mapping[str, str]) -> dict[str, str]:
    """Return what is kept beside an object: header-safe, without what is empty, of `METADATA_BYTES` at most.

    Where it is too much, the longest values are cut, at whole characters.
    """
    kept = {name: value for name, value in facts.items() if value}
    safe = {name: header_safe(value) for name, value in kept.items()}
    while sum(len(name) + len(value) for name, value in safe.items()) > METADATA_BYTES:
        longest = max(safe, key=lambda name: len(safe[name]))
        kept[longest] = kept[longest][: min(len(kept[longest]), len(safe[longest])) * 3 // 4]
        safe[longest] = header_safe(kept[longest])
    return safe


def is_sha256(text: str) -> bool:
    """Tell whether a text is a SHA-256 in hex, in lower case."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
