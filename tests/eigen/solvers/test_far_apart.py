"""Wanted eigenvalues that are too far apart for one shift to see them."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


@pytest.mark.parametrize("far", [(-1e10,), (-2e12, -1e12), (-1e14, -1e5, -1e5), (-1e9, -1.0)])
def test_some_are_far_below_all_others(far, comm):
    exact = np.sort([*far, *np.arange(1.0, 200.0)])
    with sh.eigs(sp.diags(np.random.default_rng(1).permutation(exact)).tocsr(), 10, comm=comm) as found:
        assert found.eigenvalues == pytest.approx(exact[:10], rel=1e-8) and found.count.certified


@pytest.mark.parametrize("which", ["smallest", "negative"])
def test_some_are_far_below_all_others_of_a_pencil(which, comm):
    n, rng = 60, np.random.default_rng(3)
    exact = np.sort([-3e11, -1e11, *np.linspace(-3, 5, n - 2)])
    d = 10.0 ** rng.uniform(-2, 2, n)
    with sh.eigs(sp.diags(exact * d).tocsr(), 8, mass=sp.diags(d).tocsr(), which=which, comm=comm) as found:
        assert found.eigenvalues == pytest.approx(exact[:8], rel=1e-8) and found.count.certified
