"""Functions and fractional powers of operators against dense matrices, on any number of ranks."""

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.operators.block_diagonal import BlockDiagonal
from sparsehess.operators.combinations import congruence
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.eigen_corrected import EigenCorrected
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.matrix_functions import funm, inverse_root, power_residual
from sparsehess.operators.transforms import lora, projection
from support.dense_answers import aij, dense, own, positive, power, symmetric

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_fractional_powers_of_structures(comm):
    layout = sh.Layout.from_size(18, comm)
    U = np.random.default_rng(1).normal(size=(18, 3))
    K = Kronecker((positive(3, 1), positive(5, 2)), comm=comm)
    low = LowRankDiagonal(0.5, own(layout, U), comm=comm)
    blocks = BlockDiagonal([positive(m, m) for m in (4, 9, 1)], comm=comm)
    kinds = [
        (K, EigenCorrected),
        (low, LowRankDiagonal),
        (blocks, BlockDiagonal),
        (DirectSum([K, low]), DirectSum),
    ]
    for operator, kind in kinds:
        H = dense(operator)
        for exponent in (-0.25, -0.5, 0.75, 2, -1):
            with funm(operator, exponent) as result:
                assert type(result) is kind
                expected = power(H, exponent)
                assert np.abs(dense(result) - expected).max() < 1e-12 * np.linalg.norm(expected, 2)
                assert power_residual(operator, result, exponent) < 1e-14
        with funm(operator, np.exp) as result:
            assert np.abs(dense(result) - scipy.linalg.expm(H)).max() < 1e-12 * np.linalg.norm(
                scipy.linalg.expm(H)
            )
    with funm(blocks, -0.25, method="newton") as result, funm(blocks.mat, -0.25) as by_components:
        expected = power(dense(blocks), -0.25)
        for found in (result, by_components):
            assert np.abs(dense(found) - expected).max() < 1e-12 * np.linalg.norm(expected, 2)
    kinds[-1][0].close()
    for operator in (K, low, blocks):
        operator.close()


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e8])
def test_the_newton_iteration_converges(condition, comm):
    Q = np.linalg.qr(np.random.default_rng(2).normal(size=(25, 25)))[0]
    values = 40 * np.geomspace(1 / condition, 1, 25)
    H = (Q * values) @ Q.T
    for p in (1, 2, 3, 4, 8):
        expected = (Q * values ** (-1 / p)) @ Q.T
        found, residual = inverse_root(H, p)
        assert residual < 1e-14
        assert np.abs(found - expected).max() < 1e-14 * condition * np.linalg.norm(expected, 2) + 1e-13
    for exponent in (-0.75, 1.5):
        for method in ("eigen", "newton"):
            found = funm(H, exponent, method=method, comm=comm)
            expected = (Q * values**exponent) @ Q.T
            assert np.abs(found - expected).max() < 1e-14 * condition * np.linalg.norm(expected, 2) + 1e-11


def test_powers_that_do_not_exist(comm):
    indefinite = symmetric(5, 1)
    for method in ("eigen", "newton"):
        with pytest.raises(InputError, match="add to"):
            funm(indefinite, -0.25, method=method, comm=comm)
    with Kronecker((indefinite, np.eye(2)), comm=comm) as K:
        with pytest.raises(InputError, match="not defined"):
            funm(K, -0.5)
        with pytest.raises(InputError, match="for dense matrices"):
            funm(K, -0.5, method="newton")
        T = lora(np.ones((1, 2)), np.ones((5, 1)), comm=comm)
        with T, congruence(K, T) as shell, pytest.raises(InputError, match="not known"):
            funm(shell, -0.5)


def test_iterations_that_fail_say_so(comm):
    values = np.geomspace(1e-14, 1, 30)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    stored = aij((Q * values) @ Q.T, comm)
    P = projection(np.ones((1, 30)), stored.layout)
    singular = congruence(stored, P)
    with stored, P, singular, pytest.raises(NotConverged, match="MINRES"):
        singular.solve(np.ones(stored.layout.n_local))  # not in its range


def test_a_power_that_is_wrong_is_found(comm, monkeypatch):
    monkeypatch.setattr(
        "sparsehess.operators.matrix_functions.power_of", lambda values, power: values**power * 1.0001
    )
    with pytest.raises(CheckError, match="multiplied out"):
        funm(positive(6), -0.25, comm=comm)
    with Kronecker((positive(3), positive(2)), comm=comm) as K, pytest.raises(CheckError, match="multiplied out"):
        funm(K, -0.25)
