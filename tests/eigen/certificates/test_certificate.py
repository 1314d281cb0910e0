"""Certificates compute everything anew."""

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
