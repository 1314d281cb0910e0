"""Motions that count as rigid beside large entries: what K makes of them is told, and nothing certified of it."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError, InputError
from sparsehess.mechanics.rigid_resistance import find_resistance

pytestmark = pytest.mark.parallel([1, 2, 3])


def tied(p, held=1.0):
    """Return two masses that p ties, one held by a spring: both swing together with λ² = -held / 2."""
    return np.array([[p + held, -p], [-p, p]])


@pytest.mark.essential
@pytest.mark.parametrize("damping", [None, 1e-3 * np.eye(2)])
def test_a_tie_and_a_spring(comm, damping):
    """Up to 1e12 the digits have the mode; from 1e13 they are too few, and the answer says so."""
    for p in (1e8, 1e12):
        with sh.damped_modes(tied(p), np.eye(2), damping, k=2, comm=comm) as found:
            assert not found.rigid and found.rigid_bound == 0
            assert abs(abs(found.eigenvalues[0]) - np.sqrt(0.5)) <= 2 * found.resolutions[0]
    for p in (1e13, 3e13, 1e14):
        with sh.damped_modes(tied(p), np.eye(2), damping, k=2, comm=comm, strict=False) as found:
            assert found.rigid == 1 and not found.count.certified and found.stability.most is None
            assert "have lost 1 of the modes" in found.shortfall
            assert np.sqrt(0.5) * 0.99 < found.rigid_bound < 1.0
            assert found.facts()["rigid_bound"] == found.rigid_bound
        with pytest.raises(CheckError, match="take smaller penalties, or multipliers"):
            sh.damped_modes(tied(p), np.eye(2), damping, k=2, comm=comm)


def test_a_tie_and_what_drives(comm):
    """The same with -1: one mode grows with 0.707, which nothing may rule out."""
    with sh.damped_modes(tied(1e13, -1.0), np.eye(2), k=2, comm=comm, strict=False) as found:
        assert found.stability.most is None and not found.count.certified and found.rigid_bound > 0.7


def test_free_bodies_are_rigid(comm):
    """Nothing is doubted of what is free: of a tie, of soft and stiff chains; |λ| is bounded by the digits."""
    chain = sp.diags([-np.ones(99), np.r_[1, 2 * np.ones(98), 1], -np.ones(99)], [-1, 0, 1]).tocsr()
    for K in (tied(1.0, 0.0), tied(1e16, 0.0), 1e13 * tied(1.0, 0.0), 1e-9 * chain, 1e11 / 3 * chain):
        with sh.damped_modes(K, k=2, comm=comm) as found:
            assert found.rigid == 1 and found.count.certified and not found.shortfall
            assert "to the accuracy of its rows" in found.stability.reason and found.stability.most == 0
            assert 0 < found.rigid_bound < 1e-6 * np.sqrt(abs(K).max())


def test_a_tie_among_soft_springs(comm):
    """What the last digits of one tie leave is not small beside the other modes: no answer at all."""
    n = 100
    K = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1]).tolil()
    K[50:52, 50:52] += 1e6 * np.array([[1, -1], [-1, 1]])
    with sh.damped_modes(K.tocsr(), k=3, comm=comm) as found:
        assert found.count.certified and not found.rigid
        exact = np.sqrt(np.linalg.eigvalsh(K.toarray())[:3])
        assert (np.abs(found.frequencies - exact) <= 1e-7 * exact).all()
    for p in (1e14, 1e19):
        K[50:52, 50:52] += p * np.array([[1, -1], [-1, 1]])
        with pytest.raises(InputError, match="the entries of K have lost 1 of the modes"):
            sh.damped_modes(K.tocsr(), k=3, comm=comm)


def test_rows_without_entries_are_rigid(comm):
    """A free mass beside a chain: what is not known of its motion elsewhere is nothing that K makes of it."""
    K = sp.diags([-np.ones(11), 2 * np.ones(12), -np.ones(11)], [-1, 0, 1]).tolil()
    K[5, :] = K[:, 5] = 0
    turn = sp.diags([np.ones(11), -np.ones(11)], [1, -1]).tocsr()
    for turning in (0.0, 1.0):
        for scale in (1e-9, 1.0, 1e13):
            G = turning * scale**0.5 * turn if turning else None
            with sh.damped_modes(
                scale * K.tocsr(), gyroscopic=G, k=2, target=0.3j * scale**0.5, comm=comm
            ) as found:
                assert found.rigid == 1 and found.count.certified and not found.shortfall


def test_bounds():
    """Against roots of λ²m + λc = k, of single motions and of two that do not mix."""
    one = np.eye(1)
    eps = np.finfo(float).eps
    assert find_resistance(1e-20 * one, 0 * one, 4 * one, 0 * one, 1.0).bound == pytest.approx(5e-11, rel=1e-9)
    assert find_resistance(0 * one, one, one, 0 * one, 1.0).bound == pytest.approx(np.sqrt(eps), rel=1e-9)
    assert find_resistance(0 * one, one, 0 * one, 2 * one, 1.0).bound == pytest.approx(eps / 2, rel=1e-9)
    root = (-3 + np.sqrt(9 + 4 * 2 * 1e-3)) / 4
    found = find_resistance(-1e-3 * one, 0 * one, 2 * one, 3 * one, 1.0)
    assert found.bound == pytest.approx(root, rel=1e-9) and found.told == 1
    both = find_resistance(np.zeros((2, 2)), eps * np.eye(2), np.diag([1.0, 1e-12]), np.zeros((2, 2)), 1.0)
    assert both.bound == pytest.approx(np.sqrt(eps**2 / 1e-12), rel=1e-6) and (both.told, both.lost) == (0, 0)
