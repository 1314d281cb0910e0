"""`DampedModes`: complex frequencies, damping ratios, what grows, and which way modes whirl."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sparsehess.mechanics.mode_counts import ModeCount
from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.short_repr import ShortRepr, number_of

# Real parts this small, of |λ|, are not told from zero where nothing else says how far rounding moves them.
_NEUTRAL = 1e-8

# What G does to a mode, of what it could do, above which it is told.
_WHIRLS = 1e-6


class Stability(NamedTuple):
    """How many modes grow at most, by the signs of the matrices.

    Attributes
    ----------
    most
        No more eigenvalues than this have Re λ > 0; None where no theorem tells.
    reason
        Which theorem, or why there is none.
    """

    most: int | None
    reason: str


def find_stability(matrices: QuadraticMatrices) -> Stability:
    """Return how many modes can grow. Not collective.

    Of (λ²m + λ(c + ig) + k) = 0, the products of a vector, Re λ (m + k/|λ|²) = -c. So nothing grows with k, c ≥ 0;
    and where K has p negative eigenvalues, p of Re λ > 0 become no more while G is added, as none crosses the axis
    (Kelvin, Tait and Chetaev; Zajac 1964, "The Kelvin-Tait-Chetaev theorem and extensions").
    """
    if matrices.circulatory:
        return Stability(None, "the circulatory matrix N may feed any mode")
    if not matrices.dissipates:
        negative = matrices.damping_signs.negative
        return Stability(None, f"C has {number_of(negative, 'negative eigenvalue')}, which feed the motion")
    negative, zero, _ = matrices.stiffness_signs
    if not negative:
        known = " to the accuracy of its rows" if zero else ""
        if not matrices.damped:
            return Stability(0, f"K is positive semidefinite{known}, and nothing dissipates")
        return Stability(0, f"K and C are positive semidefinite{', K' + known if zero else ''}")
    if matrices.massless:
        return Stability(None, f"K has {number_of(negative, 'negative eigenvalue')}, and M null vectors")
    # What rows do not tell from zero may be negative, too.
    unknown = f", {zero} more that may be" if zero else ""
    return Stability(negative + zero, f"K has {number_of(negative, 'negative eigenvalue')}{unknown}, and C none")


@dataclass(frozen=True, eq=False, repr=False)
class DampedModes(ShortRepr):
    """Eigenvalues λ and modes x of (λ²M + λ(C + G) + K + N) x = 0, one of each pair of conjugates.

    *Collective* to make, by `damped_modes`, and to close. A context manager; `close()` destroys the modes.

    Attributes
    ----------
    eigenvalues
        (k,) complex, Im λ ≥ 0, by size, the same on every rank; in rad per unit of time.
    real, imaginary
        k Vecs each: the parts of the modes, whose largest entry in size is one.
    residuals
        (k,) backward errors |Q(λ)x| / |Wx| in a scaling in which all rows are alike, W the sums of the rows of
        |λ|²|M| + |λ||C + G| + |K + N|.
    resolutions
        (k,) how far the last digits of the entries can move each λ, to first order; NaN where it is not known: of
        matrices that are not all symmetric, with damping.
    doubts
        (k,) how far the last digits move the root of xᴴQ(λ)x = 0: known of all matrices, often less than of λ.
    turning
        (k,) xᴴ(iG)x over the size of its terms, from -1 to 1: above zero where G raises the frequency.
    count
        What was counted, and why not where it was not.
    stability
        How many modes can grow, by the signs of the matrices.
    rigid
        Motions that K does not resist. λ = 0 is an eigenvalue for them `zeros` times, twice for each that nothing
        damps; it is not in `eigenvalues`.
    zeros
        See `rigid`.
    rigid_bound
        |λ| that rigid motions may have all the same, to first order, by what K makes of them and its last digits;
        0 where there are none.
    asked
        How many were sought: fewer than the k of the request where no more exist.
    target, radius
        As asked for, with Im ≥ 0.
    method
        `toar`, or `lapack` where all eigenvalues of few rows were computed.
    shift
        σ of the factorization of Q(σ).
    shortfall
        Why the answer is not complete or does not agree with its count; empty where it does.
    timings
        Seconds of `solve`, `certificate`, `total`.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> K, G = np.diag([4.0, 4.0]), np.array([[0.0, 3.0], [-3.0, 0.0]])  # a gyroscope
    >>> with sh.damped_modes(K, gyroscopic=G) as found:
    ...     print(found.frequencies, found.whirl, found.count.certified)
    [1. 4.] ['backward', 'forward'] True
    """

    eigenvalues: np.ndarray
    real: list[PETSc.Vec]
    imaginary: list[PETSc.Vec]
    residuals: np.ndarray
    resolutions: np.ndarray
    doubts: np.ndarray
    turning: np.ndarray
    count: ModeCount
    stability: Stability
    rigid: int
    zeros: int
    rigid_bound: float
    asked: int
    target: complex
    radius: float | None
    method: str
    shift: complex
    shortfall: str
    timings: dict[str, float] = field(default_factory=dict)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        values = self.eigenvalues
        if len(values):
            yield f"{number_of(len(values), 'mode')}, the first at {values[0].real:.4g}{values[0].imag:+.4g}i"
        else:
            yield "no mode"
        yield self.count.in_short
        if self.grows.any():
            yield f"{int(self.grows.sum())} grow"
        if len(self.real) < len(values):
            yield "closed"

    @property
    def frequencies(self) -> np.ndarray:
        """(k,) Im λ, in rad per unit of time: zero of what does not swing. Not collective."""
        return self.eigenvalues.imag.copy()

    @property
    def damping_ratios(self) -> np.ndarray:
        """(k,) -Re λ / |λ|: 1 of what does not swing, negative of what grows. Not collective."""
        sizes = np.abs(self.eigenvalues)
        return np.divide(-self.eigenvalues.real, sizes, out=np.zeros(len(sizes)), where=sizes > 0) + 0.0

    @property
    def grows(self) -> np.ndarray:
        """(k,) whether Re λ is above zero by more than rounding can make of it. Not collective."""
        # The signs of matrices are known to the accuracy of their rows: a mode that grows by more than that does.
        unknown = self.doubts if self.stability.most != 0 else np.inf
        off = 10 * np.where(np.isnan(self.resolutions), unknown, self.resolutions)
        return self.eigenvalues.real > np.maximum(off, _NEUTRAL * np.abs(self.eigenvalues))

    @property
    def whirl(self) -> list[str]:
        """For each mode `forward` where G raises its frequency, `backward` where it lowers it, else nothing.

        Not collective. Of a rotor seen at rest, with G of its gyroscopic moments, it is the direction in which the
        mode turns, with the spin or against it.
        """
        turning = np.where(self.frequencies > 0, self.turning, 0.0)
        return ["forward" if one > _WHIRLS else "backward" if one < -_WHIRLS else "" for one in turning]

    def facts(self) -> dict[str, Any]:
        """Return what is known beside the modes, as JSON. Not collective."""
        known = np.isfinite(self.resolutions)
        return {
            "k": self.asked,
            "target": [self.target.real, self.target.imag],
            "radius": self.radius,
            "method": self.method,
            "shift": [self.shift.real, self.shift.imag],
            "eigenvalues": [[value.real, value.imag] for value in self.eigenvalues.tolist()],
            "damping_ratios": self.damping_ratios.tolist(),
            "grows": self.grows.tolist(),
            "whirl": [one or None for one in self.whirl],
            "residuals": self.residuals.tolist(),
            "resolution": self.resolutions.tolist() if known.all() else None,
            "doubts": [one if np.isfinite(one) else None for one in self.doubts.tolist()],
            "count": self.count.facts(),
            "stability": self.stability._asdict(),
            "rigid": self.rigid,
            "zeros": self.zeros,
            "rigid_bound": self.rigid_bound if self.rigid else None,
            "shortfall": self.shortfall or None,
        }

    def close(self) -> None:
        """Destroy the modes.

        Collective.
        """
        destroy(*self.real, *self.imaginary)
        self.real.clear()
        self.imaginary.clear()

    def __enter__(self) -> DampedModes:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy the modes. Collective."""
        self.close()
