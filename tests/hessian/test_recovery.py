import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsehess as sh
from sparsehess.coloring import BEST, KINDS, ORDERS
from sparsehess.errors import CheckError
from sparsehess.hessian.recovery import plan
from support.cases import random_pattern, random_symmetric

every = pytest.mark.parametrize(("kind", "order"), [(kind, order) for kind in KINDS for order in [*ORDERS, BEST]])


@every
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(0, 120), st.integers(0, 10**6))
def test_decompress_of_compress_is_the_matrix(kind, order, n, pairs, seed):
    structure = random_pattern(n, pairs, seed)
    exact = random_symmetric(structure, seed)
    pattern = sh.Pattern.from_scipy(structure)
    coloring = sh.color(pattern, kind=kind, order=order, budget=0.01)
    steps = np.random.default_rng(seed).uniform(0.5, 2.0, n)
    seeds = np.zeros((n, coloring.count))
    seeds[np.arange(n), coloring.colors] = steps
    changes = np.ascontiguousarray((exact @ seeds).T)
    recovery = plan(pattern, coloring)
    for _ in range(2):  # twice: nothing may be used up
        values = np.full(pattern.nnz_local, np.nan)
        seen = recovery.recover(changes.copy(), steps, values)
        recovered = pattern.to_scipy().astype(float)
        recovered.data = values
        assert abs(recovered - exact).max() <= 1e-13 * recovery.amplification * max(1.0, abs(exact).max())
        assert abs(recovered - recovered.T).nnz == 0  # symmetric to the last bit
        assert seen.asymmetry <= 1e-13 * recovery.amplification
        assert seen.largest == pytest.approx(abs(exact).max())


def test_asymmetry_names_the_entry():
    structure = random_pattern(20, 40, 1)
    exact = random_symmetric(structure, 1).tolil()
    pattern = sh.Pattern.from_scipy(structure)
    coloring = sh.color(pattern, kind="cpr")
    i, j = next(pattern.entry(k) for k in range(pattern.nnz_local) if len(set(pattern.entry(k))) == 2)
    exact[i, j] += 0.5
    seeds = np.eye(coloring.count)[coloring.colors]
    values = np.empty(pattern.nnz_local)
    seen = plan(pattern, coloring).recover(np.ascontiguousarray((exact.tocsr() @ seeds).T), np.ones(20), values)
    assert seen.asymmetry == pytest.approx(0.5)
    assert set(seen.where) == {i, j}


def test_a_colouring_that_cannot_recover_is_refused():
    pattern = sh.Pattern.from_pairs([0, 1, 2], [1, 2, 3], 4)  # a path, coloured with two colours
    coloring = dataclasses.replace(sh.color(pattern), colors=np.array([0, 1, 0, 1], np.int32), count=2)
    with pytest.raises(CheckError, match=r"\(1, 2\)"):
        plan(pattern, coloring)
