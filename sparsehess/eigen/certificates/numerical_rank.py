"""Rank and degeneracy: how many eigenvalues are above, below and between thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.estimates.chebyshev_moments import bounds
from sparsehess.eigen.estimates.reduced_operator import reduced_operator
from sparsehess.eigen.estimates.spectral_density import Density, density
from sparsehess.eigen.estimates.spectral_density import predict_products as density_products
from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.eigen.problem.hermitian_problem import problem_of
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.whole_matrix import is_cheaper_whole, products_of_whole, whole_problem
from sparsehess.eigen.solvers.end_solvers import StructureCounter
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import InputError, none_of
from sparsehess.runtime import has_package, require_real
from sparsehess.runtime.memory import free_memory
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import positive_number, whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

METHODS = ("auto", "inertia", "density")

# Relative threshold for entries in float64, and in what is known of them no better than this.
RELATIVE = 1e-6
_RELATIVE_TO_ERROR = 100.0

# A count at a threshold is believed when a count so many times farther from zero is the same. The wider first:
# that is the stronger confirmation; the nearer where eigenvalues lie in between.
_CONFIRMING = (1.5, 1.05, 1.002)

# A gap must be at least this wide, upper end over lower, to be one, and is looked for in such steps.
_GAP = 10.0

# From this size on MUMPS's analysis is asked whether a factorization fits.
_LARGE = 50_000

# Random vectors of a density, and steps with each; steps of Lanczos that tell the size of the largest.
_SAMPLES, _STEPS, _BOUNDS = 20, 150, 40

_NOT_FACTORIZED = "a matrix-free Hessian has no factorization, which inertia needs: take method 'density'"

# Fewer eigenvalues than this do not fill a gap.
_FAINT = 0.5

# Gaps between nodes that are looked into, the widest first, but for this part at either end, in logarithms.
_TRIED, _EDGE = 20, 0.1

# As many eigenvalues that products do not tell from their neighbours are worth a word.
_NOTED = 0.5


@dataclass(frozen=True, repr=False)
class Rank(ShortRepr):
    """How many eigenvalues are zero, and how many are not.

    *Not collective.* Made by `rank`; the same on every rank of the communicator.

    Attributes
    ----------
    rank, n
        Eigenvalues whose size is above the threshold, and all of them. Infinite ones, of a singular mass, are not
        in the rank.
    degeneracy
        Eigenvalues up to the threshold in size: n - rank, without the infinite ones.
    threshold, relative
        The size up to which an eigenvalue is zero, and that size over the largest one.
    certified
        Whether all counts are by inertia, and confirmed at a second shift each.
    above, below, between
        Eigenvalues greater than the threshold, less than minus it, and between.
    share
        `degeneracy` over n.
    stderr
        Standard error of `rank`, 0 where it is by inertia.
    method, why
        `structure`, `inertia` or `density`, and what chose it and the threshold.
    largest
        Size of the largest eigenvalue, by Lanczos.
    gap
        (lower, upper) sizes between which there is no eigenvalue, where the threshold is in the widest gap.
    doubt
        What two shifts disagree about, or empty.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.rank(np.diag([-1.0, 0.0, 0.0, 2.0]))
    >>> found.rank, found.degeneracy, found.certified, found.method
    (2, 2, True, 'inertia')
    """

    rank: int
    n: int
    degeneracy: int
    threshold: float
    relative: float
    certified: bool
    above: int
    below: int
    between: int
    share: float
    stderr: float
    method: str
    why: str
    largest: float
    gap: tuple[float, float] | None
    doubt: str

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        error = f" ± {self.stderr:.2g}" if self.stderr else ""
        yield f"{self.rank:,}{error} of {self.n:,}"
        yield f"zero up to {self.threshold:.3g}"
        yield "certified" if self.certified else "not certified"
        yield f"by {self.method}"


def rank(
    matrix: MatrixLike | EigenProblem,
    threshold: float | str | None = None,
    *,
    absolute: float | None = None,
    method: str = "auto",
    samples: int = _SAMPLES,
    steps: int = _STEPS,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    options: dict | None = None,
    seed: int = 0,
    comm: MPI.Comm | None = None,
) -> Rank:
    """Count the eigenvalues of H x = λ x, or H x = λ M x, that are not zero.

    *Collective.*

    Parameters
    ----------
    matrix, mass, nullspace, comm
        As for `eigs`, complex Hermitian ones among them, or an `EigenProblem`. Null vectors count as zeros.
    threshold
        Eigenvalues up to this part of the largest are zero; default 1e-6, or a hundred times the relative error of
        the matrix where that is more. `gap`: the middle of the widest gap between the sizes of eigenvalues, of a
        factor of ten at least; the default where there is none.
    absolute
        Size up to which an eigenvalue is zero, in place of `threshold`.
    method
        `inertia`: counts by LDLᵀ factorizations, exact; certified where a second shift at each side confirms them.
        `density`: by stochastic Lanczos quadrature, which cannot tell eigenvalues below some thousandth of the
        largest from zero unless a gap separates them. `auto`, and `inertia` too: by its structure where that
        counts; inertia where the matrix is assembled and its factors fit into memory.
    samples, steps
        Of `density`.
    options
        PETSc options of the factorizations, without a prefix.
    seed
        Of random vectors.

    Returns
    -------
    Rank
        The counts at the threshold, whether they are certified, and what chose method and threshold.

    Raises
    ------
    InputError
        Arguments that cannot be used.
    StackError
        Inertia asked for, and no MUMPS in this PETSc.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> sh.rank(np.diag([1e-9, 1.0, 2.0])).rank, sh.rank(np.diag([1e-9, 1.0, 2.0]), absolute=1e-12).rank
    (2, 3)
    """
    if method not in METHODS:
        raise none_of(f"method {method!r}", method, METHODS)
    if absolute is not None and threshold is not None:
        raise InputError("threshold and absolute are two ways to say the same: leave one out")
    if isinstance(threshold, str) and threshold != "gap":
        raise InputError(f"threshold {threshold!r} is neither a number nor 'gap'")
    number = absolute if absolute is not None else threshold
    if number is not None and number != "gap":
        positive_number(number, "threshold")
    whole_number(samples, "samples", 2)  # their spread is the error
    whole_number(steps, "steps", 1)
    if isinstance(matrix, EigenProblem):
        return _counted(matrix, threshold, absolute, method, samples, steps, dict(options or {}), seed)
    with problem_of(matrix, mass=mass, nullspace=nullspace, comm=comm) as problem:
        return _counted(problem, threshold, absolute, method, samples, steps, dict(options or {}), seed)


def _is_made_whole(n: int, method: str, samples: int, steps: int) -> bool:
    """Return whether a matrix-free Hessian of n variables is made whole first."""
    spent = samples * min(steps, n) if method == "auto" else np.inf
    return method != "density" and is_cheaper_whole(n, spent)


def predict_products(
    n: int, method: str = "auto", samples: int | None = None, steps: int | None = None
) -> tuple[int, int, int]:
    """Return (least, likely, most) products of the rank of a Hessian of which nothing else is known.

    Not collective.

    Parameters
    ----------
    method, samples, steps
        As of `rank`; None for what it takes by itself.

    Raises
    ------
    InputError
        The method cannot do it.
    """
    if method not in METHODS:
        raise none_of(f"method {method!r}", method, METHODS)
    samples, steps = samples or _SAMPLES, steps or _STEPS
    if _is_made_whole(n, method, samples, steps):
        whole = products_of_whole(n)
        return whole, whole, whole
    if method == "inertia":
        raise InputError(_NOT_FACTORIZED)
    most = _BOUNDS + density_products(n, "auto", samples, steps)[1]
    return samples, most, most


def _counted(
    problem: EigenProblem,
    threshold: float | str | None,
    absolute: float | None,
    method: str,
    samples: int,
    steps: int,
    options: dict,
    seed: int,
) -> Rank:
    """Return the rank of a problem; see `rank`. Collective."""
    require_real("a rank")
    if problem.told.knows_counts and method != "density":
        why = "the structure counts"
        return _counted_by("structure", why, problem, threshold, absolute, samples, steps, options, seed)
    if not problem.assembled and _is_made_whole(problem.n, method, samples, steps):
        with whole_problem(problem) as whole:
            why = f"{problem.n} products give a matrix-free Hessian of so few variables whole"
            return _counted_by("inertia", why, whole, threshold, absolute, samples, steps, options, seed)
    method, why = _chosen(problem, method)
    return _counted_by(method, why, problem, threshold, absolute, samples, steps, options, seed)


def _counted_by(
    method: str,
    why: str,
    problem: EigenProblem,
    threshold: float | str | None,
    absolute: float | None,
    samples: int,
    steps: int,
    options: dict,
    seed: int,
) -> Rank:
    """Return the rank of a problem by a method. Collective."""
    if method != "inertia" and options:
        raise InputError(f"options are for factorizations, which method {method!r} makes none of")
    largest = _largest(problem, seed)
    relative = max(RELATIVE, _RELATIVE_TO_ERROR * problem.relative_error)
    if largest == 0:
        return _zero(problem, method, why)
    if method != "density":
        counts: _Inertia | _Estimated = _Inertia(problem, options)
    else:
        spectrum = density(problem, samples=samples, steps=steps, seed=seed)
        counts = _Estimated(spectrum)
    try:
        gap = None
        if threshold == "gap":
            gap = counts.gap(problem.zero, largest)
        if absolute is not None:
            size, why = absolute, f"{why}; a threshold that was asked for"
        elif gap is not None:
            size, why = float(np.sqrt(gap[0] * gap[1])), f"{why}; a threshold in the widest gap"
        elif threshold == "gap":
            size, why = relative * largest, f"{why}; no gap of a factor of {_GAP:g}, so the default threshold"
        elif threshold is None:
            size, why = relative * largest, f"{why}; the default threshold"
        else:
            size, why = float(threshold) * largest, f"{why}; a threshold that was asked for"
        below, between, above, error, doubt = counts.at(size)
    finally:
        counts.close()
    n = problem.n // problem.copies
    return Rank(
        below + above, n, between, size, size / largest, method != "density" and not doubt, above, below,
        between, between / n, error, method, why, largest, gap, doubt,
    )  # fmt: skip


def _zero(problem: EigenProblem, method: str, why: str) -> Rank:
    """Return the rank of a matrix that is zero."""
    zeros, n = problem.finite // problem.copies, problem.n // problem.copies
    return Rank(0, n, zeros, 0.0, 0.0, method != "density", 0, 0, zeros, zeros / n, 0.0, method,
                f"{why}; the matrix is zero", 0.0, None, "")  # fmt: skip


def _chosen(problem: EigenProblem, method: str) -> tuple[str, str]:
    """Return the method and why it is taken."""
    if method == "inertia":
        if not problem.assembled:
            raise InputError(_NOT_FACTORIZED)
        return method, "asked for"
    if method == "density":
        return method, "asked for"
    if not problem.assembled:
        return "density", "a matrix-free Hessian"
    if not has_package("mumps"):
        return "density", "this PETSc has no MUMPS to factorize with"
    if problem.n >= _LARGE:
        wanted = problem.factor_cost.most
        there = free_memory(problem.comm)
        if wanted > there:
            return "density", (
                f"a factorization would take {wanted / 2**30:.1f} GiB on a rank that has {there / 2**30:.1f}"
            )
    return "inertia", "a factorization fits"


def _largest(problem: EigenProblem, seed: int) -> float:
    """Return the size of the largest eigenvalue, to a percent or so."""
    if problem.told.knows_counts:
        return float(np.abs(problem.told.spectrum(1, "magnitude")).max(initial=0.0))
    if problem.finite < problem.n:
        return problem.scale  # of a singular mass Lanczos sees nothing but the infinite ones
    with reduced_operator(problem) as operator:
        known = max((abs(value) for value, _ in operator.atoms), default=0.0)
        return max(known, bounds(operator, _BOUNDS, seed).size) if operator.total else known


class _Inertia:
    """Counts at shifts, each made once: by the structure, else by factorizations.

    Of a complex Hermitian matrix they are halves of those of its real form.
    """

    def __init__(self, problem: EigenProblem, options: dict) -> None:
        self.problem = problem
        self._counter: Callable[[float], Pivots]
        if problem.told.knows_counts:
            self._counter, self.close = StructureCounter(problem, problem.told).shift_to, lambda: None
        else:
            solver = KrylovSchur(problem, True, options, tol=1e-8)
            self._counter, self.close = partial(_factorized, solver), solver.close
        self._known: dict[float, tuple[int, int]] = {}
        self._finite = problem.finite // problem.copies

    def below(self, shift: float) -> int:
        """Return the number of eigenvalues below a shift."""
        if shift not in self._known:
            counts = self._counter(shift)
            known = len(self.problem.null) if shift > 0 else 0
            self._known[shift] = counts[0] + known, counts[1]
        return self._known[shift][0] // self.problem.copies

    def between(self, size: float) -> int:
        """Return the number of eigenvalues up to a size."""
        return self.below(size) - self.below(-size)

    def gap(self, low: float, high: float) -> tuple[float, float] | None:
        """Return the widest gap between sizes of eigenvalues, None where none is wide enough.

        Counts at shifts in steps of half of what a gap must have; where two have the same count, none is made
        between them.
        """
        steps = max(2, int(np.ceil(2 * np.log(high / low) / np.log(_GAP))))
        ladder = np.geomspace(low, 1.01 * high, steps + 1)
        counts = {0: self.between(ladder[0]), steps: self.between(ladder[steps])}
        self._fill(ladder, counts, 0, steps)
        places = sorted(counts)
        runs: dict[int, list[int]] = {}
        for place in places:
            runs.setdefault(counts[place], []).append(place)
        # Below the first eigenvalue and above the last there is no gap: nothing is on its other side.
        inner = [run for count, run in runs.items() if 0 < count < self._finite]
        widest = max(inner, key=lambda run: run[-1] - run[0], default=None)
        if widest is None or ladder[widest[-1]] < 0.99 * _GAP * ladder[widest[0]]:
            return None
        return float(ladder[widest[0]]), float(ladder[widest[-1]])

    def _fill(self, ladder: np.ndarray, counts: dict[int, int], first: int, last: int) -> None:
        if last - first < 2 or counts[first] == counts[last]:
            return
        middle = (first + last) // 2
        counts[middle] = self.between(ladder[middle])
        self._fill(ladder, counts, first, middle)
        self._fill(ladder, counts, middle, last)

    def at(self, size: float) -> tuple[int, int, int, float, str]:
        """Return (below, between, above, stderr, doubt) for a threshold."""
        finite, doubts = self._finite, []
        for shift in (-size, size):
            for factor in _CONFIRMING:
                if self.below(factor * shift) == self.below(shift):
                    break
            else:
                doubts.append(
                    f"{self.below(shift)} eigenvalues below {shift:.3e} but {self.below(factor * shift)} "
                    f"below {factor * shift:.3e}"
                )
            if self._known[shift][1]:
                doubts.append(f"pivots vanished at {shift:.3e}")
            if self._known[shift][0] % self.problem.copies:
                doubts.append(f"an odd number is below {shift:.3e} in the real form, where all stand twice")
        below, upto = self.below(-size), self.below(size)
        if not 0 <= below <= upto <= finite:
            doubts.append("the counts contradict each other")
        return below, upto - below, finite - upto, 0.0, "; ".join(doubts)


def _factorized(solver: KrylovSchur, shift: float) -> Pivots:
    """Return the pivots of a factorization at a shift. Collective."""
    counts = solver.shift_to(shift)
    solver.refuse_unused()
    return counts


class _Estimated:
    """Counts from an estimated spectrum."""

    def __init__(self, spectrum: Density) -> None:
        self.spectrum = spectrum

    def gap(self, low: float, high: float) -> tuple[float, float] | None:
        """Return the widest gap between sizes, None where none is wide enough, or none is surely one.

        Nodes tell where one may be, bounds of the count within whether it is.
        """
        known = np.array([atom.location for atom in self.spectrum.atoms])
        measures = self.spectrum.measures
        places = known if measures is None else np.append(known, measures.places())
        size = np.unique(np.maximum(np.abs(places), low))
        ratios = size[1:] / size[:-1]
        for place in np.argsort(-ratios, kind="stable")[:_TRIED]:
            # Nodes at the ends of a gap are near eigenvalues, not at them.
            lower, upper = (float(size[place] * ratios[place] ** part) for part in (_EDGE, 1 - _EDGE))
            if upper < _GAP * lower:
                return None
            if self._most_between(lower, upper) < _FAINT:
                return lower, upper
        return None

    def _most_between(self, lower: float, upper: float) -> float:
        """Return how many eigenvalues there may be between two sizes."""
        return sum(sum(self.spectrum.count(*ends)) for ends in ((lower, upper), (-upper, -lower)))

    def at(self, size: float) -> tuple[int, int, int, float, str]:
        """Return (below, between, above, stderr, doubt) for a threshold, whole numbers that add up to n."""
        n, spectrum = self.spectrum.n, self.spectrum
        zero, error = spectrum.count(-size, size)
        share, _ = spectrum.below(-size, inclusive=False)
        between = min(n, max(0, round(zero)))
        below = min(n - between, max(0, round(n * float(share[0]))))
        exact = spectrum.method in ("dense", "structure") and not error
        doubt = "" if exact else "estimated from products with random vectors"
        open_ = spectrum.unresolved(-size, size)
        if open_ > _NOTED:
            doubt += f"; unresolved: up to {open_:.0f} eigenvalues may be on the other side of ±{size:.1e}"
        return below, between, n - between - below, error, doubt

    def close(self) -> None:
        pass
