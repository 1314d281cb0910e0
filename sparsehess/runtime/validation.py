"""What callers give: real arrays, whole and positive numbers, functions; errors name what cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from sparsehess.errors import EvaluationError, InputError, SparseHessError, words_of


def reals(values: object, name: str) -> np.ndarray:
    """Return numbers as an array of float64, which may be the one given.

    Not collective.

    Raises
    ------
    InputError
        They are no real numbers; complex ones would lose a part.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiubO":  # objects may be numbers, such as fractions
            raise TypeError(f"not {array.dtype}")
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be real numbers: {' '.join(str(error).split())}") from error


def whole_number(value: object, name: str, least: int) -> int:
    """Return a whole number that is not less than another.

    Not collective.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        shown = repr(value) if isinstance(value, (int, float, str, np.number)) else f"({type(value).__name__})"
        raise InputError(f"{name}={shown}: at least {least}, and a whole number")
    return int(value)


def positive_number(value: object, name: str) -> float:
    """Return a finite number above zero.

    Not collective.
    """
    number = reals(value, name)
    if number.ndim or not 0 < number < np.inf:
        raise InputError(f"{name}={value} must be positive")
    return float(number)


@contextmanager
def explain_evaluation_errors(what: str, tell: Callable[[BaseException], str] = words_of) -> Iterator[None]:
    """Make an EvaluationError of what a function of the user raises in a block; `tell` says what its error says.

    Not collective. Errors of the package pass as they are.
    """
    try:
        yield
    except (SparseHessError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the user's code may raise anything
        raise EvaluationError(f"{what} raised {type(error).__name__}: {tell(error)}") from error
