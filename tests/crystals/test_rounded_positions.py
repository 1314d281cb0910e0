"""Positions and cells that a file has rounded: which ways are equally long is told by the lengths themselves."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.crystals import Crystal
from sparsehess.crystals.cells import shortest_ways
from support.lattices import fcc

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def turned(crystal, digits, seed=None):
    """Return a crystal in no simple orientation, its numbers rounded as in a file, or moved as much by chance."""
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    lattice, places = crystal.lattice @ turn, crystal.positions @ turn
    if seed is not None:
        off = np.random.default_rng(seed).uniform(-0.5, 0.5, size=(len(crystal) + 3, 3)) * 10.0**-digits
        lattice, places = lattice + off[:3], places + off[3:]
    elif digits is not None:
        lattice, places = np.round(lattice, digits), np.round(places, digits)
    return Crystal(lattice, places, crystal.masses, crystal.symbols)


@pytest.mark.parametrize("digits", [8, 7, 6, 5, 4])
def test_bands_of_rounded_positions(digits, comm):
    """They differ by what rounding does to phases, and as many ways are equally long as in truth."""
    given = fcc([2, 2, 4], 1.0, 0.2)
    values = given.dense() + 0.03 * np.random.default_rng(1).normal(size=given.dense().shape)  # of all pairs
    q = np.random.default_rng(0).normal(size=(20, 3))

    def solid(digits, seed=None):
        cells = (turned(one, digits, seed) for one in (given.primitive, given.supercell))
        return sh.phonons(sh.ForceConstants.of(values, *cells), sum_rule=False, comm=comm)

    exact = solid(None)
    for rough in (solid(digits), solid(digits, 1)):
        assert len(rough._sums._ways) == len(exact._sums._ways) > 30
        off = np.abs(rough.at(q).eigenvalues - exact.at(q).eigenvalues).max()
        longest = np.linalg.norm(q @ given.primitive.reciprocal, axis=1).max()
        assert off < 10 * longest * 10.0**-digits * exact.at(q).scale


def test_what_differs_in_truth_stays_apart():
    """A pair that is farther one way by 5e-4 Å has one shortest way; lengths that differ by rounding share."""
    edge = np.array([[0.5, 0, 0]]) * 6.0
    for more, ways in ((0.0, 2), (1e-9, 2), (2e-5, 2), (5e-4, 1), (2e-3, 1), (0.1, 1)):
        found = shortest_ways(6.0 * np.eye(3), edge - [[0.5 * more, 0, 0]], None)
        assert len(found[0]) == ways, more
    # Many that are rounded, up to 4e-5 Å, and one at 5e-3 Å.
    off = np.concatenate([np.linspace(0, 4e-5, 9), [5e-3]])
    found = shortest_ways(6.0 * np.eye(3), np.outer(3.0 - 0.5 * off, [1, 0, 0]), None)
    assert np.bincount(found[0]).tolist() == [2] * 9 + [1]
