"""What the lowest pairs are predicted to take, with one factorization and with two.

All is told in operations of MUMPS's elimination, so that which way is taken depends on the matrix alone; a product
of dense matrices tells how long an operation takes here.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.factor_cost import FactorCost
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.factor_packages import has_cholmod
from sparsehess.eigen.solvers.lobpcg import guarded
from sparsehess.runtime import on_root

# Measured at 3-D elasticity, n = 34,914 and 104,544, one core (`benchmarks/eigenpairs_vs_peers.py elasticity`).
# Operations that a factorization takes beside elimination, an entry of the factors; CHOLMOD factorizes definite
# matrices in this part of MUMPS's time.
_ENTRY, _DEFINITE = 450.0, 0.7

# Operations an entry of a solve, and what goes with it, in a Krylov space.
_SOLVE = 32.0

# Solves of a Krylov space for k pairs.
_SOLVES_EACH, _SOLVES = 4, 3

# Operations an entry and a vector of the solves that a block takes, and how many; operations a row and a vector of
# all else, from a multigrid and from a guess.
_BLOCK_SOLVE, _BLOCK_SOLVES = 5.0, 10
_BLOCK, _BLOCK_FROM_GUESS = 7e4, 3e4

# MUMPS's part of the speed of a product of dense matrices of this size.
_PART, _SIZE = 0.7, 512


class PredictedSeconds(NamedTuple):
    """Seconds that the lowest pairs take.

    Attributes
    ----------
    once
        With one factorization, past the wanted ones.
    below
        With one below all, and one to count.
    """

    once: float
    below: float


def predict_seconds(problem: EigenProblem, cost: FactorCost, k: int) -> PredictedSeconds:
    """Return what k pairs take, with what a factorization costs. Collective; the same on every rank."""
    lower = _DEFINITE if has_cholmod(problem.comm) else 1.0
    factorization = cost.operations + _ENTRY * cost.entries
    below = (lower + 1.0) * factorization + (_SOLVES_EACH * k + _SOLVES) * _SOLVE * cost.entries
    row = _BLOCK_FROM_GUESS if len(problem.guess) >= k else _BLOCK
    once = factorization + guarded(k) * (row * problem.n + _BLOCK_SOLVES * _BLOCK_SOLVE * cost.entries)
    second = on_root(problem.comm, _operations_a_second) * problem.comm.size
    return PredictedSeconds(once / second, below / second)


def _operations_a_second() -> float:
    a = np.ones((_SIZE, _SIZE))
    a @ a
    began = time.perf_counter()
    a @ a
    return _PART * 2 * _SIZE**3 / max(time.perf_counter() - began, 1e-9)
