"""Which entries of a symmetric matrix to keep: rules, each decided alike on every rank and in both triangles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.pattern.sparsity_pattern import Pattern
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import reals, whole_number

# Bits of a key that one pass of the selection settles.
_BITS = 16


@dataclass(frozen=True, eq=False, repr=False)
class Entries(ShortRepr):
    """Local entries of a symmetric matrix.

    Attributes
    ----------
    pattern
        Where they are.
    values
        (nnz_local,) symmetric to the last bit.
    weights
        (nnz_local,) what a mass multiplies sizes by in the bound: m_i^(-1/2) m_j^(-1/2) of its diagonal. None
        without one.
    factor
        What multiplies the bound then; None where nothing is known for the mass.
    """

    pattern: Pattern
    values: np.ndarray
    weights: np.ndarray | None = None
    factor: float | None = 1.0

    @property
    def rows(self) -> np.ndarray:
        """(nnz_local,) global rows."""
        layout = self.pattern.layout
        return np.repeat(np.arange(layout.start, layout.stop), np.diff(self.pattern.indptr))

    @property
    def diagonal(self) -> np.ndarray:
        """(nnz_local,) bool."""
        return self.rows == self.pattern.indices

    def dropped_norms(self, kept: np.ndarray) -> tuple[float, float]:
        """Return (largest absolute row sum, Frobenius norm) of what is not kept (nnz_local,). Collective."""
        return norms(np.where(kept, 0.0, np.abs(self.values)), self.values[~kept], self.pattern)

    def shift(self, kept: np.ndarray) -> float | None:
        """Return by how much eigenvalues may move without what is not kept; None: nobody knows. Collective."""
        if self.factor is None:
            return None
        weighed = self if self.weights is None else replace(self, values=self.values * self.weights)
        return self.factor * min(weighed.dropped_norms(kept))


class Rule(Protocol):
    """What decides which entries stay. The diagonal stays whatever a rule says."""

    def keep(self, entries: Entries) -> np.ndarray:
        """Return (nnz_local,) bool, the same for an entry and its mirror. Collective."""
        ...


@dataclass(frozen=True)
class Above:
    """The rule by which entries of at least this size stay.

    Not collective to make.

    Attributes
    ----------
    threshold
        Finite and not negative, in the units of the matrix.

    Examples
    --------
    >>> import scipy.sparse
    >>> import sparsehess as sh
    >>> matrix = scipy.sparse.csr_matrix([[4.0, 0.5, 0.01], [0.5, 4.0, 0.02], [0.01, 0.02, 4.0]])
    >>> with sh.sparsify(matrix, sh.Above(0.1)) as left:
    ...     print(left.kept, left.dropped, round(left.bound, 3))
    5 4 0.03
    """

    threshold: float

    def keep(self, entries: Entries) -> np.ndarray:
        """See `Rule.keep`. Not collective."""
        _check(self.threshold)
        return np.abs(entries.values) >= self.threshold


@dataclass(frozen=True)
class Largest:
    """The rule by which so many entries stay: the diagonal and the largest others, in pairs with their mirrors.

    Not collective to make. Of entries of one size those with the least row, and then the least column, of the
    upper triangle stay. The number is met exactly, or is one less where the diagonal leaves an odd rest.

    Attributes
    ----------
    count
        Entries over all ranks, at least as many as there are rows.

    Examples
    --------
    >>> import scipy.sparse
    >>> import sparsehess as sh
    >>> matrix = scipy.sparse.csr_matrix([[4.0, 0.5, 0.01], [0.5, 4.0, 0.02], [0.01, 0.02, 4.0]])
    >>> with sh.sparsify(matrix, sh.Largest(7)) as left:
    ...     print(left.kept, left.pattern.to_scipy().toarray()[0].tolist())
    7 [1, 1, 0]
    """

    count: int

    def keep(self, entries: Entries) -> np.ndarray:
        """See `Rule.keep`. Collective."""
        pattern, comm = entries.pattern, entries.pattern.comm
        if whole_number(self.count, "keep", 1) < pattern.n:
            raise InputError(f"keep {self.count} entries: the diagonal alone has {pattern.n}")
        pairs = (self.count - pattern.n) // 2
        rows, columns = entries.rows, pattern.indices.astype(np.int64)
        upper = columns > rows
        # Sizes as integers: the bits of non-negative doubles are in their order.
        sizes = np.abs(entries.values).view(np.uint64)
        there = int(comm.allreduce(int(np.count_nonzero(upper))))
        if pairs >= there:
            return np.ones(len(sizes), bool)
        if pairs == 0:
            return np.zeros(len(sizes), bool)
        least, above = _ordered(sizes[upper], there - pairs, comm)
        tied = sizes == least
        places = (np.minimum(rows, columns) * pattern.n + np.maximum(rows, columns)).astype(np.uint64)
        last, _ = _ordered(places[tied & upper], pairs - above - 1, comm)
        return (sizes > least) | (tied & (places <= last))


@dataclass(frozen=True, repr=False)
class Hysteresis(ShortRepr):
    """The rule by which entries of at least `upper` stay, and those of at least `lower` that were there before.

    Not collective to make. Between the two nothing changes, so that an entry whose size wavers does not come
    and go.

    Attributes
    ----------
    lower, upper
        Finite, not negative and in this order, in the units of the matrix.
    before
        The `Pattern` kept last; the rows of each rank as now. None at first: `upper` decides alone.

    Examples
    --------
    >>> import scipy.sparse
    >>> import sparsehess as sh
    >>> matrix = scipy.sparse.csr_matrix([[4.0, 0.5, 0.01], [0.5, 4.0, 0.02], [0.01, 0.02, 4.0]])
    >>> with sh.sparsify(matrix, sh.Hysteresis(0.3, 0.6)) as first, sh.sparsify(matrix, sh.Above(0.4)) as left:
    ...     with sh.sparsify(matrix, sh.Hysteresis(0.3, 0.6, left.pattern)) as second:
    ...         print(first.kept, second.kept)
    3 5
    """

    lower: float
    upper: float
    before: Pattern | None = None

    def keep(self, entries: Entries) -> np.ndarray:
        """See `Rule.keep`. Not collective."""
        _check(self.lower)
        _check(self.upper)
        if self.lower > self.upper:
            raise InputError(f"hysteresis: the lower threshold {self.lower} is above the upper one, {self.upper}")
        sizes = np.abs(entries.values)
        kept = sizes >= self.upper
        return kept if self.before is None else kept | ((sizes >= self.lower) & _among(entries, self.before))


@dataclass(frozen=True, repr=False)
class Inherited(ShortRepr):
    """The rule by which the entries stay that were kept before, as long as that is good enough; else another rule.

    Not collective to make.

    Attributes
    ----------
    before
        The `Pattern` kept last; the rows of each rank as now.
    within
        What the bound on the shift of eigenvalues may be, those of the pencil where there is a mass.
    otherwise
        The rule for when it is more.

    Examples
    --------
    >>> import scipy.sparse
    >>> import sparsehess as sh
    >>> matrix = scipy.sparse.csr_matrix([[4.0, 0.5, 0.01], [0.5, 4.0, 0.02], [0.01, 0.02, 4.0]])
    >>> with sh.sparsify(matrix, sh.Above(0.1)) as left:
    ...     for within in (0.05, 0.02):
    ...         with sh.sparsify(1.1 * matrix, sh.Inherited(left.pattern, within, sh.Above(0.0))) as again:
    ...             print(again.kept, again.bound < within)
    5 True
    9 True
    """

    before: Pattern
    within: float
    otherwise: Rule

    def keep(self, entries: Entries) -> np.ndarray:
        """See `Rule.keep`. Collective."""
        _check(self.within)
        kept = _among(entries, self.before)
        bound = entries.shift(kept | entries.diagonal)
        return kept if bound is not None and bound <= self.within else self.otherwise.keep(entries)


def norms(sizes: np.ndarray, lost: np.ndarray, pattern: Pattern) -> tuple[float, float]:
    """Return (largest absolute row sum, Frobenius norm) of what is dropped; the 2-norm is no more than either.

    Collective.

    Parameters
    ----------
    sizes
        (nnz_local,) absolute values of what is dropped, 0 for what stays.
    lost
        The values that are dropped.
    """
    sums = np.add.reduceat(np.append(sizes, 0.0), pattern.indptr[:-1]) if len(pattern.indptr) > 1 else np.zeros(1)
    sums[: pattern.layout.n_local][np.diff(pattern.indptr) == 0] = 0.0
    row = pattern.comm.allreduce(float(sums.max(initial=0.0)), op=MPI.MAX)
    largest = pattern.comm.allreduce(float(np.abs(lost).max(initial=0.0)), op=MPI.MAX)
    if largest == 0.0:
        return row, 0.0
    squares = pattern.comm.allreduce(float(np.square(lost / largest).sum()))  # scaled: no overflow
    return row, float(largest * np.sqrt(squares))


def _check(threshold: float) -> None:
    if not 0 <= float(reals(threshold, "threshold")) < np.inf:
        raise InputError(f"threshold {threshold}: must be finite and not negative")


def _among(entries: Entries, before: Pattern) -> np.ndarray:
    """Return (nnz_local,) bool: which entries a pattern has."""
    pattern = entries.pattern
    if not isinstance(before, Pattern):
        raise InputError(f"before must be the Pattern that was kept last, not {type(before).__name__}")
    if not pattern.layout.same(before.layout):
        raise InputError("the pattern of before has other rows on each rank than the matrix")
    start, n = pattern.layout.start, pattern.n
    own = np.repeat(np.arange(pattern.layout.n_local), np.diff(before.indptr))
    old = own * n + before.indices
    keys = (entries.rows - start) * n + pattern.indices
    at = np.minimum(np.searchsorted(old, keys), max(len(old) - 1, 0))
    return old[at] == keys if len(old) else np.zeros(len(keys), bool)


def _ordered(keys: np.ndarray, place: int, comm: MPI.Comm) -> tuple[np.uint64, int]:
    """Return the key at a place (from 0) of all ranks' keys in ascending order, and how many are greater.

    Collective. A radix selection: a histogram of 16 bits a pass, four passes, whatever the number of keys.
    """
    found, greater = np.uint64(0), 0
    for shift in range(64 - _BITS, -1, -_BITS):
        digits = (keys >> np.uint64(shift)) & np.uint64(2**_BITS - 1)
        counts = np.bincount(digits.astype(np.int64), minlength=2**_BITS).astype(np.int64)
        comm.Allreduce(MPI.IN_PLACE, counts)
        upto = np.cumsum(counts)
        digit = int(np.searchsorted(upto, place, side="right"))
        place -= int(upto[digit] - counts[digit])
        greater += int(upto[-1] - upto[digit])
        keys = keys[digits == np.uint64(digit)]
        found |= np.uint64(digit) << np.uint64(shift)
    return found, greater
