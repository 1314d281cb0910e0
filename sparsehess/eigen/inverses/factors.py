"""A symmetric matrix, scaled and factorized by LDLᵀ: solutions, signs, and how far its factors are from it."""

from __future__ import annotations

import itertools
from functools import cached_property

from mpi4py import MPI

import numpy as np
import scipy.linalg

from sparsehess.eigen.inverses.factor_entries import entries_by_solves, entries_of_factor, tells_entries
from sparsehess.eigen.inverses.remote_rows import values_at
from sparsehess.eigen.problem.equilibration import AbsoluteRows, find_scales, scaled_copy
from sparsehess.eigen.problem.factorization import FACTORIZATION, Pivots
from sparsehess.eigen.problem.pencil import dense_block
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.count_margin import MeasuredFactors, measure_factors
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.errors import CheckError, StackError
from sparsehess.operators.tall_skinny_qr import inner_products, tall_qr
from sparsehess.runtime import (
    FAILED,
    PETSc,
    communicator,
    destroy,
    error_code,
    has_package,
    inserted_options,
    on_root,
    readable_errors,
    require_real,
)
from sparsehess.runtime.random_numbers import draw_normal
from sparsehess.runtime.row_layout import Layout

_PREFIX = "sparsehess_inverse_"

# Percent of room for delayed pivots that are tried, one after another.
_ROOM = (50, 200, 1000, 10000)

# Random vectors that lengths of columns of the inverse are measured with: to a third of themselves.
_PROBES = 8

# What is added to see the vector that a singular matrix takes to rounding; and steps of inverse iteration to it.
_REGULAR, _STEPS = 1e-9, 4

# Rows of that vector which are named: the largest, and no less than this part of the largest.
_NAMED, _SHOWN = 5, 0.1

_SEED = 15485863

# Columns that are solved at once.
_TOGETHER = 64

# Steps of subspace iteration to null vectors, with so many vectors more than are wanted.
_SWEEPS, _MORE = 8, 2


class Factors:
    """L D Lᵀ = S K S for a symmetric matrix K, with S diagonal, of powers of two, which round nothing.

    *Collective* to make and to use; `close()` destroys what was made here.

    Parameters
    ----------
    matrix
        K, assembled, of real numbers that are finite. It is the caller's.
    sizes
        (n_local,) sizes of the diagonal to scale by; 0 where there is none, as for multipliers.

    Attributes
    ----------
    layout
        Rows.
    scales
        (n_local,) S.
    problem
        What is factorized.
    entry_error
        By what part of its rows K may be another matrix: its entries are no more exact.

    Raises
    ------
    StackError
        No MUMPS, or scalars that are complex.
    """

    def __init__(self, matrix: PETSc.Mat, sizes: np.ndarray):
        require_real("the inverse from factors")
        if not has_package("mumps"):
            raise StackError("this PETSc has no MUMPS, which factorizes here: Debian's has it")
        self.layout = Layout.from_local(matrix.getLocalSize()[0], communicator(matrix.comm))
        diagonal, by = matrix.createVecRight(), matrix.createVecRight()
        diagonal.setArray(sizes)
        mass = PETSc.Mat().createAIJ((diagonal.getSizes(),) * 2, nnz=1, comm=matrix.comm)
        mass.setDiagonal(diagonal)
        try:
            self.scales = find_scales(matrix, mass, self.layout).d
            by.setArray(self.scales)
            scaled = scaled_copy(matrix, by)
        finally:
            destroy(mass, diagonal, by)
        self.problem = EigenProblem(A=scaled, null=[], owned=[scaled])
        rows = AbsoluteRows(scaled, self.layout)
        sums = rows.sums(np.ones(self.layout.n_local))
        rows.close()
        # What is judged is this matrix as it is: no other scaling is looked for.
        ones = np.ones(self.layout.n_local)
        self.problem.__dict__["scales"] = find_scales(scaled, None, self.layout)._replace(d=ones, rows_a=sums)
        self._weights = np.where(sums > 0, sums, 1.0)
        self.entry_error = 0.0
        self._ksp: PETSc.KSP | None = None
        self._added = np.zeros(self.layout.n_local)
        own = scaled.getDiagonal()
        self._diagonal = own.getArray().copy()
        destroy(own)

    def doubt_rows(self, errors: np.ndarray) -> None:
        """Tell by how much the sums (n_local,) of rows of S K S may be off.

        Collective.
        """
        part = float(np.max(errors / self._weights, initial=0.0))
        self.entry_error = max(self.entry_error, self.layout.comm.allreduce(part, op=MPI.MAX))

    # --- factorizations ---

    def factorize(self, added: np.ndarray | None = None) -> Pivots:
        """Factorize the scaled matrix with numbers (n_local,) added to its diagonal; return the signs of pivots.

        Collective. Nothing is done where that is what is factorized.
        """
        wanted = np.zeros(self.layout.n_local) if added is None else added
        if self._ksp is None or not self._same(wanted):
            self._forget()
            diagonal = self.problem.A.createVecRight()
            diagonal.setArray(self._diagonal + wanted)
            self.problem.A.setDiagonal(diagonal)
            destroy(diagonal)
            self._added = wanted
            self._factorize()
        return self.pivots

    @property
    def pivots(self) -> Pivots:
        """How many pivots of the last factorization are negative, zero and positive. Collective."""
        return FACTORIZATION.pivots(self.factor)

    @property
    def factor(self) -> PETSc.Mat:
        """The factor of MUMPS. Not collective."""
        return self.solver.getPC().getFactorMatrix()

    @property
    def solver(self) -> PETSc.KSP:
        """What solves with the last factorization. Not collective."""
        if self._ksp is None:
            raise AssertionError("nothing is factorized")
        return self._ksp

    def _same(self, wanted: np.ndarray) -> bool:
        return self.layout.comm.allreduce(bool(np.array_equal(wanted, self._added)), op=MPI.LAND)

    def _factorize(self) -> None:
        for room in _ROOM:
            ksp = PETSc.KSP().create(self.problem.A.comm)
            ksp.setOptionsPrefix(_PREFIX)
            ksp.setOperators(self.problem.A)
            ksp.setType("preonly")
            ksp.setErrorIfNotConverged(True)  # else factors of nothing are handed on
            options = {**FACTORIZATION.options, "mat_mumps_icntl_14": room}
            try:
                with inserted_options(_PREFIX, options):
                    ksp.setFromOptions()
                    ksp.setUp()
            except (PETSc.Error, SystemError) as error:  # the same on every rank
                destroy(ksp)
                if error_code(error) != FAILED or room == _ROOM[-1]:
                    with readable_errors("factorizing"):
                        raise
            else:
                self._ksp = ksp
                return

    def signs_beyond(self, part: float) -> Pivots:
        """Return how many eigenvalues are negative, zero and positive, up to a change of the rows by some part.

        Collective. Those are zero that such a change makes zero. Two factorizations, with that part of the sums of
        rows added and taken off.

        Raises
        ------
        CheckError
            The factors are not exact enough to tell.
        """
        counts = []
        for side in (1.0, -1.0):
            pivots = self.factorize(side * part * self._weights)
            if pivots.zero or not self.measured().margin > SAFE:
                raise CheckError(
                    f"eigenvalues of about {-side * part:.0e} of the rows are too near to tell which are zero"
                )
            counts.append(pivots.negative)
        negative, upto = counts
        return Pivots(negative, upto - negative, self.layout.n - upto)

    def nearest_zero(self, number: int, part: float) -> np.ndarray:
        """Return the vectors (n_local, number) of S K S that a change of the rows takes to zero most easily.

        Collective. By subspace iteration with the factors beside zero.
        """
        self.factorize(part * self._weights)
        many = min(number + _MORE, self.layout.n)
        X = np.stack([draw_normal(self.layout, _SEED + j) for j in range(many)], axis=1)
        comm, W = self.layout.comm, self._weights[:, None]
        for _ in range(_SWEEPS):
            X = self.apply(W * tall_qr(comm, X)[0])
        X, _ = tall_qr(comm, X)
        image = self._product(X) - part * W * X
        root, Q = on_root(comm, _whitened, inner_products(comm, X, image), inner_products(comm, X, W * X))
        best = np.argsort(np.abs(root), kind="stable")[:number]
        return X @ Q[:, best]

    def measured(self) -> MeasuredFactors:
        """Return how near the last factorization is to a singular matrix, and to the one it is of. Collective."""
        with np.errstate(all="ignore"):  # what is not finite has no margin
            return measure_factors(self.problem, self.solver, 0.0)

    # --- answers, in the units of K ---

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return the solution (n_local, m) for b (n_local, m), refined once.

        Collective.
        """
        S = self.scales[:, None]
        right = S * b
        x = self.apply(right)
        return S * (x + self.apply(right - self._product(x)))

    def apply(self, b: np.ndarray) -> np.ndarray:
        """Return what the last factorization makes of columns b (n_local, m), in the units of the scaled matrix.

        Collective. Some columns at a time, which share what is read of the factors.
        """
        out = np.empty_like(b)
        for start in range(0, b.shape[1], _TOGETHER):
            here = slice(start, min(start + _TOGETHER, b.shape[1]))
            right = dense_block(self.layout, b[:, here])
            left = dense_block(self.layout, np.zeros((len(b), right.getSize()[1]), order="F"))
            try:
                with readable_errors("solving with factors"):
                    self.factor.matSolve(right, left)
                out[:, here] = left.getDenseArray(readonly=True)
            finally:
                destroy(left, right)
        return out

    def _product(self, x: np.ndarray) -> np.ndarray:
        """Return the product (n_local, m) of the matrix that is factorized."""
        vector, image = self.problem.A.createVecs()
        out = np.empty_like(x)
        for j in range(x.shape[1]):
            vector.setArray(x[:, j])
            self.problem.A.mult(vector, image)
            out[:, j] = image.getArray(readonly=True)
        destroy(vector, image)
        return out

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return entries (m,) of the inverse of K; each rank asks for its own places.

        Collective.
        """
        if self.how == "solves":
            return entries_by_solves(self.solve, self.layout, rows, columns)
        found = entries_of_factor(self.factor, self.layout, rows, columns)
        return found * values_at(self.layout, self.scales, rows) * values_at(self.layout, self.scales, columns)

    @property
    def how(self) -> str:
        """`mumps`, or `solves` where PETSc does not ask MUMPS for entries. Not collective."""
        return "mumps" if tells_entries() else "solves"

    def errors(self, rows: np.ndarray, columns: np.ndarray, made: MeasuredFactors) -> np.ndarray:
        """Return how far entries (m,) of the inverse may be off, to first order.

        Collective. An E with |xᵀEx| ≤ e xᵀWx moves entry (i, j) of G = K⁻¹ by e |W^½ G eᵢ| |W^½ G eⱼ| at most.
        e is what was measured, ten times, and the errors of the entries of K; the lengths are measured by random
        vectors.

        Parameters
        ----------
        made
            Of the last factorization.
        """
        error = SAFE * made.error + self.entry_error
        lengths = self._lengths * self.scales
        return error * values_at(self.layout, lengths, rows) * values_at(self.layout, lengths, columns)

    @cached_property
    def _lengths(self) -> np.ndarray:
        """(n_local,) lengths |W^½ Ĝ eᵢ| of columns of the scaled inverse, whose matrix is factorized."""
        draws = np.stack([draw_normal(self.layout, _SEED + j) for j in range(_PROBES)], axis=1)
        x = self.apply(np.sqrt(self._weights)[:, None] * draws)
        return np.sqrt(np.square(x).mean(axis=1))

    def nearly_null(self) -> list[tuple[int, float]]:
        """Return (row, part) of the largest rows of the vector that the matrix takes nearest to zero.

        Collective. Parts are of the largest, in units in which the diagonal is of one size.
        """
        self.factorize(_REGULAR * self._weights)
        x = draw_normal(self.layout, _SEED)[:, None]
        for _ in range(_STEPS):
            x = self.apply(x)
            size = np.sqrt(float(inner_products(self.layout.comm, x, x)[0, 0]))
            if not 0 < size < np.inf:
                return []
            x = x / size
        own = np.abs(x[:, 0])
        best = np.argsort(-own, kind="stable")[:_NAMED]
        mine = [(self.layout.start + int(row), float(own[row])) for row in best]
        theirs = itertools.chain.from_iterable(self.layout.comm.allgather(mine))
        every = sorted(theirs, key=lambda item: (-item[1], item[0]))
        largest = every[0][1] if every else 1.0
        return [(row, part / largest) for row, part in every[:_NAMED] if part >= _SHOWN * largest]

    def close(self) -> None:
        """Destroy the factors and the scaled matrix.

        Collective.
        """
        self._forget()
        self.problem.close()

    def _forget(self) -> None:
        destroy(self._ksp)
        self._ksp = None
        self.__dict__.pop("_lengths", None)


def _whitened(A: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and eigenvectors of A x = μ W x, small and dense."""
    return scipy.linalg.eigh((A + A.T) / 2, (W + W.T) / 2)
