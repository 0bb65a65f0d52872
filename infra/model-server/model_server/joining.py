"""Whether requests to a signature may be joined: only if company changes no answer.

An open first dimension is no promise. A model that normalises over its batch, or ranks its rows, answers each
caller by whoever else asked at that moment.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_server.errors import ServingError
from model_server.servable import Arrays, Signature

RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""How far answers may be apart: sums are made in another order for another number of rows."""


def agree(signature: Signature, rows: Sequence[Arrays]) -> bool:
    """Ask for rows alone and together (blocking).

    Args:
        signature: one whose inputs and outputs have an open first dimension.
        rows: inputs of one row each, of one shape.

    """
    company = [*rows, *rows]
    try:
        alone = [signature.call(row) for row in company]
        together = signature.call(
            {alias: np.concatenate([row[alias] for row in company]) for alias in signature.inputs}
        )
    except (ServingError, ValueError):
        return False
    for alias, output in together.items():
        if alias in signature.whole:
            continue
        if not output.ndim or output.shape[0] != len(company):
            return False
        if not all(_same(one[alias], output[n : n + 1]) for n, one in enumerate(alone)):
            return False
    return True


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype == object:
        return one.tolist() == other.tolist() or _same_numbers(one, other)
    if np.issubdtype(one.dtype, np.inexact):
        return np.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    return bool(np.array_equal(one, other))


def _same_numbers(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether texts differ only in the last digits of numbers."""
    try:
        return all(
            left == right or abs(float(left) - float(right)) <= ABSOLUTE
            for left, right in zip(one.ravel(), other.ravel(), strict=True)
        )
    except ValueError:
        return False
