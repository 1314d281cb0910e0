"""Lanczos from many starting vectors side by side, without ghosts; Gauss quadratures and functions of matrices."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, Protocol

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.estimates.spectral_measures import bound_measure
from sparsehess.errors import CheckError
from sparsehess.runtime import on_root
from sparsehess.runtime.citations import cite
from sparsehess.runtime.memory import free_memory
from sparsehess.runtime.row_layout import Layout

# Starting vectors that are advanced together, at most: a matrix is read once for all of them.
_TOGETHER = 16

# Part of the free memory that the bases of a batch may take. Those of as many vectors as PETSc multiplies at once
# are no slower than larger ones, and more than so many bytes bring nothing else.
_SHARE, _AT_ONCE, _BYTES = 0.25, 4, 2**30

# Rows that several operations are done on while they are in the cache.
_ROWS = 2**15

# An off-diagonal entry this small beside the others ends a run: its space is invariant, to rounding.
_INVARIANT = 1e-12

# Steps after which convergence is looked at first, and by how much they grow from look to look.
FIRST, _GROWTH = 12, 1.4

# Steps that are taken at least where something must settle: it is looked at twice.
FEWEST = int(np.ceil(_GROWTH * FIRST))

_EPS = float(np.finfo(float).eps)


class SymmetricOperator(Protocol):
    """A symmetric operator on blocks (n_local, k) of vectors with contiguous columns.

    Attributes
    ----------
    layout, comm
        Rows of the vectors, and the ranks.
    total
        Dimension of the space that it acts on.
    noise
        Relative error of a product.
    plain
        Whether the inner product is the ordinary one.
    """

    layout: Layout
    comm: MPI.Comm
    total: int
    noise: float
    plain: bool

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return the image of a block, which may be overwritten. Collective."""
        ...

    def dual(self, X: np.ndarray) -> np.ndarray:
        """Return M X for the inner product xᵀMy. Collective."""
        ...


def batches(operator: SymmetricOperator, steps: int, wanted: int) -> list[range]:
    """Return the numbers 0 to wanted - 1 in batches whose bases, steps vectors for each, fit into memory.

    Collective. Four bases of steps n_local numbers each, more where n_local is small, but no more than a quarter
    of what is free; one where that is more.
    """
    largest = int(operator.layout.counts.max())
    basis = 8 * max(largest, 1) * (steps + 6)
    room = int(_SHARE * free_memory(operator.comm) / basis)
    size = max(1, min(wanted, _TOGETHER, room, max(_AT_ONCE, _BYTES // basis)))
    pieces = max(1, -(-wanted // size))
    ends = np.arange(pieces + 1) * wanted // pieces  # evenly: each of the few sizes of block is planned once
    return [range(a, b) for a, b in pairwise(ends) if b > a]


class Lanczos:
    """Independent Lanczos runs, each from its own starting vector, products made for all at once.

    Collective to make and to use. The basis of every run is kept semiorthogonal, to √ε: the loss is followed by
    its recurrence, and where it comes near √ε two vectors in a row are orthogonalised against all before them
    (Simon 1984, "The Lanczos algorithm with partial reorthogonalization", section 4). The tridiagonal matrix is
    then, to rounding, that of the space spanned (section 2): no eigenvalue comes twice. Where products are inexact
    all vectors are orthogonalised. A run whose space is invariant ends, its quadrature is exact.

    Parameters
    ----------
    starts
        (n_local, k); not changed.
    most
        Steps at most. The bases take most k n_local numbers, of which those of steps not taken are not touched.
    memory
        `memory` of a run that is done with, to be used again: new pages take longer than what is done in them.

    Attributes
    ----------
    sizes
        (k,) lengths of the starting vectors in the operator's inner product.
    steps
        Taken so far by the longest run.
    lengths
        (k,) steps of each run.
    orthogonalised
        How many vectors were orthogonalised against all before them.
    """

    def __init__(
        self, operator: SymmetricOperator, starts: np.ndarray, most: int, memory: np.ndarray | None = None
    ):
        cite("lanczos")
        n_local, k = starts.shape
        self.operator, self.most = operator, max(1, min(most, operator.total))
        self.steps, self.orthogonalised = 0, 0
        self.sizes = np.sqrt(self._dots(operator.dual(starts).T, starts.T))
        self.lengths = np.zeros(k, np.int64)
        self.alpha, self.beta = np.zeros((k, self.most)), np.zeros((k, self.most))
        needed = self.most * k * n_local
        self.memory = memory if memory is not None and len(memory) >= needed else np.empty(needed)
        self._V = self.memory[:needed].reshape(self.most, k, n_local)
        np.multiply(starts.T, _inverses(self.sizes)[:, None], out=self._V[0])
        self._dual = self._V[0] if operator.plain else operator.dual(self._V[0].T).T
        self._running = self.sizes > 0
        # Estimates of the inner products of the last two vectors with those before; see `_orthogonality`.
        self._now, self._before = np.zeros((k, self.most + 1)), np.zeros((k, self.most + 1))
        self._again = np.zeros(k, bool)
        self._unit = max(operator.noise, 0.5 * _EPS * np.sqrt(max(operator.total, 1)))
        self._allowed = np.sqrt(_EPS / self.most)

    @property
    def finished(self) -> bool:
        """Whether no run can go on: out of steps, or all are exact."""
        return self.steps >= self.most or not self._running.any()

    def advance(self, steps: int) -> None:
        """Go on until so many steps are taken in all, or nothing is left to do.

        Collective.
        """
        while self.steps < steps and not self.finished:
            self._step(self.steps)
            self.steps += 1

    def _step(self, j: int) -> None:
        operator, V = self.operator, self._V
        W = operator.apply(V[j].T).T  # rows are vectors here, contiguous
        before = self.beta[:, j - 1] if j else np.zeros(len(W))
        alpha = self._summed(_subtract(W, before, V[j - 1], V[j] if operator.plain else self._dual))
        squares = _subtract(W, alpha, V[j], W)
        self.alpha[:, j] = alpha
        self.lengths[self._running] += 1
        if j + 1 == operator.total:
            self._running[:] = False
            return
        dual = self._dualised(W)
        beta = np.sqrt(np.maximum(self._summed(squares) if operator.plain else self._dots(dual, W), 0.0))
        if not np.isfinite(alpha.sum() + beta.sum()):
            raise CheckError("products with the Hessian are not finite: is the function defined around x?")
        beta, dual = self._orthogonalise(j, W, dual, beta)
        largest = np.abs(self.alpha[:, : j + 1]).max(axis=1) + self.beta[:, : j + 1].max(axis=1)
        self._running &= beta > _INVARIANT * largest
        self.beta[:, j] = beta = np.where(self._running, beta, 0.0)
        if j + 1 < self.most:
            np.multiply(W, _inverses(beta)[:, None], out=V[j + 1])
        if not operator.plain:
            self._dual = dual * _inverses(beta)[:, None]

    def _dualised(self, W: np.ndarray) -> np.ndarray:
        return W if self.operator.plain else self.operator.dual(W.T).T

    def _orthogonalise(
        self, j: int, W: np.ndarray, dual: np.ndarray, beta: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Orthogonalise next vectors W in place where they need it; return their lengths and duals."""
        lost = self._orthogonality(j, beta)
        chosen = np.flatnonzero(self._running & (self._again | (lost > self._allowed)))
        self._again[:] = False
        if not len(chosen):
            return beta, dual
        self._again[chosen] = lost[chosen] > self._allowed  # the vector before is not better: the next one too
        before = beta.copy()
        for _ in range(2):
            shares = np.zeros((len(chosen), j + 1))
            for row, i in enumerate(chosen):
                shares[row] = self._V[: j + 1, i] @ dual[i]
            shares = self._summed(shares)
            for row, i in enumerate(chosen):
                W[i] -= shares[row] @ self._V[: j + 1, i]
            dual = self._dualised(W)
            left = before[chosen] ** 2 - (shares**2).sum(axis=1)
            if (left > 0.5 * before[chosen] ** 2).all():
                before[chosen] = np.sqrt(left)
                break
            # Cancellation left an error that shows beside what is left (Kahan's "twice is enough").
            before = np.sqrt(np.maximum(self._dots(dual, W), 0.0))
        self._now[chosen, : j + 1] = self._unit
        self.orthogonalised += len(chosen)
        return before, dual

    def _orthogonality(self, j: int, beta: np.ndarray) -> np.ndarray:
        """Return the greatest loss of orthogonality of vector j + 1 in each run, by its recurrence.

        Simon 1984, equation 2.7: the estimates of row j + 1 follow from those of rows j and j - 1.
        """
        now, old, a, b = self._now, self._before, self.alpha, self.beta
        new = np.zeros_like(now)
        if j:
            shifted = np.zeros((len(beta), j))
            shifted[:, 1:] = b[:, : j - 1] * now[:, : j - 1]
            now[:, j] = 1.0
            change = b[:, :j] * now[:, 1 : j + 1] + (a[:, :j] - a[:, j, None]) * now[:, :j] + shifted
            change -= b[:, j - 1, None] * old[:, :j]
            size = np.abs(a[:, : j + 1]).max(axis=1) + b[:, :j].max(axis=1)
            change += np.copysign(self._unit * size[:, None], change)
            new[:, :j] = change * _inverses(beta)[:, None]
        new[:, j] = self._unit * np.abs(a[:, j]) * _inverses(beta) + self._unit
        new[beta == 0] = 1.0
        self._before, self._now = now, new
        return np.abs(new[:, : j + 1]).max(axis=1)

    def quadratures(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return (nodes ascending, weights, residuals) of each run: Gauss quadratures of its start's measure.

        Collective. Weights sum to one; within its residual of a node is an eigenvalue. Golub and Welsch 1969,
        "Calculation of Gauss quadrature rules".
        """
        cite("gauss quadrature")
        last = self.beta[np.arange(len(self.beta)), np.maximum(self.lengths, 1) - 1]
        return [
            (nodes, rotation[0] ** 2, beta * np.abs(rotation[-1]))
            for (nodes, rotation), beta in zip(self._eigen(), last.tolist(), strict=True)
        ]

    def recurrences(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return of each run the diagonal (m,) of its tridiagonal matrix, and (m,) what is beside it.

        Not collective. The last entry beside it leads out of the space, and is 0 where that is invariant.
        """
        return [
            (alpha[:m].copy(), beta[:m].copy())
            for alpha, beta, m in zip(self.alpha, self.beta, self.lengths.tolist(), strict=True)
        ]

    def _eigen(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the eigenvalues and eigenvectors of each tridiagonal matrix, the same on every rank."""
        return on_root(self.operator.comm, _eigen, self.alpha, self.beta, self.lengths)

    def function(self, f: Callable) -> np.ndarray:
        """Return f(operator) times the starting vectors, (n_local, k), as good as the steps taken make it.

        Collective.
        """
        result = np.zeros((self._V.shape[2], len(self.sizes)), order="F")
        for i, (nodes, rotation) in enumerate(self._eigen()):
            if len(nodes):
                share = self.sizes[i] * (rotation @ (rotation[0] * f(nodes)))
                result[:, i] = share @ self._V[: len(nodes), i]
        return result

    def _dots(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return self._summed(np.array([x @ y for x, y in zip(X, Y, strict=True)], np.float64))

    def _summed(self, array: np.ndarray) -> np.ndarray:
        if self.operator.comm.size > 1:
            self.operator.comm.Allreduce(MPI.IN_PLACE, array)
        return array


def number_beyond(run: Lanczos, place: float) -> float:
    """Return how many eigenvalues the moments of Lanczos runs allow up to a place; 0 at minus infinity.

    Collective. The mean of their upper bounds, see `Quadratures.below`; nothing where the runs are exact.
    """
    if not np.isfinite(place):
        return 0.0
    upper = [
        float(bound_measure(nodes, residuals, recurrence, np.array([place]))[2][0])
        for (nodes, _, residuals), recurrence in zip(run.quadratures(), run.recurrences(), strict=True)
        if len(nodes)
    ]
    return run.operator.total * float(np.mean(upper)) if upper else 0.0


def advance_to_accuracy(run: Lanczos, f: Callable, accuracy: float) -> tuple[np.ndarray, float]:
    """Advance runs until their quadratures of f are as accurate as asked; return these and their last change.

    Collective.

    Returns
    -------
    values
        (k,) startᵀ M f(operator) start.
    change
        Of the values from the last look but one to the last, relative to them; 0 where runs are exact.
    """
    before, wanted = None, min(FIRST, run.most)
    while True:
        run.advance(wanted)
        values = np.array([weights @ f(nodes) if len(nodes) else 0.0 for nodes, weights, _ in run.quadratures()])
        values *= run.sizes**2
        if (run.steps < run.most and run.finished) or run.steps == run.operator.total:
            return values, 0.0
        if before is not None:
            change = float(np.abs(values - before).max() / max(np.abs(values).max(), np.finfo(float).tiny))
            if change <= accuracy or run.finished:
                return values, change
        elif run.finished:
            return values, np.inf
        before, wanted = values, min(run.most, int(np.ceil(_GROWTH * wanted)))


class Applied(NamedTuple):
    """A function of an operator times vectors.

    Attributes
    ----------
    image
        (n_local, k).
    change
        Relative, of the last quadratures.
    beyond
        How many eigenvalues may be outside the domain of the function, for all that is known.
    """

    image: np.ndarray
    change: float
    beyond: float


def apply_function(
    operator: SymmetricOperator,
    X: np.ndarray,
    f: Callable,
    *,
    most: int,
    accuracy: float,
    above: float = -np.inf,
) -> Applied:
    """Return f(operator) X, and how good it is.

    Collective. Steps are taken until the quadratures Xᵀ M f X settle to the square of the accuracy or to rounding:
    they converge twice as fast as the vectors (Golub and Meurant 2010, "Matrices, Moments and Quadrature", ch. 7).

    Parameters
    ----------
    above
        Eigenvalues must be greater than this.
    """
    result, worst, memory, beyond = np.empty(X.shape, order="F"), 0.0, None, 0.0
    for batch in batches(operator, most, X.shape[1]):
        columns = slice(batch.start, batch.stop)
        run = Lanczos(operator, X[:, columns], most, memory)
        memory = run.memory
        _, change = advance_to_accuracy(run, f, max(accuracy**2, 1e-15))
        result[:, columns] = run.function(f)
        worst = max(worst, change)
        beyond += number_beyond(run, above) * X[:, columns].shape[1] / X.shape[1]
    return Applied(result, worst, beyond)


def _eigen(alpha: np.ndarray, beta: np.ndarray, lengths: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    from scipy.linalg import eigh_tridiagonal  # 70 ms on every rank, and seldom needed

    pairs = []
    for a, b, m in zip(alpha, beta, lengths, strict=True):
        # By QR: LAPACK's newer stemr may fail to converge. Not every version of SciPy takes matrices of one row.
        pairs.append(
            eigh_tridiagonal(a[:m], b[: m - 1], lapack_driver="stev") if m > 1 else (a[:m], np.ones((1, m)))
        )
    return pairs


def _subtract(W: np.ndarray, factors: np.ndarray, V: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Subtract factors[i] V[i] from W[i], in place; return local inner products of the results with the X[i]."""
    from scipy.linalg.blas import daxpy

    dots = np.zeros(len(W))
    for begin in range(0, W.shape[1], _ROWS):
        rows = slice(begin, begin + _ROWS)
        for i, factor in enumerate(factors.tolist()):
            w = W[i, rows]
            if factor:
                daxpy(V[i, rows], w, a=-factor)
            dots[i] += X[i, rows] @ w
    return dots


def _inverses(values: np.ndarray) -> np.ndarray:
    """Return 1 / values, and 0 for zeros."""
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
