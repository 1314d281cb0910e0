"""How many modes there are, by inertia where a law of inertia holds, and why not where none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.mechanics.mode_search import ModeSearch
from sparsehess.mechanics.overdamped import Overdamped
from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.runtime.short_repr import ShortRepr

# A gap between modes, of their distance from the target, in which a count can stand.
_GAP = 1e-6

# Searches for what a count says is missing.
_REPAIRS = 3

# Eigenvalues are imaginary with real parts below the one part of them, not so above the other, and have an energy
# above the third.
_ON_AXIS, _OFF_AXIS, _TOLD = 1e-7, 1e-4, 1e-4


@dataclass(frozen=True, repr=False)
class ModeCount(ShortRepr):
    """What is proven of the number of modes.

    *Not collective*; the same on every rank.

    Attributes
    ----------
    how
        `inertia`: counted in an interval; `all`: not counted, but all eigenvalues of few rows were computed by
        LAPACK; `none`: neither.
    line
        `imaginary`: λ = iω were counted, `real`: real λ; None where nothing was.
    interval
        (low, high) of frequencies ω, or of λ, in rad per unit of time; None where nothing was counted.
    counted, found
        How many modes the inertia has there, and how many were found there; None where nothing was counted.
    certified
        Whether the two agree, with a margin above 10.
    margin
        Distance of the ends to the nearest eigenvalue over how far the measured backward error of the
        factorizations can move it; None where nothing was counted, or the end is zero by the sign of K alone.
    reason
        Which law counts, or why none does.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.damped_modes(np.diag([1.0, 4.0, 9.0]), k=2) as found:
    ...     print(found.count.how, found.count.counted, found.count.certified)
    inertia 2 True
    """

    how: str
    line: str | None
    interval: tuple[float, float] | None
    counted: int | None
    found: int | None
    certified: bool
    margin: float | None
    reason: str

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield self.in_short

    @property
    def in_short(self) -> str:
        """The verdict in words."""
        if self.interval is None:
            return "all computed" if self.how == "all" else "not counted"
        place = f"in ({self.interval[0]:.6g}, {self.interval[1]:.6g})"
        place += " of real ones" if self.line == "real" else ""
        return f"certified {place}" if self.certified else f"NOT certified: {self.found} of {self.counted} {place}"

    def facts(self) -> dict[str, Any]:
        """Return the count as JSON. Not collective."""
        told = {
            name: getattr(self, name)
            for name in ("how", "line", "counted", "found", "certified", "margin", "reason")
        }
        return told | {"interval": None if self.interval is None else list(self.interval)}


class _End(NamedTuple):
    """How many eigenvalues the Hermitian matrix at an end has below zero, and how safe that is."""

    negative: int
    margin: float


def count_modes(
    matrices: QuadraticMatrices, search: ModeSearch, target: complex, wanted: int | None, radius: float | None
) -> tuple[int, ModeCount]:
    """Count near a target, in scaled units, and look for what is missing; return how many modes are asked for.

    Collective. With a radius all that are in it are asked for.
    """
    found = search.found
    reason, count = why_uncounted(matrices, target), None
    if not reason:
        missing = _find_negative_ones(matrices, search)
        reason = missing or reason
        if not missing:
            count = _count_on_axis(matrices, search, target.imag, wanted, radius)
    elif target.imag == 0 and matrices.damped and len(found.pool.values) and not found.pool.values.imag.any():
        overdamped = Overdamped.of(matrices, found.pool.vectors.real)
        if overdamped is not None:
            count = _count_real(matrices, overdamped, search, target.real, wanted, radius)
    distances = np.abs(found.pool.values - target)
    if radius is not None:
        wanted = int(np.count_nonzero(distances <= radius))
    elif found.reach == np.inf:
        wanted = min(wanted or 0, len(distances) + len(found.pool.refused))
    if count is None:
        if found.method == "lapack":
            reason += f"; all finite ones of the {matrices.n} rows were computed"
            return wanted or 0, ModeCount("all", None, None, None, None, False, None, reason)
        return wanted or 0, ModeCount("none", None, None, None, None, False, None, reason)
    if found.resistance.doubtful:
        # Their λ are not known to be zero, and need not be outside of the interval.
        reason = (
            "K, which is positive semidefinite to the accuracy of its rows, has motions that may be rigid or not"
        )
        count = replace(count, certified=False, reason=reason)
    return wanted or 0, count


def why_uncounted(matrices: QuadraticMatrices, target: complex) -> str:
    """Return why no law of inertia counts modes, empty where one does. Not collective."""
    if matrices.circulatory:
        return "with a circulatory matrix eigenvalues are anywhere, and no law of inertia counts them"
    if matrices.damped:
        return "with damping eigenvalues are complex, and no law of inertia counts them"
    if matrices.stiffness_signs.negative and (matrices.stiffness_signs.zero or matrices.massless):
        return "K has negative eigenvalues, and K or M null vectors"
    if target.real:
        return "the target is off the imaginary axis, on which all eigenvalues lie"
    return ""


def _count_on_axis(
    matrices: QuadraticMatrices, search: ModeSearch, target: float, wanted: int | None, radius: float | None
) -> ModeCount:
    """Return the count of λ = iω, nothing dissipating and K semidefinite. Collective."""
    places = np.sort(search.found.pool.values.imag)
    away = _edge(np.sort(np.abs(places - target)), wanted or 0, search.found.reach) if radius is None else radius
    low, high = target - away, target + away
    signs = matrices.stiffness_signs
    if low <= 0:
        # Where K is not singular its inertia counts at zero. Else just above, past what rigid motions bring.
        low = 0.0 if not signs.zero else 0.5 * min(places[0] if len(places) else high, high)
    ends = [_End(signs.negative, np.inf) if low == 0 else _negative(matrices, low), _negative(matrices, high)]

    def inside() -> np.ndarray:
        values = search.found.pool.values
        return is_on_axis(values) & (values.imag > low) & (values.imag < high)

    # Those of negative energy rise through zero, and all of them are known.
    counted = ends[1].negative - ends[0].negative + 2 * int((energies(matrices, search)[inside()] < 0).sum())
    for repair in range(_REPAIRS + 1):
        found = int(inside().sum())
        if found >= counted or repair == _REPAIRS:
            break
        search.again(counted - found, 1009 * (repair + 1))
    margin, complete = min(end.margin for end in ends), True
    reason = "nothing dissipates, K is positive definite"
    if signs.negative:
        reason = f"nothing dissipates, and all that the {signs.negative} negative eigenvalues of K bring was found"
    elif signs.zero:
        reason = "nothing dissipates, K is positive semidefinite to the accuracy of its rows"
        complete = low == 0 or target - away > 0 or 2 * ends[0].negative == search.found.zeros
        if not complete:
            reason += "; more modes are below the interval"
    return ModeCount(
        how="inertia",
        line="imaginary",
        interval=(low * matrices.unit, high * matrices.unit),
        counted=counted,
        found=found,
        certified=bool(found == counted and margin > SAFE and complete),
        margin=margin if np.isfinite(margin) else None,
        reason=reason,
    )


def is_on_axis(values: np.ndarray) -> np.ndarray:
    """Return which eigenvalues are imaginary, to rounding. Not collective."""
    return np.abs(values.real) <= _ON_AXIS * np.abs(values)


def energies(matrices: QuadraticMatrices, search: ModeSearch) -> np.ndarray:
    """Return (m,) (ω² xᴴMx + xᴴKx) over the size of its terms of the modes found, from -1 to 1. Collective.

    Where K is semidefinite they are ones.
    """
    pool = search.found.pool
    if matrices.resists:
        return np.ones(len(pool.values))
    K, _, M = matrices.images(pool.vectors)
    own = np.stack([np.sum(pool.vectors.conj() * image, axis=0).real for image in (K, M)])
    k, m = matrices.layout.comm.allreduce(own)
    kinetic = np.abs(pool.values) ** 2 * m
    return (kinetic + k) / (kinetic + np.abs(k))


def _find_negative_ones(matrices: QuadraticMatrices, search: ModeSearch) -> str:
    """Look for all modes of negative energy; return why they are not known to be all, empty where they are.

    Collective. The energy ẋᴴMẋ + xᴴKx has as many negative squares as K has negative eigenvalues. Each imaginary
    λ of negative energy takes one, each two others, λ and -λ̄, take one (Gohberg, Lancaster and Rodman 2005,
    "Indefinite linear algebra and applications", theorem 5.1.1 and its consequences). When all are taken, all
    other eigenvalues are imaginary, and of positive energy.
    """
    negative = matrices.stiffness_signs.negative
    taken = 0.0
    for look in range(_REPAIRS + 1 if negative else 0):
        values, energy = search.found.pool.values, energies(matrices, search)
        on = is_on_axis(values)
        if (on & (np.abs(energy) < _TOLD)).any() or (
            (np.abs(values.real) < _OFF_AXIS * np.abs(values)) & ~on
        ).any():
            return (
                "K has negative eigenvalues, and modes are at the edge of stability, where their sign is not told"
            )
        each = np.where(values.imag > 0, 1.0, 0.5)  # of a pair of conjugates, or of one that is real
        taken = float(np.where(on, 2.0 * (energy < 0), each).sum())
        if taken >= negative:
            break
        if look < _REPAIRS and search.found.reach < np.inf:
            search.again(negative, 997 * (look + 1))
    if taken == negative:
        return ""
    return (
        f"K has {negative} negative eigenvalues, and modes that take {taken:g} of them were found: an inertia "
        "subtracts them from the others; a larger k may find all"
    )


def _count_real(
    matrices: QuadraticMatrices,
    overdamped: Overdamped,
    search: ModeSearch,
    target: float,
    wanted: int | None,
    radius: float | None,
) -> ModeCount:
    """Return the count of real λ of an overdamped structure. Collective."""
    values = search.found.pool.values
    away = radius
    if away is None:
        away = _edge(np.sort(np.abs(values - target)), wanted or 0, search.found.reach)
    low, high = target - away, target + away
    ends = overdamped.below(low), overdamped.below(high)
    counted = ends[1].below - ends[0].below - (search.found.zeros if low < 0 < high else 0)
    for repair in range(_REPAIRS + 1):
        values = search.found.pool.values.real
        found = int(((values > low) & (values < high)).sum())
        if found >= counted or repair == _REPAIRS:
            break
        search.again(counted - found, 1009 * (repair + 1))
    margin = min(end.margin for end in ends)
    return ModeCount(
        how="inertia",
        line="real",
        interval=(low * matrices.unit, high * matrices.unit),
        counted=counted,
        found=found,
        certified=bool(found == counted and margin > SAFE),
        margin=margin if np.isfinite(margin) else None,
        reason=f"overdamped: λ²M + λC + K is negative at λ = {overdamped.middle * matrices.unit:.4g}",
    )


def _edge(distances: np.ndarray, wanted: int, reach: float) -> float:
    """Return a distance past the wanted modes, in a gap. Not collective."""
    there = min(wanted, len(distances))
    if not there:
        return reach if np.isfinite(reach) else 1.0
    for place in range(there - 1, len(distances) - 1):
        width = distances[place + 1] - distances[place]
        if width > _GAP * distances[place + 1]:
            return float(distances[place] + 0.5 * width)
    last = float(distances[-1])
    return min(1.5 * last, max(reach, last * (1 + 2 * _GAP))) if np.isfinite(reach) else 1.5 * last


def _negative(matrices: QuadraticMatrices, place: float) -> _End:
    """Return how many eigenvalues of the Hermitian Q(iω) = K - ω²M + iωG are below zero. Collective.

    Its real form has each of them twice.
    """
    if matrices.gyroscopic:
        A = matrices.doubled(matrices.k + 1j * place * matrices.v, symmetric=True)
        M = matrices.doubled(matrices.m + 0j, symmetric=True)
    else:
        A, M = matrices.matrix(matrices.k, True), matrices.matrix(matrices.m, True)
    with EigenProblem(A=A, M=M, null=[], owned=[A, M]) as problem:
        problem.__dict__["massless"] = 0  # pivots of infinite eigenvalues belong to the inertia, too
        counter = KrylovSchur(problem.equilibrated, True, {}, tol=1e-8)
        try:
            pivots = counter.shift_to(float(np.ldexp(place**2, -problem.scales.power)))
            margin = counter.margin() if pivots.zero == 0 else 0.0
        finally:
            counter.close()
    each = 2 if matrices.gyroscopic else 1
    return _End(pivots.negative // each, margin if pivots.negative % each == 0 else 0.0)
