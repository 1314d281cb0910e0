r"""All eigenvalues of small Hermitian matrices, many at a time, each with a bound that is proven.

LAPACK gives X and Λ of D, (n, n). With R = DX − XΛ and E = XᴴX − I, ε = ‖E‖ < 1, X is regular and X = UP,
U unitary, ‖P − I‖ ≤ ε. UᴴDU has the eigenvalues of D, and differs from Λ by UᴴR − UᴴDU(P − I) + (P − I)Λ. So by
Weyl's theorem the eigenvalues of D and of Λ, both in ascending order, differ by no more than

    ‖R‖ + ε (‖D‖ + ‖Λ‖):

all n of them, so that none is missing and none is there twice. R and E are computed by products anew, in norms of
Frobenius, and what rounding may do to these products is added: γ = 4 (n + 4) u times the norms of their factors
(Higham 2002, sections 3.1, 3.5 and 3.6, for products that are not made by Strassen's method).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_UNIT = np.finfo(float).eps / 2


class Pairs(NamedTuple):
    """Eigenpairs of a batch.

    Attributes
    ----------
    values
        (m, n) ascending.
    vectors
        (m, n, n) columns.
    bounds
        (m,) how far each of these values may be from the eigenvalue of the same number; infinite where nothing is
        proven.
    """

    values: np.ndarray
    vectors: np.ndarray
    bounds: np.ndarray


def eigenpairs(matrices: np.ndarray) -> Pairs:
    """Return all eigenpairs of Hermitian matrices (m, n, n), and the bounds of the eigenvalues.

    Not collective.

    References
    ----------
    .. [1] B. N. Parlett, The Symmetric Eigenvalue Problem, SIAM 1998, sections 10.3 and 11.5.
    .. [2] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, SIAM 2002.
    """
    values, vectors = np.linalg.eigh(matrices)
    return Pairs(values, vectors, bounds(matrices, values, vectors))


def bounds(matrices: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return (m,) how far sorted values may be from the eigenvalues of the same numbers. Not collective."""
    n = matrices.shape[-1]
    gamma = 4 * (n + 4) * _UNIT
    with np.errstate(over="ignore", invalid="ignore"):
        residuals = _norms(matrices @ vectors - vectors * values[:, None, :])
        apart = _norms(vectors.conj().transpose(0, 2, 1) @ vectors - np.eye(n))
        size, spread, largest = _norms(matrices), _norms(vectors), np.abs(values).max(axis=1, initial=0.0)
        residuals += gamma * spread * (size + largest)
        apart += gamma * spread**2
        found = (1 + gamma) * (residuals + apart * (size + largest))
        proven = np.isfinite(found) & (apart < 1) & (np.diff(values, axis=1) >= 0).all(axis=1)
    return np.where(proven, found, np.inf)


def _norms(matrices: np.ndarray) -> np.ndarray:
    """Return (m,) norms of Frobenius."""
    return np.sqrt((np.abs(matrices) ** 2).sum(axis=(1, 2)))
