"""Densities of states against LAPACK and closed forms, on any number of ranks."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import ndtr

import sparsehess as sh
from sparsehess.eigen.estimates import count, density, trace
from sparsehess.eigen.estimates.block_lanczos import Lanczos, apply_function
from sparsehess.eigen.estimates.reduced_operator import reduced_operator
from sparsehess.eigen.estimates.spectral_measures import Quadratures
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from support.cases import (
    free_chain,
    lapack,
    laplacian,
    prescribed,
    random_pattern,
    random_symmetric,
    reference,
    stored,
)
from support.spectra import Products, shell, thorough, tight_mass

pytestmark = pytest.mark.parallel([1, 2])

SPECTRA = {
    "flat then drop": np.r_[np.linspace(1, 1.5, 150), 1e-6 * np.linspace(1, 2, 150)],
    "power law": np.arange(1.0, 301.0) ** -1,
    "clustered": np.repeat([0.0, 1, 2, 5, 9], 60),
    "99 % zeros": np.r_[np.zeros(297), 1, 2, 60],
    "indefinite": np.r_[np.linspace(-1, 1, 280), np.linspace(5, 6, 20)],
}


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


class Blocks(Products):
    """A shell that multiplies with blocks."""

    asked = 0

    def matmat(self, X):
        self.asked += X.shape[1]
        return self.K[self.layout.start : self.layout.stop] @ np.concatenate(self.layout.comm.allgather(X))


@pytest.mark.parametrize(
    "name", ["clustered", "99 % zeros", *thorough("flat then drop", "power law", "indefinite")]
)
def test_densities_of_prescribed_spectra(name, comm):
    exact = SPECTRA[name]
    found = density(prescribed(exact), method="lanczos", comm=comm)
    cell = found.grid[1] - found.grid[0]
    assert kolmogorov(found, exact) < 0.035
    assert abs(cell * found.density.sum() - 1) < 1e-3
    assert found.n == 300 and found.steps <= 100 and not found.atoms
    for power in range(5):
        error = abs(found.moments[power] - (exact**power).mean())
        assert error <= 6 * found.moments_stderr[power] + 1e-12 * np.abs(exact).max() ** power
    assert (np.diff(found.cumulative) >= -1e-14).all() and abs(
        found.cumulative[-1] - 1
    ) <= found.cumulative_stderr[-1] + 1e-9


@pytest.mark.parametrize("name", ["hb_lund", "anm_3mht", *thorough("ccx_acou3", "nafems_fv52_p2", "ccx_beam8f")])
def test_densities_of_stored_matrices(name, comm):
    K, M = stored(name)
    found = density(K, mass=M, samples=12, method="lanczos", comm=comm)
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
    assert kolmogorov(density(K, samples=4, steps=50, method="lanczos", comm=comm), exact) < 0.006


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
    with reduced_operator(prescribed(exact), comm=comm) as operator:
        run = Lanczos(operator, operator.random_vectors(range(5), 1), 150)
        run.advance(150)
        for nodes, weights, residuals in run.quadratures():
            assert len(nodes) == 150 and weights.sum() == pytest.approx(1)
            assert np.abs(nodes[-4:] - outliers).max() < 1e-9 and nodes[-5] < 1 + 1e-9
            assert residuals[-4:].max() < 1e-9
        assert 0 < run.orthogonalised < 5 * 150


def test_few_steps_are_exact_where_the_space_is_invariant(comm):
    exact = np.repeat([-3.0, 0.0, 2.0], [5, 60, 15])
    with reduced_operator(prescribed(exact), comm=comm) as operator:
        run = Lanczos(operator, operator.random_vectors(range(3), 0), 50)
        run.advance(50)
        assert run.finished and list(run.lengths) == [3, 3, 3]
        for nodes, _, residuals in run.quadratures():
            assert np.abs(nodes - [-3, 0, 2]).max() < 1e-12 and residuals.max() < 1e-9


@pytest.mark.parametrize("kind", [None, "diagonal", "tight"])
def test_functions_of_pencils_times_vectors(kind, comm):
    K, _ = laplacian(9, 10)
    M = {None: sp.identity(90), "diagonal": sp.diags(np.geomspace(0.1, 10, 90)), "tight": tight_mass(90)}[kind]
    M = M.tocsr()
    with reduced_operator(K, mass=None if kind is None else M, comm=comm) as operator:
        Z = operator.random_vectors(range(4), 0)
        found, change, _ = apply_function(operator, Z, np.exp, most=90, accuracy=1e-10)
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
    value, error = count(K, 1.0, 3.0, mass=mass, samples=12, steps=50, method="lanczos", comm=comm)
    assert abs(value - inside) <= max(4 * error, 1.0)


def test_what_is_known_becomes_atoms(comm):
    K, exact = free_chain(150)
    K = K + sp.diags(np.r_[np.zeros(149), 0.0])
    found = density(K, nullspace=np.ones((1, 150)), method="lanczos", comm=comm)
    whole = density(K, nullspace=np.ones((1, 150)), comm=comm)
    assert (
        whole.atoms == ((0.0, 1),) and whole.count(-1e-9, 1e-9) == (1.0, 0.0) and kolmogorov(whole, exact) < 1e-9
    )
    assert found.atoms == ((0.0, 1),) and kolmogorov(found, exact) < 0.03
    assert found.range[0] < 1e-12 and abs(found.count(-1e-9, 1e-9)[0] - 1) < 1e-4
    spread = np.r_[np.zeros(200), np.linspace(0.9, 1.1, 90), 30, 40, 40, 50]
    A = prescribed(spread)
    with sh.eigs(A, 4, which="largest", comm=comm) as known:
        whole = density(A, deflate=known, comm=comm)
        assert whole.measures.eigenvalues == pytest.approx(spread[:-4], abs=1e-10)
        found = density(A, deflate=known, method="lanczos", comm=comm)
        assert [times for _, times in found.atoms] == [1, 2, 1]
        assert max(nodes.max() for nodes in found.measures.nodes) < 1.2
        assert found.width < 0.1  # of what is left
        assert kolmogorov(found, spread) < 0.03
        left = trace(A, method="hutchinson", deflate=known, comm=comm)
        assert abs(left.trace - spread.sum()) < 4 * left.stderr and left.stderr < 3
        with EigenProblem.of(A, comm=comm) as problem:
            exp = trace(problem, "heat", time=1.0, deflate=known, tol=0.01, method="hutchinson")
            assert trace(problem, "heat", time=1.0, deflate=known).trace == pytest.approx(np.exp(-spread).sum())
            assert exp.converged and abs(exp.trace - np.exp(-spread).sum()) < 4 * exp.stderr + 1e-9


def test_pairs_of_a_pencil_are_deflated_in_its_inner_product(comm):
    K, _ = free_chain(120)
    M = tight_mass(120)
    exact = lapack(K, M)
    with sh.eigs(K, 3, which="largest", mass=M, nullspace=np.ones((1, 120)), comm=comm) as known:
        found = density(
            K, mass=M, nullspace=np.ones((1, 120)), deflate=known, samples=16, method="lanczos", comm=comm
        )
        whole = density(K, mass=M, nullspace=np.ones((1, 120)), deflate=known, comm=comm)
    assert whole.measures.eigenvalues == pytest.approx(exact[1:-3], abs=1e-9 * exact[-1])
    assert len(found.atoms) == 4 and found.atoms[0] == (0.0, 1)
    assert np.abs(np.array([atom.location for atom in found.atoms[1:]]) - exact[-3:]).max() < 1e-6 * exact[-1]
    assert kolmogorov(found, np.r_[0.0, exact[1:]]) < 0.06


def test_shells(comm):
    K, exact = laplacian(20, 21)
    mat, _ = shell(K, comm)
    blocks, context = shell(K, comm, Blocks)
    assembled = density(K, samples=4, steps=60, method="lanczos", comm=comm)
    for one in (mat, blocks):
        whole = density(one)
        assert whole.method == "dense" and whole.products == 421 and kolmogorov(whole, exact) < 1e-9
        found = density(one, samples=4, steps=60, method="lanczos")
        assert np.abs(found.density - assembled.density).max() < 1e-6
        assert kolmogorov(found, exact) < 0.02
        mass = np.linspace(1, 2, 420)
        true = np.exp(-lapack(K, sp.diags(mass))).sum()
        weighed = trace(one, "heat", time=1.0, mass=mass, method="hutchinson")
        assert abs(weighed.trace - true) < 4 * weighed.stderr
        exactly = trace(one, "heat", time=1.0, mass=mass)
        assert exactly.trace == pytest.approx(true, rel=1e-12) and exactly.stderr == 0
    assert context.asked > 240
    mat.destroy()
    blocks.destroy()


def test_answers_do_not_depend_on_the_ranks(comm):
    K = random_symmetric(random_pattern(150, 450, 1))
    mass = tight_mass(150)
    for M in (None, mass):
        here, alone = (
            density(K, mass=M, samples=3, steps=40, seed=5, method="lanczos", comm=each)
            for each in (comm, MPI.COMM_SELF)
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
    everywhere = comm.allgather(density(K, samples=2, steps=20, method="lanczos", comm=comm).density.tobytes())
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


def exact_measure(values, seed):
    """Return a Lanczos run of a diagonal matrix, and how much of its start lies at each eigenvalue."""
    A = sp.diags(values).tocsr()
    with reduced_operator(A, comm=MPI.COMM_SELF) as operator:
        start = operator.random_vectors([0], seed, "sphere")
        return start, start[:, 0] ** 2 / (start**2).sum()


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("steps", [1, 2, 9, 40])
def test_bounds_of_a_measure_hold(name, steps):
    """Chebyshev, Markov, Stieltjes: at, beside and between eigenvalues, and beyond, of a measure that is known."""
    values = np.sort(SPECTRA[name])
    start, shares = exact_measure(values, 3)
    with reduced_operator(sp.diags(values).tocsr(), comm=MPI.COMM_SELF) as operator:
        run = Lanczos(operator, start, steps)
        run.advance(steps)
        nodes, weights, residuals = map(list, zip(*run.quadratures(), strict=True))
        measures = Quadratures(nodes, weights, residuals, run.recurrences(), steps, operator.noise)
    random = np.random.default_rng(1)
    span = values[-1] - values[0]
    points = np.r_[
        values[::29], nodes[0][::5], random.uniform(values[0] - 0.2 * span, values[-1] + 0.2 * span, 15)
    ]
    for inclusive in (True, False):
        slack = (1 if inclusive else -1) * 1e-9 * np.abs(values).max()
        for chosen in (*points[:, None], points, np.array([-np.inf, np.inf, 1e300, -1e300])):
            true = np.array([shares[values <= point + slack].sum() for point in chosen])
            rows = measures.below(chosen, inclusive=inclusive)
            assert (rows.lower[0] <= true + 1e-8).all() and (rows.upper[0] >= true - 1e-8).all()
            assert (rows.lower <= rows.value).all() and (rows.value <= rows.upper).all()
    if len(nodes[0]) < steps or (name == "clustered" and steps > 5):  # the space is invariant: nothing is open
        rows = measures.below(np.array([0.5, 3.0]))
        assert np.abs(rows.upper - rows.lower).max() < 1e-12


def test_bounds_between_clusters_are_narrow():
    values = np.r_[np.linspace(-1, 1, 400), 30.0, 60.0]
    found = density(sp.diags(values).tocsr(), samples=4, steps=30, method="lanczos", comm=MPI.COMM_SELF)
    assert found.unresolved(5.0, 45.0) < 1e-6 and found.unresolved(0.0, 45.0) > 1.0


@pytest.mark.parametrize("method", ["lanczos", "chebyshev"])
def test_counts_beside_clusters_are_within_their_errors(method, comm):
    """What lies nearer to an end than is resolved belongs to the error, whichever side it is on."""
    random = np.random.default_rng(5)
    cases = {
        "kernel": np.r_[np.zeros(150), np.linspace(1e-3, 1, 250)],
        "network": np.r_[
            -(10 ** random.uniform(-3, -1.3, 120)),
            10 ** random.uniform(-7, -5, 80),
            10 ** random.uniform(-3, 0.5, 200),
        ],
        "outliers": np.r_[np.zeros(100), random.normal(0, 0.1, 295), 5.0, 20, 30, 40, 60],
    }
    zs = []
    for name, drawn in cases.items():
        values = np.sort(drawn)
        A = prescribed(values, 2)
        with EigenProblem.of(A, comm=comm) as problem:
            for seed in range(3):
                found = density(problem, samples=20, steps=60, seed=seed, method=method)
                for low, high in ((-np.inf, -1e-9), (-1e-9, 1e-9), (1e-9, np.inf), (-1e-4, 0.3), (0.3, 2.0)):
                    value, error = found.count(low, high)
                    true = ((values >= low) & (values <= high)).sum()
                    zs.append((value - true) / max(error, 0.05))
                    assert abs(zs[-1]) < 4, (name, low, high, value, error, true)
                value, error = found.count(0.3, 2.0)
                assert error < 40 or method == "chebyshev"
    assert abs(np.mean(zs)) < 0.5


def test_estimates_of_an_unresolved_side_say_so(comm):
    values = np.r_[np.zeros(1000), np.linspace(1e-4, 1, 1500)]
    mat, _ = shell(sp.diags(values[np.random.default_rng(0).permutation(2500)]).tocsr(), comm)
    found = sh.inertia(mat)
    mat.destroy()
    assert not found.certified and found.stderr is not None and "unresolved" in found.doubt
    assert found.definite == "unresolved"  # none is negative, but who knows
    for value, error, true in zip(
        (found.negative, found.zero, found.positive), found.stderr, (0, 1000, 1500), strict=True
    ):
        assert abs(value - true) <= 2 * error + 1
    assert found.negative + found.zero + found.positive == 2500


@pytest.mark.parametrize("method", ["auto", "lanczos", "chebyshev"])
def test_quantiles_stay_within_the_spectrum(method, comm):
    values = np.sort(np.r_[-np.geomspace(1e-3, 0.05, 120), np.geomspace(1e-3, 3, 229), 60.0])
    shares = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    found = density(prescribed(values, 1), method=method, samples=12, steps=60, comm=comm)
    for share, one in zip(shares, found.quantiles(shares), strict=True):
        true = values[int(np.ceil(350 * share)) - 1]
        slack = 1e-9
        assert values[0] - slack <= one.low <= one.place <= one.high <= values[-1] + slack
        if method == "auto":
            assert one.low == one.high == one.place == pytest.approx(true)
    with pytest.raises(InputError, match="between 0 and 1"):
        found.quantiles([1.5])
    zero = density(sp.csr_matrix((30, 30)), method=method, samples=2, steps=20, comm=comm)
    assert all(one.place == 0 for one in zero.quantiles(shares)) or method == "chebyshev"


def test_what_is_known_no_better_than_products_is_no_count(comm):
    """Eigenvalues within the error of the products of an end are doubtful, in a dense matrix too."""
    values = np.sort(np.r_[1e-8, np.linspace(1, 2, 49)])
    K = prescribed(values, 3).astype(np.float32)
    objective = sh.Objective(x=np.zeros(50), hvp=lambda x, v: K @ v, comm=comm)
    with sh.MatrixFree(objective, precision="single") as free:
        found = density(free)
        assert found.method == "dense"
        assert found.count(1.5, 3.0)[0] == (values >= 1.5).sum() and found.count(-np.inf, 1e-9)[1] > 0


def test_single_values_and_constant_matrices(comm):
    for values in ([2.0], [3.0] * 40, [0.0] * 7):
        for method in ("auto", "lanczos"):
            found = density(sp.diags(values).tocsr(), method=method, comm=comm)
            n = len(values)
            assert found.count(values[0], values[0]) == (n, 0.0) and found.count(values[0] + 1, np.inf) == (
                0.0,
                0.0,
            )
            assert np.isfinite(found.cumulative).all() and found.quantiles([0.5])[0].place == pytest.approx(
                values[0]
            )
