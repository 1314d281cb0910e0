"""The sum of Kronecker products that is nearest to a given matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError, NotConverged
from sparsehess.operators.kronecker import Kronecker
from sparsehess.pattern import Layout
from sparsehess.pattern.layout import send_to_owners
from sparsehess.runtime import PETSc, SLEPc, communicator, destroy, readable_errors

# Singular values below this part of the largest are rounding.
_LEAST = 1e-14


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
        SLEPc found fewer singular values than there are.
    """
    if p < 1 or q < 1 or terms < 1:
        raise InputError(f"sizes p={p}, q={q} and terms={terms} must be positive")
    mat = getattr(matrix, "mat", matrix)
    of_petsc = isinstance(mat, PETSc.Mat)
    comm = communicator(mat.comm if of_petsc else comm)
    size = tuple(mat.getSize()) if of_petsc else mat.shape
    if size != (p * q, p * q):
        raise InputError(f"a matrix of {size[0]} x {size[1]} is not of {p}·{q} = {p * q} rows and columns")
    layout = Layout.from_local(mat.getLocalSize()[0], comm) if of_petsc else Layout.from_size(p * q, comm)
    rows, cols, values = _entries(mat, layout)
    norm = np.sqrt(comm.allreduce(float(np.dot(values, values))))
    rearranged = _rearranged(rows, cols, values, p, q, comm)
    try:
        sigma, left, right = _svd(rearranged, min(terms, p * p, q * q))
    finally:
        rearranged.destroy()
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


def _rearranged(rows, cols, values, p: int, q: int, comm) -> PETSc.Mat:
    """Return R (p², q²) with R[i p + i', j q + j'] = H[i q + j, i' q + j']."""
    layout, other = Layout.from_size(p * p, comm, block=p), Layout.from_size(q * q, comm)
    row, col = (rows // q) * p + cols // q, (rows % q) * q + cols % q
    row, col, values = send_to_owners(layout, row, col, values)
    local = scipy.sparse.csr_matrix((values, (row - layout.start, col)), (layout.n_local, other.n))
    local.sort_indices()
    csr = (local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data)
    sizes = ((layout.n_local, layout.n), (other.n_local, other.n))
    return PETSc.Mat().createAIJ(sizes, csr=csr, comm=comm)


def _svd(matrix: PETSc.Mat, terms: int) -> tuple[np.ndarray, list, list]:
    """Return (σ, left, right): the largest singular values, and their vectors whole on every rank."""
    if matrix.norm(PETSc.NormType.FROBENIUS) == 0:
        return np.empty(0), [], []
    svd = SLEPc.SVD().create(matrix.comm)
    svd.setOperator(matrix)
    svd.setType("trlanczos")
    svd.setDimensions(terms, PETSc.DECIDE, PETSc.DECIDE)
    svd.setTolerances(1e-14, 1000)
    with readable_errors("decomposing the rearranged matrix"):
        svd.solve()
    found = min(terms, svd.getConverged())
    u, v = matrix.createVecLeft(), matrix.createVecRight()
    sigma, left, right = [], [], []
    for number in range(found):
        value = svd.getSingularTriplet(number, u, v)
        if sigma and value <= _LEAST * sigma[0]:
            break
        sigma.append(value)
        left.append(_whole(u))
        right.append(_whole(v))
    destroy(svd, u, v)
    if not sigma or (found < terms and len(sigma) == found):
        raise NotConverged(f"{found} of {terms} singular values: ask for fewer terms")
    return np.array(sigma), left, right


def _whole(vector: PETSc.Vec) -> np.ndarray:
    """Return a vector of a factor's entries, which every rank has."""
    return np.concatenate(communicator(vector.comm).allgather(vector.getArray(readonly=True).copy()))
