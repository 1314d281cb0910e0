"""Diagonals and traces of blocks against dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.estimates import block_traces, diagonal
from support.cases import (
    free_chain,
    grid,
    laplacian,
    random_symmetric,
)
from support.spectra import shell

pytestmark = pytest.mark.parallel([1, 2])


def test_diagonals(comm):
    K = random_symmetric(grid(14, 15), 3)
    mat, _ = shell(K, comm)
    layout = sh.Layout.from_size(210, comm)
    own = K.diagonal()[layout.start : layout.stop]
    pattern = sh.Pattern.from_scipy(K, comm=comm)
    for found in (
        diagonal(K, comm=comm),
        diagonal(mat, pattern=pattern),
        diagonal(mat, coloring=sh.color(pattern)),
    ):
        assert found.exact and np.abs(found.values - own).max(initial=0) < 1e-13
    guessed = diagonal(mat, samples=100)
    assert not guessed.exact and guessed.samples == 100
    misses = comm.allreduce(int((np.abs(guessed.values - own) > 2 * guessed.stderr).sum()))
    assert misses < 0.12 * 210
    # The inverse of a matrix that is far from singular falls off: probing with the pattern of a power does.
    A = (laplacian(14, 15)[0] + 6 * sp.identity(210)).tocsr()
    wide = sh.Pattern.from_scipy(A @ A @ A @ A, comm=comm)
    found = diagonal(A, "inverse", pattern=wide, comm=comm)
    exact = np.linalg.inv(A.toarray()).diagonal()[layout.start : layout.stop]
    assert np.abs(found.values - exact).max(initial=0) < 1e-3
    sampled = diagonal(A, "inverse", samples=50, comm=comm)
    assert np.abs(sampled.values - exact).max(initial=0) < 6 * sampled.stderr.max(initial=1e-3)
    mat.destroy()


def test_traces_of_blocks(comm):
    K = random_symmetric(grid(14, 15), 3)
    labels = np.arange(210) // 50
    exact = np.bincount(labels, K.diagonal())
    assert np.abs(block_traces(K, labels, comm=comm).traces - exact).max() < 1e-12
    mat, _ = shell(K, comm)
    found = block_traces(mat, labels, samples=50)
    assert (np.abs(found.traces - exact) <= found.bars(0.999)).all() and len(found.traces) == 5
    layout = sh.Layout.from_size(210, comm)
    here = block_traces(mat, labels[layout.start : layout.stop], samples=50)
    assert np.array_equal(here.traces, found.traces)
    free, _ = free_chain(90)
    part = np.arange(90) % 3
    inverse = np.linalg.pinv(free.toarray(), rcond=1e-10)
    found = block_traces(free, part, "inverse", nullspace=np.ones((1, 90)), comm=comm)
    assert found.exact and found.traces == pytest.approx(np.bincount(part, inverse.diagonal()), rel=1e-10)
    few = block_traces(free, part, "inverse", samples=5, nullspace=np.ones((1, 90)), comm=comm)
    assert not few.exact and (np.abs(few.traces - np.bincount(part, inverse.diagonal())) <= few.bars(0.9999)).all()
    heat = block_traces(free, part, "heat", time=2.0, nullspace=np.ones((1, 90)), comm=comm)
    values, U = np.linalg.eigh(free.toarray())
    exact = np.bincount(part, (U**2 @ np.exp(-2 * values)))
    assert heat.exact and heat.traces == pytest.approx(exact, rel=1e-10)
    mat.destroy()
