"""Our FEAST against LAPACK and closed forms: all eigenvalues of an interval, none missed, none spurious."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.eigen.problem import rayleigh_ritz
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.contour_quadrature import QUADRATURES, contour
from sparsehess.eigen.solvers.feast import Feast
from sparsehess.errors import InputError
from sparsehess.runtime import destroy
from support import cases

pytestmark = pytest.mark.parallel([1, 2, 4])

WORLD = MPI.COMM_WORLD
TOL = 1e-8


def inside(spectrum, low, high):
    slack = 1e-12 * np.abs(spectrum).max()
    return spectrum[(spectrum >= low - slack) & (spectrum <= high + slack)]


def found(matrix, mass, low, high, expected, *, nullspace=None, options=None, **settings):
    """Return (eigenvalues, largest residual, iterations) of one call of FEAST."""
    with EigenProblem.of(matrix, mass=mass, nullspace=nullspace, comm=WORLD) as problem:
        solver = Feast(problem, options or {}, TOL, **settings)
        vectors = solver.find(low, high, expected)
        values, vectors, errors, orthogonality, *_ = rayleigh_ritz.rayleigh_ritz(problem, vectors)
        assert orthogonality < 1e-10
        iterations = solver.iterations
        destroy(*vectors)
        solver.close()
    return values, errors.max(initial=0.0), iterations


def check(matrix, mass, spectrum, low, high, expected=None, **settings):
    """Assert that FEAST finds what of the spectrum lies in [low, high]; return its iterations."""
    exact = inside(spectrum, low, high)
    values, worst, iterations = found(
        matrix, mass, low, high, len(exact) if expected is None else expected, **settings
    )
    assert len(values) == len(exact), f"{len(values)} of {len(exact)} in [{low}, {high}], {iterations} iterations"
    assert worst <= TOL
    if len(exact):
        assert np.abs(values - exact).max() <= 1e-9 * np.abs(spectrum).max()
    return iterations


def between(spectrum, i):
    """Return a number in the first gap of the spectrum from i on."""
    spectrum = np.asarray(spectrum)
    gaps = np.flatnonzero(np.diff(spectrum) > 1e-9 * np.abs(spectrum).max())
    j = gaps[np.searchsorted(gaps, i)]
    return (spectrum[j] + spectrum[j + 1]) / 2


# --- the filters alone ---


@pytest.mark.thorough
@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_filter_is_one_inside_and_nothing_outside(quadrature):
    rho = contour(quadrature, 8, 2.0, 6.0)
    assert np.all(rho.points.imag > 0)
    assert rho([2.0, 6.0]) == pytest.approx(0.5, abs=5e-3)
    assert rho(np.linspace(2.2, 5.8, 99)) == pytest.approx(1.0, abs=0.08)
    assert np.abs(rho(np.linspace(6.5, 60, 999))).max() < 5e-3
    assert np.abs(rho(np.linspace(-60, 1.5, 999))).max() < 5e-3


@pytest.mark.thorough
def test_zolotarev_is_equioscillating():
    rho = contour("zolotarev", 8, -1.0, 1.0)
    values = rho(np.linspace(-0.98, 0.98, 4001))
    turns = np.diff(np.sign(np.diff(values)))
    tops = values[1:-1][turns < 0]
    bottoms = values[1:-1][turns > 0]
    assert len(tops) >= 5
    assert np.ptp(tops) < 1e-4
    assert np.ptp(bottoms) < 1e-4
    assert np.abs(rho(np.geomspace(1.025, 1e6, 999))).max() < 2 * (tops.max() - bottoms.min()) + 1e-9


@pytest.mark.thorough
def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="none of gauss"):
        contour("simpson", 8, 0.0, 1.0)
    with EigenProblem.of(cases.laplacian(5)[0], comm=WORLD) as problem:
        with pytest.raises(InputError, match="groups"):
            Feast(problem, {}, TOL, groups=WORLD.size + 1)
        solver = Feast(problem, {"ksp_tpye": "gmres"}, TOL)
        with pytest.raises(InputError, match="-ksp_tpye"):
            solver.find(0.1, 2.0, 2)
        with pytest.raises(InputError, match="finite"):
            solver.find(0.1, np.inf, 2)
        solver.close()


# --- problems ---


@pytest.mark.thorough
@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("points", [4, 8])
def test_laplacian_with_multiplicities(quadrature, points):
    matrix, spectrum = cases.laplacian(12, 12)
    check(matrix, None, spectrum, 1.0, 2.2, quadrature=quadrature, points=points)


@pytest.mark.thorough
def test_cube_with_multiplicities_of_six():
    matrix, spectrum = cases.laplacian(9, 9, 9)
    iterations = check(matrix, None, spectrum, between(spectrum, 120), between(spectrum, 200))
    assert iterations <= 4


@pytest.mark.thorough
@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("name", ["hb_bcsst01", "hb_lund", "ccx_acou3"])
def test_generalised(name, quadrature):
    K, M = cases.stored(name)
    spectrum = cases.reference(name)
    third = len(spectrum) // 3
    check(K, M, spectrum, between(spectrum, 2), between(spectrum, 9), quadrature=quadrature)
    check(K, M, spectrum, between(spectrum, third), between(spectrum, third + 6), quadrature=quadrature)


@pytest.mark.thorough
def test_74_fold_eigenvalue_beside_the_interval():
    """It passes the filter half, and fills a subspace that was made for what is inside."""
    values = np.concatenate([np.linspace(0, 0.9, 7), np.full(74, 1.0), np.linspace(1.2, 4, 60)])
    check(cases.prescribed(values), None, values, -0.1, 0.9999)


@pytest.mark.thorough
def test_shifts_that_cancel_the_diagonal():
    """MUMPS then delays more pivots than its analysis expects, and wants more room."""
    matrix, spectrum = cases.laplacian(3, 5, 7)
    check(matrix, None, spectrum, 5.999999999999998, 6.38268343236509)
    check(matrix, None, spectrum, 5.9, 6.1)


@pytest.mark.thorough
def test_prescribed_clusters():
    rng = np.random.default_rng(5)
    values = np.sort(
        np.concatenate([1 + 1e-10 * rng.random(9), 2 + 1e-10 * rng.random(12), 4 * rng.random(60) + 3])
    )
    matrix = cases.prescribed(values)
    check(matrix, None, values, 0.5, 1.5)
    check(matrix, None, values, 0.9, 2.1)
    check(matrix, None, values, values[0], values[20] + 1e-6)


@pytest.mark.thorough
def test_ends_that_are_eigenvalues():
    matrix, spectrum = cases.laplacian(8, 9)
    check(matrix, None, spectrum, spectrum[10], spectrum[20])
    matrix, spectrum = cases.laplacian(7, 7)
    check(matrix, None, spectrum, spectrum[4], spectrum[12])
    K, M = cases.stored("hb_bcsst01")
    spectrum = cases.reference("hb_bcsst01")
    check(K, M, spectrum, spectrum[3], spectrum[9])


@pytest.mark.thorough
def test_ends_just_beside_eigenvalues():
    values = np.linspace(1, 10, 46)
    matrix = cases.prescribed(values)
    beside = 1e-9
    check(matrix, None, values, values[10] + beside, values[20] + beside)
    check(matrix, None, values, values[10] - beside, values[20] - beside)


@pytest.mark.thorough
def test_empty_intervals():
    matrix, spectrum = cases.laplacian(10, 10)
    middle = between(spectrum, 30)
    assert len(found(matrix, None, middle, middle, 0)[0]) == 0
    assert len(found(matrix, None, spectrum[0], spectrum[0], 1)[0]) == 0
    assert len(found(matrix, None, 2.0, 1.0, 5)[0]) == 0
    for expected in (0, 5):
        check(matrix, None, spectrum, middle - 1e-4, middle + 1e-4, expected)
        check(matrix, None, spectrum, -3.0, -2.0, expected)
        check(matrix, None, spectrum, 100.0, 200.0, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("expected", [0, 1, 12, 60, 1000])
def test_wrong_expectations(expected):
    matrix, spectrum = cases.laplacian(13, 11)
    check(matrix, None, spectrum, 1.5, 3.2, expected)


@pytest.mark.thorough
def test_the_whole_spectrum_of_a_small_problem():
    matrix, spectrum = cases.laplacian(3, 3)
    check(matrix, None, spectrum, 0.0, 8.0)
    check(sp.csr_matrix(np.array([[2.0]])), None, np.array([2.0]), 1.0, 3.0)


@pytest.mark.thorough
def test_singular_mass():
    matrix, _ = cases.laplacian(9, 8)
    mass = np.ones(72)
    mass[::5] = 0
    spectrum = cases.lapack(matrix, sp.diags(mass))
    for quadrature in QUADRATURES:
        check(matrix, mass, spectrum, between(spectrum, 5), between(spectrum, 15), quadrature=quadrature)
    check(matrix, mass, spectrum, 0.0, spectrum[-1] + 1, quadrature="zolotarev")


@pytest.mark.thorough
def test_null_vectors_are_left_out():
    matrix, spectrum = cases.free_chain(60)
    values, worst, _ = found(matrix, None, -0.1, between(spectrum, 6), 6, nullspace=np.ones(60))
    assert values == pytest.approx(spectrum[1:7], abs=1e-12)
    assert worst <= TOL


@pytest.mark.thorough
def test_found_ones_are_deflated():
    matrix, spectrum = cases.laplacian(9, 9)
    low, high = between(spectrum, 20), between(spectrum, 34)
    exact = inside(spectrum, low, high)
    with EigenProblem.of(matrix, comm=WORLD) as problem:
        solver = Feast(problem, {}, TOL)
        first = solver.find(low, high, len(exact))
        assert len(first) == len(exact)
        kept, rest = first[::2], first[1::2]
        second = solver.find(low, high, len(rest), deflate=kept, seed=1)
        third = solver.find(low, high, 0, deflate=[*kept, *second], seed=2)
        assert not third
        values, vectors, *_ = rayleigh_ritz.rayleigh_ritz(problem, kept + second)
        assert values == pytest.approx(exact, abs=1e-9)
        destroy(*rest, *vectors)
        solver.close()


@pytest.mark.thorough
def test_one_solver_for_several_intervals():
    matrix, spectrum = cases.laplacian(9, 10)
    with EigenProblem.of(matrix, comm=WORLD) as problem:
        solver = Feast(problem, {}, TOL)
        for i in (0, 20, 45):
            low, high = between(spectrum, i), between(spectrum, i + 9)
            vectors = solver.find(low, high, 9)
            values, vectors, *_ = rayleigh_ritz.rayleigh_ritz(problem, vectors)
            assert values == pytest.approx(inside(spectrum, low, high), abs=1e-9)
            destroy(*vectors)
        solver._systems.keep = False  # as where memory does not hold the factors of all points
        vectors = solver.find(low, high, 9)
        assert len(vectors) == len(values)
        destroy(*vectors)
        solver.close()


@pytest.mark.thorough
def test_options_reach_the_solves():
    """Iterative solves too: the residual form forgives their errors."""
    matrix, spectrum = cases.laplacian(7, 8)
    loose = {"ksp_type": "gmres", "ksp_rtol": 1e-2, "ksp_gmres_restart": 200, "pc_type": "none"}
    low, high = between(spectrum, 10), between(spectrum, 18)
    exact = inside(spectrum, low, high)
    with EigenProblem.of(matrix, comm=WORLD) as problem:
        solver = Feast(problem, loose, TOL)
        vectors = solver.find(low, high, len(exact))
        values, vectors, errors, *_ = rayleigh_ritz.rayleigh_ritz(problem, vectors)
        assert values == pytest.approx(exact, abs=1e-9)
        assert errors.max() <= TOL
        destroy(*vectors)
        solver.close()


@pytest.mark.thorough
def test_random_intervals():
    """Over clusters, multiplets and gaps: 0 missed, 0 spurious."""
    rng = np.random.default_rng(2024)
    for case in range(20):
        values = np.sort(
            np.concatenate(
                [
                    rng.normal(size=40),
                    np.repeat(rng.normal(size=4), rng.integers(2, 7, 4)),
                    rng.normal() + 1e-10 * rng.random(8),
                    10.0 ** rng.uniform(-6, 2, 10),
                ]
            )
        )
        mass = None if case % 2 else rng.uniform(0.5, 2, len(values))
        matrix = cases.prescribed(values, seed=case)
        if mass is not None:
            root = sp.diags(np.sqrt(mass))
            matrix = (root @ matrix @ root).tocsr()
        i, j = np.sort(rng.choice(len(values) - 1, 2, replace=False))
        low, high = between(values, max(i - 8, 0)), between(values, min(j, len(values) - 12))
        exact = int(((values >= low) & (values <= high)).sum())
        expected = exact if case % 3 else int(exact * rng.uniform(0.3, 2))
        check(matrix, mass, values, low, high, expected, quadrature=list(QUADRATURES)[case % 3])


# --- ranks ---


@pytest.mark.parametrize(
    "groups", [pytest.param(groups, marks=pytest.mark.parallel(range(groups, 5))) for groups in (2, 3, 4)]
)
def test_groups_give_the_same(groups):
    matrix, spectrum = cases.laplacian(8, 7, 6)
    low, high = between(spectrum, 80), between(spectrum, 110)
    check(matrix, None, spectrum, low, high, groups=groups)
    one = found(matrix, None, low, high, 30)
    many = found(matrix, None, low, high, 30, groups=groups)
    assert many[0] == pytest.approx(one[0], abs=1e-11)
    assert many[2] == one[2]
    K, M = cases.stored("hb_lund")
    spectrum = cases.reference("hb_lund")
    check(K, M, spectrum, between(spectrum, 40), between(spectrum, 52), groups=groups, quadrature="trapezoidal")


def test_more_ranks_than_rows():
    matrix, spectrum = cases.laplacian(3)
    check(matrix, None, spectrum, 0.1, 2.5)
    check(matrix, None, spectrum, 0.1, 2.5, groups=WORLD.size)
