"""Inertia against LAPACK and closed forms, on any number of ranks."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from support.cases import prescribed, stored

pytestmark = pytest.mark.parallel([1, 2, 4])


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1, 2, 3, 4], "positive definite"),
        ([0, 0, 3, 4], "positive semidefinite"),
        ([-1, 0, 3, 4], "indefinite"),
        ([-4, -3, -2, -1], "negative definite"),
        ([-4, -3, 0, 0], "negative semidefinite"),
    ],
)
def test_signs_and_verdicts(values, verdict, comm):
    values = np.repeat(np.array(values, float), 5)
    signs = sh.inertia(prescribed(values), comm=comm)
    assert (signs.negative, signs.zero, signs.positive) == tuple(
        int(np.count_nonzero(part)) for part in (values < 0, values == 0, values > 0)
    )
    assert signs.definite == verdict and signs.certified and signs.infinite == 0


def test_signs_without_a_factorization_are_estimates(comm, monkeypatch):
    exact = np.concatenate([-np.linspace(1, 3, 30), np.zeros(20), np.linspace(2, 9, 150)])
    monkeypatch.setattr("sparsehess.eigen.problem.problem.has_package", lambda name: False)
    whole = sh.inertia(prescribed(np.sort(exact), 4), comm=comm)  # so few variables: all eigenvalues by LAPACK
    assert (whole.negative, whole.zero, whole.positive, whole.certified) == (30, 20, 150, True)
    near = sh.inertia(prescribed(np.sort(exact), 4), zero=0.7, comm=comm)
    assert not near.certified and "45 between" in near.doubt
    monkeypatch.setattr("sparsehess.eigen.estimates.spectral_density.is_cheaper_whole", lambda *_: False)
    found = sh.inertia(prescribed(np.sort(exact), 4), comm=comm)
    assert not found.certified and "estimates" in found.doubt and found.definite == "indefinite"
    for value, error, true in zip(
        (found.negative, found.zero, found.positive), found.stderr, (30, 20, 150), strict=True
    ):
        assert abs(value - true) <= 4 * error + 1 and error < 10


def test_signs_of_a_pencil_with_massless_rows(comm):
    K, M = stored("hb_lund")
    mass = M.tolil()
    mass[:5] = 0
    mass[:, :5] = 0
    signs = sh.inertia(K, mass=sp.csr_matrix(mass), comm=comm)
    assert (signs.negative, signs.zero, signs.positive, signs.infinite) == (0, 0, 142, 5)


@pytest.mark.thorough
def test_an_eigenvalue_at_the_threshold_is_a_doubt(comm):
    values = np.array([-2.0, 2e-3, 1.0, 3.0])
    signs = sh.inertia(prescribed(values), zero=1e-3, comm=comm)
    assert not signs.certified and "below 1.0e-03 but" in signs.doubt
    assert sh.inertia(prescribed(values), zero=1e-4, comm=comm).certified
    with pytest.raises(InputError, match="must be positive"):
        sh.inertia(prescribed(values), zero=0.0, comm=comm)
