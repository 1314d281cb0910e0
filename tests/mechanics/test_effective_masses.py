"""Effective modal masses against closed forms, textbooks and LAPACK."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError

pytestmark = [pytest.mark.parallel([1, 2, 3])]
COMM = MPI.COMM_WORLD


def rod(cells):
    """Return K and the consistent M of a uniform rod of mass 1, clamped at node 0, its fixed row left out."""
    ends = np.r_[1.0, np.full(cells - 1, 2.0), 1.0]
    K = cells * sp.diags([-np.ones(cells), ends, -np.ones(cells)], [-1, 0, 1]).tocsr()
    M = sp.diags([np.ones(cells), 2 * ends, np.ones(cells)], [-1, 0, 1]).tocsr() / (6 * cells)
    return K[1:, 1:], M[1:, 1:]


def beam(cells):
    """Return K and the consistent M of a uniform beam of length and mass 1: deflection and slope of each node."""
    h, n = 1 / cells, 2 * cells + 2
    k = np.array([[12, 6 * h, -12, 6 * h], [6 * h, 4 * h**2, -6 * h, 2 * h**2]])
    k = np.vstack([k, [-12, -6 * h, 12, -6 * h], [6 * h, 2 * h**2, -6 * h, 4 * h**2]]) / h**3
    m = np.array([[156, 22 * h, 54, -13 * h], [22 * h, 4 * h**2, 13 * h, -3 * h**2]])
    m = np.vstack([m, [54, 13 * h, 156, -22 * h], [-13 * h, -3 * h**2, -22 * h, 4 * h**2]]) * h / 420
    K, M = np.zeros((n, n)), np.zeros((n, n))
    for first in range(0, n - 2, 2):
        K[first : first + 4, first : first + 4] += k
        M[first : first + 4, first : first + 4] += m
    return K, M


@pytest.mark.essential
def test_uniform_rod():
    """8 / (π² (2n - 1)²) of the mass [Chopra, section 16: sin modes of a fixed-free rod]."""
    K, M = rod(300)
    with sh.eigs(K, 4, mass=M, comm=COMM) as modes:
        found = sh.effective_masses(modes, M, np.linspace(0, 1, 301)[:, None], "x", fixed=[0])
    exact = 8 / (np.pi * (2 * np.arange(1, 5) - 1)) ** 2
    np.testing.assert_allclose(found.effective_mass[:, 0], exact, rtol=1e-3)
    assert found.names == ("translation x",) and found.modes_needed(0.9) == [2]
    assert found.modes_needed(0.96) == [None]
    # without the support's row the consistent mass lacks what couples to it: 2/3 of an element
    np.testing.assert_allclose(found.whole, [1 - 2 / 3 / 300], rtol=1e-12)


@pytest.mark.essential
def test_cantilever_beam():
    """61.3, 18.8, 6.5 and 3.3 % [Chopra, table of section 17.6.2: 0.613, 0.188, 0.0654, 0.0331 of mL]."""
    K, M = beam(60)
    with sh.eigs(sp.csr_matrix(K[2:, 2:]), 4, mass=sp.csr_matrix(M[2:, 2:]), comm=COMM) as modes:
        found = sh.effective_masses(modes, M[2:, 2:], np.linspace(0, 1, 61)[:, None], "yc", fixed=[0, 1])
    assert found.names == ("translation y", "rotation z")
    # of 1D integrals: (∫φ)² / ∫φ² with φ'''' = β⁴φ is 4 σ² / β²
    beta = np.array([1.8751040687, 4.6940911330, 7.8547574382, 10.9955407349])
    integral = 2 * (np.sinh(beta) - np.sin(beta)) / (np.cosh(beta) + np.cos(beta))
    np.testing.assert_allclose(found.effective_mass[:, 0], (integral / beta) ** 2, rtol=5e-3)
    np.testing.assert_allclose(found.effective_mass[:, 0], [0.613, 0.188, 0.0647, 0.0331], atol=6e-4)
    # rotations about the clamp: (∫xφ)² = (2 / β²)², of the whole 1/3
    np.testing.assert_allclose(found.effective_mass[:, 1], 4 / beta**4, rtol=5e-3)
    np.testing.assert_allclose(found.whole[1], 1 / 3, rtol=1e-3)
    assert found.modes_needed(0.9) == [4, 1]


def test_uniform_five_story_shear_building():
    """Effective masses and heights of Chopra, Dynamics of Structures, fig. 13.2.3: of m and of h."""
    K = sp.diags([-np.ones(4), [2.0, 2, 2, 2, 1], -np.ones(4)], [-1, 0, 1]).tocsr()
    directions = [np.ones(5), np.arange(1.0, 6.0)]
    with sh.eigs(K, 5, mass=np.ones(5), comm=COMM) as modes:
        found = sh.effective_masses(modes, np.ones(5), directions=directions, names=["shear", "overturning"])
    np.testing.assert_allclose(found.effective_mass[:, 0], [4.398, 0.436, 0.121, 0.037, 0.008], atol=6e-4)
    heights = found.participation[:, 1] / found.participation[:, 0]
    np.testing.assert_allclose(heights, [3.51, -1.20, 0.76, -0.59, 0.52], atol=6e-3)
    assert found.names == ("shear", "overturning")


def test_two_masses_by_hand():
    """Masses 2 and 1 on springs 2 and 1: λ = 1/2 and 2, modes (1, 2) and (1, -1): Γ = 2/3 and 1/3."""
    K, M = np.array([[3.0, -1.0], [-1.0, 1.0]]), np.array([2.0, 1.0])
    with sh.eigs(K, 2, mass=M, comm=COMM) as modes:
        found = sh.effective_masses(modes, M, directions=np.ones(2))
        shapes = modes.to_numpy()[1] if COMM.size == 1 else None
    np.testing.assert_allclose(found.effective_mass[:, 0], [16 / 6, 1 / 3], rtol=1e-10)
    if shapes is not None:
        np.testing.assert_allclose(found.participation[:, 0] * shapes[0], [2 / 3, 1 / 3], rtol=1e-10)


@pytest.mark.parametrize("about", [(0.0, 0.0, 0.0), (1.0, -2.0, 0.5)])
def test_rotations_are_about_the_point(about):
    """RᵀMR is the rigid body's: mass, static moments, inertia by the parallel axis theorem; all modes add up."""
    random = np.random.default_rng(4)
    nodes = random.normal(size=(7, 3))
    masses, inertias = random.uniform(1, 2, 7), random.uniform(0.1, 0.3, (7, 3))
    M = np.concatenate([np.concatenate([np.full(3, m), j]) for m, j in zip(masses, inertias, strict=True)])
    B = random.normal(size=(42, 42))
    K = B @ B.T + np.eye(42)
    with sh.eigs(K, 42, mass=M, comm=COMM) as modes:
        found = sh.effective_masses(modes, M, nodes, "xyzabc", about=about)
    whole = masses.sum()
    centre = masses @ nodes / whole
    central = sum(
        m * ((x - centre) @ (x - centre) * np.eye(3) - np.outer(x - centre, x - centre)) + np.diag(j)
        for m, x, j in zip(masses, nodes, inertias, strict=True)
    )
    arm = centre - about
    inertia = central + whole * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    static = whole * np.array([[0, arm[2], -arm[1]], [-arm[2], 0, arm[0]], [arm[1], -arm[0], 0]])
    np.testing.assert_allclose(found.mass_matrix[:3, :3], whole * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(found.mass_matrix[:3, 3:], static, atol=1e-12)
    np.testing.assert_allclose(found.mass_matrix[3:, 3:], inertia, atol=1e-12)
    np.testing.assert_allclose(found.effective_mass.sum(axis=0), found.whole, rtol=1e-9)
    np.testing.assert_allclose(found.cumulative[-1], 1.0, rtol=1e-9)
    assert found.names[3:] == ("rotation x", "rotation y", "rotation z")
    assert found.about.tolist() == list(about)


def test_against_lapack_with_fixed_dofs():
    """Of a full mass, some dofs of nodes held: rows of the rigid motions are those of the free ones."""
    random = np.random.default_rng(7)
    nodes, fixed = random.normal(size=(12, 2)), [0, 1, 2, 17, 35]
    free = np.setdiff1d(np.arange(36), fixed)
    A, B = random.normal(size=(2, 31, 31))
    K, M = A @ A.T + np.eye(31), B @ B.T + 31 * np.eye(31)
    R = np.zeros((3, 36))
    R[0, 0::3] = R[1, 1::3] = R[2, 2::3] = 1.0
    R[2, 0::3], R[2, 1::3] = -(nodes[:, 1] - 2.0), nodes[:, 0] - 1.0
    values, shapes = scipy.linalg.eigh(K, M)
    with sh.eigs(K, 6, mass=M, comm=COMM) as modes:
        np.testing.assert_allclose(modes.eigenvalues, values[:6])
        found = sh.effective_masses(modes, M, nodes, "xyc", about=(1.0, 2.0), fixed=fixed)
    expected = (shapes[:, :6].T @ M @ R[:, free].T) ** 2
    np.testing.assert_allclose(found.effective_mass, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.mass_matrix, R[:, free] @ M @ R[:, free].T, rtol=1e-12)


def test_modes_of_multiple_eigenvalues_count_together():
    """A square column swings alike in x and y: each mode of a pair is any mixture, their sum is not."""
    K, M = rod(40)
    both, heavy = sp.kron(K, sp.eye(2)).tocsr(), sp.kron(M, sp.eye(2)).tocsr()
    nodes = np.stack([np.linspace(0, 1, 41), np.zeros(41)], axis=1)
    with sh.eigs(both, 3, mass=heavy, comm=COMM) as modes:
        found = sh.effective_masses(modes, heavy, nodes, "xy", fixed=[0, 1])
    assert found.clusters == ((0, 1),) and found.modes_needed(0.5)[:2] == [2, 2]
    exact = 8 / np.pi**2
    np.testing.assert_allclose(found.effective_mass[:2].sum(axis=0)[:2], exact, rtol=3e-3)
    assert found.unfinished


def test_mistakes():
    K, M = rod(6)
    nodes = np.zeros((7, 1))
    with sh.eigs(K, 2, mass=M, comm=COMM) as modes:
        for arguments, said in (
            ({"coordinates": nodes, "dofs": "x"}, "7, of which 0 are fixed"),
            ({"coordinates": nodes, "dofs": "xx"}, "write each"),
            ({"coordinates": nodes, "dofs": "x", "fixed": [7]}, "from 0 to 6"),
            ({"coordinates": nodes, "dofs": "x", "fixed": [0], "about": (np.nan,)}, "finite"),
            ({}, "give coordinates"),
            ({"directions": np.ones((1, 5))}, "must be"),
            ({"directions": np.full((1, 6), np.nan)}, "finite"),
            ({"directions": np.ones((1, 6)), "names": ["a", "b"]}, "2 names"),
            ({"directions": np.ones((1, 6)), "about": (1.0, 0.0)}, "leave out coordinates, dofs, about"),
            ({"directions": np.ones((1, 6)), "dofs": "x"}, "leave out coordinates, dofs, about"),
            ({"coordinates": nodes, "dofs": "x", "fixed": [0], "names": ["a"]}, "names are for directions"),
        ):
            with pytest.raises(InputError, match=said):
                sh.effective_masses(modes, M, **arguments)
        with pytest.raises(InputError, match="another mass"):
            sh.effective_masses(modes, 2 * M, directions=np.ones((1, 6)))
        found = sh.effective_masses(modes, M, directions=np.ones((1, 6)))
        for share in (0.0, 1.5, np.nan):
            with pytest.raises(InputError, match="no part of a mass"):
                found.modes_needed(share)
    with pytest.raises(InputError, match="no vectors"):
        sh.effective_masses(modes, M, directions=np.ones((1, 6)))


def test_all_modes_have_all_of_the_mass():
    """To rounding, which differs by ranks."""
    rng = np.random.default_rng(0)
    B, nodes, m = rng.standard_normal((18, 18)), rng.standard_normal((6, 3)), np.repeat(rng.uniform(1, 2, 6), 3)
    with sh.eigs(B @ B.T + np.eye(18), 18, mass=m, comm=COMM) as modes:
        found = sh.effective_masses(modes, m, nodes)
    assert None not in found.modes_needed(1.0)
