"""Traces and diagonals of functions of a Hessian, by what its structure tells: the first way that is open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sparsehess.operators.eigenvalues import moved_by
from sparsehess.operators.structure import Exact, Spectral, Structure
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from mpi4py import MPI

_EPS = float(np.finfo(float).eps)

# What stands for infinity in sums of squares, and how much of it is left where it counts.
_ALL, _LEAST_LEFT = 1e200, 1e-60

# Moved by more than this a log-determinant is that of what may be singular.
_MOST_OF_LOGDET = 0.1

Answer = TypeVar("Answer")


def _first(f: Spectral, *ways: Callable[[Spectral], Answer | None]) -> Answer | None:
    """Return what the first way tells that tells anything. Collective."""
    return next((found for found in (way(f) for way in ways) if found is not None), None)


class ExactFunctions(Structure, ABC):
    """Answers doors with what a structured Hessian knows of itself. *Collective* to ask."""

    layout: Layout

    @property
    @abstractmethod
    def comm(self) -> MPI.Comm:
        """The ranks. Not collective."""

    @abstractmethod
    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,). Collective."""

    @property
    @abstractmethod
    def diagonal_is_exact(self) -> bool:
        """Whether `diagonal` is no estimate. Collective."""

    @abstractmethod
    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved the diagonal. Collective."""

    @abstractmethod
    def trace(self) -> float:
        """Return the trace. Collective."""

    @abstractmethod
    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> Any:
        """Return f(H), where all eigenvalues are known. Collective."""

    @abstractmethod
    def inverse_diagonal(self, shift: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the diagonal of (H + shift I)⁻¹ and its rounding, or None. Collective."""

    @abstractmethod
    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|. Collective."""

    def total(self, f: Spectral) -> Exact[float] | None:
        """Return the trace of f(H), the sum of f over all eigenvalues; None where nothing tells it.

        Collective.
        """
        return _first(f, self._total_of_diagonal, self._total_by_shifts, self._total_of_eigenvalues)

    def entries(self, f: Spectral) -> Exact[np.ndarray] | None:
        """Return the diagonal (n_local,) of f(H); None where nothing tells it.

        Collective.
        """
        return _first(f, self._own_diagonal, self._entries_by_shifts, self._entries_of_function)

    def _own_diagonal(self, f: Spectral) -> Exact[np.ndarray] | None:
        if not (f.linear and self.diagonal_is_exact):
            return None
        return Exact(self.diagonal(), self.diagonal_rounding(), "the diagonal that the structure has")

    def _total_of_diagonal(self, f: Spectral) -> Exact[float] | None:
        if not (f.linear and self.diagonal_is_exact):
            return None
        rounding = self.comm.allreduce(float(self.diagonal_rounding().sum()))
        return Exact(self.trace(), rounding, "the trace that the structure has")

    def _total_of_eigenvalues(self, f: Spectral) -> Exact[float] | None:
        if not self.knows_eigenvalues:
            return None
        every = self.eigenvalues()
        value = every.total(f)
        rounding = every.moved(f.call, f.above) + _EPS * abs(value)
        return Exact(value, rounding, "all eigenvalues, which the structure tells")

    def _entries_of_function(self, f: Spectral) -> Exact[np.ndarray] | None:
        """Of x = Σ q √|f'| an error E of H moves xᵀEx, which is no more than what all eigenvalues move."""
        if not (self.knows_eigenvalues and self.diagonal_is_exact):
            return None
        size = self.eigenvalues().largest()

        def moved(values: np.ndarray) -> np.ndarray:
            errors = np.full(len(values), _EPS * self._size_for(values, size))
            return np.minimum(moved_by(f.call, f.above, values, errors), _ALL)

        with self.function(f) as exact, self.function(moved) as error:
            value, rounding = exact.diagonal(), error.diagonal()
        rounding = np.where(rounding < _LEAST_LEFT * _ALL, rounding, np.inf) + _EPS * np.abs(value)
        return Exact(value, rounding, "a function of the structure, with its eigenvectors")

    def _size_for(self, values: np.ndarray, largest: float) -> float:
        """Return the size beside which some of the eigenvalues were rounded. Not collective."""
        return largest

    def _entries_by_shifts(self, f: Spectral) -> Exact[np.ndarray] | None:
        """Of a + b / (λ + shift), whose domain ends where the shifted matrix is singular."""
        if f.resolvent is None or not self.knows_signs:
            return None
        constant, factor, shift = f.resolvent
        self._refuse_outside(f, shift)
        found = self.inverse_diagonal(shift)
        if found is None:
            return None
        value, rounding = (factor * found[0] + constant, abs(factor) * found[1])
        return Exact(value, rounding, "the inverse that the structure has")

    def _refuse_outside(self, f: Spectral, shift: float) -> None:
        """Raise InputError where H + shift I has negative eigenvalues: there f has no values. Collective."""
        if self.negative(shift):
            f(np.array([f.above if not self.knows_counts else min(float(self.spectrum(1)[0]), f.above)]))

    def negative(self, shift: float = 0.0) -> int:
        """Return how many eigenvalues of H + shift I are negative, judged beside their rows where these are known.

        Collective.
        """
        return self.count(-shift)

    def _row_sizes(self) -> np.ndarray:
        """Return (n_local,) beside what the entries of a row are rounded. Collective."""
        return np.full(self.layout.n_local, float(np.abs(self.spectrum(1, "magnitude")).max(initial=0.0)))

    def _total_by_shifts(self, f: Spectral) -> Exact[float] | None:
        if f.name == "logdet" and self.knows_signs:
            self._refuse_outside(f, 0.0)
            found = self.inverse_diagonal(0.0)
            if found is None:
                return None
            value = self.logdet()
            with np.errstate(all="ignore"):  # infinite where it is singular
                inverse = self.comm.allreduce(float(np.abs(found[0]) @ self._row_sizes()))
            told = np.isfinite(value) and inverse < _MOST_OF_LOGDET / _EPS
            moved = _EPS * (inverse + abs(value)) if told else np.inf
            return Exact(value, moved, "the determinant that the structure has")
        entries = self._entries_by_shifts(f)
        if entries is None:
            return None
        own = np.array([entries.value.sum(), entries.rounding.sum()])
        value, rounding = (float(number) for number in np.asarray(self.comm.allreduce(own)))
        return Exact(value, rounding, entries.why)
