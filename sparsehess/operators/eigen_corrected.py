"""`EigenCorrected`: a Hessian whose eigenvectors are Kronecker products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Eigenvalues, apply_to_eigenvalues
from sparsehess.operators.matrix_like import is_sparse, mat_of
from sparsehess.operators.matrix_vectors import Grid
from sparsehess.operators.operator import Operator
from sparsehess.operators.solutions import inverses
from sparsehess.operators.tall_skinny_qr import local_array, small_eigh
from sparsehess.operators.wanted import Wanted, choose
from sparsehess.runtime import agreement, communicator, destroy
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import Self

    from mpi4py import MPI
    from petsc4py import PETSc

    from sparsehess.operators.matrix_like import HasMat, LocalMatrix


_EPS = float(np.finfo(float).eps)

# A factor is symmetric to this part of its size.
SYMMETRY = 1e-12


class EigenCorrected(Operator):
    """H = (Q_A ⊗ Q_B) diag(s) (Q_A ⊗ Q_B)ᵀ: a Hessian whose eigenvectors are Kronecker products.

    *Collective* to make and to use. All eigenvalues are known: s. EKFAC is of this form, and so are functions of
    Kronecker products.

    Parameters
    ----------
    QA, QB
        (p, p) and (q, q) orthogonal, the same on every rank.
    s
        (n_local,) eigenvalues, in the layout of `Grid(p, q)`: number i q + j is that of columns i of QA, j of QB.
    comm
        Communicator; default this process alone.
    errors
        (n_local,) how far rounding may have moved s; default the last digit of the largest.

    Attributes
    ----------
    QA, QB, s
        As given.
    grid
        How vectors of p q numbers lie over the ranks.

    Raises
    ------
    InputError
        A matrix is not orthogonal, shapes do not fit.

    References
    ----------
    George et al. 2018, "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis", section 3.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.EigenCorrected(np.eye(2), np.eye(2), [4.0, 1.0, 3.0, 2.0]) as H:
    ...     print(H.product(np.ones(4)), H.spectrum(2))
    [4. 1. 3. 2.] [1. 2.]
    """

    def __init__(
        self,
        QA: np.ndarray,
        QB: np.ndarray,
        s: np.ndarray,
        *,
        comm: MPI.Comm | None = None,
        errors: np.ndarray | None = None,
    ):
        comm = communicator(comm)
        with agreement(comm):
            self.QA, self.QB = (_orthogonal(Q, name) for Q, name in ((QA, "QA"), (QB, "QB")))
        self.grid = Grid(len(self.QA), len(self.QB), comm)
        self.s = local_array(s, self.grid.layout, "s")
        if self.s.ndim != 1:
            raise InputError(f"s must be the eigenvalues (n_local,), not of shape {self.s.shape}")
        self._errors = errors
        self._in_columns = self.grid.to_columns(self.grid.matrix(self.s))
        self._make_shell(self.grid.layout)

    @classmethod
    def of(cls, matrix: PETSc.Mat | HasMat, A: LocalMatrix, B: LocalMatrix) -> EigenCorrected:
        """Return the matrix with the eigenvectors of A ⊗ B that is nearest to another in the Frobenius norm.

        Collective. s is the diagonal of Qᵀ H Q (George et al. 2018): its trace is that of H. As many
        products with H as it has rows.

        Parameters
        ----------
        matrix
            PETSc Mat, or an object that has one as `mat`, in the layout of `Grid(p, q)`.
        A, B
            Symmetric factors, dense or SciPy sparse, the same on every rank.

        Raises
        ------
        InputError
            LocalMatrixs are not symmetric, or rows of the matrix lie otherwise on the ranks.
        """
        mat = mat_of(matrix)
        comm = communicator(mat.comm)
        QA, QB = (eigenbasis(comm, factor, name)[1] for factor, name in ((A, "A"), (B, "B")))
        grid = Grid(len(QA), len(QB), comm)
        if mat.getLocalSize()[0] != grid.layout.n_local:
            raise InputError(
                f"the matrix has {mat.getLocalSize()[0]} rows on rank {comm.rank}, "
                f"the product of its factors {grid.layout.n_local}"
            )
        x, y = mat.createVecRight(), mat.createVecLeft()
        s = np.zeros((grid.rows.n_local, grid.q))
        for i in range(grid.p):
            for j in range(grid.q):
                x.setArray(np.outer(QA[grid.own_rows, i], QB[:, j]))
                mat.mult(x, y)
                value = x.dot(y)
                if grid.rows.start <= i < grid.rows.stop:
                    s[i - grid.rows.start, j] = value
        destroy(x, y)
        return cls(QA, QB, s.ravel(), comm=comm)._keep_communicator(mat.comm)

    @classmethod
    def from_samples(
        cls, A: LocalMatrix, B: LocalMatrix, left: np.ndarray, right: np.ndarray, *, comm: MPI.Comm | None = None
    ) -> EigenCorrected:
        """Return the corrected form of the mean of g gᵀ over samples g = l ⊗ r, as layers give them.

        Collective. s = mean((Q_Aᵀ l)² ⊗ (Q_Bᵀ r)²).

        Parameters
        ----------
        A, B
            Symmetric factors, dense or SciPy sparse, the same on every rank.
        left, right
            (samples, p) and (samples, q) of this rank, any number.
        comm
            Communicator.

        Raises
        ------
        InputError
            LocalMatrixs are not symmetric, shapes do not fit, or no rank has a sample.
        """
        comm = communicator(comm)
        QA, QB = (eigenbasis(comm, factor, name)[1] for factor, name in ((A, "A"), (B, "B")))
        grid = Grid(len(QA), len(QB), comm)
        with agreement(comm):
            left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
            if left.ndim != 2 or left.shape != (len(right), grid.p) or right.shape != (len(left), grid.q):
                raise InputError(
                    f"samples must be (m, {grid.p}) and (m, {grid.q}), not {left.shape} and {right.shape}"
                )
        samples = comm.allreduce(len(left))
        if not samples:
            raise InputError("no rank has a sample")
        left, right = (left @ QA) ** 2, (right @ QB) ** 2
        s = np.empty((grid.rows.n_local, grid.q))
        for rank in range(comm.size):  # one share after another: none is larger than a rank's own
            begin, end = grid.rows.starts[rank : rank + 2]
            part = np.ascontiguousarray(left[:, begin:end].T @ right)
            comm.Reduce(part, s if comm.rank == rank else None, root=rank)
        return cls(QA, QB, s.ravel() / samples, comm=comm)

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,).

        Collective.
        """
        return two_sided(self.grid, self.QA, self.QB, vector, lambda X: self._in_columns * X)

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,).

        Collective.
        """
        columns = self.grid.to_columns(self.grid.matrix(self.s) @ (self.QB**2).T)
        return self.grid.to_rows(self.QA**2 @ columns).ravel()

    def trace(self) -> float:
        """Return the trace, the sum of s.

        Collective.
        """
        return self.comm.allreduce(float(self.s.sum()))

    @property
    def knows_eigenvalues(self) -> bool:
        """True: they are s. Not collective."""
        return True

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues.

        Not collective.
        """
        return Eigenvalues.single(self.comm, self.s, self._errors)

    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved `diagonal`.

        Collective.
        """
        columns = self.grid.to_columns(self.grid.matrix(np.abs(self.s)) @ (self.QB**2).T)
        return _EPS * self.grid.to_rows(self.QA**2 @ columns).ravel()

    @property
    def knows_pairs(self) -> bool:
        """True: they are products of columns. Not collective."""
        return True

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), orthonormal eigenvectors (n_local, m)) that are wanted, ascending.

        Collective. Of equal ones those of the first columns of QA, then of QB.
        """
        layout = self.layout
        chosen = choose(self.eigenvalues(), np.arange(layout.start, layout.stop), wanted)
        i, j = np.divmod(chosen.labels, self.grid.q)
        left, right = self.QA[self.grid.own_rows][:, i], self.QB[:, j]
        columns = left[:, None, :] * right[None, :, :]
        return chosen.values, np.asfortranarray(columns.reshape(layout.n_local, len(chosen.values)))

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._multiplied(b, 1 / (self._in_columns + shift))

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        largest = max(self.eigenvalues().largest(), abs(shift))
        return self._multiplied(b, inverses(self._in_columns + shift, largest))

    def _multiplied(self, b: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Return the columns of b multiplied by the matrix of these eigenvalues, given as local columns."""
        out = np.empty_like(b)
        for j in range(b.shape[1]):
            out[:, j] = two_sided(self.grid, self.QA, self.QB, b[:, j], lambda X: s * X)
        return out

    @property
    def solves_directly(self) -> bool:
        """True: solutions are by eigenvalues. Not collective."""
        return True

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> EigenCorrected:
        """Return f(H), of the same kind.

        Collective.
        """
        with agreement(self.comm):
            s = apply_to_eigenvalues(f, self.s)
        return EigenCorrected(self.QA, self.QB, s, comm=self.comm)._keep_communicator(self._kept_communicator)

    @classmethod
    def weighted(cls, items: Sequence[tuple[float, Self]], shift: float) -> Self | None:
        """Return Σ a H + shift I of (a, H) with the same eigenvectors; None where these differ.

        Collective.
        """
        first = items[0][1]
        if any(H.QA is not first.QA or H.QB is not first.QB for _, H in items):
            return None
        s = np.sum([a * H.s for a, H in items], axis=0) + shift
        return cls(first.QA, first.QB, s, comm=first.comm)._keep_communicator(first._kept_communicator)


def two_sided(
    grid: Grid, QA: np.ndarray, QB: np.ndarray, vector: np.ndarray, middle: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return (Q_A ⊗ Q_B) m((Q_A ⊗ Q_B)ᵀ v) for a map of coefficients, which come as local columns (p, q_local).

    Collective.
    """
    inside = QA.T @ grid.to_columns(grid.matrix(vector) @ QB)
    return (grid.to_rows(QA @ middle(inside)) @ QB.T).ravel()


def eigenbasis(comm: MPI.Comm, factor: LocalMatrix, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (eigenvalues, eigenvectors) of a symmetric factor that every rank has.

    Collective.
    """
    factor = dense(factor)
    if not is_symmetric(factor):
        raise InputError(f"factor {name} must be symmetric to have an orthogonal eigenbasis")
    return small_eigh(comm, factor)


def dense(factor: LocalMatrix) -> np.ndarray:
    """Return a factor as a dense array.

    Not collective.
    """
    return reals(factor.toarray() if is_sparse(factor) else factor, "factors")


def is_symmetric(factor: LocalMatrix) -> bool:
    """Return whether a factor is symmetric to rounding.

    Not collective.
    """
    return bool(abs(factor - factor.T).max() <= SYMMETRY * abs(factor).max())


def _orthogonal(Q: np.ndarray, name: str) -> np.ndarray:
    Q = reals(Q, name)
    if Q.ndim != 2 or Q.shape[0] != Q.shape[1] or not len(Q):
        raise InputError(f"{name} must be square, not {Q.shape}")
    if not np.abs(Q.T @ Q - np.eye(len(Q))).max() <= 1e-10:
        raise InputError(f"{name} is not orthogonal")
    return Q
