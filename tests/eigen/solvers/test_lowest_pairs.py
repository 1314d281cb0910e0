"""Lowest pairs of Hessians in which everything couples, against LAPACK's of dense ones in closed form."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.errors import InputError, NotConverged
from support.pair_potentials import ions, lattice, lennard_jones

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def at_rest(potential, steps=60):
    """Move the points of a potential down to where Newton's steps along what is convex end."""
    for _ in range(steps):
        values, vectors = np.linalg.eigh(potential.hessian())
        bend = np.maximum(np.abs(values), 1e-3 * values[-1])
        step = vectors @ ((vectors.T @ potential.gradient(potential.x)) / bend)
        potential.points = potential.points - (step * min(1.0, 0.1 / np.abs(step).max())).reshape(-1, 3)
    return potential


ATOMS = at_rest(lennard_jones(lattice(4, seed=11)[0][:60]))


def near_far(potential, comm, gradients=100, gradient=None, near=None, **more):
    objective = sh.Objective(x=potential.x, gradient=gradient or potential.gradient, comm=comm, **more)
    return sh.near_far(objective, points=potential.points, gradients=gradients, tolerance=10.0, **(near or {}))


def test_pairs_are_those_of_the_hessian_itself_and_counted(comm):
    exact = np.linalg.eigvalsh(ATOMS.hessian())
    # Without what is far for the start: what it lacks is bettered by true products.
    with near_far(ATOMS, comm, gradients=40) as H:
        before = ATOMS.calls
        with sh.lowest_pairs(H, 8, gradients=40) as found:
            spent = ATOMS.calls - before if comm.size == 1 else H.evaluations["refinement"]
            assert spent == H.evaluations["refinement"] <= 40
            assert np.abs(found.eigenvalues - exact[:8]).max() < 1e-7 * exact[-1]
            assert (np.abs(found.eigenvalues - exact[:8]) <= found.errors).all()
            assert found.residuals.max() <= found.held_to and found.method == "davidson"
            if found.count is None:
                assert "H − Ĥ may move" in found.uncounted
            else:
                assert (
                    found.count.certified and (exact < found.count.interval[1]).sum() == found.count.inertia == 8
                )
            values = found.eigenvalues
    alone = near_far(ATOMS, MPI.COMM_SELF, gradients=40)
    with alone, sh.lowest_pairs(alone, 8, gradients=40) as found:
        assert found.eigenvalues == pytest.approx(values, abs=1e-8 * exact[-1])


def test_what_a_poor_start_lacks_costs_products_and_not_digits(comm):
    points, charges = lattice(4, jitter=0.03, seed=12)
    charges = np.random.default_rng(2).permutation(charges)
    potential = ions(1.25 * points, charges)
    exact = np.linalg.eigvalsh(potential.hessian())
    with near_far(potential, comm, gradients=60) as H:  # and without charges no kernel
        assert H.error > 0.05
        with sh.lowest_pairs(H, 3, gradients=150) as found:
            assert np.abs(found.eigenvalues - exact[:3]).max() < 1e-7 * exact[-1]
            assert found.count is None and "may move" in found.uncounted and found.iterations > 0
        with pytest.raises(NotConverged, match="more need more gradients than"):
            sh.lowest_pairs(H, 6, gradients=20, tol=1e-7)
        with sh.lowest_pairs(H, 6, gradients=20, tol=1e-7, strict=False) as found:
            assert found.converged < 6 and found.asked == 6


def test_masses_and_null_vectors_are_those_of_the_objective(comm):
    masses = np.repeat(1.0 + np.arange(60) % 4, 3)
    shifts = np.tile(np.eye(3), 60)
    exact = scipy.linalg.eigh(ATOMS.hessian(), np.diag(masses), eigvals_only=True)
    exact = np.sort(exact[np.argsort(np.abs(exact))[3:]])
    with near_far(ATOMS, comm, mass=masses, null_vectors=shifts) as H, sh.lowest_pairs(H, 5) as found:
        assert found.eigenvalues == pytest.approx(exact[:5], abs=1e-6 * exact[-1])
        vectors = found.to_numpy()[1]
        assert vectors.T @ (masses[:, None] * vectors) == pytest.approx(np.eye(5), abs=1e-9)
        assert np.abs(shifts @ (masses[:, None] * vectors)).max() < 1e-7


def test_it_stops_at_the_noise(comm):
    exact = np.linalg.eigvalsh(ATOMS.hessian())

    def rounded(x):
        return np.round(ATOMS.gradient(x), 5)

    with near_far(ATOMS, comm, gradient=rounded) as H, sh.lowest_pairs(H, 5, tol=1e-12, gradients=80) as found:
        assert found.held_to > 1e-9 and H.evaluations["refinement"] <= 80
        assert (np.abs(found.eigenvalues - exact[:5]) <= found.errors).all()
        assert np.abs(found.eigenvalues - exact[:5]).max() < 1e-3 * exact[-1]


def test_mistakes_are_named(comm):
    with near_far(ATOMS, comm) as H:
        with pytest.raises(InputError, match="k=0"):
            sh.lowest_pairs(H, 0)
        with pytest.raises(InputError, match="k=181 pairs of 180 variables"):
            sh.lowest_pairs(H, 181)
    import scipy.sparse as sp

    chain = sp.diags([np.full(179, 0.1), np.ones(180), np.full(179, 0.1)], [-1, 0, 1]).tocsr()
    with near_far(ATOMS, comm, mass=chain) as H, pytest.raises(InputError, match="diagonal mass"):
        sh.lowest_pairs(H, 2)
