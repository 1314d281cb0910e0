"""A block Davidson method whose products are those of the Hessian itself, and whose solves are those of Ĥ near it.

Vectors are in coordinates in which the mass is the identity, orthogonal to the null vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.long_range.near_far_hessian import NearFar
from sparsehess.operators.tall_skinny_qr import inner_products, small_eigh, sum_over_ranks, tall_qr
from sparsehess.runtime.citations import cite

# Solves with Ĥ end at this part of the residual, or after so many products with it.
_SOLVED, _STEPS = 0.05, 80

# What is left of a new direction without those there are; with less it is none.
_NEW = 1e-6

# Residuals are not pursued below so many times the noise of products.
_FLOOR = 2.0

# A direction that was taken otherwise by this part, as at bounds, is put right by Ĥ.
_OTHER = 1e-8


@dataclass(frozen=True, eq=False)
class Refined:
    """What was found.

    Attributes
    ----------
    values, vectors
        (k,) ascending, and (n_local, k).
    residuals, errors
        (k,) backward errors, and bounds of how far an eigenvalue is.
    done
        (k,) bool: whether the residual reached the tolerance, or the noise.
    held_to
        The largest backward error that was let pass.
    orthogonality
        Of the vectors.
    rounds, spent
        Expansions of the basis, and calls of the objective's functions.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray
    done: np.ndarray
    held_to: float
    orthogonality: float
    rounds: int
    spent: int


def refine(
    hessian: NearFar,
    roots: np.ndarray,
    null: np.ndarray,
    basis: np.ndarray,
    k: int,
    gradients: int,
    tol: float,
    norms: tuple[float, float],
) -> Refined:
    """Return the k lowest pairs, from a basis (n_local, m) that is orthonormal and has no null vectors.

    Collective.

    Parameters
    ----------
    roots
        (n_local,) of the masses.
    null
        (n_local, m) null vectors, orthonormal.
    gradients
        Most calls of the objective's functions.
    tol
        Backward error that is asked for.
    norms
        Of H and of the mass.
    """
    cite("davidson by true products")
    search = _Search(hessian, roots, null, gradients)
    search.expand(basis[:, : max(1, min(basis.shape[1], search.left))])
    rounds = 0
    while True:
        state = search.ritz(min(k, search.V.shape[1]), tol, norms)
        open_pairs = np.flatnonzero(~state.done)[: search.left]
        if not len(open_pairs) or not search.expand(search.corrections(state, open_pairs)):
            return Refined(
                state.values,
                state.vectors,
                state.residuals,
                state.errors,
                state.done,
                float(np.max(state.held, initial=tol)),
                float(
                    np.abs(
                        inner_products(search.comm, state.vectors, state.vectors) - np.eye(len(state.values))
                    ).max()
                ),
                rounds,
                search.spent,
            )
        rounds += 1


@dataclass(frozen=True, eq=False)
class _State:
    values: np.ndarray
    vectors: np.ndarray
    lower: np.ndarray  # all Ritz vectors that the search began with as many of
    rest: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray
    held: np.ndarray
    done: np.ndarray


class _Search:
    """The basis, its true products, and what they cost."""

    def __init__(self, hessian: NearFar, roots: np.ndarray, null: np.ndarray, gradients: int):
        self.hessian, self.roots, self.null, self.gradients = hessian, roots, null, gradients
        self.comm = hessian.comm
        self.V = self.AV = np.zeros((len(roots), 0))
        self.noise = np.zeros(0)
        self.spent = self._first = 0

    @property
    def left(self) -> int:
        """How many more products there are gradients for."""
        return (self.gradients - self.spent) // self.hessian.true_products.calls_each

    def expand(self, new: np.ndarray) -> int:
        """Add directions (n_local, m) and their products; return how many were new. Collective."""
        for _ in range(2):
            for known in (self.null, self.V):
                new = new - known @ inner_products(self.comm, known, new)
        sizes = self._norms(new)
        new = new[:, sizes > _NEW] / sizes[sizes > _NEW]
        if new.shape[1] > 1:
            Q, R = tall_qr(self.comm, new)
            new = Q[:, np.abs(np.diag(R)) > _NEW]
        new = new[:, : self.left]
        if not new.shape[1]:
            return 0
        products, noises = zip(*(self._product(column) for column in np.ascontiguousarray(new.T)), strict=True)
        self.V = np.concatenate([self.V, new], axis=1)
        self.AV = np.concatenate([self.AV, np.stack(products, axis=1)], axis=1)
        self.noise = np.concatenate([self.noise, noises])
        self._first = self._first or new.shape[1]
        return new.shape[1]

    def _product(self, vector: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the true product, in coordinates, and its noise in the variables."""
        true, given = self.hessian.true_products, vector / self.roots
        image, along, noise = true.product(given)
        self.spent += true.calls_each
        other, size = self._norms(np.stack([given - along, given], axis=1))
        if other > _OTHER * size:
            image = image + self.hessian.product(given - along)
        return self._off_null((image / self.roots)[:, None])[:, 0], noise

    def ritz(self, k: int, tol: float, norms: tuple[float, float]) -> _State:
        """Return the k lowest Ritz pairs, judged. Collective."""
        S = inner_products(self.comm, self.V, self.AV)
        values, turn = small_eigh(self.comm, S)
        many = S.shape[1]
        uneven = float(np.linalg.norm(S - S.T) / np.sqrt(2 * max(many * (many - 1), 1)))
        values, lower = values[:k], self.V @ turn[:, : max(k, self._first)]
        vectors, rest = lower[:, :k], self.AV @ turn[:, :k] - lower[:, :k] * values
        # In the variables, where noise was measured; that of steps shows as what is not symmetric.
        heavy = np.sqrt(np.array([self.roots @ self.roots]))
        mean_root = float(np.sqrt(sum_over_ranks(self.comm, heavy**2)[0] / self.hessian.n))
        noise = np.sqrt((turn[:, :k] ** 2).T @ self.noise**2)
        floor = np.maximum(noise, np.sqrt(self.hessian.n) * uneven * mean_root)
        sizes = self._norms(vectors / self.roots[:, None]) * (norms[0] + np.abs(values) * norms[1])
        limits = np.maximum(tol * sizes, _FLOOR * floor)
        sizes = np.where(sizes > 0, sizes, limits)  # where H is nothing at all
        apart = self._norms(rest * self.roots[:, None])
        residuals, held, done = _over(apart, sizes), _over(limits, sizes), apart <= limits
        least = self.comm.allreduce(float(self.roots.min(initial=np.inf)), op=MPI.MIN)
        errors = self._norms(rest) + _FLOOR * floor / least
        return _State(values, vectors, lower, rest, residuals, errors, held, done)

    def corrections(self, state: _State, open_pairs: np.ndarray) -> np.ndarray:
        """Return (n_local, m) about −(Ĥ − θ)⁻¹ r, orthogonal to the Ritz vectors, of some pairs.

        Collective. By conjugate residuals (Stiefel 1955) for all pairs side by side: they share each product with
        Ĥ, whose far kernel is evaluated once.
        """
        shifts, r = state.values[open_pairs], -self._away(state, state.rest[:, open_pairs])

        def image(X: np.ndarray) -> np.ndarray:
            return self._away(state, self._near_far(X) - X * shifts)

        goal, x = _SOLVED * self._norms(r), np.zeros_like(r)
        p, Ar = r, image(r)
        Ap, size = Ar, self._dots(r, Ar)
        for _ in range(_STEPS):
            below = self._dots(Ap, Ap)
            step = np.where(below > 0, size / np.where(below > 0, below, 1.0), 0.0)
            x, r = x + step * p, r - step * Ap
            if (self._norms(r) <= goal).all() or not (step != 0).any():
                break
            Ar = image(r)
            after = self._dots(r, Ar)
            more = np.where(size != 0, after / np.where(size != 0, size, 1.0), 0.0)
            p, Ap, size = r + more * p, Ar + more * Ap, after
        sizes = self._norms(x)
        return x[:, sizes > 0] / sizes[sizes > 0]

    def _near_far(self, X: np.ndarray) -> np.ndarray:
        """Return Ĥ X in coordinates. Collective."""
        return self.hessian.products(X / self.roots[:, None]) / self.roots[:, None]

    def _away(self, state: _State, X: np.ndarray) -> np.ndarray:
        """Return X without null vectors and lower Ritz vectors. Collective."""
        X = self._off_null(X)
        return X - state.lower @ inner_products(self.comm, state.lower, X)

    def _off_null(self, X: np.ndarray) -> np.ndarray:
        return X - self.null @ inner_products(self.comm, self.null, X) if self.null.shape[1] else X

    def _dots(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return sum_over_ranks(self.comm, np.einsum("ij,ij->j", left, right))

    def _norms(self, X: np.ndarray) -> np.ndarray:
        return np.sqrt(self._dots(X, X))


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return parts of wholes, 0 of what is 0. Not collective."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(part == 0, 0.0, part / whole)
