"""Functions whose Hessians are known: patterns found by probing, errors estimated, schemes and layouts of work."""

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError
from support.cases import frobenius_error
from support.smooth_functions import FUNCTIONS

pytestmark = pytest.mark.parallel([1, 2])

SOME = ["chained_wood", "broyden_banded", "arwhead", "sparsine", "minimal_surface"]
LONG = ["lennard_jones", "neo_hooke"]


def objective(function, comm, **more):
    given = {"gradient": function.gradient, "pattern": sh.Pattern.from_scipy(function.pattern, comm=comm)}
    return sh.Objective(x=function.x, comm=comm, name=function.name, **{**given, **more})


# --- patterns by probing -----------------------------------------------------------------


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
        found = sh.detect(objective(function, comm, pattern=None), seed=seed, counts=calls)
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
    found = sh.detect(objective(function, comm, pattern=None), counts=calls)
    assert misses(found, function, comm) == 0
    degree = np.sort(np.diff(function.pattern.indptr))[-10]
    assert calls["gradient"] < 64 + 20 + 4 * max(degree, 8) * np.log2(20_000)
    found.free()


def test_probing_of_products(comm):
    function = FUNCTIONS["noncvxu"](300)
    matrix = function.hessian(function.x)
    given = {"gradient": None, "hvp": lambda x, v: matrix @ v, "pattern": None}
    calls = {}
    found = sh.detect(objective(function, comm, **given), counts=calls)
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

    found = sh.detect(objective(function, comm, pattern=None, gradient=gradient))
    assert misses(found, function, comm) == 0


def test_points_tell_what_is_local(comm):
    """x_i² x_(i+1)² couples neighbours, but not where either is zero."""

    def gradient(x):
        g = 2 * x
        g[:-1] += 2 * x[:-1] * x[1:] ** 2
        g[1:] += 2 * x[1:] * x[:-1] ** 2
        return g

    problem = sh.Objective(x=np.zeros(50), gradient=gradient, comm=comm)
    here, several = sh.detect(problem), sh.detect(problem, points=2)
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


# --- noise and error estimates -----------------------------------------------------------


@pytest.mark.parallel([1])
@pytest.mark.parametrize("scheme", ["forward", "central", "extrapolated"])
@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-8, 1e-5])
@pytest.mark.parametrize(
    "name", ["chained_wood", "broyden_banded", "engval", "noncvxu", "lennard_jones", "neo_hooke"]
)
def test_the_error_is_known_within_a_factor_of_ten(name, noise, scheme, comm):
    function = FUNCTIONS[name](120)
    size = noise * np.sqrt(np.mean(function.gradient(function.x) ** 2))
    rng = np.random.default_rng(7)

    def gradient(x):
        return function.gradient(x) + size * rng.normal(size=len(x))

    given = objective(function, MPI.COMM_SELF, gradient=gradient)
    with sh.assemble(given, derivative=scheme, order="smallest-last") as hessian:
        error = frobenius_error(hessian.mat, function.hessian(function.x), MPI.COMM_SELF)
        assert error / 10 < hessian.error < 10 * error
        assert hessian.evaluations["noise"] <= 8 and hessian.evaluations["verification"] == 2
        if noise > 1e-12:
            assert np.median(hessian.noise.level) == pytest.approx(size, rel=0.5)


@pytest.mark.parametrize("coloring", ["star", "acyclic", "cpr", "powell-toint"])
@pytest.mark.parametrize("name", ["broyden_banded", "neo_hooke"])
def test_the_error_is_known_for_every_recovery(name, coloring, comm):
    """Noise that is a function of x, so that it does not depend on who evaluates."""
    function = FUNCTIONS[name](120)

    def gradient(x):
        return function.gradient(x) + 1e-7 * np.sin(1e9 * x.sum() + np.arange(len(x)) ** 2)

    given = objective(function, comm, gradient=gradient)
    with sh.assemble(given, coloring=coloring, order="smallest-last") as hessian:
        error = frobenius_error(hessian.mat, function.hessian(function.x), comm)
        assert error / 10 < hessian.error < 10 * error


@pytest.mark.parametrize(
    "name", [*SOME[:2], *(pytest.param(name, marks=pytest.mark.thorough) for name in SOME[2:])]
)
def test_higher_schemes_err_less(name, comm):
    function = FUNCTIONS[name](100)
    exact, errors, gradients = function.hessian(function.x), {}, {}
    for scheme in ("forward", "central", "extrapolated", "complex"):
        with sh.assemble(objective(function, comm), derivative=scheme, order="smallest-last") as hessian:
            errors[scheme] = frobenius_error(hessian.mat, exact, comm)
            gradients[scheme] = hessian.evaluations["gradient"] / hessian.coloring.count
    assert errors["forward"] > errors["central"] > errors["extrapolated"]
    assert errors["complex"] < 1e-13
    assert gradients["central"] == 2 and gradients["extrapolated"] == 4 and gradients["complex"] == 1


@pytest.mark.parametrize("name", ["chained_wood", "lennard_jones"])
def test_an_energy_alone_is_enough(name, comm):
    function = FUNCTIONS[name](40)
    problem = objective(function, comm, gradient=None, energy=function.energy)
    with sh.assemble(problem, order="smallest-last") as hessian:
        error = frobenius_error(hessian.mat, function.hessian(function.x), comm)
        assert error < 1e-5
        n = len(function.x)
        assert hessian.evaluations["gradient"] == 0
        assert hessian.evaluations["energy"] == 2 * n * 2 * hessian.coloring.count
        assert error / 10 < hessian.error < 10 * error


def test_bounds_are_never_crossed(comm):
    """E = Σ x log x - x is no number below zero."""

    def gradient(x):
        assert (x > 0).all() and (x <= 1).all()
        return np.log(x)

    x = np.array([1e-9, 1e-3, 0.5, 1.0, 1.0, 0.3])
    given = {"pattern": sh.Pattern.from_pairs([], [], 6, comm=comm), "bounds": (1e-12, 1.0), "comm": comm}
    for scheme in ("forward", "central", "extrapolated"):
        problem = sh.Objective(x=x, gradient=gradient, typical_x=x, **given)
        with sh.assemble(problem, derivative=scheme) as hessian:
            error = frobenius_error(hessian.mat, sp.diags(1 / x).tocsr(), comm)
            assert error < {"forward": 1e-6, "central": 1e-6, "extrapolated": 1e-7}[scheme]
    with pytest.raises(InputError, match="variable 3 is 1, its bounds are"):
        sh.assemble(sh.Objective(x=x, gradient=gradient, **{**given, "bounds": (0.0, 0.9)}))


def test_complex_steps_need_complex_gradients(comm):
    function = FUNCTIONS["engval"](30)
    real = objective(function, comm, gradient=lambda x: function.gradient(np.real(x)))
    with pytest.raises(EvaluationError, match="complex numbers for a complex x"):
        sh.assemble(real, derivative="complex")


# --- layouts of work ---------------------------------------------------------------------


def on_vectors(function, comm):
    """Return the objective on PETSc vectors of the communicator; the gradient gathers x."""
    x = PETSc.Vec().createMPI(len(function.x), comm=comm)
    first, last = x.getOwnershipRange()
    x.setArray(function.x[first:last])

    def gradient(u, g):
        whole = np.concatenate(u.comm.tompi4py().allgather(u.getArray(readonly=True).copy()))
        g.setArray(function.gradient(whole)[first:last])

    return sh.Objective(x=x, gradient=gradient, pattern=sh.Pattern.from_scipy(function.pattern, comm=comm))


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

    evaluations = objective(function, comm, gradient=gradient).at(function.x)
    evaluations.gradients([function.x] * 40)
    each = comm.allgather(len(calls))
    assert sum(each) == evaluations.counts["gradient"] == 40
    assert comm.size == 1 or each[0] <= 20 / comm.size


# --- matrix-free -------------------------------------------------------------------------


def product(mat, vector, comm):
    """Return mat @ vector, whole on every rank."""
    x, y = mat.createVecs()
    first, last = x.getOwnershipRange()
    x.setArray(vector[first:last])
    mat.mult(x, y)
    out = np.concatenate(comm.allgather(y.getArray().copy()))
    x.destroy()
    y.destroy()
    return out


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
