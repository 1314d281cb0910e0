"""How many eigenvalues of a pencil with a singular mass are infinite, and on which side the pivots count them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.equilibration import AbsoluteRows
from sparsehess.eigen.problem.inertia_of_matrix import pivots_of, signs_of
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout

# Shifts, over the typical eigenvalue, from which nothing finite is expected farther out.
_FAR = 10.0 ** np.arange(2, 11)

# A shift, over the typical eigenvalue, that is none of a regular pencil.
_GENERIC = (0.618033988749895, -1.324717957244746)


class Infinite(NamedTuple):
    """Infinite eigenvalues, as the pivots of A - shift M count them at any finite shift.

    Attributes
    ----------
    below, above
        How many of the negative, and of the positive pivots are theirs.
    """

    below: int
    above: int

    @property
    def number(self) -> int:
        """How many there are."""
        return self.below + self.above


def count_infinite(
    A: PETSc.Mat, M: PETSc.Mat, layout: Layout, nullity: int, typical: float, rows: tuple[np.ndarray, np.ndarray]
) -> Infinite:
    """Return how many eigenvalues of a scaled pencil are infinite.

    Collective. With N a basis of the null space of M, of dimension m, each zero eigenvalue of NᵀAN is part of a
    Jordan block of size two at infinity, which has a pivot of each sign; the others are simple and have the sign
    of their eigenvalue of NᵀAN. Where N are variables, NᵀAN is a part of A; else the pivots far out on both sides
    tell. (Canonical form of a regular symmetric pencil with a semidefinite matrix: Lancaster and Rodman 2005,
    "Canonical forms for Hermitian matrix pairs under strict equivalence and congruence", theorem 6.1.)

    Parameters
    ----------
    nullity
        m.
    typical
        Size of an eigenvalue in the middle.
    rows
        (n_local,) sums of the absolute values of the rows of A and of M.

    Raises
    ------
    InputError
        The pencil is singular: A and M share null vectors. Or the pivots do not tell.
    """
    size = typical or 1.0
    shared = min(_nullity_at(A, M, factor * size, rows) for factor in _GENERIC)
    if shared:
        raise InputError(
            f"the pencil cannot be told from a singular one: to rounding H - σM has {shared} null vector(s) at "
            "unrelated shifts. Either the Hessian and the mass matrix share null vectors: hold what neither "
            "resists, or give it a mass; or constraints lean on each other beside large entries: take smaller "
            "penalties"
        )
    empty = np.flatnonzero(rows[1] == 0)
    if layout.comm.allreduce(len(empty)) == nullity:
        return _by_variables(A, layout, empty)
    return _by_far_shifts(A, M, layout, nullity, size)


def _nullity_at(A: PETSc.Mat, M: PETSc.Mat, shift: float, rows: tuple[np.ndarray, np.ndarray]) -> int:
    """Return the dimension of the null space of A - shift M to the accuracy of its rows. Collective."""
    whole = shifted_matrix(A, M, shift)
    try:
        return signs_of(whole, rows[0] + abs(shift) * rows[1]).zero
    finally:
        destroy(whole)


def _by_variables(A: PETSc.Mat, layout: Layout, empty: np.ndarray) -> Infinite:
    """Return the count where the massless directions are variables, of local numbers. Collective."""
    chosen = PETSc.IS().createGeneral((layout.start + empty).astype(PETSc.IntType), comm=A.comm)
    part = A.createSubMatrix(chosen, chosen)
    destroy(chosen)
    rows = AbsoluteRows(part, Layout.from_local(len(empty), layout.comm))
    try:
        negative, zero, positive = signs_of(part, rows.sums(np.ones(len(empty))))
    finally:
        rows.close()
        destroy(part)
    return Infinite(negative + zero, positive + zero)


def _by_far_shifts(A: PETSc.Mat, M: PETSc.Mat, layout: Layout, nullity: int, size: float) -> Infinite:
    """Return the count from pivots on both sides of all finite eigenvalues. Collective.

    Farther out nothing changes, until rounding of M is felt: the first shift is taken whose counts stay as they
    are for two more, and that leaves as many finite ones as the null space allows.
    """
    counts: list[tuple[int, int]] = []
    for factor in _FAR:
        pair = []
        for shift in (-factor * size, factor * size):
            whole = shifted_matrix(A, M, shift)
            try:
                pair.append(pivots_of(whole).negative)
            finally:
                destroy(whole)
        counts.append((pair[0], pair[1]))
        if len(counts) >= 3 and counts[-1] == counts[-2] == counts[-3]:
            below, upto = counts[-1]
            if layout.n - 2 * nullity <= upto - below <= layout.n - nullity:
                return Infinite(below, layout.n - upto)
    raise InputError(
        f"the mass matrix has {nullity} massless directions, and the pivots far out do not tell how many "
        "eigenvalues are infinite: scale the mass matrix, or condense those directions out"
    )


def shifted_matrix(A: PETSc.Mat, M: PETSc.Mat, shift: float) -> PETSc.Mat:
    """Return A - shift M. The caller destroys it. Collective."""
    whole = A.duplicate(copy=True)
    whole.axpy(-shift, M, PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
    whole.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    return whole
