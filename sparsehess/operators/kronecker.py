"""`Kronecker`: a sum of Kronecker products of small factors."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.operators.eigen_corrected import EigenCorrected, dense, is_symmetric, two_sided
from sparsehess.operators.eigenvalues import ORDERS, Eigenvalues, Inertia, check_which, select_first
from sparsehess.operators.matrix_like import is_sparse
from sparsehess.operators.matrix_vectors import Grid
from sparsehess.operators.operator import Operator
from sparsehess.operators.scaled_blocks import ScaledBlock, is_graded
from sparsehess.operators.wanted import Wanted
from sparsehess.runtime import agreement, communicator, on_root
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import Self

    from mpi4py import MPI

    from sparsehess.operators.matrix_like import LocalMatrix

_EPS = float(np.finfo(float).eps)

# Factors of several terms share an eigenbasis where it leaves no more than this part of them off the diagonal.
_COMMUTE = 1e-12


class _Bases(NamedTuple):
    """Eigenbases (p, p) and (q, q) common to all terms of a sum, and the diagonals (terms, p), (terms, q)."""

    QA: np.ndarray
    QB: np.ndarray
    a: np.ndarray
    b: np.ndarray


class Kronecker(Operator):
    """H = Σ A_i ⊗ B_i: a sum of Kronecker products of small factors.

    *Collective* to make and to use. With one term, or terms whose factors commute (A ⊗ I + I ⊗ B), eigenvalues,
    solves and determinants come from the eigenbases of the factors; for others solves are those of any shell.

    Parameters
    ----------
    terms
        (A, B) pairs, or one pair; A (p, p) and B (q, q), dense or SciPy sparse, the same on every rank. The sum
        is to be symmetric.
    comm
        Communicator; default this process alone.

    Attributes
    ----------
    terms
        As given.
    grid
        How vectors of p q numbers lie over the ranks: number i q + j belongs to row i of A and j of B.

    Raises
    ------
    InputError
        Shapes that do not fit, numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> A, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 10.0])
    >>> with sh.Kronecker((A, B)) as H:
    ...     print(H.spectrum(4).round(6), round(H.logdet(), 4))
    [ 1.  3. 10. 30.] 6.8024
    """

    def __init__(self, terms: Sequence, *, comm: MPI.Comm | None = None):
        comm = communicator(comm)
        with agreement(comm):
            pairs = [terms] if len(terms) == 2 and not isinstance(terms[0], (tuple, list)) else list(terms)
            if not pairs or any(len(pair) != 2 for pair in pairs):
                raise InputError("a sum of Kronecker products needs (A, B) pairs, one at least")
            self.terms = [(_checked_factor(A), _checked_factor(B)) for A, B in pairs]
            shapes = {(A.shape[0], B.shape[0]) for A, B in self.terms}
            if len(shapes) > 1:
                raise InputError(f"the factors of all terms must have the same sizes, not {sorted(shapes)}")
        self.grid = Grid(*shapes.pop(), comm)
        self._symmetric = all(is_symmetric(A) and is_symmetric(B) for A, B in self.terms)
        self._make_shell(self.grid.layout, self._symmetric)
        self._kept_bases: list[_Bases] | None = None  # empty where there is none
        self._kept_exact: EigenCorrected | None = None
        self._kept_graded: bool | None = None
        self._kept_factors: tuple[ScaledBlock, ScaledBlock] | None = None

    # --- products ---

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,).

        Collective: ranks exchange their shares once for each term, and once more.
        """
        return self._product(vector, self.terms)

    def transposed_product(self, vector: np.ndarray) -> np.ndarray:
        """Return Hᵀ v (n_local,).

        Collective.
        """
        return self._product(vector, [(A.T, B.T) for A, B in self.terms])

    def _product(self, vector: np.ndarray, terms: list[tuple[LocalMatrix, LocalMatrix]]) -> np.ndarray:
        X = self.grid.matrix(vector)
        columns = reduce(np.add, (A @ self.grid.to_columns((B @ X.T).T) for A, B in terms))
        return self.grid.to_rows(columns).ravel()

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,).

        Not collective.
        """
        return reduce(
            np.add, (np.outer(A.diagonal()[self.grid.own_rows], B.diagonal()) for A, B in self.terms)
        ).ravel()

    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved `diagonal`.

        Not collective.
        """
        parts = (np.outer(np.abs(A.diagonal()[self.grid.own_rows]), np.abs(B.diagonal())) for A, B in self.terms)
        return _EPS * len(self.terms) * reduce(np.add, parts).ravel()

    @property
    def knows_pairs(self) -> bool:
        """As `knows_eigenvalues`. Collective the first time."""
        return self.knows_eigenvalues

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), orthonormal eigenvectors (n_local, m)) that are wanted, ascending.

        Collective. Products of the factors' own; see `eigenvalues`.
        """
        return self._need_exact().pairs(wanted)

    def trace(self) -> float:
        """Return the trace, Σ tr A tr B.

        Not collective.
        """
        return float(sum(A.diagonal().sum() * B.diagonal().sum() for A, B in self.terms))

    # --- answers of eigenbases ---

    @property
    def diagonalizable(self) -> bool:
        """Whether eigenbases of the factors are one of the sum. Collective the first time."""
        return bool(self._bases)

    @property
    def _bases(self) -> list[_Bases]:
        """The eigenbases that the terms have in common, one item; none where there are none."""
        if self._kept_bases is None:
            self._kept_bases = []
            if self._symmetric:
                left, right = (_common_basis(self.comm, [term[side] for term in self.terms]) for side in (0, 1))
                if left is not None and right is not None:
                    self._kept_bases = [_Bases(left[0], right[0], left[1], right[1])]
        return self._kept_bases

    @property
    def _exact(self) -> EigenCorrected | None:
        if self._kept_exact is None and self.diagonalizable:
            QA, QB, a, b = self._bases[0]
            rows = self.grid.own_rows
            values = reduce(np.add, (np.outer(x[rows], y) for x, y in zip(a, b, strict=True)))
            # Those of a factor are known to the last digit of its largest one, and of one term so are products.
            errors = _EPS * reduce(
                np.add,
                (
                    np.abs(x[rows])[:, None] * np.abs(y).max() + np.abs(x).max() * np.abs(y)[None, :]
                    for x, y in zip(a, b, strict=True)
                ),
            )
            self._kept_exact = EigenCorrected(QA, QB, values.ravel(), comm=self.comm, errors=errors.ravel())
        return self._kept_exact

    @property
    def knows_eigenvalues(self) -> bool:
        """Whether the sum is `diagonalizable`, and no factor has rows 10¹² times smaller than others.

        Collective the first time. Eigenvalues of such a factor have no digits of these.
        """
        if self._kept_graded is None:
            self._kept_graded = any(is_graded(dense(factor)) for pair in self.terms for factor in pair)
        return self.diagonalizable and not self._kept_graded

    @property
    def knows_signs(self) -> bool:
        """Whether it is one product, or knows its eigenvalues. Collective the first time."""
        return self._is_product or self.knows_eigenvalues

    @property
    def knows_inverse(self) -> bool:
        """As `knows_signs`. Collective the first time."""
        return self.knows_signs

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues, Σ a b over eigenvalues of the factors.

        Collective.

        Raises
        ------
        InputError
            The factors of the terms do not commute: `sparsehess.eigs` finds as many as are wanted.
        """
        return self._need_exact().eigenvalues()

    def _need_exact(self) -> EigenCorrected:
        if self._exact is None:
            raise InputError("the factors of this sum have no eigenbasis in common: its spectrum is not theirs")
        return self._exact

    def spectrum(self, k: int = 6, which: str = "smallest") -> np.ndarray:
        """Return k eigenvalues (k,), ascending, the same on every rank.

        Collective. One term: the k products that are first, from sorted eigenvalues of the factors with
        O((p + k) log p) comparisons, the other p q never formed. Several terms that commute: of all.

        Parameters
        ----------
        k
            How many.
        which
            `smallest`, `largest`, `magnitude`, or `negative`, of which there may be fewer.

        Raises
        ------
        InputError
            As `eigenvalues`.
        """
        check_which(k, which)
        if not self.diagonalizable or len(self.terms) > 1:
            return self.eigenvalues().ends(k, which)
        _, _, a, b = self._bases[0]
        return select_first(first_products(a[0], b[0], min(k, self.n), which), k, which)

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective. One term without a shift: q log |det A| + p log |det B|.
        """
        if not self._is_product or shift:
            return super().logdet(shift) if self._exact is None else self._exact.logdet(shift)
        left, right = self._factors
        return self.grid.q * left.logdet() + self.grid.p * right.logdet()

    @property
    def _is_product(self) -> bool:
        """Whether it is A ⊗ B alone, of symmetric factors."""
        return self._symmetric and len(self.terms) == 1

    @property
    def _factors(self) -> tuple[ScaledBlock, ScaledBlock]:
        """A and B of the one term, each beside its own rows; the same on every rank."""
        if self._kept_factors is None:
            (A, B), (QA, QB, a, b) = self.terms[0], self._bases[0]
            self._kept_factors = on_root(
                self.comm,
                lambda: (ScaledBlock.of(dense(A), 0.0, (a[0], QA)), ScaledBlock.of(dense(B), 0.0, (b[0], QB))),
            )
        return self._kept_factors

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia; see `Operator.inertia`.

        Collective. One term without `zero`: from the signs of the factors, each judged beside its own rows.
        """
        if zero is not None or not self._is_product:
            return super().inertia(zero)
        left, right = (factor.inertia() for factor in self._factors)
        negative = left.negative * right.positive + left.positive * right.negative
        positive = left.positive * right.positive + left.negative * right.negative
        doubt = "; ".join(one.doubt for one in (left, right) if one.doubt)
        threshold = max(left.threshold * self._factors[1].size, right.threshold * self._factors[0].size)
        return Inertia(negative, self.n - negative - positive, positive, 0, threshold, not doubt, doubt)

    def negative(self, shift: float = 0.0) -> int:
        """Return how many eigenvalues of H + shift I are negative.

        Collective.
        """
        if shift or not self._is_product:
            return super().negative(shift) if self._exact is None else self._exact.negative(shift)
        (n, p), (m, q) = ((one.negative(), len(one.S)) for one in self._factors)
        return n * (q - m) + m * (p - n)

    def inverse_diagonal(self, shift: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the diagonal (n_local,) of (H + shift I)⁻¹ and how far rounding may have moved it.

        Collective. None with a shift or several terms, of which it follows by eigenvectors.
        """
        if shift or not self._is_product:
            return super().inverse_diagonal(shift)
        (a, of_a), (b, of_b) = (one.inverse_diagonal() for one in self._factors)
        rows = self.grid.own_rows
        with np.errstate(all="ignore"):  # infinite where a factor is singular
            rounding = np.outer(of_a[rows], np.abs(b)) + np.outer(np.abs(a[rows]), of_b)
        rounding = np.where(np.isnan(rounding), np.inf, rounding)
        return np.outer(a[rows], b).ravel(), rounding.ravel()

    def _row_sizes(self) -> np.ndarray:
        if not self._is_product:
            return super()._row_sizes()
        left, right = (one.size / one.S**2 for one in self._factors)
        return np.outer(left[self.grid.own_rows], right).ravel()

    def inverse_root(self, z: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """Return R z (n_local, m) with R Rᵀ = (H + shift I)⁻¹; see `Operator.inverse_root`.

        Collective.
        """
        if shift or not self._is_product:
            return super().inverse_root(z, shift)
        self._refuse_indefinite(shift)
        return self._by_factors(np.ones_like(z), z, lambda values: 1 / np.sqrt(values))

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        if self._is_product and not shift:
            return self._by_factors(self._scales(), b, np.reciprocal)
        exact = self._exact
        return super()._solve(b, shift) if exact is None else exact._solve(b, shift)

    def _scales(self) -> np.ndarray:
        """Return (n_local, 1) what scales rows of the one term."""
        left, right = self._factors
        return np.outer(left.S[self.grid.own_rows], right.S).reshape(-1, 1)

    def _by_factors(self, first: np.ndarray, b: np.ndarray, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return S Q f(values) Qᵀ (first b) (n_local, m) of the scaled A ⊗ B."""
        left, right = self._factors
        with np.errstate(all="ignore"):  # what is not finite is refused by whoever judges
            values = f(np.outer(left.values, right.values[self.grid.own_columns]))
        out = np.empty_like(b)
        for j in range(b.shape[1]):
            scaled = np.broadcast_to(first, b.shape)[:, j] * b[:, j]
            out[:, j] = two_sided(self.grid, left.Q, right.Q, scaled, lambda X: values * X)
        return self._scales() * out

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        exact = self._exact
        return super()._least_squares(b, shift) if exact is None else exact._least_squares(b, shift)

    @property
    def solves_directly(self) -> bool:
        """Whether the sum is `diagonalizable`. Collective the first time."""
        return self.diagonalizable

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> EigenCorrected:
        """Return f(H), with the eigenvectors of this.

        Collective. See `eigenvalues`.
        """
        return self._need_exact().function(f)

    @classmethod
    def weighted(cls, items: Sequence[tuple[float, Self]], shift: float) -> Self | None:
        """Return Σ a H + shift I of (a, H) with factors of the same sizes; None where these differ.

        Collective.
        """
        grid = items[0][1].grid
        if any((H.grid.p, H.grid.q) != (grid.p, grid.q) for _, H in items):
            return None
        terms = [(a * A, B) for a, H in items for A, B in H.terms]
        if shift:
            terms.append((shift * scipy.sparse.identity(grid.p), scipy.sparse.identity(grid.q)))
        return cls(terms, comm=grid.comm)._keep_communicator(items[0][1]._kept_communicator)

    def close(self) -> None:
        """Destroy the matrix and what was made of it.

        Collective.
        """
        if self._kept_exact is not None:
            self._kept_exact.close()
            self._kept_exact = None
        super().close()


def first_products(a: np.ndarray, b: np.ndarray, k: int, which: str) -> np.ndarray:
    """Return the k products a_i b_j (k,) that are first in an order, the first of all first.

    Not collective. For each i the products are monotonous along sorted b: the next of all is on top of a heap
    of the next of each.
    """
    key = ORDERS["smallest" if which == "negative" else which]
    b = b[np.argsort(np.abs(b) if which == "magnitude" else b, kind="stable")]
    forward = key(a * b[0]) <= key(a * b[-1])
    heap = [(rank, i, 0) for i, rank in enumerate(key(a * np.where(forward, b[0], b[-1])).tolist())]
    heapq.heapify(heap)
    found = np.empty(k)
    for number in range(k):
        _, i, step = heap[0]
        found[number] = a[i] * b[step if forward[i] else -1 - step]
        step += 1
        if step == len(b):
            heapq.heappop(heap)
        else:
            ahead = a[i] * b[step if forward[i] else -1 - step]
            heapq.heapreplace(heap, (float(key(ahead)), i, step))
    return found


def _common_basis(comm: MPI.Comm, factors: list[LocalMatrix]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return an eigenbasis of all factors and their eigenvalues (factors, m) in it; None where there is none.

    Collective. Eigenvectors of a random combination: of its distinct eigenvalues, which almost all combinations
    have where the factors together tell vectors apart, each belongs to all of them.
    """

    def find() -> tuple[np.ndarray, np.ndarray] | None:
        whole = [dense(factor) for factor in factors]
        weights = np.random.default_rng(len(whole)).uniform(1, 2, len(whole))
        sizes = [np.abs(factor).max() or 1.0 for factor in whole]
        mixed = reduce(np.add, (w / size * factor for w, size, factor in zip(weights, sizes, whole, strict=True)))
        values, Q = np.linalg.eigh((mixed + mixed.T) / 2)
        if len(whole) == 1:
            return Q, np.array([values * sizes[0] / weights[0]])
        diagonals = []
        for factor, size in zip(whole, sizes, strict=True):
            turned = Q.T @ factor @ Q
            diagonals.append(np.diag(turned).copy())
            if np.abs(turned - np.diag(diagonals[-1])).max() > _COMMUTE * size * len(Q):
                return None
        return Q, np.array(diagonals)

    return on_root(comm, find)


def _checked_factor(factor: LocalMatrix) -> LocalMatrix:
    """Return a factor that the caller has given as an array or CSR matrix of floats."""
    if is_sparse(factor):
        factor = factor.tocsr()
        factor = factor.astype(reals(factor.data, "factors").dtype)
    else:
        factor = np.array(reals(factor, "factors"))
    if factor.ndim != 2 or factor.shape[0] != factor.shape[1] or not factor.shape[0]:
        raise InputError(f"factors must be square matrices, not {factor.shape}")
    if not np.isfinite(factor.data if is_sparse(factor) else factor).all():
        raise InputError("factors must be finite")
    return factor
