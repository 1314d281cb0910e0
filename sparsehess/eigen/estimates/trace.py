"""Traces of a Hessian and of functions of it, with error bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.estimates.block_lanczos import (
    FEWEST,
    FIRST,
    Lanczos,
    advance_to_accuracy,
    apply_function,
    batches,
    number_beyond,
)
from sparsehess.eigen.estimates.reduced_operator import ReducedOperator, reduced_operator
from sparsehess.eigen.estimates.spectral_functions import Function, half_width, resolve_function
from sparsehess.eigen.estimates.trace_sketches import HutchPP, XTrace
from sparsehess.eigen.estimates.whole_spectrum import whole_spectrum
from sparsehess.eigen.problem.mass_solver import lone_diagonal
from sparsehess.eigen.problem.whole_matrix import LARGEST, is_cheaper_whole, products_of_whole
from sparsehess.errors import InputError, none_of
from sparsehess.operators.structure import Exact
from sparsehess.runtime import destroy
from sparsehess.runtime.citations import cite
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

METHODS = ("auto", "exact", "hutchinson", "hutch++", "xtrace")

_SKETCHED = {"hutch++": HutchPP, "xtrace": XTrace}

# Vectors that are multiplied, without a tolerance, and at most with one; Lanczos steps for each.
_SAMPLES, _MOST, _STEPS = 30, 1000, 200

# Vectors that a tolerance takes, where nothing is known of the spectrum.
_MIDDLE = 100

# Fewer eigenvalues than this are none.
_NONE = 0.5

# Fewer samples do not tell their spread well enough to stop.
_LEAST = 10

# What Lanczos may leave of a function beside the tolerance, and where there is none; and of vectors, of its root.
_BESIDE, _ACCURACY, _OF_VECTORS = 0.05, 1e-6, 0.1


@dataclass(frozen=True, repr=False)
class Trace(ShortRepr):
    """A trace with its error, the same on every rank.

    *Not collective* to use.

    Attributes
    ----------
    trace, stderr
        The estimate and its standard error, in which is also what Lanczos has left; 0 where the trace is exact.
    samples
        Vectors that the function of the matrix was applied to.
    products
        Products with the Hessian, single vectors.
    method, function
        How, and of what.
    converged
        Whether the tolerance was met; True where none was given.
    freedom
        Degrees of freedom of `stderr`, for Student's t.
    beyond
        How many eigenvalues may be so near to the end of the function's domain, or beyond, that its values there
        are anything: for a log-determinant, to zero. Half of one and more make `stderr` infinite.
    rounding
        How far rounding may have moved what a structure or all eigenvalues tell, to first order; where that leaves
        nothing of it `stderr` is infinite, too.
    why
        What has told it, where nothing is estimated.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.trace(np.diag(np.arange(1.0, 101.0)), "inverse")
    >>> print(round(found.trace, 6), found.stderr, found.method)
    5.187378 0.0 exact
    >>> found = sh.trace(np.diag(np.arange(1.0, 1001.0)), "inverse", samples=40)
    >>> print(abs(found.trace - 7.48547) < 3 * found.bars(0.9) + 1e-3, found.method, found.samples)
    True hutchinson 40
    """

    trace: float
    stderr: float
    samples: int
    products: int
    method: str
    function: str
    converged: bool
    freedom: int
    beyond: float = 0.0
    rounding: float = 0.0
    why: str = ""

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.function} {self.trace:.8g}" + (f" ± {self.stderr:.2g}" if self.stderr else "")
        yield f"by {self.method}"
        yield number_of(self.products, "product")
        if not self.converged:
            yield "tolerance not met"

    def bars(self, level: float = 0.9) -> float:
        """Return half the width of error bars that cover with this probability.

        Not collective.
        """
        return half_width(self.stderr, self.freedom, level)


def trace(
    matrix: MatrixLike | EigenProblem,
    function: str | Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    method: str = "auto",
    samples: int | None = None,
    tol: float | None = None,
    gamma: float | None = None,
    time: float | None = None,
    steps: int = _STEPS,
    deflate: Spectrum | None = None,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    seed: int = 0,
    comm: MPI.Comm | None = None,
) -> Trace:
    """Estimate the trace of H, or of M⁻¹H, or of a function of it: the sum of f(λ) over all eigenvalues.

    *Collective.*

    Parameters
    ----------
    matrix, mass, nullspace, comm
        As for `eigs`, complex Hermitian ones among them, or an `EigenProblem`. Null vectors are deflated:
        `logdet` is then the pseudo-log-determinant, and `inverse` the trace of the pseudoinverse.
    function
        `identity`, `logdet` (Σ log λ), `inverse` (Σ 1/λ), `heat` (Σ exp(−λ time)), `effective dimension`
        (Σ λ/(λ + gamma)), or a callable of an array of eigenvalues.
    method
        `exact`: what the structure of the matrix tells, see `Operator`; the sum of the diagonal, where the matrix
        is assembled, the function the identity, and the mass diagonal; all eigenvalues of few variables.
        `hutchinson`: independent random signs (Hutchinson 1990); functions by Gauss quadrature. `hutch++` (Meyer
        et al. 2021) and `xtrace` (Epperly, Tropp, Webber 2024): a low-rank part exactly, for spectra that decay.
        `auto`: exact if that can be, else xtrace for the identity and hutchinson for functions.
    samples
        Vectors to apply the function to; default 30, or at most 1000 with `tol`.
    tol
        Stop where the standard error is this part of the trace.
    gamma, time
        Of `effective dimension` and `heat`.
    steps
        Lanczos steps at most, for each vector a function is applied to; as many vectors are kept.
    deflate
        A `Spectrum` of known eigenpairs, which are summed exactly.
    seed
        Of the random vectors.

    Returns
    -------
    Trace
        The estimate with its standard error.

    Raises
    ------
    InputError
        Arguments that cannot be used, or an eigenvalue outside the domain of the function.
    CheckError
        Products that are not finite.

    References
    ----------
    Hutchinson 1990; Ubaru, Chen, Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature";
    Meyer, Musco, Musco, Woodruff 2021, algorithm 1; Epperly, Tropp, Webber 2024, sections 2 and 3.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.trace(np.diag([1.0, 2.0, 4.0]))
    >>> print(found.trace, found.stderr, found.method)
    7.0 0.0 exact
    """
    if method not in METHODS:
        raise none_of(f"method {method!r}", method, METHODS)
    least = _SKETCHED[method].least if method in _SKETCHED else 2
    if samples is not None and whole_number(samples, "samples", 1) < least:
        raise InputError(f"samples={samples}: method {method!r} needs at least {least}")
    if tol is not None and not 0 < tol < 1:
        raise InputError(f"tol={tol} must be between 0 and 1")
    whole_number(steps, "steps", 1)
    f = resolve_function(function, gamma, time)
    samples = samples or (_SAMPLES if tol is None else _MOST)
    with reduced_operator(
        matrix, mass=mass, nullspace=nullspace, comm=comm, deflate=deflate, hermitian=True
    ) as operator:
        if method in ("auto", "exact"):
            told = operator.told.total(f)
            if told is not None:
                return _told(told, f, tol)
            total = diagonal_sum(operator) if f.linear else None
            if total is not None:
                return Trace(total, 0.0, 0, 0, "exact", f.name, True, 1, why="the diagonal of an assembled matrix")
            if is_cheaper_whole(operator.n, _least_spent(f.linear, method, samples, tol)):
                whole = whole_spectrum(operator).total(f)
                why = f"{whole.why}, of the matrix that {operator.n} products give"
                exact = Exact(whole.value + f.of_atoms(operator.atoms), whole.rounding, why)
                return _told(exact, f, tol, operator.products)
            if method == "exact":
                raise InputError(
                    "only the trace of an assembled matrix itself, with no mass or a diagonal one, or of up to "
                    f"{LARGEST} variables, is known without an estimate: take another method"
                )
            method = "xtrace" if f.linear else "hutchinson"
        known = f.of_atoms(operator.atoms)
        if operator.total == 0:
            return Trace(known, 0.0, 0, 0, method, f.name, True, 1)
        cite(method)
        search = _Search(operator, f, known, samples, tol, steps, seed)
        return search.plain() if method == "hutchinson" else search.sketched(method)


def predict_products(
    n: int, linear: bool, method: str, samples: int | None, tol: float | None, steps: int | None
) -> tuple[int, int, int]:
    """Return (least, likely, most) products of the trace of a Hessian of which nothing else is known.

    Not collective.

    Parameters
    ----------
    linear
        Whether it is the trace itself, and not that of a function.
    method, samples, tol, steps
        As of `trace`; None for what it takes by itself.

    Raises
    ------
    InputError
        The method cannot do it.
    """
    if method not in METHODS:
        raise none_of(f"method {method!r}", method, METHODS)
    samples, steps = samples or (_SAMPLES if tol is None else _MOST), steps or _STEPS
    if method in ("auto", "exact"):
        if is_cheaper_whole(n, _least_spent(linear, method, samples, tol)):
            whole = products_of_whole(n)
            return whole, whole, whole
        if method == "exact":
            raise InputError(f"only the trace of up to {LARGEST} variables is known exactly from products")
    most = min(steps, n)
    first, each = (1, 1) if linear else (min(FIRST, most), min(FEWEST, most))
    least = samples if tol is None else min(_LEAST, samples)
    middle = samples if tol is None else min(_MIDDLE, samples)
    if method != "hutchinson" and (linear or method != "auto"):
        least //= 3  # where a sketch of few vectors holds all of the matrix, no others are multiplied
    return max(1, least * first), middle * each, samples * (1 if linear else most)


def _least_spent(linear: bool, method: str, samples: int, tol: float | None) -> float:
    """Return the least products that estimates take; infinite where none will do."""
    if method == "exact":
        return np.inf
    return (samples if tol is None else _LEAST) * (1 if linear else FEWEST)


def _told(told: Exact[float], f: Function, tol: float | None, products: int = 0) -> Trace:
    """Return the trace that a structure, or all of a matrix, tells. Not collective."""
    error = 0.0 if np.isfinite(told.rounding) else np.inf
    met = tol is None or told.rounding <= tol * abs(told.value)
    return Trace(told.value, error, 0, products, "exact", f.name, met, 1, rounding=told.rounding, why=told.why)


def diagonal_sum(operator: ReducedOperator) -> float | None:
    """Return the sum of all eigenvalues, deflated ones too, or None where the diagonals do not tell it.

    Collective. Of what null vectors are projected out of, whatever the Hessian says of them.
    """
    problem = operator.problem
    if not (problem.assembled and operator.plain):
        return None
    entries = problem.A.getDiagonal()
    local = entries.getArray(readonly=True).copy()
    destroy(entries)
    if problem.M is not None:
        local /= lone_diagonal(problem.M, operator.comm)
    image, projected = problem.A.createVecLeft(), 0.0
    for direction in problem.null:
        problem.A.mult(direction, image)
        projected += image.dot(direction).real
    destroy(image)
    return (float(operator.sum_over_ranks(np.array([local.sum()]))[0]) - projected) / operator.copies


class _Search:
    """More and more samples, until there are enough.

    Of the real form of a complex Hermitian matrix, in which each eigenvalue stands twice, each sample is halved:
    the spread of halves is the error of the half.
    """

    def __init__(
        self,
        operator: ReducedOperator,
        f: Function,
        known: float,
        samples: int,
        tol: float | None,
        steps: int,
        seed: int,
    ):
        self.operator, self.f, self.known = operator, f, known
        self.samples, self.tol, self.steps, self.seed = samples, tol, steps, seed
        self.accuracy = _ACCURACY if tol is None else _BESIDE * tol
        self.change = 0.0
        self.beyond: list[float] = []
        self.memory: np.ndarray | None = None

    def plain(self) -> Trace:
        """Hutchinson's estimator."""
        values = np.empty(0)
        steps = 1 if self.f.linear else self.steps
        for batch in batches(self.operator, steps, self.samples):
            values = np.concatenate([values, self._values(self.operator.random_vectors(batch, self.seed))])
            if len(values) >= _LEAST and self._enough(values.mean(), _error(values)):
                break
        return self._found(values.mean(), _error(values), len(values), "hutchinson", len(values) - 1)

    def _values(self, Z: np.ndarray) -> np.ndarray:
        """Return zᵀM f(operator) z for the columns of a block."""
        if self.f.linear:
            dual = self.operator.dual(Z)
            forms = np.einsum("ki,ki->k", dual.T, self.operator.apply(Z).T)
            return self.operator.sum_over_ranks(forms) / self.operator.copies
        cite("stochastic quadrature")
        run = Lanczos(self.operator, Z, self.steps, self.memory)
        self.memory = run.memory
        values, change = advance_to_accuracy(run, self.f, self.accuracy)
        self.change = max(self.change, change)
        self.beyond.append(number_beyond(run, self.f.above))
        return values / self.operator.copies

    def sketched(self, method: str) -> Trace:
        """Hutch++ or XTrace: with a tolerance twice the samples, until it is met."""
        kind = _SKETCHED[method]
        estimator = kind(self.operator, self._image, self.seed)
        most = max(self.samples, kind.least)
        samples = most if self.tol is None else min(most, max(kind.least, 2 * _LEAST))
        while True:
            estimator.grow(samples)
            value, error, freedom = estimator.estimate()
            value, error = value / self.operator.copies, error / self.operator.copies
            if samples >= most or error == 0 or self._enough(value, error):
                used = (samples // kind.share) * kind.share
                return self._found(value, error, used, method, freedom)
            samples = min(most, 2 * samples)

    def _image(self, X: np.ndarray) -> np.ndarray:
        """Return f(operator) X."""
        if self.f.linear:
            result = np.empty(X.shape, order="F")
            for batch in batches(self.operator, 1, X.shape[1]):
                part = slice(batch.start, batch.stop)
                result[:, part] = self.operator.apply(X[:, part])
            return result
        # What is on the diagonal of the sketch are quadratures, which converge twice as fast as the vectors.
        accuracy = _OF_VECTORS * np.sqrt(self.accuracy)
        applied = apply_function(self.operator, X, self.f, most=self.steps, accuracy=accuracy, above=self.f.above)
        self.change = max(self.change, applied.change)
        self.beyond.append(applied.beyond)
        return applied.image

    def _enough(self, value: float, error: float) -> bool:
        return self.tol is not None and error <= self.tol * abs(value + self.known)

    def _found(self, value: float, error: float, samples: int, method: str, freedom: int) -> Trace:
        error = float(np.hypot(error, abs(value) * self.change if value else 0.0))
        beyond = float(np.mean(self.beyond)) / self.operator.copies if self.beyond else 0.0
        if beyond > _NONE:
            error = np.inf
        total = float(value + self.known)
        met = self.tol is None or error <= self.tol * abs(total)
        return Trace(total, error, samples, self.operator.products, method, self.f.name, met, freedom, beyond)


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
