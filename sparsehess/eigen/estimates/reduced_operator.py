"""`Reduction`: M⁻¹A, symmetric in the inner product of M, multiplied with blocks of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.estimates.block_lanczos import function_of
from sparsehess.eigen.problem.block_products import Multiplier
from sparsehess.eigen.problem.mass_solver import MassSolver, lone_diagonal
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, agreement, on_root, require_real
from sparsehess.runtime.random_numbers import hashed

_EPS = np.finfo(float).eps

# A vector to deflate that keeps less of its length beside those before is a copy of one of them.
_COPY = 0.1

# Error of M^(-1/2) in starting vectors, which have to be isotropic to far less than what is estimated from them.
_ISOTROPIC = 1e-11


class Reduction:
    """M⁻¹A of a problem, in coordinates where the inner product is cheap, without what is known of it.

    Collective to make and to use. For M = I nothing changes. A diagonal M is scaled away: B = M^(-1/2) A M^(-1/2)
    acts on y = M^(1/2) x, and the inner product is the ordinary one. For any other M the vectors stay as they are,
    M⁻¹ is a solve, and the inner product is xᵀMy. In all three cases the operator is symmetric with respect to its
    inner product and has the eigenvalues of A x = λ M x.

    Null vectors of the problem and given eigenpairs are *deflated*: the operator acts on what is M-orthogonal to
    them, and they are `atoms` of the spectrum, known exactly.

    Parameters
    ----------
    problem
        What is estimated; it must outlive this.
    deflate
        A `Spectrum` of the problem, whose pairs are taken as exact.

    Attributes
    ----------
    atoms
        ((eigenvalue, multiplicity), ...) of what is deflated, ascending.
    total
        Dimension of the space that is left.
    products
        Products with A so far.
    noise
        Relative error of a product.

    Raises
    ------
    InputError
        M is singular or not positive definite, or the eigenpairs are not of this problem.
    """

    def __init__(self, problem: EigenProblem, deflate: Spectrum | None = None):
        self.problem, self.layout, self.comm, self.n = problem, problem.layout, problem.comm, problem.n
        self.products = 0
        self.noise = max(_EPS, problem.relative_error)
        self._A = Multiplier(problem.A, self.layout)
        self._scale: np.ndarray | None = None
        self._mass: MassSolver | None = None
        try:
            if problem.M is not None:
                self._take_mass()
            self._deflate(deflate)
        except Exception:
            self.close()  # every rank is here: what raises above raises on all
            raise
        self.total = self.n - self._D.shape[1]

    def _take_mass(self) -> None:
        problem = self.problem
        massless = problem.mass_diagonal[2]
        if massless:
            raise InputError(
                f"the mass matrix has {massless} zero rows, and as many eigenvalues are infinite: estimates are "
                "for a positive definite mass; condense those variables out, or count by inertia"
            )
        found = lone_diagonal(problem.M, self.comm)
        if found is not None:
            self._scale = 1 / np.sqrt(found)
        else:
            self._mass = MassSolver(problem.M, self.layout)
            self.noise = max(self.noise, self._mass.noise)

    def _deflate(self, deflate: Spectrum | None) -> None:
        atoms: list[tuple[float, int]] = []
        self._D = self._MD = np.empty((self.layout.n_local, 0), order="F")
        null = self._columns(self.problem.null)
        if null.shape[1]:
            self._D = self.orthonormal(null)
            self._MD = self.dual(self._D)
            atoms.append((0.0, self._D.shape[1]))
        if deflate is not None and deflate.converged:
            with agreement(self.comm):
                for vector in deflate.vectors:
                    if vector.getSizes() != (self.layout.n_local, self.layout.n):
                        raise InputError(
                            f"an eigenvector to deflate has sizes {vector.getSizes()}, "
                            f"the Hessian {(self.layout.n_local, self.layout.n)}"
                        )
            X = self._columns(deflate.vectors)
            sizes = self.dots(X, X)
            X = self.project(X)
            kept = np.flatnonzero(self.dots(X, X) > _COPY**2 * sizes)
            X = self.project(X[:, kept])
            Q = self.orthonormal(X)
            if Q.shape[1] < len(kept):
                raise InputError("the eigenvectors to deflate are linearly dependent")
            values = deflate.eigenvalues[kept]
            self._D = np.asfortranarray(np.hstack([self._D, Q]))
            self._MD = self.dual(self._D)
            atoms += [(float(value), 1) for value in values]
        self.atoms = _merged(atoms, self.problem.zero if len(atoms) > 1 else 0.0)

    def _columns(self, vectors: list[PETSc.Vec]) -> np.ndarray:
        """Return vectors of the problem as a block in the coordinates used here."""
        block = np.empty((self.layout.n_local, len(vectors)), order="F")
        for column, vector in enumerate(vectors):
            block[:, column] = vector.getArray(readonly=True)
        return block if self._scale is None else np.asfortranarray(block / self._scale[:, None])

    # --- products and inner products ---

    @property
    def plain(self) -> bool:
        """Whether the inner product is the ordinary one."""
        return self._mass is None

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return the image of a block (n_local, k) of the space that is left.

        Collective. The array returned belongs to the operator, and the next call overwrites it; its columns are
        contiguous.
        """
        Y = self._A(X, None if self._scale is None else self._scaled)
        if self._scale is not None:
            np.multiply(Y.T, self._scale, out=Y.T)
        self.products += X.shape[1]
        if self._mass is not None:
            Y = self._mass.solve(Y)
        if self._D.shape[1]:  # rounding brings back what was taken out, and the largest eigenvalues blow it up
            Y -= combined(self._D, self.summed(self._MD.T @ Y))
        return Y

    def _scaled(self, rows: np.ndarray, into: np.ndarray) -> None:
        np.multiply(rows, self._scale, out=into)

    def dual(self, X: np.ndarray) -> np.ndarray:
        """Return M X, which is X itself where the inner product is the ordinary one.

        Collective.
        """
        return X if self._mass is None else self._mass.product(X)

    def dots(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Return (k,) inner products of the columns of two blocks.

        Collective.
        """
        return self.summed(np.einsum("ki,ki->k", self.dual(X).T, Y.T))

    def gram(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Return XᵀMY, the same on every rank.

        Collective.
        """
        return self.summed(X.T @ self.dual(Y))

    def summed(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of small arrays over ranks.

        Collective.
        """
        if self.comm.size > 1:
            array = np.ascontiguousarray(array)
            self.comm.Allreduce(MPI.IN_PLACE, array)
        return array

    def project(self, X: np.ndarray) -> np.ndarray:
        """Return X without its part in the deflated vectors.

        Collective.
        """
        if self._D.shape[1]:
            for _ in range(2):  # once leaves what cancellation leaves
                X = X - combined(self._D, self.summed(self._MD.T @ X))
        return np.asfortranarray(X)

    def orthonormal(self, X: np.ndarray) -> np.ndarray:
        """Return an orthonormal basis of the span of a block; what is dependent to 1e-8 is left out.

        Collective. By the Gram matrix, twice (Stathopoulos and Wu 2002, "A block orthogonalization procedure with
        constant synchronization requirements").
        """
        for _ in range(3):
            step, weakest = on_root(self.comm, _whitening, self.gram(X, X))
            X = combined(X, step)
            if weakest > 0.5:
                break
        return X

    # --- starting vectors ---

    def starts(self, numbers, seed: int, kind: str = "signs") -> np.ndarray:
        """Return a block of random vectors z with E[z zᵀM] = I on the space that is left.

        Collective.

        Parameters
        ----------
        numbers
            Which of the vectors of this seed.
        kind
            `signs`, or `sphere`: uniform on the sphere with zᵀMz = `total`.
        """
        Z = self.signs(numbers, seed) if kind == "signs" else self._normal(numbers, seed)
        if self._mass is not None:
            Z = self._spread(Z)
        Z = self.project(Z)
        if kind == "sphere":
            Z *= np.sqrt(self.total / self.dots(Z, Z))
        return Z

    def signs(self, numbers, seed: int) -> np.ndarray:
        """Return a block of random signs, nothing deflated, in coordinates of a standard problem.

        Not collective.
        """
        rows = np.arange(self.layout.start, self.layout.stop)
        Z = np.empty((self.layout.n_local, len(numbers)), order="F")
        for column, key in enumerate(_keys(numbers, seed)):
            Z[:, column] = 1.0 - 2.0 * (hashed(rows, 2 * key) >> np.uint64(63)).astype(np.float64)
        return Z

    def _normal(self, numbers, seed: int) -> np.ndarray:
        """Return a block of standard normal numbers (Box and Muller 1958)."""
        rows = np.arange(self.layout.start, self.layout.stop)
        Z = np.empty((self.layout.n_local, len(numbers)), order="F")
        for column, key in enumerate(_keys(numbers, seed)):
            first, second = (
                ((hashed(rows, 2 * key + half) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
                for half in (0, 1)
            )
            Z[:, column] = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
        return Z

    def deflated_diagonal(self) -> np.ndarray:
        """Return (n_local,) the diagonal of the projector on what is deflated.

        Not collective. For standard problems.
        """
        return np.einsum("ij,ij->i", self._D, self._MD)

    def _spread(self, Z: np.ndarray) -> np.ndarray:
        """Return D^(-1/2) (D^(-1/2) M D^(-1/2))^(-1/2) Z, whose covariance is M⁻¹; D is M's diagonal.

        Scaled by its diagonal a mass matrix is well conditioned (Wathen 1987, "Realistic eigenvalue bounds for the
        Galerkin mass matrix"), and few Lanczos steps give the square root.
        """
        scaled = self._mass.scaled()
        root, _ = function_of(scaled, Z, _inverse_root, most=300, accuracy=_ISOTROPIC)
        return np.asfortranarray(root * scaled.scale[:, None])

    def close(self) -> None:
        """Destroy the PETSc objects that were made here.

        Collective.
        """
        self._A.close()
        if self._mass is not None:
            self._mass.close()


@contextmanager
def reduced(matrix, *, mass=None, nullspace=None, comm=None, deflate=None) -> Iterator[Reduction]:
    """Give the operator of a problem, or of what `EigenProblem.of` makes one of, for the length of a block.

    Collective.
    """
    require_real("an estimate from random real vectors")
    if isinstance(matrix, EigenProblem):
        if mass is not None or nullspace is not None:
            raise InputError("an EigenProblem has its own mass and null vectors: leave out mass and nullspace")
        operator = Reduction(matrix, deflate)
        try:
            yield operator
        finally:
            operator.close()
    else:
        with EigenProblem.of(matrix, mass=mass, nullspace=nullspace, comm=comm) as problem:
            operator = Reduction(problem, deflate)
            try:
                yield operator
            finally:
                operator.close()


def combined(X: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return X @ factors with contiguous columns, as X has them: NumPy's own product would have contiguous rows.

    Not collective.
    """
    return np.matmul(factors.T, X.T).T


def _keys(numbers, seed: int) -> list[int]:
    """Return a seed of 31 bits for each of the numbered vectors of a seed. Not collective."""
    return (hashed(np.asarray(numbers, np.int64), seed) >> np.uint64(33)).tolist()


def _merged(atoms: list[tuple[float, int]], near: float) -> tuple[tuple[float, int], ...]:
    """Return atoms ascending, those within rounding of each other as one."""
    merged: list[tuple[float, int]] = []
    for value, times in sorted(atoms):
        if merged and value - merged[-1][0] <= near:
            merged[-1] = (merged[-1][0], merged[-1][1] + times)
        else:
            merged.append((value, times))
    return tuple(merged)


def _inverse_root(values: np.ndarray) -> np.ndarray:
    if len(values) and not values.min() > 0:
        raise InputError(
            f"the mass matrix is not positive definite: scaled by its diagonal it has an eigenvalue at or below "
            f"{values.min():.1e}"
        )
    return 1 / np.sqrt(values)


def _whitening(G: np.ndarray) -> tuple[np.ndarray, float]:
    """Return W with WᵀGW = I, dependent directions left out, and the least weight among the others."""
    sizes = np.sqrt(np.maximum(np.diag(G), 0.0))
    keep = np.flatnonzero(sizes > 0)
    W, weakest = np.zeros((len(G), 0)), 1.0
    if len(keep):
        scale = 1 / sizes[keep]
        weights, V = np.linalg.eigh(scale[:, None] * (G[np.ix_(keep, keep)] + G[np.ix_(keep, keep)].T) / 2 * scale)
        strong = weights > 1e-15 * len(G) * weights[-1]
        W = np.zeros((len(G), int(strong.sum())))
        W[keep] = scale[:, None] * V[:, strong] / np.sqrt(weights[strong])
        weakest = float(weights[strong].min())
    return W, weakest
