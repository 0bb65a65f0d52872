"""shopper: what the answers of models made elsewhere mean."""

from typing import Any

import numpy as np
import pytest

from shopper.model.arrays import number_tensor
from shopper.model.outputs import normalised, read
from shopper.model.stubs import DT_STRING, TensorProto


def floats(*rows: float, shape: tuple[int, ...] | None = None) -> Any:
    values = np.array(rows, np.float32)
    return number_tensor(values.reshape(shape or (1, len(rows))))


def strings(*values: str) -> Any:
    tensor = TensorProto(dtype=DT_STRING, string_val=[value.encode() for value in values])
    tensor.tensor_shape.dim.add().size = len(values)
    return tensor


def test_probabilities_are_taken_as_they_are() -> None:
    opinion = read({"dense": floats(0.1, 0.7, 0.2)})
    assert opinion.probabilities == pytest.approx((0.1, 0.7, 0.2))
    assert (opinion.score, opinion.classes, opinion.label) == (max(opinion.probabilities), (), "")


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 1, 3)])
def test_a_row_may_lie_in_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    assert read({"y": floats(0.1, 0.7, 0.2, shape=shape)}).score == pytest.approx(0.7)


@pytest.mark.parametrize("logits", [(1.0, 3.0, 2.0), (-5.0, 0.5, -1.0), (0.2, 0.9, 0.8), (1e4, 0.0, -1e4)])
def test_what_does_not_sum_to_one_counts_as_logits(logits: tuple[float, ...]) -> None:
    probabilities = normalised(logits)
    assert sum(probabilities) == pytest.approx(1)
    assert np.argmax(probabilities) == np.argmax(logits)


@pytest.mark.parametrize(("value", "second"), [(0.9, 0.9), (0.0, 0.0), (3.0, 0.952574), (-1000.0, 0.0)])
def test_a_single_number_is_that_of_the_second_of_two_classes(value: float, second: float) -> None:
    assert normalised([value]) == pytest.approx([1 - second, second], abs=1e-5)


def test_an_answer_that_is_not_a_number_has_no_score() -> None:
    assert read({"y": floats(0.1, float("nan"), 0.2)}).score == 0.0


def test_names_and_a_label_beside_the_numbers_are_the_models_own() -> None:
    named = read({"p": floats(0.1, 0.9), "names": strings("cat", "dog")})
    assert named.classes == ("cat", "dog")
    labelled = read({"probabilities": floats(0.1, 0.9), "label": strings("dog")})
    assert (labelled.classes, labelled.label) == ((), "dog")


def test_a_model_may_write_the_class_of_unknown_things_with_a_capital() -> None:
    assert read({"y": strings("Other", "0.9")}).label == "other"


def test_scores_of_all_classes_beside_a_label_are_not_taken_for_the_labels_own() -> None:
    opinion = read({"labels": strings("dog"), "scores": floats(0.1, 0.9)})
    assert opinion.label == "dog"
    assert opinion.score == pytest.approx(0.9)


def test_of_several_outputs_the_one_named_for_it_is_believed() -> None:
    assert read({"embedding": floats(*range(9)), "probabilities": floats(0.1, 0.9)}).score == pytest.approx(
        0.9
    )
    with pytest.raises(ValueError, match="which of the outputs"):
        read({"a": floats(0.1, 0.9), "b": floats(0.9, 0.1)})


@pytest.mark.parametrize("shape", [(2, 2), (0,), (2, 1, 2)])
def test_a_tensor_that_is_not_one_row_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"instead of \[1, classes\]"):
        read({"y": floats(*range(int(np.prod(shape))), shape=shape)})
