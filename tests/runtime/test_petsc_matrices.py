from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.runtime.petsc_matrices import refill
from sparsehess.runtime.row_layout import Layout


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("known", [True, False])
def test_other_values_in_the_same_places(known, comm, monkeypatch):
    whole = sp.random(40, 40, 0.2, random_state=1, format="csr") + sp.diags(np.ones(40)).tocsr()
    layout = Layout.from_size(40, comm)
    part = whole.tocsr()[layout.start : layout.stop]
    csr = (part.indptr.astype(PETSc.IntType), part.indices.astype(PETSc.IntType))
    matrix = PETSc.Mat().createAIJWithArrays(((layout.n_local, 40),) * 2, (*csr, part.data), comm=comm)
    if not known:  # a PETSc that lacks the function
        monkeypatch.setattr("sparsehess.runtime.petsc_matrices.ctypes.CDLL", lambda path: object())
    for times in (2.0, -3.0):
        refill(matrix, *csr, times * part.data)
        assert (matrix.getValuesCSR()[2] == times * part.data).all()
        ones, product = matrix.createVecs()
        ones.set(1.0)
        matrix.mult(ones, product)
        np.testing.assert_allclose(product.getArray(), times * part.sum(axis=1).A1, rtol=1e-12)
        ones.destroy()
        product.destroy()
    matrix.destroy()
