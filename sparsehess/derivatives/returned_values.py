"""What users' functions return, as arrays: the ways in which people write a vector or a number are taken.

Tensors of PyTorch, arrays of JAX, lists, masked arrays without a mask, columns and rows of a matrix, sparse
vectors, and pairs (number, vector), which SciPy takes with `jac=True`. What cannot be taken is said in a sentence.
"""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
import scipy.sparse

from sparsehess.errors import EvaluationError

REAL, COMPLEX = "fiu", "c"


def as_vector(value: Any, shape: tuple[int, ...], kinds: str, whose: str, where: str = "") -> np.ndarray:
    """Return what a function has returned as an array of this shape. Not collective.

    Parameters
    ----------
    kinds
        Of numbers: `REAL` or `COMPLEX`.
    whose, where
        Name the function and the rank in errors.

    Raises
    ------
    EvaluationError
        It is something else; the message says what, and what it should be.
    """
    size = int(np.prod(shape))
    if _is_pair(value, size):
        value = value[1]
    elif isinstance(value, (tuple, list)) and len(value) == 1 and len(shape) == 1 and shape != (1,):
        value = value[0]  # what torch.autograd.grad gives
    array = _array(value, kinds, whose + where)
    flat = len(shape) == 1 and array.shape in ((size, 1), (1, size))
    if not (array.shape == shape or flat) or array.dtype.kind not in kinds:
        numbers = "real numbers" if kinds == REAL else "complex numbers for a complex x"
        raise EvaluationError(
            f"{whose} must return {shape} {numbers}, not {_described(value, array)}{where}"
            f"{_hint(value, array, shape)}"
        )
    return array.reshape(shape)


def as_number(value: Any, n: int, whose: str, where: str = "") -> float:
    """Return what a function has returned as a real number; of a pair (number, vector (n,)) the first.

    Not collective.

    Raises
    ------
    EvaluationError
        It is something else.
    """
    if _is_pair(value, n):
        value = value[0]
    array = _array(value, REAL, whose + where)
    if array.size != 1 or array.dtype.kind not in REAL:
        raise EvaluationError(f"{whose} must return a real number, not {_described(value, array)}{where}")
    return float(array.reshape(()))


def _is_pair(value: Any, size: int) -> bool:
    """Say whether something is a number and a vector of this size."""
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
        return False
    first, second = (getattr(item, "shape", None) for item in value)
    if second is None:
        second = (len(value[1]),) if isinstance(value[1], (tuple, list)) else ()
    one = np.isscalar(value[0]) and not isinstance(value[0], str)
    one = one or (first is not None and int(np.prod(first)) == 1)
    return bool(one and len(second) > 0 and int(np.prod(second)) == size)


def _array(value: Any, kinds: str, whose: str) -> np.ndarray:
    """Return an array of what may be one of another library."""
    try:
        if scipy.sparse.issparse(value):
            return value.toarray()
        if np.ma.is_masked(value):
            raise EvaluationError(f"{whose} returned masked entries, which are no numbers")
        if hasattr(value, "detach"):
            value = value.detach().cpu()
        array = _as_numpy(value)
        # Fractions, and numbers of a precision that numpy has not.
        unknown = array.dtype.kind in "OV" and array.dtype.names is None
        if unknown and kinds == REAL and (array.ndim or isinstance(value, Number)):
            array = array.astype(np.float64)
    except EvaluationError:
        raise
    except Exception as error:  # other libraries may raise anything
        raise EvaluationError(
            f"{whose} returned {_article(value)}, which is no array of numbers ({' '.join(str(error).split())})"
        ) from error
    return array


def _as_numpy(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except TypeError:
        if not hasattr(value, "double"):
            raise
        return np.asarray(value.double())  # a tensor of numbers that numpy has not


def _described(value: Any, array: np.ndarray) -> str:
    if array.dtype.kind == "O" and array.ndim == 0:
        return "None" if value is None else _article(value)
    return f"{array.dtype} of shape {array.shape}"


def _article(value: Any) -> str:
    return f"a {type(value).__name__}"


def _hint(value: Any, array: np.ndarray, shape: tuple[int, ...]) -> str:
    """Return what may be meant, and what to do."""
    size = int(np.prod(shape))
    if value is None:
        return ": is its `return` missing?"
    if hasattr(value, "send") or hasattr(value, "__await__"):
        return ": call it, or make a list of it"
    if isinstance(value, (tuple, list)) and array.ndim > len(shape) and array.shape[-1] == size:
        return ": of several vectors give the one that is meant"
    if array.size == size and array.ndim > len(shape) == 1:
        return ": give .ravel() of it"
    if array.ndim == 2 and array.shape == shape[::-1]:
        return ": give .T of it, a row for each direction"
    if array.size == 1 and size > 1 and array.dtype.kind in REAL:
        return ": a number, such as the energy, is no vector"
    return ""
