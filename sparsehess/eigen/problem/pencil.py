"""The rows of A and M on one common pattern, and blocks of vectors as dense matrices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from sparsehess.eigen.problem.matrix_inputs import with_diagonal
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout


class Pencil(NamedTuple):
    """Local rows of A and M on one pattern.

    Attributes
    ----------
    indptr, indices
        The pattern, with global column indices.
    a, m
        (nonzeros,) values of A and of M.
    """

    indptr: np.ndarray
    indices: np.ndarray
    a: np.ndarray
    m: np.ndarray


def pencil(problem: EigenProblem) -> Pencil:
    """Return the local rows of A and M on the pattern that holds both and the diagonal.

    Not collective but for types of matrices that are converted. M is the identity where there is none.
    """
    layout = problem.layout
    A = _rows(problem.A, layout)
    if problem.M is None:
        own = np.arange(layout.n_local)
        M = scipy.sparse.csr_matrix((np.ones(len(own)), (own, own + layout.start)), A.shape)
    else:
        M = _rows(problem.M, layout)
    indptr, indices, (A, M) = on_one_pattern([A, M], layout)
    return Pencil(indptr, indices, A, M)


def on_one_pattern(
    matrices: list[scipy.sparse.csr_matrix], layout: Layout
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return (indptr, indices, values of each) of local rows on the pattern that holds all and the diagonal.

    Not collective.
    """
    every = [with_diagonal(one, layout) for one in matrices]
    pattern = sum(_ones(one) for one in every)
    return pattern.indptr, pattern.indices, [_on_pattern(one, pattern) for one in every]


def _ones(rows: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix((np.ones(rows.nnz), rows.indices, rows.indptr), rows.shape)


def _on_pattern(rows: scipy.sparse.csr_matrix, pattern: scipy.sparse.csr_matrix) -> np.ndarray:
    """Return the values of rows at the places of a pattern that holds theirs."""
    number = np.repeat(np.arange(pattern.shape[0], dtype=np.int64), np.diff(pattern.indptr))
    places = number * pattern.shape[1] + pattern.indices
    mine = np.repeat(np.arange(rows.shape[0], dtype=np.int64), np.diff(rows.indptr)) * rows.shape[1] + rows.indices
    values = np.zeros(pattern.nnz, rows.data.dtype)
    values[np.searchsorted(places, mine)] = rows.data
    return values


def _rows(matrix: PETSc.Mat, layout: Layout) -> scipy.sparse.csr_matrix:
    aij = (
        matrix
        if "aij" in matrix.getType() and "sbaij" not in matrix.getType()
        else matrix.convert("aij", PETSc.Mat())
    )
    indptr, indices, values = aij.getValuesCSR()
    if aij is not matrix:
        destroy(aij)
    rows = scipy.sparse.csr_matrix((values, indices, indptr), (layout.n_local, layout.n))
    return with_diagonal(rows, layout)


def dense_block(layout: Layout, X: np.ndarray) -> PETSc.Mat:
    """Return a dense Mat on the memory of X (n_local, k), or of a copy that has PETSc's order and scalars.

    Collective.
    """
    sizes = ((layout.n_local, layout.n), (None, X.shape[1]))
    matrix = PETSc.Mat().createDense(sizes, array=np.asfortranarray(X, PETSc.ScalarType), comm=layout.comm)
    matrix.assemble()
    return matrix
