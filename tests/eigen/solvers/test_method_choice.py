"""Every method on every kind of problem it is for, against LAPACK and closed forms, on any number of ranks."""

import shutil

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.eigs import complete_spec
from sparsehess.eigen.solvers.method_choice import choose_method
from sparsehess.eigen.solvers.spectrum_slicing import Slicing
from sparsehess.errors import InputError, SparseHessError, StackError
from support.cases import free_chain, lapack, laplacian, prescribed, reference, stored

pytestmark = pytest.mark.parallel([1, 2])


def standard():
    K, exact = laplacian(9, 11)
    return K, None, None, exact


def indefinite():
    exact = np.sort(np.concatenate([-np.geomspace(0.1, 4, 9), np.geomspace(0.2, 9, 60)]))
    return prescribed(exact, 2), None, None, exact


def free_body():
    K, exact = free_chain(80)
    return K, None, np.ones((1, 80)), exact[1:]


def pencil():
    K, _ = laplacian(8, 9)
    M = sp.diags(np.linspace(1, 3, 72)) + sp.diags([0.2 * np.ones(71)] * 2, [-1, 1])
    return K, M.tocsr(), None, lapack(K, M)


def weighted():
    K, _ = laplacian(8, 9)
    weights = np.linspace(1, 3, 72)[np.random.default_rng(4).permutation(72)]
    return K, sp.diags(weights).tocsr(), None, lapack(K, sp.diags(weights).tocsr())


# On few ranks only: SLEPc's Davidson solvers are one code.
SLOWER = [pytest.param(name, marks=pytest.mark.thorough) for name in ("gd", "jd")]

PROBLEMS = [standard, indefinite, free_body, pencil, weighted]


def right(spectrum, expected, top, tol=1e-8):
    assert spectrum.converged == len(expected)
    assert np.abs(spectrum.eigenvalues - expected).max() <= 1e-7 * top
    assert spectrum.residuals.max() <= tol and spectrum.orthogonality <= 1e-9


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", ["krylovschur", "lobpcg", "dense", *SLOWER])
def test_ends_of_spectra(method, problem, comm):
    K, M, null, exact = problem()
    for which, expected in (("smallest", exact[:5]), ("largest", exact[-5:])):
        with sh.eigs(K, 5, which=which, mass=M, nullspace=null, method=method, comm=comm) as spectrum:
            right(spectrum, expected, np.abs(exact).max())
            assert spectrum.method == method and spectrum.count.certified


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", ["slicing", "feast", "ciss", "filter", "dense"])
def test_insides_of_spectra(method, problem, comm):
    K, M, null, exact = problem()
    low, high = 0.5 * (exact[14] + exact[15]), 0.5 * (exact[29] + exact[30])
    if method == "filter" and problem is pencil:
        with pytest.raises(InputError, match="must be diagonal"):
            sh.eigs(K, interval=(low, high), mass=M, method=method, comm=comm)
        return
    with sh.eigs(K, interval=(low, high), mass=M, nullspace=null, method=method, comm=comm) as spectrum:
        right(spectrum, exact[15:30], np.abs(exact).max())
        assert spectrum.method == method and spectrum.count.certified and spectrum.count.found == 15


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("method", ["slicing", "feast"])
@pytest.mark.parametrize("problem", [pencil, free_body], ids=lambda make: make.__name__)
def test_groups_of_ranks_find_the_same(problem, method, groups, comm):
    K, M, null, exact = problem()
    interval = (0.5 * (exact[4] + exact[5]), 0.5 * (exact[24] + exact[25]))
    groups = min(groups, comm.size)
    with sh.eigs(
        K, interval=interval, mass=M, nullspace=null, method=method, groups=groups, comm=comm
    ) as spectrum:
        right(spectrum, exact[5:25], exact[-1])
        assert spectrum.count.certified and spectrum.iterations > 0


@pytest.mark.parametrize("method", ["power", "lanczos"])
def test_methods_for_comparison(method, comm):
    exact = np.sort(np.concatenate([np.linspace(-1, 1, 40), [4.0, -3.0, 2.0]]))
    with sh.eigs(prescribed(exact, 3), 3, which="magnitude", method=method, comm=comm) as spectrum:
        right(spectrum, np.array([-3.0, 2.0, 4.0]), 4.0)
        assert spectrum.options["eps_type"] == method and spectrum.count.certified
    with pytest.raises(InputError, match="alone"):
        sh.eigs(prescribed(exact, 3), 3, target=1.0, method=method, comm=comm)


def test_an_error_in_one_group_is_an_error_in_all(comm, monkeypatch):
    K, _, _, exact = standard()
    find = Slicing.find

    def failing(self, so_far):
        if so_far.whole.low < exact[20] < so_far.whole.high:
            raise ValueError("of one group")
        return find(self, so_far)

    monkeypatch.setattr(Slicing, "find", failing)
    if comm.size > 1:
        with pytest.raises((ValueError, SparseHessError), match="of one group"):
            sh.eigs(K, interval=(0.0, exact[-1]), groups=comm.size, comm=comm)


class Products:
    """What a user's own shell has: products, and no entries."""

    def __init__(self, K, layout):
        self.K, self.layout = K, layout

    def mult(self, mat, x, y):
        whole = np.concatenate(self.layout.comm.allgather(x.getArray(readonly=True)))
        y.setArray(self.K[self.layout.start : self.layout.stop] @ whole)

    def getDiagonal(self, mat, d):  # the name is PETSc's
        d.setArray(self.K.diagonal()[self.layout.start : self.layout.stop])


def shell(K, comm):
    layout = sh.Layout.from_size(K.shape[0], comm)
    mat = PETSc.Mat().createPython(((layout.n_local, layout.n),) * 2, Products(K, layout), comm=comm)
    mat.setUp()
    return mat


@pytest.mark.parametrize("problem", [standard, indefinite, free_body], ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", ["auto", pytest.param("lobpcg", marks=pytest.mark.thorough), "dense", *SLOWER])
def test_shells(method, problem, comm):
    K, _, null, exact = problem()
    mat = shell(K, comm)
    for which, expected in (("smallest", exact[:4]), ("largest", exact[-4:])):
        with sh.eigs(mat, 4, which=which, nullspace=null, method=method) as spectrum:
            right(spectrum, expected, np.abs(exact).max())
            if method in ("auto", "dense"):  # so few rows are made whole, and counted
                assert spectrum.method == "dense" and spectrum.count.certified
            else:
                assert spectrum.count is None and "matrix-free" in spectrum.uncounted
    mat.destroy()


@pytest.mark.parametrize("problem", [free_body, weighted], ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", [pytest.param("filter", marks=pytest.mark.thorough), "dense"])
def test_insides_of_shells(method, problem, comm):
    """By products alone: inside, from an end that is an eigenvalue, from minus infinity, and where nothing is."""
    K, M, null, exact = problem()
    mat = shell(K, comm)
    gap = np.argmax(np.diff(exact))
    empty = exact[gap] + np.array([0.1, 0.9]) * (exact[gap + 1] - exact[gap])
    cases = [
        ((0.5 * (exact[14] + exact[15]), 0.5 * (exact[29] + exact[30])), exact[15:30]),
        ((exact[20], 0.5 * (exact[29] + exact[30])), exact[np.flatnonzero(exact >= exact[20] - 1e-9)[0] : 30]),
        ((-np.inf, 0.5 * (exact[4] + exact[5])), exact[:5]),
        (tuple(empty), exact[:0]),
    ]
    for interval, expected in cases:
        with sh.eigs(mat, interval=interval, mass=M, nullspace=null, method=method) as spectrum:
            assert spectrum.converged == len(expected)
            assert spectrum.count.certified if method == "dense" else spectrum.count is None
            if len(expected):
                right(spectrum, expected, np.abs(exact).max())
    mat.destroy()


@pytest.mark.thorough
@pytest.mark.parametrize("mass", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_feast_by_iterative_solves(mass, comm):
    """Shells have no factorization: loose solves suffice, as residuals are filtered."""
    exact = np.sort(np.concatenate([-np.geomspace(1, 4, 6), np.geomspace(3, 9, 34)]))
    K = prescribed(exact, 2)
    root = sp.diags(np.sqrt(np.linspace(1, 2, 40))) if mass else sp.identity(40)
    M = (root @ root).tocsr() if mass else None
    mat = shell((root @ K @ root).tocsr(), comm)
    with sh.eigs(mat, interval=(-5.0, 0.0), mass=M, method="feast") as spectrum:
        right(spectrum, exact[:6], 9.0)
        assert spectrum.options["ksp_type"] == "minres" and spectrum.count is None
    if comm.size > 1:
        with pytest.raises(InputError, match="cannot be shared out"):
            sh.eigs(mat, interval=(-5.0, 0.0), method="feast", groups=2)
    mat.destroy()


@pytest.mark.thorough
def test_a_hessian_that_is_never_assembled(comm):
    """Products by differences of a gradient, with the answer of the assembled one."""
    n = 60

    def gradient(u):
        g = 2 * u + np.sin(u)
        g[1:] -= u[:-1]
        g[:-1] -= u[1:]
        return g

    x = np.linspace(-1, 1, n)
    objective = sh.Objective(x=x, gradient=gradient, comm=comm)
    exact = lapack(laplacian(n)[0] + sp.diags(np.cos(x)))
    with sh.MatrixFree(objective) as free:
        with sh.eigs(free, 5, which="largest") as spectrum:
            assert np.abs(spectrum.eigenvalues - exact[-5:]).max() < 1e-7
        with sh.eigs(free, 3, tol=1e-7) as spectrum:
            assert np.abs(spectrum.eigenvalues - exact[:3]).max() < 1e-6
        with sh.eigs(
            free, interval=(0.5 * (exact[3] + exact[4]), 0.5 * (exact[9] + exact[10])), tol=1e-6
        ) as spectrum:
            assert np.abs(spectrum.eigenvalues - exact[4:10]).max() < 1e-6 and spectrum.method == "dense"
        with sh.eigs(free, 3, target=1.0, tol=1e-6) as spectrum:  # few rows are made whole
            nearest = np.sort(exact[np.argsort(np.abs(exact - 1.0))[:3]])
            assert np.abs(spectrum.eigenvalues - nearest).max() < 1e-6


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_copies_of_multiple_eigenvalues_of_shells(which, comm):
    exact = np.sort(np.concatenate([np.repeat([0.0, 5.0], 4), np.linspace(1, 4, 52)]))
    mat = shell(prescribed(exact, 6), comm)
    with sh.eigs(mat, 4, which=which) as spectrum:
        right(spectrum, exact[:4] if which == "smallest" else exact[-4:], 5.0)
    mat.destroy()


def test_products_in_single_precision(comm):
    """Vectors and orthogonality stay double: residuals reach what the products allow, and say so."""
    K, exact = laplacian(15, 16)
    rounded = K.astype(np.float32)
    seen = set()

    def hvp(x, v):
        seen.update((x.dtype, v.dtype))
        return rounded @ v

    objective = sh.Objective(x=np.ones(240), hvp=hvp, comm=comm)
    with sh.MatrixFree(objective, precision="single") as free:
        for which, expected in (("smallest", exact[:4]), ("largest", exact[-4:])):
            with sh.eigs(free, 4, which=which, tol=1e-6, method="krylovschur") as spectrum:
                assert spectrum.eigenvalues == pytest.approx(expected, abs=1e-6)
                assert 1e-10 < spectrum.residuals.max() < 1e-6 and spectrum.orthogonality < 1e-12
        with sh.eigs(free, 4, method="krylovschur") as spectrum:  # no tolerance is below the error of the products
            assert spectrum.eigenvalues == pytest.approx(exact[:4], abs=1e-6)
            assert 1e-8 < spectrum.residuals.max() <= spectrum.held_to < 1e-5
            assert (np.abs(spectrum.eigenvalues - exact[:4]) <= spectrum.errors).all()
        with sh.eigs(free, 4) as spectrum:  # of the matrix that the products give
            assert spectrum.eigenvalues == pytest.approx(exact[:4], abs=1e-6) and spectrum.count.certified
    assert set.union(*comm.allgather(seen)) == {np.dtype(np.float32)}  # one rank may have made all products
    with sh.MatrixFree(objective) as free, pytest.raises(InputError, match="precision='single'"):
        rounded.data[1] *= 1 + 1e-5
        sh.eigs(free, 4)
    with pytest.raises(InputError, match="is for products"):
        sh.MatrixFree(sh.Objective(x=np.ones(3), gradient=lambda x: x, comm=comm), precision="single")


def test_a_whole_spectrum_is_nothing_to_filter(comm):
    for K in (laplacian(5, 5)[0], sp.csr_matrix((6, 6))):
        mat = shell(K, comm)
        with pytest.raises(InputError, match="whole spectrum"):
            sh.eigs(mat, interval=(-10.0, 10.0), method="filter")
        with sh.eigs(mat, interval=(-10.0, 10.0), method="dense") as spectrum:
            assert spectrum.converged == K.shape[0]
        mat.destroy()
    mat = shell(K, comm)
    with pytest.raises(InputError, match="no factorization to count with"):
        sh.eigs(mat, 2, count="yes", method="krylovschur")
    mat.destroy()


def test_intervals_without_mumps(comm, monkeypatch):
    for module in ("problem.problem", "solvers.krylov_schur"):
        monkeypatch.setattr(f"sparsehess.eigen.{module}.has_package", lambda name: False)
    K, exact = laplacian(6, 7)
    with sh.eigs(K, interval=(0.0, exact[9] + 1e-6), method="filter", comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[:10]) and "no MUMPS" in spectrum.uncounted
    with pytest.raises(StackError, match="no MUMPS"):
        sh.eigs(K, interval=(0.0, 1.0), comm=comm)


def test_what_auto_chooses_and_why(comm):
    small, large = laplacian(9, 11)[0], laplacian(40, 40)[0]
    asked = [
        (small, SolveSpec(k=5), "krylovschur", "shift-and-invert"),
        (small, SolveSpec(k=60), "dense", "60 of 99"),
        (large, SolveSpec(k=60, which="largest"), "krylovschur", "largest converge first"),
        (large, SolveSpec(interval=(0.0, 1.0)), "slicing", "subintervals"),
        (large, SolveSpec(which="negative"), "slicing", "subintervals"),
        (large, SolveSpec(k=5, method="lobpcg"), "lobpcg", "asked for"),
    ]
    for matrix, spec, method, reason in asked:
        with EigenProblem.of(matrix, comm=comm) as problem:
            choice = choose_method(problem, complete_spec(problem, spec))
            assert choice.method == method and reason in choice.reason
    mat = shell(small, comm)
    with EigenProblem.of(mat) as problem:
        assert "matrix-free" in choose_method(problem, SolveSpec(k=5)).reason
    mat.destroy()


@pytest.fixture
def short_of_memory(monkeypatch):
    """No factorization fits into what there is."""
    for place in ("method_choice", "factor_packages"):
        monkeypatch.setattr(f"sparsehess.eigen.solvers.{place}.LARGE", 1000)
        monkeypatch.setattr(f"sparsehess.eigen.solvers.{place}.free_memory", lambda comm: 1000)


def test_where_no_factor_fits_multigrid_is_taken(comm, short_of_memory):
    K, exact = laplacian(12, 12, 12)
    with sh.eigs(K, 4, count="no", comm=comm) as spectrum:
        right(spectrum, exact[:4], 12.0)
        assert spectrum.method == "lobpcg" and "a factorization would take" in spectrum.reason


def test_where_no_factor_fits_a_count_has_its_factors_on_disk(comm, short_of_memory, folder, monkeypatch):
    K, exact = laplacian(12, 12, 12)
    monkeypatch.setenv("MUMPS_OOC_TMPDIR", str(folder))
    seen = set()
    with sh.eigs(
        K, 4, count="yes", comm=comm, progress=lambda *_: seen.update(path.name for path in folder.iterdir())
    ) as spectrum:
        right(spectrum, exact[:4], 12.0)
        assert spectrum.method == "krylovschur" and "its factors go to disk" in spectrum.reason
        assert spectrum.count.certified and spectrum.options["st_mat_mumps_icntl_22"] == 1 and seen
    for asked in ({"k": 4, "method": "krylovschur"}, {"interval": (0.0, 0.3)}):
        with sh.eigs(K, comm=comm, **asked) as spectrum:
            assert spectrum.count.certified and spectrum.options["st_mat_mumps_icntl_22"] == 1
    assert not list(folder.iterdir())  # nothing stays


def test_factors_that_no_disk_has_room_for_are_refused(comm, short_of_memory, folder, monkeypatch):
    """MUMPS waits for ever for what writes its factors once that has failed."""
    K, _ = laplacian(12, 12, 12)
    monkeypatch.setenv("MUMPS_OOC_TMPDIR", str(folder / "not there"))
    for asked in ({"k": 4, "count": "yes"}, {"interval": (0.0, 0.3)}, {"k": 4, "method": "oneshift"}):
        with pytest.raises(StackError, match=r"not there cannot be used \(No such file"):
            sh.eigs(K, comm=comm, **asked)
    monkeypatch.setenv("MUMPS_OOC_TMPDIR", str(folder))
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage._replace(free=100_000))
    with pytest.raises(StackError, match=r"do not fit into memory, and .* take method lobpcg"):
        sh.eigs(K, 4, count="yes", comm=comm)
    assert not list(folder.iterdir())


def test_methods_that_do_not_suit_say_so(comm):
    K, M = stored("ccx_acou3")
    assert len(reference("ccx_acou3")) == K.shape[0]
    cases = [
        ({"k": 3, "method": "slicing"}, "is for an interval"),
        ({"interval": (0.0, 1.0), "method": "lobpcg"}, "is not for an interval"),
        ({"k": 3, "target": 1.0, "method": "gd"}, "is for the smallest or the largest"),
        ({"k": 3, "method": "magic"}, "is none of"),
        ({"k": 3, "groups": 2}, "groups are for"),
        ({"interval": (0.0, 1.0), "method": "feast", "groups": 99}, "must be from 1 to"),
    ]
    for arguments, says in cases:
        with pytest.raises(InputError, match=says):
            sh.eigs(K, mass=M, comm=comm, **arguments)
