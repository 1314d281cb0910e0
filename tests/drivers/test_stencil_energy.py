"""The driver of the stencil energy: its products and estimates against the exact spectrum of its Hessian."""

import numpy as np
import pytest

import sparsehess as sh
from stencil_energy import field

pytestmark = pytest.mark.parallel([1, 2, 4])

SIDE = 6


def columns(free, comm):
    """Return the whole Hessian, dense on every rank, by its products with the unit vectors."""
    v, y = free.mat.createVecs()
    result = np.empty((free.mat.getSize()[0],) * 2)
    for j in range(len(result)):
        v.set(0)
        if v.getOwnershipRange()[0] <= j < v.getOwnershipRange()[1]:
            v.setValue(j, 1.0)
        v.assemble()
        free.mat.mult(v, y)
        result[:, j] = np.concatenate(comm.allgather(y.getArray(readonly=True)))
    return result


def dense(mat, comm):
    indptr, indices, values = mat.getValuesCSR()
    rows = np.zeros((mat.getLocalSize()[0], mat.getSize()[1]))
    rows[np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indices] = values
    return np.concatenate(comm.allgather(rows))


@pytest.fixture(scope="module")
def exact(comm):
    """The eigenvalues of the assembled Hessian, differences of gradients, and the Hessian itself."""
    with sh.assemble(field(comm, SIDE), derivative="central") as hessian:
        H = dense(hessian.mat, comm)
    return np.linalg.eigvalsh(H), H


def test_products_are_those_of_the_assembled_hessian(exact, comm):
    with sh.MatrixFree(field(comm, SIDE, coupled=False)) as free:
        H = columns(free, comm)
    np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-14 * np.abs(H).max())
    np.testing.assert_allclose(H, exact[1], rtol=0, atol=1e-6 * np.abs(H).max())
    np.testing.assert_allclose(np.linalg.eigvalsh(H), exact[0], rtol=0, atol=1e-6 * exact[0][-1])


def test_density_trace_and_eigenvalues_without_a_matrix(exact, comm):
    values = exact[0]
    with sh.MatrixFree(field(comm, SIDE, coupled=False)) as free:
        found = sh.density(free, samples=8, steps=40)
        total = sh.trace(free, method="hutchinson", samples=40)
        top = sh.eigs(free, 5, which="largest")
    places = np.linspace(values[0], values[-1], 40)
    share = np.searchsorted(values, places) / len(values)
    assert np.abs(found.below(places)[0] - share).max() < 0.05
    assert abs(total.trace - values.sum()) < 5 * total.stderr
    np.testing.assert_allclose(np.sort(top.eigenvalues), values[-5:], rtol=0, atol=1e-6 * values[-1])
    top.close()


def test_the_order_of_the_unknowns_is_that_of_one_rank(comm):
    x = field(comm, SIDE).x
    whole = np.concatenate(comm.allgather(x.getArray(readonly=True)))
    alone = field(comm.Split(comm.rank), SIDE).x
    assert (whole == alone.getArray(readonly=True)).all()


def test_more_ranks_than_planes_are_refused(comm):
    with pytest.raises(ValueError, match="planes"):
        field(comm, 2)
