"""Whole intervals of spectra against LAPACK and closed forms, on any number of ranks."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_slicing import Slicing
from sparsehess.errors import CheckError, InputError
from support.cases import free_chain, lapack, laplacian, prescribed, real, reference, stored
from support.spectra import shell

pytestmark = pytest.mark.parallel([1, 2, 4])


def whole(spectrum, exact, low, high, top):
    """Assert that all eigenvalues of an interval are there, and none besides."""
    slack = 1e-9 * top
    surely = exact[(exact > low + slack) & (exact < high - slack)]
    maybe = exact[(exact > low - slack) & (exact < high + slack)]
    found = spectrum.eigenvalues
    assert len(surely) <= len(found) <= len(maybe)
    begin = np.searchsorted(maybe, surely[0]) if len(surely) and len(found) == len(surely) else 0
    assert np.abs(found - maybe[begin : begin + len(found)]).max(initial=0.0) <= slack
    assert spectrum.residuals.max(initial=0.0) <= 1e-8 and spectrum.orthogonality <= 1e-9
    assert spectrum.count.certified and not spectrum.count.unresolved
    assert spectrum.converged == spectrum.asked


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [
        *real("hb_bcsst01", "hb_lund", "hb_bcsstk16", "ccx_acou3", "nafems_fv52_p2", "evsl_ab_fem3d"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ccx_beam8f", "anm_3mht")),
    ],
)
def test_quarters_of_real_spectra(name, comm):
    K, M = stored(name)
    exact = reference(name)
    n = len(exact)
    ends = [-np.inf, *(0.5 * (exact[n * q // 4 - 1] + exact[n * q // 4]) for q in (1, 2, 3)), np.inf]
    quarters = list(itertools.pairwise(ends))
    if n > 2000:  # of the largest the lowest
        quarters = [(-np.inf, 0.5 * (exact[39] + exact[40]))]
    for low, high in quarters:
        with sh.eigs(K, interval=(low, high), mass=M, comm=comm) as spectrum:
            whole(spectrum, exact, low, high, np.abs(exact).max())


@pytest.mark.parametrize("sides", [pytest.param((16, 16, 16), marks=pytest.mark.thorough), (20, 20)])
def test_multiplicities_of_laplacians(sides, comm):
    K, exact = laplacian(*sides)
    low, high = exact[3] + 1e-3, exact[90] + 1e-3
    with sh.eigs(K, interval=(low, high), comm=comm) as spectrum:
        whole(spectrum, exact, low, high, exact[-1])


def test_ends_that_are_eigenvalues_are_inside(comm):
    K, exact = laplacian(9, 10)
    with sh.eigs(K, interval=(exact[4], exact[20]), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[4:21], abs=1e-12)
    with sh.eigs(K, interval=(exact[7], exact[7]), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[7:8], abs=1e-12) and spectrum.count.certified


@pytest.mark.parametrize("method", ["slicing", "feast", "dense"])
def test_zeros_of_rows_without_entries_are_inside_of_ends_at_zero(method, comm):
    """The last digits of no entry move them; rounding of their vectors does."""
    values = np.concatenate([np.zeros(30), np.arange(1.0, 40.0), [-2.0]])
    H = sp.diags(np.random.default_rng(1).permutation(values)).tocsr()
    for ends, number in {(-1.0, 0.0): 30, (0.0, 0.5): 30, (-2.0, 0.0): 31, (0.0, 1.0): 31}.items():
        with sh.eigs(H, interval=ends, method=method, comm=comm) as spectrum:
            assert spectrum.count.certified and len(spectrum.eigenvalues) == spectrum.count.found == number


def test_none_one_and_all(comm):
    K, exact = laplacian(6, 7)
    with sh.eigs(K, interval=(100.0, 200.0), comm=comm) as spectrum:
        assert spectrum.converged == 0 and spectrum.count.certified
    with sh.eigs(K, interval=(-np.inf, 0.5 * (exact[0] + exact[1])), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[:1])
    with sh.eigs(K, interval=(-np.inf, np.inf), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact, abs=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["slicing", "feast"])
@pytest.mark.parametrize("matrices", [4, pytest.param(25, marks=pytest.mark.slow)])
def test_clusters_and_multiplets_of_random_intervals(matrices, method, comm):
    """Clusters of width 1e-10 and up to twelve copies: none is missed, none is found too many."""
    rng = np.random.default_rng(7)
    for seed in range(matrices):
        parts = [
            np.repeat(rng.uniform(-3, 3, 5), rng.integers(1, 13, 5)),
            rng.uniform(-3, 3) + 1e-10 * rng.uniform(size=8),
            rng.uniform(-3, 3, 40),
        ]
        exact = np.sort(np.concatenate(parts))
        K = prescribed(exact, seed)
        for _ in range(10):
            low, high = np.sort(rng.uniform(-3.2, 3.2, 2))
            with sh.eigs(K, interval=(low, high), method=method, comm=comm) as spectrum:
                whole(spectrum, exact, low, high, 3.0)


def test_a_singular_mass(comm):
    K, M = stored("ccx_acou3")
    diagonal = M.diagonal().copy()
    free, rest = np.flatnonzero(diagonal)[:40], np.ones(len(diagonal), bool)
    rest[free] = False
    light = sp.diags(rest.astype(float)) @ M @ sp.diags(rest.astype(float))
    inner = K[free][:, free].toarray()
    condensed = K[rest][:, rest].toarray() - K[rest][:, free] @ np.linalg.solve(inner, K[free][:, rest].toarray())
    exact = lapack(condensed, M[rest][:, rest])
    high = 0.5 * (exact[49] + exact[50])
    with sh.eigs(K, interval=(-np.inf, high), mass=light, comm=comm) as spectrum:
        whole(spectrum, exact, -np.inf, high, exact[50])


def test_null_vectors_inside_are_deflated(comm):
    K, exact = free_chain(60)
    with sh.eigs(K, interval=(-0.1, exact[12] + 1e-6), nullspace=np.ones((1, 60)), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[1:13], abs=1e-12)
        assert spectrum.count.inertia == spectrum.count.found == 13


def test_all_negative_ones(comm):
    exact = np.concatenate([-np.geomspace(1e-4, 5, 17), np.geomspace(1e-3, 1e4, 40)])
    K = prescribed(np.sort(exact), 3)
    with sh.eigs(K, which="negative", comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(np.sort(exact[:17]), abs=1e-9)
        assert spectrum.count.certified and spectrum.method == "slicing"
    with sh.eigs(K, 3, which="negative", comm=comm) as spectrum:
        assert spectrum.converged == 3
    with sh.eigs(-K, which="negative", comm=comm) as spectrum:
        assert spectrum.converged == 40
    with sh.eigs(K + 6 * sp.identity(57), which="negative", comm=comm) as spectrum:
        assert spectrum.converged == 0 and spectrum.count.certified


@pytest.mark.thorough
def test_what_stays_missing_names_its_subinterval(comm, monkeypatch):
    """A solver that never returns one of the pairs: refined, reshifted, and then said."""
    K, exact = laplacian(7, 8)
    hidden, honest = exact[11], KrylovSchur.solve

    def solve(self, *arguments, **named):
        vectors, kept = honest(self, *arguments, **named), []
        for vector in vectors:
            image = vector.duplicate()
            self.problem.A.mult(vector, image)
            quotient = image.dot(vector) / vector.dot(vector)
            image.destroy()
            if abs(quotient - hidden) > 1e-6:
                kept.append(vector)
            else:
                vector.destroy()
        return kept

    monkeypatch.setattr(KrylovSchur, "solve", solve)
    interval = (hidden - 1e-5, 0.5 * (exact[19] + exact[20]))
    with pytest.raises(CheckError, match=r"the inertia counts 9 in .*, 8 were found: 0 of 1 in") as caught:
        sh.eigs(K, interval=interval, comm=comm)
    low, high = (float(end) for end in str(caught.value).split("0 of 1 in (")[1].rstrip(")").split(","))
    assert low < hidden < high and high - low < 1e-7
    with sh.eigs(K, interval=interval, comm=comm, strict=False) as spectrum:
        assert spectrum.converged == 8 and not spectrum.count.certified and spectrum.asked == 9


def test_factorizations_that_disagree_are_not_believed(comm, monkeypatch):
    K, _ = laplacian(7, 8)
    honest, calls = KrylovSchur.shift_to, []

    def wrong(self, shift):
        below, zero, above = honest(self, shift)
        calls.append(shift)
        return Pivots(below + len(calls) % 2, zero, above)  # every other one is off by one

    monkeypatch.setattr(KrylovSchur, "shift_to", wrong)
    with pytest.raises(InputError, match="factorizations nearby do not agree"):
        sh.eigs(K, interval=(1.0, 2.0), comm=comm)
    signs = sh.inertia(K, comm=comm)
    assert not signs.certified and "below" in signs.doubt


@pytest.mark.parametrize("call", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("off", [-1, pytest.param(1, marks=pytest.mark.thorough)])
def test_one_wrong_count_is_outvoted(call, off, comm, monkeypatch):
    """At the upper end, the lower end, or in the middle."""
    K, exact = laplacian(7, 8)
    honest, calls = KrylovSchur.shift_to, []

    def wrong(self, shift):
        below, zero, above = honest(self, shift)
        calls.append(shift)
        return Pivots(below + off * (len(calls) == call), zero, above)

    monkeypatch.setattr(KrylovSchur, "shift_to", wrong)
    low, high = 0.5 * (exact[4] + exact[5]), 0.5 * (exact[29] + exact[30])
    with sh.eigs(K, interval=(low, high), comm=comm) as spectrum:
        whole(spectrum, exact, low, high, exact[-1])
        assert spectrum.count.inertia == 25 and len(calls) > 3


@pytest.mark.thorough
def test_a_solver_of_slices_is_closed(comm):
    K, exact = laplacian(6, 6)
    with sh.EigenProblem.of(K, comm=comm) as problem:
        slicing = Slicing(problem, {}, tol=1e-10)
        piece = slicing.ends(0.0, float(exact[5] + 1e-3), True)
        assert piece.inertia == np.count_nonzero(exact < exact[5] + 1e-3)
        slicing.close()


def chain_by_products(n, comm):
    K = sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tocsr()
    return shell(K, comm)[0], 2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))


def test_what_takes_more_products_than_a_matrix_has_rows_is_refused_with_the_number(comm):
    mat, _ = chain_by_products(2500, comm)
    with pytest.raises(InputError, match=r"has up to \d+ eigenvalues, and takes about .*, where 2500 give"):
        sh.eigs(mat, interval=(1.0, 1.01))
    mat.destroy()


@pytest.mark.parallel([1])
def test_many_products_are_told_beforehand(comm, caplog):
    mat, exact = chain_by_products(2100, comm)
    inside = exact[(exact >= 2.0) & (exact <= 2.5)]
    with caplog.at_level("WARNING", logger="sparsehess"), sh.eigs(mat, interval=(2.0, 2.5)) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(inside, abs=1e-8)
    assert any("takes about" in record.message for record in caplog.records)
    mat.destroy()
