"""Phonons: against closed forms of springs, central differences and LAPACK, on any number of ranks."""

from dataclasses import replace

from mpi4py import MPI

import numpy as np
import pytest
from scipy.integrate import trapezoid

import sparsehess as sh
from sparsehess.crystals import Crystal
from sparsehess.crystals.bloch_sums import BlochSums
from sparsehess.crystals.hermitian_batches import bounds, eigenpairs
from sparsehess.crystals.modes import UNITS
from sparsehess.crystals.polar import COULOMB, Polar
from sparsehess.errors import InputError
from support.lattices import chain, fcc

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


@pytest.mark.parametrize("cells", [2, 3, 4, 7])
def test_chain_of_one_atom(cells, comm):
    modes = sh.phonons(chain(cells), comm=comm).at(np.outer(np.linspace(-1, 1, 41), [1, 0, 0]))
    exact = 4 * np.sin(np.pi * np.linspace(-1, 1, 41)) ** 2
    assert np.abs(modes.eigenvalues[:, 2] - exact).max() < 1e-13
    assert modes.certified.all() and (modes.bounds < 1e-12).all() and not modes.imaginary.any()


@pytest.mark.parametrize("cells", [1, 2, 5])
def test_chain_of_two_atoms(cells, comm):
    springs, masses = (1.0, 0.3), (1.0, 3.5)
    q = np.linspace(0.02, 0.5, 23)
    modes = sh.phonons(chain(max(cells, 2), springs, masses), comm=comm).at(np.outer(q, [1, 0, 0]))
    total, product = sum(springs) * sum(1 / m for m in masses), springs[0] * springs[1] / (masses[0] * masses[1])
    root = np.sqrt((total / 2) ** 2 - 4 * product * np.sin(np.pi * q) ** 2)
    assert np.abs(modes.eigenvalues[:, 4:] - np.stack([total / 2 - root, total / 2 + root], axis=1)).max() < 1e-13
    assert modes.zero[:, :4].all()  # nothing holds the chain across
    assert np.abs(modes.frequencies[:, 5] / UNITS.factor - np.sqrt(total / 2 + root)).max() < 1e-13


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_fcc_from_gamma_to_x(size, comm):
    """M ω² = 8 K sin²(qa/4) along and 4 K sin²(qa/4) across, with springs to the nearest neighbours alone."""
    a, mass, radial = 3.6, 63.5, 1.7
    solid = sh.phonons(fcc([size] * 3, radial, a=a, mass=mass), comm=comm)
    share = np.linspace(0, 1, 31)
    modes = solid.at(np.outer(share, [0.5, 0.0, 0.5]))  # X, of the reciprocal vectors of fcc
    exact = np.sin(share * np.pi / 2) ** 2 * radial / mass
    assert np.abs(modes.eigenvalues - np.stack([4 * exact, 4 * exact, 8 * exact], axis=1)).max() < 1e-14
    assert modes.certified.all() and not modes.imaginary.any()


def test_all_ranks_and_numbers_of_ranks_alike(comm):
    solid = fcc([3, 3, 3], 1.0, 0.1)
    q = np.random.default_rng(0).normal(size=(300, 3))
    one = sh.phonons(solid, comm=MPI.COMM_SELF).at(q, vectors=True, group_velocities=True)
    here = sh.phonons(solid, comm=comm).at(q, vectors=True, group_velocities=True)
    for name in ("eigenvalues", "bounds", "vectors", "velocities"):
        assert np.array_equal(getattr(one, name), getattr(here, name), equal_nan=True), name
    x = here.vectors[7]
    D = BlochSums(solid.symmetrized()).matrices(q[7:8] @ solid.primitive.reciprocal)[0]
    assert np.abs(D @ x - x * here.eigenvalues[7]).max() < 1e-13


def test_equal_wave_vectors_and_sparse_matrices(comm):
    solid = sh.phonons(chain(4, (1.0, 0.3), (1.0, 3.5), across=0.2), comm=comm)
    q = np.array([0.3, 0.1, 0.0])
    modes = solid.at([q, q + np.array([1, -2, 3]), -q])
    assert np.abs(modes.eigenvalues - modes.eigenvalues[0]).max() < 1e-13
    with solid.spectrum(q, 3) as spectrum:
        assert np.abs(spectrum.eigenvalues - modes.eigenvalues[0, :3]).max() < 1e-12
        assert spectrum.count.certified


@pytest.mark.parallel([1, 2])
def test_large_cells_are_sparse_and_counted(comm):
    """A chain of 510 atoms in the cell: its modes are those of a chain of one, folded."""
    many, across = 510, 0.3
    lattice, places = np.diag([2.0 * many, 9.0, 9.0]), np.outer(2.0 * np.arange(many), [1, 0, 0])
    cell = Crystal(lattice, places, np.ones(many), ("H",) * many)
    here, springs = np.arange(many), np.diag([1.0, across, across])
    first = np.concatenate([here] * 3)
    second = np.concatenate([here, (here + 1) % many, (here - 1) % many])
    blocks = np.repeat([2 * springs, -springs, -springs], many, axis=0)
    solid = sh.phonons(sh.ForceConstants.of_pairs(first, second, blocks, cell, cell), comm=comm)
    modes = solid.at([[0.2, 0, 0], [0.5, 0, 0]], 5, vectors=True, group_velocities=True)
    for q, found in zip((0.2, 0.5), modes.eigenvalues, strict=True):
        folded = 4 * np.sin(np.pi * (q + here) / many) ** 2
        exact = np.sort(np.concatenate([folded, across * folded, across * folded]))[:5]
        assert np.abs(found - exact).max() < 1e-12
    assert modes.certified.all() and (modes.bounds < 1e-8).all()
    # At q = 0.2, ω = 2 sqrt(K) |sin θ|, θ = π (q + n)/510, of n = 0 and -1: twice across, once along.
    speed = 0.1 * 2 * np.pi * UNITS.factor * np.sqrt(across) * 2.0 * np.cos(np.pi * np.array([0.2, 0.8]) / many)
    signs = np.array([1, 1, -1, -1])
    assert np.abs(modes.velocities[0, [0, 1], 0] - speed[0] * signs[:2]).max() < 1e-3 * speed[0]
    assert np.nanmax(np.abs(modes.velocities[..., 1:])) < 1e-6
    D = BlochSums(solid.constants).sparse([0.2, 0, 0] @ cell.reciprocal)
    x = modes.vectors[0]
    assert x.shape == (3 * many, 5) and np.abs(D @ x - x * modes.eigenvalues[0]).max() < 1e-9
    with pytest.raises(InputError, match="free to each"):
        solid.at(np.zeros((100_000_000, 3)), 5, vectors=True)


@pytest.mark.parametrize("q", [[0.31, 0.12, 0.44], [0.5, 0.0, 0.5], [0.2, 0.0, 0.2], [0.25, 0.25, 0.25]])
def test_group_velocities_are_slopes(q, comm):
    solid = sh.phonons(fcc([3, 3, 3], 1.0, 0.07), comm=comm)
    way = np.array([0.2, -0.5, 0.9])
    way /= np.linalg.norm(way)
    inverse = np.linalg.inv(solid.constants.primitive.reciprocal)
    step = 1e-6  # to one side: at a crossing the order turns round
    ends = solid.at([q, q + step * way @ inverse]).frequencies
    slopes = 0.1 * 2 * np.pi * (ends[1] - ends[0]) / step
    modes = solid.at([q], group_velocities=True, directions=way)
    found = modes.velocities[0] @ way
    assert np.abs(np.sort(found) - np.sort(slopes)).max() < 1e-4 * (1 + np.abs(slopes).max())
    at_rest = solid.at([[0, 0, 0]], group_velocities=True)
    assert at_rest.zero.all() and np.isnan(at_rest.velocities).all()


def test_unstable_crystals(comm):
    modes = sh.phonons(chain(3, (-1.0,)), comm=comm).at([[0.5, 0, 0], [0, 0, 0]])
    assert modes.imaginary.tolist() == [[True, False, False], [False] * 3] and modes.zero[1].all()
    assert modes.frequencies[0, 0] == pytest.approx(-2 * UNITS.factor)
    uncertain = replace(chain(3, (-1.0,)), error=2.0)
    assert not sh.phonons(uncertain, comm=comm).at([[0.5, 0, 0]]).imaginary.any()


def test_bands_along_a_path(comm):
    solid = sh.phonons(fcc([3, 3, 3]), comm=comm)
    corners = np.array([[0, 0, 0], [0.5, 0, 0.5], [0.5, 0.25, 0.75]])
    bands = solid.bands([corners, [[0.5, 0.5, 0.5], [0, 0, 0]]], 60)
    assert bands.certified and bands.path.labels[2][1] == "(0.5 0.25 0.75)|(0.5 0.5 0.5)"
    assert 55 <= len(bands.path.q) <= 65 and (np.diff(bands.path.distances) >= 0).all()
    for place, _ in bands.path.labels:
        assert (bands.path.distances == place).any()
    length = np.linalg.norm(corners[1] @ solid.constants.primitive.reciprocal)
    assert bands.path.labels[1][0] == pytest.approx(length)
    along = bands.modes.velocities[5] @ bands.path.directions[5]
    exact = (
        0.1
        * UNITS.factor
        * 2
        * np.pi
        * np.sqrt(8)
        * 1.0
        * np.cos(length * 5 / (np.flatnonzero(bands.path.distances == length)[0]) * 1.0)
    )
    assert along[2] == pytest.approx(exact) and along[0] == pytest.approx(exact / np.sqrt(2))


def test_density_of_states(comm):
    """Of a chain N(ω) = 2/π asin(ω/ω_max)."""
    density = sh.phonons(chain(3, across=0.5), comm=comm).density((400, 1, 1), width=0.02, points=2001)
    assert trapezoid(density.states, density.frequencies) == pytest.approx(3, rel=1e-6)
    highest = 2 * UNITS.factor
    inside = (density.frequencies > 0.2 * highest) & (density.frequencies < 0.6 * highest)
    share = np.arcsin(np.clip(density.frequencies / highest, 0, 1)) * 2 / np.pi
    share += 2 * np.arcsin(np.clip(density.frequencies / (highest * np.sqrt(0.5)), 0, 1)) * 2 / np.pi
    assert np.abs(density.below - share)[inside].max() < 0.01
    assert density.weights.sum() == pytest.approx(1) and len(density.weights) == 201 and density.imaginary == 0
    whole = np.array([(np.arange(4) + 0.5) / 4, np.arange(4) / 4])
    for shift, points in zip((0.5, 0.0), whole, strict=True):
        half = sh.phonons(chain(3), comm=comm).density((4, 1, 1), shift=(shift, 0, 0))
        exact = np.sort(4 * np.sin(np.pi * points) ** 2)
        mean = half.weights @ half.modes.eigenvalues[:, 2]
        assert mean == pytest.approx(exact.mean())


@pytest.mark.parallel([1])
def test_bounds_are_kept_and_see_what_is_wrong():
    rng = np.random.default_rng(3)
    D = rng.normal(size=(5, 20, 20)) + 1j * rng.normal(size=(5, 20, 20))
    D = D + D.conj().transpose(0, 2, 1)
    values, vectors, proven = eigenpairs(D)
    sizes = np.abs(values).max(axis=1)
    assert (proven < 1e-11 * sizes).all()
    # Of which the eigenvalues are known by construction, to rounding: those of D ⊗ [[0, 1], [1, 0]] are ±λ.
    both = np.kron(np.array([[0, 1], [1, 0]]), D[0])[None]
    twice = eigenpairs(both)
    known = np.sort(np.concatenate([values[0], -values[0]]))
    assert np.abs(twice.values[0] - known).max() <= twice.bounds[0] + proven[0]
    wrong = values.copy()
    wrong[:, 4] += 1e-6
    assert (bounds(D, wrong, vectors) >= 1e-6).all()
    repeated = vectors.copy()
    repeated[:, :, 1] = repeated[:, :, 0]  # one pair twice, another missed
    copied = values.copy()
    copied[:, 1] = copied[:, 0]
    assert np.isinf(bounds(D, copied, repeated)).all()
    assert np.isinf(bounds(D, values[:, ::-1], vectors[:, :, ::-1])).all()
    for bad in (np.nan, np.inf):
        spoilt = vectors.copy()
        spoilt[:, 0, 0] = bad
        assert np.isinf(bounds(D, values, spoilt)).all()


@pytest.mark.parametrize("nac", ["gonze", "wang"])
def test_polar_crystals(nac, comm):
    """ω_LO² − ω_TO² = 4π Z² e²/(ε V μ) of a cubic crystal of two atoms (Lyddane, Sachs and Teller 1941)."""
    plain = chain(3, (1.0, 1.0), (1.0, 3.0), across=1.0)
    charges = 1.3 * np.array([np.eye(3), -np.eye(3)])
    polar = replace(plain, polar=Polar(charges, 2.0 * np.eye(3)))
    solid = sh.phonons(polar, nac=nac, comm=comm)
    bare = solid.at([[0, 0, 0]]).eigenvalues[0]
    split = solid.at([[0, 0, 0]], directions=[1, 1, 0]).eigenvalues[0]
    reduced = 1.0 * 3.0 / 4.0
    assert split[5] - split[4] == pytest.approx(
        4 * np.pi * 1.3**2 * COULOMB / (2.0 * plain.primitive.volume * reduced), rel=1e-10
    )
    assert np.abs(split[:5] - bare[:5]).max() < 1e-12
    for size in (1e-200, 1e200):
        assert np.abs(solid.at([[0, 0, 0]], directions=[size, size, 0]).eigenvalues[0] - split).max() < 1e-12
    near = solid.at(np.array([1, 1, 0]) @ np.linalg.inv(plain.primitive.reciprocal) * 1e-5).eigenvalues[0]
    assert np.abs(near - split).max() < 1e-6
    assert (
        np.abs(
            sh.phonons(polar, polar=False, comm=comm).at([[0.2, 0, 0]]).eigenvalues
            - sh.phonons(plain, comm=comm).at([[0.2, 0, 0]]).eigenvalues
        ).max()
        == 0
    )
    q, step = np.array([0.21, 0.13, -0.3]), 1e-5
    found = solid.at([q], group_velocities=True).velocities[0]
    for axis in range(3):
        away = step * np.linalg.inv(plain.primitive.reciprocal)[axis]
        ends = solid.at([q - away, q + away]).frequencies
        assert np.abs(0.2 * np.pi * (ends[1] - ends[0]) / (2 * step) - found[:, axis]).max() < 1e-4


@pytest.mark.parametrize("nac", ["gonze", "wang"])
def test_polar_crystals_beyond_the_first_zone(nac, comm):
    """ω(q + G) = ω(q), of fields of long waves too, and at Γ + G a direction decides as at Γ."""
    plain = chain(3, (1.0, 1.0), (1.0, 3.0), across=1.0)
    polar = replace(plain, polar=Polar(1.3 * np.array([np.eye(3), -np.eye(3)]), 2.0 * np.eye(3)))
    solid = sh.phonons(polar, nac=nac, comm=comm)
    for q in ([0.21, 0.13, -0.3], [0.0, 0.01, 0.0], [0.0, 0.0, 0.0]):
        moved = np.add(q, [[0, 0, 0], [1, 0, 0], [0, -2, 1], [3, 1, -4]])
        found = solid.at(moved, group_velocities=True, directions=[1, 2, 3])
        assert np.abs(found.eigenvalues - found.eigenvalues[0]).max() < 1e-12, q
        assert np.nanmax(np.abs(found.velocities - found.velocities[0])) < 1e-8, q


def test_bars_of_wave_vectors_far_away(comm):
    """4 sin²(πq) at q + G, all of them without rounding: phases of q·R lose digits, and the bars say so."""
    solid = sh.phonons(chain(4), comm=comm)
    far = 0.125 + 2.0 ** np.arange(0, 49, 4)
    modes = solid.at(np.outer(far, [1, 0, 0]))
    off = np.abs(modes.eigenvalues[:, 2] - 4 * np.sin(np.pi / 8) ** 2)
    assert (off <= modes.resolution).all() and modes.certified.all()
    assert modes.resolution[0] < 1e-12 and off[-1] > 1e-3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nothing_is_certified_past_the_largest_number(comm):
    huge = replace(chain(3), blocks=chain(3).blocks * 0.8e308)
    modes = sh.phonons(huge, sum_rule=False, comm=comm).at([[0.2, 0, 0]])
    assert not modes.certified.any() and not modes.imaginary.any() and np.isinf(modes.bounds).all()


def test_what_is_refused(comm):
    solid = sh.phonons(chain(3), comm=comm)
    for call, word in (
        (lambda: solid.at([[np.nan, 0, 0]]), "finite"),
        (lambda: solid.at([[0, 0, 0]], directions=[np.nan, 0, 0]), "directions"),
        (lambda: solid.at([[0, 0, 0]], directions=[1, 2]), "directions"),
        (lambda: solid.density(2, shift=(np.nan, 0, 0)), "shift"),
        (lambda: solid.density(2, shift=(np.inf, 0, 0)), "shift"),
        (lambda: solid.density(2, span=(0, np.inf)), "span"),
        (lambda: solid.density(2, span=(0, 1, 2)), "span"),
        (lambda: solid.at([[0, 0]]), "three|finite"),
        (lambda: solid.at([[0, 0, 0]], 4), "3 modes"),
        (lambda: solid.bands([[0, 0, 0]]), "two corners|two points|corners"),
        (lambda: solid.density(0), "mesh"),
        (lambda: solid.density(2, shift=(0.3, 0, 0)), "0.5"),
        (lambda: sh.phonons(np.eye(3), comm=comm), "ForceConstants"),
        (lambda: Crystal(np.ones((3, 3)), np.zeros((1, 3)), [1.0], ["H"]), "plane"),
        (lambda: Polar(np.zeros((2, 3, 3)), -np.eye(3)), "above 0"),
    ):
        with pytest.raises(InputError, match=word):
            call()
