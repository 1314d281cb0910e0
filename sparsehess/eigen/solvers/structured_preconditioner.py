"""A structured matrix near the Hessian as a preconditioner: at an end of the spectrum, and at FEAST's points."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.shifted_real_form import MatrixFreeRealForm
from sparsehess.eigen.solvers.structured_inverse import (
    AbsoluteInverse,
    DefiniteInverse,
    Map,
    Untold,
    inverse_shell,
    structure_of,
)
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, called_back, destroy

# How much farther out a shift is taken after a solve that has ended early.
_STEP = 1e2


class NearbyStructure:
    """The definite inverse of the structured matrix near A that a problem has, for one end of the spectrum.

    Collective to make and to use.

    Attributes
    ----------
    matrix
        A shell whose products are that inverse's, which PETSc's preconditioner `mat` applies.
    defaults
        PETSc options that say so.
    """

    def __init__(self, problem: EigenProblem, which: str, options: dict):
        for name in options:
            if name.startswith("st_pc_"):
                raise InputError(
                    f"option {name}: a structured preconditioner is applied by its own solves; leave the option "
                    "out, or give an assembled matrix"
                )
        self.defaults: dict = {"st_pc_type": "mat"}
        self._inverse = DefiniteInverse(problem, which)
        self.matrix = inverse_shell(structure_of(problem), self._inverse)

    def on_panels(self, options: dict) -> _Panels:
        """Return what applies it to panels of vectors. Not collective."""
        return _Panels(self._inverse)

    def adapt(self, values: np.ndarray, broke: bool) -> bool:
        """Move the shift out where a solve has ended early, and say so: an inverse too near to singular.

        Collective.
        """
        if broke:
            self._inverse.widen(_STEP)
        return broke

    def close(self) -> None:
        """Destroy the shell. Collective."""
        destroy(self.matrix)
        self.matrix = None


class _Panels:
    """X to T X of panels (m, n_local)."""

    def __init__(self, inverse: Map):
        self._inverse = inverse

    def __call__(self, panel: np.ndarray) -> np.ndarray:
        """Return the image of a panel (m, n_local). Collective."""
        return self._inverse(np.ascontiguousarray(panel.T)).T

    def close(self) -> None:
        """Do nothing: nothing is kept."""


class StructuredRealForm(MatrixFreeRealForm):
    """The doubled matrices of a shell, preconditioned by the structured matrix near it that the problem has.

    By |P − z|⁻¹ for both halves, which is positive definite and all that MINRES would want of P itself; of a
    structure that tells no eigenvectors by its definite inverse below the spectrum.
    """

    defaults: ClassVar[dict] = {**MatrixFreeRealForm.defaults, "pc_type": "mat"}
    _definite: DefiniteInverse | None = None

    def matrices(self, z: complex) -> tuple[PETSc.Mat, PETSc.Mat]:
        """Return a shell at z, and the shell of its preconditioner. Collective."""
        matrix, plain = super().matrices(z)
        destroy(plain)
        size, comm = ((self.doubled.n_local, self.doubled.n),) * 2, self.layout.comm
        preconditioner = PETSc.Mat().createPython(size, _Both(self._inverse_at(z)), comm=comm)
        preconditioner.setUp()
        return matrix, preconditioner

    def move(self, matrix: PETSc.Mat, preconditioner: PETSc.Mat, z: complex) -> None:
        """Give the shells another z. Collective."""
        matrix.getPythonContext().z = z
        preconditioner.getPythonContext().become(self._inverse_at(z))

    def _inverse_at(self, z: complex) -> AbsoluteInverse | DefiniteInverse:
        if self._definite is None:
            try:
                return AbsoluteInverse(self.problem, z)
            except Untold:
                self._definite = DefiniteInverse(self.problem, "smallest")
        return self._definite


class _Both:
    """What PETSc calls: one inverse for both halves, which interleave."""

    def __init__(self, inverse: AbsoluteInverse | DefiniteInverse):
        self._inverse = inverse

    def become(self, inverse: AbsoluteInverse | DefiniteInverse) -> None:
        """Take another inverse, and close this one. Collective."""
        self._inverse.close()
        self._inverse = inverse

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        halves = x.getArray(readonly=True).reshape(-1, 2)
        y.setArray(self._inverse(halves.copy()).ravel())

    multTranspose = mult  # the name is PETSc's

    def destroy(self, mat: PETSc.Mat) -> None:
        """Close the inverse. Collective."""
        self._inverse.close()
