"""What a run would cost, before anybody queues: calls of the user's functions, memory, ranks worth having."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsehess import runtime
from sparsehess.derivatives.finite_differences import scheme_of
from sparsehess.derivatives.objective import Objective
from sparsehess.eigen.problem.factor_memory import factor_memory
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import StackError
from sparsehess.pattern import Pattern
from sparsehess.runtime import memory as room

# Gradients for each colour and once, by scheme: those at x, and those that tell the noise.
_PER_COLOR = {"forward": 1, "central": 2, "extrapolated": 4, "complex": 1, "product": 1}
_NOISE = 7

# Rows of a rank below which it talks more than it computes.
_ROWS = 5_000

# Entries of a factor for each of the matrix where no analysis tells: what meshes and crystals in space need.
_FILL = 20

# What a rank may have more than its share of a factor.
_UNEVEN = 1.3

_BYTES_OF_ENTRY, _BYTES = 12, 8


@dataclass(frozen=True)
class Calls:
    """Calls of the user's functions, by what they are for; `estimated` where the pattern is not known yet.

    Attributes
    ----------
    colors
        None for a sum over elements.
    scheme
        Of the derivatives.
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
        """Calls for all of it."""
        return self.derivatives + self.noise + self.verification + self.pattern


def calls(objective: Objective, derivative: str, colors: int | None, verified: bool, probed: int = 0) -> Calls:
    """Return how often the functions of an objective would be called.

    Collective.

    Parameters
    ----------
    colors
        None for a sum over elements: there a sweep over all of them counts as a gradient.
    probed
        Tests that find the pattern; 0 where it is given.
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
        verification=(1 if scheme == "product" else 2) if verified else 0,
        pattern=probed + (_NOISE + 3 if probed and differences else 0),
        estimated=probed > 0,
    )


def probes(n: int, row: int) -> int:
    """Return about how many tests find a pattern with this many entries in a row. Not collective."""
    return min(n, math.ceil(2 * row * math.log2(max(n, 2))))


@dataclass(frozen=True)
class Memory:
    """Bytes, over all ranks together but for `process`, which each has.

    Attributes
    ----------
    matrix, vectors, columns
        The Hessian; the subspace; compressed columns.
    factor, analysed
        The factorization of shift-and-invert, and whether MUMPS's analysis of this very structure has told it.
    process
        Python and the libraries, before anything is computed.
    """

    matrix: int
    factor: int
    analysed: bool
    vectors: int
    columns: int
    process: int

    def each(self, ranks: int) -> int:
        """Return what the fullest of so many ranks would take. Not collective."""
        solving = self.factor * (_UNEVEN if ranks > 1 else 1.0) + self.vectors
        return math.ceil(self.process + (self.matrix + max(solving, self.columns)) / ranks)


def memory(pattern: Pattern | None, n: int, nnz: int, k: int, colors: int, factored: bool) -> Memory:
    """Return what a run would take.

    Collective where there is a pattern: its structure alone is analysed, and nothing is factorized.

    Parameters
    ----------
    nnz
        Entries, estimated where there is no pattern.
    k
        Eigenpairs.
    colors
        Columns that are held together; 0 for matrix files.
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
    """Return bytes of a factorization of a matrix of this pattern. Collective."""
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    values = np.where(rows == pattern.indices, float(pattern.n), 1.0)
    matrix = runtime.aij(pattern.layout, pattern.indptr, pattern.indices, values)
    try:
        with EigenProblem.of(matrix, nullspace=[]) as problem:
            return factor_memory(problem)[1]
    finally:
        matrix.destroy()


@dataclass(frozen=True)
class Ranks:
    """How many ranks are worth having.

    Attributes
    ----------
    solve
        By rows: more talk more than they compute.
    derivatives
        That find work while colours are shared out; None where all ranks compute each gradient together, 0
        where there are none.
    memory
        That the run needs at least where each rank may take as much as one can here.
    best
        What to ask for.
    """

    solve: int
    derivatives: int | None
    memory: int
    best: int


def ranks(n: int, pieces: int | None, seconds: float | None, needed: Memory, free: int) -> Ranks:
    """Return how many ranks are worth having.

    Not collective.

    Parameters
    ----------
    pieces
        Colours that are dealt to ranks; None where ranks compute gradients together, 0 where there are none.
    seconds
        That all calls take on one rank; None where it was not measured.
    free
        Bytes that a rank may take here.
    """
    solve = max(1, n // _ROWS)
    least = 1
    while needed.each(least) > free and least < 2**20:
        least *= 2
    # A second of derivatives is not worth the start of more processes.
    shared = min(pieces, math.ceil(seconds)) if pieces and seconds is not None and seconds > 1.0 else 1
    return Ranks(solve, pieces, least, max(solve, shared, least))


def lines(facts: dict[str, Any]) -> str:
    """Return a plan for people. Not collective."""
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
