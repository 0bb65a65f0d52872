"""common: how often to look where nobody tells."""

import pytest

from caravan.pace import Pace


@pytest.mark.parametrize(("quiet", "pause"), [(0, 1), (12, 1), (36, 3), (60, 5), (86_400, 5)])
def test_a_pause_grows_while_nothing_changes_up_to_five_times_the_shortest(
    quiet: float, pause: float
) -> None:
    now = 100.0
    pace = Pace(1, lambda: now)
    now += quiet
    assert pace.pause == pause


@pytest.mark.parametrize("seconds", [3, 5, 60])
def test_no_pause_grows_beyond_five_seconds_nor_is_a_longer_one_cut(seconds: float) -> None:
    now = 0.0
    pace = Pace(seconds, lambda: now)
    now = 86_400.0
    assert pace.pause == max(seconds, 5)


def test_a_change_makes_it_short_again() -> None:
    now = 0.0
    pace = Pace(0.5, lambda: now)
    now = 1000.0
    pace.stir()
    assert pace.pause == 0.5
