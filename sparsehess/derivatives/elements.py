"""Sums over elements: a function that is a sum of parts, each of a few variables (partial separability).

Moving one variable of every element at a time gives each element's own Hessian in as many sweeps over the
elements as one has variables (Griewank and Toint 1982), where the whole gradient needs one for each
colour; there is nothing to recover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.derivatives.returned_values import COMPLEX, REAL, as_vector
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, eq=False, repr=False)
class Elements(ShortRepr):
    """Elements of one kind: bonds, angles, hexahedra.

    Not collective to make.

    Attributes
    ----------
    members
        (m, k) numbers of the variables of each of this rank's elements; every element of the sum is one
        rank's.
    gradient
        `gradient(X) -> (m, k)`: the derivatives of each element's energy by its own variables, at X (m, k),
        element by element in the order of `members`.

    Raises
    ------
    InputError
        Members are no whole numbers (m, k), or the gradient is no function.

    Examples
    --------
    A chain of three springs of lengths x_{i+1} - x_i, each with energy (x_{i+1} - x_i)² / 2:

    >>> import numpy as np
    >>> import sparsehess as sh
    >>> springs = sh.Elements(
    ...     members=np.array([[0, 1], [1, 2], [2, 3]]),
    ...     gradient=lambda X: np.stack([X[:, 0] - X[:, 1], X[:, 1] - X[:, 0]], axis=1),
    ... )
    >>> objective = sh.Objective.from_elements(np.zeros(4), springs)
    >>> with sh.assemble(objective) as H:
    ...     print(np.round(H.mat.getDiagonal().getArray(), 6))
    [1. 2. 2. 1.]
    """

    members: np.ndarray
    gradient: Callable[[np.ndarray], np.ndarray]

    def __post_init__(self) -> None:
        """Check the members and the gradient."""
        members = np.asarray(self.members)
        if members.ndim != 2 or members.dtype.kind not in "iu":
            raise InputError(f"members must be whole numbers (m, k), not {members.dtype} of shape {members.shape}")
        if not callable(self.gradient):
            raise InputError(f"the gradient of elements must be a function, not {type(self.gradient).__name__}")
        object.__setattr__(self, "members", members.astype(np.int64))

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        many, size = self.members.shape
        yield f"{number_of(many, 'element')} of {number_of(size, 'variable')} on this rank"

    @property
    def size(self) -> int:
        """Variables of an element."""
        return self.members.shape[1]

    def slopes(self, X: np.ndarray) -> np.ndarray:
        """Return the gradients (m, k) at X, checked for their shape."""
        kinds = COMPLEX if X.dtype.kind == "c" else REAL
        return as_vector(self.gradient(X), X.shape, kinds, f"the gradient of elements of {self.size} variables")


def total_gradient(elements: tuple[Elements, ...], n: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the gradient (n,) of the sum of this rank's elements, a function of x (n,).

    Not collective.
    """

    def gradient(x: np.ndarray) -> np.ndarray:
        out = np.zeros(n, x.dtype)
        for kind in elements:
            slopes, where = kind.slopes(x[kind.members]).ravel(), kind.members.ravel()
            out.real += np.bincount(where, weights=slopes.real, minlength=n)
            if x.dtype.kind == "c":
                out.imag += np.bincount(where, weights=slopes.imag, minlength=n)
        return out

    return gradient


def pattern_of_elements(elements: tuple[Elements, ...], n: int, comm: MPI.Comm) -> Pattern:
    """Return the pattern of a sum over elements.

    Collective.
    """
    with agreement(comm):
        for kind in elements:
            if kind.members.size and (kind.members.min() < 0 or kind.members.max() >= n):
                raise InputError(f"members of elements must be from 0 to {n - 1}")
    pairs = [np.zeros((2, 0), np.int64)]
    for kind in elements:
        first, second = np.triu_indices(kind.size, 1)
        pairs.append(np.stack([kind.members[:, first].ravel(), kind.members[:, second].ravel()]))
    rows, columns = np.concatenate(pairs, axis=1)
    return Pattern.from_pairs(rows, columns, n, comm=comm, source="elements")
