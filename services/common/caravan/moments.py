"""When a photo was taken, by its EXIF or by its name: photos of one moment show one place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise

from caravan.image_headers import taken

MOMENT_SECONDS = 600
"""Photos of a class that follow each other within this time were likely taken in one place."""
FEWEST = 5
"""Fewest photos of a class that are reported as taken in one moment."""

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


def in_one_moment(photos: Iterable[tuple[str, float | None]]) -> list[str]:
    """Return, a sentence each, which classes were photographed in one moment alone, as far as is known.

    `photos` are classes and what `taken_at` returned.
    """
    of_class: dict[str, list[float | None]] = {}
    for name, at in photos:
        of_class.setdefault(name, []).append(at)
    warnings = []
    for name, several in sorted(of_class.items()):
        times = sorted(at for at in several if at is not None)
        is_known = len(times) == len(several) >= FEWEST
        if is_known and all(b - a <= MOMENT_SECONDS for a, b in pairwise(times)):
            minutes = int((times[-1] - times[0]) // 60) + 1
            within = f"{minutes} minutes" if minutes > 1 else "a minute"
            warnings.append(
                f"all {len(times)} photos of {name} were taken within {within}: take some elsewhere"
            )
    return warnings
