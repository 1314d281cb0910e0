"""Pencils that one number for the whole matrix misjudges: what is asked of them, against LAPACK."""

import functools

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from support import scaled_pencils as pencils
from support.cases import laplacian, second_difference, stored

pytestmark = pytest.mark.parallel([1, 2, 3])


def string(n=60):
    """Return a string fixed at both ends, of linear elements, beside it the closed form."""
    h = 1 / (n + 1)
    K, M = second_difference(n) / h, h * (sp.identity(n) - second_difference(n) / 6)
    c = np.cos(np.pi * np.arange(1, n + 1) * h)
    return sp.csr_matrix(K), sp.csr_matrix(M), 6 / h**2 * (1 - c) / (2 + c)


def plain(name):
    if name == "string":
        K, M, exact = string()
        return pencils.plain(K, M, exact[0], name)
    if name == "square":
        K, exact = laplacian(9, 9)
        return pencils.plain(K, None, exact[0], name)
    if name == "free_chain":
        K = second_difference(80).tolil()
        K[0, 0] = K[79, 79] = 1
        return pencils.plain(K.tocsr(), sp.identity(80, format="csr"), 1e-3, name)
    return pencils.plain(*stored(name), {"hb_bcsst01": 27.0, "hb_lund": 208.0, "ccx_acou3": 3021.0}[name], name)


# name: (of which pencil, what is done to it with the random numbers of the name)
MADE = {
    "scaled_by_two": ("hb_lund", lambda p, r: pencils.congruent(p, r, 15, True)),
    "scaled": ("hb_bcsst01", lambda p, r: pencils.congruent(p, r, 10, False)),
    "scaled_indefinite": ("hb_lund", lambda p, r: pencils.congruent(pencils.moved(p, 5000.0), r, 15, False)),
    "scaled_double": ("square", lambda p, r: pencils.congruent(p, r, 12, True)),
    "scaled_free": ("free_chain", lambda p, r: pencils.congruent(p, r, 8, True)),
    "held_1e8": ("hb_lund", lambda p, r: pencils.held(p, r, 0.05, 1e8)),
    "held_1e14": ("string", lambda p, r: pencils.held(p, r, 0.05, 1e14)),
    "held_1e22": ("hb_bcsst01", lambda p, r: pencils.held(p, r, 0.1, 1e22)),
    "held_and_scaled": ("hb_lund", lambda p, r: pencils.congruent(pencils.held(p, r, 0.02, 1e18), r, 6, False)),
    "held_free": ("free_chain", lambda p, r: pencils.held(p, r, 0.01, 1e16)),
    "multipliers": ("hb_lund", lambda p, r: pencils.constrained(p, r, 8, 1.0)),
    "small_multipliers": ("string", lambda p, r: pencils.constrained(p, r, 4, 1e-8)),
    "double_multipliers": ("hb_lund", lambda p, r: pencils.constrained(p, r, 5, 1.0, double=True)),
    "multipliers_massless": ("hb_bcsst01", lambda p, r: pencils.constrained(p, r, 3, 1e3)),
    "multipliers_scaled": (
        "string",
        lambda p, r: pencils.congruent(pencils.constrained(p, r, 3, 1.0, double=True), r, 10, True),
    ),
    "large_masses": ("hb_lund", lambda p, r: pencils.weighted(p, r, 0.03, 1e12)),
    "low_rank_mass": ("string", lambda p, r: pencils.low_rank_mass(p, r, 0.5)),
}


@functools.cache
def made(name):
    """Return a pencil by its name, the same on every rank. Collective on all ranks of the run."""
    comm, pencil = MPI.COMM_WORLD, None
    if comm.rank == 0:
        of, change = MADE[name]
        pencil = change(plain(of), np.random.default_rng(list(MADE).index(name)))
    return comm.bcast(pencil)


def right(spectrum, pencil, chosen, comm):
    """Assert that a spectrum is certified and holds the eigenvalues of these numbers, on every rank."""
    assert spectrum.count.certified and spectrum.count.inertia == spectrum.count.found
    assert pencils.agrees(spectrum.eigenvalues, pencil, chosen)
    low, high = spectrum.count.interval
    assert ((spectrum.eigenvalues > low) & (spectrum.eigenvalues < high)).all()
    for other in comm.allgather(spectrum.eigenvalues):
        assert np.array_equal(other, spectrum.eigenvalues)


def few_essential(*names):
    return [pytest.param(name, marks=[pytest.mark.essential] * (name in names)) for name in MADE]


@pytest.mark.parametrize("name", few_essential("scaled", "held_1e22", "double_multipliers", "low_rank_mass"))
def test_the_lowest(name, comm):
    pencil = made(name)
    with sh.eigs(pencil.K, 6, mass=pencil.M, comm=comm) as spectrum:
        right(spectrum, pencil, np.arange(6), comm)


@pytest.mark.parametrize("name", few_essential("scaled_indefinite", "held_1e14"))
def test_a_band(name, comm):
    pencil = made(name)
    between = pencils.gaps(pencil, 20)
    ends = [float(pencil.values[i : i + 2].mean()) for i in (between[1], between[-1])]
    with sh.eigs(pencil.K, interval=tuple(ends), mass=pencil.M, comm=comm) as spectrum:
        right(spectrum, pencil, np.arange(between[1] + 1, between[-1] + 1), comm)


@pytest.mark.parametrize("name", few_essential("scaled_double", "multipliers"))
def test_those_nearest(name, comm):
    pencil = made(name)
    target = float(0.7 * pencil.values[9] + 0.3 * pencil.values[10])
    chosen, sure = pencils.nearest(pencil, target, 3)
    assert sure
    with sh.eigs(pencil.K, 3, target=target, mass=pencil.M, comm=comm) as spectrum:
        right(spectrum, pencil, chosen, comm)


@pytest.mark.parametrize("name", few_essential("held_and_scaled", "multipliers_massless", "low_rank_mass"))
def test_the_inertia(name, comm):
    pencil = made(name)
    found = sh.inertia(pencil.K, mass=pencil.M, comm=comm)
    assert found.certified
    assert pencil.has_signs(found.negative, found.zero, found.positive, found.infinite) == (True, True)


@pytest.mark.parametrize("name", [name for name in MADE if name.startswith(("scaled", "low_rank", "multipliers"))])
def test_the_largest(name, comm):
    pencil = made(name)
    with sh.eigs(pencil.K, 2, which="largest", mass=pencil.M, comm=comm) as spectrum:
        assert spectrum.count.certified and spectrum.converged == 2
        assert pencils.has_top(spectrum.eigenvalues, pencil)


@pytest.mark.parametrize("factor", [1e14, 1e20])
def test_a_tie_that_has_lost_the_digits_is_not_certified(factor, comm):
    pencil = comm.bcast(
        pencils.tied(plain("hb_lund"), np.random.default_rng(3), 5, factor) if comm.rank == 0 else None
    )
    assert pencil.lost(np.arange(6))
    with sh.eigs(pencil.K, 6, mass=pencil.M, comm=comm, strict=False) as spectrum:
        assert not spectrum.count.certified
    assert not sh.inertia(pencil.K, mass=pencil.M, comm=comm).certified


# A constraint's coefficients far above the stiffness, as of a penalty's size, and in a congruence.
@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_coefficients_of_constraints_of_any_size(size, comm):
    pencil = None
    if comm.rank == 0:
        rng = np.random.default_rng(8)
        pencil = pencils.congruent(pencils.constrained(plain("hb_lund"), rng, 6, size), rng, 12, True)
    pencil = comm.bcast(pencil)
    with sh.eigs(pencil.K, 6, mass=pencil.M, comm=comm) as spectrum:
        right(spectrum, pencil, np.arange(6), comm)


@pytest.mark.parametrize("factor", [1e2, 1e5])
def test_a_moderate_tie(factor, comm):
    pencil = comm.bcast(
        pencils.tied(plain("hb_lund"), np.random.default_rng(3), 5, factor) if comm.rank == 0 else None
    )
    with sh.eigs(pencil.K, 6, mass=pencil.M, comm=comm) as spectrum:
        right(spectrum, pencil, np.arange(6), comm)


# --- the judge -------------------------------------------------------------------------


@pytest.mark.parallel([1])
def test_the_judge_agrees_with_a_closed_form():
    K, M, exact = string()
    pencil = pencils.plain(K, M, exact[0])
    assert np.abs(pencil.values / exact - 1).max() <= 1e-11 and (pencil.within <= 2e-6 * exact).all()
    assert pencil.signs == (0, 0, 60) and not pencil.lost(np.arange(60))
    held = np.zeros(62)
    held[[0, -1]] = 1e30
    h = 1 / 61
    K = second_difference(62) / h + sp.diags(held)
    M = h * (sp.identity(62) - second_difference(62) / 6)
    pencil = pencils.plain(sp.csr_matrix(K), sp.csr_matrix(M), exact[0])
    assert pencil.above == 2 and np.abs(pencil.values / exact - 1).max() <= 1e-11


@pytest.mark.parallel([1])
@pytest.mark.parametrize("factor", [1e14, 1e17, 1e20])
def test_the_judge_knows_that_a_tie_has_lost_the_digits(factor):
    pencil = pencils.tied(plain("hb_lund"), np.random.default_rng(3), 5, factor)
    assert pencil.lost(np.arange(6)) and not pencil.has_signs(0, 0, 147, 0)[1]


@pytest.mark.thorough
@pytest.mark.parallel([1])
@pytest.mark.parametrize("name", ["held_1e22", "multipliers_massless", "scaled"])
def test_the_judge_agrees_with_80_digits(name):
    mpmath = pytest.importorskip("mpmath")
    pencil = made(name)
    with mpmath.workdps(80):
        K, M = (mpmath.matrix(X.toarray().tolist()) for X in (pencil.K, pencil.M))
        shift = mpmath.mpf(pencil.shift)
        mu = mpmath.eig(mpmath.inverse(K + shift * M) * M, left=False, right=False)
        mu = sorted((mpmath.re(value) for value in mu), reverse=True)[: len(pencil.values)]
        exact = np.array([float(1 / value - shift) for value in mu])
    assert (np.abs(pencil.values - exact) <= 1e-2 * pencil.within).all()
