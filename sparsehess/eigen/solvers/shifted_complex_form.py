"""zM − A for complex z as it is, where PETSc's scalars are complex: half the rows of `doubled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from sparsehess.eigen.problem.pencil import dense_block, pencil
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.shifted_real_form import DIRECT, AssembledRealForm
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.process_groups import Teams

# MUMPS's ICNTL(9): whether a solve is with the matrix itself, 1, or with its transpose.
_TRANSPOSED = 9


class ComplexForm:
    """The matrices zM − A of a Hermitian problem whose matrices are assembled. Collective to make.

    The points of the lower half plane, which real arithmetic gets for nothing, are solved for with the same
    factor: (z̄M − A) is the conjugate transpose of (zM − A).

    Attributes
    ----------
    layout
        Rows of the problem on this rank's team.
    defaults
        PETSc options of the solves.
    """

    defaults: ClassVar[dict] = {**AssembledRealForm.defaults, "pc_type": "lu"}

    def __init__(self, problem: EigenProblem, teams: Teams | None):
        rows = pencil(problem)
        self.layout = problem.layout if teams is None else teams.layout
        indptr, indices, a, m = rows if teams is None else teams.gather(*rows)
        self._a: np.ndarray = a
        self._m: np.ndarray = m
        self._indptr, self._indices = indptr.astype(PETSc.IntType), indices.astype(PETSc.IntType)

    def matrices(self, z: complex) -> tuple[PETSc.Mat, PETSc.Mat]:
        """Return the matrix at z, and what a preconditioner is made from: the same. Collective."""
        csr = (self._indptr, self._indices, z * self._m - self._a)
        sizes = ((self.layout.n_local, self.layout.n),) * 2
        matrix = PETSc.Mat().createAIJ(sizes, csr=csr, comm=self.layout.comm)
        return matrix, matrix

    def move(self, matrix: PETSc.Mat, preconditioner: PETSc.Mat, z: complex) -> None:
        """Give a matrix the values of another z; its nonzeros stay. Collective."""
        matrix.setValuesCSR(self._indptr, self._indices, z * self._m - self._a)
        matrix.assemble()

    def parts(self, ksp: PETSc.KSP, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return U, V with (zM − A)⁻¹ Y = U + iV and (z̄M − A)⁻¹ Y = U − iV. Collective."""
        above, below = self._solved(ksp, Y)
        return (above + below) / 2, (above - below) / 2j

    def _solved(self, ksp: PETSc.KSP, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # With the transpose, and conjugates of right and left: K̄ᵀx = y is Kᵀx̄ = ȳ.
        if ksp.getType() == "preonly" and ksp.getPC().getType() in DIRECT:
            factor = ksp.getPC().getFactorMatrix()
            if factor.getType() == "mumps":
                above = self._block(factor, Y)
                factor.setMumpsIcntl(_TRANSPOSED, 0)
                try:
                    below = self._block(factor, Y.conj()).conj()
                finally:
                    factor.setMumpsIcntl(_TRANSPOSED, 1)
                return above, below
        return self._one_by_one(ksp.solve, ksp, Y), self._one_by_one(ksp.solveTranspose, ksp, Y.conj()).conj()

    def _block(self, factor: PETSc.Mat, Y: np.ndarray) -> np.ndarray:
        B, X = (
            dense_block(self.layout, Y),
            dense_block(self.layout, np.zeros(Y.shape, PETSc.ScalarType, order="F")),
        )
        factor.matSolve(B, X)
        array = X.getDenseArray().copy()
        destroy(X, B)
        return array

    def _one_by_one(
        self, solve: Callable[[PETSc.Vec, PETSc.Vec], None], ksp: PETSc.KSP, Y: np.ndarray
    ) -> np.ndarray:
        x, b = ksp.getOperators()[0].createVecs()
        left = np.empty(Y.shape, PETSc.ScalarType, order="F")
        for i in range(Y.shape[1]):
            b.setArray(Y[:, i])
            solve(b, x)
            left[:, i] = x.getArray(readonly=True)
        destroy(x, b)
        return left

    def close(self) -> None:
        """Destroy nothing: nothing is kept. Not collective."""
