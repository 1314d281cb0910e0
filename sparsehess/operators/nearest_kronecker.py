"""The sum of Kronecker products that is nearest to a given matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.operators.kronecker import Kronecker
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, aij, communicator
from sparsehess.runtime.row_layout import send_to_owners
from sparsehess.runtime.validation import whole_number

# Singular values below this part of the largest are rounding.
_LEAST = 1e-14

# Backward error of singular values.
_TOL = 1e-12


@dataclass(frozen=True, eq=False)
class NearestKronecker:
    """A sum of Kronecker products and how far it is from what it stands for. `close()` destroys it.

    Attributes
    ----------
    operator
        The sum; fewer terms than were asked for where fewer give the matrix.
    singular_values
        (terms,) of the rearranged matrix: the Frobenius norms of the terms.
    error
        Frobenius distance, the root of the sum of the squares of all other singular values; from the norm of the
        matrix, so that it is not known below 1e-8 of that.
    """

    operator: Kronecker
    singular_values: np.ndarray
    error: float

    def close(self) -> None:
        """Destroy the operator. Collective."""
        self.operator.close()

    def __enter__(self) -> NearestKronecker:
        return self

    def __exit__(self, *reason) -> None:
        self.close()


def nearest_kronecker(matrix, p: int, q: int, terms: int = 1, *, comm=None) -> NearestKronecker:
    """Return the sum of so many products A (p, p) ⊗ B (q, q) that is nearest to a matrix in the Frobenius norm.

    Collective. The singular value decomposition of the rearrangement that has a block of q x q entries in each
    row (Van Loan, Pitsianis 1993), which is as sparse as the matrix and distributed as it is.

    Parameters
    ----------
    matrix
        Assembled PETSc Mat, an object that has one as `mat`, or a SciPy matrix that every rank has: p q rows.
    p, q, terms
        Sizes of the factors, and how many products.
    comm
        For SciPy matrices.

    Raises
    ------
    InputError
        Not p q rows and columns.
    NotConverged
        Fewer singular values converged than were asked for.
    """
    for value, name in ((p, "p"), (q, "q"), (terms, "terms")):
        whole_number(value, name, 1)
    mat = getattr(matrix, "mat", matrix)
    of_petsc = isinstance(mat, PETSc.Mat)
    comm = communicator(mat.comm if of_petsc else comm)
    size = tuple(mat.getSize()) if of_petsc else mat.shape
    if size != (p * q, p * q):
        raise InputError(f"a matrix of {size[0]} x {size[1]} is not of {p}·{q} = {p * q} rows and columns")
    layout = Layout.from_local(mat.getLocalSize()[0], comm) if of_petsc else Layout.from_size(p * q, comm)
    rows, cols, values = _entries(mat, layout)
    norm = np.sqrt(comm.allreduce(float(np.dot(values, values))))
    cyclic = _cyclic(rows, cols, values, p, q, comm)
    try:
        sigma, left, right = _svd(cyclic, p * p, min(terms, p * p, q * q)) if norm > 0 else (np.empty(0), [], [])
    finally:
        cyclic.destroy()
    products = []
    for value, u, v in zip(sigma, left, right, strict=True):
        A, B = np.sqrt(value) * u.reshape(p, p), np.sqrt(value) * v.reshape(q, q)
        sign = -1.0 if A.trace() < 0 else 1.0  # that of a positive matrix has both factors positive
        products.append((sign * A, sign * B))
    if not products:
        products = [(np.zeros((p, p)), np.zeros((q, q)))]
    error = np.sqrt(max(0.0, norm**2 - float(np.dot(sigma, sigma))))
    found = Kronecker(products, comm=comm)._outliving(mat.comm if of_petsc else None)
    return NearestKronecker(found, sigma, float(error))


def _entries(mat, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (rows, columns, values) of this rank's entries, numbered globally."""
    if isinstance(mat, PETSc.Mat):
        indptr, cols, values = mat.getValuesCSR()
        rows = np.repeat(np.arange(layout.start, layout.stop), np.diff(indptr))
        return rows, cols.astype(np.int64), np.asarray(values, np.float64)
    own = scipy.sparse.csr_matrix(mat)[layout.start : layout.stop].tocoo()
    own.sum_duplicates()
    return own.row.astype(np.int64) + layout.start, own.col.astype(np.int64), own.data.astype(np.float64)


def _cyclic(rows, cols, values, p: int, q: int, comm) -> PETSc.Mat:
    """Return [[0, R], [Rᵀ, 0]] for R (p², q²) with R[i p + i', j q + j'] = H[i q + j, i' q + j'].

    Its eigenvalues are the singular values of R, and these negated (Golub, Kahan 1965).
    """
    layout = Layout.from_size(p * p + q * q, comm)
    row, col = (rows // q) * p + cols // q, p * p + (rows % q) * q + cols % q
    own = np.arange(layout.start, layout.stop)  # the diagonal has its places, as solvers want it
    row, col, values = send_to_owners(
        layout,
        np.concatenate([row, col, own]),
        np.concatenate([col, row, own]),
        np.concatenate([values, values, np.zeros(len(own))]),
    )
    local = scipy.sparse.csr_matrix((values, (row - layout.start, col)), (layout.n_local, layout.n))
    local.sort_indices()
    return aij(layout, local.indptr, local.indices, local.data)


def _svd(cyclic: PETSc.Mat, split: int, terms: int) -> tuple[np.ndarray, list, list]:
    """Return (σ, left, right): the largest singular values, and their vectors whole on every rank."""
    from sparsehess.eigen.solvers import eigs  # solvers take operators in: not before they are asked for

    sigma, left, right = [], [], []
    with eigs(cyclic, terms, which="largest", tol=_TOL, count="no") as found:
        for value, vector in zip(found.eigenvalues[::-1], found.vectors[::-1], strict=True):
            if sigma and value <= _LEAST * sigma[0]:
                break
            whole = _whole(vector)
            u, v = whole[:split], whole[split:]
            sigma.append(float(value))
            left.append(u / np.linalg.norm(u))
            right.append(v / np.linalg.norm(v))
    return np.array(sigma), left, right


def _whole(vector: PETSc.Vec) -> np.ndarray:
    """Return a vector of the factors' entries, which every rank has."""
    return np.concatenate(communicator(vector.comm).allgather(vector.getArray(readonly=True).copy()))
