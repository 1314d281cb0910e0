"""How many modes there are, by inertia where a law of inertia holds, and why not where none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.mechanics.mode_search import ModeSearch
from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.runtime.short_repr import ShortRepr

# A gap between modes, of their distance from the target, in which a count can stand.
_GAP = 1e-6

# Searches for what a count says is missing.
_REPAIRS = 3


@dataclass(frozen=True, repr=False)
class ModeCount(ShortRepr):
    """What is proven of the number of modes.

    *Not collective*; the same on every rank.

    Attributes
    ----------
    how
        `inertia`: counted in an interval; `all`: not counted, but all eigenvalues of few rows were computed by
        LAPACK; `none`: neither.
    interval
        (low, high) of frequencies in rad per unit of time; None where nothing was counted.
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
        return f"certified {place}" if self.certified else f"NOT certified: {self.found} of {self.counted} {place}"

    def facts(self) -> dict[str, Any]:
        """Return the count as JSON. Not collective."""
        told = {name: getattr(self, name) for name in ("how", "counted", "found", "certified", "margin", "reason")}
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
    reason = why_uncounted(matrices, target)
    count = None if reason else _count_on_axis(matrices, search, target.imag, wanted, radius)
    distances = np.abs(found.pool.values - target)
    if radius is not None:
        wanted = int(np.count_nonzero(distances <= radius))
    elif found.reach == np.inf:
        wanted = min(wanted or 0, len(distances))
    if count is None:
        if found.method == "lapack":
            reason += f"; all finite ones of the {matrices.n} rows were computed"
            return wanted or 0, ModeCount("all", None, None, None, False, None, reason)
        return wanted or 0, ModeCount("none", None, None, None, False, None, reason)
    return wanted or 0, count


def why_uncounted(matrices: QuadraticMatrices, target: complex) -> str:
    """Return why no law of inertia counts modes, empty where one does. Not collective."""
    if matrices.circulatory:
        return "with a circulatory matrix eigenvalues are anywhere, and no law of inertia counts them"
    if matrices.damped:
        return "with damping eigenvalues are complex, and no law of inertia counts them"
    if matrices.stiffness_signs.negative:
        return "K has negative eigenvalues, and modes of both signs, which an inertia subtracts from each other"
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
    if low <= 0:
        # Where K is definite none is below zero there. Else just above it, past what rigid motions bring.
        low = 0.0 if not matrices.stiffness_signs.zero else 0.5 * min(places[0] if len(places) else high, high)
    ends = [_End(0, np.inf) if low == 0 else _negative(matrices, low), _negative(matrices, high)]
    counted = ends[1].negative - ends[0].negative
    for repair in range(_REPAIRS + 1):
        inside = int(
            np.count_nonzero((search.found.pool.values.imag > low) & (search.found.pool.values.imag < high))
        )
        if inside >= counted or repair == _REPAIRS:
            break
        search.again(counted - inside, 1009 * (repair + 1))
    margin, complete = min(end.margin for end in ends), True
    reason = "nothing dissipates, K is positive definite"
    if matrices.stiffness_signs.zero:
        reason = "nothing dissipates, K is positive semidefinite"
        complete = low == 0 or target - away > 0 or 2 * ends[0].negative == search.found.zeros
        if not complete:
            reason += "; more modes are below the interval"
    return ModeCount(
        how="inertia",
        interval=(low * matrices.unit, high * matrices.unit),
        counted=counted,
        found=inside,
        certified=bool(inside == counted and margin > SAFE and complete),
        margin=margin if np.isfinite(margin) else None,
        reason=reason,
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
