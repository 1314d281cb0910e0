"""Digits: what was rounded when it was written is found out from the numbers, what is exact is not."""

import numpy as np
import pytest

from sparsehess.storage.decimal_digits import find_rounding, rounding_of_type


def numbers(count=400, seed=0):
    """Return numbers of many sizes."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=count) * 10.0 ** rng.integers(-3, 6, count)


@pytest.mark.parametrize("digits", [3, 4, 6, 7, 9, 12])
@pytest.mark.parametrize("count", [30, 50_000])
def test_significant_digits(digits, count):
    exact = numbers(count)
    written = np.array([float(f"{value:.{digits - 1}e}") for value in exact])
    found = find_rounding(written)
    assert found.digits == digits and found.absolute == 0
    assert (np.abs(written - exact) <= found.relative * np.abs(written) * (1 + 1e-9)).all()


@pytest.mark.parametrize("places", [3, 6, 9])
def test_digits_behind_the_point(places):
    exact = numbers()
    written = np.array([float(f"{value:.{places}f}") for value in exact])
    found = find_rounding(written)
    assert found.digits == places and found.relative == 0
    assert (np.abs(written - exact) <= found.absolute * (1 + 1e-6)).all()


def test_a_few_different_numbers_of_seven_digits_are_enough():
    entries = np.array([2.454737e09, -8.643835e09, 5.372632e06, 9.331413e07, 0.0])
    assert find_rounding(np.repeat(entries, 9)).digits == 7


@pytest.mark.parametrize(
    "values",
    [
        numbers(),
        np.arange(-500.0, 500.0),
        np.random.default_rng(1).integers(-(10**7), 10**7, 500).astype(float),
        np.random.default_rng(1).integers(1, 10**6, 500) / 64.0,
        np.random.default_rng(1).integers(1, 10**6, 500) / 3.0,
        np.random.default_rng(1).integers(1, 2000, 500) / 10.0,
        np.array([2.0, -1.0, 0.5, 1e300, 1e-310]),
        np.array([2e300, -1e300]),
        np.array([1600.0, 6400.0, -1600.0]),
        np.array([1.234567, -1.234567]),
        np.zeros(5),
        np.empty(0),
        np.array([np.nan, np.inf]),
        np.arange(10),
    ],
)
def test_exact_numbers_are_not_taken_for_rounded_ones(values):
    assert not find_rounding(values)


def test_single_precision():
    found = rounding_of_type(numbers().astype(np.float32))
    assert found.digits == 7 and found.relative == 2.0**-24
    for exact in (numbers(), np.arange(100, dtype=np.float32), np.arange(9), np.zeros(3, np.float32)):
        assert not rounding_of_type(exact)
