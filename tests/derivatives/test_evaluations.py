"""Layouts of work: groups of ranks, sums over ranks, products in batches, work that is balanced."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.errors import EvaluationError, InputError
from support.cases import frobenius_error
from support.objectives import objective, on_vectors
from support.smooth_functions import FUNCTIONS

pytestmark = pytest.mark.parallel([1, 2])


@pytest.mark.parametrize("scheme", ["forward", "central"])
def test_groups_evaluate_side_by_side(scheme, comm):
    function = FUNCTIONS["broyden_banded"](150)
    exact = function.hessian(function.x)
    for groups in range(1, comm.size + 1):
        made = sh.Objective.in_groups(lambda group: on_vectors(function, group), groups, comm)
        again = sh.Objective.in_groups(lambda group: on_vectors(function, group), groups, comm)
        assert again.group.comm == made.group.comm  # MPI has not so many of them
        with sh.assemble(made, derivative=scheme) as hessian:
            assert frobenius_error(hessian.mat, exact, comm) < (1e-5 if scheme == "forward" else 1e-7)
            assert hessian.evaluations["gradient"] == (
                2 * hessian.coloring.count if scheme == "central" else hessian.coloring.count + 1
            )
    with pytest.raises(InputError, match="groups of"):
        sh.Objective.in_groups(lambda group: on_vectors(function, group), comm.size + 1, comm)


def test_a_failure_in_one_group_ends_all(comm):
    function = FUNCTIONS["broyden_banded"](60)
    groups = max(1, comm.size // 2)
    last = comm.rank * groups // comm.size == groups - 1

    def make(group):
        inner = on_vectors(function, group)
        called = []

        def gradient(u, g):
            called.append(1)
            if last and len(called) > 2:
                raise ValueError("bad luck")
            inner.gradient(u, g)

        return sh.Objective(x=inner.x, gradient=gradient, pattern=inner.pattern)

    first = next(rank for rank in range(comm.size) if rank * groups // comm.size == groups - 1)
    with pytest.raises(EvaluationError, match=f"on rank {first}: bad luck"):
        sh.assemble(sh.Objective.in_groups(make, groups, comm)).close()


@pytest.mark.parametrize("scheme", ["forward", "central", "product"])
def test_sums_over_ranks(scheme, comm):
    """Each rank has its share of the data of a least-squares problem."""
    rng = np.random.default_rng(0)
    A = sp.random(400, 60, 0.05, random_state=1, format="csr") + sp.eye(400, 60)
    target = rng.normal(size=400)
    share = slice(comm.rank * 400 // comm.size, (comm.rank + 1) * 400 // comm.size)
    part, b = A.tocsr()[share], target[share]

    def gradient(x):
        return part.T @ np.tanh(part @ x - b)

    def hvp(x, v):
        return part.T @ ((1 - np.tanh(part @ x - b) ** 2) * (part @ v))

    x = rng.normal(size=60)
    exact = A.T @ sp.diags(1 - np.tanh(A @ x - target) ** 2) @ A
    problem = sh.Objective(
        x=x,
        gradient=gradient,
        hvp=hvp if scheme == "product" else None,
        pattern=sh.Pattern.from_scipy(sp.csr_matrix(abs(A).T @ abs(A)), comm=comm),
        summed=True,
        comm=comm,
    )
    with sh.assemble(problem, derivative="ad" if scheme == "product" else scheme) as hessian:
        tolerance = {"forward": 1e-5, "central": 1e-7, "product": 1e-13}[scheme]
        assert frobenius_error(hessian.mat, exact, comm) < tolerance
        calls = hessian.evaluations["hvp" if scheme == "product" else "gradient"]
        assert calls == {"forward": 1, "central": 0, "product": 0}[scheme] + hessian.coloring.count * (
            2 if scheme == "central" else 1
        )


def test_products_in_batches(comm):
    function = FUNCTIONS["minimal_surface"](150)
    matrix, sizes = function.hessian(function.x), []

    def hvps(x, V):
        sizes.append(len(V))
        return (matrix @ V.T).T

    problem = objective(function, comm, gradient=None, hvps=hvps, batch=4)
    with sh.assemble(problem) as hessian:
        assert frobenius_error(hessian.mat, matrix, comm) < 1e-15
        assert hessian.evaluations["hvp"] == hessian.coloring.count and max(sizes, default=0) <= 4


def test_work_is_balanced_when_gradients_take_unequal_time(comm):
    """A rank that is slow gets less to do."""
    import time

    function = FUNCTIONS["broyden_banded"](60)
    calls = []

    def gradient(x):
        time.sleep(0.03 if comm.rank == 0 else 0.001)
        calls.append(1)
        return function.gradient(x)

    evaluations = Evaluations(objective(function, comm, gradient=gradient), function.x)
    evaluations.gradients([evaluations.x] * 40)
    each = comm.allgather(len(calls))
    assert sum(each) == evaluations.counts["gradient"] == 40
    assert comm.size == 1 or each[0] <= 20 / comm.size
