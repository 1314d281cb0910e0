"""The table of how-to/structured-hessians: each operator is asked each question when the pages are built.

The matrices are larger than those that are made whole, so that what no structure tells is seen to be estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.eigs import complete_spec
from sparsehess.eigen.solvers.method_choice import choose_method

if TYPE_CHECKING:
    from mpi4py import MPI

    from sphinx.application import Sphinx

_PAGE, _MARK = "how-to/structured-hessians", "<!-- structures -->"

# Rows beyond which nothing is made whole, and random vectors and steps, which the words do not depend on.
_ROWS, _SAMPLES, _STEPS = 2100, 4, 8


class Rows:
    """Operators of about n rows, by name; those that they are made of are closed with `close`. Collective."""

    def __init__(self, n: int, comm: MPI.Comm | None = None):
        self._comm, self._stack = comm, ExitStack()
        self._q = min(42, int(n**0.5) + 4)
        self._p = n // self._q
        self._layout = sh.Layout.from_size(n, comm)
        self._n = n

    def _random(self, *shape: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=shape)

    def _own(self, array: np.ndarray) -> np.ndarray:
        return array[self._layout.start : self._layout.stop]

    def _positive(self, n: int, seed: int) -> np.ndarray:
        A = self._random(n, n, seed=seed)
        return A @ A.T / n + 0.2 * np.eye(n)

    def _kept(self, operator: Any) -> Any:
        return self._stack.enter_context(operator)

    def _low_rank(self) -> sh.LowRankDiagonal:
        d = 1.5 + np.sin(np.arange(self._n))
        return sh.LowRankDiagonal(self._own(d), self._own(self._random(self._n, 3)), comm=self._comm)

    def _multiple(self) -> sh.LowRankDiagonal:
        U = self._random(self._n, 2, seed=1)
        return sh.LowRankDiagonal(2.0, self._own(U), np.diag([1.0, -1e-4]), comm=self._comm)

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        S = self._random(self._n, 3, seed=2)
        return self._own(S), self._own((1.5 + np.cos(np.arange(self._n)))[:, None] * S)

    def _product(self) -> sh.Kronecker:
        return sh.Kronecker((self._positive(self._p, 3), self._positive(self._q, 4)), comm=self._comm)

    def _terms(self, commute: bool) -> sh.Kronecker:
        A, B = self._positive(self._p, 3), self._positive(self._q, 4)
        left, right = np.eye(self._p), np.eye(self._q)
        if not commute:
            left, right = self._positive(self._p, 5), self._positive(self._q, 6)
        return sh.Kronecker([(A, right), (left, B)], comm=self._comm)

    def _corrected(self) -> sh.EigenCorrected:
        grid = sh.Kronecker((np.eye(self._p), np.eye(self._q)), comm=self._comm)
        with grid:
            rows = slice(grid.layout.start, grid.layout.stop)
        QA, QB = (np.linalg.eigh(self._positive(m, 6))[1] for m in (self._p, self._q))
        s = 1.0 + np.sin(np.arange(self._p * self._q)) ** 2
        return sh.EigenCorrected(QA, QB, s[rows], comm=self._comm)

    def _nearest(self) -> sh.Kronecker:
        left, right = (sp.diags(2 + np.cos(np.arange(m))).tocsr() for m in (self._p, self._q))
        H = sp.kron(self._chain(self._p), right) + sp.kron(left, self._chain(self._q))
        return self._kept(sh.nearest_kronecker(H, self._p, self._q, 2, comm=self._comm)).operator

    def _chain(self, n: int) -> sp.csr_matrix:
        return sp.diags([-np.ones(n - 1), 2.2 + 0.3 * np.cos(np.arange(n)), -np.ones(n - 1)], [-1, 0, 1]).tocsr()

    def _blocks(self) -> sh.BlockDiagonal:
        sizes = [1, self._q, 2, self._p]
        sizes += [5] * max(1, (self._n - sum(sizes)) // 5)
        return sh.BlockDiagonal([self._positive(m, 7 + i) for i, m in enumerate(sizes)], comm=self._comm)

    def _sum(self) -> sh.DirectSum:
        return sh.DirectSum([self._low_rank(), self._product(), self._blocks()], owned=True)

    def _two_kinds(self) -> sh.Operator:
        n = self._p * self._q
        product = self._kept(self._product())
        rows = slice(product.layout.start, product.layout.stop)
        far = self._kept(sh.LowRankDiagonal(0.5, self._random(n, 2, seed=8)[rows], comm=self._comm))
        return sh.weighted_sum([(2.0, product), (1.0, far)], shift=0.1)

    def _of_one_kind(self) -> sh.Operator:
        first, second = self._kept(self._low_rank()), self._kept(self._multiple())
        return sh.weighted_sum([(0.5, first), (2.0, second)], shift=0.1)

    def _stored_sum(self) -> sh.Operator:
        H = self._chain(self._n)
        return sh.weighted_sum([(1.0, H), (0.5, sp.identity(self._n).tocsr())], comm=self._comm)

    def _scaled(self, stored: bool) -> sh.Operator:
        H = self._chain(self._n)
        T = sp.diags(1.0 + 0.5 * np.sin(np.arange(self._n))).tocsr()
        if stored:
            return sh.congruence(H, T, comm=self._comm)
        shell = self._kept(self._low_rank())
        return sh.congruence(shell, T)

    def _function(self) -> sh.Operator:
        return sh.funm(self._kept(self._product()), 0.5)

    def _products(self) -> sh.Operator:
        H = self._chain(self._n)
        return sh.from_matvec(lambda v: H @ v, self._n, comm=self._comm)

    def all(self) -> dict[str, Callable[[], Any]]:
        """Return what makes each operator. Not collective; what it returns is."""
        return {
            "`LowRankDiagonal`": self._low_rank,
            "`LowRankDiagonal`, D a multiple of I": self._multiple,
            "`sr1`": lambda: sh.sr1(*self._pairs(), comm=self._comm),
            "`lbfgs`": lambda: sh.lbfgs(*self._pairs(), comm=self._comm),
            "`Kronecker`, one term": self._product,
            "`Kronecker`, terms that commute": lambda: self._terms(True),
            "`Kronecker`, terms that do not": lambda: self._terms(False),
            "`EigenCorrected`": self._corrected,
            "`nearest_kronecker`, two terms": self._nearest,
            "`BlockDiagonal`": self._blocks,
            "`DirectSum` of such": self._sum,
            "`funm` of such": self._function,
            "`weighted_sum` of one kind": self._of_one_kind,
            "`weighted_sum` of two kinds": self._two_kinds,
            "`weighted_sum`, assembled": self._stored_sum,
            "`congruence` of a shell": lambda: self._scaled(False),
            "`congruence`, assembled": lambda: self._scaled(True),
            "`from_matvec`": self._products,
        }

    def close(self) -> None:
        """Close what operators were made of. Collective."""
        self._stack.close()


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.abs(values))


Question = Callable[..., Any]


def _trace(function: Any, **named: float) -> Question:
    return lambda H, **few: sh.trace(H, function, **named, **few)


def _diagonal(function: str | None) -> Question:
    return lambda H, **few: sh.diagonal(H, function, **few)


def labels(H: Any) -> np.ndarray:
    """Return three blocks of this rank's rows. Not collective."""
    return (np.arange(H.layout.start, H.layout.stop) % 3).astype(np.int64)


# Called with the operator, and with how few random vectors and steps are enough for the words.
QUESTIONS: dict[str, Question] = {
    "trace": _trace(None),
    "log-determinant": _trace("logdet"),
    "trace of the inverse": _trace("inverse"),
    "effective dimension": _trace("effective dimension", gamma=0.3),
    "trace of exp(−λt)": _trace("heat", time=0.2),
    "trace of any function": _trace(_root),
    "diagonal": _diagonal(None),
    "diagonal of the inverse": _diagonal("inverse"),
    "traces of blocks": lambda H, **few: sh.block_traces(H, labels(H), **few),
    "inertia": lambda H, **_: sh.inertia(H),
    "rank": sh.rank,
    "density": sh.density,
}

SOLVES: dict[str, dict[str, Any]] = {
    "smallest, lowest curvature": {"k": 4},
    "largest": {"k": 4, "which": "largest"},
    "magnitude": {"k": 4, "which": "magnitude"},
    "negative": {"which": "negative"},
    "target": {"k": 4, "target": 1.6},
    "interval": {"interval": (1.4, 1.9)},
}


def words(question: str, H: Any) -> str:
    """Return how a question is answered, in a few words. Collective."""
    try:
        found = QUESTIONS[question](H, samples=_SAMPLES, steps=_STEPS)
    except sh.InputError:
        return "refused"
    if isinstance(found, sh.Inertia):
        return "exact" if found.stderr is None else "estimate"
    if isinstance(found, sh.Rank):
        return "exact" if found.method != "density" else "estimate"
    if isinstance(found, sh.Density):
        return "exact" if found.method in ("structure", "dense") else "estimate"
    exact = found.method == "exact" if isinstance(found, sh.Trace) else found.exact
    return "exact" if exact else "estimate"


def solve_words(question: str, H: Any) -> str:
    """Return by what eigenpairs are found, and whether they are counted. Collective."""
    with EigenProblem.of(H) as problem:
        spec = complete_spec(problem, SolveSpec(**SOLVES[question]))
        try:
            choice = choose_method(problem, spec)
        except sh.InputError:
            return "refused"
        if choice.method == "structure":
            return "exact"
        counted = not problem.uncounted
        return "counted" if counted else "products"


def table() -> str:
    """Return the table as Markdown."""
    rows = Rows(_ROWS)
    head = ["", *QUESTIONS, *(f"eigs: {name}" for name in SOLVES)]
    columns = []
    for name, make in rows.all().items():
        with make() as H:
            answers = [words(question, H) for question in QUESTIONS]
            columns.append([name, *answers, *(solve_words(question, H) for question in SOLVES)])
    rows.close()
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(column) + " |" for column in columns)])


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    if page == _PAGE:
        source[0] = source[0].replace(_MARK, table())


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx what is put in the place of the mark."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
