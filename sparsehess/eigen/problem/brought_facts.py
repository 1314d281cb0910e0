"""What a Hessian brings with it to a problem: mass, null vectors, units, errors, structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.derivatives.units import Units
from sparsehess.errors import CheckError
from sparsehess.hessian.entry_errors import EntryErrors
from sparsehess.hessian.hessian import Hessian
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.long_range.near_far_hessian import NearFar
from sparsehess.operators.operator import Operator
from sparsehess.operators.products import Products
from sparsehess.operators.structure import NOTHING, Structure

# Errors of this part of a Hessian that come from noise leave nothing of it.
HOPELESS = 0.3

# A matrix is symmetric if x'(H y) and y'(H x) agree to this part of |H| |x| |y|.
SYMMETRY = 1e-10


@dataclass(frozen=True)
class Known:
    """What a matrix brings with it.

    Attributes
    ----------
    matrix
        What `as_mat` takes.
    mass, null, near_null, units
        Those of its objective.
    projected
        Whether the null vectors are projected out whatever the matrix says of them.
    relative_error
        Of its entries.
    entry_errors
        Estimates of the errors of its entries, or None.
    symmetry
        By what part of its norm it may be unsymmetric.
    structure
        What it tells exactly of itself.
    noisy
        Whether its error is that of noise, and not of rounding.
    """

    matrix: object
    mass: object = None
    null: object = None
    projected: bool = False
    near_null: object = None
    units: Units | None = None
    relative_error: float = 0.0
    entry_errors: EntryErrors | None = None
    symmetry: float = SYMMETRY
    structure: Structure = NOTHING
    noisy: bool = False


def known_of(matrix: object) -> Known:
    """Return what a matrix brings with it. Collective."""
    if isinstance(matrix, Products):
        return Known(matrix.mat, relative_error=matrix.error, symmetry=matrix.exactness)
    if isinstance(matrix, Operator) and not isinstance(matrix, NearFar):
        return Known(matrix.mat, structure=matrix)
    if not isinstance(matrix, (Hessian, MatrixFree, NearFar)):
        return Known(matrix)
    objective, error, symmetry = matrix.objective, 0.0, SYMMETRY
    if isinstance(matrix, MatrixFree):
        symmetry, error = matrix.exactness, matrix.error
    elif matrix.error > 0:
        error = matrix.error
    return Known(
        matrix.mat,
        mass=objective.mass,
        null=_null_vectors_at(matrix),
        projected=objective.projected is not None,
        near_null=objective.near_null,
        units=objective.units,
        relative_error=error,
        entry_errors=matrix.entry_errors if isinstance(matrix, Hessian) else None,
        symmetry=symmetry,
        noisy=isinstance(matrix, MatrixFree) and matrix.noisy,
    )


def _null_vectors_at(matrix: Hessian | MatrixFree | NearFar) -> object:
    """Return the null vectors of an objective where its Hessian was taken. Collective."""
    objective = matrix.objective
    if objective.projected is None:
        return objective.null_vectors
    x = np.concatenate(objective.comm.allgather(matrix.point))
    return objective.projected_at(x)[0]


def only_projected(matrix: object) -> list | None:
    """Return the null vectors of `EigenProblem.of` where those that a matrix brings are not to be deflated.

    Not collective. None, those that it brings, where they are projected out whatever it says of them: then the
    problem is another one without them.
    """
    brings = isinstance(matrix, (Hessian, MatrixFree, NearFar)) and matrix.objective.projected is not None
    return None if brings else []


def lost_in_noise(error: float) -> CheckError:
    """Return what is to be raised where noise, with this error of products or entries, leaves nothing."""
    return CheckError(
        f"the Hessian is lost in the noise of its products, which err by {error:.1g} of it: compute what "
        "they come from with more digits, tell typical_x if the function changes over longer distances, "
        "or assemble it, where a pattern is known"
    )
