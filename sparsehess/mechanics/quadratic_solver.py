"""Eigenvalues of a real quadratic nearest to a complex shift, in real numbers, by SLEPc's TOAR or by LAPACK.

At a real shift σ, Q(σ + μ) = μ²M + μ(2σM + V) + Q(σ) has real matrices. At a complex one they are complex, and
taken as real ones of twice the size, [[a, -b], [b, a]] for each a + ib: their eigenvalues are those of the
complex ones and their conjugates, and (u, v) tells which: u + iv is a vector of the one, the conjugate of u - iv
one of the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from sparsehess.eigen.problem.factorization import TRANSFORMED
from sparsehess.eigen.problem.petsc_options import PREFIX, Options
from sparsehess.eigen.solvers.solve_monitor import OnProgress, SolveMonitor, ignore_restart
from sparsehess.errors import InputError
from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.runtime import (
    FAILED,
    PETSc,
    SLEPc,
    agreement,
    destroy,
    error_code,
    held_errors,
    on_root,
    readable_errors,
)
from sparsehess.runtime.random_numbers import draw_normal

# Rows up to which all eigenvalues are computed by LAPACK, and up to which that is done where many are wanted.
_FEW, _SOME = 64, 600

# Restarts after which TOAR gives up.
_RESTARTS = 60

# Of the two vectors of a doubled solution, the smaller one is noise below this part of the other.
_NOISE = 1e-5

# Eigenvalues past this size, of scaled matrices, are infinite to rounding.
_INFINITE = 1e12

# MUMPS's INFOG(28): how many pivots it took for zeros.
_NULL_PIVOTS = 28


class Found(NamedTuple):
    """What a search has found, in scaled units; one of each conjugate pair, that with Im λ ≥ 0.

    Attributes
    ----------
    values
        (m,) λ.
    vectors
        (n_local, m) complex.
    first
        (m,) whether it is certain that it stands for another eigenvalue than the others of this search.
    reach
        Distance from the shift within which the search went; infinite where it found all eigenvalues.
    finished
        Whether all that it looked for has converged.
    """

    values: np.ndarray
    vectors: np.ndarray
    first: np.ndarray
    reach: float
    finished: bool


def is_solved_whole(matrices: QuadraticMatrices, wanted: int) -> bool:
    """Return whether LAPACK computes all eigenvalues. Not collective."""
    n = matrices.n
    return n <= _FEW or (n <= _SOME and 4 * wanted > n)


def solve_whole(matrices: QuadraticMatrices) -> Found:
    """Return all finite eigenvalues, by the QZ algorithm on the companion form. Collective."""
    layout = matrices.layout
    rows = (np.diff(matrices.indptr), matrices.indices, matrices.k, matrices.v, matrices.m)
    with agreement(layout.comm):  # before anything is under way that a rank without memory would not take
        gathered = layout.comm.gather(rows)
    values, vectors = on_root(layout.comm, _companion_pairs, layout.n, gathered)
    own = vectors[layout.start : layout.stop]
    return Found(values, own, np.ones(len(values), bool), np.inf, True)


def _companion_pairs(n: int, gathered: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues with Im λ ≥ 0 (m,) and vectors (n, m). Not collective: rank 0 calls it."""
    lengths, columns, k, v, m = (np.concatenate(parts) for parts in zip(*gathered, strict=True))
    rows = np.repeat(np.arange(n), lengths)
    K, V, M = np.zeros((3, n, n))
    for dense, values in ((K, k), (V, v), (M, m)):
        dense[rows, columns] = values
    zero, one = np.zeros((n, n)), np.eye(n)
    A, B = np.block([[zero, one], [-K, -V]]), np.block([[one, zero], [zero, M]])
    (alpha, beta), Z = scipy.linalg.eig(A, B, homogeneous_eigvals=True)
    there = (np.abs(beta) * _INFINITE > np.abs(alpha)) & np.isfinite(alpha) & np.isfinite(beta)
    values = alpha[there] / beta[there]
    large = np.abs(values) > 1
    vectors = np.where(large, Z[n:, there], Z[:n, there])
    upper = values.imag >= 0
    return values[upper], vectors[:, upper]


class Unsorted(Exception):
    """LAPACK could not exchange eigenvalues that are too near to each other; the solver is spent.

    That is rounding: another start, or another shift, has others.
    """


class NearestSolver:
    """TOAR with the factors of Q at one shift, for several searches; `close()` gives them up.

    *Collective* to make and to use.

    Parameters
    ----------
    matrices
        Those of the quadratic.
    shift
        In scaled units.
    options
        PETSc options of the caller, without a prefix.
    on_progress
        Called as on_progress(converged, wanted).

    Attributes
    ----------
    singular
        Whether Q has null vectors at the shift.
    restarts
        Of all searches.
    """

    def __init__(
        self, matrices: QuadraticMatrices, shift: complex, options: dict[str, object], on_progress: OnProgress
    ):
        self._quadratic, self.shift, self._told, self.restarts = matrices, shift, on_progress, 0
        self._given, self._made = Options(PREFIX, options), list[PETSc.Mat]()
        self._pep: SLEPc.PEP = None
        self._doubled = shift.imag != 0
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        """Make the matrices, the solver, and the factors. Collective."""
        k, v, m = self._quadratic.k, self._quadratic.v, self._quadratic.m
        shift = self.shift if self._doubled else self.shift.real
        symmetric = self._quadratic.symmetric
        for values in (k + shift * v + shift**2 * m, v + 2 * shift * m, m):
            if self._doubled:
                self._made.append(self._quadratic.doubled(values + 0j, symmetric, symmetric))
            else:
                self._made.append(self._quadratic.matrix(values, symmetric))
        self._pep = pep = SLEPc.PEP().create(self._quadratic.layout.comm)
        pep.setOptionsPrefix(PREFIX)
        pep.setOperators(self._made)
        pep.setProblemType(SLEPc.PEP.ProblemType.GENERAL)
        pep.setType(SLEPc.PEP.Type.TOAR)
        pep.setTarget(0.0)
        pep.setWhichEigenpairs(SLEPc.PEP.Which.TARGET_MAGNITUDE)
        st = pep.getST()
        st.setType("sinvert")
        st.setTransform(True)
        self._options = {"st_ksp_type": "preonly", **TRANSFORMED, **self._given.given}
        if not symmetric and "st_pc_type" not in self._given.given:
            self._options["st_pc_type"] = "lu"
        with self._given.inserted(self._options), readable_errors("factorizing at the shift"):
            pep.setFromOptions()
            pep.setDimensions(nev=2, ncv=min(20, self._size))
            pep.setUp()
        factor = st.getKSP().getPC().getFactorMatrix() if "st_ksp_type" not in self._given.given else None
        null = 0
        if factor is not None and factor.getType() == "mumps":
            null = int(factor.getMumpsInfog(_NULL_PIVOTS))
        self.singular = null > 0

    @property
    def _size(self) -> int:
        """How many eigenvalues there are. Not collective."""
        return 2 * self._made[0].getSize()[0]

    def search(self, wanted: int, tol: float, seed: int) -> Found:
        """Return at least so many eigenvalues nearest to the shift, if all goes well.

        Collective.

        Raises
        ------
        Unsorted
            A new solver is to try again.
        """
        pep = self._pep
        each = 2  # conjugates: of real matrices, or of the doubled ones
        nev = min(each * wanted, self._size // 2)
        ncv = min(max(2 * nev, nev + 15), self._size - 1)
        start = self._made[0].createVecRight()
        layout = self._quadratic.layout
        here = draw_normal(layout, seed + 1)
        start.setArray(np.stack([here, draw_normal(layout, seed + 7919)], 1).ravel() if self._doubled else here)
        try:
            with self._given.inserted(self._options), readable_errors("solving for eigenpairs"):
                pep.cancelMonitor()
                pep.setTolerances(tol, _RESTARTS)
                pep.setDimensions(nev=nev, ncv=ncv)
                pep.setInitialSpace([start])
                pep.setFromOptions()
                monitor = SolveMonitor(lambda c, w: self._told(c // each, w // each), ignore_restart, nev)
                monitor.attach(pep)
                try:
                    with held_errors():
                        pep.solve()
                except (PETSc.Error, SystemError) as error:  # the same on every rank
                    if error_code(error) != FAILED or monitor.error is not None:
                        raise
                    raise Unsorted from None
        finally:
            pep.cancelMonitor()
            destroy(start)
        monitor.raise_error()
        self._given.refuse_unused()
        self.restarts += pep.getIterationNumber()
        return self._read(pep.getConverged(), pep.getConverged() >= nev)

    def _read(self, number: int, finished: bool) -> Found:
        """Return what has converged. Collective."""
        layout = self._quadratic.layout
        values: list[complex] = []
        vectors: list[np.ndarray] = []
        first: list[bool] = []
        reach = 0.0
        real, imaginary = self._made[0].createVecs()
        for i in range(number):
            mu = complex(self._pep.getEigenpair(i, real, imaginary))
            reach = max(reach, abs(mu))
            if mu.imag < 0:
                continue
            z = real.getArray(readonly=True) + 1j * imaginary.getArray(readonly=True)
            if not self._doubled:
                values.append(self.shift + mu)
                vectors.append(z)
                first.append(True)
                continue
            above, below = z[0::2] + 1j * z[1::2], np.conj(z[0::2] - 1j * z[1::2])
            sizes = np.sqrt(layout.comm.allreduce(np.array([np.vdot(one, one).real for one in (above, below)])))
            pairs = [(self.shift + mu, above), (self.shift + np.conj(mu), below)]
            pairs = pairs if sizes[0] >= sizes[1] else pairs[::-1]
            several = float(sizes.min()) > _NOISE * float(sizes.max())
            for place, (value, vector) in enumerate(pairs[: 1 + several]):
                flip = value.imag < 0
                values.append(np.conj(value) if flip else value)
                vectors.append(np.conj(vector) if flip else vector)
                first.append(place == 0 and not flip and mu.imag > 0)
        destroy(real, imaginary)
        stacked = np.stack(vectors, axis=1) if vectors else np.empty((layout.n_local, 0), complex)
        return Found(np.array(values, complex), stacked, np.array(first, bool), reach, finished)

    def close(self) -> None:
        """Give up the solver and its factors. Collective."""
        destroy(self._pep, *self._made)
        self._pep = None
        self._made = []


def refuse_options(options: dict[str, object]) -> None:
    """Refuse PETSc options where LAPACK solves. Not collective."""
    if options:
        raise InputError(
            f"-{next(iter(options))}: LAPACK solves so few rows, and no solver is set up; leave it out"
        )
