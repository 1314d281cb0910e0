"""Whether (H + shift I) x = b has been solved: refinement, and the residual and the condition that decide.

Every `Operator.solve` ends here, whichever structure has made the solution.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError, NotConverged
from sparsehess.operators.tall_skinny_qr import sum_over_ranks
from sparsehess.runtime.random_numbers import draw_uniform

if TYPE_CHECKING:
    from sparsehess.runtime.row_layout import Layout

    Map = Callable[[np.ndarray], np.ndarray]

_EPS = float(np.finfo(float).eps)

# A solution is one where what is left of the right-hand side is no more than this part of it, with what rounding
# the solution leaves: whoever multiplies in another order finds no more.
ACCEPTED = 1e-6

# Below this part of the largest an eigenvalue is what rounding leaves of zero, on whatever number of ranks:
# solutions are not unique, and least squares leaves its eigenvector out.
ROUNDING = 100 * _EPS

# Steps of refinement at most; each gains what the last has lost. A residual of so many roundings needs none.
_STEPS, _DONE = 3, 8 * _EPS

# Part of the gradient of a least-squares residual that may be left: more are eigenvalues just above rounding.
_GRADIENT = 1e-9

# What scaling is to make of a condition to be what is judged by.
_BETTER = 1e-2

# Steps of the power method for the two norms of a condition number: a factor of two is near enough for the larger
# one, and of a nearly singular matrix the other one is there after two.
_FORTH, _BACK = 8, 3

# Seed of the vectors that conditions are estimated with.
_SEED = 29


class Solver(Protocol):
    """What is judged: an `Operator`, as far as that matters here. Collective to use."""

    layout: Layout

    @property
    def solves_directly(self) -> bool:
        """Whether solutions are by no iterations."""

    def product(self, vector: np.ndarray, /) -> np.ndarray:
        """Return H v (n_local,)."""

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,)."""

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray: ...

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray: ...


class System:
    """H + shift I, with what is needed to judge solutions; its norms are kept for the next one.

    *Collective* to make and to use. A system is judged as it is and, where that is refused, once more with its
    variables scaled to a diagonal of ones, if this makes the condition far less: units make no system singular.
    Its size is no less than the shift: what is left of H and a shift that cancel is rounding, however well
    conditioned that may look.

    Parameters
    ----------
    operator
        H, which lives longer.
    shift
        Added to the diagonal.
    """

    def __init__(self, operator: Solver, shift: float):
        self._operator, self.shift = operator, shift

    @property
    def _layout(self) -> Layout:
        return self._operator.layout

    def product(self, x: np.ndarray) -> np.ndarray:
        """Return (H + shift I) x (n_local, m).

        Collective.
        """
        out = self.shift * x
        for j in range(x.shape[1]):
            out[:, j] += self._operator.product(np.ascontiguousarray(x[:, j]))
        return out

    # --- solutions ---

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return the solution x (n_local, m), refined where the operator solves directly.

        Collective.

        Raises
        ------
        InputError
            The system is singular to rounding: the refined residual or the condition say so.
        """
        with np.errstate(all="ignore"):  # what is not finite has no residual that passes
            x = self._operator._solve(b, self.shift)
            rest = b - self.product(x)
            if not self._operator.solves_directly:
                worst, condition = self._residual(rest, b), self.condition_of(x, b)
                if not (worst <= ACCEPTED and condition <= 1 / ROUNDING):
                    raise refusal(self.shift, condition, worst)
                return x
            for _ in range(_STEPS):
                both = self._residual(rest, b), self._residual(rest, b, self._weights)
                if not (max(both) > _DONE and np.isfinite(both).all()):
                    break
                better = x + self._operator._solve(rest, self.shift)
                left = b - self.product(better)
                if not self._residual(left, b) * self._residual(left, b, self._weights) < both[0] * both[1]:
                    break
                x, rest = better, left
            condition, worst = self._condition, self._residual(rest, b) + self._rounding(x, b, self._size)
            if not (worst <= ACCEPTED and condition <= 1 / ROUNDING):
                if self._scaled_condition < _BETTER * condition:
                    W, condition = self._weights, self._scaled_condition
                    worst = self._residual(rest, b, W) + self._rounding(x / W, W * b, self._scaled_size)
                if not (worst <= ACCEPTED and condition <= 1 / ROUNDING):
                    raise refusal(self.shift, condition, worst)
        return x

    def least_squares(self, b: np.ndarray) -> np.ndarray:
        """Return the x (n_local, m) of least norm of those that leave the least residual.

        Collective. The solution, where there is one alone.

        Raises
        ------
        InputError
            What the operator has found leaves more.
        """
        with suppress(InputError, NotConverged):  # the same on every rank
            if self._operator.solves_directly:
                return self.solve(b)
        with np.errstate(all="ignore"):
            x, right = self._operator._least_squares(b, self.shift), self._lengths(self.product(b))
            floor = ROUNDING * self._size * self._lengths(b)
            allowed = _GRADIENT * right + floor
            rest = b - self.product(x)
            left = self._lengths(self.product(rest))
            for _ in range(_STEPS if self._operator.solves_directly else 0):
                if (left <= floor).all():
                    break
                better = x + self._operator._least_squares(rest, self.shift)
                rest = b - self.product(better)
                now = self._lengths(self.product(rest))
                if not (np.max(now, initial=0.0) < np.max(left, initial=0.0)):
                    break
                x, left = better, now
            if not (left <= allowed).all():
                worst = float(np.max(left / right, initial=0.0))
                raise InputError(
                    f"the least-squares solution with {self.shift:g} on the diagonal leaves {worst:.1e} of the "
                    f"gradient of its residual, more than {_GRADIENT:g}: eigenvalues just above rounding keep it "
                    "from being found; take another shift"
                )
        return x

    def takes(self, b: np.ndarray) -> np.ndarray:
        """Return which columns (m,) are null vectors to rounding.

        Collective.
        """
        return self._lengths(self.product(b)) <= ROUNDING * self._size * self._lengths(b)

    def condition_of(self, x: np.ndarray, b: np.ndarray) -> float:
        """Return what a solution shows of the condition, which is no less.

        Collective.
        """
        with np.errstate(all="ignore"):
            return float(np.max(self._size * self._lengths(x) / self._lengths(b), initial=1.0))

    def _residual(self, rest: np.ndarray, b: np.ndarray, weights: np.ndarray | float = 1.0) -> float:
        """Return which part of b is left, at the worst column; NaN where that is no number."""
        left, size = self._lengths(weights * rest), self._lengths(weights * b)
        return float(np.max(np.where((left == 0) & (size == 0), 0.0, left / size), initial=0.0))

    def _rounding(self, x: np.ndarray, b: np.ndarray, size: float) -> float:
        """Return which part of b rounding x leaves, at the worst column."""
        length = self._lengths(x)
        return float(
            np.max(np.where(length == 0, 0.0, 0.5 * _EPS * size * length / self._lengths(b)), initial=0.0)
        )

    # --- norms ---

    @property
    def condition(self) -> float:
        """About the condition number; infinite where that is no number. Collective the first time."""
        with np.errstate(all="ignore"), suppress(InputError):  # of a factorization, the same on every rank
            return self._condition
        return np.inf

    @property
    def judged(self) -> tuple[np.ndarray, float]:
        """(n_local,) what variables are scaled by to be judged, and about the condition then.

        Collective the first time.
        """
        with np.errstate(all="ignore"):
            if self._condition > 1 / ROUNDING and self._scaled_condition < _BETTER * self._condition:
                return self._weights[:, 0], self._scaled_condition
        return np.ones(self._layout.n_local), self._condition

    @cached_property
    def _weights(self) -> np.ndarray:
        """What scales the diagonal to ones, (n_local, 1), where it is not zero."""
        diagonal = np.abs(self._operator.diagonal() + self.shift)
        largest = self._layout.comm.allreduce(float(diagonal.max(initial=0.0)), op=MPI.MAX)
        return 1 / np.sqrt(np.where(diagonal > 0, diagonal, largest or 1.0))[:, None]

    @cached_property
    def _size(self) -> float:
        return max(self._power(self.product, _FORTH), abs(self.shift))

    @cached_property
    def _scaled_size(self) -> float:
        W = self._weights
        cancelled = abs(self.shift) * self._layout.comm.allreduce(float(np.square(W).max(initial=0.0)), op=MPI.MAX)
        return max(self._power(lambda x: W * self.product(W * x), _FORTH), cancelled)

    @cached_property
    def _condition(self) -> float:
        """The condition as it is; infinite where that is no number."""
        found = self._size * self._power(self._inverse, _BACK)
        return np.inf if np.isnan(found) else found

    @cached_property
    def _scaled_condition(self) -> float:
        """The condition with a diagonal of ones; infinite where that is no number."""
        W = self._weights
        found = self._scaled_size * self._power(lambda x: self._inverse(x / W) / W, _BACK)
        return np.inf if np.isnan(found) else found

    def _inverse(self, b: np.ndarray) -> np.ndarray:
        return self._operator._solve(b, self.shift)

    def _power(self, apply: Map, steps: int) -> float:
        """Return a norm of a symmetric map by the power method, from below."""
        v = draw_uniform(self._layout, _SEED)[:, None]
        size = 1.0
        for _ in range(steps):
            v = apply(v / self._lengths(v))
            size = float(self._lengths(v)[0])
            if not 0 < size < np.inf:
                break
        return size

    def _lengths(self, columns: np.ndarray) -> np.ndarray:
        """Return the length of each column (m,), on every rank, without overflow."""
        comm = self._layout.comm
        largest = np.empty(columns.shape[1])
        comm.Allreduce(np.abs(columns).max(axis=0, initial=0.0), largest, op=MPI.MAX)
        finite = sum_over_ranks(comm, (~np.isfinite(columns)).sum(axis=0).astype(np.float64)) == 0
        scale = np.where((largest > 0) & finite, largest, 1.0)
        lengths = scale * np.sqrt(sum_over_ranks(comm, np.square(columns / scale).sum(axis=0)))
        return np.where(finite, lengths, np.nan)


class SystemOfParts(System):
    """H + shift I whose parts judge their own solutions: together they are no better and no worse."""

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return the solution x (n_local, m) of the parts.

        Collective.
        """
        return self._operator._solve(b, self.shift)

    def least_squares(self, b: np.ndarray) -> np.ndarray:
        """Return the x (n_local, m) of least norm of the parts.

        Collective.
        """
        return self._operator._least_squares(b, self.shift)


def refusal(shift: float, condition: float, residual: float | None = None) -> InputError:
    """Return what says that a system is singular to rounding, and what helps.

    Not collective.
    """
    large = f"is about {condition:.0e}" if np.isfinite(condition) else f"is more than {1 / _EPS:.0e}"
    left = "" if residual is None else f", and the refined solution leaves {residual:.1e} of the right-hand side"
    return InputError(
        f"the matrix with {shift:g} on its diagonal is singular to rounding: its condition {large}{left} (up to "
        f'{1 / ROUNDING:.0e} and {ACCEPTED:g} are taken); take another shift, or singular="least-squares" for '
        "the solution of least norm"
    )


def inverses(values: np.ndarray, largest: float) -> np.ndarray:
    """Return 1 / λ of eigenvalues for least squares: 0 of those that are rounding beside the largest.

    Not collective.
    """
    kept = np.abs(values) > ROUNDING * largest
    return np.where(kept, 1 / np.where(kept, values, 1.0), 0.0)
