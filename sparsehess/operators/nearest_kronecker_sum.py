"""The sum of Kronecker products that is nearest to a given matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError, NotConverged
from sparsehess.operators.combinations import rectangular
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.matrix_like import stored
from sparsehess.runtime import PETSc, SLEPc, communicator, destroy, readable_errors
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.runtime.row_layout import Layout, send_to_owners
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import LocalMatrix, MatrixLike

# Singular values below this part of the largest are rounding.
_LEAST = 1e-14

# Backward errors of singular values, relative to the Frobenius norm: SLEPc's aim, and the most that is accepted.
_AIM, _TOL = 1e-13, 1e-12

# What is added to a diagonal, beside the norm: less than rounding.
_NOISE = float(np.finfo(float).eps)

_MOST_RESTARTS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class NearestKronecker(ShortRepr):
    """A sum of Kronecker products and how far it is from what it stands for.

    A context manager; `close()` destroys it.

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

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.singular_values), "term")
        yield f"error {self.error:.3g}"

    def close(self) -> None:
        """Destroy the operator. Collective."""
        self.operator.close()

    def __enter__(self) -> NearestKronecker:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the object. Collective."""
        self.close()


def nearest_kronecker(
    matrix: MatrixLike, p: int, q: int, terms: int = 1, *, comm: MPI.Comm | None = None
) -> NearestKronecker:
    """Return the sum of so many products A (p, p) ⊗ B (q, q) that is nearest to a matrix in the Frobenius norm.

    *Collective.* By the largest singular values of the rearrangement that has a block of q x q entries in each
    row. It is as sparse as the matrix, and distributed.

    Parameters
    ----------
    matrix
        Assembled PETSc Mat, an object that has one as `mat`, or a SciPy matrix that every rank has: p q rows.
    p, q, terms
        Sizes of the factors, and how many products.
    comm
        For SciPy matrices; default this process alone.

    Returns
    -------
    NearestKronecker
        The caller closes it.

    Raises
    ------
    InputError
        Not p q rows and columns.
    NotConverged
        Fewer singular values converged than were asked for.

    References
    ----------
    Van Loan, Pitsianis 1993, "Approximation with Kronecker products". The singular values are by Lanczos
    bidiagonalisation with thick restarts: Hernandez, Roman, Tomas 2008.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.kron(np.diag([1.0, 2.0]), np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> with sh.nearest_kronecker(H, 2, 2) as nearest:
    ...     print(nearest.singular_values.round(6), nearest.error < 1e-6)
    [7.071068] True
    """
    for number, name in ((p, "p"), (q, "q"), (terms, "terms")):
        whole_number(number, name, 1)
    mat = stored(matrix, "the matrix")
    of_petsc = isinstance(mat, PETSc.Mat)
    comm = communicator(mat.comm if of_petsc else comm)
    size = tuple(mat.getSize()) if of_petsc else mat.shape
    if size != (p * q, p * q):
        raise InputError(f"a matrix of {size[0]} x {size[1]} is not of {p}·{q} = {p * q} rows and columns")
    layout = Layout.from_local(mat.getLocalSize()[0], comm) if of_petsc else Layout.from_size(p * q, comm)
    rows, cols, entries = _entries(mat, layout)
    norm = np.sqrt(comm.allreduce(float(np.dot(entries, entries))))
    R = _rearranged(rows, cols, entries, p, q, _NOISE * norm, comm)
    try:
        triplets = _largest_triplets(R, min(terms, p * p, q * q), norm) if norm > 0 else []
    finally:
        destroy(R)
    products = []
    for sigma, u, v in triplets:
        A, B = np.sqrt(sigma) * u.reshape(p, p), np.sqrt(sigma) * v.reshape(q, q)
        sign = -1.0 if A.trace() < 0 else 1.0  # that of a positive matrix has both factors positive
        products.append((sign * A, sign * B))
    if not products:
        products = [(np.zeros((p, p)), np.zeros((q, q)))]
    values = np.array([sigma for sigma, _, _ in triplets])
    error = np.sqrt(max(0.0, norm**2 - float(np.dot(values, values))))
    found = Kronecker(products, comm=comm)._keep_communicator(mat.comm if of_petsc else None)
    return NearestKronecker(found, values, float(error))


def _entries(mat: PETSc.Mat | LocalMatrix, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (rows, columns, values) of this rank's entries, numbered globally."""
    if isinstance(mat, PETSc.Mat):
        indptr, cols, values = mat.getValuesCSR()
        rows = np.repeat(np.arange(layout.start, layout.stop), np.diff(indptr))
        return rows, cols.astype(np.int64), np.asarray(values, np.float64)
    own = scipy.sparse.csr_matrix(mat)[layout.start : layout.stop].tocoo()
    own.sum_duplicates()
    return own.row.astype(np.int64) + layout.start, own.col.astype(np.int64), own.data.astype(np.float64)


def _rearranged(
    rows: np.ndarray, cols: np.ndarray, values: np.ndarray, p: int, q: int, noise: float, comm: MPI.Comm
) -> PETSc.Mat:
    """Return R (p², q²) with R[i p + i', j q + j'] = H[i q + j, i' q + j'], plus noise on its diagonal.

    A Krylov space of a matrix of low rank is exhausted early, where SLEPc divides by zero. Noise lets it go on.
    """
    layout = Layout.from_size(p * p, comm)
    diagonal = np.arange(layout.start, min(layout.stop, q * q))
    row, col, values = send_to_owners(
        layout,
        np.concatenate([(rows // q) * p + cols // q, diagonal]),
        np.concatenate([(rows % q) * q + cols % q, diagonal]),
        np.concatenate([values, noise * draw_signed(layout, 1)[: len(diagonal)]]),
    )
    own = scipy.sparse.csr_matrix((values, (row - layout.start, col)), (layout.n_local, q * q))
    return rectangular(layout, own)


def _largest_triplets(R: PETSc.Mat, terms: int, norm: float) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Return (σ, u, v) of the largest singular values, descending; vectors are whole on every rank.

    Lanczos bidiagonalisation with thick restarts (Hernandez, Roman, Tomas 2008). Values that are rounding beside
    the largest are left out.
    """
    solver = SLEPc.SVD().create(R.comm)
    start, (v, u) = R.createVecRight(), R.createVecs()
    found: list[tuple[float, np.ndarray, np.ndarray]] = []
    try:
        solver.setOperators(R)
        solver.setType("trlanczos")
        solver.setDimensions(terms)
        solver.setConvergenceTest(SLEPc.SVD.Conv.NORM)
        solver.setTolerances(_AIM, _MOST_RESTARTS)
        start.setArray(draw_signed(Layout.from_size(R.getSize()[1], communicator(R.comm)), 0))
        solver.setInitialSpaces([start], [])
        with readable_errors("computing singular values"):
            solver.solve()
        for number in range(min(terms, solver.getConverged())):
            sigma = solver.getSingularTriplet(number, u, v)
            if found and sigma <= _LEAST * found[0][0]:
                return found
            error = _residual(R, sigma, u, v) / norm
            if not error <= _TOL:
                raise NotConverged(
                    f"singular value {number} has a backward error of {error:.1e}, above {_TOL:.0e}"
                )
            found.append((float(sigma), _whole(u), _whole(v)))
        if len(found) < terms:
            raise NotConverged(
                f"{len(found)} of {terms} singular values after {solver.getIterationNumber()} restarts: "
                "ask for fewer terms"
            )
        return found
    finally:
        destroy(solver, start, u, v)


def _residual(R: PETSc.Mat, sigma: float, u: PETSc.Vec, v: PETSc.Vec) -> float:
    """Return the root of |R v - σ u|² + |Rᵀ u - σ v|²."""
    left, right = u.duplicate(), v.duplicate()
    R.mult(v, left)
    R.multTranspose(u, right)
    left.axpy(-sigma, u)
    right.axpy(-sigma, v)
    size = float(np.hypot(left.norm(), right.norm()))
    destroy(left, right)
    return size


def _whole(vector: PETSc.Vec) -> np.ndarray:
    """Return a vector of the factors' entries, which every rank has."""
    return np.concatenate(communicator(vector.comm).allgather(vector.getArray(readonly=True).copy()))
