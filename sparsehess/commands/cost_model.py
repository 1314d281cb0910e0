"""The cost of a run before it is queued: calls of the user's functions, memory, useful ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsehess import runtime
from sparsehess.derivatives.consistency import least_calls
from sparsehess.derivatives.finite_differences import scheme_of
from sparsehess.derivatives.objective import Objective
from sparsehess.eigen.problem.factor_memory import factor_memory
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import StackError
from sparsehess.pattern import Pattern
from sparsehess.runtime import destroy
from sparsehess.runtime import memory as room

# Gradients for each colour, by scheme; gradients that measure the noise.
_PER_COLOR = {"forward": 1, "central": 2, "extrapolated": 4, "complex": 1, "product": 1}
_NOISE = 7

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
class Calls:
    """Calls of the user's functions, by purpose; `estimated` where the pattern is not known yet.

    Attributes
    ----------
    colors
        None for a sum over elements.
    scheme
        Scheme of the derivatives.
    derivatives, noise, verification, pattern
        Gradients, or products for scheme `product`.
    """

    colors: int | None
    scheme: str
    derivatives: int
    noise: int
    verification: int
    pattern: int
    estimated: bool

    @property
    def total(self) -> int:
        """Calls for all purposes together."""
        return self.derivatives + self.noise + self.verification + self.pattern


def count_calls(
    objective: Objective, derivative: str, colors: int | None, verified: bool, probed: int = 0
) -> Calls:
    """Count the calls of an objective's functions in one assembly.

    Collective.

    Parameters
    ----------
    colors
        None for a sum over elements: there a sweep over all of them counts as a gradient.
    probed
        Tests that detect the pattern; 0 where it is given.
    """
    scheme = scheme_of(derivative, objective)
    if colors is None:
        kinds = objective.elements or ()
        pieces = max(objective.comm.allgather(max((kind.size for kind in kinds), default=0)))
    else:
        pieces = colors
    differences = scheme not in ("product", "complex")
    return Calls(
        colors=colors,
        scheme=scheme,
        derivatives=pieces * _PER_COLOR[scheme] + (scheme == "forward"),
        noise=_NOISE if differences else 0,
        verification=(1 if scheme == "product" else 2) + least_calls(objective) if verified else 0,
        pattern=probed + (_NOISE + 3 if probed and differences else 0),
        estimated=probed > 0,
    )


def count_probes(n: int, row: int) -> int:
    """Estimate the tests that detect a pattern of n rows with `row` entries each. Not collective."""
    return min(n, math.ceil(2 * row * math.log2(max(n, 2))))


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
                factor, analysed = _analysed(pattern), True
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


def _analysed(pattern: Pattern) -> int:
    """Return the bytes of a factorization of this pattern, by MUMPS's analysis. Collective."""
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    values = np.where(rows == pattern.indices, float(pattern.n), 1.0)
    matrix = runtime.aij(pattern.layout, pattern.indptr, pattern.indices, values)
    try:
        with EigenProblem.of(matrix, nullspace=[]) as problem:
            return factor_memory(problem)[1]
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


def plan_lines(facts: dict[str, Any]) -> str:
    """Return a plan as text. Not collective."""
    about = "about " if facts["estimated"] else ""
    told = [f"input        {facts['name']}: {facts['n']} variables, {about}{facts['nnz']} entries"]
    spent = facts["evaluations"]
    if spent is None and facts["problem"]:
        told.append("derivatives  never assembled: products as the solver asks for them")
    elif spent is not None:
        kind = "products" if spent["scheme"] == "product" else "gradients"
        colors = "element by element" if spent["colors"] is None else f"{about}{spent['colors']} colors"
        told.append(f"derivatives  {spent['scheme']}, {colors}: {about}{spent['total']} {kind}")
        parts = [f"{spent[part]} for {name}" for part, name in _PARTS if spent[part]]
        told.append(f"             {', '.join(parts)}")
    if facts["seconds"] is not None:
        each = facts["seconds"]
        told.append(f"measured     {each['one']:.3g} s each on one rank, {each['all']:.3g} s for all")
    memory = facts["memory"]
    source = "by MUMPS's analysis" if memory["analysed"] else "by a rule of thumb"
    told.append(
        f"memory       {_size(memory['per_rank'])} on each of {memory['ranks']} rank(s): matrix "
        f"{_size(memory['matrix'])}, factor {_size(memory['factor'])} ({source}), "
        f"vectors {_size(memory['vectors'])}, columns {_size(memory['columns'])} in all, "
        f"{_size(memory['process'])} for each process"
    )
    worth = facts["ranks"]
    reasons = [f"{worth['solve']} for the solver"]
    if worth["derivatives"]:
        reasons.append(f"up to {worth['derivatives']} share out derivatives")
    elif worth["derivatives"] is None:
        reasons.append("gradients are computed by all ranks together")
    if worth["memory"] > 1:
        reasons.append(f"at least {worth['memory']} for memory")
    told.append(f"ranks        {worth['best']} worth having: {', '.join(reasons)}")
    return "\n".join(told)


_PARTS = (
    ("derivatives", "the entries"),
    ("noise", "their noise"),
    ("verification", "the check"),
    ("pattern", "the pattern"),
)


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
