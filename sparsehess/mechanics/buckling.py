"""`buckling`: the load factors nearest to zero, of either sign, and proof that none nearer was missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.eigs import DEFAULT_K, solve
from sparsehess.eigen.solvers.solve_monitor import AgreedProgress, OnProgress, ignore_progress
from sparsehess.errors import CheckError, InputError, NotConverged, none_of
from sparsehess.mechanics.load_counts import (
    LoadCount,
    Range,
    count_far,
    count_found,
    count_of_range,
    count_range,
    without_tipped,
)
from sparsehess.mechanics.load_pencil import LoadPencil
from sparsehess.runtime import PETSc, destroy, require_real
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import positive_number, whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.hessian.hessian import Hessian
    from sparsehess.operators.matrix_like import MatrixLike

DIRECTIONS = ("both", "positive", "negative")

# Inverse load factors below this part of their middle size, or of the largest, may be those that do nothing.
_FAINT = 1e-7

# Load factors that differ by less than this part of themselves are told as equal.
_EQUAL = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Buckling(ShortRepr):
    """Load factors λ and buckling modes φ of (K + λ Kg) φ = 0.

    *Collective* to make, by `buckling`, and to close. A context manager; `close()` destroys the modes.

    Attributes
    ----------
    load_factors
        (k,) by distance from zero, the nearest first; the same on every rank. A positive one multiplies the load
        that Kg is made of, a negative one the reversed load.
    modes
        k Vecs, each with a largest entry of one; of a free body, orthogonal to the rigid motions that neither
        matrix resists.
    residuals
        (k,) backward errors, as those of `eigs` for Kg φ = μ K φ.
    resolutions
        (k,) how far the last digits of the entries can move each load factor, to first order.
    count
        What was counted, in both directions; None where Kg is zero.
    asked
        How many were sought: fewer than the k of the request where no more exist in the range.
    which
        `both`, `positive` or `negative`: the directions of the load that were asked for.
    free
        Rigid motions that neither K nor Kg resists, left out.
    tipped
        Rigid motions that K does not resist and the load moves: the load factor zero, so many times, which is
        not in `load_factors`.
    form
        `swapped`: Kg φ = μ K φ; `shifted`: with K + σ Kg in the place of K, where that is definite and K is not.
    shift
        σ; 0 for the swapped form.
    shortfall
        Why the answer is not complete or not certified; empty where it is.
    timings
        Seconds of `factorization`, `solve`, `certificate`, `total`.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> K, Kg = np.diag([6.0, 8.0, 9.0]), np.diag([-2.0, 1.0, -1.0])
    >>> with sh.buckling(K, Kg, 2) as found:
    ...     print(found.load_factors, found.count.certified)
    [ 3. -8.] True
    """

    load_factors: np.ndarray
    modes: list[PETSc.Vec]
    residuals: np.ndarray
    resolutions: np.ndarray
    count: LoadCount | None
    asked: int
    which: str
    free: int
    tipped: int
    form: str
    shift: float
    shortfall: str
    timings: dict[str, float] = field(default_factory=dict)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        factors = self.load_factors
        if len(factors):
            yield f"{number_of(len(factors), 'load factor')}, the nearest to zero {factors[0]:.6g}"
        else:
            yield "no load factor"
        yield "nothing to count" if self.count is None else self.count.in_short
        if self.tipped:
            yield f"{self.tipped} at zero"
        if len(self.modes) < len(factors):
            yield "closed"

    @property
    def critical(self) -> float | None:
        """The smallest positive load factor that was found, None where none was.

        It is the smallest that there is if the count is certified and `which` is not `negative`.
        """
        positive = self.load_factors[self.load_factors > 0]
        return float(positive.min()) if len(positive) else None

    @property
    def groups(self) -> list[list[int]]:
        """Numbers of load factors that are equal to a millionth, as of a column that is square. Not collective."""
        found: list[list[int]] = []
        for i, value in enumerate(self.load_factors):
            for group in found:
                if abs(value - self.load_factors[group[-1]]) <= _EQUAL * abs(value):
                    group.append(i)
                    break
            else:
                found.append([i])
        return found

    def facts(self) -> dict[str, Any]:
        """Return what is known beside the modes, as JSON. Not collective."""
        return {
            "k": self.asked,
            "which": self.which,
            "convention": "(K + λ Kg) φ = 0",
            "load_factors": self.load_factors.tolist(),
            "critical": self.critical,
            "groups": self.groups,
            "residuals": self.residuals.tolist(),
            "resolution": self.resolutions.tolist(),
            "count": None if self.count is None else self.count.facts(),
            "free": self.free,
            "tipped": self.tipped,
            "form": self.form,
            "shift": self.shift,
            "shortfall": self.shortfall or None,
        }

    def close(self) -> None:
        """Destroy the modes.

        Collective.
        """
        destroy(*self.modes)
        self.modes.clear()

    def __enter__(self) -> Buckling:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy the modes. Collective."""
        self.close()


def buckling(
    stiffness: Hessian | MatrixLike,
    geometric: MatrixLike,
    k: int | None = None,
    *,
    which: str = "both",
    max_factor: float | None = None,
    tol: float = 1e-8,
    options: dict | None = None,
    seed: int = 0,
    comm: MPI.Comm | None = None,
    strict: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Buckling:
    """Compute the load factors λ of (K + λ Kg) φ = 0 nearest to zero, and prove that none nearer was missed.

    *Collective.* The sign is that of finite-element codes: Kg is the geometric (stress, initial) stiffness of the
    given load, negative where that compresses, and λ > 0 multiplies this load. Where K φ = λ G φ is meant, give
    -G.

    Parameters
    ----------
    stiffness
        K, symmetric, assembled: positive definite, or positive semidefinite with rigid motions. As for `eigs`.
    geometric
        Kg, symmetric, of the rows of K: indefinite, singular, of any size.
    k
        How many; default 6, or all in the range of `max_factor`.
    which
        `both`: nearest to zero of either sign; `positive`: those that multiply the load; `negative`: those of the
        reversed load. The other direction is counted in the same range all the same.
    max_factor
        Load factors up to this size alone.
    tol
        Backward error that each pair must reach.
    options
        PETSc options without a prefix, as for `eigs`.
    seed
        Of the starting vectors.
    comm
        For SciPy matrices.
    strict
        Raise where fewer pairs converged or the count is not certified; else say so in the result.
    progress
        Called as progress(converged, wanted) on every rank.

    Returns
    -------
    Buckling
        The caller closes it. No load factor in the range is an answer: nothing buckles under this load there.

    Raises
    ------
    InputError
        K is indefinite: the structure is unstable already. Or arguments that cannot be used.
    NotConverged
        Fewer pairs converged than there are (`strict`).
    CheckError
        Count and pairs do not agree, or the count is not safe (`strict`).
    StackError
        No MUMPS, or complex scalars.

    Notes
    -----
    With K definite, μ = 1/λ are the eigenvalues of -Kg φ = μ K φ, which are real, and the wanted ones are
    largest in size: products with K⁻¹ Kg find both ends. The inertia of K + Λ Kg counts the load factors in
    (0, Λ), that of K - Λ Kg those in (-Λ, 0), both by Sylvester's law [1]_; a count is certified by the margin of
    its factorization. Of a free body, as many rows are held as there are rigid motions that neither matrix
    resists, which changes no load factor; where the load moves some of them, K + σKg of a small σ takes the place
    of K, and λ = σ + 1/ν.

    References
    ----------
    .. [1] R. G. Grimes, J. G. Lewis, H. D. Simon, A shifted block Lanczos algorithm for solving sparse symmetric
       generalized eigenproblems, SIAM Journal on Matrix Analysis and Applications 15 (1994), 228-272; section 5
       has buckling.

    Examples
    --------
    A column of three springs of stiffness 1 and length 1, hinged at both ends, under a unit load at its end.

    >>> import numpy as np
    >>> import sparsehess as sh
    >>> K = np.array([[5.0, -4.0], [-4.0, 5.0]])
    >>> Kg = -np.array([[2.0, -1.0], [-1.0, 2.0]])
    >>> with sh.buckling(K, Kg, 1) as found:
    ...     print(found.load_factors, found.count.certified, found.count.negative)
    [1.] True 0
    """
    if which not in DIRECTIONS:
        raise none_of(f"which={which!r}", which, DIRECTIONS)
    if k is not None:
        whole_number(k, "k", 1)
    limit = None if max_factor is None else positive_number(max_factor, "max_factor")
    require_real("buckling, which is counted by LDLᵀ of real numbers,")
    spec = SolveSpec(
        which="magnitude" if which == "both" else "largest",
        tol=tol,
        options=dict(options or {}),
        count="no",
        seed=seed,
    )
    began = time.perf_counter()
    with LoadPencil(stiffness, geometric, comm) as pencil:
        told = ignore_progress if progress is None else AgreedProgress(pencil.layout.comm, progress)
        found = _buckled(pencil, spec, which, k, limit, told)
    found.timings["total"] = time.perf_counter() - began
    if strict and found.shortfall:
        found.close()
        missing = found.count is None or len(found.load_factors) < found.asked
        raise (NotConverged if missing else CheckError)(found.shortfall)
    return found


def _buckled(
    pencil: LoadPencil, spec: SolveSpec, which: str, k: int | None, limit: float | None, told: OnProgress
) -> Buckling:
    """Return what buckles. Collective."""
    both, sign = which == "both", -1 if which == "negative" else 1
    if pencil.empty:
        return _answer(pencil, which, None, None, 0, {})
    with pencil.problem(sign) as problem:
        tipped = pencil.tipped if both or pencil.shift * sign < 0 else 0  # of those that are solved for
        counted: Range | None = None
        if limit is not None:
            if limit <= abs(pencil.shift):
                raise InputError(
                    f"max_factor={limit:g} is too near to zero: give at least {2 * abs(pencil.shift):g}"
                )
            counted = count_range(problem, 1 / (limit - sign * pencil.shift), 1 / (limit + sign * pencil.shift))
        elif not both:
            counted = count_far(problem)
        there = None if counted is None else _there(counted, both)
        wanted = min(problem.n, DEFAULT_K + tipped if k is None else k + tipped)
        if there is not None:
            wanted = there if k is None and limit is not None else min(there, wanted)
        if wanted <= tipped and counted is not None:
            count = count_of_range(counted, min(tipped, _there(counted, both)), both, pencil.shift, sign)
            return _answer(pencil, which, None, count, 0, {}, tipped)
        spectrum = solve(problem, replace(spec, k=wanted), told)
        try:
            if counted is None and _is_scarce(problem, spectrum, wanted):
                counted = count_far(problem)
                wanted = min(_there(counted, both), wanted)
            began = time.perf_counter()
            count, spectrum = _counted(pencil, problem, spec, spectrum, wanted, counted, both, sign, told)
            seconds = {**spectrum.timings, "certificate": time.perf_counter() - began}
            return _answer(pencil, which, spectrum, count, wanted, seconds, tipped)
        finally:
            spectrum.close()


def _there(counted: Range, both: bool) -> int:
    return counted.ahead + (counted.behind if both else 0)


def _is_scarce(problem: EigenProblem, spectrum: Spectrum, wanted: int) -> bool:
    """Return whether there may be fewer load factors than are wanted. Not collective."""
    sizes = np.abs(spectrum.eigenvalues)
    faint = _FAINT * max(problem.scale or 1.0, float(sizes.max(initial=0.0)))
    return spectrum.converged < wanted or bool((sizes < faint).any())


def _inside(spectrum: Spectrum, counted: Range | None, both: bool) -> np.ndarray:
    """Return which eigenvalues are in a range, the others being those of no load. Not collective."""
    values = spectrum.eigenvalues
    if counted is None:
        return np.ones(len(values), bool)
    return (values > counted.above) | (both & (values < -counted.below))


def _counted(
    pencil: LoadPencil,
    problem: EigenProblem,
    spec: SolveSpec,
    spectrum: Spectrum,
    wanted: int,
    counted: Range | None,
    both: bool,
    sign: int,
    told: OnProgress,
) -> tuple[LoadCount, Spectrum]:
    """Return the count of what was found, and that with what had been missed. Collective."""
    for again in (False, True):
        if again:
            spectrum.close()
            spectrum = solve(problem, replace(spec, k=wanted, count="yes", seed=spec.seed + 1), told)
        found = int(np.count_nonzero(_inside(spectrum, counted, both)))
        if counted is not None and (found >= _there(counted, both) or found == 0):
            count = count_of_range(counted, found, both, pencil.shift, sign)
        else:
            chosen = np.flatnonzero(_inside(spectrum, counted, both))
            vectors = [spectrum.vectors[i] for i in chosen]
            count = count_found(problem, spec, vectors, min(wanted, len(vectors)), pencil.shift, sign)
        if count.counted - count.group <= count.found <= count.counted:  # nothing is missing, certain or not
            break
    return count, spectrum


def _answer(
    pencil: LoadPencil,
    which: str,
    spectrum: Spectrum | None,
    count: LoadCount | None,
    wanted: int,
    seconds: dict[str, float],
    tipped: int = 0,
) -> Buckling:
    """Return the answer in load factors. Collective."""
    both, sign = which == "both", -1 if which == "negative" else 1
    if count is not None:
        count = without_tipped(count, pencil.tipped, pencil.shift, both, sign)
    factors = residuals = resolutions = np.empty(0)
    modes: list[PETSc.Vec] = []
    if spectrum is not None:
        values = spectrum.eigenvalues
        with np.errstate(divide="ignore"):
            of_all = pencil.shift + sign / values
        order = np.argsort(np.abs(of_all), kind="stable")
        order = order[tipped:]  # those at zero come first
        if not both:
            order = order[sign * of_all[order] > 0]  # the other direction is counted, and not told
        low, high = (-np.inf, np.inf) if count is None else (count.low, count.high)
        order = order[(of_all[order] > low) & (of_all[order] < high)][: max(wanted - tipped, 0)]
        factors, residuals = of_all[order], spectrum.residuals[order]
        resolutions = spectrum.roundings[order] / values[order] ** 2
        modes = pencil.modes([spectrum.vectors[i] for i in order])
        count = _held_to_order(count, factors, pencil.shift)
    found = Buckling(
        load_factors=factors,
        modes=modes,
        residuals=residuals,
        resolutions=resolutions,
        count=count,
        asked=max(wanted - tipped, 0),
        which=which,
        free=pencil.free,
        tipped=pencil.tipped,
        form="shifted" if pencil.shift else "swapped",
        shift=pencil.shift,
        shortfall="",
        timings={"factorization": 0.0, "solve": 0.0, "certificate": 0.0, **seconds},
    )
    return replace(found, shortfall=_shortfall(found))


def _held_to_order(count: LoadCount | None, factors: np.ndarray, shift: float) -> LoadCount | None:
    """Return a count that is not certified where one not found may be nearer to zero than one found.

    Not collective. Found are those nearest to the shift.
    """
    if count is None or not count.certified or not len(factors) or not shift:
        return count
    nearest_out = min(abs(count.low), abs(count.high))
    if count.counted == count.found and np.abs(factors).max() < nearest_out:
        return count
    return replace(count, certified=False)


def _shortfall(found: Buckling) -> str:
    """Return why an answer is not complete or not certain; empty where it is. Not collective."""
    count = found.count
    if count is None:
        return ""
    if len(found.load_factors) < found.asked:
        return (
            f"{len(found.load_factors)} of {found.asked} load factors converged: loosen the tolerance, or give "
            "SLEPc a wider subspace (-eps_ncv)"
        )
    if count.certified:
        return ""
    place = f"in ({count.low:.6g}, {count.high:.6g})"
    if count.found == count.counted:
        margin = "" if count.margin is None else f" (margin {count.margin:.2g})"
        return (
            f"the count of load factors {place} is not certain: rounding can move one across an end{margin}; "
            "another k or max_factor has other ends"
        )
    return f"load factors missed: the inertia counts {count.counted} {place}, {count.found} were found"
