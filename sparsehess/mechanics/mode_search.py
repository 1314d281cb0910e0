"""The search for modes of a quadratic: shifts, how many are looked for, and when it has gone far enough."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.solvers.eigs import eigs
from sparsehess.eigen.solvers.solve_monitor import OnProgress
from sparsehess.errors import InputError, StackError
from sparsehess.mechanics.mode_pool import ModePool
from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.mechanics.quadratic_solver import (
    Found,
    NearestSolver,
    Unsorted,
    is_solved_whole,
    refuse_options,
    solve_whole,
)
from sparsehess.mechanics.rigid_resistance import NOTHING, Resistance, find_resistance

# Where K is singular, or Q at the target is, the first shift, of scaled matrices; and the least.
_BESIDE, _LEAST = 1e-3, 1e-5

# Solves for more modes, or from other shifts; and from other vectors, until nothing new is found.
_SOLVES, _AGAIN = 8, 4

# How much nearer to zero a shift is taken where a count says that modes are missing.
_CLOSER = 0.1

# How far from a target the shift is, as a part of it.
_GENERIC = 6.18e-5

# Solvers that are spent before a search is given up, and how near to a shift, of its size, others may stand.
_SPENT, _NEAR = 6, 0.2

# More modes than wanted are looked for, to see where the next ones are.
_BEYOND = 2

# Scaled eigenvalues below this size are zero if their vectors are rigid motions, to this part.
_ZERO, _RIGID = 1e-6, 1e-3

# Eigenvalues of the rigid motions' own damping are zero below this part of what they could be.
_UNDAMPED = 1e-8

# The product with the mass of what has none, over what it could be.
_MASSLESS = 1e-8

_SINGULAR = (
    "λ²M + λ(C + G) + K is singular whatever λ is: the matrices have a null vector in common; hold what nothing "
    "resists, or give it a mass"
)


@dataclass
class Searched:
    """What a search has come to, in scaled units.

    Attributes
    ----------
    pool
        Modes, the nearest to the target first.
    reach
        Distance from the target within which the search went.
    finished
        Whether all that was looked for has converged.
    method
        `toar` or `lapack`.
    shift
        Where Q was factorized; the target where LAPACK computed all.
    rigid, zeros
        Motions that K does not resist, and how often λ = 0 is an eigenvalue for them: left out of the pool.
    resistance
        How far K and its last digits may be from that.
    """

    pool: ModePool
    reach: float
    finished: bool
    method: str
    shift: complex
    rigid: int
    zeros: int
    resistance: Resistance


class ModeSearch:
    """Searches for modes of a quadratic near a target. Collective; `close()` gives up the factors.

    Parameters
    ----------
    matrices
        Those of the quadratic.
    target
        In scaled units.
    tol
        Backward error that each pair must reach.
    """

    def __init__(
        self,
        matrices: QuadraticMatrices,
        target: complex,
        tol: float,
        options: dict[str, object],
        seed: int,
        told: OnProgress,
    ):
        self._quadratic, self._target, self._tol = matrices, target, tol
        self._options, self._seed, self._told = options, seed, told
        self._solver: NearestSolver | None = None
        self._asked: complex | None = None  # of the shift that its factors are near to
        self._motions, zeros, resistance = _rigid_motions(matrices)
        pool = ModePool(matrices)
        self.found = Searched(pool, 0.0, True, "toar", target, self._motions.shape[1], zeros, resistance)

    def run(self, wanted: int, radius: float | None) -> Searched:
        """Look for so many modes nearest to the target, or for all within a radius of it. Collective."""
        most = self._quadratic.n - 1
        many = min(wanted + _BEYOND + self.found.zeros, most)
        if is_solved_whole(self._quadratic, many):
            refuse_options(self._options)
            self.found.method, self.found.reach = "lapack", np.inf
            self._add(solve_whole(self._quadratic))
            return self.found
        shift = _BESIDE if self._target == 0 and self._quadratic.stiffness_signs.zero else self._target
        for attempt in range(_SOLVES):
            found = self._searched(complex(shift), many, attempt)
            self._add(found)
            reach = self.found.reach = found.reach - abs(self.found.shift - self._target)
            distances = np.abs(self.found.pool.values - self._target)
            inside = int(np.count_nonzero(distances < reach))
            if not found.finished or (reach > radius if radius is not None else inside > wanted):
                break
            if inside <= wanted and self.found.shift != self._target and self._target == 0 and len(distances):
                nearer = max(0.5 * float(distances.min()), _LEAST)
                if nearer < 0.5 * abs(shift):
                    shift = nearer
                    continue
            if many == most:
                break
            many = min(2 * many, most)
        for again in range(_AGAIN):
            if not self.found.finished or not self._add(self._searched(complex(shift), many, _SOLVES + again)):
                break
        return self.found

    def again(self, missing: int, seed: int) -> int:
        """Look for more from another start; return how many are new. Collective."""
        if self._solver is None:
            return 0
        many = min(len(self.found.pool.values) + self.found.zeros + missing + _BEYOND, self._quadratic.n - 1)
        shift = self._asked or 0.0
        if self._target == 0 and shift:  # motions that K hardly resists may be nearer to zero
            shift *= _CLOSER
        return self._add(self._searched(shift, many, seed))

    @property
    def _slepc_tol(self) -> float:
        return max(1e-3 * self._tol, 1e-13)

    def _searched(self, shift: complex, many: int, attempt: int) -> Found:
        """Return what a search near a shift finds, from other places where SLEPc cannot end it. Collective."""
        for other in range(_SPENT):
            if self._solver is None or self._asked != shift:
                self._factorize(shift * (1 + other * _NEAR / _SPENT))
                self._asked = shift
            assert self._solver is not None
            try:
                found = self._solver.search(many, self._slepc_tol, self._seed + 31 * attempt + 7 * other)
            except Unsorted:
                self.close()
                continue
            self.found.shift, self.found.finished = self._solver.shift, found.finished
            return found
        raise StackError(
            "SLEPc cannot sort the eigenvalues near the shift, which are too near to each other: give another "
            "target, or take out what moves freely"
        )

    def _factorize(self, shift: complex) -> None:
        """Factorize at a shift, or beside it where Q is singular there. Collective."""
        for beside in (0.0, 1.0, 10.0):
            self.close()
            # Numbers that people give are eigenvalues of problems that they make.
            here = shift * (1 + _GENERIC) + beside * _BESIDE * (abs(shift) or 1.0)
            self._solver = NearestSolver(self._quadratic, here, self._options, self._told)
            if not self._solver.singular:
                return
        raise InputError(self.found.resistance.warning(self._quadratic.unit) or _SINGULAR)

    def _add(self, found: Found) -> int:
        """Add what is new to the pool, but for rigid motions, in order; return how many there are. Collective."""
        pool, motions = self.found.pool, self._motions
        before = len(pool.values)
        pool.add(found, self._tol)
        inside = self._quadratic.layout.comm.allreduce(motions.T @ pool.vectors)
        outside = np.sqrt(np.maximum(1 - np.sum(np.abs(inside) ** 2, axis=0), 0.0))
        zero = (np.abs(pool.values) <= _ZERO) & (outside <= _RIGID)
        order = by_distance(pool.values, self._target)
        pool.select(order[~zero[order]])
        return len(pool.values) - before

    def close(self) -> None:
        """Give up the solver and its factors. Collective."""
        if self._solver is not None:
            self._solver.close()
        self._solver = None


def by_distance(values: np.ndarray, place: complex) -> np.ndarray:
    """Return the order of eigenvalues by distance from a place, then by their parts. Not collective.

    What differs by rounding is in the same order on any number of ranks.
    """
    distance = np.abs(values - place)
    exponent = np.floor(np.log10(np.maximum(distance, 1e-300)))
    return np.lexsort((values.real, values.imag, np.round(distance / 10.0**exponent, 7), exponent))


def _rigid_motions(matrices: QuadraticMatrices) -> tuple[np.ndarray, int, Resistance]:
    """Return (n_local, p) motions that K does not resist, orthonormal, how often λ = 0 is theirs, and doubts.

    Collective. A motion r with rᵀ(C + G)s = 0 for all such s is a double one, else a simple one: (C + G)r + Ks = 0
    has a solution s for the former alone, and the chain ends there as M is definite on them and C is semidefinite.
    """
    layout, nullity = matrices.layout, matrices.stiffness_signs.zero
    if not nullity or not matrices.resists:
        return np.empty((layout.n_local, 0)), 0, NOTHING
    with eigs(matrices.K, nullity, count="no", strict=False) as found:
        own = [vector.getArray(readonly=True).copy() for vector in found.vectors]
    motions = np.stack(own, axis=1) if own else np.empty((layout.n_local, 0))
    gram = layout.comm.allreduce(motions.T @ motions)
    motions = motions @ np.linalg.inv(np.linalg.cholesky(gram)).T
    stiff, damps, masses = (one.real for one in matrices.images(motions + 0j))
    _refuse_shared(matrices, motions, damps, masses)
    own_damping = motions.T @ damps, motions.T @ (matrices.rows_v[:, None] * motions)
    damping, could = layout.comm.allreduce(np.stack(own_damping))
    size = float(np.trace(could))
    damped = int(np.count_nonzero(np.linalg.svd(damping, compute_uv=False) > _UNDAMPED * size)) if size > 0 else 0
    terms = stiff, matrices.rows_k[:, None] * motions, masses, damps
    most = float(layout.comm.allreduce(matrices.rows_k.max(initial=0.0), op=MPI.MAX))
    stiffness, digits, mass, drag = layout.comm.allreduce(np.stack([motions.T @ one for one in terms]))
    resistance = find_resistance(stiffness, digits, mass, drag, most)
    return motions, 2 * motions.shape[1] - damped, resistance


def _refuse_shared(
    matrices: QuadraticMatrices, motions: np.ndarray, damps: np.ndarray, masses: np.ndarray
) -> None:
    """Refuse motions that K does not resist and that neither mass nor damping knows. Collective."""
    could = [rows[:, None] * motions for rows in (matrices.rows_v, matrices.rows_m)]
    own = sum(one.T @ one for one in (damps, masses)), sum(one.T @ one for one in could)
    are, most = matrices.layout.comm.allreduce(np.stack(own))
    if not np.linalg.eigvalsh(are)[0] > _MASSLESS**2 * np.trace(most):
        raise InputError(_SINGULAR)
