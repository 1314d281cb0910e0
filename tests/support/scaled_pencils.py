"""Pencils that one number for the whole matrix misjudges, with all their finite eigenvalues by dense LAPACK.

Each is made of a plain pencil by a step that leaves its spectrum, or changes it in a known way: a congruence by a
diagonal of many sizes, penalties that hold variables or tie two, multipliers, masses that are huge or of low rank.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

EPS = float(np.finfo(float).eps)

# How many of the lowest eigenvalues are refined by Rayleigh quotients.
_REFINED = 60

# A rounding in an entry is felt this many times by a solver that makes no mistake.
_FELT = 1e3


@dataclass(frozen=True)
class Pencil:
    """A symmetric pencil and its spectrum.

    Attributes
    ----------
    words
        How it was made.
    K, M
        What a solver gets; M is None for the identity.
    values
        All finite eigenvalues, ascending, but for those `above`.
    doubts
        How far each moves where every entry of K and M moves by a rounding.
    infinite
        How many are infinite.
    above
        How many finite ones are above the others by so much that these say nothing of them: penalties do that.
    top
        The six largest finite ones; None where nothing tells them.
    definite
        Whether K is known to be positive definite though eigenvalues are null beside `scale`.
    shift
        K + shift M is positive definite on what is not infinite.
    scale
        About a low eigenvalue; what is null beside it is zero.
    """

    words: str
    K: sp.csr_matrix
    M: sp.csr_matrix | None
    values: np.ndarray
    doubts: np.ndarray
    infinite: int
    shift: float
    scale: float
    above: int = 0
    top: np.ndarray | None = None
    definite: bool = False

    @property
    def n(self) -> int:
        return self.K.shape[0]

    @property
    def within(self) -> np.ndarray:
        """How far from each eigenvalue an answer is still right."""
        return 1e-6 * np.abs(self.values) + _FELT * self.doubts

    @property
    def signs(self) -> tuple[int, int, int]:
        """How many finite eigenvalues are negative, zero and positive; zero are rigid motions, to rounding."""
        zero = np.abs(self.values) <= np.minimum(_FELT * self.doubts, 1e-3 * self.scale)
        return (
            int((self.values[~zero] < 0).sum()),
            int(zero.sum()),
            int((self.values[~zero] > 0).sum()) + self.above,
        )

    def has_signs(self, negative, zero, positive, infinite):
        """Return whether counts are right, and whether the entries' digits suffice to say so."""
        blurred = (np.abs(self.values) <= _FELT * self.doubts) & (_FELT * self.doubts > 1e-3 * self.scale)
        sure = replace(self, values=self.values[~blurred], doubts=self.doubts[~blurred]).signs
        counts = (negative, zero, positive)
        if self.definite and positive > sure[2] and not negative:  # tiny ones may be told from zero
            counts = (0, sure[1], positive - (sure[1] - zero))
        many = sum(counts) == len(self.values) + self.above and infinite == self.infinite
        right = many and all(count >= least for count, least in zip(counts, sure, strict=True))
        settled = not (blurred & (np.abs(self.values) <= 10 * self.doubts)).any() and counts == self.signs
        return right, settled or not blurred.any()

    def lost(self, few: np.ndarray) -> bool:
        """Say whether the entries' last digits decide eigenvalues of these numbers, rigid motions apart."""
        zero = np.abs(self.values[few]) <= 1e-6 * self.scale
        return bool((self.doubts[few] > 1e-2 * np.abs(self.values[few]))[~zero].any())


def _equilibrated(diagonal):
    size = np.where(diagonal > 0, diagonal, 1.0)
    return np.exp2(-np.round(np.log2(size) / 2))


def rank(M):
    """Return the rank of a positive semidefinite matrix, scaled to a diagonal of 1 first."""
    M = M.toarray() if sp.issparse(M) else np.array(M)
    d = 1 / np.sqrt(np.where(np.diag(M) > 0, np.diag(M), 1.0))
    mu = scipy.linalg.eigvalsh(M * d[:, None] * d)
    top = mu[-1]
    if ((mu > 1e-13 * top) & (mu < 1e-9 * top)).any() or mu[0] < -1e-9 * top:
        raise ValueError("no rank can be told, or a negative mass")
    return int((mu > 1e-11 * top).sum())


def finite_spectrum(K, M, shift, back=None, stored=None):
    """Return finite eigenvalues, ascending, what a rounding in every entry moves each by, and how many are above.

    The pencil (M, K + shift M) has them as μ = 1/(λ + shift), and K + shift M is positive definite: its Cholesky
    factor does not depend on how variables are scaled, and neither do small λ on how large the others are.

    Parameters
    ----------
    back, stored
        Where the pencil is another's in coordinates x = back y: that map, and the stored (K, M).
    """
    K = K.toarray() if sp.issparse(K) else np.asarray(K, float)
    n = len(K)
    M = np.eye(n) if M is None else M.toarray() if sp.issparse(M) else np.asarray(M, float)
    finite = rank(M)
    d = _equilibrated(np.diag(K) + shift * np.diag(M))
    A, B = (X * d[:, None] * d for X in (K, M))
    L = scipy.linalg.cholesky(A + shift * B, lower=True)
    C = scipy.linalg.solve_triangular(L, B, lower=True)
    C = scipy.linalg.solve_triangular(L, C.T, lower=True)
    mu, Y = scipy.linalg.eigh((C + C.T) / 2, subset_by_index=[n - finite, n - 1])
    told = int((mu > 1e-11 * mu[-1]).sum())
    above, finite = finite - told, told
    mu, Y = mu[::-1][:told], Y[:, ::-1][:, :told]
    X = scipy.linalg.solve_triangular(L, Y, lower=True, trans="T") / np.sqrt(mu)  # M-orthonormal
    few = min(_REFINED, finite)
    Z = scipy.linalg.cho_solve((L, True), B @ X[:, :few])
    Z /= np.sqrt(np.einsum("ij,ij->j", Z, B @ Z))
    quotients, V = scipy.linalg.eigh(Z.T @ A @ Z, Z.T @ B @ Z)
    X[:, :few] = Z @ V
    values = 1 / mu - shift
    values[:few] = quotients
    X = d[:, None] * X
    if back is not None:
        X, (K, M) = back @ X, stored
    X = np.abs(X)
    felt = np.einsum("ij,ij->j", X, abs(K) @ X) + np.abs(values) * np.einsum("ij,ij->j", X, abs(M) @ X)
    own = (values + shift) ** 2 * mu[0]  # of the small μ, relative to the largest
    own[:few] = np.abs(values[:few]) + shift
    order = np.argsort(values)
    return values[order], (EPS * np.maximum(felt, own))[order], above


def plain(K, M, shift, words="", scale=None):
    """Return a pencil as it is; `scale` is the shift where it is not given."""
    values, doubts, above = finite_spectrum(K, M, shift)
    infinite, top = K.shape[0] - len(values) - above, None
    if not above:
        top = values[-6:]
    elif not infinite:
        n = K.shape[0]
        mass = None if M is None else M.toarray()
        top = scipy.linalg.eigh(K.toarray(), mass, eigvals_only=True, subset_by_index=[max(0, n - 6), n - 1])
        top = top[top > 1e-9 * top[-1]]  # those below are of the size of rounding in the largest
    K, M = sp.csr_matrix(K), None if M is None else sp.csr_matrix(M)
    return Pencil(words, K, M, values, doubts, infinite, shift, scale or shift, above, top)


def moved(pencil, by):
    """Return K - by M: its eigenvalues are less by that much, and below it negative."""
    K = sp.csr_matrix(pencil.K - by * (sp.identity(pencil.n) if pencil.M is None else pencil.M))
    return plain(K, pencil.M, by + pencil.shift, f"{pencil.words} less {by:.3g} M", pencil.scale)


def congruent(pencil, rng, decades, exact):
    """Return D K D and D M D with entries of D over so many decades up and down; the spectrum stays.

    `exact`: D of powers of two, and no entry is rounded.
    """
    d = 10.0 ** rng.uniform(-decades, decades, pencil.n)
    d = np.exp2(np.round(np.log2(d))) if exact else d
    D = sp.diags(d)
    mass = sp.identity(pencil.n) if pencil.M is None else pencil.M
    K, M = (sp.csr_matrix(D @ X @ D) for X in (pencil.K, mass))
    # A product of three roundings must not spoil the symmetry.
    K, M = (sp.csr_matrix(sp.triu(X) + sp.triu(X, 1).T) for X in (K, M))
    doubts = pencil.doubts if exact else 4 * pencil.doubts
    return replace(pencil, words=f"{pencil.words}, scaled 1e±{decades}", K=K, M=M, doubts=doubts)


def held(pencil, rng, share, factor):
    """Return a pencil with penalties, `factor` times the diagonal and more, on a share of its variables."""
    chosen = rng.permutation(pencil.n)[: max(1, round(share * pencil.n))]
    p = np.zeros(pencil.n)
    p[chosen] = factor * np.abs(pencil.K.diagonal()).max() * 10.0 ** rng.uniform(0, 2, len(chosen))
    K = sp.csr_matrix(pencil.K + sp.diags(p))
    return plain(K, pencil.M, pencil.shift, f"{pencil.words}, {len(chosen)} held by {factor:.0e}", pencil.scale)


def tied(pencil, rng, ties, factor, most=2):
    """Return a pencil with variables tied by p a aᵀ, a of two entries (1, -1), or of up to `most`.

    p is `factor` times the largest diagonal. The spectrum is that of the stored numbers. From a factor of 1e16 on
    they have lost what was there before: then it is the one that was meant, and a rounding moves it by more.
    """
    n = pencil.n
    B, Z = constraints(n, rng, ties, 2, most)
    p = factor * np.abs(pencil.K.diagonal()).max() * rng.uniform(1, 2, ties)
    K = sp.csr_matrix(pencil.K + B.T @ sp.diags(p) @ B)
    K = sp.csr_matrix(sp.triu(K) + sp.triu(K, 1).T)
    M = sp.identity(n, format="csr") if pencil.M is None else pencil.M
    stored = (K.toarray(), M.toarray())
    # With a·x in the place of each pivot the large entries cancel, in longer numbers, and leave what is stored.
    pivots = np.setdiff1d(np.arange(n), Z.free)
    pivots = pivots[np.argsort(abs(B[:, pivots]).argmax(axis=0).A1)]
    T = np.eye(n)
    T[pivots] = -B.toarray() / B.toarray()[np.arange(ties), pivots][:, None]
    T[pivots, pivots] = 1 / B.toarray()[np.arange(ties), pivots]
    words = f"{pencil.words}, {ties} ties of {2 if most == 2 else f'2 to {most}'} by {factor:.0e}"
    try:
        reduced = _in_coordinates(stored[0], T, pivots)
        values, doubts, above = finite_spectrum(reduced, T.T @ stored[1] @ T, pencil.shift, T, stored)
    except np.linalg.LinAlgError:  # rounding has made it indefinite: as meant, within what a rounding moves
        meant = (Z.basis.T @ X @ Z.basis for X in (pencil.K, M))
        values, doubts, _ = finite_spectrum(*meant, pencil.shift, Z.basis.toarray(), stored)
        above = rank(M) - len(values)
    infinite = n - len(values) - above
    return Pencil(words, K, pencil.M, values, doubts, infinite, pencil.shift, pencil.scale, above)


def _in_coordinates(K, T, pivots):
    """Return Tᵀ K T, T the identity but for the rows of pivots, summed in long doubles."""
    long = K.astype(np.longdouble)
    rows = T[pivots].astype(np.longdouble)
    keep = np.ones(len(K), np.longdouble)
    keep[pivots] = 0
    for _ in range(2):
        change = np.zeros_like(long)
        for row, pivot in zip(rows, pivots, strict=True):
            for j in np.flatnonzero(row):
                change[:, j] += row[j] * long[:, pivot]
        long = (long * keep + change).T
    return np.asarray(long, float)


class Free(NamedTuple):
    """What constraints leave free: those variables, and a basis (n, free) of all that fulfils them."""

    free: np.ndarray
    basis: sp.csr_matrix


def constraints(n, rng, rows, least=1, most=4):
    """Return rows, each on variables of its own, that hold one, tie two or weigh more, and what is left free."""
    left = list(rng.permutation(n))
    B, pivots = np.zeros((rows, n)), []
    for i in range(rows):
        columns = [left.pop() for _ in range(int(rng.integers(least, most + 1)))]
        weights = np.array([1.0, -1.0]) if len(columns) == 2 else rng.uniform(0.5, 2, len(columns))
        B[i, columns] = weights
        pivots.append(columns[0])
    free = np.setdiff1d(np.arange(n), pivots)
    Z = np.zeros((n, len(free)))
    Z[free, np.arange(len(free))] = 1.0
    Z[pivots] = -(B[:, free] / B[np.arange(rows), pivots][:, None])
    return sp.csr_matrix(B), Free(free, sp.csr_matrix(Z))


def constrained(pencil, rng, rows, size, double=False):
    """Return a pencil with multipliers, one for each of so many constraints, or two as Code_Aster writes them.

    `size` is that of the constraints' coefficients beside the stiffness.
    """
    B, Z = constraints(pencil.n, rng, rows)
    M = sp.identity(pencil.n, format="csr") if pencil.M is None else pencil.M
    b = float(f"{size * np.abs(pencil.K.diagonal()).mean():.3g}")
    identity = sp.identity(rows)
    if double:
        blocks = [[pencil.K, b * B.T, b * B.T], [b * B, -b * identity, b * identity],
                  [b * B, b * identity, -b * identity]]  # fmt: skip
    else:
        blocks = [[pencil.K, b * B.T], [b * B, None]]
    K = sp.csr_matrix(sp.bmat(blocks))
    mass = sp.csr_matrix((M.data, M.indices, np.append(M.indptr, np.full(K.shape[0] - pencil.n, M.nnz))), K.shape)
    values, doubts, above = finite_spectrum(*(Z.basis.T @ X @ Z.basis for X in (pencil.K, M)), pencil.shift)
    kind = "double" if double else "single"
    words = f"{pencil.words}, {rows} {kind} multipliers of {size:.0e}"
    infinite, top = K.shape[0] - len(values) - above, values[-6:] if not above else None
    return Pencil(words, K, mass, values, doubts, infinite, pencil.shift, pencil.scale, above, top)


def weighted(pencil, rng, share, factor):
    """Return a pencil whose masses are so many times larger on a share of its variables."""
    chosen = rng.permutation(pencil.n)[: max(1, round(share * pencil.n))]
    M = sp.identity(pencil.n) if pencil.M is None else pencil.M
    m = np.zeros(pencil.n)
    m[chosen] = factor * M.diagonal().max()
    M = sp.csr_matrix(M + sp.diags(m))
    words = f"{pencil.words}, {len(chosen)} masses of {factor:.0e}"
    definite = bool(pencil.values[0] > 1e-3 * pencil.scale)
    return replace(plain(pencil.K, M, pencil.shift, words, pencil.scale), definite=definite)


def low_rank_mass(pencil, rng, share):
    """Return a pencil whose mass is CᵀC without zero rows, of a rank that is a share of the variables."""
    n = pencil.n
    m = max(4, round(share * n))
    # Neighbouring elements share an end, as cells with one point of quadrature do.
    ends = np.linspace(0, n - 1, m + 1).round().astype(int)
    C = sp.lil_matrix((m, n))
    for i in range(m):
        columns = np.arange(ends[i], ends[i + 1] + 1)
        C[i, columns] = rng.uniform(0.5, 1.5, len(columns))
    mass = 1.0 if pencil.M is None else float(pencil.M.diagonal().mean())
    C = C.tocsr()
    M = sp.csr_matrix(mass * (C.T @ C))
    M = sp.csr_matrix((M + M.T) / 2)
    return plain(pencil.K, M, pencil.shift, f"{pencil.words}, mass of rank {m}", pencil.scale)


# --- answers ---------------------------------------------------------------------------


def nearest(pencil, target, k):
    """Return the numbers of the k nearest to a target, and whether the last of them is beyond doubt."""
    distance = np.abs(pencil.values - target)
    order = np.argsort(distance, kind="stable")
    chosen = np.sort(order[:k])
    sure = len(order) <= k or distance[order[k]] - distance[order[k - 1]] > 10 * pencil.within[order[k]]
    return chosen, sure


def agrees(found, pencil, chosen):
    """Say whether eigenvalues are those of these numbers."""
    found = np.sort(np.asarray(found, float))
    return len(found) == len(chosen) and bool(
        (np.abs(found - pencil.values[chosen]) <= pencil.within[chosen]).all()
    )


def has_top(found, pencil):
    """Say whether eigenvalues are the largest."""
    found = np.sort(np.asarray(found, float))
    right = pencil.top[len(pencil.top) - len(found) :]
    within = pencil.within[-len(found) :] if not pencil.above else 1e-6 * np.abs(right)
    return bool((np.abs(found - right) <= within).all())


def gaps(pencil, most):
    """Return the numbers i up to `most` for which nothing lies near the middle between values i and i + 1."""
    values, within = pencil.values[: most + 2], pencil.within[: most + 2]
    return np.flatnonzero(np.diff(values) > 100 * (within[1:] + within[:-1]) + 1e-9 * pencil.scale)
