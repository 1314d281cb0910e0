"""zM − A for complex z as a real symmetric matrix of twice the size, assembled or not.

(K + ibM)(u + iv) = y with K = aM − A is, in real numbers, [[K, −bM], [−bM, −K]] [u; v] = [y; 0]: symmetric.
u and v interleave, so that an ordering sees the graph of A with every vertex twice. On a 3-D Laplacian with
n = 10,648 its LDLᵀ has 3.9 times the entries of a real A − aM, and LU of the unsymmetric form 7.4 times.

Where scalars are complex and A is Hermitian the same holds of complex u, v, y: the doubled matrix is Hermitian,
and u + iv, u − iv are the solutions at z and at its conjugate. So shells are solved in either build.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sparsehess.eigen.problem.pencil import dense_block, pencil
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, called_back, destroy, held_errors
from sparsehess.runtime.petsc_matrices import diagonal_of
from sparsehess.runtime.process_groups import Teams
from sparsehess.runtime.row_layout import Layout

# Preconditioners that are factorizations, and solve for blocks.
DIRECT = ("cholesky", "lu")


class _Halves:
    """What doubled matrices have in common: their solutions."""

    layout: Layout
    doubled: Layout

    def parts(self, ksp: PETSc.KSP, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return U, V with (zM − A)⁻¹ Y = U + iV and (z̄M − A)⁻¹ Y = U − iV.

        Collective. As blocks where there is a factorization to apply.
        """
        right = np.zeros((2 * Y.shape[0], Y.shape[1]), PETSc.ScalarType, order="F")
        right[0::2] = Y
        left = np.zeros_like(right)
        if ksp.getType() == "preonly" and ksp.getPC().getType() in DIRECT:
            B, X = dense_block(self.doubled, right), dense_block(self.doubled, left)
            ksp.getPC().getFactorMatrix().matSolve(B, X)
            left = X.getDenseArray().copy()
            destroy(X, B)
        else:
            x, b = ksp.getOperators()[0].createVecs()
            for i in range(Y.shape[1]):
                b.setArray(right[:, i])
                with held_errors():
                    ksp.solve(b, x)
                left[:, i] = x.getArray(readonly=True)
            destroy(x, b)
        return left[0::2], left[1::2]


class AssembledRealForm(_Halves):
    """The doubled matrices of a problem whose matrices are assembled. Collective to make.

    Attributes
    ----------
    layout, doubled
        Rows of the problem on this rank's team, and of twice the size.
    defaults
        PETSc options of the solves.
    """

    defaults: ClassVar[dict] = {
        "ksp_type": "preonly",
        "pc_type": "cholesky",
        "pc_factor_mat_solver_type": "mumps",
        "mat_mumps_icntl_14": 50,  # room for pivoting, in percent
    }

    def __init__(self, problem: EigenProblem, teams: Teams | None):
        rows = pencil(problem)
        self.layout = problem.layout if teams is None else teams.layout
        indptr, indices, a, m = rows if teams is None else teams.gather(*rows)
        self._a: np.ndarray = a
        self._m: np.ndarray = m
        self.doubled = Layout(self.layout.comm, 2 * self.layout.starts)
        lengths = np.diff(indptr)
        self._indptr = np.concatenate([[0], np.cumsum(np.repeat(2 * lengths, 2))]).astype(PETSc.IntType)
        own = np.repeat(np.arange(len(lengths)), lengths)
        # Where an entry goes in the first row of its pair, and in the second.
        self._even = self._indptr[2 * own] + 2 * (np.arange(len(indices)) - indptr[own])
        self._odd = self._even + 2 * lengths[own]
        self._indices = np.empty(4 * len(indices), PETSc.IntType)
        for at in (self._even, self._odd):
            self._indices[at], self._indices[at + 1] = 2 * indices, 2 * indices + 1

    def matrices(self, z: complex) -> tuple[PETSc.Mat, PETSc.Mat]:
        """Return the matrix at z, and what a preconditioner is made from: the same. Collective."""
        csr = (self._indptr, self._indices, self._values(z))
        sizes = ((self.doubled.n_local, self.doubled.n),) * 2
        matrix = PETSc.Mat().createAIJ(sizes, csr=csr, comm=self.layout.comm)
        matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        return matrix, matrix

    def move(self, matrix: PETSc.Mat, preconditioner: PETSc.Mat, z: complex) -> None:
        """Give a matrix the values of another z; its nonzeros stay. Collective."""
        matrix.setValuesCSR(self._indptr, self._indices, self._values(z))
        matrix.assemble()

    def _values(self, z: complex) -> np.ndarray:
        values = np.empty(4 * len(self._a))
        values[self._even] = z.real * self._m - self._a
        values[self._even + 1] = values[self._odd] = -z.imag * self._m
        values[self._odd + 1] = -values[self._even]
        return values

    def close(self) -> None:
        """Destroy nothing: nothing is kept. Not collective."""


class MatrixFreeRealForm(_Halves):
    """The doubled matrices of a problem of which products alone are known, on all ranks. Collective to make.

    The preconditioner is their diagonal, sqrt(k² + b²m²), where A has one, and the identity elsewhere.
    """

    defaults: ClassVar[dict] = {
        "ksp_type": "minres",
        "ksp_rtol": 1e-3,
        "ksp_max_it": 1000,
        "pc_type": "jacobi",
    }

    def __init__(self, problem: EigenProblem, teams: Teams | None = None):
        self.problem, self.layout = problem, problem.layout
        self.doubled = Layout(self.layout.comm, 2 * self.layout.starts)
        self._a = diagonal_of(problem.A)
        self._m = np.ones(self.layout.n_local) if problem.M is None else diagonal_of(problem.M)
        self._work = [problem.A.createVecRight() for _ in range(4)]

    def matrices(self, z: complex) -> tuple[PETSc.Mat, PETSc.Mat]:
        """Return a shell at z, and the diagonal matrix to precondition it by. Collective."""
        sizes, comm = ((self.doubled.n_local, self.doubled.n),) * 2, self.layout.comm
        matrix = PETSc.Mat().createPython(sizes, _Doubled(self.problem, self._work, z), comm=comm)
        matrix.setOption(PETSc.Mat.Option.HERMITIAN, True)
        matrix.setUp()
        diagonal = PETSc.Mat().createAIJ(sizes, nnz=1, comm=comm)
        self._precondition(diagonal, z)
        return matrix, diagonal

    def move(self, matrix: PETSc.Mat, preconditioner: PETSc.Mat, z: complex) -> None:
        """Give a shell another z. Collective."""
        matrix.getPythonContext().z = z
        self._precondition(preconditioner, z)

    def _precondition(self, matrix: PETSc.Mat, z: complex) -> None:
        vector = matrix.createVecRight()
        if self._a is None or self._m is None:
            vector.set(1.0)
        else:
            sizes = np.hypot(z.real * self._m - self._a, z.imag * self._m)
            vector.setArray(np.repeat(np.maximum(sizes, 1e-8 * self.problem.scale), 2))
        matrix.setDiagonal(vector)
        matrix.assemble()
        destroy(vector)

    def close(self) -> None:
        """Destroy work vectors. Collective."""
        destroy(*self._work)
        self._work = []


class _Doubled:
    """What PETSc calls."""

    def __init__(self, problem: EigenProblem, work: list[PETSc.Vec], z: complex):
        self.problem, self.work, self.z = problem, work, z

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        both, result = x.getArray(readonly=True), y.getArray()
        u, v, image, weighted = self.work
        u.setArray(both[0::2])
        v.setArray(both[1::2])
        for vector, sign, own, other in ((u, 1.0, 0, 1), (v, -1.0, 1, 0)):
            self.problem.A.mult(vector, image)
            if self.problem.M is None:
                vector.copy(weighted)
            else:
                self.problem.M.mult(vector, weighted)
            w = weighted.getArray(readonly=True)
            part = sign * (self.z.real * w - image.getArray(readonly=True))
            # The first vector sets what the second adds to.
            result[own::2] = part if own == 0 else result[own::2] + part
            result[other::2] = -self.z.imag * w if own == 0 else result[other::2] - self.z.imag * w

    multTranspose = mult  # the name is PETSc's
