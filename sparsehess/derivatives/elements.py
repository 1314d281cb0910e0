"""Sums over elements: a function that is a sum of parts, each of a few variables (partial separability).

Moving one variable of every element at a time gives each element's own Hessian in as many sweeps over the
elements as one has variables (Griewank and Toint 1982), where the whole gradient needs one for each
colour; there is nothing to recover.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hessian.recovery import Direct, Recovered
from sparsehess.hessian.recovery_kernels import add_at
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement
from sparsehess.runtime.row_layout import send_to_owners


@dataclass(frozen=True, eq=False)
class Elements:
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
    """

    members: np.ndarray
    gradient: Callable[[np.ndarray], np.ndarray]

    def __post_init__(self):
        members = np.asarray(self.members)
        if members.ndim != 2 or members.dtype.kind not in "iu":
            raise InputError(f"members must be whole numbers (m, k), not {members.dtype} of shape {members.shape}")
        if not callable(self.gradient):
            raise InputError(f"the gradient of elements must be a function, not {type(self.gradient).__name__}")
        object.__setattr__(self, "members", members.astype(np.int64))

    @property
    def size(self) -> int:
        """Variables of an element."""
        return self.members.shape[1]

    def slopes(self, X: np.ndarray) -> np.ndarray:
        """Return the gradients (m, k) at X, checked for their shape."""
        value = np.asarray(self.gradient(X))
        kinds = "c" if X.dtype.kind == "c" else "fiu"
        if value.shape != X.shape or value.dtype.kind not in kinds:
            raise InputError(
                f"the gradient of elements of {self.size} variables returned {value.dtype} of shape {value.shape} "
                f"for {X.dtype} of shape {X.shape}"
            )
        return value


def total_gradient(elements: tuple[Elements, ...], n: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the gradient (n,) of the sum of this rank's elements, a function of x (n,).

    Not collective.
    """

    def gradient(x):
        out = np.zeros(n, x.dtype)
        for kind in elements:
            slopes, where = kind.slopes(x[kind.members]).ravel(), kind.members.ravel()
            out.real += np.bincount(where, weights=slopes.real, minlength=n)
            if x.dtype.kind == "c":
                out.imag += np.bincount(where, weights=slopes.imag, minlength=n)
        return out

    return gradient


def coupled(elements: tuple[Elements, ...], n: int, comm) -> Pattern:
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


class Gathering:
    """Where the entries of the elements' Hessians belong: the recovery of a sum over elements.

    Collective to make and to finish. Nothing is compressed, so `coloring` is None.

    Parameters
    ----------
    pattern
        Holds at least what the elements couple.
    elements
        Of this rank.
    """

    coloring = None
    amplification = mean_amplification = 1.0

    def __init__(self, pattern: Pattern, elements: tuple[Elements, ...]):
        self.pattern, layout, n = pattern, pattern.layout, pattern.n
        # Every entry is read both ways: by moving the one variable, and the other.
        self._mean = Direct(pattern, None, np.full(pattern.nnz_local, 3, np.uint8))
        self.variances = self._mean.variances
        rows = np.repeat(np.arange(layout.start, layout.stop), np.diff(pattern.indptr))
        ours = rows * n + pattern.indices
        # [a, e, i]: the entry in the row of variable i of element e when variable a is moved.
        keys = [kind.members.T[:, :, None] + n * kind.members[None] for kind in elements]
        everywhere = np.unique(np.concatenate([np.zeros(0, np.int64), *(key.ravel() for key in keys)]))
        first, last = np.searchsorted(everywhere, (layout.start * n, layout.stop * n))
        foreign = np.concatenate([everywhere[:first], everywhere[last:]])
        self._foreign_rows = foreign // n
        arrived = send_to_owners(layout, self._foreign_rows, foreign)[1]
        with agreement(pattern.comm):
            self._arrive = _places(ours, arrived, n)
            _places(ours, everywhere[first:last], n)
        self._sums = np.zeros(len(ours) + len(foreign))
        self._slots = [self._numbers(key, ours, foreign) for key in keys]

    def _numbers(self, keys: np.ndarray, ours: np.ndarray, foreign: np.ndarray) -> np.ndarray:
        layout, n = self.pattern.layout, self.pattern.n
        local = (keys >= layout.start * n) & (keys < layout.stop * n)
        slots = np.where(local, np.searchsorted(ours, keys), len(ours) + np.searchsorted(foreign, keys))
        return slots.astype(np.int32 if len(self._sums) < 2**31 else np.int64)

    def add(self, kind: int, variable: int, columns: np.ndarray) -> None:
        """Add columns (m, k) of the Hessians of all elements of a kind. Not collective."""
        add_at(self._sums, self._slots[kind][variable].ravel(), np.ascontiguousarray(columns).ravel())

    def finish(self, values: np.ndarray) -> Recovered:
        """Make the entries (nnz_local,) of what was added, and begin anew.

        Collective.
        """
        values[:] = self.partial()
        self._sums[:] = 0.0
        return self._mean.finish(values)

    def partial(self) -> np.ndarray:
        """Return (nnz_local,) what was added so far, from all ranks.

        Collective.
        """
        values = self._sums[: self.pattern.nnz_local].copy()
        arrived = send_to_owners(self.pattern.layout, self._foreign_rows, self._sums[len(values) :])[1]
        add_at(values, self._arrive, np.ascontiguousarray(arrived))
        return values

    def resume(self, values: np.ndarray) -> None:
        """Begin with what `partial` has returned. Not collective."""
        self._sums[:] = 0.0
        self._sums[: len(values)] = values


def _places(ours: np.ndarray, keys: np.ndarray, n: int) -> np.ndarray:
    """Return where keys stand among ours, ascending; all must be there."""
    places = np.searchsorted(ours, keys)
    there = places < len(ours)
    there[there] = ours[places[there]] == keys[there]
    if not there.all():
        row, column = divmod(int(keys[~there][0]), n)
        raise InputError(f"the pattern lacks entry ({row}, {column}), which an element couples")
    return places
