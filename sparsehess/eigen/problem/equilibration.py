"""Symmetric scaling of a pencil by powers of two: all rows of D A D and D M D are of about one size.

Eigenvalues and inertia of a pencil do not change under a congruence, and scaling by powers of two rounds nothing.
What is judged in the scaled problem (shifts, zeros, ends of intervals, residuals) does not depend on the units of
variables, nor on numbers that stand for infinity: penalties on supports, large masses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from sparsehess.hessian.entry_errors import EntryErrors

# Rows whose sizes differ by less than this are left as they are.
_ALIKE = 2.0**14

# Passes by which variables without a mass are reached from those with one, and sweeps of Ruiz's iteration.
_PASSES, _SWEEPS = 2, 12

# Eigenvalues beyond two to this power, or below its inverse, are scaled too: their squares must be numbers.
_EXTREME = 200

# Mass of a direction that has none but for rounding, as a part of the sums of the rows of |M|.
_LIGHT = 16 * float(np.finfo(float).eps)

# Bins to a factor of two, and exponents, of the histogram that medians are read from.
_BINS, _EXPONENTS = 8, 2200


class AbsoluteRows:
    """The local rows of |A|, in any diagonal scaling; `close()` ends what it needs of other ranks.

    Collective to make and to use.

    Parameters
    ----------
    matrix
        Assembled; the identity where it is None.
    layout
        Its rows.

    Attributes
    ----------
    diagonal
        (n_local,) |aᵢᵢ|.
    finite
        Whether all entries of this rank are numbers.
    """

    def __init__(self, matrix: PETSc.Mat | None, layout: Layout):
        self.layout, self._scatter = layout, None
        self._values: np.ndarray
        self._columns: np.ndarray
        self.diagonal: np.ndarray
        own = np.arange(layout.n_local)
        if matrix is None:
            self._indptr, self._columns = np.arange(layout.n_local + 1), own
            self._values = np.ones(layout.n_local)
            self.diagonal, self.finite = np.ones(layout.n_local), True
            return
        indptr, indices, values = _local_rows(matrix)
        self._indptr, self._values = indptr, np.abs(values)
        self.finite = bool(np.isfinite(self._values).all())
        row = np.repeat(own, np.diff(indptr))
        outside = (indices < layout.start) | (indices >= layout.stop)
        self._columns = np.where(outside, 0, indices - layout.start)
        self.diagonal = np.bincount(
            row[~outside & (self._columns == row)],
            self._values[~outside & (self._columns == row)],
            layout.n_local,
        )
        ghosts, place = np.unique(indices[outside], return_inverse=True)
        self._columns[outside] = layout.n_local + place
        if layout.comm.size > 1:
            self._whole = PETSc.Vec().createMPI((layout.n_local, layout.n), comm=layout.comm)
            self._ghosts = PETSc.Vec().createSeq(len(ghosts), comm=PETSc.COMM_SELF)
            wanted = PETSc.IS().createGeneral(ghosts.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
            self._scatter = PETSc.Scatter().create(self._whole, wanted, self._ghosts, None)
            destroy(wanted)

    def shift_exponents(self, power: int) -> None:
        """Multiply all entries by two to a power. Not collective."""
        self._values, self.diagonal = np.ldexp(self._values, power), np.ldexp(self.diagonal, power)

    def largest(self, d: np.ndarray) -> np.ndarray:
        """Return (n_local,) max_j |a_ij| d_j. Collective."""
        scaled, full = self._scaled(d), np.flatnonzero(np.diff(self._indptr))
        result = np.zeros(self.layout.n_local)
        if len(full):
            result[full] = np.maximum.reduceat(scaled, self._indptr[full])
        return result

    def sums(self, d: np.ndarray) -> np.ndarray:
        """Return (n_local,) Σ_j d_i |a_ij| d_j. Collective."""
        row = np.repeat(np.arange(self.layout.n_local), np.diff(self._indptr))
        return d * np.bincount(row, self._scaled(d), minlength=self.layout.n_local)

    def semidefinite_sums(self, d: np.ndarray) -> np.ndarray:
        """Return (n_local,) mᵢ with |x|ᵀ |D A D| |x| ≤ Σ mᵢ |xᵢ|² of a semidefinite A.

        Collective. The sums of rows of A scaled to a diagonal of ones, times the diagonal: for any t,
        2 |xᵢ| |xⱼ| ≤ t |xᵢ|² + |xⱼ|² / t, here t² = aᵢᵢ / aⱼⱼ. A light variable beside heavy ones has large
        entries in its row, which the sums of rows as they are would count as its own.
        """
        root = np.where(self.diagonal > 0, 1 / np.sqrt(np.where(self.diagonal > 0, self.diagonal, 1.0)), 0.0)
        return d**2 * self.diagonal * self.sums(root)

    def frobenius(self, d: np.ndarray) -> float:
        """Return the Frobenius norm of D A D, whose entries must not be extreme. Collective."""
        row = np.repeat(np.arange(self.layout.n_local), np.diff(self._indptr))
        squares = float(np.sum((d[row] * self._scaled(d)) ** 2))
        return float(np.sqrt(self.layout.comm.allreduce(squares)))

    def _scaled(self, d: np.ndarray) -> np.ndarray:
        """Return |a_ij| d_j of all entries."""
        if self._scatter is None:
            return self._values * d[self._columns]
        self._whole.setArray(d)
        self._scatter.scatter(self._whole, self._ghosts)
        everywhere = np.concatenate([d, self._ghosts.getArray(readonly=True).real])
        return self._values * everywhere[self._columns]

    def close(self) -> None:
        """Destroy what exchanges with other ranks. Collective."""
        if self._scatter is not None:
            destroy(self._scatter, self._whole, self._ghosts)
            self._scatter = None


class PencilScales(NamedTuple):
    """How a pencil is scaled, and what it is like then.

    Attributes
    ----------
    d
        (n_local,) powers of two; ones where the rows are of about one size.
    power
        Eigenvalues of the scaled problem are smaller by two to this power: 0 unless they are extreme.
    rows_a, rows_m
        (n_local,) weights that bound |x|ᵀ |A| |x| and |x|ᵀ |M| |x| of the scaled problem by Σ aᵢ |xᵢ|² and
        Σ mᵢ |xᵢ|²: sums of the rows of |2^-power D A D| and of |D M D|, or less.
    typical, middle
        Medians of |a_ii| / m_ii and of the ratio of these sums, over the variables that have both: sizes of
        eigenvalues of the scaled problem.
    norms
        Frobenius norms of the scaled A and M.
    empty
        Global numbers of the variables that have neither an entry of A nor one of M.
    """

    d: np.ndarray
    power: int
    rows_a: np.ndarray
    rows_m: np.ndarray
    typical: float
    middle: float
    norms: tuple[float, float]
    empty: np.ndarray

    def alike(self, comm: MPI.Comm) -> bool:
        """Return whether nothing is to be scaled. Collective."""
        same = bool((self.d == 1.0).all()) and self.power == 0 and not len(self.empty)
        return all(comm.allgather(same))


def find_scales(
    A: PETSc.Mat, M: PETSc.Mat | None, layout: Layout, sizeless: np.ndarray | None = None
) -> PencilScales:
    """Return the symmetric scaling of an assembled pencil by powers of two.

    Collective. All row maxima of max(|D A D|, s |D M D|) come to lie near 1, with s the median of |a_ii| / m_ii:
    Ruiz 2001, "A scaling algorithm to equilibrate both rows and columns norms in matrices"; it keeps symmetry.

    Parameters
    ----------
    sizeless
        (n_local,) bool: rows whose entries tell nothing of the size of an eigenvalue, see `find_sizeless`. No
        median is of these, unless all are such.
    """
    comm = layout.comm
    a, m = AbsoluteRows(A, layout), AbsoluteRows(M, layout)
    try:
        for name, rows in (("the Hessian", a), ("the mass matrix", m)):
            if not all(comm.allgather(rows.finite)):
                raise InputError(f"{name} has entries that are not finite")
        told = np.ones(layout.n_local, bool)
        if sizeless is not None and not all(comm.allgather(bool(sizeless.all()))):
            told = ~sizeless
        both = told & (m.diagonal > 0) & (a.diagonal > 0)
        power = int(np.floor(_median_logarithm(np.log2(a.diagonal[both]) - np.log2(m.diagonal[both]), comm)))
        power = power if abs(power) > _EXTREME else 0
        a.shift_exponents(-power)
        typical = median(a.diagonal[both] / m.diagonal[both], comm)
        d = _balance(a, m, typical or 1.0, comm)
        rows_a, rows_m = a.sums(d), m.semidefinite_sums(d)
        mass = rows_m > 0
        empty = layout.start + np.flatnonzero((rows_a == 0) & ~mass)
        sized = told & mass
        return PencilScales(
            d=d,
            power=power,
            rows_a=rows_a,
            rows_m=rows_m,
            typical=typical,
            middle=median(rows_a[sized] / rows_m[sized], comm),
            norms=(a.frobenius(d), m.frobenius(d)),
            empty=np.concatenate(comm.allgather(empty)),
        )
    finally:
        a.close()
        m.close()


def find_sizeless(
    A: PETSc.Mat, M: PETSc.Mat | None, layout: Layout, known: EntryErrors | None, null: Sequence[PETSc.Vec]
) -> np.ndarray | None:
    """Return (n_local,) bool: rows of A that tell nothing of the size of an eigenvalue; None where all tell.

    Collective. Their entries are no more than their errors, all together; or the variable moves by known null
    vectors alone, as two atoms do across the line that joins them: what they leave of it in the mass is less than
    the part by which rows may differ.

    Parameters
    ----------
    known
        Errors of the entries.
    null
        Known null vectors, orthonormal in the mass.
    """
    found = np.zeros(layout.n_local, bool)
    if known is not None:
        a, ones = AbsoluteRows(A, layout), np.ones(layout.n_local)
        found |= a.sums(ones) <= known.of_product(ones)
        a.close()
    if null:
        m, taken, image = AbsoluteRows(M, layout), np.zeros(layout.n_local), A.createVecLeft()
        for vector in null:
            if M is None:
                vector.copy(image)
            else:
                M.mult(vector, image)
            taken += np.abs(image.getArray(readonly=True)) ** 2
        found |= (m.diagonal > 0) & (m.diagonal - taken <= m.diagonal / _ALIKE)
        destroy(image)
        m.close()
    return found if any(layout.comm.allgather(bool(found.any()))) else None


def _balance(a: AbsoluteRows, m: AbsoluteRows, mass: float, comm: MPI.Comm) -> np.ndarray:
    """Return (n_local,) powers of two that bring the row maxima of max(|A|, mass |M|) near 1. Collective.

    Variables with a mass by their diagonal; those without by what they are coupled to, such as multipliers, or by
    their diagonal where that is larger; rows in which another entry is larger then, as of an indefinite A, by
    sweeps of Ruiz's iteration. Those sweeps alone may make what a multiplier constrains as small as the multiplier
    is large: rows are even, and A is lost.
    """
    ones = np.ones(a.layout.n_local)
    before = np.maximum(a.largest(ones), m.largest(ones) * mass)
    before[before == 0] = 1.0
    least = comm.allreduce(float(before.min(initial=np.inf)), MPI.MIN)
    most = comm.allreduce(float(before.max(initial=0.0)), MPI.MAX)
    if most <= _ALIKE * least and least > 2.0**-_EXTREME and most < 2.0**_EXTREME:
        return ones
    heavy = m.diagonal > 0
    own = np.maximum(a.diagonal, m.diagonal * mass)
    d = np.where(heavy, 1 / np.sqrt(np.where(heavy, own, 1.0)), 0.0)
    for _ in range(_PASSES):
        coupled = a.largest(d)
        light = (d == 0) & (coupled > 0)
        d[light] = 1 / np.maximum(coupled, np.sqrt(own))[light]
    alone = (d == 0) & (own > 0)
    d[alone] = 1 / np.sqrt(own[alone])
    d[d == 0] = 1.0
    for _ in range(_SWEEPS):
        d /= np.sqrt(np.maximum(d * np.maximum(a.largest(d), m.largest(d) * mass), 1.0))
    return np.exp2(np.round(np.log2(d)))


def median(values: np.ndarray, comm: MPI.Comm) -> float:
    """Return the median of the positive ones of some numbers on all ranks, to a tenth; 0 where there are none.

    Collective.
    """
    numbers = values[(values > 0) & np.isfinite(values)]
    if not comm.allreduce(len(numbers)):
        return 0.0
    return float(2.0 ** _median_logarithm(np.log2(numbers), comm))


def _median_logarithm(exponents: np.ndarray, comm: MPI.Comm) -> float:
    """Return the median of logarithms to the base of two on all ranks, to a sixteenth; 0 of none. Collective.

    It is read from a histogram: nothing is gathered.
    """
    place = np.floor(exponents * _BINS).astype(np.int64) + _BINS * _EXPONENTS
    counts = np.bincount(place, minlength=2 * _BINS * _EXPONENTS)
    comm.Allreduce(MPI.IN_PLACE, counts)
    total = counts.sum()
    if total == 0:
        return 0.0
    middle = int(np.searchsorted(np.cumsum(counts), 0.5 * total))
    return (middle + 0.5) / _BINS - _EXPONENTS


def scaled_copy(matrix: PETSc.Mat | None, d: PETSc.Vec, power: int = 0) -> PETSc.Mat:
    """Return 2^-power D A D; D² where A is None. The caller destroys it. Collective."""
    if matrix is None:
        squares = d.duplicate()
        squares.pointwiseMult(d, d)
        result = PETSc.Mat().createAIJ((d.getSizes(),) * 2, nnz=1, comm=d.comm)
        result.setDiagonal(squares)
        destroy(squares)
    else:
        result = matrix.duplicate(copy=True)
        result.scale(2.0 ** (-power // 2))  # in two steps: the whole may be no number
        result.scale(2.0 ** (-power - (-power // 2)))
        result.diagonalScale(d, d)
    result.setOption(PETSc.Mat.Option.HERMITIAN, True)  # of real scalars the same as symmetric
    return result


def fill_diagonal(matrix: PETSc.Mat, rows: np.ndarray) -> None:
    """Set the diagonal entries of some rows of all to one, whether they are stored or not. Collective."""
    matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    start, stop = matrix.getOwnershipRange()
    for row in rows[(rows >= start) & (rows < stop)]:
        matrix.setValue(int(row), int(row), 1.0)
    matrix.assemble()


def add_light_mass(matrix: PETSc.Mat, rows_m: np.ndarray) -> None:
    """Add a few last digits of M to its diagonal; `rows_m` (n_local,) are the sums of its rows. Collective."""
    add_to_diagonal(matrix, _LIGHT * rows_m)


def add_to_diagonal(matrix: PETSc.Mat, values: np.ndarray) -> None:
    """Add (n_local,) values to the diagonal of a matrix. Collective."""
    vector = matrix.createVecRight()
    vector.setArray(values)
    matrix.setDiagonal(vector, PETSc.InsertMode.ADD_VALUES)
    destroy(vector)


def _local_rows(matrix: PETSc.Mat) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the local rows of a matrix of any type that has entries; both triangles. Collective."""
    whole = matrix
    if "sbaij" in matrix.getType() or matrix.getType() not in ("seqaij", "mpiaij"):
        whole = matrix.convert("aij", PETSc.Mat())
    indptr, indices, values = whole.getValuesCSR()
    if whole is not matrix:
        destroy(whole)
    return indptr, indices, values
