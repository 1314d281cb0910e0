"""Near and far, and lowest pairs, of what misleads: odd units, forces of no energy, no Hessian, few atoms."""

import re
import warnings

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import CheckError, InputError
from support.pair_potentials import PairPotential, ions, lattice, lennard_jones

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def objective(potential, comm, gradient=None, **more):
    return sh.Objective(x=potential.x, gradient=gradient or potential.gradient, comm=comm, **more)


@pytest.mark.parametrize("coulombs", [1.0, 1.6e-19])
def test_units_of_charges_are_nobodys_business(coulombs, comm):
    points, charges = lattice(5, jitter=0.03, seed=1)
    charges, points = np.random.default_rng(1).permutation(charges), 1.25 * points
    potential = ions(points, charges)
    given = {"points": points, "charges": coulombs * charges, "gradients": 90, "tolerance": 10.0}
    with sh.near_far(objective(potential, comm), **given) as H:
        assert H.error < 1e-5  # without the charges it is 0.1


def crooked(potential, part):
    """Return the gradient of a potential with a part that is that of none."""
    return lambda x: potential.gradient(x) + part * np.sin(np.roll(x, 1))


def test_forces_of_no_energy_are_refused(comm):
    potential = lennard_jones(lattice(4, seed=6)[0])
    refused = objective(potential, comm, crooked(potential, 3.0))
    with pytest.raises(CheckError, match="are not symmetric") as caught:
        sh.near_far(refused, points=potential.points, gradients=90)
    more = 3.0 * np.cos(np.roll(potential.x, 1))  # right of the diagonal, around a ring
    true = np.sqrt(2.0) * np.linalg.norm(more) / np.linalg.norm(potential.hessian())
    told = float(re.search(r"‖H − Hᵀ‖ is about (\S+) of ‖H‖", str(caught.value))[1])
    assert 1 / 2 < told / true < 2
    for gradient in (lambda x: np.round(potential.gradient(x), 3), crooked(potential, 1e-6)):
        passed = objective(potential, comm, gradient)  # for noise they are what they are
        with sh.near_far(passed, points=potential.points, gradients=90, tolerance=10.0) as H:
            assert H.error < 0.1


def test_bounds_hold_of_two_ions(comm):
    """In a trap of frequency 1 at distance r: 1 - 2 / r³ across, twice, 1 of the centre, 1 + 4 / r³ along."""
    for seed in range(4):
        points = np.array([[0, 0, 0], [0, 0, 1]]) + 0.1 * np.random.default_rng(seed).normal(size=(2, 3))
        pair = PairPotential(points, lambda r: -1 / r**2, lambda r: 2 / r**3)
        of_ions = objective(pair, comm, lambda x, pair=pair: pair.gradient(x) + x)
        cube = np.linalg.norm(points[0] - points[1]) ** 3
        exact = np.array([1 - 2 / cube] * 2 + [1.0] * 3 + [1 + 4 / cube])
        with sh.near_far(of_ions, points=points, gradients=40) as H, sh.lowest_pairs(H, 6) as found:
            assert (np.abs(found.eigenvalues - exact) <= found.errors).all() and found.errors.max() < 1e-8


def test_a_force_that_never_changes(comm):
    points = lattice(3)[0]
    constant = sh.Objective(x=points.ravel(), gradient=np.ones_like, comm=comm)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sh.near_far(constant, points=points, gradients=60) as H, sh.lowest_pairs(H, 4) as found:
            assert H.error == 0 and (found.eigenvalues == 0).all() and found.zero.all()


def test_of_pairs_of_which_some_are_not_reached_the_lowest_are_returned(comm):
    potential = lennard_jones(lattice(4, seed=6)[0])
    exact = np.linalg.eigvalsh(potential.hessian())
    with sh.near_far(objective(potential, comm), points=potential.points, gradients=40, tolerance=10.0) as H:
        for tol in (1e-3, 1e-5, 1e-7):
            with sh.lowest_pairs(H, 20, gradients=60, tol=tol, strict=False) as found:
                few = found.converged
                assert (np.abs(found.eigenvalues - exact[:few]) <= found.errors).all()
        with pytest.raises(InputError, match="20 pairs begin with 40 gradients or products, and 30 are allowed"):
            sh.lowest_pairs(H, 20, gradients=30)


def test_what_is_not_finite_in_a_product_is_of_no_colour(comm):
    potential = lennard_jones(lattice(3, seed=6)[0])
    spoilt = []

    def gradient(x):
        values = potential.gradient(x)
        return np.where(np.arange(len(values)) == 5, np.nan, values) if spoilt else values

    with sh.near_far(objective(potential, comm, gradient), points=potential.points, gradients=60) as H:
        spoilt.append(True)
        with pytest.raises(CheckError, match=r"nan at variable 5 \(1 in all\) on rank \d+; is the function"):
            sh.lowest_pairs(H, 2)


def test_noise_is_not_blamed_on_the_digits_of_x(comm):
    potential = lennard_jones(lattice(4, seed=6)[0])

    def gradient(x):
        seed = int(np.abs(x).sum() * 1e12) % 2**32
        return potential.gradient(x) + 1e-2 * np.random.default_rng(seed).normal(size=len(x))

    with pytest.raises(CheckError, match=r"noisy at variable \d+, by \d\.\de-02 or so"):
        sh.near_far(objective(potential, comm, gradient), points=potential.points, gradients=90)
