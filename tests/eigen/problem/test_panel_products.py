"""Products with panels: against SciPy's, of any shape and number of vectors, on ranks with and without rows."""

from contextlib import closing

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.eigen.problem.panel_products import (
    DenseProduct,
    RowProduct,
    SingleProduct,
    product,
)
from sparsehess.runtime import complex_scalars, destroy
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.stored_rows import stored_matrix

pytestmark = pytest.mark.parallel([1, 2, 3, 4])
real_only = pytest.mark.skipif(complex_scalars(), reason="complex matrices are multiplied by PETSc")


def scattered(rows, columns, seed):
    """Return a sparse matrix with empty rows, and columns that lie anywhere."""
    rng = np.random.default_rng(seed)
    A = sp.random(rows, columns, 0.2, random_state=rng, data_rvs=rng.standard_normal, format="csr")
    A.data[: A.indptr[rows // 2]] *= 1e8
    return A


def distributed(A, comm):
    """Return an AIJ matrix; the last rank has no rows, where there are several."""
    mine = []
    for size in A.shape:
        layout = Layout.from_size(size, comm)
        last = comm.size - 1
        counts = np.diff(layout.starts)
        if comm.size > 1:
            counts[last - 1] += counts[last]
            counts[last] = 0
        mine.append(Layout(comm, np.concatenate([[0], np.cumsum(counts)])))
    here = A[mine[0].start : mine[0].stop]
    csr = here.indptr.astype(PETSc.IntType), here.indices.astype(PETSc.IntType), here.data
    matrix = PETSc.Mat().createAIJ(tuple((each.n_local, each.n) for each in mine), csr=csr, comm=comm)
    return matrix, *(slice(each.start, each.stop) for each in mine)


@real_only
@pytest.mark.parametrize("shape", [(60, 60), (70, 23), (23, 70)])
@pytest.mark.parametrize("vectors", [0, 1, 3, 4, 9, 16, 31, 40])
def test_products_are_those_of_scipy(comm, shape, vectors):
    A = scattered(*shape, 3)
    X = np.random.default_rng(1).normal(size=(vectors, shape[1]))
    sizes = abs(A) @ abs(X).T
    matrix, rows, columns = distributed(A, comm)
    for kind, rounding in ((RowProduct, 1e-15), (SingleProduct, 1e-6), (DenseProduct, 1e-15)):
        with closing(kind(matrix)) as multiply:
            for panel in (X[:, columns], np.asfortranarray(X[:, columns])):
                if vectors == 0 and kind is DenseProduct:
                    continue
                image = multiply(panel)
                assert image.shape == (vectors, rows.stop - rows.start) and image.dtype == multiply.dtype
                assert (np.abs(image - (A @ X.T).T[:, rows]) <= 20 * rounding * sizes.T[:, rows]).all()
    destroy(matrix)


@real_only
def test_an_image_can_be_multiplied_again_and_values_may_change(comm):
    A = scattered(40, 40, 5)
    matrix, here, _ = distributed(A, comm)
    X = np.random.default_rng(2).normal(size=(5, 40))
    with closing(product(matrix)) as multiply:
        twice = multiply(multiply(X[:, here])).copy()
        assert (
            np.abs(twice - (A @ (A @ X.T)).T[:, here]).max(initial=0.0)
            <= 1e-13 * abs(A @ (abs(A) @ abs(X.T))).max()
        )
        matrix.scale(-2.0)
        assert np.abs(multiply(X[:, here]) + 2 * (A @ X.T).T[:, here]).max(initial=0.0) <= 1e-13 * abs(A).max()
    destroy(matrix)


def test_what_petsc_stores_is_seen(comm):
    A = scattered(31, 17, 7).astype(PETSc.ScalarType)
    matrix, rows, columns = distributed(A, comm)
    with stored_matrix(matrix) as stored:
        height = rows.stop - rows.start
        own = sp.csr_matrix(
            (stored.own.values, stored.own.columns, stored.own.indptr), (height, columns.stop - columns.start)
        )
        others = sp.csr_matrix(
            (stored.others.values, stored.others.columns, stored.others.indptr),
            (height if comm.size > 1 else 0, len(stored.ghosts)),
        )
        found = np.zeros((height, 17), PETSc.ScalarType)
        found[:, columns] = own.toarray()
        if comm.size > 1:
            assert np.all(np.diff(stored.ghosts) > 0)
            found[:, stored.ghosts] = others.toarray()
        assert np.array_equal(found, A[rows].toarray())
    destroy(matrix)
