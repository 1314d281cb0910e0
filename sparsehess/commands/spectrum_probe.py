"""How a Hessian looks, from a few products: trace, effective rank, ends of the spectrum, entries, noise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.estimates.block_lanczos import Lanczos
from sparsehess.eigen.estimates.reduced_operator import reduced_operator
from sparsehess.eigen.estimates.spectral_functions import half_width
from sparsehess.eigen.problem.lanczos_bounds import spectral_bounds
from sparsehess.eigen.problem.problem import STEPS, EigenProblem
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.runtime import destroy

if TYPE_CHECKING:
    from petsc4py import PETSc

# Lanczos runs that share the products, where there are enough for each; their spread is the error.
_RUNS, _FEWER = 3, 2

# Steps of each, with which fourth powers of eigenvalues are summed without an error.
_STEPS = 3

# Products that these take at the least, with a column.
LEAST = 8

# Entries of a sampled column count if they exceed this part of its largest one, and so many times its noise.
_ENTRY, _SIGMAS = 1e-6, 8.0

# Probability with which the bars of the effective rank hold.
_LEVEL = 0.9


@dataclass(frozen=True)
class SpectrumProbe:
    """Estimates of a spectrum from a few products. The same on every rank up to rounding.

    Attributes
    ----------
    products, seconds
        Number of products, and seconds of one.
    calls
        Of the user's functions that all of this has taken; 0 of a matrix.
    trace, trace_error
        Of H, or of M⁻¹H, with its standard error.
    frobenius
        ‖H‖_F, an estimate.
    low, high
        Least and greatest Ritz value; the spectrum contains the interval between them.
    effective_rank
        (Σ λ²)² / Σ λ⁴: of r eigenvalues of one size, and zeros, it is r; never more than the rank.
    effective_rank_bars
        Between which it is with a probability of 90 %, by Student's t of the runs.
    gap
        Between the two Ritz values at the wanted end of the spectrum; it overestimates the true gap.
    row
        Mean entries of the sampled columns; None where the pattern is known.
    noise
        How inexact products are, relative to their size, by noise and steps; 0 where only rounding is known.
    noise_of_whole
        The same for the whole matrix, made of its products with unit vectors, in which one variable moves alone.
    tolerance
        Backward error that pairs found by products are held to: the one asked for, or more where `noise` leaves
        no more digits.
    not_linear
        Whether products were so far from symmetric that one more has told whether they are linear.
    sizing
        Products that tell the size of eigenvalues; None where they were not made.
    rules
        (nodes, weights) of the Gauss quadratures of the runs.
    """

    products: int
    seconds: float
    calls: int
    trace: float
    trace_error: float
    frobenius: float
    low: float
    high: float
    effective_rank: float
    effective_rank_bars: tuple[float, float]
    gap: float
    row: float | None
    noise: float
    noise_of_whole: float
    tolerance: float
    not_linear: bool = False
    sizing: int | None = None
    rules: Sequence[tuple[np.ndarray, np.ndarray]] = field(default=(), repr=False)

    def facts(self) -> dict[str, Any]:
        """Return what JSON says. Not collective."""
        told = asdict(self)
        del told["rules"], told["not_linear"], told["sizing"]
        return told

    def share_between(self, low: float, high: float) -> float:
        """Return about what part of the eigenvalues is from low to high. Not collective."""
        parts = [_below(nodes, weights, high) - _below(nodes, weights, low) for nodes, weights in self.rules]
        return max(sum(parts) / len(parts), 0.0) if parts else 1.0


def probe_spectrum(
    matrix: MatrixFree | PETSc.Mat,
    products: int,
    *,
    top: bool = False,
    columns: bool = False,
    mass: PETSc.Mat | None = None,
    tol: float = 1e-8,
    seed: int = 0,
    sized: bool = False,
) -> SpectrumProbe:
    """Estimate the spectrum of a Hessian from a few products.

    Collective. Lanczos runs from random signs z give zᵀHz, ‖Hz‖² and ‖H²z‖², whose means are the trace, Σ λ² and
    Σ λ⁴ (Hutchinson 1990), and Ritz values.

    Parameters
    ----------
    matrix
        A `MatrixFree` or an assembled Mat.
    products
        How many to make, `LEAST` at least.
    top
        Whether the gap is that of the upper end.
    columns
        Whether a quarter of the products, one at least, sample columns and count their entries.
    tol
        Backward error that is asked for.
    sized
        Whether the products that tell the size of eigenvalues are made, too, to see how many they are: fewer where
        a random vector meets few different ones.
    """
    counted = max(1, products // 4) if columns else 0
    left = products - counted
    runs = _RUNS if left >= _RUNS * _STEPS else _FEWER
    steps = max(_STEPS, left // runs)
    shell = matrix if isinstance(matrix, MatrixFree) else None
    with (
        EigenProblem.of(matrix, mass=mass, nullspace=[], near_null=[]) as problem,
        reduced_operator(problem) as operator,
    ):
        row = _row(problem, shell, counted, seed) if columns else None
        problem.comm.Barrier()
        began = time.perf_counter()
        run = Lanczos(operator, operator.random_vectors(range(runs), seed), steps)
        run.advance(steps)
        seconds = problem.comm.allreduce(time.perf_counter() - began, op=MPI.MAX) / (runs * max(1, run.steps))
        rules, n = [(nodes, weights) for nodes, weights, _ in run.quadratures()], operator.total
        noise, tolerance = problem.relative_error, problem.held_to(tol)
        sizing = _sizing(problem, shell) if sized and shell is not None else None
    first, second, fourth = (np.array([weights @ nodes**power for nodes, weights in rules]) for power in (1, 2, 4))
    nodes = max((rule[0] for rule in rules), key=len)
    low, high = min(float(rule[0][0]) for rule in rules), max(float(rule[0][-1]) for rule in rules)
    ends = nodes[-2:] if top else nodes[:2]
    rank, bars = _effective_rank(second, fourth, n)
    size = float(np.sqrt(n * second.mean()))
    # What is not symmetric of it is seen: of the squares twice as much.
    lost = np.sqrt(2.0) * shell.noise_of_whole() if shell is not None and shell.noisy else 0.0
    return SpectrumProbe(
        products=counted + runs * run.steps,
        seconds=seconds,
        calls=0 if shell is None else sum(shell.evaluations.values()),
        trace=float(n * first.mean()),
        trace_error=float(n * first.std(ddof=1) / np.sqrt(runs)),
        frobenius=size,
        low=low,
        high=high,
        effective_rank=rank,
        effective_rank_bars=bars,
        gap=float(ends[1] - ends[0]) if len(ends) == 2 else 0.0,
        row=row,
        noise=noise,
        noise_of_whole=max(noise, lost / np.hypot(lost, size) if lost > 0 else 0.0),
        tolerance=tolerance,
        not_linear=shell is not None and noise > 10 * shell.exactness,
        sizing=sizing,
        rules=rules,
    )


def _sizing(problem: EigenProblem, shell: MatrixFree) -> int:
    """Return how many products tell the size of eigenvalues. Collective."""
    before = sum(shell.evaluations.values())
    spectral_bounds(problem.A, problem.layout, STEPS)
    return (sum(shell.evaluations.values()) - before) // shell.calls_of_product


def _effective_rank(second: np.ndarray, fourth: np.ndarray, n: int) -> tuple[float, tuple[float, float]]:
    """Return (Σ λ²)² / Σ λ⁴ and its bars, from samples of the means of λ² and λ⁴.

    The error of its logarithm is that of 2 log Σ λ² - log Σ λ⁴, to first order in both; between 1 and n it is.
    """
    means = second.mean(), fourth.mean()
    if not (means[0] > 0 and means[1] > 0):
        return 0.0, (0.0, 0.0)
    rank = min(max(n * means[0] ** 2 / means[1], 1.0), float(n))
    spread = 2 * second / means[0] - fourth / means[1]
    error = float(spread.std(ddof=1) / np.sqrt(len(spread)))
    half = half_width(error, len(spread) - 1, _LEVEL)
    with np.errstate(over="ignore"):
        return float(rank), (float(max(rank * np.exp(-half), 1.0)), float(min(rank * np.exp(half), n)))


def _below(nodes: np.ndarray, weights: np.ndarray, end: float) -> float:
    """Return about the share of a measure below an end, of which a Gauss quadrature is known."""
    if end < nodes[0] or end > nodes[-1] or len(nodes) < 2:
        return float(weights[nodes <= end].sum())
    return float(np.interp(end, nodes, np.cumsum(weights) - 0.5 * weights))


def _row(problem: EigenProblem, shell: MatrixFree | None, columns: int, seed: int) -> float:
    """Return the mean number of entries of a few columns. Collective."""
    chosen = np.random.default_rng(seed).choice(problem.n, min(columns, problem.n), replace=False)
    unit, image = problem.A.createVecRight(), problem.A.createVecLeft()
    layout, counts = problem.layout, []
    for column in chosen.tolist():
        local = np.zeros(layout.n_local)
        if layout.start <= column < layout.stop:
            local[column - layout.start] = 1.0
        unit.setArray(local)
        problem.A.mult(unit, image)
        entries = np.abs(image.getArray(readonly=True))
        largest, squares = problem.comm.allreduce(float(entries.max(initial=0.0)), op=MPI.MAX), entries @ entries
        norm = np.sqrt(problem.comm.allreduce(float(squares)))
        noise = problem.relative_error * norm / np.sqrt(layout.n)
        if shell is not None:
            noise = np.maximum(noise, shell.noise_of_column(column))
        counted = np.count_nonzero(entries > np.maximum(_ENTRY * largest, _SIGMAS * noise))
        counts.append(problem.comm.allreduce(int(counted)))
    destroy(unit, image)
    return float(np.mean(counts))
