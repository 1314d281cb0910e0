"""Prescribed spectra, and shells that only multiply."""

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh


def thorough(*values):
    return [pytest.param(value, marks=pytest.mark.thorough) for value in values]


class Products:
    """What a user's own shell has: products, and no entries."""

    def __init__(self, K, layout):
        self.K, self.layout = K, layout

    def mult(self, mat, x, y):
        whole = np.concatenate(self.layout.comm.allgather(x.getArray(readonly=True)))
        y.setArray(self.K[self.layout.start : self.layout.stop] @ whole)

    multTranspose = mult  # the name is PETSc's


def shell(K, comm, kind=Products):
    layout = sh.Layout.from_size(K.shape[0], comm)
    context = kind(K, layout)
    mat = PETSc.Mat().createPython(((layout.n_local, layout.n),) * 2, context, comm=comm)
    mat.setUp()
    return mat, context


def tight_mass(n):
    """Return a mass matrix of bars of unequal lengths: tridiagonal, far from diagonal."""
    lengths = np.geomspace(0.1, 10, n + 1)
    return sp.diags([lengths[:-1] / 3 + lengths[1:] / 3, lengths[1:-1] / 6, lengths[1:-1] / 6], [0, 1, -1]).tocsr()
