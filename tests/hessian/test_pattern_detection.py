"""Patterns found by probing gradients and products: exact, and with few calls."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from support.cases import frobenius_error
from support.objectives import SOME, objective
from support.smooth_functions import FUNCTIONS

pytestmark = pytest.mark.parallel([1, 2])
LONG = ["lennard_jones", "neo_hooke"]


def misses(found, function, comm):
    own = function.pattern[found.layout.start : found.layout.stop]
    return comm.allreduce(int((found.to_scipy() != own).nnz))


@pytest.mark.parametrize(
    "name",
    [
        n if n in SOME else pytest.param(n, marks=[pytest.mark.thorough] + [pytest.mark.slow] * (n in LONG))
        for n in FUNCTIONS
    ],
)
def test_probing_finds_the_exact_pattern(name, comm):
    """Seeded trials: 100 on one rank."""
    function = FUNCTIONS[name](120)
    for seed in range(100 if comm.size == 1 else 2):
        calls = {}
        found = sh.detect_pattern(objective(function, comm, pattern=None), seed=seed, counts=calls)
        assert misses(found, function, comm) == 0
        found.free()


@pytest.mark.parametrize(
    "name",
    [
        "chained_rosenbrock",
        *(pytest.param(n, marks=pytest.mark.thorough) for n in ("broyden_banded", "arwhead", "dixmaan")),
    ],
)
def test_probing_takes_few_gradients(name, comm):
    function = FUNCTIONS[name](20_000)
    calls = {}
    found = sh.detect_pattern(objective(function, comm, pattern=None), counts=calls)
    assert misses(found, function, comm) == 0
    degree = np.sort(np.diff(function.pattern.indptr))[-10]
    assert calls["gradient"] < 64 + 20 + 4 * max(degree, 8) * np.log2(20_000)
    found.free()


def test_probing_of_products(comm):
    function = FUNCTIONS["noncvxu"](300)
    matrix = function.hessian(function.x)
    given = {"gradient": None, "hvp": lambda x, v: matrix @ v, "pattern": None}
    calls = {}
    found = sh.detect_pattern(objective(function, comm, **given), counts=calls)
    assert misses(found, function, comm) == 0
    assert calls["gradient"] == 0 and calls["hvp"] > 0


@pytest.mark.parametrize("repeatable", [True, False])
def test_noise_is_no_coupling(repeatable, comm):
    """Neither noise that differs from call to call, nor that of a code whose every result rounds with all of x."""
    function = FUNCTIONS["broyden_tridiagonal"](300)
    rng = np.random.default_rng(comm.rank)

    def gradient(x):
        noise = np.sin(1e12 * x.sum() + np.arange(len(x)) ** 2) if repeatable else rng.normal(size=len(x))
        return function.gradient(x) + 1e-9 * noise

    found = sh.detect_pattern(objective(function, comm, pattern=None, gradient=gradient))
    assert misses(found, function, comm) == 0


def test_points_tell_what_is_local(comm):
    """x_i² x_(i+1)² couples neighbours, but not where either is zero."""

    def gradient(x):
        g = 2 * x
        g[:-1] += 2 * x[:-1] * x[1:] ** 2
        g[1:] += 2 * x[1:] * x[:-1] ** 2
        return g

    problem = sh.Objective(x=np.zeros(50), gradient=gradient, comm=comm)
    here, several = sh.detect_pattern(problem), sh.detect_pattern(problem, points=2)
    assert here.nnz == 50 and here.source == "probing at one point"
    assert several.nnz == 50 + 2 * 49 and several.source == "probing at 2 points, 98 entries not at all of them"


def test_repairs_probe_where_the_hessian_is_taken(comm):
    """Couplings that are not there at the objective's own x are found at the x of the update."""
    n = 300

    def gradient(x):
        far = np.roll(np.maximum(x - 0.5, 0.0) ** 2, 7) * x
        return 2 * x + far + np.maximum(x - 0.5, 0.0) * np.roll(x**2, -7)

    alone = sh.Pattern.from_pairs([], [], n, comm=comm)
    problem = sh.Objective(x=np.full(n, 0.1), gradient=gradient, pattern=alone, comm=comm)
    with sh.assemble(problem) as hessian:
        assert hessian.repaired == 0
        hessian.update(np.linspace(0.8, 1.2, n))
        assert hessian.repaired == 2 * n and hessian.evaluations["pattern"] > 0
        assert hessian.verification.passed


def test_a_problem_without_pattern_is_assembled(comm):
    function = FUNCTIONS["bratu"](216)
    with sh.assemble(objective(function, comm, pattern=None), pattern="detect") as hessian:
        assert hessian.evaluations["pattern"] > 0
        assert frobenius_error(hessian.mat, function.hessian(function.x), comm) < 1e-8


@pytest.mark.parametrize("removed", [3, 400])
@pytest.mark.parametrize("dofs", [1, 3])
def test_patterns_that_are_too_small_are_repaired(removed, dofs, comm):
    function = FUNCTIONS["neo_hooke"](192)
    full = sp.csr_matrix(function.pattern)
    if dofs == 3:
        full = sp.csr_matrix(sp.kron(full[::3, ::3], np.ones((3, 3))))
    pairs = np.argwhere(sp.triu(full, 1).toarray())
    gone = pairs[np.random.default_rng(1).choice(len(pairs), removed, replace=False)]
    kept = full.tolil()
    if dofs == 3:
        for i, j in gone // 3:
            if i != j:
                kept[3 * i : 3 * i + 3, 3 * j : 3 * j + 3] = kept[3 * j : 3 * j + 3, 3 * i : 3 * i + 3] = 0
    else:
        kept[gone[:, 0], gone[:, 1]] = kept[gone[:, 1], gone[:, 0]] = 0
    kept = kept.tocsr()
    kept.eliminate_zeros()
    layout = sh.Layout.from_size(len(function.x), comm, block=3)
    pattern = sh.Pattern.from_scipy(kept, layout=layout).in_blocks(dofs)
    with sh.assemble(objective(function, comm, pattern=pattern)) as hessian:
        assert hessian.repaired > 0 and hessian.rebuilds > 0
        assert frobenius_error(hessian.mat, function.hessian(function.x), comm) < 1e-7
        assert (hessian.pattern.quotient is not None) == (dofs == 3)
        hessian.update()
        assert hessian.verification.passed
