"""Advice before a run, from a few products: the look of a Hessian, the cost of each method, the best choice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.commands.cost_model import Calls, Memory
from sparsehess.commands.reports.tables import format_columns
from sparsehess.eigen.estimates.block_lanczos import Lanczos
from sparsehess.eigen.estimates.reduced_operator import reduced_operator
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import destroy

if TYPE_CHECKING:
    from petsc4py import PETSc

    from sparsehess.hessian.matrix_free import MatrixFree

# Lanczos runs that share the products; two give a standard error.
_RUNS = 2

# Entries of a sampled column count if they exceed this part of its largest one.
_ENTRY = 1e-6

# LAPACK is no slower than others for more than the part _MANY of all eigenpairs, up to _SMALL rows.
_MANY, _SMALL = 0.25, 1000

# Backward errors that products in single precision can reach.
_SINGLE = 1e-5


@dataclass(frozen=True)
class SpectrumProbe:
    """Estimates of a spectrum from a few products. The same on every rank up to rounding.

    Attributes
    ----------
    products, seconds
        Number of products, and seconds of one.
    trace, trace_error
        Of H, or of M⁻¹H, with its standard error.
    frobenius
        ‖H‖_F, an estimate.
    low, high
        Least and greatest Ritz value; the spectrum contains the interval between them.
    effective_rank
        ‖H‖_F² / ‖H‖₂², by these estimates.
    gap
        Between the two Ritz values at the wanted end of the spectrum; it overestimates the true gap.
    row
        Mean entries of the sampled columns; None where the pattern is known.
    """

    products: int
    seconds: float
    trace: float
    trace_error: float
    frobenius: float
    low: float
    high: float
    effective_rank: float
    gap: float
    row: float | None


def probe_spectrum(
    matrix: MatrixFree | PETSc.Mat,
    products: int,
    *,
    top: bool = False,
    columns: bool = False,
    mass: PETSc.Mat | None = None,
    seed: int = 0,
) -> SpectrumProbe:
    """Estimate the spectrum of a Hessian from a few products.

    Collective. Two Lanczos runs from random signs z give zᵀHz and ‖Hz‖², whose means are the trace and ‖H‖_F²
    (Hutchinson 1990), and Ritz values.

    Parameters
    ----------
    matrix
        A `MatrixFree` or an assembled Mat.
    products
        How many to make, 4 at least.
    top
        Whether the gap is that of the upper end.
    columns
        Whether a quarter of the products, one at least, sample columns and count their entries.
    """
    counted = max(1, products // 4) if columns else 0
    steps = max(2, (products - counted) // _RUNS)
    with (
        EigenProblem.of(matrix, mass=mass, nullspace=[], near_null=[]) as problem,
        reduced_operator(problem) as operator,
    ):
        row = _row(problem, counted, seed) if columns else None
        problem.comm.Barrier()
        began = time.perf_counter()
        run = Lanczos(operator, operator.random_vectors(range(_RUNS), seed), steps)
        run.advance(steps)
        seconds = problem.comm.allreduce(time.perf_counter() - began, op=MPI.MAX) / (_RUNS * max(1, run.steps))
        rules, n = run.quadratures(), operator.total
        traces = np.array([n * float(weights @ nodes) for nodes, weights, _ in rules])
        squares = np.array([n * float(weights @ nodes**2) for nodes, weights, _ in rules])
    nodes = max((rule[0] for rule in rules), key=len)
    low, high = min(float(rule[0][0]) for rule in rules), max(float(rule[0][-1]) for rule in rules)
    ends = nodes[-2:] if top else nodes[:2]
    largest = max(abs(low), abs(high))
    return SpectrumProbe(
        products=counted + _RUNS * run.steps,
        seconds=seconds,
        trace=float(traces.mean()),
        trace_error=float(traces.std(ddof=1) / np.sqrt(_RUNS)),
        frobenius=float(np.sqrt(squares.mean())),
        low=low,
        high=high,
        effective_rank=min(float(n), max(float(squares.mean()) / largest**2, 1.0)) if largest > 0 else 0.0,
        gap=float(ends[1] - ends[0]) if len(ends) == 2 else 0.0,
        row=row,
    )


def _row(problem: EigenProblem, columns: int, seed: int) -> float:
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
        sizes = np.abs(image.getArray(readonly=True))
        largest = problem.comm.allreduce(float(sizes.max(initial=0.0)), op=MPI.MAX)
        counts.append(problem.comm.allreduce(int(np.count_nonzero(sizes > _ENTRY * largest))))
    destroy(unit)
    destroy(image)
    return float(np.mean(counts))


@dataclass(frozen=True)
class SolveRequest:
    """The eigenpairs to be solved for: k of them (None: all of a range), at which end, to which tolerance."""

    k: int | None
    end: str | None
    tol: float


@dataclass(frozen=True)
class Alternative:
    """A method for the eigenpairs.

    Attributes
    ----------
    name, flags
        Its name, and the flags that select it.
    calls
        (least, most) calls of the user's gradients or products; None for a matrix file.
    seconds
        Of the largest number of calls on one rank; None where nothing was measured.
    memory
        Bytes on each rank.
    possible
        Whether it solves the request with this memory.
    why
        The reason for or against it.
    """

    name: str
    flags: str
    calls: tuple[int, int] | None
    seconds: float | None
    memory: int
    possible: bool
    why: str


@dataclass(frozen=True)
class Advice:
    """The recommended method and precision, with reasons, and all alternatives."""

    method: str
    reason: str
    precision: str
    precision_reason: str
    alternatives: tuple[Alternative, ...]

    @property
    def seconds(self) -> float | None:
        """Of the calls of the recommended method on one rank; None where nothing was measured."""
        return next((one.seconds for one in self.alternatives if one.name == self.method), None)


def advise(
    found: SpectrumProbe,
    wanted: SolveRequest,
    n: int,
    calls: Calls | None,
    needed: Memory,
    ranks: int,
    free: int,
    per: int,
) -> Advice:
    """Recommend a method and a precision.

    Not collective.

    Parameters
    ----------
    calls
        Of an assembly; None for a matrix file, which is assembled.
    needed
        Memory of the method by factorization.
    ranks, free
        Ranks that share the memory, and bytes that one of them may take.
    per
        Gradients, or products of the user's, for each product with a Hessian that is not assembled.
    """
    least, most = estimate_iterations(found, wanted, n)
    assembly = None if calls is None else (calls.total, calls.total)
    seconds = None if calls is None else calls.total * found.seconds / per
    full = needed.per_rank(ranks)
    thin = needed.process + (needed.matrix + needed.vectors + needed.columns) // ranks
    shell = needed.process + needed.vectors // ranks
    dense = needed.process + 8 * n * n * 3
    fits = full <= free
    bottom = wanted.end in ("smallest", "largest")
    ways = [
        Alternative(
            "assembled, slices by shift-and-invert" if wanted.k is None else "assembled, shift-and-invert",
            "--method slicing" if wanted.k is None else "--method krylovschur",
            assembly, seconds, full, fits,
            "few solves, and counts that certify" if fits
            else f"the factors do not fit: {full / 2**30:.1f} GiB on a rank that may take {free / 2**30:.1f}",
        ),
        Alternative(
            "assembled, preconditioned (LOBPCG)", "--method lobpcg",
            assembly, seconds, thin, bottom and thin <= free,
            "no factors" if bottom else "only for an end of the spectrum",
        ),
        Alternative(
            "assembled, dense (LAPACK)", "--method dense",
            assembly, seconds, dense, dense <= free,
            "all eigenvalues at once" if dense <= free else f"{8 * n * n / 2**30:.3g} GiB for the matrix alone",
        ),
    ]  # fmt: skip
    if calls is not None:
        free_of_matrix = wanted.end is not None
        ways.append(
            Alternative(
                "matrix-free, Krylov-Schur", "--shell",
                (least * per, most * per), most * found.seconds, shell, free_of_matrix and shell <= free,
                f"{least} to {most} products, no certificate by counts" if free_of_matrix
                else "nothing but an end of the spectrum without a factorization",
            )
        )  # fmt: skip
    chosen, reason = _chosen(ways, wanted, n)
    return Advice(chosen.name, reason, *_precision(chosen, wanted, calls), tuple(ways))


def estimate_iterations(found: SpectrumProbe, wanted: SolveRequest, n: int) -> tuple[int, int]:
    """Estimate (least, most) products of Krylov-Schur for an end of a spectrum.

    Not collective. A Krylov space of m vectors has an error of about 2 exp(-2 m √(gap/spread)) (Saad 1980, "On the
    rates of convergence of the Lanczos and the block-Lanczos methods", theorem 1). The least by the gap of the
    first Ritz values, which is too wide; the most by eigenvalues that are evenly spread.
    """
    k, spread = wanted.k or n, found.high - found.low
    digits = 0.5 * np.log(2.0 / wanted.tol)
    if not spread > 0:
        return k, k + 1
    wide, even = max(found.gap, spread / n), spread / n
    least = min(n, k + int(np.ceil(digits * np.sqrt(spread / wide))))
    return least, max(least, min(10 * n, k + int(np.ceil(2 * digits * np.sqrt(spread / even)))))


def _chosen(ways: list[Alternative], wanted: SolveRequest, n: int) -> tuple[Alternative, str]:
    """Return the recommended method, and the reason."""
    shifted, preconditioned, dense = ways[:3]
    shell = ways[3] if len(ways) > 3 and ways[3].possible else None
    if dense.possible and n <= _SMALL and (wanted.k or n) > _MANY * n:
        return dense, f"{wanted.k or n} of {n}: LAPACK takes no longer for all of them"
    most = None if shell is None or shell.calls is None else shell.calls[1]
    if shell is not None and most is not None and shifted.calls is not None and most < shifted.calls[0]:
        return shell, f"at most {most} calls for its products, where assembling takes {shifted.calls[0]}"
    if shifted.possible:
        saved = "" if most is None else f"; products alone may take {most} calls"
        return shifted, f"the factors fit, and the wanted ones converge in few solves{saved}"
    if preconditioned.possible:
        return preconditioned, f"{shifted.why}; the matrix itself does fit"
    if shell is not None:
        return shell, "the matrix does not fit into memory"
    return shifted, f"nothing else gives what is wanted, but {shifted.why}: take more ranks"


def _precision(chosen: Alternative, wanted: SolveRequest, calls: Calls | None) -> tuple[str, str]:
    """Return the precision of products, and the reason."""
    if chosen.flags != "--shell" or calls is None:
        return "double", "an assembled matrix and its factors are double"
    if calls.scheme != "product":
        return "double", "differences of gradients lose half of the digits already"
    if wanted.tol < _SINGLE:
        return "double", f"single precision reaches backward errors of about {_SINGLE:g}, not {wanted.tol:g}"
    return "single", f"a tolerance of {wanted.tol:g} needs no more, and products move half of the bytes"


def advice_lines(found: SpectrumProbe, advice: Advice, n: int, nnz: int | None) -> list[str]:
    """Return the advice as lines of text. Not collective."""
    row = found.row if found.row is not None else (nnz / n if nnz else None)
    sparse = "" if row is None else f"{row:.3g} entries a row ({row / n:.2g} of all), "
    told = [
        f"looks        {sparse}effective rank {found.effective_rank:.3g} of {n}, trace {found.trace:.4g} ± "
        f"{found.trace_error:.1g}, eigenvalues from {found.low:.3g} to {found.high:.3g} at least",
        f"             by {found.products} products of {found.seconds:.2g} s",
        "",
    ]
    head = ("way", "calls", "seconds", "MiB a rank", "", "")
    rows = [head]
    for way in advice.alternatives:
        calls = "-" if way.calls is None else "-".join(str(number) for number in dict.fromkeys(way.calls))
        seconds = "-" if way.seconds is None else f"{way.seconds:.3g}"
        mark = "<- take" if way.name == advice.method else ("" if way.possible else "no")
        rows.append((way.name, calls, seconds, f"{way.memory / 2**20:.0f}", mark, way.why))
    told.append(format_columns(rows))
    flags = next(way.flags for way in advice.alternatives if way.name == advice.method)
    return [
        *told,
        "",
        f"take         {advice.method} ({flags}): {advice.reason}",
        f"precision    {advice.precision}: {advice.precision_reason}",
    ]
