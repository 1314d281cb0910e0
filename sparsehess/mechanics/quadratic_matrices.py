"""The matrices of (λ²M + λ(C + G) + K + N) x = 0: checked for what each is to be, and scaled row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.eigen.problem.brought_facts import SYMMETRY
from sparsehess.eigen.problem.equilibration import AbsoluteRows, median
from sparsehess.eigen.problem.inertia_of_matrix import Signs, signs_of
from sparsehess.eigen.problem.matrix_inputs import as_mat
from sparsehess.eigen.problem.pencil import on_one_pattern
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.petsc_matrices import aij, is_assembled
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike

DAMPING, GYROSCOPIC, CIRCULATORY = (
    "the damping matrix C",
    "the gyroscopic matrix G",
    "the circulatory matrix N",
)

# What to do with a matrix that is not what its name says.
_ADVICE = {
    DAMPING: "give (C + C')/2 as damping, and what is left, (C - C')/2, as gyroscopic",
    GYROSCOPIC: "give (G - G')/2 as gyroscopic, and what is left, (G + G')/2, as damping",
    CIRCULATORY: "give (N - N')/2 as circulatory, and add what is left, (N + N')/2, to the stiffness K",
}
_OTHER = {
    DAMPING: "give it as gyroscopic",
    GYROSCOPIC: "what is symmetric dissipates: give it as damping",
    CIRCULATORY: "add it to the stiffness K",
}


class QuadraticMatrices:
    """λ²M + λV + K on one pattern, V = C + G and K with N, in units in which rows and eigenvalues are near one.

    *Collective* to make and to use; `close()` destroys what was made here. Eigenvalues λ are `unit` times those of
    the scaled matrices, vectors x = D x̂.

    Attributes
    ----------
    layout
        Rows.
    unit
        A power of two.
    indptr, indices
        Local rows of the pattern that all share, with global columns.
    k, v, m
        (nonzeros,) scaled values of K + N, C + G and M.
    rows_k, rows_v, rows_m
        (n_local,) sums of the absolute values of their rows.
    damped, gyroscopic, circulatory
        Whether C, G and N have entries that are not zero.
    massless
        Dimension of the null space of M.
    """

    def __init__(
        self,
        stiffness: Hessian | MatrixLike,
        mass: MatrixLike | None,
        damping: MatrixLike | None,
        gyroscopic: MatrixLike | None,
        circulatory: MatrixLike | None,
        comm: MPI.Comm | None,
    ):
        self._owned: list = []
        try:
            with EigenProblem.of(stiffness, mass=mass, nullspace=[], comm=comm) as problem:
                if not problem.assembled:
                    raise InputError("the stiffness matrix K must be assembled, and not a shell: it is factorized")
                self.layout, self.massless, self._scales = problem.layout, problem.massless, problem.scales
                given = {DAMPING: damping, GYROSCOPIC: gyroscopic, CIRCULATORY: circulatory}
                parts = {name: self._part(one, name) for name, one in given.items()}
                self.damped, self.gyroscopic, self.circulatory = (one is not None for one in parts.values())
                self._scale(problem, parts)
        except BaseException:
            self.close()
            raise

    def _part(self, given: MatrixLike | None, name: str) -> PETSc.Mat | None:
        """Return what a caller gave, symmetric or skew as it must be; None where it is zero. Collective."""
        if given is None:
            return None
        one = as_mat(given, None, self.layout, self._owned, name)
        if one is not given:
            _tell_symmetry(one, False)  # not known so far
        if not is_assembled(one):
            raise InputError(f"{name} must be assembled, and not a shell: its entries are needed")
        transposed = one.transpose(PETSc.Mat())
        try:
            both = [AbsoluteRows(matrix, self.layout) for matrix in (one, transposed)]
            sizes = np.maximum(*(rows.largest(np.ones(self.layout.n_local)) for rows in both))
            for rows in both:
                rows.close()
            with agreement(self.layout.comm):
                if not both[0].finite:
                    raise InputError(f"{name} has entries that are not finite: look how it was written")
            if not any(self.layout.comm.allgather(bool((sizes > 0).any()))):
                return None
            symmetric, skew = (self._is_alike(one, transposed, sizes, sign) for sign in (1.0, -1.0))
        finally:
            destroy(transposed)
        if symmetric if name == DAMPING else skew:
            return one
        kind = "symmetric" if name == DAMPING else "skew-symmetric"
        if symmetric or skew:
            other = "symmetric" if symmetric else "skew-symmetric"
            raise InputError(f"{name} is {other}, and must be {kind}: {_OTHER[name]}")
        if self._is_triangle(one):
            whole = "T + T' - diag(T)" if name == DAMPING else "T - T'"
            raise InputError(f"{name} has entries in one triangle T alone: the whole is {whole}")
        raise InputError(f"{name} is not {kind}: {_ADVICE[name]}")

    def _is_alike(self, one: PETSc.Mat, other: PETSc.Mat, sizes: np.ndarray, sign: float) -> bool:
        """Return whether two matrices are equal, but for a sign, to the sizes of rows and columns. Collective."""
        difference = one.duplicate(copy=True)
        try:
            difference.axpy(-sign, other, PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
            rows = AbsoluteRows(difference, self.layout)
            d = 1 / np.sqrt(np.where(sizes > 0, sizes, 1.0))
            off = float((d * rows.largest(d)).max(initial=0.0))
            rows.close()
        finally:
            destroy(difference)
        return max(self.layout.comm.allgather(off)) <= SYMMETRY

    def _is_triangle(self, matrix: PETSc.Mat) -> bool:
        """Return whether all entries beside the diagonal are in one triangle. Collective."""
        indptr, indices, values = matrix.getValuesCSR()
        row = np.repeat(np.arange(self.layout.start, self.layout.stop), np.diff(indptr))
        counts = [np.count_nonzero((values != 0) & side) for side in (indices > row, indices < row)]
        above, below = self.layout.comm.allreduce(np.array(counts))
        return not (above and below)

    def _scale(self, problem: EigenProblem, parts: dict[str, PETSc.Mat | None]) -> None:
        """Bring all on one pattern, rows near one in size, and a middle eigenvalue too. Collective."""
        scales, layout = self._scales, self.layout
        self.unit = float(2.0 ** round(0.5 * (np.log2(scales.typical or 1.0) + scales.power)))
        middle = median(scales.rows_a, layout.comm) or 1.0
        size = float(np.ldexp(1.0, round(np.log2(middle)) + scales.power))
        d = problem.A.createVecRight()
        d.setArray(scales.d)
        try:
            K = self._sum([problem.A, parts[CIRCULATORY]], d, 1 / size)
            V = self._sum([parts[DAMPING], parts[GYROSCOPIC]], d, self.unit / size)
            M = self._sum([problem.M], d, self.unit**2 / size) if problem.M is not None else None
        finally:
            destroy(d)
        if M is None:
            own = np.arange(layout.n_local)
            squares = scales.d**2 * (self.unit**2 / size)
            M = scipy.sparse.csr_matrix((squares, (own, own + layout.start)), K.shape)
        self.indptr, self.indices, (self.k, self.v, self.m) = on_one_pattern([K, V, M], layout)
        own = np.repeat(np.arange(layout.n_local), np.diff(self.indptr))
        sums = [np.bincount(own, np.abs(one), layout.n_local) for one in (self.k, self.v, self.m)]
        empty = (sums[0] == 0) & (sums[1] == 0) & (sums[2] == 0)
        self.k[(self.indices == own + layout.start) & empty[own]] = 1.0  # held
        sums[0][empty] = 1.0
        self.rows_k, self.rows_v, self.rows_m = sums
        every = ((self.k, not self.circulatory), (self.v, not self.gyroscopic), (self.m, True))
        self.K, self.V, self.M = (self.matrix(*one) for one in every)
        self._owned += [self.K, self.V, self.M]
        self._damping = parts[DAMPING]
        self.stiffness_signs = Signs(0, 0, 0) if parts[CIRCULATORY] else signs_of(self.K, self.rows_k)
        self.damping_signs = self._signs_of_damping()

    def _sum(self, matrices: list[PETSc.Mat | None], d: PETSc.Vec, factor: float) -> scipy.sparse.csr_matrix:
        """Return local rows of factor D (A + B) D. Collective."""
        layout = self.layout
        whole = scipy.sparse.csr_matrix((layout.n_local, layout.n))
        for matrix in matrices:
            if matrix is not None:
                copy = matrix.duplicate(copy=True)
                copy.diagonalScale(d, d)
                copy.scale(factor)
                indptr, indices, values = copy.getValuesCSR()
                destroy(copy)
                whole = whole + scipy.sparse.csr_matrix((values, indices, indptr), whole.shape)
        return whole

    def _signs_of_damping(self) -> Signs:
        """Return the inertia of C, to the accuracy of its rows. Collective."""
        if self._damping is None:
            return Signs(0, self.layout.n, 0)
        with EigenProblem(A=self._damping, null=[], owned=[]) as problem:
            return signs_of(problem.equilibrated.A, problem.equilibrated.scales.rows_a)

    # --- what is asked of them ---

    @property
    def n(self) -> int:
        """How many rows. Not collective."""
        return self.layout.n

    @property
    def symmetric(self) -> bool:
        """Whether all matrices are. Not collective."""
        return not (self.gyroscopic or self.circulatory)

    @property
    def conservative(self) -> bool:
        """Whether nothing dissipates or feeds: C and N are zero. Not collective."""
        return not (self.damped or self.circulatory)

    @property
    def resists(self) -> bool:
        """Whether K is positive semidefinite, and N zero. Not collective."""
        return not self.circulatory and self.stiffness_signs.negative == 0

    @property
    def dissipates(self) -> bool:
        """Whether C is positive semidefinite. Not collective."""
        return self.damping_signs.negative == 0

    def matrix(self, values: np.ndarray, symmetric: bool) -> PETSc.Mat:
        """Return the matrix of values on the pattern. The caller destroys it. Collective."""
        made = aij(self.layout, self.indptr, self.indices, values)
        _tell_symmetry(made, symmetric)
        return made

    def doubled(self, values: np.ndarray, flipped: bool = False, symmetric: bool = False) -> PETSc.Mat:
        """Return [[a, -b], [b, a]] for each complex value a + ib: the matrix in real numbers, twice as large.

        Collective. Parts interleave, so that an ordering sees each vertex twice. The caller destroys it.

        Parameters
        ----------
        flipped
            Whether each second row is to be [-b, -a]: symmetric where the complex matrix is.
        symmetric
            Whether the doubled matrix is: where the complex one is Hermitian, or flipped and symmetric.
        """
        twice = Layout(self.layout.comm, 2 * self.layout.starts)
        lengths = np.diff(self.indptr)
        indptr = np.concatenate([[0], np.cumsum(np.repeat(2 * lengths, 2))])
        own = np.repeat(np.arange(len(lengths)), lengths)
        even = indptr[2 * own] + 2 * (np.arange(len(self.indices)) - self.indptr[own])
        odd = even + 2 * lengths[own]
        indices, entries = np.empty(4 * len(own), np.int64), np.empty(4 * len(own))
        sign = -1.0 if flipped else 1.0
        for at, first, second in (
            (even, values.real, -values.imag),
            (odd, sign * values.imag, sign * values.real),
        ):
            indices[at], indices[at + 1] = 2 * self.indices, 2 * self.indices + 1
            entries[at], entries[at + 1] = first, second
        made = aij(twice, indptr, indices, entries)
        _tell_symmetry(made, symmetric)
        return made

    def images(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return K X, V X and M X of complex columns (n_local, k). Collective."""
        x, y = self.K.createVecs()
        found = [np.empty(X.shape, complex) for _ in range(3)]
        for image, matrix in zip(found, (self.K, self.V, self.M), strict=True):
            for column in range(X.shape[1]):
                for part, unit in ((X[:, column].real, 1.0), (X[:, column].imag, 1.0j)):
                    x.setArray(part)
                    matrix.mult(x, y)
                    here = unit * y.getArray(readonly=True)
                    image[:, column] = here if unit == 1.0 else image[:, column] + here
        destroy(x, y)
        return found[0], found[1], found[2]

    def weights(self, value: complex) -> np.ndarray:
        """Return (n_local,) sums of the absolute values of the terms of the rows of Q(λ). Not collective."""
        return self.rows_k + abs(value) * self.rows_v + abs(value) ** 2 * self.rows_m

    def unscaled(self, X: np.ndarray) -> np.ndarray:
        """Return vectors of the caller's matrices. Not collective."""
        return self._scales.d[:, None] * X

    def close(self) -> None:
        """Destroy what was made here. Collective."""
        destroy(*self._owned)
        self._owned.clear()


def _tell_symmetry(matrix: PETSc.Mat, symmetric: bool) -> None:
    """Tell PETSc whether a real matrix is symmetric. Collective."""
    for option in (PETSc.Mat.Option.HERMITIAN, PETSc.Mat.Option.SYMMETRIC):
        matrix.setOption(option, symmetric)
