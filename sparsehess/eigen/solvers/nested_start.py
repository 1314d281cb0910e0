"""Upper bounds of the lowest eigenvalues, and vectors near their eigenvectors, from the levels of a multigrid.

The pairs of the coarsest level are LAPACK's. Their vectors are prolonged, smoothed, and improved on each finer
level by a few steps of a block method that is preconditioned by the smoother alone: nested iteration, without a
factorization. Ritz values of A and M are bounds by the theorem of Courant and Fischer (Parlett 1998, "The
symmetric eigenvalue problem", section 10.2), whatever the prolongation is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from sparsehess.eigen.problem.block_vectors import Product
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rigid_body_modes import block_size, orthonormal
from sparsehess.eigen.solvers.dof_blocks import dof_block_size
from sparsehess.eigen.solvers.lapack import gather
from sparsehess.eigen.solvers.lobpcg import Basis
from sparsehess.eigen.solvers.multigrid_cycle import Smoother
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

# PETSc's errors where smoothers find a level that is not positive definite.
_INDEFINITE = (71, 77, 91)

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
        return _improved(problem, rows[:block], k, block)
    with ExitStack() as later:
        pc = _hierarchy(problem, later)
        if pc is None:
            return None
        levels = pc.getMGLevels()
        problems, prolongations = [problem], []
        for level in range(levels - 1, 0, -1):
            P = pc.getMGInterpolation(level)
            finer = problems[-1]
            M = P.transposeMatMult(P) if finer.M is None else finer.M.ptap(P)
            later.callback(destroy, M)
            solver = pc.getMGSmoother(level - 1) if level > 1 else pc.getMGCoarseSolve()
            problems.append(EigenProblem(A=solver.getOperators()[0], M=M, null=[], owned=[]))
            prolongations.append(P)
        number = block + len(problem.null)
        if not number <= problems[-1].n // 2 <= _LARGEST // 2:
            return None
        rows = _lowest(problems[-1], number)
        for finer, P in zip(reversed(problems[:-1]), reversed(prolongations), strict=True):
            prolong = Product(P)
            rows = prolong(rows).copy()
            prolong.close()
            if finer is problem:
                return _smoothed(finer, rows, k, block)
            basis = _smoothed(finer, rows, k + len(problem.null), number)
            if basis is None:
                return None
            rows = basis.S[: basis.x].copy()
            basis.close()
    return None


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
    pc = PETSc.PC().create(matrix.comm)
    later.callback(destroy, pc)
    pc.setOptionsPrefix(_PREFIX)
    pc.setOperators(matrix)
    with inserted_options(_PREFIX, _OPTIONS), readable_errors("coarsening"):
        pc.setFromOptions()
        try:
            with held_errors():
                pc.setUp()
        except (PETSc.Error, SystemError) as error:  # on all ranks alike
            if error_code(error) not in _INDEFINITE:
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


def _smoothed(problem: EigenProblem, rows: np.ndarray, k: int, block: int) -> Basis | None:
    """Return a basis of prolonged rows, smoothed and improved; see `_improved`."""
    smoother = Smoother(problem.A, _DEGREE, _LOW)
    smoother.smooth(rows, -smoother.multiply(rows))
    smoother.close()
    return _improved(problem, rows, k, block)


def _improved(problem: EigenProblem, rows: np.ndarray, k: int, block: int) -> Basis | None:
    """Return a basis of rows after some steps, None where the bound of the k-th eigenvalue keeps falling."""
    smoother = Smoother(problem.A, _DEGREE, _LOW)
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
        smoother.close()
        if not fell <= _SERVES:
            basis.close()
    return basis if fell <= _SERVES else None
