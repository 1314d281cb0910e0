"""A small symmetric matrix judged beside its own rows: scaled, and by its eigenvalues then."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.operators.eigenvalues import ZERO, Inertia

_EPS, _TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)

# Rows of sizes that are no farther apart are left as they are.
_GRADED = 1e4

# Below this part of the largest all digits of a row are lost in eigenvalues.
_LOST = 1e-12

# Sweeps of scaling by the largest entry of each row, which halve what is left each time.
_SWEEPS = 8

# Eigenvalues of a scaled block are known to so many roundings of its largest.
_ROUNDINGS = 10.0

# A count is certain where no eigenvalue lies between the threshold and this multiple of it.
_WIDER = 4.0


class ScaledBlock(NamedTuple):
    """S B S = Q diag(values) Qᵀ of a symmetric B, with S diagonal, of powers of two.

    *Not collective.* It has the signs of B (Sylvester). S is the identity where rows of B are of about one size.

    Attributes
    ----------
    S
        (n,).
    values
        (n,) ascending.
    Q
        (n, n) orthogonal.
    size
        Beside what the values were rounded.
    """

    S: np.ndarray
    values: np.ndarray
    Q: np.ndarray
    size: float

    @classmethod
    def of(
        cls, block: np.ndarray, shift: float = 0.0, eigen: tuple[np.ndarray, np.ndarray] | None = None
    ) -> ScaledBlock:
        """Return that of a dense block (n, n) with a shift added to its diagonal.

        Parameters
        ----------
        block, shift
            B is their sum.
        eigen
            Eigenvalues and eigenvectors of the block, where they are known.
        """
        B = block + shift * np.eye(len(block))
        S = _scales(B)
        if eigen is not None and (S == 1).all():
            values, Q = eigen[0] + shift, eigen[1]
        else:
            values, Q = np.linalg.eigh(S[:, None] * B * S)
        cancelled = abs(shift) * float(np.square(S).max(initial=0.0))
        return cls(S, values, Q, max(float(np.abs(values).max(initial=0.0)), cancelled))

    @property
    def singular(self) -> bool:
        """Whether rounding makes it singular."""
        return not bool(np.abs(self.values).min(initial=1.0) > _EPS * self.size)

    def logdet(self) -> float:
        """Return log |det B|, -inf where it is singular to rounding."""
        if self.singular:
            return -np.inf
        return float(np.log(np.abs(self.values)).sum() - 2 * np.log(self.S).sum())

    def negative(self) -> int:
        """Return how many eigenvalues are negative."""
        return int(np.count_nonzero(self.values < 0))

    def inertia(self) -> Inertia:
        """Return the inertia; `threshold` is what is zero in a middle row, in the units of B."""
        threshold = ZERO * self.size
        size = np.abs(self.values)
        negative, positive = (int(np.count_nonzero(sign * self.values > threshold)) for sign in (-1.0, 1.0))
        near = int(np.count_nonzero((size > threshold) & (size <= _WIDER * threshold)))
        shown = max(threshold * float(np.exp2(-2.0 * np.log2(self.S).mean())), _TINY)
        doubt = f"{near} between {shown:.1e} and {_WIDER * shown:.1e} in size" if near else ""
        return Inertia(negative, len(self.values) - negative - positive, positive, 0, shown, not near, doubt)

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return B⁻¹ b for b (n,), not finite where B is singular."""
        return self.S * (self.Q @ ((self.Q.T @ (self.S * b)) / self.values))

    def inverse_root(self, z: np.ndarray) -> np.ndarray:
        """Return R z for z (n,), with R Rᵀ = B⁻¹; of a positive definite B."""
        return self.S * (self.Q @ ((self.Q.T @ z) / np.sqrt(self.values)))

    def inverse_diagonal(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the diagonal (n,) of B⁻¹, and how far rounding may have moved it.

        Neither is finite, or of use, where B is singular.
        """
        squares, sizes = np.square(self.Q), np.abs(self.values)
        with np.errstate(all="ignore"):  # infinite where B is singular
            values = squares @ (1 / self.values)
            rounding = _ROUNDINGS * _EPS * (squares @ (self.size / np.square(sizes)))
        if not bool(sizes.min(initial=1.0) > _ROUNDINGS * _EPS * self.size):
            rounding = np.full(len(values), np.inf)
        return self.S**2 * values, self.S**2 * rounding


def is_graded(block: np.ndarray) -> bool:
    """Return whether rows of a block (n, n) are so small beside others that its eigenvalues have no digit of them.

    Not collective.
    """
    rows = np.abs(block).max(axis=1, initial=0.0)
    rows = rows[rows > 0]
    return bool(rows.min(initial=np.inf) < _LOST * rows.max(initial=0.0))


def _scales(block: np.ndarray) -> np.ndarray:
    """Return powers of two (n,) with which the largest entry of each row becomes about one."""
    sizes = np.abs(block)
    rows = sizes.max(axis=1, initial=0.0)
    there = rows[rows > 0]
    S = np.ones(len(block))
    if not len(there) or there.max() <= _GRADED * there.min():
        return S
    for _ in range(_SWEEPS):
        rows = (S[:, None] * sizes * S).max(axis=1)
        S *= np.where(rows > 0, np.exp2(np.round(-0.5 * np.log2(np.where(rows > 0, rows, 1.0)))), 1.0)
    return S
