"""FEAST: all eigenpairs of an interval by subspace iteration with a rational filter.

Polizzi 2009, "Density-matrix-based algorithm for solving eigenvalue problems"; Tang and Polizzi 2014,
"FEAST as a subspace iteration eigensolver accelerated by approximate spectral projection". From the second
iteration on the filter is applied to residuals (Gavin and Polizzi 2018, "Krylov eigenvalue strategy using
the FEAST algorithm with inexact system solves"): errors of the solves then shrink with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.pencil import dense_block
from sparsehess.eigen.solvers.contour_quadrature import Filter, contour
from sparsehess.eigen.solvers.contour_solves import ContourSystems, shifted_form
from sparsehess.eigen.solvers.interval_method import IntervalMethod
from sparsehess.eigen.solvers.solve_monitor import OnRestart, ignore_restart
from sparsehess.errors import InputError, StackError
from sparsehess.runtime import PETSc, destroy, has_package, on_root
from sparsehess.runtime.citations import cite
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.random_numbers import draw_uniform

# Iterations, those with a wider subspace among them.
_MOST = 40

# Iterations in which the residuals may fail to halve before the solve gives up.
_PATIENCE = 4

# A subspace whose weakest vector passes the filter with more than this is too small.
_TOO_STRONG = 0.1

# Backward error of a pair that may be on either side of an end, to tell on which.
_EDGE = 1e-13

# Least width of a contour, of the size of the largest eigenvalues.
_NARROWEST = 1e-9

# A pair is locked, no longer filtered, at this part of the tolerance.
_LOCKED = 1e-4

# Directions of the filtered subspace weaker than this are copies of others; massless ones likewise.
_COPY, _MASSLESS = 1e-12, 1e-10

# Orthonormalisations at most, and how near to orthonormal the vectors before the last must have been.
_PASSES, _NEARLY = 4, 1e-3

_EPS = np.finfo(float).eps


@dataclass
class Feast(IntervalMethod):
    """FEAST for a problem; see `IntervalMethod`. `close()` destroys its factorizations.

    Every pair reaches the backward error `tol`; `iterations` tells how often a filter was applied. Shells are
    solved with iteratively.

    Attributes
    ----------
    groups
        Groups of consecutive ranks that share the contour points out among them; each has the whole matrix.
    quadrature
        `gauss`, `trapezoidal` or `zolotarev`.
    points
        Contour points in the upper half plane.
    """

    groups: int = field(default=1, kw_only=True)
    quadrature: str = field(default="gauss", kw_only=True)
    points: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse quadratures and groups that cannot be used."""
        comm = self.problem.comm
        contour(self.quadrature, self.points, -1.0, 1.0)
        if not 1 <= self.groups <= min(comm.size, self.points):
            raise InputError(
                f"groups={self.groups} must be from 1 to the number of ranks, {comm.size}, and of contour points, "
                f"{self.points}"
            )
        if self.used_defaults().get("pc_factor_mat_solver_type") == "mumps" and not has_package("mumps"):
            raise StackError("this PETSc has no MUMPS, which FEAST's shifted solves need: install one that has it")
        if not self.problem.assembled and self.groups > 1:
            raise InputError(
                "a matrix-free Hessian is on all ranks: FEAST's points cannot be shared out to groups"
            )
        self._systems: ContourSystems | None = None

    @property
    def defaults(self) -> dict:
        """PETSc options of the shifted solves, unless the caller overrides them."""
        return shifted_form(self.problem).defaults

    def find(
        self,
        low: float,
        high: float,
        expected: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        seed: int = 0,
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return the converged eigenvectors with eigenvalues in [low, high]; the caller destroys them.

        Collective.

        Parameters
        ----------
        low, high
            Ends; an eigenvalue that is at one of them to rounding is inside.
        expected
            How many there are, about: sets the size of the subspace, which grows where it proves too small.
        deflate
            Vecs to stay away from, such as those found before; so are the problem's null vectors.
        seed
            Of the starting vectors.
        on_restart
            Called between iterations, as on_restart(list); what it returns ends the solve.
        """
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(f"FEAST needs an interval with two finite ends, not [{low}, {high}]")
        if not low < high:
            return []
        cite("feast")
        if self._systems is None:
            self._systems = ContourSystems(self.problem, self.groups, self.options, self.seconds)
        # A contour within rounding of the spectrum would be singular: a wider one, and Ritz values decide.
        pad = max(0.0, _NARROWEST * self.problem.scale - (high - low)) / 2
        chosen = contour(self.quadrature, self.points, low - pad, high + pad)
        self._systems.move_to(chosen)
        found = _Iteration(self, self._systems, chosen, low, high, expected, deflate, seed).run(on_restart)
        return [self._vector(column) for column in found.T]

    def _vector(self, values: np.ndarray) -> PETSc.Vec:
        vector = self.problem.A.createVecRight()
        vector.setArray(values)
        return vector

    def close(self) -> None:
        """Destroy the factorizations.

        Collective.
        """
        if self._systems is not None:
            self._systems.close()
            self._systems = None


class _Iteration:
    """One subspace iteration. Blocks of vectors are arrays (n_local, k)."""

    def __init__(
        self,
        solver: Feast,
        systems: ContourSystems,
        chosen: Filter,
        low: float,
        high: float,
        expected: int,
        deflate: Sequence[PETSc.Vec],
        seed: int,
    ):
        self.systems = systems
        self.solver, self.problem, self.filter = solver, solver.problem, chosen
        self.low, self.high, self.expected, self.seed = low, high, max(int(expected), 0), seed
        self.drawn = 0
        # What the filter leaves at least of an eigenvector inside.
        self.level = float(chosen(np.linspace(low, high, 101)).min())
        problem = self.problem
        known = [v.getArray(readonly=True) for v in (*problem.null, *deflate)]
        self.D = np.empty((problem.layout.n_local, 0))
        if known:
            self.D, _ = self._orthonormal(np.stack(known, axis=1))
        self.MD = self._product(problem.M, self.D)
        self.room = problem.finite - self.D.shape[1]

    def run(self, on_restart: OnRestart) -> np.ndarray:
        """Return the converged vectors inside.

        Collective.
        """
        wanted = int(np.ceil(1.5 * self.expected)) + 10
        known = self._known(min(wanted, self.room))
        start = np.hstack([known, self._random(min(wanted, self.room) - known.shape[1])])
        if not start.shape[1]:
            return start
        basis = self._project(self._filtered(self._product(self.problem.M, start), None))
        best, idle, doubted, seen = np.inf, 0, 0, self.expected
        for _ in range(_MOST):
            self.solver.iterations += 1
            self._ritz(basis)
            inside, done = self._inside(), self.errors <= self._needed()
            found, open_ = np.count_nonzero(inside & done), inside & ~done
            self.solver.on_progress(found, self.expected)
            error = on_restart(list)
            if error is not None:
                raise error
            full = bool(inside.all()) and len(inside) < self.room
            if not open_.any() and not full:
                break
            # What is locked at the tolerance alone would leave its error to those beside it.
            active = ~(inside & (self.errors <= _LOCKED * self.solver.tol)) | open_
            # Few that are open may all prove spurious, and the others' solves superfluous.
            first = open_ if 4 * open_.sum() < active.sum() else active
            basis, passed = self._apply(first, self.X, self.filter(self.theta))
            spurious = passed < self.level / 2
            worst = self.errors[open_ & ~spurious].max(initial=0.0)
            idle = 0 if full or worst < best / 2 else idle + 1
            best = np.inf if full else min(best, worst)
            # What looks spurious may hide an eigenvector, mixed into it in this iteration alone.
            doubted = doubted + 1 if not full and spurious[open_].all() else 0
            if (doubted and (found >= seen or doubted > 2)) or idle >= _PATIENCE:
                break
            basis, passed = self._apply(active & ~first, basis, passed)
            seen = max(seen, np.count_nonzero(inside & (passed >= self.level / 2)))
            basis = self._project(np.hstack([basis, self._growth(full, passed)]))
        # What is within its own error of an end and got no better is judged by where it is.
        return self.X[:, self._inside() & (self.errors <= self.problem.held_to(self.solver.tol))]

    # --- steps ---

    def _apply(self, chosen: np.ndarray, basis: np.ndarray, passed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return basis and passed with ρ(A) x and xᵀM ρ(A) x in the chosen columns, x the Ritz vectors.

        For an eigenvector the latter is ρ(θ); for a spurious pair, a mean of eigenvectors on both
        sides of the interval, it is small.
        """
        theta, X, MX = self.theta[chosen], self.X[:, chosen], self.MX[:, chosen]
        image = X * self.filter(theta) + self._filtered(self.AX[:, chosen] - MX * theta, theta)
        basis, passed = basis.copy(), passed.copy()
        basis[:, chosen] = image
        passed[chosen] = _summed(self.problem.comm, np.einsum("ij,ij->j", MX.conj(), image).real)
        return basis, passed

    def _growth(self, full: bool, passed: np.ndarray) -> np.ndarray:
        """Return filtered new vectors where the subspace is too small to hold one that the filter removes."""
        m = len(self.theta)
        more = min(max(10, m // 2), self.room - m)
        if more <= 0 or not (full or passed.min() > _TOO_STRONG * self.level):
            return np.empty((len(self.X), 0))
        new = self._random(more)
        new, M_new = self._orthonormal(new - self.X @ self._gram(self.MX, new))
        return self._filtered(M_new, None)

    def _ritz(self, basis: np.ndarray) -> None:
        """Rayleigh-Ritz on the span of a basis: Ritz vectors with their images and errors."""
        Q, MQ = self._orthonormal(basis)
        AQ = self.problem.null_space.project_images(self._product(self.problem.A, Q))
        S = self._gram(Q, AQ)
        theta, Z = on_root(self.problem.comm, np.linalg.eigh, (S + S.conj().T) / 2)
        self.theta, self.X, self.AX, self.MX = theta, Q @ Z, AQ @ Z, MQ @ Z
        self.residual = self._norms(self.AX - self.MX * theta)
        forces = np.minimum(np.abs(theta) * self._norms(self.MX), self._norms(self.AX))  # as in slepc_blocks
        sizes = self.problem.norms[0] * self._norms(self.X) + forces
        self.errors = np.where(sizes > 0, self.residual / np.where(sizes > 0, sizes, 1.0), self.residual)

    def _inside(self) -> np.ndarray:
        slack = 100 * _EPS * self.problem.scale
        return (self.theta >= self.low - slack) & (self.theta <= self.high + slack)

    def _needed(self) -> np.ndarray:
        """Return the backward error that each pair needs: less near an end, to tell on which side it is."""
        away = np.minimum(np.abs(self.theta - self.low), np.abs(self.theta - self.high))
        blurred = away <= self.residual / np.sqrt(self.problem.masses[0])
        return np.where(blurred, min(_EDGE, self.solver.tol), self.solver.tol)

    def _filtered(self, Y: np.ndarray, theta: np.ndarray | None) -> np.ndarray:
        """Return the filter of Y, Re Σ w (zM − A)⁻¹ Y, each term over z − θ where θ (k,) is given."""
        poles, weights = self.filter.points[:, None], self.filter.weights[:, None]
        coefficients = (
            np.broadcast_to(weights, (len(weights), Y.shape[1])) if theta is None else weights / (poles - theta)
        )
        return self.systems.apply_filter(Y, coefficients)

    # --- blocks ---

    def _known(self, most: int) -> np.ndarray:
        """Return the vectors that the problem has to start from, as far as they are beside what is deflated."""
        guess = [vector.getArray(readonly=True) for vector in self.problem.guess[:most]]
        if not guess:
            return np.empty((self.problem.layout.n_local, 0))
        return self._orthonormal(self._project(np.stack(guess, axis=1)))[0]

    def _random(self, k: int) -> np.ndarray:
        layout = self.problem.layout
        columns = [draw_uniform(layout, self.seed + 7919 * (self.drawn + i + 1)) for i in range(k)]
        self.drawn += k
        return (
            self._orthonormal(self._project(np.stack(columns, axis=1)))[0] if k else np.empty((layout.n_local, 0))
        )

    def _project(self, X: np.ndarray) -> np.ndarray:
        """Return X without its part in the deflated vectors."""
        if self.D.shape[1]:
            for _ in range(2):  # once leaves what cancellation leaves
                X = X - self.D @ self._gram(self.MD, X)
        return X

    def _orthonormal(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return an M-orthonormal basis Q of the span of X, and M Q.

        Repeated, as rounding leaves the weak directions far from orthogonal: an error here is one
        of the Ritz values.
        """
        for _ in range(_PASSES):
            MX = self._product(self.problem.M, X)
            G, rows = self._gram(X, MX), self.problem.scales.rows_m
            terms = _summed(self.problem.comm, np.abs(X.T) ** 2 @ rows)
            step, weakest = on_root(self.problem.comm, _whitening, G, terms)
            X = X @ step
            if weakest > 1 - _NEARLY:
                break
        return X, self._product(self.problem.M, X)

    def _product(self, matrix: PETSc.Mat | None, X: np.ndarray) -> np.ndarray:
        if matrix is None or not X.shape[1]:
            return X
        if not is_assembled(matrix):
            return _one_by_one(matrix, X)
        block = dense_block(self.problem.layout, X)
        image = matrix.matMult(block)
        array = image.getDenseArray().copy()
        destroy(image, block)
        return array

    def _gram(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return _summed(self.problem.comm, X.conj().T @ Y)

    def _norms(self, X: np.ndarray) -> np.ndarray:
        return np.sqrt(_summed(self.problem.comm, np.einsum("ij,ij->j", X.conj(), X).real))


def _one_by_one(matrix: PETSc.Mat, X: np.ndarray) -> np.ndarray:
    x, image = matrix.createVecs()
    result = np.empty(X.shape, PETSc.ScalarType)
    for i in range(X.shape[1]):
        x.setArray(X[:, i])
        matrix.mult(x, image)
        result[:, i] = image.getArray(readonly=True)
    destroy(x, image)
    return result


def _summed(comm: MPI.Comm, array: np.ndarray) -> np.ndarray:
    if comm.size > 1:
        array = np.ascontiguousarray(array)
        comm.Allreduce(MPI.IN_PLACE, array)
    return array


def _whitening(G: np.ndarray, terms: np.ndarray) -> tuple[np.ndarray, float]:
    """Return W with WᵀGW = I, massless and copied directions left out, and the least weight kept."""
    masses = np.diag(G).real
    keep = np.flatnonzero(masses > _MASSLESS * terms)
    W, weakest = np.zeros((len(G), 0)), 1.0
    if len(keep):
        scale = 1 / np.sqrt(masses[keep])
        G = G[np.ix_(keep, keep)]
        weights, V = np.linalg.eigh(scale[:, None] * (G + G.conj().T) / 2 * scale)
        strong = weights > _COPY
        W = np.zeros((len(terms), int(strong.sum())), V.dtype)
        W[keep] = scale[:, None] * V[:, strong] / np.sqrt(weights[strong])
        weakest = float(weights.min())
    return W, weakest
