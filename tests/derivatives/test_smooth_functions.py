"""The functions that tests and benchmarks differentiate are what they say: their closed forms agree."""

import numpy as np
import pytest

from support.practical_functions import SHAPES
from support.smooth_functions import STEP


def points(shape):
    """Return the function's own point, another nearby, and 0 where it may be."""
    x = shape.function.x
    near = x + 0.01 * shape.length * np.random.default_rng(0).uniform(-1, 1, len(x))
    return [x, near, *([np.zeros(len(x))] if shape.at_zero else [])]


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_those_of_energies(name):
    shape = SHAPES[name](24)
    function = shape.function
    for x in points(shape):
        unit = np.eye(len(x))
        slopes = np.array([function.energy(x + 1j * STEP * e).imag / STEP for e in unit])
        size = max(np.abs(slopes).max(), 1e-300)
        np.testing.assert_allclose(function.gradient(x), slopes, rtol=1e-12, atol=1e-14 * size)


@pytest.mark.parametrize("name", SHAPES)
def test_hessians_are_those_of_gradients(name):
    shape = SHAPES[name](24)
    function = shape.function
    assert (function.pattern != function.pattern.T).nnz == 0
    for x in points(shape):
        bends = np.array([function.gradient(x + 1j * STEP * e).imag / STEP for e in np.eye(len(x))])
        size = max(np.abs(bends).max(), 1e-300)
        hessian = function.hessian(x).toarray()
        np.testing.assert_allclose(hessian, bends, rtol=1e-12, atol=1e-14 * size)
        np.testing.assert_array_equal(hessian, hessian.T)
        assert not bends[function.pattern.toarray() == 0].any()


@pytest.mark.parametrize("name", SHAPES)
def test_steps_of_gradients_agree_with_hessians(name):
    shape = SHAPES[name](24)
    function, x = shape.function, shape.function.x
    direction = shape.length * np.random.default_rng(1).choice([-1.0, 1.0], len(x))
    step = 1e-4 * direction
    change = (function.gradient(x + step) - function.gradient(x - step)) / 2e-4
    product = function.hessian(x) @ direction
    energy = np.abs(function.hessian(x)) @ shape.length * shape.length
    off = np.abs(change - product) * shape.length
    assert (off <= 1e-4 * energy.max()).all()


@pytest.mark.parametrize("name", SHAPES)
def test_lengths_are_where_derivatives_change(name):
    """Within a twentieth of them a Hessian keeps most of its size, row by row."""
    shape = SHAPES[name](24)
    function, x = shape.function, shape.function.x
    moved = x + 0.05 * shape.length * np.random.default_rng(2).choice([-1.0, 1.0], len(x))
    here, there = function.hessian(x), function.hessian(moved)
    size = (abs(here) @ shape.length) * shape.length
    off = (abs(there - here) @ shape.length) * shape.length
    assert (off <= 0.5 * np.maximum(size, 0.2 * np.median(size))).all()
