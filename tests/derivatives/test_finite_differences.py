"""Steps and schemes of finite differences."""

from types import SimpleNamespace

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.derivatives.finite_differences import plan_steps, scheme_of
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.derivatives.scales import Scales, lengths
from sparsehess.errors import InputError


def noise(relative, bend=1.0):
    return Noise(np.ones(3), np.full(3, relative), np.ones(3), np.ones(3), np.full(3, bend), True)


EXACT = noise(0.0)
FREE = np.full(3, -np.inf), np.full(3, np.inf)


def taken(x, length, noise, scheme, limits=FREE, given=False):
    scales = Scales(np.asarray(x, float), np.asarray(length, float), *limits, given)
    return plan_steps(scales, noise, scheme).taken


def test_steps_follow_the_scale():
    layout = sh.Layout.from_size(3, None)
    assert np.array_equal(lengths(np.zeros(3), None, layout), np.ones(3))
    assert lengths(np.full(3, 1e-9), None, layout) == pytest.approx(np.full(3, 1e-9))
    assert np.array_equal(lengths(np.full(3, 50.0), None, layout), np.ones(3))
    lengths_ = [1.0, 1e3, 1e-3]
    assert taken(np.zeros(3), lengths_, EXACT, "central") == pytest.approx(2.2e-5 * np.array(lengths_), rel=1e-2)
    assert taken(np.zeros(3), lengths_, EXACT, "forward") == pytest.approx(4.21e-8 * np.array(lengths_), rel=1e-2)


def test_steps_follow_the_noise_and_the_bend():
    noisy, bent = noise(1e-8), noise(1e-8, 0.1)
    assert taken(np.zeros(3), np.ones(3), noisy, "central") == pytest.approx(np.full(3, 6.2e-3), rel=1e-2)
    assert taken(np.zeros(3), np.ones(3), bent, "central") == pytest.approx(np.full(3, 1.34e-3), rel=1e-2)
    far = noise(1e-8, 8.0)
    told = taken(np.zeros(3), np.ones(3), far, "central", given=True)
    assert told == pytest.approx(taken(np.zeros(3), np.ones(3), noisy, "central"))


@pytest.mark.parametrize("scheme", ["forward", "central", "extrapolated"])
def test_steps_do_not_cross_bounds_and_differentiate_polynomials(scheme):
    """At, near and away from a bound; exact to the order of the scheme, one-sided as well."""
    x, lower, upper = np.array([0.0, 1e-4, 0.5]), np.zeros(3), np.array([1.0, 1.0, 0.5 + 1e-5])
    made = plan_steps(Scales(x, np.ones(3), lower, upper, False), noise(1e-6), scheme)
    points = [x if values is None else values for values, _ in made.nodes]
    weights = [weight for _, weight in made.nodes]
    for point in points:
        assert ((lower <= point) & (point <= upper)).all()
    for order, exact in ((1, np.ones(3)), (2, 2 * x)):
        slope = sum(w * p**order for w, p in zip(weights, points, strict=True)) / made.taken
        tolerance = 1e-9 if order == 1 or scheme == "extrapolated" else 1e-2
        assert slope == pytest.approx(exact, abs=tolerance)


def test_schemes():
    problem = SimpleNamespace(gradient=abs, hvp=None, hvps=None, energy=None, name="p")
    assert scheme_of("auto", problem) == "central"
    assert scheme_of("auto", SimpleNamespace(**{**vars(problem), "hvps": abs})) == "product"
    with pytest.raises(InputError, match="needs a Hessian-vector product"):
        scheme_of("ad", problem)
    with pytest.raises(InputError, match="none of"):
        scheme_of("exact", problem)
