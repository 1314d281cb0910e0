"""Sums over elements: springs and angles between points of which every rank has some."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh

pytestmark = pytest.mark.parallel([1, 2, 3])

POINTS = 40


def of_points(links):
    """Return the variables (m, 3 k) of elements of k points."""
    return (3 * links[:, :, None] + np.arange(3)).reshape(len(links), 3 * links.shape[1])


def springs(X):
    """(|r|² − 1)² / 4 of each pair."""
    r = X[:, :3] - X[:, 3:]
    force = ((r * r).sum(axis=1) - 1)[:, None] * r
    return np.concatenate([force, -force], axis=1)


def angles(X):
    """(a · b)² / 2 of each triple, a and b its two bonds."""
    a, b = X[:, 3:6] - X[:, :3], X[:, 6:] - X[:, 3:6]
    product = (a * b).sum(axis=1)[:, None]
    return np.concatenate([-product * b, product * (b - a), product * a], axis=1)


def chain(comm, share=None, **more):
    """Points on a helix-like chain, the elements dealt out to the ranks."""
    rng = np.random.default_rng(5)
    x = np.cumsum(rng.uniform(0.3, 0.9, (POINTS, 3)), axis=0).ravel()
    mine = slice(comm.rank, None, comm.size) if share is None else share
    pairs = np.array([(i, i + 1) for i in range(POINTS - 1)] + [(i, i + 4) for i in range(POINTS - 4)])
    triples = np.array([(i, i + 1, i + 2) for i in range(POINTS - 2)])
    kinds = [
        sh.Elements(of_points(pairs[mine]), more.pop("springs", springs)),
        sh.Elements(of_points(triples[mine]), more.pop("angles", angles)),
    ]
    return sh.Objective.from_elements(x, kinds, comm=comm, **more)


def exact(objective, comm):
    x, h = objective.x, 1e-30
    columns = [objective.gradient(x + 1j * h * e).imag / h for e in np.eye(len(x))]
    return comm.allreduce(np.array(columns))


def difference(hessian, reference):
    csr = sp.csr_matrix(hessian.mat.getValuesCSR()[::-1], (hessian.pattern.layout.n_local, hessian.pattern.n))
    rows = reference[hessian.pattern.layout.start : hessian.pattern.layout.stop]
    squares = np.square(np.asarray(csr - rows)).sum()
    return np.sqrt(hessian.mat.comm.tompi4py().allreduce(squares)) / np.linalg.norm(reference)


SCHEMES = {"forward": (9 + 1, 1e-6), "central": (18, 1e-9), "extrapolated": (36, 1e-10), "complex": (9, 1e-15)}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_hessian_is_the_sum_of_those_of_the_elements(scheme, comm):
    objective = chain(comm)
    sweeps, most = SCHEMES[scheme]
    with sh.assemble(objective, derivative=scheme) as hessian:
        reference = exact(objective, comm)
        error = difference(hessian, reference)
        assert error < most
        assert hessian.coloring is None and hessian.evaluations["gradient"] == sweeps
        assert hessian.evaluations["noise"] == (0 if scheme == "complex" else 7)
        assert hessian.evaluations["verification"] == (4 if scheme == "extrapolated" else 2)
        assert error / 10 < hessian.error < 10 * max(error, 1e-14) or scheme == "complex"
        hessian.update(objective.x * 1.01)
        assert difference(hessian, reference) > 1e-4
        hessian.update()
        assert difference(hessian, reference) < most


def test_with_and_without_coloring_it_is_the_same(comm):
    objective = chain(comm)
    with sh.assemble(objective) as one, sh.assemble(objective, coloring="acyclic") as other:
        assert other.coloring.kind == "acyclic"
        reference = exact(objective, comm)
        assert difference(one, reference) < 1e-9 and difference(other, reference) < 1e-7
        assert one.pattern.nnz == other.pattern.nnz


def test_ranks_may_have_no_elements(comm):
    share = slice(None) if comm.rank == comm.size - 1 else slice(0, 0)
    objective = chain(comm, share)
    with sh.assemble(objective) as hessian:
        assert difference(hessian, exact(objective, comm)) < 1e-9


def test_noise_is_measured_and_the_error_known(comm):
    rng = np.random.default_rng(comm.rank)
    objective = chain(comm, springs=lambda X: springs(X) + 1e-8 * rng.normal(size=X.shape))
    quiet = chain(comm)
    with sh.assemble(objective) as hessian:
        error = difference(hessian, exact(quiet, comm))
        assert 1e-7 < error < 1e-4 and error / 10 < hessian.error < 10 * error


def test_errors_name_what_is_wrong(comm):
    def fails(X):
        if comm.rank == comm.size - 1:
            raise ValueError("no such bond")
        return springs(X)

    with pytest.raises(sh.EvaluationError, match=f"on rank {comm.size - 1}: no such bond"):
        sh.assemble(chain(comm, springs=fails))
    with pytest.raises(sh.EvaluationError, match=r"must return \(\d+, \d+\) .* not float64 of shape \(\d+,\)"):
        sh.assemble(chain(comm, springs=lambda X: X[:, 0]))
    with pytest.raises(sh.InputError, match="members"):
        sh.Elements(np.ones((3, 2)), springs)
    with pytest.raises(sh.InputError, match="from 0 to 2"):
        sh.Objective.from_elements(np.zeros(3), sh.Elements(np.array([[0, 3]]), springs), comm=comm)
    diagonal = sh.Pattern.from_pairs([], [], 3 * POINTS, comm=comm)
    with pytest.raises(sh.InputError, match="the pattern lacks entry"):
        sh.assemble(chain(comm, pattern=diagonal))

    def undefined(X):
        return np.where(np.arange(len(X))[:, None] == 3, np.nan * springs(X), springs(X))

    with pytest.raises(sh.CheckError, match=r"not finite: .* at variable \d+, in an element of 6"):
        sh.assemble(chain(comm, springs=undefined), derivative="complex")
    with pytest.raises(sh.InputError, match="leave out"):
        chain(comm, hvp=lambda x, v: v)
