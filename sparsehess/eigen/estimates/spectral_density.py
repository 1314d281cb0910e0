"""Density of states and counts of eigenvalues from products with random vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsehess.eigen.estimates.block_lanczos import Lanczos, batches
from sparsehess.eigen.estimates.chebyshev_moments import STEPS, polynomials
from sparsehess.eigen.estimates.reduced_operator import ReducedOperator, reduced_operator
from sparsehess.eigen.estimates.sample_groups import check_groups, run_in_groups
from sparsehess.eigen.estimates.shares import SAME, mean_and_error, share_and_error
from sparsehess.eigen.estimates.spectral_functions import half_width
from sparsehess.eigen.estimates.spectral_measures import (
    MOMENTS,
    NARROW,
    Below,
    Measures,
    Quadratures,
    Whole,
)
from sparsehess.eigen.estimates.told_spectrum import told_spectrum
from sparsehess.eigen.estimates.whole_spectrum import whole_spectrum
from sparsehess.eigen.problem.whole_matrix import LARGEST, is_cheaper_whole, products_of_whole
from sparsehess.errors import InputError, none_of
from sparsehess.runtime.citations import cite
from sparsehess.runtime.html_fragments import curve, fragment, note
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import positive_number, reals, whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.estimates.chebyshev_moments import Deal
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

METHODS = ("auto", "structure", "lanczos", "chebyshev", "dense")

# Random vectors where nothing is said.
SAMPLES = 10


# Kernel widths beyond the outermost nodes that a grid reaches.
_BEYOND = 4.0


class Quantile(NamedTuple):
    """Where a share of all eigenvalues is reached.

    Attributes
    ----------
    place
        Up to which there is that share.
    low, high
        Between which it is, to one standard error of the share.
    resolved
        False where these are the ends of the spectrum, so that nothing is said.
    """

    place: float
    low: float
    high: float
    resolved: bool


class Atom(NamedTuple):
    """An eigenvalue that is known exactly, and how often it is there."""

    location: float
    multiplicity: int


@dataclass(frozen=True, eq=False, repr=False)
class Density(ShortRepr):
    """An estimate of a spectrum, the same on every rank.

    *Not collective* to use.

    Attributes
    ----------
    grid
        (m,) places, ascending.
    density, stderr
        (m,) share of all eigenvalues per unit of λ around each place, atoms left out, and its standard error.
        Means over the cells whose borders are halfway between the places.
    cumulative, cumulative_stderr
        (m,) share of all eigenvalues up to each place, atoms among them, and its error; see `below`. Not smoothed.
    atoms
        What is deflated, and known exactly.
    moments, moments_stderr
        (5,) means over all eigenvalues of λ⁰ to λ⁴.
    range
        Least and greatest eigenvalue seen, or bounds of them.
    width
        Standard deviation of the kernel.
    method, samples, steps, products
        How it was made; `products` with the Hessian in all, single vectors. Of `dense` and `structure` nothing is
        random.
    n
        Number of eigenvalues.
    copies
        How often each stood in what was multiplied: twice in the real form of a complex Hermitian matrix.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.density(np.diag(np.linspace(0.0, 1.0, 200)))
    >>> found.count(0.0, 0.5), found.method, found.n
    ((100.0, 0.0), 'dense', 200)
    >>> found = sh.density(np.diag(np.linspace(0.0, 1.0, 2000)), samples=6)
    >>> many, error = found.count(0.0, 0.5)
    >>> print(abs(many - 1000) < 3 * error, error < 40, found.method)
    True True lanczos
    """

    grid: np.ndarray
    density: np.ndarray
    stderr: np.ndarray
    cumulative: np.ndarray
    cumulative_stderr: np.ndarray
    atoms: tuple[Atom, ...]
    moments: np.ndarray
    moments_stderr: np.ndarray
    range: tuple[float, float]
    width: float
    method: str
    samples: int
    steps: int
    products: int
    n: int
    measures: Measures | None = field(repr=False)
    copies: int = 1

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(self.n, 'eigenvalue')} from {self.range[0]:.6g} to {self.range[1]:.6g}"
        yield f"by {self.method}"
        if self.samples:
            yield number_of(self.samples, "sample")
        yield number_of(self.products, "product")

    def _repr_html_(self) -> str:
        """Return a picture of the density with its error bars for notebooks. Not collective."""
        picture = curve(self.grid, self.density, self.bars() if self.samples > 1 else self.stderr, "density")
        atoms = "; ".join(f"{atom.multiplicity} at {atom.location:.6g}" for atom in self.atoms)
        told = f"known exactly, and not in the curve: {atoms}" if atoms else f"kernel of width {self.width:.3g}"
        return fragment(repr(self)[1:-1], picture, note(told))

    def bars(self, level: float = 0.9) -> np.ndarray:
        """Return (m,) half widths of error bars of `density` that cover with this probability, by Student's t.

        Not collective.
        """
        return half_width(self.stderr, self.samples - 1, level)

    def below(self, points: float | np.ndarray, *, inclusive: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of all eigenvalues up to each of these points, and its error.

        Not collective. The error is that of the mean over samples, by their spread, and beside it what the samples
        leave open: of Lanczos half the distance of bounds that its moments give, see `Quadratures.below`.
        """
        at = np.atleast_1d(reals(points, "points"))
        fixed = np.zeros(len(at))
        for place, times in self.atoms:
            fixed += times / self.n * ((place <= at) if inclusive else (place < at))
        if self.measures is None:
            return fixed, np.zeros(len(at))
        rest = self._rest / self.n
        rows = self.measures.below(at, inclusive=inclusive)
        value, error = share_and_error(rows.value, max(self._rest * self.copies, 1))
        return fixed + rest * value, rest * (error + _left_open(rows))

    def count(self, low: float, high: float) -> tuple[float, float]:
        """Return the estimated number of eigenvalues from low to high, ends included, and its error.

        Not collective. The error is a standard error and beside it what is `unresolved`. Di Napoli, Polizzi, Saad
        2016, "Efficient estimation of eigenvalue counts in an interval".
        """
        value, error, open_ = self._counted(low, high)
        return value, error + open_

    def unresolved(self, low: float, high: float) -> float:
        """Return the part of the error of `count` that more samples would not lessen, but more steps would.

        Not collective. Eigenvalues near an end that may as well be on its other side.
        """
        return self._counted(low, high)[2]

    def _counted(self, low: float, high: float) -> tuple[float, float, float]:
        """Return the number of eigenvalues from low to high, its standard error, and what is open beside it."""
        if not low <= high:
            raise InputError(
                f"interval {low} to {high}: the first end must not be above the second; exchange them"
            )
        known = sum(times for place, times in self.atoms if low <= place <= high)
        if self.measures is None:
            return float(known), 0.0, 0.0
        cite("counts by density")
        upto = self.measures.below(np.array([high]))
        before = self.measures.below(np.array([low]), inclusive=False)
        lower = np.maximum(upto.lower - before.upper, 0.0)
        upper = np.minimum(upto.upper - before.lower, 1.0)
        inside = Below(np.clip(upto.value - before.value, lower, upper), lower, upper)
        value, error = share_and_error(inside.value, max(self._rest * self.copies, 1))
        return (
            known + self._rest * float(value[0]),
            self._rest * float(error[0]),
            self._rest * float(_left_open(inside)[0]),
        )

    @property
    def _rest(self) -> int:
        """Number of eigenvalues that are no atoms."""
        return self.n - sum(atom.multiplicity for atom in self.atoms)

    def quantiles(self, shares: Sequence[float]) -> list[Quantile]:
        """Return where these shares of all eigenvalues, between 0 and 1, are reached.

        Not collective. No place is below the least or above the greatest eigenvalue: all are between Ritz values.
        """
        known = np.array([atom.location for atom in self.atoms])
        places = np.unique(known if self.measures is None else np.append(known, self.measures.places()))
        value, error = self.below(places)
        # A distribution does not decrease; nor do the ends of its bars, taken together.
        most, least = np.maximum.accumulate(value + error), np.minimum.accumulate((value - error)[::-1])[::-1]
        found = []
        for share in shares:
            if not 0 < share < 1:
                raise InputError(f"share={share} must be between 0 and 1")
            wanted = share - SAME
            first, place, last = (int(np.argmax(np.append(rows >= wanted, True))) for rows in (most, value, least))
            ends = [float(places[min(index, len(places) - 1)]) for index in (first, place, last)]
            resolved = self.measures is None or first > 0 or last < len(places)
            found.append(Quantile(ends[1], min(ends[0], ends[1]), max(ends[1], ends[2]), resolved))
        return found


def density(
    matrix: MatrixLike | EigenProblem,
    *,
    samples: int = SAMPLES,
    steps: int | None = None,
    grid: np.ndarray | None = None,
    points: int = 512,
    width: float | None = None,
    method: str = "auto",
    deflate: Spectrum | None = None,
    groups: int = 1,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    seed: int = 0,
    comm: MPI.Comm | None = None,
) -> Density:
    """Estimate the density of eigenvalues of H x = λ x, or H x = λ M x.

    *Collective.* Stochastic Lanczos quadrature or the kernel polynomial method; of few variables all eigenvalues,
    from a dense matrix. Error bars of the density come from the independent samples: they say nothing of what is
    narrower than the kernel. Those of counts and of the cumulative share say it, see `Density.below`.

    Lanczos keeps as many vectors as it takes steps for each sample, of as many samples at a time as a quarter of
    the free memory holds (16 at most); Chebyshev keeps five for each.

    Parameters
    ----------
    matrix, mass, nullspace, comm
        As for `eigs`, complex Hermitian ones among them, or an `EigenProblem`. Null vectors are deflated and
        become an atom at 0. M must be positive definite.
    samples
        Random starting vectors, two at least.
    steps
        Products for each; default 100, or for `chebyshev` what the width needs.
    grid, points
        (m,) places, or how many over the whole spectrum.
    width
        Standard deviation of the kernel, in units of λ; default what the steps resolve where most eigenvalues are.
        With `chebyshev` it is that of Jackson's kernel, and follows from the steps.
    method
        `lanczos`, `chebyshev`, or `dense`, for up to 2,000 variables: n products give the matrix, LAPACK all its
        eigenvalues. `structure`: as a structured Hessian tells or counts them; beyond 20,000 different ones by
        counts between thousands of ends, which bound what is between. `auto`: structure where it can, dense where
        that takes no more products than Lanczos would, which is taken else.
    deflate
        A `Spectrum` of known eigenpairs, which become atoms.
    groups
        Groups of ranks that share the samples out, each with a copy of the matrices: for a matrix that many
        ranks multiply hardly faster than one.
    seed
        Of the starting vectors.

    Returns
    -------
    Density
        The density on a grid with its error, and the measures that it came from.

    Raises
    ------
    InputError
        Arguments that cannot be used; a mass that is singular.
    CheckError
        Products that are not finite.

    References
    ----------
    Lin, Saad, Yang 2016, "Approximating spectral densities of large matrices"; Ubaru, Chen, Saad 2017, "Fast
    estimation of tr(f(A)) via stochastic Lanczos quadrature"; Weiße, Wellein, Alvermann, Fehske 2006, "The kernel
    polynomial method".

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.density(np.diag(np.linspace(-1.0, 1.0, 500)), samples=4, grid=np.linspace(-2.0, 2.0, 401))
    >>> print(round(float(found.density.sum() * 0.01), 3), found.products)
    1.0 400
    """
    if method not in METHODS:
        raise none_of(f"method {method!r}", method, METHODS)
    whole_number(samples, "samples", 2)  # their spread is the error
    whole_number(points, "points", 2)
    if steps is not None:
        whole_number(steps, "steps", 1)
    if width is not None:
        positive_number(width, "width")
    if grid is not None:
        grid = reals(grid, "grid")
        if grid.ndim != 1 or len(grid) < 2 or not (np.isfinite(grid).all() and (np.diff(grid) > 0).all()):
            raise InputError("grid must be two or more finite numbers in ascending order")
    with reduced_operator(
        matrix, mass=mass, nullspace=nullspace, comm=comm, deflate=deflate, hermitian=True
    ) as operator:
        check_groups(operator, groups, samples)
        deal = partial(run_in_groups, operator, deflate, groups, samples)
        measures: Measures | None = None
        if method == "auto" and _is_told(operator):
            method = "structure"
        if method == "auto":
            method = _method_of_products(operator.n, samples, steps, groups)
        if operator.total == 0:
            samples, steps = 0, 0
        elif method == "structure":
            if not operator.told.knows_counts:
                raise InputError("method 'structure' is for a structured Hessian that counts its eigenvalues")
            measures, samples, steps = told_spectrum(operator.told, operator.n, grid), 0, 0
        elif method == "dense":
            if not is_cheaper_whole(operator.n, np.inf):
                most = LARGEST // operator.copies
                raise InputError(f"method 'dense' is for up to {most} variables, here are {operator.size}")
            measures, samples, steps = Whole(*whole_spectrum(operator)), 0, 0
        elif method == "lanczos":
            measures, steps = quadratures(operator, deal, steps or STEPS, seed)
        else:
            measures, steps = polynomials(operator, deal, steps, width, seed)
        return _density(operator, measures, samples, steps, grid, points, width, method)


def _method_of_products(n: int, samples: int, steps: int | None, groups: int) -> str:
    """Return the method where products alone are known."""
    return "dense" if groups == 1 and is_cheaper_whole(n, samples * min(steps or STEPS, n)) else "lanczos"


def predict_products(
    n: int, method: str = "auto", samples: int | None = None, steps: int | None = None, groups: int = 1
) -> tuple[int, int, int | None]:
    """Return (least, likely, most) products of the density of a Hessian of which nothing else is known.

    Not collective. Lanczos ends early where a vector spans an invariant space; how many steps the width of
    `chebyshev` needs is known once the ends of the spectrum are.

    Parameters
    ----------
    method, samples, steps, groups
        As of `density`; None for what it takes by itself.
    """
    if method not in METHODS:
        raise none_of(f"method {method!r}", method, METHODS)
    samples = samples or SAMPLES
    if method == "auto":
        method = _method_of_products(n, samples, steps, groups)
    if method == "dense":
        whole = products_of_whole(n)
        return whole, whole, whole
    taken = samples * min(steps or STEPS, n)
    return samples, taken, taken if method == "lanczos" else None


def count(
    matrix: MatrixLike | EigenProblem, low: float, high: float, *, samples: int = 20, **named: Any
) -> tuple[float, float]:
    """Return the estimated number of eigenvalues from low to high, and its standard error; see `density`.

    Collective. Of a spectrum that is known already ask `Density.count`.
    """
    return density(matrix, samples=samples, **named).count(low, high)


def _left_open(rows: Below) -> np.ndarray:
    """Return how far shares may be from their estimates, however many samples there are."""
    return np.maximum(rows.upper - rows.value, rows.value - rows.lower).mean(axis=0)


def quadratures(operator: ReducedOperator, deal: Deal, steps: int, seed: int) -> tuple[Quadratures, int]:
    """Return the quadratures of random starts, and the steps that the longest run took.

    Collective.

    Parameters
    ----------
    deal
        Called as deal(run), for `run` see `run_in_groups`.
    """
    cite("density by lanczos")

    def run(operator: ReducedOperator, numbers: range) -> list:
        rules: list = []
        memory = None
        for batch in batches(operator, min(steps, operator.total), len(numbers)):
            starts = operator.random_vectors(numbers[batch.start : batch.stop], seed, operator.best_starts)
            lanczos = Lanczos(operator, starts, steps, memory)
            lanczos.advance(steps)
            memory = lanczos.memory
            rules += zip(lanczos.quadratures(), lanczos.recurrences(), strict=True)
        return rules

    rules, recurrences = map(list, zip(*deal(run), strict=True))
    nodes, weights, residuals = map(list, zip(*rules, strict=True))
    return Quadratures(nodes, weights, residuals, recurrences, steps, operator.noise), max(map(len, nodes))


def _is_told(operator: ReducedOperator) -> bool:
    """Return whether a structure tells a spectrum, or counts one too large to be made whole. Collective."""
    told = operator.told
    return told.knows_counts and (told.knows_eigenvalues or not is_cheaper_whole(operator.n, np.inf))


def _density(
    operator: ReducedOperator,
    measures: Measures | None,
    samples: int,
    steps: int,
    grid: np.ndarray | None,
    points: int,
    width: float | None,
    method: str,
) -> Density:
    """Return the density that measures and atoms amount to."""
    atoms = tuple(Atom(*atom) for atom in operator.atoms)
    low, high = measures.range if measures is not None else (atoms[0].location, atoms[-1].location)
    if measures is not None and (width is None or method == "chebyshev"):
        width = measures.width()
    elif width is None:
        width = NARROW * max(abs(low), abs(high), 1.0)
    for atom in atoms:
        low, high = min(low, atom.location), max(high, atom.location)
    if grid is None:
        grid = np.linspace(low - _BEYOND * width, high + _BEYOND * width, points)
    middles = 0.5 * (grid[1:] + grid[:-1])
    edges = np.concatenate([[2 * grid[0] - middles[0]], middles, [2 * grid[-1] - middles[-1]]])
    n, known = operator.size, sum(atom.multiplicity for atom in atoms)
    rest = 1 - known / n
    smooth, moments = np.zeros((2, len(grid))), np.zeros((2, MOMENTS))
    if measures is not None:
        smooth = rest * np.array(mean_and_error(measures.smoothed(edges, width)))
        moments = rest * np.array(mean_and_error(measures.moments()))
    for place, times in atoms:
        moments[0] += times / n * place ** np.arange(MOMENTS)
    nothing = np.zeros(0)
    bare = Density(
        grid, smooth[0], smooth[1], nothing, nothing, atoms, moments[0], moments[1], (low, high), float(width),
        method, samples, steps, operator.products, n, measures, operator.copies,
    )  # fmt: skip
    cumulative, error = bare.below(grid)
    return replace(bare, cumulative=cumulative, cumulative_stderr=error)
