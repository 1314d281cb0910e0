"""`ReducedOperator`: M⁻¹H as a symmetric operator on blocks of vectors, without the eigenpairs that are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.estimates.mass_coordinates import mass_coordinates
from sparsehess.eigen.estimates.random_blocks import random_signs, standard_normal
from sparsehess.eigen.problem.block_products import BlockProduct
from sparsehess.eigen.problem.hermitian_problem import problem_of
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.errors import InputError
from sparsehess.operators.structure import NOTHING, Structure
from sparsehess.runtime import agreement, on_root, require_real

if TYPE_CHECKING:
    from petsc4py import PETSc

    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

_EPS = float(np.finfo(float).eps)

# A vector to deflate that keeps less of its length beside those before is a copy of one of them.
_COPY = 0.1


class ReducedOperator:
    """M⁻¹H of a problem, symmetric in its inner product, on the complement of what is known.

    Collective to make and to use. It has the eigenvalues of H x = λ M x. `mass_coordinates` has the coordinates of
    vectors and the inner product.

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
    copies
        How often each eigenvalue stands in the operator: twice in the real form of a complex Hermitian matrix.
    size
        How many eigenvalues the matrix has: n, of a real form half of that. Multiplicities of atoms are of these.
    total
        Dimension of the space that is left.
    products
        Products with H so far.
    noise
        Relative error of a product.
    plain
        Whether the inner product is the ordinary one.

    Raises
    ------
    InputError
        M is singular or not positive definite, or the eigenpairs are not of this problem.
    """

    def __init__(self, problem: EigenProblem, deflate: Spectrum | None = None):
        self.problem, self.layout, self.comm, self.n = problem, problem.layout, problem.comm, problem.n
        self.copies, self.size, self.products = problem.copies, problem.n // problem.copies, 0
        self._coordinates = mass_coordinates(problem)
        self.plain = self._coordinates.plain
        self.noise = max(_EPS, problem.relative_error, self._coordinates.noise)
        self._H = BlockProduct(problem.A, self.layout)
        self._deflated = self._dual_of_deflated = np.empty((self.layout.n_local, 0), order="F")
        try:
            atoms = self._deflate_null_vectors() + self._deflate_pairs(deflate)
        except BaseException:
            self.close()  # every rank is here: what raises above raises on all
            raise
        merged = _merge_atoms(atoms, problem.zero if len(atoms) > 1 else 0.0)
        self.atoms = tuple((value, times // self.copies) for value, times in merged)
        self.total = self.n - self._deflated.shape[1]

    @property
    def told(self) -> Structure:
        """What is known exactly of the problem, where nothing is deflated."""
        return NOTHING if self._deflated.shape[1] else self.problem.told

    # --- deflation ---

    def _deflate_null_vectors(self) -> list[tuple[float, int]]:
        """Deflate the null vectors of the problem; return their atom."""
        if not self.problem.null:
            return []
        Q = self.orthonormal_basis(self._block_of(self.problem.null))
        self._deflate_basis(Q)
        return [(0.0, Q.shape[1])] if Q.shape[1] else []

    def _deflate_pairs(self, known: Spectrum | None) -> list[tuple[float, int]]:
        """Deflate eigenpairs but for copies of null vectors; return their atoms."""
        if known is None or not known.converged:
            return []
        with agreement(self.comm):
            for vector in known.vectors:
                if vector.getSizes() != (self.layout.n_local, self.layout.n):
                    raise InputError(
                        f"an eigenvector to deflate has sizes {vector.getSizes()}, "
                        f"the Hessian {(self.layout.n_local, self.layout.n)}"
                    )
        values, X = known.eigenvalues, self._block_of(known.vectors)
        if self.copies == 2:  # beside each x also ix, which is orthogonal to it
            values, X = np.repeat(values, 2), _with_times_i(X)
        sizes = self.dots(X, X)
        X = self.project(X)
        kept = np.flatnonzero(self.dots(X, X) > _COPY**2 * sizes)
        Q = self.orthonormal_basis(self.project(X[:, kept]))
        if Q.shape[1] < len(kept):
            raise InputError("the eigenvectors to deflate are linearly dependent")
        self._deflate_basis(np.hstack([self._deflated, Q]))
        return [(float(value), 1) for value in values[kept]]

    def _deflate_basis(self, Q: np.ndarray) -> None:
        """Deflate the span of an orthonormal basis."""
        self._deflated = np.asfortranarray(Q)
        self._dual_of_deflated = self.dual(self._deflated)

    def _block_of(self, vectors: Sequence[PETSc.Vec]) -> np.ndarray:
        """Return vectors of the problem as a block in the coordinates of this."""
        block = np.empty((self.layout.n_local, len(vectors)), order="F")
        for column, vector in enumerate(vectors):
            block[:, column] = vector.getArray(readonly=True)
        return self._coordinates.of_vectors(block)

    def project(self, X: np.ndarray) -> np.ndarray:
        """Return X without its part in the deflated vectors.

        Collective.
        """
        if self._deflated.shape[1]:
            for _ in range(2):  # once leaves what cancellation leaves
                X = X - combine(self._deflated, self.sum_over_ranks(self._dual_of_deflated.T @ X))
        return np.asfortranarray(X)

    @property
    def dual_of_deflated(self) -> np.ndarray:
        """(n_local, m) what is deflated, as the ordinary inner product takes it."""
        return self._dual_of_deflated

    def deflated_diagonal(self) -> np.ndarray:
        """Return (n_local,) the diagonal of the projector on what is deflated.

        Not collective. For standard problems.
        """
        return np.einsum("ij,ij->i", self._deflated, self._dual_of_deflated)

    # --- products and inner products ---

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return the image of a block (n_local, k) of the space that is left.

        Collective. The array returned belongs to the operator, and the next call overwrites it; its columns are
        contiguous.
        """
        Y = self._coordinates.apply(self._H, X)
        self.products += X.shape[1]
        if self._deflated.shape[1]:  # rounding brings back what was taken out, and large eigenvalues blow it up
            Y -= combine(self._deflated, self.sum_over_ranks(self._dual_of_deflated.T @ Y))
        return Y

    def form(self, X: np.ndarray) -> np.ndarray:
        """Return what the ordinary inner product takes to give the form of the operator; nothing is deflated.

        Collective. H X, or where masses are scaled away M^(-1/2) H M^(-1/2) X; overwritten by the next call.
        """
        self.products += X.shape[1]
        return self._coordinates.apply(self._H, X) if self.plain else self._H(X)

    def dual(self, X: np.ndarray) -> np.ndarray:
        """Return M X, which is X itself where the inner product is the ordinary one.

        Collective.
        """
        return self._coordinates.dual(X)

    def dots(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Return (k,) inner products of the columns of two blocks.

        Collective.
        """
        return self.sum_over_ranks(np.einsum("ki,ki->k", self.dual(X).T, Y.T))

    def gram(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Return XᵀMY, the same on every rank.

        Collective.
        """
        return self.sum_over_ranks(X.T @ self.dual(Y))

    def sum_over_ranks(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of small arrays over ranks.

        Collective.
        """
        if self.comm.size > 1:
            array = np.ascontiguousarray(array)
            self.comm.Allreduce(MPI.IN_PLACE, array)
        return array

    def orthonormal_basis(self, X: np.ndarray) -> np.ndarray:
        """Return an orthonormal basis of the span of a block; what is dependent to 1e-8 is left out.

        Collective. By the Gram matrix, twice (Stathopoulos and Wu 2002, "A block orthogonalization procedure with
        constant synchronization requirements").
        """
        for _ in range(3):
            step, weakest = on_root(self.comm, _whitening, self.gram(X, X))
            X = combine(X, step)
            if weakest > 0.5:
                break
        return X

    @property
    def best_starts(self) -> str:
        """Which random vectors serve best, see `random_vectors`.

        Signs have the least variance (they are exact for diagonal matrices), but are none any more once projected;
        then points on the sphere are best, whose quadratures have weights that sum to one and are unbiased.
        """
        return "sphere" if self.atoms else "signs"

    def random_vectors(self, numbers: Sequence[int], seed: int, kind: str = "signs") -> np.ndarray:
        """Return a block of random vectors z with E[z zᵀM] = I on the space that is left.

        Collective.

        Parameters
        ----------
        numbers
            Which of the vectors of this seed.
        kind
            `signs`, or `sphere`: uniform on the sphere with zᵀMz = `total`.
        """
        draw = random_signs if kind == "signs" else standard_normal
        Z = self.project(self._coordinates.isotropic(draw(self.layout, numbers, seed)))
        if kind == "sphere":
            Z *= np.sqrt(self.total / self.dots(Z, Z))
        return Z

    def close(self) -> None:
        """Destroy the PETSc objects that were made here.

        Collective.
        """
        self._H.close()
        self._coordinates.close()


@contextmanager
def reduced_operator(
    matrix: MatrixLike | EigenProblem,
    *,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    comm: MPI.Comm | None = None,
    deflate: Spectrum | None = None,
    hermitian: bool = False,
) -> Iterator[ReducedOperator]:
    """Give the operator of a problem, or of what `EigenProblem.of` makes one of, for the length of a block.

    Collective.

    Parameters
    ----------
    hermitian
        Whether complex matrices may be given where scalars are real: then it is that of their real form.
    """
    require_real("an estimate from random real vectors")
    source: AbstractContextManager[EigenProblem]
    if not isinstance(matrix, EigenProblem):
        made = problem_of if hermitian else EigenProblem.of
        source = made(matrix, mass=mass, nullspace=nullspace, comm=comm)
    elif mass is None and nullspace is None:
        source = nullcontext(matrix)
    else:
        raise InputError("an EigenProblem has its own mass and null vectors: leave out mass and nullspace")
    with source as problem, closing(ReducedOperator(problem, deflate)) as operator:
        yield operator


def combine(X: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return X @ factors with contiguous columns, as X has them: NumPy's own product would have contiguous rows.

    Not collective.
    """
    return np.matmul(factors.T, X.T).T


def _with_times_i(X: np.ndarray) -> np.ndarray:
    """Return x and ix in turn for the columns x of a block, whose rows are real and imaginary parts in turn."""
    columns = np.ascontiguousarray(X.T)
    turned = (1j * columns.view(np.complex128)).view(np.float64)
    return np.stack([columns, turned], axis=1).reshape(2 * len(columns), -1).T


def _merge_atoms(atoms: list[tuple[float, int]], near: float) -> tuple[tuple[float, int], ...]:
    """Return atoms ascending, those within rounding of each other as one."""
    merged: list[tuple[float, int]] = []
    for value, times in sorted(atoms):
        if merged and value - merged[-1][0] <= near:
            merged[-1] = (merged[-1][0], merged[-1][1] + times)
        else:
            merged.append((value, times))
    return tuple(merged)


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
