"""All eigenvalues, and eigenvectors, of an operator on few variables, by LAPACK on one rank."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.estimates.reduced_operator import ReducedOperator
from sparsehess.eigen.estimates.spectral_functions import Function
from sparsehess.eigen.problem.whole_matrix import symmetric_rows, unit_vectors
from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import moved_by
from sparsehess.operators.structure import Exact
from sparsehess.runtime import on_root

# An entry has nothing of an eigenvector of which it has less than this part.
_NEGLIGIBLE = 1e-60


class WholeSpectrum(NamedTuple):
    """All that there is beside what is deflated, the same on every rank.

    Attributes
    ----------
    values
        (m,) eigenvalues, ascending, of a complex Hermitian matrix its own.
    noise
        Error of the matrix, relative to its norm.
    """

    values: np.ndarray
    noise: float

    def total(self, f: Function) -> Exact[float]:
        """Return the sum of a function over these, with what the error of the matrix may have moved it by.

        Not collective.
        """
        value = float(np.sum(f(self.values)))
        errors = np.full(len(self.values), self.noise * np.abs(self.values).max(initial=0.0))
        moved = float(np.sum(moved_by(f.call, f.above, self.values, errors)))
        return Exact(value, moved, "all eigenvalues")


def whole_spectrum(operator: ReducedOperator) -> WholeSpectrum:
    """Return all eigenvalues of an operator, from n products and one more, which tells their error.

    Collective.

    Raises
    ------
    CheckError
        Products that are not finite.
    """
    rows, error = symmetric_rows(operator.form, operator.layout)
    gram = None if operator.plain else operator.dual(unit_vectors(operator.layout, np.arange(operator.n)))
    parts = operator.comm.gather((rows, gram, operator.dual_of_deflated))
    values = on_root(operator.comm, _eigenvalues, parts)
    values = values.reshape(-1, operator.copies).mean(axis=1)  # copies of one are beside each other
    return WholeSpectrum(values, max(operator.noise, error))


def diagonal_of_function(operator: ReducedOperator, f: Function) -> Exact[np.ndarray]:
    """Return the local diagonal of f(operator), without the deflated part; of operators without a mass.

    Collective. From n products. Of x = Σ q √|f'| an error E of H moves xᵀEx, which is no more than what all
    eigenvalues move.

    Raises
    ------
    CheckError
        Products that are not finite.
    InputError
        An eigenvalue outside the domain of the function.
    """
    rows, error = symmetric_rows(operator.form, operator.layout)
    parts = operator.comm.gather((rows, None, operator.dual_of_deflated))
    values, vectors = on_root(operator.comm, _eigenpairs, parts)
    squares = np.square(vectors[operator.layout.start : operator.layout.stop])
    errors = np.full(len(values), max(operator.noise, error) * np.abs(values).max(initial=0.0))
    moved = moved_by(f.call, f.above, values, errors)
    lost = squares[:, ~np.isfinite(moved)] > _NEGLIGIBLE
    rounding = np.where(lost.any(axis=1), np.inf, squares @ np.where(np.isfinite(moved), moved, 0.0))
    return Exact(squares @ f(values), rounding, "all eigenvectors")


def _eigenvalues(parts: list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]) -> np.ndarray:
    from scipy.linalg import eigvalsh  # 70 ms on every rank, and needed on one

    form, gram, _ = _on_complement(parts)
    if gram is None:
        return np.linalg.eigvalsh(form)
    try:
        return eigvalsh(form, gram)
    except np.linalg.LinAlgError as error:
        raise InputError(f"LAPACK needs a mass matrix that is positive definite: {error}") from error


def _eigenpairs(parts: list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    form, _, basis = _on_complement(parts)
    values, vectors = np.linalg.eigh(form)
    return values, vectors if basis is None else basis @ vectors


def _on_complement(
    parts: list[tuple[np.ndarray, np.ndarray | None, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return the form and the Gram matrix, dense, on a basis of what is not deflated; and the basis.

    None for identities. On the root.
    """
    form, away = np.concatenate([part[0] for part in parts]), np.concatenate([part[2] for part in parts])
    grams = [part[1] for part in parts if part[1] is not None]
    gram = np.concatenate(grams) if grams else None
    gram = None if gram is None else 0.5 * (gram + gram.T)
    known = away.shape[1]
    if not known:
        return form, gram, None
    basis = np.linalg.qr(away, mode="complete")[0][:, known:]
    form = basis.T @ form @ basis
    return 0.5 * (form + form.T), None if gram is None else basis.T @ gram @ basis, basis
