"""Times as objects and messages have them: ISO 8601, in UTC, with its offset."""

from datetime import UTC, datetime
from typing import Literal


def now(unit: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """Return the time that it is, cut to whole units: `2026-11-30T04:02:05+00:00`."""
    return datetime.now(UTC).isoformat(timespec=unit)


def iso(seconds: float) -> str:
    """Return a time in seconds since 1970, cut to milliseconds: `2026-11-30T04:02:05.250+00:00`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
