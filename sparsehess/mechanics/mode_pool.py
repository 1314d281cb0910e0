"""Modes that searches have found, each once, with their backward errors; and what of them is a rigid motion."""

from __future__ import annotations

import numpy as np

from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.mechanics.quadratic_solver import Found

# Eigenvalues that differ by less than this part of themselves are the same where their vectors are.
_EQUAL = 1e-6

# A vector of such eigenvalues is another one if this part of it is outside of the span of those that are there.
_OUTSIDE = 0.1

# Eigenvalues are refined where twice their leading coefficient is not lost in rounding.
_SIMPLE = 1e-5

# How far refining moves an eigenvalue, of it.
_REFINED = 1e-3

# What is left of the terms of xᴴQ(λ)x of a mode.
_CANCELLED = 1e-3

_EPS = float(np.finfo(float).eps)


class ModePool:
    """Modes of a quadratic, in scaled units.

    Collective to change.

    Attributes
    ----------
    values
        (m,) λ with Im λ ≥ 0.
    vectors
        (n_local, m) complex, of length one.
    errors
        (m,) backward errors |Q(λ)x| / |W x|, W the sums of the rows of |λ|²|M| + |λ||V| + |K|: of the norm of a
        change of Q over those sums (Tisseur 2000, "Backward error and condition of polynomial eigenvalue
        problems", theorem 1, with weights).
    resolutions
        (m,) how far the last digits of the entries can move each λ, to first order; NaN where vectors from the
        left are not known.
    doubts
        (m,) how far they move the root of xᴴQ(λ)x = 0, whatever the vectors from the left are.
    whirl
        (m,) i xᴴGx over the size of its terms: above zero where G raises the frequency.
    refused
        λ of the last search whose backward error was too large.
    """

    def __init__(self, matrices: QuadraticMatrices):
        self._quadratic = matrices
        self.values = np.empty(0, complex)
        self.vectors = np.empty((matrices.layout.n_local, 0), complex)
        self.errors = self.resolutions = self.doubts = self.whirl = np.empty(0)
        self.refused = np.empty(0, complex)

    def add(self, found: Found, tol: float) -> int:
        """Add what is new of a search, to a backward error; return how much that is. Collective."""
        found = self._in_parts(found, tol)
        values, X = self._refined(found.values, self._normalized(found.vectors))
        errors, resolutions, doubts, whirl = self._judged(values, X)
        self.refused = values[~(errors <= tol)]
        sound = self._is_sound(found.values, X)  # before what is refined cancels by itself
        before, near = len(self.values), self._quadratic.layout.comm.allreduce(self.vectors.conj().T @ X)
        inner = self._quadratic.layout.comm.allreduce(X.conj().T @ X)
        mine = self._quadratic.layout.comm.allreduce(self.vectors.conj().T @ self.vectors)
        kept: list[int] = []
        for i in range(len(values)):
            if not (errors[i] <= tol and sound[i]):
                continue
            old = np.flatnonzero(np.abs(self.values - values[i]) <= _EQUAL * abs(values[i]))
            also = [] if found.first[i] and not len(old) else kept
            new = np.array([j for j in also if abs(values[j] - values[i]) <= _EQUAL * abs(values[i])], np.int64)
            across = near[np.ix_(old, new)]
            gram = np.block([[mine[np.ix_(old, old)], across], [across.conj().T, inner[np.ix_(new, new)]]])
            onto = np.concatenate([near[old, i], inner[new, i]])
            inside = float((onto.conj() @ np.linalg.lstsq(gram, onto, rcond=1e-8)[0]).real) if len(onto) else 0.0
            if 1 - inside > _OUTSIDE**2:
                kept.append(i)
        self.values = np.concatenate([self.values, values[kept]])
        self.vectors = np.concatenate([self.vectors, X[:, kept]], axis=1)
        self.errors = np.concatenate([self.errors, errors[kept]])
        self.resolutions = np.concatenate([self.resolutions, resolutions[kept]])
        self.doubts = np.concatenate([self.doubts, doubts[kept]])
        self.whirl = np.concatenate([self.whirl, whirl[kept]])
        return len(self.values) - before

    def select(self, chosen: np.ndarray) -> None:
        """Keep some modes, in an order, and drop the others. Not collective."""
        self.vectors = self.vectors[:, chosen]
        for name in ("values", "errors", "resolutions", "doubts", "whirl"):
            setattr(self, name, getattr(self, name)[chosen])

    def _in_parts(self, found: Found, tol: float) -> Found:
        """Return a search in which two real eigenvalues that are equal are no pair of conjugates. Collective.

        Of symmetric matrices. Rounding makes such a pair, and both parts of its vector are vectors then.
        """
        near = (found.values.imag > 0) & (found.values.imag <= _EQUAL * np.abs(found.values))
        if not self._quadratic.symmetric or not near.any():
            return found
        every = [
            self._normalized(part + 0j) for part in (found.vectors[:, near].real, found.vectors[:, near].imag)
        ]
        values = found.values[near].real + 0j
        errors = [self._judged(values, part)[0] for part in every]
        across = np.abs(self._quadratic.layout.comm.allreduce(np.sum(every[0].conj() * every[1], axis=0)))
        apart = (errors[0] <= tol) & (errors[1] <= tol) & (across < 1 - _OUTSIDE**2)
        kept = ~near
        kept[np.flatnonzero(near)[~apart]] = True
        return Found(
            np.concatenate([found.values[kept], values[apart], values[apart]]),
            np.concatenate([found.vectors[:, kept], *(part[:, apart] for part in every)], axis=1),
            np.concatenate([found.first[kept], np.zeros(2 * int(apart.sum()), bool)]),
            found.reach,
            found.finished,
        )

    def _normalized(self, X: np.ndarray) -> np.ndarray:
        sizes = np.sqrt(self._quadratic.layout.comm.allreduce(np.sum(np.abs(X) ** 2, axis=0)))
        return X / np.where(sizes > 0, sizes, 1.0)

    def _sums(self, X: np.ndarray, conjugate: bool) -> tuple[np.ndarray, ...]:
        """Return xᵀKx, xᵀVx, xᵀMx of columns, or those of xᴴ. Collective."""
        left = X.conj() if conjugate else X
        own = np.stack([np.sum(left * image, axis=0) for image in self._quadratic.images(X)])
        k, v, m = self._quadratic.layout.comm.allreduce(own)
        return k, v, m

    def _refined(self, values: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return eigenvalues to the second order of their vectors' errors, where vectors from the left are known.

        Collective. They are the conjugates of those from the right where all matrices are symmetric, and the same
        where λ is imaginary as nothing dissipates: xᵀQ(λ)x = 0, or xᴴQ(λ)x = 0.
        """
        conservative = self._quadratic.conservative and self._quadratic.resists
        if not len(values) or not (conservative or self._quadratic.symmetric):
            return values, X
        k, v, m = self._sums(X, conservative)
        if conservative:  # of k - ω²m + iωv, v imaginary: the root of ω above zero
            k, v, m = k.real, -v.imag, m.real
            roots = np.sqrt(np.maximum(v**2 + 4 * k * m, 0.0))
            # Without cancellation, and where m is zero too.
            below = np.where(v >= 0, 2 * m, roots - v)
            above = np.where(v >= 0, roots + v, 2 * k)
            good = (below > 0) & (above >= 0)
            better = 1j * np.divide(above, below, out=np.zeros_like(above), where=good)
            # What is zero to rounding has a vector of many.
            return np.where(good & (np.abs(better - values) <= _REFINED * np.abs(values)), better, values), X
        middle = np.sqrt(v**2 - 4 * m * k)
        better = values.copy()
        for i, value in enumerate(values):
            slope = 2 * m[i] * value + v[i]
            if abs(slope) > _SIMPLE * (abs(2 * m[i] * value) + abs(v[i])) and m[i] != 0:
                roots = (-v[i] + middle[i]) / (2 * m[i]), (-v[i] - middle[i]) / (2 * m[i])
                nearest = min(roots, key=lambda root: abs(root - value))
                if abs(nearest - value) <= _EQUAL * abs(value):
                    better[i] = complex(nearest.real, max(nearest.imag, 0.0))
        return better, X

    def _is_sound(self, values: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return (m,) whether the terms of xᴴQ(λ)x cancel, or are no more than rounding of K. Collective.

        What K hardly resists has a small backward error at any small λ.
        """
        k, v, m = self._sums(X, True)
        digits = self._quadratic.layout.comm.allreduce(self._quadratic.rows_k @ np.abs(X) ** 2)
        terms = np.abs(k), np.abs(values * v), np.abs(values**2 * m)
        return np.abs(k + values * v + values**2 * m) <= _CANCELLED * np.sum(terms, axis=0) + 10 * _EPS * digits

    def _judged(self, values: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return backward errors, resolutions, doubts and what G does, of vectors of length one. Collective."""
        quadratic, comm = self._quadratic, self._quadratic.layout.comm
        k, v, m = quadratic.images(X)
        residual = k + values * v + values**2 * m
        weights = np.stack([quadratic.weights(value) for value in values], axis=1) if len(values) else X.real
        slopes = v + 2 * values * m
        left = X if quadratic.symmetric else X.conj()  # yᴴ is xᵀ of symmetric ones
        own = np.stack(
            [
                np.sum(np.abs(residual) ** 2, axis=0),
                np.sum(np.abs(weights * X) ** 2, axis=0),
                np.sum(weights * np.abs(X) ** 2, axis=0),
                np.sum(left * slopes, axis=0),
                np.sum(X.conj() * v, axis=0),
                np.sum(X.conj() * slopes, axis=0),
                np.sum(quadratic.rows_v[:, None] * np.abs(X) ** 2, axis=0),
            ]
        )
        off, size, digits, slope, turned, own_slope, turnable = comm.allreduce(own)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.sqrt(off.real / size.real)
            resolutions = _EPS * digits.real / np.abs(slope)
            doubts = _EPS * digits.real / np.abs(own_slope)
            whirl = np.where(turnable.real > 0, -turned.imag / turnable.real, 0.0)
        known = quadratic.symmetric or (quadratic.conservative and quadratic.resists)
        return errors, resolutions if known else np.full(len(values), np.nan), doubts, whirl
