"""Diagonals that a matrix is no less than, as quadratic forms: what norms of residuals divide by."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.equilibration import AbsoluteRows
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.row_layout import Layout

# A diagonal that exceeds the rest of its row by less than this part of itself may owe that to rounding.
_DOMINANT = 1e-8

# Steps towards the weights in which rows are dominated the most; none where a rest is so many diagonals.
_STEPS, _HOPELESS = 6, 1.5


def diagonal_floor(matrix: PETSc.Mat | None, layout: Layout, least: float = 0.0) -> np.ndarray:
    """Return (n_local,) a diagonal F with xᵀFx ≤ xᵀAx for all x; zeros where none is known, or a row is empty.

    Collective. A diagonal matrix itself, ones for the identity. For any weights t > 0 the diagonal less
    Σ |aᵢⱼ| tⱼ/tᵢ of the others of a row is one, as 2 |xᵢ xⱼ| ≤ |xᵢ|² tⱼ/tᵢ + |xⱼ|² tᵢ/tⱼ (Gershgorin 1931, "Über
    die Abgrenzung der Eigenwerte einer Matrix"). A few steps of the power iteration take the weights towards those
    in which the least of its parts is the largest (Collatz 1942, Wielandt 1950).

    Parameters
    ----------
    matrix
        The identity where it is None.
    least
        A is known to be no less than so many times its diagonal.
    """
    if matrix is None:
        return np.ones(layout.n_local)
    if not is_assembled(matrix):
        return np.zeros(layout.n_local)
    rows, signed = AbsoluteRows(matrix, layout), matrix.getDiagonal()
    try:
        diagonal = signed.getArray(readonly=True).real.copy()
        heavy, sizes = diagonal > 0, rows.sums(np.ones(layout.n_local))
        sound = bool((diagonal >= 0).all() and (sizes[~heavy] == 0).all())
        if not all(layout.comm.allgather(sound)):
            return np.zeros(layout.n_local)
        weight, floor = 1 / np.sqrt(np.where(heavy, diagonal, 1.0)), least * diagonal
        for _ in range(_STEPS):
            beside = np.where(heavy, rows.sums(weight) / weight**2 - diagonal, 0.0)
            part = np.divide(beside, diagonal, out=np.zeros(layout.n_local), where=heavy)
            most = layout.comm.allreduce(float(part.max(initial=0.0)), MPI.MAX)
            if 1 - most > max(least, _DOMINANT):
                least, floor = 1 - most, diagonal - beside
            if not _DOMINANT < most < _HOPELESS:
                break
            weight = weight * (1 + part)
    finally:
        rows.close()
        destroy(signed)
    return floor
