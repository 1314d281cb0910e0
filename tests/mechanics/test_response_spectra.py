"""Combinations of modal peaks against the covariance of oscillators under one white noise."""

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.mechanics.response_spectra import correlation


@pytest.mark.parametrize("damping", [0.02, 0.05, (0.03, 0.1, 0.05)])
def test_correlation_is_that_of_white_noise(damping):
    """By Lyapunov's equation of the oscillators' covariance, which no formula of CQC enters."""
    w, z = np.array([1.0, 1.1, 3.0]), np.broadcast_to(damping, 3)
    A = np.block([[np.zeros((3, 3)), np.eye(3)], [-np.diag(w**2), -np.diag(2 * z * w)]])
    noise = np.r_[np.zeros(3), np.ones(3)]
    covariance = scipy.linalg.solve_continuous_lyapunov(A, -np.outer(noise, noise))[:3, :3]
    size = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(correlation(w, damping, 3), covariance / np.outer(size, size), rtol=1e-9)


def test_combinations():
    peaks = np.array([[3.0, 1.0], [4.0, -1.0]])
    assert sh.combine_responses(peaks, method="srss") == pytest.approx([5.0, np.sqrt(2)])
    near = sh.combine_responses(peaks, [1.0, 1.0])
    assert near == pytest.approx([7.0, 0.0], abs=1e-7)  # of one frequency: they add up, with their signs
    far = sh.combine_responses(peaks, [1.0, 1e4])
    assert far == pytest.approx([5.0, np.sqrt(2)], rel=1e-4)
    # equal damping: 8 ζ² (1 + β) β^1.5 / ((1 - β²)² + 4 ζ² β (1 + β)²) [Chopra, eq. 13.7.11]
    b = 0.9
    rho = 8 * 0.05**2 * (1 + b) * b**1.5 / ((1 - b**2) ** 2 + 4 * 0.05**2 * b * (1 + b) ** 2)
    assert sh.combine_responses([3.0, 4.0], [0.9, 1.0]) == pytest.approx(np.sqrt(25 + 24 * rho))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs the frequencies"),
        ({"frequencies": [1.0, -1.0]}, "positive"),
        ({"frequencies": [1.0, 2.0], "damping": 0.0}, "between 0 and 1"),
        ({"frequencies": [1.0, 2.0], "damping": np.nan}, "between 0 and 1"),
        ({"method": "cqd"}, "cqc"),
        ({"frequencies": [1.0]}, r"\(2,\)"),
    ],
)
def test_mistakes(arguments, said):
    with pytest.raises(InputError, match=said):
        sh.combine_responses([1.0, 2.0], **arguments)


def test_numbers_of_any_size():
    for size in (1e-200, 1e200):
        assert sh.combine_responses([3 * size, 4 * size], method="srss") == pytest.approx(5 * size)
        assert sh.combine_responses([3 * size, 4 * size], [1.0, 1.0]) == pytest.approx(7 * size)
    for frequencies in ([1e-150, 1e150], [1e150, 1e-150]):
        assert sh.combine_responses([3.0, 4.0], frequencies, (0.02, 0.1)) == pytest.approx(5.0)
