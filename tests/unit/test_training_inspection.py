"""What counts as a batch that is contradicted."""

import numpy as np
import pytest

from training.inspection import FEWEST, contradictions, doubtful, sure_answers

CLASSES = ("green", "lemon", "other")
SURE = {name: [0.98 if name == each else 0.01 for each in CLASSES] for name in CLASSES}
UNSURE = [0.8, 0.15, 0.05]


def answers(label: str, rows: list[list[float]]) -> tuple[list[tuple[str, str]], list[str | None]]:
    members = [(label, f"{n:064x}") for n in range(len(rows))]
    return members, sure_answers(members, np.array(rows, np.float32), CLASSES)


def found(label: str, rows: list[list[float]]) -> list[str]:
    members, said = answers(label, rows)
    return [each.reason for each in contradictions(members, [("edge1", "a batch")] * len(rows), said)]


def test_a_batch_that_is_surely_another_product_is_contradicted() -> None:
    (reason,) = found("lemon", [SURE["green"]] * 8 + [SURE["lemon"]] * 2)
    assert reason == "8 of 10 photos labelled lemon are surely green for the version that serves"
    assert found("other", [SURE["green"]] * 8)


@pytest.mark.parametrize(
    ("label", "rows"),
    [
        ("lemon", [SURE["lemon"]] * 9),
        ("lemon", [UNSURE] * 9),
        ("lemon", [SURE["other"]] * 9),
        ("lemon", [SURE["green"]] * 4 + [UNSURE] * 5),
        ("lemon", [SURE["green"]] * (FEWEST - 1)),
        ("mint", [SURE["green"]] * 9),
    ],
    ids=["agreed", "unsure", "unknown things", "too few of the batch", "too few", "a new product"],
)
def test_a_batch_that_teaches_something_is_not(label: str, rows: list[list[float]]) -> None:
    assert found(label, rows) == []


def test_batches_and_labels_are_looked_at_apart() -> None:
    members, said = answers("lemon", [SURE["green"]] * 6 + [SURE["lemon"]] * 20)
    assert doubtful(members, said) == {"lemon"}
    assert contradictions(members, [("edge1", "one")] * 26, said) == []
    (one,) = contradictions(members, [("edge1", "bad")] * 6 + [("edge1", "good")] * 20, said)
    assert (one.batch, one.answer, one.sure, len(one.members)) == (("edge1", "bad"), "green", 6, 6)
