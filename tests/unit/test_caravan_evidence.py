"""Evidence of a new version: what its counts add up to, and how seldom luck decides."""

import math
from dataclasses import replace
from itertools import product

import pytest

from caravan.contracts import answers_key, evidence_key, of_evidence
from caravan.evidence import (
    HARM,
    LEAST_ANSWERS,
    MARGIN,
    MOST_SHOWN,
    Differing,
    Evidence,
    Finding,
    read,
    total,
    verdict,
    write,
)
from caravan.strict_json import NotJson

NONE = Evidence("tea", 8, 7)
AT = "2026-11-29T12:00:00+00:00"

Chances = tuple[float, float]
"""How likely an image is a loss, and a gain."""


def _likely(chances: Chances, images: int) -> dict[tuple[int, int], float]:
    """Return how likely each pair of losses and gains is."""
    loss, gain = chances
    return {
        (plus, minus): math.comb(images, plus)
        * math.comb(images - plus, minus)
        * loss**plus
        * gain**minus
        * (1 - loss - gain) ** (images - plus - minus)
        for plus in range(images + 1)
        for minus in range(images + 1 - plus)
    }


def _of(plus: int, minus: int, images: int, answers: int = 0) -> Evidence:
    return replace(NONE, answers=answers, compared=images, worse=plus, better=minus)


@pytest.mark.parametrize("images", [1, 2, 5, 12])
@pytest.mark.parametrize("gain", [0.0, 0.02, 0.2, 0.45])
def test_no_capital_grows_on_average_where_its_bet_is_wrong(images: int, gain: float) -> None:
    """By enumeration of all that may happen, at the margin itself, where it is hardest."""
    seen = _likely((gain + MARGIN, gain), images)
    assert math.isclose(sum(seen.values()), 1)
    assert sum(p * verdict(_of(*counts, images)).against for counts, p in seen.items()) == pytest.approx(1)
    seen = _likely((gain + HARM, gain), images)
    assert sum(p * verdict(_of(*counts, images)).in_favour for counts, p in seen.items()) == pytest.approx(1)


@pytest.mark.parametrize("seen", list(product(range(3), repeat=2)))
def test_whatever_was_seen_the_next_image_adds_nothing_on_average(seen: tuple[int, int]) -> None:
    plus, minus = seen
    gain = 0.1
    loss = gain + MARGIN
    so_far = verdict(_of(plus, minus, 9)).against
    then = (
        loss * verdict(_of(plus + 1, minus, 10)).against
        + gain * verdict(_of(plus, minus + 1, 10)).against
        + (1 - loss - gain) * verdict(_of(plus, minus, 10)).against
    )
    assert then == pytest.approx(so_far)


@pytest.mark.parametrize("chances", [(0.01, 0.0), (0.03, 0.02), (0.11, 0.1)])
def test_an_equal_version_is_stopped_in_one_case_of_twenty_at_most_however_often_one_looks(
    chances: Chances,
) -> None:
    loss, gain = chances
    paths, stopped = {(0, 0): 1.0}, 0.0
    for images in range(1, 51):
        then: dict[tuple[int, int], float] = {}
        for (plus, minus), p in paths.items():
            for counts, share in (
                ((plus + 1, minus), loss),
                ((plus, minus + 1), gain),
                ((plus, minus), 1 - loss - gain),
            ):
                then[counts] = then.get(counts, 0) + p * share
        paths = {}
        for counts, p in then.items():
            if verdict(_of(*counts, images)).outcome == "stop":
                stopped += p
            else:
                paths[counts] = p
    assert stopped <= 0.05


def test_a_version_that_is_worse_is_stopped_and_one_that_is_not_answers_alone_in_the_end() -> None:
    assert verdict(NONE).outcome == "wait"
    worse = verdict(_of(18, 1, 300, 30))
    assert (worse.outcome, worse.against > 20 > worse.in_favour) == ("stop", True)
    assert worse.says == (
        "version 8 is worse than version 7: it did worse at 18 and better at 1 of 300 images, failed at 0, "
        "and gave 30 answers"
    )
    equal = verdict(_of(3, 3, 300, LEAST_ANSWERS))
    assert (equal.outcome, equal.in_favour > 20 > equal.against) == ("promote", True)
    assert verdict(_of(3, 3, 300, LEAST_ANSWERS - 1)).outcome == "wait"


def test_failures_count_as_the_worst_of_answers_and_only_where_the_version_before_did_not_fail() -> None:
    failing = replace(NONE, compared=80, errors=8)
    assert verdict(failing).outcome == "stop"
    assert "failed at 8" in verdict(failing).says
    assert verdict(replace(failing, errors_beside=8)).outcome == "wait"


def test_what_reviewers_say_counts_in_place_of_the_guess() -> None:
    guessed = replace(NONE, compared=200, worse=15)
    assert verdict(guessed).outcome == "stop"
    looked = replace(guessed, worse=3, candidate_right=10, candidate_wrong=2)
    assert verdict(looked).outcome == "wait"


def test_no_count_is_too_large_to_judge() -> None:
    assert verdict(_of(10**6, 0, 10**6)).against == math.inf
    assert verdict(_of(0, 10**6, 10**6, 10**6)).outcome == "promote"


def test_the_evidence_of_edges_adds_up_and_that_of_other_versions_does_not() -> None:
    one = Evidence("tea", 8, 7, 1, 2, 3, 40, 5, 6, 7, 8)
    assert total([one, one, NONE]) == Evidence("tea", 8, 7, 2, 4, 6, 80, 10, 12, 14, 16)
    for other in (replace(one, version=9), replace(one, beside=6), replace(one, model="apparel")):
        with pytest.raises(ValueError, match="other versions"):
            total([one, other])
    with pytest.raises(ValueError, match="judged"):
        Evidence("tea", 8, 7, compared=1, worse=2)


def test_evidence_is_read_as_it_was_written() -> None:
    one = Evidence("tea", 8, 7, 1, 2, 3, 40, 5, 6, 7, 8)
    image = Differing(f"{'0a' * 32}-8", "valid/images/tea-green/1.jpg", "tea-green", 0.9, "tea-lemon", 0.8)
    for found in (Finding(one), Finding(one, "stop", (image, replace(image, reviewed="other")))):
        assert read(write(found, AT)) == found
    plain = b'{"schema":1,"model":"tea","version":8,"beside":7,"new":[1],"outcome":"new"}'
    assert read(plain) == Finding(NONE)
    assert len(read(write(Finding(one, "wait", (image,) * 10), AT)).differing) == MOST_SHOWN


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"model":"tea","version":8,"beside":7}',
        b'{"schema":2,"model":"tea","version":8,"beside":7}',
        b'{"schema":1,"model":"tea","version":8}',
        b'{"schema":1,"model":"tea","version":"8","beside":7}',
        b'{"schema":1,"model":"tea","version":8,"beside":0}',
        b'{"schema":1,"model":"tea","version":8,"beside":7,"compared":-1}',
        b'{"schema":1,"model":"tea","version":8,"beside":7,"compared":1.5}',
        b'{"schema":1,"model":"tea","version":8,"beside":7,"compared":true}',
        b'{"schema":1,"model":"tea","version":8,"beside":7,"compared":1,"worse":2}',
        b'{"schema":1,"model":"tea","version":8,"beside":7,"differing":[{"id":"../x"}]}',
    ],
)
def test_what_is_no_evidence_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson):
        read(raw)


def test_a_key_says_whose_evidence_of_which_model_it_is() -> None:
    assert of_evidence(evidence_key("edge1", "tea").decode()) == ("edge1", "tea")
    assert of_evidence(answers_key("edge1").decode()) is None
    assert of_evidence("edge1") is None
