"""Hessians made of others: congruences TᵀHT and weighted sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.operators.low_rank_update import LowRankUpdate, low_rank_update
from sparsehess.operators.matrix_like import as_operator, is_sparse, mat_of, stored
from sparsehess.operators.operator import Operator
from sparsehess.operators.tall_skinny_qr import sum_over_ranks
from sparsehess.runtime import PETSc, aij, communicator, destroy, readable_errors
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.runtime.row_layout import Layout, send_to_owners
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike

_EPS = float(np.finfo(float).eps)

# What Woodbury's formula may leave of a right-hand side, before refinement: more is left to iterations.
_SOLVED = 1e-4

# A shell's diagonal takes so many products: exact where it has no more rows, else an estimate.
_SAMPLES = 64


def congruence(H: MatrixLike, T: MatrixLike, *, comm: MPI.Comm | None = None) -> Congruence:
    """Return Tᵀ H T: a sub-block, shared or scaled parameters, a projection, an adapter.

    *Collective.* Assembled where both are, by PETSc's sparse triple product; else a shell, which needs H and T for
    as long as it lives. `selection`, `sharing`, `scaling`, `projection` and `lora` of `sparsehess.operators` make
    T for each of these.

    Parameters
    ----------
    H
        Assembled or shell: Mat, an object that has one as `mat`, or a SciPy matrix that every rank has.
    T
        (n, m): Mat, an object that has one as `mat`, or a SciPy matrix that every rank has.
    comm
        Communicator, where H is a SciPy matrix; default this process alone.

    Returns
    -------
    Congruence
        An `Operator` with `update()`, which follows a change of H. The caller closes it.

    Raises
    ------
    InputError
        T has not the rows of H.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> import sparsehess as sh
    >>> H = sp.csr_matrix(np.array([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]]))
    >>> T = sp.csr_matrix(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))  # two rows share a parameter
    >>> with sh.congruence(H, T) as shared:
    ...     print(shared.product(np.array([1.0, 0.0])), shared.trace())
    [ 2. -1.] 4.0
    """
    return Congruence(H, T, comm=comm)


def weighted_sum(
    items: Sequence[tuple[float, MatrixLike]], *, shift: float = 0.0, comm: MPI.Comm | None = None
) -> Operator:
    """Return Σ a H + shift I: a mean over batches, a damped matrix.

    *Collective.* Structured Hessians of one kind give one of that kind where there is one; assembled ones an
    assembled one; others a shell, which needs them for as long as it lives. Where parts of low rank stand beside
    assembled ones, or beside one structure that solves, the shell is solved with by Woodbury's formula.

    Parameters
    ----------
    items
        (a, H) pairs, H as for `congruence`.
    shift
        Added to the diagonal.
    comm
        Communicator, where all are SciPy matrices; default this process alone.

    Returns
    -------
    Operator
        The caller closes it. One that is of no kind has `update()`, which follows a change of the parts.

    Raises
    ------
    InputError
        Sizes differ, a weight is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> first, second = sh.LowRankDiagonal(1.0, np.ones((3, 1))), sh.LowRankDiagonal(2.0, np.eye(3, 1))
    >>> with first, second, sh.weighted_sum([(0.5, first), (0.5, second)], shift=1.0) as mean:
    ...     print(type(mean).__name__, mean.diagonal())
    LowRankDiagonal [3.5 3.  3. ]
    """
    items = list(items)
    if not all(isinstance(item, (tuple, list)) and len(item) == 2 for item in items):
        raise InputError("a weighted sum is of (weight, matrix) pairs")
    items = [(float(reals(a, "weights")), H) for a, H in items]
    if not items or not all(np.isfinite([shift, *(a for a, _ in items)])):
        raise InputError("a weighted sum needs a matrix at least, and finite weights")
    structured = [(a, H) for a, H in items if isinstance(H, Operator)]
    if len(structured) == len(items) and len({type(H) for _, H in structured}) == 1:
        _same_rows([H.mat for _, H in structured])
        of_one_kind = type(structured[0][1]).weighted(structured, shift)
        if of_one_kind is not None:
            return of_one_kind
    return WeightedSum(items, shift=shift, comm=comm)


class _Combined(Operator):
    """What both have in common: parts that belong to others, and a matrix that follows them."""

    def __init__(self) -> None:
        self._made: list[PETSc.Object] = []

    def close(self) -> None:
        """Destroy the matrix and what was made of it.

        Collective.
        """
        super().close()
        destroy(*self._made)
        self._made = []


class Congruence(_Combined):
    """Tᵀ H T; see `congruence`. `update()` follows a change of H."""

    def __init__(self, H: MatrixLike, T: MatrixLike, *, comm: MPI.Comm | None = None):
        super().__init__()
        H = as_operator(H, comm, self._made)
        self._parts = H, T  # shells among them live as long as this does
        self._H = _as_mat(H, None, comm, self._made)
        rows = Layout.from_local(self._H.getLocalSize()[0], communicator(self._H.comm))
        self._T = _as_mat(T, rows, None, self._made)
        if self._T.getSize()[0] != rows.n or self._T.getLocalSize()[0] != rows.n_local:
            destroy(*self._made)
            raise InputError(
                f"T must have the {rows.n} rows of H, as they lie on its ranks: give its layout to the transform"
            )
        if is_assembled(self._H) and is_assembled(self._T):
            with readable_errors("multiplying TᵀHT"):
                self._take_matrix(self._H.ptap(self._T))
            return
        self._make_shell(Layout.from_local(self._T.getLocalSize()[1], rows.comm))
        self._between = self._T.createVecLeft(), self._H.createVecLeft()
        self._made += self._between

    def update(self) -> None:
        """Take H, and T, as they are now: their entries, not where they are.

        Collective.
        """
        self._forget()
        if is_assembled(self.mat):
            self._H.ptap(self._T, result=self.mat)

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return Tᵀ H T v (m_local,) for v (m_local,).

        Collective.
        """
        if is_assembled(self.mat):
            return super().product(vector)
        x, y = self._vec(vector), self.mat.createVecLeft()
        inside, image = self._between
        self._T.mult(x, inside)
        self._H.mult(inside, image)
        self._T.multTranspose(image, y)
        out = y.getArray().copy()
        destroy(x, y)
        return out

    @property
    def diagonal_is_exact(self) -> bool:
        """Whether `diagonal` is no estimate. Collective."""
        if is_assembled(self.mat) or self.n <= _SAMPLES:
            return True
        return self._selects and _exact_diagonal(self._parts[0])

    @property
    def _selects(self) -> bool:
        """Whether each column of T has one entry at most."""
        if not is_assembled(self._T):
            return False
        _, indices, _ = self._T.getValuesCSR()
        columns = Layout.from_local(self._T.getLocalSize()[1], self.comm)
        (at,) = send_to_owners(columns, indices.astype(np.int64))
        once = np.bincount(at - columns.start, minlength=columns.n_local)
        return not self.comm.allreduce(int((once > 1).any()))

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (m_local,).

        Collective. Of a shell as exact as that of H where T only selects and scales rows, exact where T has 64
        columns at most; else an estimate from 64 random products (Bekas, Kokiopoulou, Saad 2007, equation 5).
        """
        if is_assembled(self.mat):
            return super().diagonal()
        if self.n <= _SAMPLES:
            out = np.empty(self.layout.n_local)
            for j in range(self.n):
                own = np.arange(self.layout.start, self.layout.stop) == j
                out[own] = self.product(own.astype(np.float64))[own]
            return out
        if self._selects:
            # With one entry t in a column, in row i, its diagonal is t² H_ii.
            squared, diagonal = self._T.duplicate(copy=True), self._H.getDiagonal()
            indptr, indices, values = squared.getValuesCSR()
            squared.setValuesCSR(indptr, indices, values**2)
            squared.assemble()
            image = self.mat.createVecLeft()
            squared.multTranspose(diagonal, image)
            out = image.getArray().copy()
            destroy(squared, diagonal, image)
            return out
        total = np.zeros(self.layout.n_local)
        for sample in range(_SAMPLES):
            signs = np.sign(draw_signed(self.layout, sample))
            total += signs * self.product(signs)
        return total / _SAMPLES


class WeightedSum(_Combined):
    """Σ a H + shift I; see `weighted_sum`. `update()` follows a change of the parts."""

    def __init__(
        self, items: Sequence[tuple[float, MatrixLike]], *, shift: float = 0.0, comm: MPI.Comm | None = None
    ):
        super().__init__()
        self._kept_update: list[LowRankUpdate] = []
        self._looked = False
        stored = [mat for mat in (mat_of(H) for _, H in items) if isinstance(mat, PETSc.Mat)]
        comm = stored[0].comm if stored else comm
        items = [(a, as_operator(H, comm, self._made)) for a, H in items]
        self._parts = items
        self._items = [(a, _as_mat(H, None, comm, self._made)) for a, H in items]
        self._shift = shift
        _same_rows([mat for _, mat in self._items])
        first = self._items[0][1]
        if all(is_assembled(mat) for _, mat in self._items):
            self._take_matrix(first.duplicate(copy=True))
            self.mat.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
            self._add_up()
        else:
            self._make_shell(Layout.from_local(first.getLocalSize()[0], communicator(first.comm)))

    def update(self) -> None:
        """Take the parts as they are now.

        Collective.
        """
        self._forget()
        if is_assembled(self.mat):
            self.mat.zeroEntries()
            self.mat.axpy(1.0, self._items[0][1], structure=PETSc.Mat.Structure.SUBSET_NONZERO_PATTERN)
            self._add_up()

    def _forget(self) -> None:
        """Forget what has been made of parts that are others now. Collective."""
        for one in self._kept_update:
            one.close()
        self._kept_update, self._looked = [], False
        super()._forget()

    @property
    def _update(self) -> list[LowRankUpdate]:
        """What solves where parts of low rank stand beside what can be solved with, one item; none elsewhere."""
        if not self._looked:
            parts = [(a, H, mat) for (a, H), (_, mat) in zip(self._parts, self._items, strict=True)]
            self._kept_update = [] if is_assembled(self.mat) else low_rank_update(parts, self._shift, self.layout)
            self._looked = True
        return self._kept_update

    @property
    def solves_directly(self) -> bool:
        """Whether solutions are by no iterations. Collective the first time."""
        return super().solves_directly or bool(self._update)

    def apply_inverse(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return about the solution (n_local, m); see `Operator.apply_inverse`.

        Collective.
        """
        return self._update[0].solve(b, shift) if self._update else self._solve(b, shift)

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return a solution (n_local, m): by iterations where what is no low rank is too near to singular."""
        for update in self._update:
            with np.errstate(all="ignore"):
                x = update.solve(b, shift)
                image = np.stack([self.product(column) for column in np.ascontiguousarray(x.T)], axis=1)
                both = np.stack([np.square(b - shift * x - image).sum(axis=0), np.square(b).sum(axis=0)])
                left, size = sum_over_ranks(self.comm, both)
            if (left <= _SOLVED**2 * size).all():
                return x
        return super()._solve(b, shift)

    def _add_up(self) -> None:
        """Make of the first matrix the sum."""
        (weight, _), *others = self._items
        self.mat.scale(weight)
        for a, mat in others:
            self.mat.axpy(a, mat, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
        if self._shift:
            self.mat.shift(self._shift)
        self.mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return the product (n_local,) with v (n_local,).

        Collective.
        """
        if is_assembled(self.mat):
            return super().product(vector)
        x, y = self._vec(vector), self.mat.createVecLeft()
        out = self._shift * vector
        for a, mat in self._items:
            mat.mult(x, y)
            out = out + a * y.getArray(readonly=True)
        destroy(x, y)
        return out

    @property
    def diagonal_is_exact(self) -> bool:
        """Whether `diagonal` is no estimate. Collective."""
        return is_assembled(self.mat) or all(_exact_diagonal(H) for _, H in self._parts)

    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved `diagonal`.

        Collective.
        """
        out = _EPS * np.full(self.layout.n_local, abs(self._shift))
        for (a, H), (_, mat) in zip(self._parts, self._items, strict=True):
            diagonal = mat.getDiagonal()
            own = _EPS * np.abs(diagonal.getArray(readonly=True))
            destroy(diagonal)
            out += abs(a) * (own if not isinstance(H, Operator) else own + H.diagonal_rounding())
        return out

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,), as exact as those of the parts.

        Collective.
        """
        if is_assembled(self.mat):
            return super().diagonal()
        out = np.full(self.layout.n_local, self._shift)
        for a, mat in self._items:
            diagonal = mat.getDiagonal()
            out += a * diagonal.getArray(readonly=True)
            destroy(diagonal)
        return out


def _exact_diagonal(matrix: MatrixLike) -> bool:
    """Return whether the diagonal of what a caller has is exact, as far as that tells. Collective."""
    return getattr(matrix, "diagonal_is_exact", True)


def _as_mat(matrix: MatrixLike, rows: Layout | None, comm: MPI.Comm | None, made: list[PETSc.Object]) -> PETSc.Mat:
    """Return what a caller has as a Mat; one that is made here goes to `made`."""
    matrix = stored(matrix, "what is on either side of a Hessian")
    if isinstance(matrix, PETSc.Mat):
        return matrix
    if not is_sparse(matrix):
        matrix = np.atleast_2d(reals(matrix, "a matrix"))
    matrix = scipy.sparse.csr_matrix(matrix)
    matrix = matrix.astype(reals(matrix.data, "a matrix").dtype)
    square = rows is None
    rows = rows or Layout.from_size(matrix.shape[0], comm)
    if matrix.shape[0] != rows.n or (square and matrix.shape[1] != rows.n):
        raise InputError(f"a matrix of {matrix.shape[0]} x {matrix.shape[1]} does not fit {rows.n} rows")
    own = matrix[rows.start : rows.stop]
    made.append(aij(rows, own.indptr, own.indices, own.data) if square else rectangular(rows, own))
    return made[-1]


def rectangular(rows: Layout, own: scipy.sparse.csr_matrix, columns: Layout | None = None) -> PETSc.Mat:
    """Return the AIJ matrix of local rows with global columns, which are evenly laid out if nothing is said.

    Collective. The caller destroys it.
    """
    columns = columns or Layout.from_size(own.shape[1], rows.comm)
    own = own.tocsr()
    own.sum_duplicates()
    own.sort_indices()
    csr = (own.indptr.astype(PETSc.IntType), own.indices.astype(PETSc.IntType), own.data.astype(np.float64))
    sizes = ((rows.n_local, rows.n), (columns.n_local, columns.n))
    return PETSc.Mat().createAIJ(sizes, csr=csr, comm=rows.comm)


def _same_rows(mats: list[PETSc.Mat]) -> None:
    """Raise InputError where matrices have not the same rows on every rank. Collective."""
    first = mats[0]
    comm = communicator(first.comm)
    differ = any(mat.getSizes() != first.getSizes() for mat in mats)
    if comm.allreduce(int(differ)):
        raise InputError("the matrices of a sum must have the same rows on every rank")
