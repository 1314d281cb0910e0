"""Complex Hermitian problems where PETSc's scalars are real: real symmetric ones of twice the size.

H x = λ M x with H = R + iS, M = P + iQ and x = u + iv is, in real numbers,
[[R, −S], [S, R]] [u; v] = λ [[P, −Q], [Q, P]] [u; v]: symmetric, as R and P are and S and Q are antisymmetric.
Multiplication by i, J[u; v] = [−v; u], commutes with both: Jx is an eigenvector beside each x, orthogonal to it.
So each eigenvalue stands there twice as often as it is multiple, and the inertia is twice that of H − σM (Press et
al. 1992, "Numerical Recipes in C", section 11.4).

u and v interleave, as in an array of complex numbers: an ordering sees the graph of H with every vertex twice, and
each rank has both parts of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.eigen.problem.matrix_inputs import MatrixLike, VectorsLike, as_mat, as_sparse
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.operators.matrix_like import is_sparse
from sparsehess.operators.operator import Operator
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, communicator, complex_scalars, destroy
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.storage.real_form import COMPLEX_SYMMETRIC, real_form

# A matrix is Hermitian if entries and conjugates of their mirror images agree to this part of the sizes of rows.
_HERMITIAN = 1e-10


class HermitianProblem(EigenProblem):
    """A complex Hermitian eigenproblem in real numbers: A and M are the doubled matrices.

    *Collective* to make, with `problem_of`, and to use. Vectors have real and imaginary parts in turn.
    """

    copies = 2


def problem_of(
    matrix: Hessian | Operator | MatrixLike,
    *,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    near_null: VectorsLike | None = None,
    preconditioner: Hessian | Operator | MatrixLike | None = None,
    guess: VectorsLike | None = None,
    comm: MPI.Comm | None = None,
) -> EigenProblem:
    """Return the problem for what a caller has: a `HermitianProblem` for complex matrices where scalars are real.

    Collective. See `EigenProblem.of`.

    Raises
    ------
    InputError
        As there; or a complex matrix is not Hermitian, or stands beside what has products alone.
    """
    brought: dict[str, Any] = {"nullspace": nullspace, "near_null": near_null, "guess": guess}
    if complex_scalars() or not _is_complex(matrix, mass, comm):
        return EigenProblem.of(matrix, mass=mass, preconditioner=preconditioner, comm=comm, **brought)
    owned: list = []
    try:
        A = _real_form(matrix, comm, None, owned, "the Hessian")
        rows = Layout.from_local(A.getLocalSize()[0] // 2, communicator(A.comm))
        M = None if mass is None else _real_form(mass, None, rows, owned, "the mass matrix")
        near = (
            None if preconditioner is None else _real_form(preconditioner, None, rows, owned, "the preconditioner")
        )
        vectors: dict[str, Any] = {name: _doubled(given, rows, name, owned) for name, given in brought.items()}
        problem = HermitianProblem.of(A, mass=M, preconditioner=near, **vectors)
    except BaseException:
        destroy(*owned)  # every rank is here: all that raises above raises on all
        raise
    problem.owned.extend(owned)
    return problem


def times_i(vector: PETSc.Vec) -> PETSc.Vec:
    """Return i x for a vector x with real and imaginary parts in turn. The caller destroys it. Collective."""
    turned = vector.duplicate()
    turned.setArray((1j * complex_rows(vector)).view(np.float64))
    return turned


def complex_rows(vector: PETSc.Vec) -> np.ndarray:
    """Return a copy of the own rows (n_local,), complex, of real and imaginary parts in turn. Not collective."""
    return np.array(vector.getArray(readonly=True)).view(np.complex128)


def _is_complex(matrix: object, mass: object, comm: MPI.Comm | None) -> bool:
    """Return whether a matrix or its mass is of complex numbers, on any rank. Collective."""
    brought = getattr(matrix, "mat", matrix)
    on = communicator(brought.comm if isinstance(brought, PETSc.Object) else comm)
    return on.allreduce(any(_kind(one) == "c" for one in (matrix, mass)), op=MPI.LOR)


def _kind(matrix: object) -> str:
    """Return the kind of the numbers of a matrix of SciPy's or NumPy's, or of lists; nothing of others."""
    if isinstance(matrix, (list, tuple)):
        try:
            return np.asarray(matrix).dtype.kind
        except ValueError:  # what is no array is refused later
            return ""
    return np.dtype(matrix.dtype).kind if isinstance(matrix, np.ndarray) or is_sparse(matrix) else ""


def _real_form(matrix: object, comm: MPI.Comm | None, rows: Layout | None, owned: list, name: str) -> PETSc.Mat:
    """Return the doubled matrix of a caller's one; `owned` gets it. Collective."""
    if isinstance(matrix, (PETSc.Mat, PETSc.Vec)):
        return _doubled_matrix([as_mat(matrix, comm, rows, owned, name)], owned, name)
    if (
        isinstance(matrix, (Hessian, Operator))
        or hasattr(matrix, "mat")
        or callable(getattr(matrix, "matvec", None))
    ):
        raise InputError(
            f"{name} is a {type(matrix).__name__} beside complex matrices: give it stored, as a matrix of SciPy's "
            "or PETSc's"
        )
    on = rows.comm if rows is not None else communicator(comm)
    with agreement(on):
        whole = _hermitian_part(as_sparse(matrix, name), name)
    made: list = []
    try:
        real = as_mat(whole.real, comm, rows, made, name)
        layout = Layout.from_local(real.getLocalSize()[0], communicator(real.comm))
        parts = [real, as_mat(whole.imag, None, layout, made, name)]
        return _doubled_matrix(parts, owned, name)
    finally:
        destroy(*made)


def _hermitian_part(whole: scipy.sparse.spmatrix, name: str) -> scipy.sparse.csr_matrix:
    """Return (H + Hᴴ)/2 of a matrix that is Hermitian but for rounding.

    Not collective.

    Raises
    ------
    InputError
        It is not square, not finite, or not Hermitian: by more than a small part of the largest entries of its
        rows, the smaller of the two, or a typical one.
    """
    if whole.shape[0] != whole.shape[1]:
        raise InputError(f"{name} must be square; it is {whole.shape[0]} x {whole.shape[1]}")
    own = scipy.sparse.csr_matrix(whole, dtype=np.complex128)
    own.sum_duplicates()
    if not np.isfinite(own.data).all():
        raise InputError(f"{name} has entries that are not finite")
    other = own.conj().T.tocsr()
    apart = (own - other).tocoo()
    if not apart.nnz:
        return own
    largest = np.asarray(abs(own).max(axis=1).todense()).ravel()
    typical = np.median(largest[largest > 0])
    sizes = np.maximum(np.minimum(largest[apart.row], largest[apart.col]), typical)
    share = np.abs(apart.data) / sizes
    worst = int(share.argmax())
    if not share[worst] <= _HERMITIAN:
        i, j = int(apart.row[worst]), int(apart.col[worst])
        here, there = own[i, j], own[j, i]
        reason = (
            f"entry ({i}, {i}) is {here:.6g}, and a diagonal is real"
            if i == j
            else f"entry ({i}, {j}) is {here:.6g}, entry ({j}, {i}) is {there:.6g}, and must be its conjugate"
        )
        # Its eigenvalues are complex where it is symmetric alone.
        advice = COMPLEX_SYMMETRIC if not (own != own.T).nnz else "give (H + Hᴴ)/2 if it is meant to be one"
        raise InputError(f"{name} is not Hermitian: {reason}; {advice}")
    return 0.5 * own + 0.5 * other


def _doubled_matrix(parts: list[PETSc.Mat], owned: list, name: str) -> PETSc.Mat:
    """Return [[R, −S], [S, R]], rows interleaved, of assembled R and, where there is one, S. Collective."""
    if not all(is_assembled(part) for part in parts):
        raise InputError(f"{name} is a shell beside complex matrices: its entries are needed, give it assembled")
    layout = Layout.from_local(parts[0].getLocalSize()[0], communicator(parts[0].comm))
    result = real_form(layout, [part.getValuesCSR() for part in parts])
    owned.append(result)
    return result


# What messages call the vectors of an argument.
_NAMES = {"nullspace": "null vectors", "near_null": "near-null vectors", "guess": "vectors to start from"}


def _doubled(given: VectorsLike | None, rows: Layout, argument: str, owned: list) -> list[PETSc.Vec] | None:
    """Return x and ix for each of some vectors: complex, real, or of parts in turn already. Collective."""
    if given is None:
        return None
    name, found = _NAMES[argument], []
    with agreement(rows.comm):
        for own in _own_rows(given, rows, name):
            if not np.isfinite(own).all():
                raise InputError(f"{name} must be finite")
            found.append(np.ascontiguousarray(own, np.complex128))
    made = doubled_vectors(found, rows)
    owned.extend(made)
    return made


def doubled_vectors(found: Sequence[np.ndarray] | np.ndarray, rows: Layout) -> list[PETSc.Vec]:
    """Return x and ix, parts in turn, for each of some vectors.

    Collective. The caller destroys them.

    Parameters
    ----------
    found
        (m, n_local) own rows, real or complex.
    rows
        Of the complex matrix.
    """
    size, made = (2 * rows.n_local, 2 * rows.n), []
    for own in found:
        for part in (np.array(own, np.complex128), 1j * np.asarray(own)):
            made.append(PETSc.Vec().createWithArray(part.view(np.float64).copy(), size=size, comm=rows.comm))
    return made


def _own_rows(given: VectorsLike, rows: Layout, name: str) -> list[np.ndarray]:
    """Return the own rows of vectors. Not collective; see `_doubled`."""
    if isinstance(given, (list, tuple)) and all(isinstance(one, PETSc.Vec) for one in given):
        sizes = {one.getLocalSize() for one in given}
        if not sizes <= {rows.n_local, 2 * rows.n_local}:
            raise InputError(f"{name}: one has {sizes} rows on rank {rows.comm.rank}, the Hessian {rows.n_local}")
        return [
            complex_rows(one) if one.getLocalSize() == 2 * rows.n_local else np.array(one.getArray(readonly=True))
            for one in given
        ]
    try:
        array = np.atleast_2d(np.asarray(given))
    except ValueError as error:
        raise InputError(f"{name} must be (m, {rows.n}) numbers") from error
    if array.ndim != 2 or array.shape[1] != rows.n or array.dtype.kind not in "fiubc":
        raise InputError(f"{name} must be (m, {rows.n}) numbers, not {array.shape} of {array.dtype}")
    return list(array[:, rows.start : rows.stop])
