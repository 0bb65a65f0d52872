"""Figures."""

import numpy as np
import pytest

from training.evaluate import Answer, answers_of, evaluate

RIGHT = [Answer(f"{i:064x}", "a", "a", 0.9) for i in range(8)]
WRONG = [Answer("f" * 64, "b", "a", 0.7), Answer("e" * 64, "b", "b", 0.8)]


def test_accuracy_confusion_precision_recall_and_f1_are_counted() -> None:
    evaluation = evaluate([*RIGHT, *WRONG])
    assert evaluation.accuracy == pytest.approx(0.9)
    assert evaluation.classes == ("a", "b")
    assert evaluation.confusion.tolist() == [[8, 0], [1, 1]]
    assert evaluation.precision == pytest.approx({"a": 8 / 9, "b": 1})
    assert evaluation.recall == pytest.approx({"a": 1, "b": 1 / 2})
    assert evaluation.f1 == pytest.approx({"a": 16 / 17, "b": 2 / 3})
    assert evaluation.macro_f1 == pytest.approx((16 / 17 + 2 / 3) / 2)
    assert evaluation.metrics == {
        "accuracy": 0.9,
        "held_out": 10,
        "macro_f1": 0.8039,
        "f1": {"a": 0.9412, "b": 0.6667},
    }


def test_a_class_that_is_answered_but_not_held_out_has_no_figures() -> None:
    evaluation = evaluate([Answer("e" * 64, "a", "other", 0.7)])
    assert evaluation.classes == ("a", "other")
    assert evaluation.precision == evaluation.recall == evaluation.f1 == {"a": 0.0}
    assert evaluation.macro_f1 == 0


def test_where_nothing_was_held_out_nothing_is_said_to_be_measured() -> None:
    assert evaluate([]).metrics == {"accuracy": None, "held_out": 0, "macro_f1": None, "f1": {}}


def test_an_answer_keeps_its_three_likeliest_classes() -> None:
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]], np.float32)
    first, second = answers_of(probabilities, ("a", "b", "c", "d"), [("e" * 64, "d"), ("f" * 64, "b")])
    assert [name for name, _ in first.top] == ["d", "c", "b"]
    assert [share for _, share in first.top] == pytest.approx([0.4, 0.3, 0.2])
    assert (first.label, first.right) == ("d", True)
    assert (second.label, second.right) == ("a", False)
