"""Upper bounds of the lowest eigenvalues, and vectors near their eigenvectors, from the levels of a multigrid.

The pairs of the coarsest level are LAPACK's. Their vectors are prolonged, smoothed, and improved on each finer
level by a few steps of a block method that is preconditioned by the smoother alone: nested iteration, without a
factorization. Ritz values of A and M are bounds by the theorem of Courant and Fischer (Parlett 1998, "The
symmetric eigenvalue problem", section 10.2), whatever the prolongation is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.panel_products import product
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rigid_body_modes import block_size, orthonormal
from sparsehess.eigen.solvers.dof_blocks import dof_block_size
from sparsehess.eigen.solvers.lapack import gather
from sparsehess.eigen.solvers.lobpcg import Basis
from sparsehess.eigen.solvers.multigrid_cycle import NOT_DEFINITE, STRICT_ESTIMATES, Smoother
from sparsehess.runtime import (
    PETSc,
    destroy,
    error_code,
    held_errors,
    inserted_options,
    on_root,
    readable_errors,
)

# Smoothed aggregation until a level is as small as LAPACK likes it; the first aggregates are of squared graphs.
_PREFIX = "sparsehess_nested_"
_SMALLEST = 500
_OPTIONS = {
    "pc_type": "gamg",
    "pc_gamg_type": "agg",
    "pc_gamg_agg_nsmooths": 1,
    "pc_gamg_square_graph": 1,
    "pc_gamg_coarse_eq_limit": _SMALLEST,
    **STRICT_ESTIMATES,
    "mg_levels_ksp_type": "chebyshev",
    "mg_levels_pc_type": "jacobi",
    "mg_coarse_ksp_type": "preonly",
    "mg_coarse_pc_type": "none",
}

# A coarsest level beyond this is too large for LAPACK: there is no good coarsening.
_LARGEST = 2000

# The smoother's polynomial damps errors from this part of the largest eigenvalue on.
_DEGREE, _LOW = 6, 1 / 30

# Steps on one level, which end where the bound of the last wanted eigenvalue falls by no more than this part; the
# bounds of the finest serve where they fell by no more than the second at last.
_ROUNDS, _SETTLED, _SERVES = 6, 0.02, 0.15


# Directions of a coarse mass with less than this part of the largest are those of no aggregate.
_NONE = 1e-12


def nested_start(problem: EigenProblem, k: int, block: int, guess: Sequence[PETSc.Vec] = ()) -> Basis | None:
    """Return a basis whose first vectors are near the lowest eigenvectors; None where coarse levels tell nothing.

    Collective. The caller closes it.

    Parameters
    ----------
    problem
        Assembled, real.
    k
        How many are wanted: the bound of the last of them is waited for.
    block
        How many vectors there are to be.
    guess
        Vecs that are improved instead, if they are at least as many as are wanted.
    """
    if len(guess) >= k:
        rows = np.array([vector.getArray(readonly=True) for vector in guess])
        with closing(_smoother(problem)) as smoother:
            return _improved(problem, smoother, rows[:block], k, block)
    with ExitStack() as later:
        levels = _levels(problem, block + len(problem.null), later)
        if not levels:
            return None
        coarsest = levels.pop()
        rows = coarsest.prolong(_lowest(coarsest.problem, block + len(problem.null)))
        while levels:
            level = levels.pop()
            basis = _smoothed(level.problem, rows, k + len(problem.null), block + len(problem.null))
            if basis is None:
                return None
            rows = level.prolong(basis.S[: basis.x])
            basis.close()
        return _smoothed(problem, rows, k, block)


class _Level(NamedTuple):
    """A coarser problem, and the way to the next finer one."""

    problem: EigenProblem
    interpolation: PETSc.Mat

    def prolong(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (m, n_local) on the finer level. Collective."""
        with closing(product(self.interpolation)) as prolongation:
            return prolongation(rows).copy()


def _levels(problem: EigenProblem, number: int, later: ExitStack) -> list[_Level]:
    """Return the coarser problems, the last one small and with room for so many pairs; none where there is none.

    Collective. What they need is destroyed later.
    """
    pc = _hierarchy(problem, later)
    levels: list[_Level] = []
    if pc is None:
        return levels
    finer = problem
    for place in range(pc.getMGLevels() - 1, 0, -1):
        P = pc.getMGInterpolation(place)
        if P.getSize()[1] < 2 * number:
            break
        M = P.transposeMatMult(P) if finer.M is None else finer.M.ptap(P)
        later.callback(destroy, M)
        solver = pc.getMGSmoother(place - 1) if place > 1 else pc.getMGCoarseSolve()
        finer = EigenProblem(A=solver.getOperators()[0], M=M, null=[], owned=[])
        levels.append(_Level(finer, P))
        if finer.n <= _SMALLEST:
            break
    return levels if levels and finer.n <= _LARGEST else []


def _hierarchy(problem: EigenProblem, later: ExitStack) -> PETSc.PC | None:
    """Return a multigrid with at least two levels, None where there is none. Collective."""
    matrix = problem.A.duplicate(copy=True)
    later.callback(destroy, matrix)
    matrix.setOption(PETSc.Mat.Option.SPD, True)
    vectors = orthonormal(problem.near_null or problem.null)
    size = block_size(vectors) if vectors else dof_block_size(matrix)
    if size > 1:
        matrix.setBlockSize(size)
    if vectors:
        space = PETSc.NullSpace().create(vectors=vectors, comm=matrix.comm)
        matrix.setNearNullSpace(space)
        destroy(space, *vectors)  # the matrix holds them
    ksp = PETSc.KSP().create(matrix.comm)
    later.callback(destroy, ksp)
    ksp.setOptionsPrefix(_PREFIX)
    ksp.setOperators(matrix)
    b, x = matrix.createVecs()
    later.callback(destroy, b, x)
    pc = ksp.getPC()
    with inserted_options(_PREFIX, _OPTIONS), readable_errors("coarsening"):
        ksp.setFromOptions()
        ksp.setType("preonly")
        ksp.setErrorIfNotConverged(False)
        try:
            with held_errors():
                ksp.solve(b, x)  # it sets the multigrid up
        except (PETSc.Error, SystemError) as error:  # on all ranks alike
            if error_code(error) not in NOT_DEFINITE:
                raise
            return None
    return pc if pc.getMGLevels() > 1 else None


def _lowest(problem: EigenProblem, number: int) -> np.ndarray:
    """Return the lowest eigenvectors of a small problem as rows (number, n_local). Collective."""
    rows = on_root(problem.comm, _lowest_of, gather(problem, problem.A), gather(problem, problem.M), number)
    return rows[:, problem.layout.start : problem.layout.stop]


def _lowest_of(A: np.ndarray, M: np.ndarray, number: int) -> np.ndarray:
    weights, V = np.linalg.eigh(M)
    strong = weights > _NONE * weights[-1]
    W = V[:, strong] / np.sqrt(weights[strong])
    _, Z = np.linalg.eigh(W.T @ A @ W)
    return np.ascontiguousarray((W @ Z[:, :number]).T)


def _smoother(problem: EigenProblem) -> Smoother:
    return Smoother(problem.A, _DEGREE, _LOW)


def _smoothed(problem: EigenProblem, rows: np.ndarray, k: int, block: int) -> Basis | None:
    """Return a basis of prolonged rows, smoothed and improved; see `_improved`."""
    with closing(_smoother(problem)) as smoother:
        if smoother.damps:
            smoother.smooth(rows, -smoother.multiply(rows))
        return _improved(problem, smoother, rows, k, block)


def _improved(problem: EigenProblem, smoother: Smoother, rows: np.ndarray, k: int, block: int) -> Basis | None:
    """Return a basis of rows after some steps, None where the bound of the k-th eigenvalue keeps falling.

    Collective. None as well where the smoother damps nothing.
    """
    if not smoother.damps:
        return None
    away = np.array([vector.getArray(readonly=True) for vector in problem.null]).reshape(
        len(problem.null), problem.layout.n_local
    )
    basis = Basis(problem, block, False, away)
    fell = np.inf
    try:
        basis.add(rows[:block])
        basis.reduce()
        for _ in range(_ROUNDS):
            if len(basis.values) < k or not basis.values[k - 1] > 0:
                break
            before = basis.values[k - 1]
            residuals, _ = basis.residuals()
            corrections = np.zeros_like(residuals)
            smoother.smooth(corrections, residuals)
            basis.add(corrections)
            basis.reduce(np.arange(basis.x))
            fell = before / basis.values[k - 1] - 1
            if fell <= _SETTLED:
                break
    finally:
        if not fell <= _SERVES:
            basis.close()
    return basis if fell <= _SERVES else None
