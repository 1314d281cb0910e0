"""The cost of a run before it is queued: memory, and useful ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sparsehess import runtime
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import StackError
from sparsehess.pattern import Pattern
from sparsehess.runtime import destroy
from sparsehess.runtime import memory as room

# Rows of a rank below which communication outweighs computation.
_ROWS = 5_000

# Entries of a factor for each entry of the matrix, without an analysis: typical of meshes and crystals in 3-D.
_FILL = 20

# Ranks that are looked at, by doubling.
MOST_RANKS = 2**20

# Largest share of a factor on one rank, relative to an even share.
_UNEVEN = 1.3

_BYTES_OF_ENTRY, _BYTES = 12, 8


@dataclass(frozen=True)
class Memory:
    """Bytes of a run: `process` for each rank, all others over all ranks together.

    Attributes
    ----------
    matrix, vectors, columns
        The Hessian; the subspace; compressed columns.
    factor, analysed
        The factorization of shift-and-invert, and whether MUMPS has analysed this structure.
    process
        Python and the libraries, before anything is computed.
    """

    matrix: int
    factor: int
    analysed: bool
    vectors: int
    columns: int
    process: int

    def per_rank(self, ranks: int) -> int:
        """Return the bytes of the fullest of so many ranks. Not collective."""
        solving = self.factor * (_UNEVEN if ranks > 1 else 1.0) + self.vectors
        return math.ceil(self.process + (self.matrix + max(solving, self.columns)) / ranks)


def estimate_memory(pattern: Pattern | None, n: int, nnz: int, k: int, colors: int, factored: bool) -> Memory:
    """Estimate the memory of a run.

    Collective where there is a pattern: MUMPS analyses its structure and factorizes nothing.

    Parameters
    ----------
    nnz
        Entries, estimated where there is no pattern.
    k
        Eigenpairs.
    colors
        Compressed columns in memory at one time; 0 for matrix files.
    factored
        Whether the method factorizes.
    """
    factor, analysed = 0, False
    if factored:
        factor = _FILL * nnz * _BYTES
        if pattern is not None:
            try:
                with problem_of_pattern(pattern) as problem:
                    factor, analysed = problem.factor_cost.total, True
            except StackError as error:
                runtime.log.debug("no analysis: %s", error)
    return Memory(
        matrix=_BYTES_OF_ENTRY * nnz + _BYTES * n,
        factor=factor,
        analysed=analysed,
        vectors=_BYTES * n * max(2 * k, k + 15),
        columns=_BYTES * n * colors,
        process=room.peak_memory(),
    )


@contextmanager
def problem_of_pattern(pattern: Pattern) -> Iterator[EigenProblem]:
    """Give a problem of this pattern, with values in place of those that are not there yet. Collective."""
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    values = np.where(rows == pattern.indices, float(pattern.n), 1.0)
    matrix = runtime.aij(pattern.layout, pattern.indptr, pattern.indices, values)
    try:
        with EigenProblem.of(matrix, nullspace=[]) as problem:
            yield problem
    finally:
        destroy(matrix)


@dataclass(frozen=True)
class Ranks:
    """Useful numbers of ranks.

    Attributes
    ----------
    solve
        Of the solver, by rows: beyond it communication outweighs computation.
    derivatives
        Of the derivatives, by colours; None where all ranks compute each gradient together, 0 where there are
        no derivatives.
    memory
        Least number by memory, where each rank may take as much as one can here.
    best
        The number to ask for.
    """

    solve: int
    derivatives: int | None
    memory: int
    best: int


def choose_ranks(n: int, pieces: int | None, seconds: float | None, needed: Memory, free: int) -> Ranks:
    """Choose the number of ranks that a run can use.

    Not collective.

    Parameters
    ----------
    pieces
        Colours that are dealt to ranks; None where ranks compute gradients together, 0 where there are none.
    seconds
        Of all calls on one rank; None where it was not measured.
    free
        Bytes that a rank may take here.
    """
    solve = max(1, n // _ROWS)
    least = 1
    while needed.per_rank(least) > free and least < MOST_RANKS:
        least *= 2
    if needed.per_rank(least) > free:
        least = 1  # what each process takes is too much already: more of them do not help
    # A second of derivatives is not worth the start of more processes.
    shared = min(pieces, math.ceil(seconds)) if pieces and seconds is not None and seconds > 1.0 else 1
    return Ranks(solve, pieces, least, max(solve, shared, least))
