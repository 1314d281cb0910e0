"""What holds for all estimates: what they refuse, products that are not finite, spaces of few dimensions."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.certificates.numerical_rank import rank
from sparsehess.eigen.estimates import block_traces, density, diagonal, trace
from sparsehess.errors import InputError
from support.cases import (
    laplacian,
    second_difference,
)
from support.spectra import Products, shell

pytestmark = pytest.mark.parallel([1, 2])


def test_what_cannot_be_used_is_refused(comm):
    K, _ = laplacian(6, 7)
    large = sp.identity(2100, format="csr")
    singular = np.r_[np.ones(40), 0, 0]
    negative = sp.diags([np.ones(42), 0.9 * np.ones(41), 0.9 * np.ones(41)], [0, 1, -1]).tocsr()
    cases = [
        (lambda: density(K, samples=1, comm=comm), "at least 2"),
        (lambda: density(K, method="magic", comm=comm), "none of auto"),
        (lambda: density(K, grid=[2.0, 1.0], comm=comm), "ascending"),
        (lambda: density(K, width=-1, comm=comm), "must be positive"),
        (lambda: density(K, method="chebyshev", width=1e-3, steps=10, comm=comm), "needs"),
        (lambda: density(K, mass=singular, comm=comm), "2 directions without mass"),
        (lambda: density(K, mass=negative, comm=comm), "positive definite"),
        (lambda: trace(K, "heat", comm=comm), "time is for"),
        (lambda: trace(K, "inverse", gamma=1.0, comm=comm), "gamma is for"),
        (lambda: trace(K, "cosine", comm=comm), "none of identity"),
        (lambda: trace(-K, "logdet", comm=comm), "positive definite"),
        (lambda: trace(K, lambda x: np.log(x - 3), comm=comm), "not finite"),
        (lambda: trace(K, tol=2.0, comm=comm), "between 0 and 1"),
        (lambda: trace(large, "inverse", method="exact", comm=comm), "another method"),
        (lambda: density(large, method="dense", comm=comm), "up to 2000 variables"),
        (lambda: rank(K, "wide", comm=comm), "neither a number"),
        (lambda: rank(K, 1e-3, absolute=1.0, comm=comm), "leave one out"),
        (lambda: rank(K, -1.0, comm=comm), "must be positive"),
        (lambda: block_traces(K, np.zeros(42), comm=comm), "whole numbers"),
        (lambda: block_traces(K, np.zeros(41, int), comm=comm), "labels must be"),
        (lambda: diagonal(K, "inverse", pattern=sh.Pattern.from_scipy(second_difference(9), comm=comm), comm=comm),
         "other rows"),
    ]  # fmt: skip
    for call, says in cases:
        with pytest.raises(InputError, match=says):
            call()


def test_products_that_are_not_finite_are_named(comm):
    class Spoilt(Products):
        calls = 0

        def mult(self, mat, x, y):
            self.calls += 1
            super().mult(mat, x, y)
            if self.calls > 30:
                y.scale(np.nan)

    mat, _ = shell(laplacian(9, 9)[0], comm, Spoilt)
    with pytest.raises(sh.CheckError, match="not finite"):
        density(mat, samples=2)
    mat.destroy()


def test_spaces_of_one_or_no_dimension(comm):
    single = sp.csr_matrix([[3.0]])
    assert density(single, comm=comm).count(2, 4) == pytest.approx((1.0, 0.0))
    assert trace(single, "logdet", comm=comm).trace == pytest.approx(np.log(3))
    nothing = density(sp.csr_matrix((3, 3)), nullspace=np.eye(3), comm=comm)
    assert nothing.atoms == ((0.0, 3),) and nothing.count(-1, 1) == (3.0, 0.0) and nothing.cumulative[-1] == 1
    assert trace(sp.csr_matrix((3, 3)), "heat", time=1.0, nullspace=np.eye(3), comm=comm).trace == 3
