"""Operators as dense matrices, and what LAPACK answers there."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.operators.combinations import weighted_sum
from sparsehess.operators.low_rank import LowRankDiagonal


def symmetric(n, seed=0):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return A + A.T


def positive(n, seed=0, least=0.1):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return A @ A.T / n + least * np.eye(n)


def own(layout, array):
    """Return this rank's rows."""
    return array[layout.start : layout.stop]


def whole(layout, array):
    """Return all ranks' rows."""
    return np.concatenate(layout.comm.allgather(array))


def dense(operator):
    """Return the matrix that products with `mat` are those of."""
    x, y = operator.mat.createVecRight(), operator.mat.createVecLeft()
    columns = []
    for j in range(operator.n):
        x.setArray(np.arange(operator.layout.start, operator.layout.stop) == j)
        operator.mat.mult(x, y)
        columns.append(y.getArray().copy())
    x.destroy()
    y.destroy()
    return whole(operator.layout, np.stack(columns, axis=1))


def ends(values, k, which):
    key = {"smallest": values, "largest": -values, "magnitude": -np.abs(values), "negative": values}[which]
    chosen = np.sort(values[np.argsort(key, kind="stable")[:k]])
    return chosen[chosen < 0] if which == "negative" else chosen


def agrees(operator, H, shift=0.37, solves=1e-12, exact=True):
    """Compare all that an operator answers with what LAPACK says of the dense matrix."""
    layout, n = operator.layout, len(H)
    size, values = np.linalg.norm(H, 2), np.linalg.eigvalsh(H)
    shifted = H + shift * np.eye(n)
    assert operator.n == n and np.abs(dense(operator) - H).max() <= 1e-13 * size
    assert np.abs(whole(layout, operator.diagonal()) - np.diag(H)).max() <= 1e-13 * size
    assert abs(operator.trace() - np.trace(H)) <= 1e-13 * size * n
    diagonal = operator.mat.getDiagonal()
    assert np.abs(whole(layout, diagonal.getArray()) - np.diag(H)).max() <= 1e-13 * size
    x, y = operator.mat.createVecRight(), operator.mat.createVecLeft()
    x.setArray(own(layout, np.arange(n) % 7 - 3.0))
    operator.mat.multTranspose(x, y)
    assert np.abs(whole(layout, y.getArray()) - H @ (np.arange(n) % 7 - 3.0)).max() <= 1e-12 * size * n
    for which in ("smallest", "largest", "magnitude", "negative") if exact else ("smallest", "magnitude"):
        expected = ends(values, 4, which)
        if operator.knows_counts:
            found = operator.spectrum(4, which)
        else:
            with sh.eigs(operator, 4, which=which) as spectrum:
                found = spectrum.eigenvalues
        assert np.abs(found[: len(expected)] - expected).max(initial=0.0) <= (1e-13 * n if exact else 1e-9) * size
    b = np.random.default_rng(1).normal(size=(n, 2))
    found = whole(layout, operator.solve(own(layout, b), shift))
    assert np.linalg.norm(shifted @ found - b) <= solves * (size + shift) * np.linalg.norm(found)
    x.setArray(own(layout, b[:, 0]))
    answer = operator.solve(x, shift)
    assert np.abs(whole(layout, answer.getArray()) - found[:, 0]).max() <= 1e-12 * np.abs(found).max()
    if exact:
        assert abs(operator.logdet(shift) - np.linalg.slogdet(shifted)[1]) <= 1e-11 * n
        signs = sh.inertia(operator)
        at = signs.threshold
        assert signs.certified and (signs.negative, signs.positive) == ((values < -at).sum(), (values > at).sum())
    for which in ("smallest", "largest"):
        with sh.eigs(operator, 3, which=which) as spectrum:
            assert np.abs(spectrum.eigenvalues - ends(values, 3, which)).max() <= 1e-9 * size
            assert spectrum.count is not None and spectrum.count.certified  # so few rows are made whole
    if operator.knows_eigenvalues:
        assert sh.trace(operator, np.square).trace == pytest.approx(np.sum(values**2))
        assert operator.inertia() == signs
        gap = np.argmax(np.diff(values))
        assert operator.count(0.5 * (values[gap] + values[gap + 1])) == gap + 1
    for vector in (x, y, answer, diagonal):
        vector.destroy()


BLOCKS = [symmetric(m, m) for m in (3, 1, 12, 5, 7, 1, 2)]


def aij(H, comm):
    return weighted_sum([(1.0, sp.csr_matrix(H))], comm=comm)


def low_rank(n, comm, seed=3):
    layout, rng = sh.Layout.from_size(n, comm), np.random.default_rng(seed)
    d, U = rng.uniform(1, 2, n), rng.normal(size=(n, 2))
    return LowRankDiagonal(own(layout, d), own(layout, U), comm=comm), np.diag(d) + U @ U.T


def power(H, exponent):
    values, Q = np.linalg.eigh(H)
    return (Q * values**exponent) @ Q.T
