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

# Measured at 3-D elasticity, n = 34,914 and 104,544, one core (`benchmarks/one_factorization.py`): operations an
# entry of a single solve, by MUMPS and by CHOLMOD, which factorizes definite ones in this part of MUMPS's time;
# operations a row and a vector of all that a block does, from a multigrid and from a guess.
_SOLVE, _SOLVE_DEFINITE, _DEFINITE = 33.0, 17.0, 0.65
_BLOCK, _BLOCK_FROM_GUESS = 1e5, 4e4

# Solves of a Krylov space for k pairs.
_SOLVES_EACH, _SOLVES = 2, 5

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
    definite = has_cholmod(problem.comm)
    solve = (_SOLVE_DEFINITE if definite else _SOLVE) * cost.entries
    below = ((_DEFINITE if definite else 1.0) + 1.0) * cost.operations + (_SOLVES_EACH * k + _SOLVES) * solve
    vector = _BLOCK_FROM_GUESS if len(problem.guess) >= k else _BLOCK
    once = cost.operations + vector * guarded(k) * problem.n
    second = on_root(problem.comm, _operations_a_second) * problem.comm.size
    return PredictedSeconds(once / second, below / second)


def _operations_a_second() -> float:
    a = np.ones((_SIZE, _SIZE))
    a @ a
    began = time.perf_counter()
    a @ a
    return _PART * 2 * _SIZE**3 / max(time.perf_counter() - began, 1e-9)
