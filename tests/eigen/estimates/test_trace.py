"""Traces of functions against LAPACK."""

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.eigen.estimates import diagonal, trace
from support.cases import (
    free_chain,
    lapack,
    laplacian,
    prescribed,
)
from support.spectra import shell, thorough, tight_mass

pytestmark = pytest.mark.parallel([1, 2])

FUNCTIONS = [
    ("identity", {}, lambda x: x),
    ("logdet", {}, np.log),
    ("inverse", {}, lambda x: 1 / x),
    ("heat", {"time": 0.7}, lambda x: np.exp(-0.7 * x)),
    pytest.param("effective dimension", {"gamma": 0.1}, lambda x: x / (x + 0.1), marks=pytest.mark.thorough),
    pytest.param(np.sqrt, {}, np.sqrt, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("method", ["hutchinson", "xtrace", *thorough("hutch++")])
@pytest.mark.parametrize(
    "function, extra, f",
    FUNCTIONS,
    ids=["identity", "logdet", "inverse", "heat", "effective dimension", "square root"],
)
def test_traces_of_functions(function, extra, f, method, comm):
    grid_matrix, grid_values = laplacian(9, 12)
    falling = np.arange(1.0, 101.0) ** -1.5 + 1e-3
    mass = tight_mass(108)
    for K, M, exact in (
        (grid_matrix, None, grid_values),
        (prescribed(falling), None, falling),
        (grid_matrix, mass, lapack(grid_matrix, mass)),
    ):
        found = trace(K, function, method=method, samples=18, mass=M, comm=comm, **extra)
        assert abs(found.trace - f(exact).sum()) <= found.bars(0.999)
        assert found.method == method and found.samples <= 18 <= max(found.products, 18)
        assert 0 < found.stderr < 0.2 * abs(f(exact)).sum()


def test_tolerances_are_met(comm):
    K, exact = laplacian(12, 13)
    for method in ("hutchinson", "hutch++", "xtrace"):
        found = trace(K, "inverse", method=method, tol=0.02, comm=comm)
        assert found.converged and found.stderr <= 0.02 * found.trace and found.samples < 1000
        assert abs(found.trace - (1 / exact).sum()) < 4 * found.stderr
    hard = trace(K, "inverse", method="hutchinson", tol=1e-4, samples=20, comm=comm)
    assert not hard.converged and hard.samples == 20


def test_traces_that_are_exact(comm):
    K, exact = laplacian(12, 13)
    mass = np.linspace(1, 3, 156)
    assert trace(K, comm=comm).trace == pytest.approx(exact.sum())
    weighed = trace(K, mass=mass, comm=comm)
    assert weighed.trace == pytest.approx(lapack(K, sp.diags(mass)).sum()) and weighed.stderr == 0
    # All of a small space, and all of a small range.
    for A in (K, prescribed(np.r_[np.zeros(140), np.arange(1.0, 11.0)])):
        for method in ("xtrace", "hutch++"):
            found = trace(A, method=method, samples=500, comm=comm)
            assert found.trace == pytest.approx(A.diagonal().sum()) and found.stderr < 1e-9 * found.trace
    mat, _ = shell(K, comm)
    assert trace(mat).method == "xtrace"
    assert trace(mat, samples=200) == trace(mat, method="exact")
    assert trace(mat, samples=200).trace == pytest.approx(exact.sum(), rel=1e-12)
    mat.destroy()
    free, values = free_chain(90)
    for function, f in (("logdet", np.log), ("inverse", np.reciprocal)):
        found = trace(free, function, nullspace=np.ones((1, 90)), samples=60, comm=comm)
        assert found.trace == pytest.approx(f(values[1:]).sum(), rel=1e-10) and found.stderr == 0
        found = trace(free, function, nullspace=np.ones((1, 90)), samples=60, method="hutchinson", comm=comm)
        assert found.stderr > 0 and abs(found.trace - f(values[1:]).sum()) <= 4 * found.stderr


@pytest.mark.parametrize("method", ["auto", "xtrace"])
def test_what_lies_nearer_to_zero_than_is_resolved_is_no_logarithm(method, comm):
    """Lanczos does not see how small the smallest of many scales are; samples alone would not tell."""
    values = np.random.default_rng(0).permutation(np.geomspace(1e-12, 1, 2100))
    for function in ("logdet", "inverse"):
        found = trace(sp.diags(values).tocsr(), function, method=method, samples=8, steps=60, comm=comm)
        assert np.isinf(found.stderr) and found.beyond > 100 and found.trace != pytest.approx(np.log(values).sum())
    fine = np.linspace(0.5, 1, 2100)
    found = trace(sp.diags(fine).tocsr(), "logdet", method=method, samples=8, comm=comm)
    assert found.beyond < 1e-6 and abs(found.trace - np.log(fine).sum()) <= 4 * found.stderr + 1e-4


def test_diagonals_of_functions_say_what_lanczos_leaves(comm):
    values = np.geomspace(1e-12, 1, 2100)
    found = diagonal(sp.diags(values).tocsr(), "inverse", samples=4, steps=30, comm=comm)
    assert np.isinf(found.stderr).all() and not found.exact
