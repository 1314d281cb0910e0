"""Hessians that are never assembled."""

import numpy as np
import pytest

import sparsehess as sh
from support.objectives import objective, on_vectors, product
from support.smooth_functions import FUNCTIONS

pytestmark = pytest.mark.parallel([1, 2])


@pytest.mark.parametrize("way", ["gradient", "vectors", "products"])
def test_shells_multiply_like_the_matrix(way, comm):
    function = FUNCTIONS["noncvxu"](120)
    exact = function.hessian(function.x)
    problem = objective(function, comm)
    if way == "products":
        problem = objective(function, comm, gradient=None, hvp=lambda x, v: function.hessian(x) @ v)
    elif way == "vectors":
        problem = on_vectors(function, comm)
    with sh.MatrixFree(problem) as shell:
        rng = np.random.default_rng(0)
        for size in (1e-8, 1.0, 1e8):
            v = size * rng.normal(size=120)
            error = np.linalg.norm(product(shell.mat, v, comm) - exact @ v) / np.linalg.norm(exact @ v)
            assert error < (1e-14 if way == "products" else 1e-8)
        assert np.array_equal(product(shell.mat, np.zeros(120), comm), np.zeros(120))
        diagonal = shell.mat.getDiagonal()
        whole = np.concatenate(comm.allgather(diagonal.getArray().copy()))
        assert whole == pytest.approx(exact.diagonal(), rel=1e-6)
        diagonal.destroy()
        calls = shell.evaluations["hvp" if way == "products" else "gradient"]
        assert calls > 0 and shell.evaluations["noise"] == (0 if way == "products" else 7)
        if way == "gradient":
            shell.update(function.x + 0.1)
            v = rng.normal(size=120)
            there = function.hessian(function.x + 0.1) @ v
            assert np.linalg.norm(product(shell.mat, v, comm) - there) < 1e-8 * np.linalg.norm(there)


def test_a_shell_without_pattern_estimates_its_diagonal(comm):
    function = FUNCTIONS["engval"](200)
    with sh.MatrixFree(objective(function, comm, pattern=None)) as shell:
        whole = np.concatenate(comm.allgather(shell.diagonal()))
        exact = function.hessian(function.x).diagonal()
        assert np.linalg.norm(whole - exact) < 0.3 * np.linalg.norm(exact)
