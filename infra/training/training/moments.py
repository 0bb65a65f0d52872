"""When a photo was taken, by its EXIF or by its name: photos of one moment show one place."""

import re
from datetime import UTC, datetime

from caravan.image_headers import taken

_IN_NAME = re.compile(r"(?<!\d)(20\d\d)-?(\d\d)-?(\d\d)[-_T ](\d\d)-?(\d\d)-?(\d\d)")
"""As phones (`PXL_20230803_124435158.jpg`) and the shopper (`2024-01-24_09-53-44-111.jpg`) name photos."""


def taken_at(name: str, encoded: bytes) -> float | None:
    """Return when a photo was taken, in seconds of a camera's own clock; None where nobody knows."""
    exif = re.findall(r"\d+", taken(encoded))
    named = _IN_NAME.search(name)
    for parts in (exif, named.groups() if named else ()):
        try:
            year, month, day, hour, minute, second = map(int, parts)
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None
