"""Times as objects and messages have them."""

from datetime import UTC, datetime, timedelta

import pytest

from caravan import times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000+00:00"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250+00:00"),
        (1_700_000_000.0009, "2023-11-14T22:13:20.000+00:00"),
    ],
)
def test_a_time_is_written_in_utc_to_the_millisecond(seconds: float, text: str) -> None:
    assert times.iso(seconds) == text


def test_the_present_time_is_written_in_utc_to_the_unit_that_is_asked_for() -> None:
    begun = datetime.now(UTC)
    second, millisecond = times.now(), times.now("milliseconds")
    assert len(second) == len("2026-11-30T04:02:05+00:00")
    assert len(millisecond) == len("2026-11-30T04:02:05.250+00:00")
    for text, unit in ((second, timedelta(seconds=1)), (millisecond, timedelta(milliseconds=1))):
        assert text.endswith("+00:00")
        assert begun - unit < datetime.fromisoformat(text) <= datetime.now(UTC)
