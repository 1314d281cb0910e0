"""Density, counts, trace, diagonal and rank against LAPACK and closed forms, on any number of ranks."""

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import ndtr

import sparsehess as sh
from sparsehess.eigen.certificates.numerical_rank import rank
from sparsehess.eigen.estimates import block_traces, count, density, diagonal, trace
from sparsehess.eigen.estimates.block_lanczos import Lanczos, function_of
from sparsehess.eigen.estimates.reduced_operator import reduced
from sparsehess.eigen.estimates.spectral_functions import half_width
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from support.cases import (
    free_chain,
    grid,
    lapack,
    laplacian,
    prescribed,
    random_pattern,
    random_symmetric,
    reference,
    second_difference,
    stored,
)

pytestmark = pytest.mark.parallel([1, 2])

SPECTRA = {
    "flat then drop": np.r_[np.linspace(1, 1.5, 150), 1e-6 * np.linspace(1, 2, 150)],
    "power law": np.arange(1.0, 301.0) ** -1,
    "clustered": np.repeat([0.0, 1, 2, 5, 9], 60),
    "99 % zeros": np.r_[np.zeros(297), 1, 2, 60],
    "indefinite": np.r_[np.linspace(-1, 1, 280), np.linspace(5, 6, 20)],
}


def thorough(*values):
    return [pytest.param(value, marks=pytest.mark.thorough) for value in values]


def kolmogorov(found, exact):
    """Return the greatest distance of the cumulative density from that of exact eigenvalues."""
    exact = np.sort(exact)
    places = exact[np.append(True, np.diff(exact) > 1e-9 * np.abs(exact).max())]
    slack = 1e-10 * np.abs(exact).max()
    upto = np.searchsorted(exact, places + slack) / len(exact)
    before = np.searchsorted(exact, places - slack) / len(exact)
    return max(
        np.abs(found.below(places)[0] - upto).max(), np.abs(found.below(places, inclusive=False)[0] - before).max()
    )


class Products:
    """What a user's own shell has: products, and no entries."""

    def __init__(self, K, layout):
        self.K, self.layout = K, layout

    def mult(self, mat, x, y):
        whole = np.concatenate(self.layout.comm.allgather(x.getArray(readonly=True)))
        y.setArray(self.K[self.layout.start : self.layout.stop] @ whole)

    multTranspose = mult  # the name is PETSc's


class Blocks(Products):
    """A shell that multiplies with blocks."""

    asked = 0

    def matmat(self, X):
        self.asked += X.shape[1]
        return self.K[self.layout.start : self.layout.stop] @ np.concatenate(self.layout.comm.allgather(X))


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


# --- density ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["clustered", "99 % zeros", *thorough("flat then drop", "power law", "indefinite")]
)
def test_densities_of_prescribed_spectra(name, comm):
    exact = SPECTRA[name]
    found = density(prescribed(exact), comm=comm)
    cell = found.grid[1] - found.grid[0]
    assert kolmogorov(found, exact) < 0.035
    assert abs(cell * found.density.sum() - 1) < 1e-3
    assert found.n == 300 and found.steps <= 100 and not found.atoms
    for power in range(5):
        error = abs(found.moments[power] - (exact**power).mean())
        assert error <= 6 * found.moments_stderr[power] + 1e-12 * np.abs(exact).max() ** power
    assert (np.diff(found.cumulative) >= -1e-14).all() and abs(found.cumulative[-1] - 1) < 1e-9


@pytest.mark.parametrize("name", ["hb_lund", "anm_3mht", *thorough("ccx_acou3", "nafems_fv52_p2", "ccx_beam8f")])
def test_densities_of_stored_matrices(name, comm):
    K, M = stored(name)
    found = density(K, mass=M, samples=12, comm=comm)
    assert kolmogorov(found, reference(name)) < 0.04


@pytest.mark.parametrize("sides", [(13, 12, 14), *thorough((40, 41))])
@pytest.mark.parametrize("method, allowed", [("lanczos", 0.016), ("chebyshev", 0.018)])
def test_densities_of_grids(method, allowed, sides, comm):
    K, exact = laplacian(*sides)
    found = density(K, method=method, comm=comm)
    assert kolmogorov(found, exact) < allowed
    edges = np.append(found.grid, 2 * found.grid[-1] - found.grid[-2]) - 0.5 * (found.grid[1] - found.grid[0])
    smooth = np.diff(ndtr((edges[:, None] - exact) / found.width).mean(axis=1)) / np.diff(edges)
    assert np.abs(found.density - smooth).mean() < 0.1 * smooth.mean()
    assert found.products <= 10 * 100 + 24


def test_cumulative_densities_of_large_grids_have_no_stairs(comm):
    """Where many eigenvalues make every sample alike, staircases would be off by half a step: 1 / 100."""
    K, exact = laplacian(28, 29, 30)
    assert kolmogorov(density(K, samples=4, steps=50, comm=comm), exact) < 0.006


def test_a_kernel_of_given_width(comm):
    K, exact = laplacian(20, 20)
    places = np.linspace(0, 8, 81)
    for method in ("lanczos", "chebyshev"):
        found = density(K, width=0.25, grid=places, method=method, comm=comm)
        assert found.width == pytest.approx(0.25, rel=0.05)
        edges = np.append(places - 0.05, 8.05)
        smooth = np.diff(ndtr((edges[:, None] - exact) / 0.25).mean(axis=1)) / 0.1
        # No boundary is sharp at this width.
        assert np.abs(found.density - smooth)[10:-10].max() < 5 * found.stderr.max() + 0.02


def test_no_eigenvalue_comes_twice(comm):
    """150 steps on a few large outliers, which plain Lanczos returns again and again."""
    outliers = np.array([50.0, 200.0, 1000.0, 1000.5])
    exact = np.r_[np.linspace(0, 1e-3, 200), np.linspace(0, 1, 200), outliers]
    with reduced(prescribed(exact), comm=comm) as operator:
        run = Lanczos(operator, operator.starts(range(5), 1), 150)
        run.advance(150)
        for nodes, weights, residuals in run.quadratures():
            assert len(nodes) == 150 and weights.sum() == pytest.approx(1)
            assert np.abs(nodes[-4:] - outliers).max() < 1e-9 and nodes[-5] < 1 + 1e-9
            assert residuals[-4:].max() < 1e-9
        assert 0 < run.orthogonalised < 5 * 150


def test_runs_of_few_steps_are_exact_where_the_space_is_invariant(comm):
    exact = np.repeat([-3.0, 0.0, 2.0], [5, 60, 15])
    with reduced(prescribed(exact), comm=comm) as operator:
        run = Lanczos(operator, operator.starts(range(3), 0), 50)
        run.advance(50)
        assert run.finished and list(run.lengths) == [3, 3, 3]
        for nodes, _, residuals in run.quadratures():
            assert np.abs(nodes - [-3, 0, 2]).max() < 1e-12 and residuals.max() < 1e-9


@pytest.mark.parametrize("kind", [None, "diagonal", "tight"])
def test_functions_of_pencils_times_vectors(kind, comm):
    K, _ = laplacian(9, 10)
    M = {None: sp.identity(90), "diagonal": sp.diags(np.geomspace(0.1, 10, 90)), "tight": tight_mass(90)}[kind]
    M = M.tocsr()
    with reduced(K, mass=None if kind is None else M, comm=comm) as operator:
        Z = operator.starts(range(4), 0)
        found, change = function_of(operator, Z, np.exp, most=90, accuracy=1e-10)
        assert change < 1e-12
        D = np.sqrt(M.diagonal())
        B = K.toarray() / np.outer(D, D) if kind == "diagonal" else np.linalg.solve(M.toarray(), K.toarray())
        values, U = np.linalg.eig(B)
        exact = (U * np.exp(values.real)) @ np.linalg.solve(U, np.vstack(comm.allgather(Z)))
        assert np.abs(np.vstack(comm.allgather(found)) - exact.real).max() < 1e-8 * np.abs(exact).max()
        lengths = operator.dots(Z, Z)
        assert np.abs(lengths - 90).max() < 1e-8  # signs are as long in M's inner product


@pytest.mark.parametrize("mass", [np.linspace(1, 5, 300), tight_mass(300)], ids=["diagonal", "tight"])
def test_generalised_densities(mass, comm):
    K, _ = laplacian(15, 20)
    M = sp.diags(mass).tocsr() if isinstance(mass, np.ndarray) else mass
    exact = lapack(K, M)
    for method, steps, allowed in (("lanczos", 70, 0.035), ("chebyshev", 30, 0.3)):
        assert kolmogorov(density(K, mass=mass, method=method, steps=steps, comm=comm), exact) < allowed
    inside = int(((exact > 1) & (exact < 3)).sum())
    value, error = count(K, 1.0, 3.0, mass=mass, samples=12, steps=50, comm=comm)
    assert abs(value - inside) <= max(4 * error, 1.0)


def test_what_is_known_becomes_atoms(comm):
    K, exact = free_chain(150)
    K = K + sp.diags(np.r_[np.zeros(149), 0.0])
    found = density(K, nullspace=np.ones((1, 150)), comm=comm)
    assert found.atoms == ((0.0, 1),) and kolmogorov(found, exact) < 0.03
    assert found.range[0] < 1e-12 and found.count(-1e-9, 1e-9) == pytest.approx((1.0, 0.0), abs=1e-4)
    spread = np.r_[np.zeros(200), np.linspace(0.9, 1.1, 90), 30, 40, 40, 50]
    A = prescribed(spread)
    with sh.eigs(A, 4, which="largest", comm=comm) as known:
        found = density(A, deflate=known, comm=comm)
        assert [times for _, times in found.atoms] == [1, 2, 1]
        assert max(nodes.max() for nodes in found.measures.nodes) < 1.2
        assert found.width < 0.1  # of what is left
        assert kolmogorov(found, spread) < 0.03
        left = trace(A, method="hutchinson", deflate=known, comm=comm)
        assert abs(left.trace - spread.sum()) < 4 * left.stderr and left.stderr < 3
        with EigenProblem.of(A, comm=comm) as problem:
            exp = trace(problem, "heat", time=1.0, deflate=known, tol=0.01)
            assert exp.converged and abs(exp.trace - np.exp(-spread).sum()) < 4 * exp.stderr + 1e-9


def test_null_vectors_and_pairs_of_a_pencil_are_deflated_in_its_inner_product(comm):
    K, _ = free_chain(120)
    M = tight_mass(120)
    exact = lapack(K, M)
    with sh.eigs(K, 3, which="largest", mass=M, nullspace=np.ones((1, 120)), comm=comm) as known:
        found = density(K, mass=M, nullspace=np.ones((1, 120)), deflate=known, samples=16, comm=comm)
    assert len(found.atoms) == 4 and found.atoms[0] == (0.0, 1)
    assert np.abs(np.array([atom.location for atom in found.atoms[1:]]) - exact[-3:]).max() < 1e-6 * exact[-1]
    assert kolmogorov(found, np.r_[0.0, exact[1:]]) < 0.06


def test_shells(comm):
    K, exact = laplacian(20, 21)
    mat, _ = shell(K, comm)
    blocks, context = shell(K, comm, Blocks)
    assembled = density(K, samples=4, steps=60, comm=comm)
    for one in (mat, blocks):
        found = density(one, samples=4, steps=60)
        assert np.abs(found.density - assembled.density).max() < 1e-6
        assert kolmogorov(found, exact) < 0.02
        mass = np.linspace(1, 2, 420)
        weighed = trace(one, "heat", time=1.0, mass=mass)
        assert abs(weighed.trace - np.exp(-lapack(K, sp.diags(mass))).sum()) < 4 * weighed.stderr
    assert context.asked > 240
    mat.destroy()
    blocks.destroy()


def test_answers_do_not_depend_on_the_ranks(comm):
    K = random_symmetric(random_pattern(150, 450, 1))
    mass = tight_mass(150)
    for M in (None, mass):
        here, alone = (
            density(K, mass=M, samples=3, steps=40, seed=5, comm=each) for each in (comm, MPI.COMM_SELF)
        )
        assert np.abs(here.density - alone.density).max() < 1e-8 * alone.density.max()
        assert np.abs(here.cumulative - alone.cumulative).max() < 1e-8
        for method in ("hutchinson", "hutch++", "xtrace"):
            mine, theirs = (
                trace(K, "heat", time=0.5, mass=M, method=method, samples=9, comm=each)
                for each in (comm, MPI.COMM_SELF)
            )
            assert abs(mine.trace - theirs.trace) < 1e-5 * theirs.trace
            assert abs(mine.stderr - theirs.stderr) < 1e-3 * theirs.stderr
    everywhere = comm.allgather(density(K, samples=2, steps=20, comm=comm).density.tobytes())
    assert len(set(everywhere)) == 1


@pytest.mark.parametrize("method", ["lanczos", "chebyshev"])
def test_groups_of_ranks_change_nothing_but_rounding(method, comm):
    K, _ = free_chain(120)
    M, null = tight_mass(120), np.ones((1, 120))
    with sh.eigs(K, 3, which="largest", mass=M, nullspace=null, comm=comm) as known:
        for mass, deflate in ((None, None), (M, known)):
            given = {"mass": mass, "deflate": deflate, "nullspace": null, "samples": 5, "steps": 30}
            together = density(K, method=method, **given, comm=comm)
            for groups in {min(2, comm.size), comm.size}:
                found = density(K, method=method, groups=groups, **given, comm=comm)
                assert np.abs(found.cumulative - together.cumulative).max() < 1e-7
                assert np.abs(found.density - together.density).max() < 1e-6 * together.density.max()
                assert found.products == together.products
                assert len(set(comm.allgather(found.density.tobytes()))) == 1
    with pytest.raises(InputError, match="no more than ranks"):
        density(K, groups=comm.size + 1, comm=comm)
    if comm.size > 1:
        mat, _ = shell(K, comm)
        with pytest.raises(InputError, match="groups are for assembled"):
            density(mat, groups=2)
        mat.destroy()


# --- error bars ------------------------------------------------------------------------


def covered(errors_and_bars):
    return sum(abs(error) <= bar for error, bar in errors_and_bars)


@pytest.mark.parametrize("method", thorough("hutchinson", "hutch++", "xtrace"))
def test_bars_of_traces_cover_as_often_as_they_say(method, comm):
    random = random_symmetric(random_pattern(250, 1000, 1))
    for K, exact in (
        (random, lapack(random)),
        (prescribed(np.arange(1, 151.0) ** -1.5), np.arange(1, 151.0) ** -1.5),
    ):
        with EigenProblem.of(K, comm=comm) as problem:
            found = [trace(problem, method=method, seed=seed) for seed in range(100)]
        assert 85 <= covered((one.trace - exact.sum(), one.bars()) for one in found) <= 95


@pytest.mark.thorough
def test_bars_of_functions_cover_as_often_as_they_say(comm):
    K, exact = laplacian(11, 12)
    with EigenProblem.of(K, comm=comm) as problem:
        found = [trace(problem, "inverse", samples=16, steps=40, seed=seed) for seed in range(100)]
    assert 85 <= covered((one.trace - (1 / exact).sum(), one.bars()) for one in found) <= 95


@pytest.mark.parametrize("method", thorough("lanczos", "chebyshev"))
def test_bars_of_densities_cover_as_often_as_they_say(method, comm):
    K = random_symmetric(random_pattern(250, 1000, 1))
    exact = lapack(K)
    places = np.linspace(-8, 8, 33)
    edges = np.append(places - 0.25, 8.25)
    smooth = np.diff(ndtr((edges[:, None] - exact) / 0.4).mean(axis=1)) / 0.5
    width = {"lanczos": 0.4, "chebyshev": None}[method]
    with EigenProblem.of(K, comm=comm) as problem:
        found = [
            density(problem, steps=40, grid=places, width=width, method=method, seed=seed) for seed in range(100)
        ]
    inside = int(((exact >= -1) & (exact <= 2.3)).sum())
    counts = [one.count(-1, 2.3) for one in found]
    assert 85 <= covered((value - inside, half_width(error, 9, 0.9)) for value, error in counts) <= 95
    at = [10, 12, 14, 16, 18, 20]
    shares = [covered((one.density[i] - smooth[i], one.bars()[i]) for one in found) for i in at]
    assert 84 <= np.mean(shares) <= 95


# --- traces ----------------------------------------------------------------------------

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
    mat.destroy()
    free, values = free_chain(90)
    for function, f in (("logdet", np.log), ("inverse", np.reciprocal)):
        found = trace(free, function, nullspace=np.ones((1, 90)), samples=60, comm=comm)
        assert abs(found.trace - f(values[1:]).sum()) <= 4 * found.stderr


def test_diagonals(comm):
    K = random_symmetric(grid(14, 15), 3)
    mat, _ = shell(K, comm)
    layout = sh.Layout.from_size(210, comm)
    own = K.diagonal()[layout.start : layout.stop]
    pattern = sh.Pattern.from_scipy(K, comm=comm)
    for found in (
        diagonal(K, comm=comm),
        diagonal(mat, pattern=pattern),
        diagonal(mat, coloring=sh.color(pattern)),
    ):
        assert found.exact and np.abs(found.values - own).max(initial=0) < 1e-13
    guessed = diagonal(mat, samples=100)
    assert not guessed.exact and guessed.samples == 100
    misses = comm.allreduce(int((np.abs(guessed.values - own) > 2 * guessed.stderr).sum()))
    assert misses < 0.12 * 210
    # The inverse of a matrix that is far from singular falls off: probing with the pattern of a power does.
    A = (laplacian(14, 15)[0] + 6 * sp.identity(210)).tocsr()
    wide = sh.Pattern.from_scipy(A @ A @ A @ A, comm=comm)
    found = diagonal(A, "inverse", pattern=wide, comm=comm)
    exact = np.linalg.inv(A.toarray()).diagonal()[layout.start : layout.stop]
    assert np.abs(found.values - exact).max(initial=0) < 1e-3
    sampled = diagonal(A, "inverse", samples=50, comm=comm)
    assert np.abs(sampled.values - exact).max(initial=0) < 6 * sampled.stderr.max(initial=1e-3)
    mat.destroy()


def test_traces_of_blocks(comm):
    K = random_symmetric(grid(14, 15), 3)
    labels = np.arange(210) // 50
    exact = np.bincount(labels, K.diagonal())
    assert np.abs(block_traces(K, labels, comm=comm).traces - exact).max() < 1e-12
    mat, _ = shell(K, comm)
    found = block_traces(mat, labels, samples=50)
    assert (np.abs(found.traces - exact) <= found.bars(0.999)).all() and len(found.traces) == 5
    layout = sh.Layout.from_size(210, comm)
    here = block_traces(mat, labels[layout.start : layout.stop], samples=50)
    assert np.array_equal(here.traces, found.traces)
    free, _ = free_chain(90)
    part = np.arange(90) % 3
    inverse = np.linalg.pinv(free.toarray(), rcond=1e-10)
    found = block_traces(free, part, "inverse", nullspace=np.ones((1, 90)), comm=comm)
    assert (np.abs(found.traces - np.bincount(part, inverse.diagonal())) <= found.bars(0.999)).all()
    heat = block_traces(free, part, "heat", time=2.0, nullspace=np.ones((1, 90)), comm=comm)
    values, U = np.linalg.eigh(free.toarray())
    exact = np.bincount(part, (U**2 @ np.exp(-2 * values)))
    assert (np.abs(heat.traces - exact) <= heat.bars(0.999)).all()
    mat.destroy()


# --- rank ------------------------------------------------------------------------------


def deep_linear(d, hidden, K, r, seed):
    """Return the Hessian of the squared loss of a deep linear network at random weights.

    By the imaginary step on the gradient: Wₗ gets (W_L…W_{l+1})ᵀ (W Σ − C) (W_{l−1}…W₁)ᵀ.
    """
    rng = np.random.default_rng(seed)
    widths = [d, *hidden, K]
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    ends = np.cumsum([0] + [a * b for a, b in shapes])
    X = rng.normal(size=(d, r)) @ rng.normal(size=(r, 3 * d)) / np.sqrt(r)
    Y = rng.normal(size=(K, 3 * d))
    S, C = X @ X.T / (3 * d), Y @ X.T / (3 * d)

    def gradient(w):
        W = [w[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]
        first = [np.eye(d)]
        for one in W:
            first.append(one @ first[-1])
        rest, parts = first[-1] @ S - C, []
        for one, before in zip(W[::-1], first[-2::-1], strict=True):
            parts.append((rest @ before.T).ravel())
            rest = one.T @ rest
        return np.concatenate(parts[::-1])

    w = np.concatenate([rng.normal(size=a * b) / np.sqrt(b) for a, b in shapes])
    H = np.array([gradient(w + 1e-30j * step).imag / 1e-30 for step in np.eye(len(w))])
    return (H + H.T) / 2


def rank_of_deep_linear(d, hidden, K, r):
    """Singh, Bachmann, Hofmann 2021, "Analytic insights into structure and rank of neural network Hessians"."""
    q = min(r, K, *hidden)
    return 2 * q * sum(hidden) - (len(hidden) + 1) * q**2 + q * (r + K)


SHAPES = [
    (10, (7,), 3, 10),
    (8, (6, 6, 6, 6), 4, 5),
    (16, (8, 8), 10, 12),
    (4, (4,), 4, 4),
    (5, (3,), 4, 5),
    (5, (3,), 4, 2),
    (6, (4, 4), 3, 6),
    (6, (4, 5), 2, 4),
    (7, (5, 3), 6, 7),
    (3, (8,), 2, 3),
    (3, (9, 9), 3, 3),
    (9, (2,), 5, 9),
    (9, (6,), 1, 9),
    (8, (3, 4, 5), 3, 8),
    (8, (5, 4, 3), 4, 6),
    (6, (6, 6), 6, 6),
    (12, (3, 3), 2, 7),
    (5, (5, 5, 5), 5, 3),
    (10, (4,), 4, 1),
    (4, (7, 2), 3, 4),
    (7, (7,), 7, 5),
    (6, (3, 6, 3), 2, 6),
]


@pytest.mark.parametrize("part", [0, *thorough(1)])
def test_ranks_of_deep_linear_networks(part, comm):
    for number, shape in list(enumerate(SHAPES))[part::2]:
        H = deep_linear(*shape, seed=100 + number)
        for threshold in ("gap", 1e-11):
            found = rank(H, threshold, comm=comm)
            assert found.rank == rank_of_deep_linear(*shape), (shape, threshold, found)
            assert found.certified and found.n == len(H) and found.degeneracy == len(H) - found.rank


def test_ranks_and_thresholds(comm):
    values = np.r_[1e-9 * np.linspace(1, 2, 100), np.geomspace(1e-3, 5, 150), -0.5, -1]
    K = prescribed(values)
    found = rank(K, comm=comm)
    assert (found.above, found.below, found.between) == (150, 2, 100) and found.certified
    assert found.threshold == pytest.approx(5e-6, rel=0.02) and found.relative == pytest.approx(1e-6, rel=0.02)
    assert found.share == pytest.approx(100 / 252) and found.stderr == 0 and found.method == "inertia"
    gap = rank(K, "gap", comm=comm)
    assert gap.rank == 152 and gap.certified and 2e-9 < gap.gap[0] < gap.threshold < gap.gap[1] < 1e-3
    none = rank(prescribed(np.linspace(1, 10, 80)), "gap", comm=comm)
    assert none.rank == 80 and none.gap is None and "no gap" in none.why
    half = rank(K, absolute=0.05, comm=comm)
    assert half.rank == int((np.abs(values) > 0.05).sum()) and half.threshold == 0.05 and half.certified
    at = rank(sp.diags(np.r_[np.zeros(9), np.full(9, 1.001e-6), np.ones(20)]).tocsr(), absolute=1e-6, comm=comm)
    assert at.between == 9 and not at.certified and "but" in at.doubt
    for threshold in (None, "gap"):
        guessed = rank(K, threshold, method="density", samples=16, steps=100, comm=comm)
        assert abs(guessed.rank - 152) <= max(4 * guessed.stderr, 1) and not guessed.certified
        assert guessed.above + guessed.below == guessed.rank and guessed.method == "density"
    mat, _ = shell(K, comm)
    assert rank(mat, samples=4).method == "density"
    with pytest.raises(InputError, match="factorization"):
        rank(mat, method="inertia")
    mat.destroy()
    zero = rank(sp.csr_matrix((30, 30)), comm=comm)
    assert zero.rank == 0 and zero.degeneracy == 30


def test_ranks_of_pencils(comm):
    K, _ = free_chain(60)
    light = sp.diags(np.linspace(1, 4, 60)).tocsr()
    assert rank(K, mass=light, comm=comm).degeneracy == 1
    assert rank(K, "gap", mass=tight_mass(60), comm=comm).degeneracy == 1
    assert rank(K, mass=light, nullspace=np.ones((1, 60)), comm=comm).degeneracy == 1
    massless = np.r_[np.ones(50), np.zeros(10)]
    found = rank(K, mass=massless, comm=comm)
    assert (found.rank, found.degeneracy, found.n) == (49, 1, 60) and found.certified


# --- what cannot be --------------------------------------------------------------------


def test_what_cannot_be_used_is_refused(comm):
    K, _ = laplacian(6, 7)
    singular = np.r_[np.ones(40), 0, 0]
    negative = sp.diags([np.ones(42), 0.9 * np.ones(41), 0.9 * np.ones(41)], [0, 1, -1]).tocsr()
    cases = [
        (lambda: density(K, samples=1, comm=comm), "at least 2"),
        (lambda: density(K, method="magic", comm=comm), "none of lanczos"),
        (lambda: density(K, grid=[2.0, 1.0], comm=comm), "ascending"),
        (lambda: density(K, width=-1, comm=comm), "must be positive"),
        (lambda: density(K, method="chebyshev", width=1e-3, steps=10, comm=comm), "needs"),
        (lambda: density(K, mass=singular, comm=comm), "2 zero rows"),
        (lambda: density(K, mass=negative, comm=comm), "positive definite"),
        (lambda: trace(K, "heat", comm=comm), "time is for"),
        (lambda: trace(K, "inverse", gamma=1.0, comm=comm), "gamma is for"),
        (lambda: trace(K, "cosine", comm=comm), "none of identity"),
        (lambda: trace(-K, "logdet", comm=comm), "positive definite"),
        (lambda: trace(K, lambda x: np.log(x - 3), comm=comm), "not finite"),
        (lambda: trace(K, tol=2.0, comm=comm), "between 0 and 1"),
        (lambda: trace(K, "inverse", method="exact", comm=comm), "another method"),
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
