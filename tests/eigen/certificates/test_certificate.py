"""Certificates compute everything anew."""

import numpy as np
import pytest
import scipy.sparse as sp

import cantilever
import sparsehess as sh

pytestmark = [pytest.mark.parallel([1, 2, 4]), pytest.mark.essential]


def test_certificate_recomputes_everything(comm):
    K, M = cantilever.matrices(cells=4)
    with sh.eigs(K, 5, mass=M, comm=comm) as spectrum:
        good = sh.certify(K, spectrum, mass=M, comm=comm)
        assert good.passed and good.residual <= 1e-12
        spectrum.vectors[2].scale(1.001)
        assert not sh.certify(K, spectrum, mass=M, comm=comm).passed
        spectrum.vectors[2].scale(1 / 1.001)
        spectrum.eigenvalues[2] *= 1.01
        assert not sh.certify(K, spectrum, mass=M, comm=comm).passed
        assert not sh.certify(K + 1e6 * sp.identity(K.shape[0]), spectrum, mass=M, comm=comm).passed


def test_the_largest_in_magnitude_lie_beyond_both_ends_of_their_count(comm):
    H = sp.diags(np.r_[-5.0, -4.0, np.linspace(-1, 1, 60), 4.5, 7.0])
    with sh.eigs(H, 3, which="magnitude", comm=comm) as spectrum:
        assert (
            spectrum.count.interval[0] > spectrum.count.interval[1]
            and spectrum.count.holds(spectrum.eigenvalues).all()
        )
        assert sh.certify(H, spectrum, comm=comm).passed
        spectrum.eigenvalues[1] = 0.5
        assert not sh.certify(H, spectrum, comm=comm).passed
