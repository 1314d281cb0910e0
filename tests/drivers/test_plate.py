"""The plate of the gallery carries what sines do."""

from mpi4py import MPI

import numpy as np
import pytest

import sparsehess as sh

pytest.importorskip("skfem")

import plate

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_effective_masses_are_those_of_sines():
    K, M = plate.matrices(20)
    motions = plate.directions(20)
    exact = plate.theory(6)
    with sh.eigs(K, 6, mass=M, comm=MPI.COMM_WORLD) as modes:
        found = sh.effective_masses(modes, M, directions=motions)
        frequencies = sh.Units.consistent("Hz").of_eigenvalues(modes.eigenvalues)
    np.testing.assert_allclose(frequencies, exact[0], rtol=6e-2)
    np.testing.assert_allclose(found.effective_mass[:, 0], exact[1], rtol=9e-2, atol=0.02)
    # turning about the middle: (∫∫ (x - a/2) sin 2πx/a sin πy/b)² / ∫∫ sin² sin² = 4 a²/π⁴ of the mass
    about = [4 * side**2 * 7850 * 0.01 * 0.8 / np.pi**4 for side in (0.8, 1.0)]
    assert found.effective_mass[1:3, 1].max() == pytest.approx(about[0], rel=8e-2)
    assert found.effective_mass[1:3, 2].max() == pytest.approx(about[1], rel=8e-2)
