"""Searches that are stopped, saved and continued give the same."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.search_checkpoint import SearchCheckpoint
from sparsehess.errors import InputError, Stopped
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.storage.checkpoint import Checkpoint
from support.cases import laplacian
from support.interrupted import Interrupted

pytestmark = pytest.mark.parallel([1, 2])


def searched(checkpoint, matrix, comm, **more):
    with EigenProblem.of(matrix, comm=comm, **more) as problem:
        search = SearchCheckpoint(checkpoint, problem, SolveSpec(k=2), "krylovschur")
        found = search.load()[0]
        rows = np.empty((problem.layout.n_local, 0))
        search.checkpoint.save("search", search.fingerprint, {"shift": 1.0}, {"vectors": rows})
        return found


def test_a_search_knows_sign_and_null_space_of_its_matrix(comm, folder):
    ring = sp.diags([2.0, -1.0, -1.0], [0, 1, -1], shape=(12, 12)).tolil()
    ring[0, 11] = ring[11, 0] = -1
    pair = sp.block_diag([ring, ring]).tocsr()
    half = np.repeat([[1.0, 0.0], [0.0, 1.0]], 12, axis=1) / np.sqrt(12)
    checkpoint = Checkpoint(folder, comm, resume=True)
    assert searched(checkpoint, pair, comm, nullspace=half[:1]) == {}
    assert searched(checkpoint, pair, comm, nullspace=half[:1]) == {"shift": 1.0}
    with pytest.raises(InputError, match=r"another problem.*null space"):
        searched(checkpoint, pair, comm, nullspace=half[1:])
    with pytest.raises(InputError, match=r"another problem.*direction"):
        searched(checkpoint, -pair, comm, nullspace=half[:1])


def test_a_search_by_products_knows_its_problem(comm, folder):
    checkpoint = Checkpoint(folder, comm, resume=True)
    found = []
    for stiffness in (1.0, 1.0, 3.0):
        made = sh.Objective(x=np.ones(20), gradient=lambda x, k=stiffness: k * x**3, comm=comm)
        with MatrixFree(made) as shell:
            try:
                found.append(searched(checkpoint, shell, None))
            except InputError as error:
                found.append(str(error))
    assert found[:2] == [{}, {"shift": 1.0}] and "another problem" in found[2]


SOLVES = [
    {"k": 12},
    {"interval": (0.0, 1.4)},
    {"k": 8, "method": "lobpcg"},
    {"k": 8, "method": "oneshift"},
    pytest.param({"k": 8, "method": "gd"}, marks=pytest.mark.thorough),
    pytest.param({"k": 8, "method": "jd"}, marks=pytest.mark.thorough),
    pytest.param({"k": 20, "which": "largest"}, marks=pytest.mark.thorough),
    pytest.param({"k": 9, "target": 3.3}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 1.4), "method": "feast"}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 1.4), "method": "ciss"}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 0.7), "method": "filter"}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 1.4), "method": "dense"}, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("what", SOLVES)
def test_a_repeatedly_stopped_solve_gives_the_same(comm, folder, what):
    matrix, exact = laplacian(19, 23)
    with sh.eigs(matrix, comm=comm, **what) as spectrum:
        wanted = spectrum.eigenvalues.copy()
    stops, spectrum = 0, None
    for attempt in range(200):
        checkpoint = Interrupted(folder, comm, interval=0, resume=True, after=2 + attempt // 4)
        try:
            spectrum = sh.eigs(matrix, comm=comm, checkpoint=checkpoint, **what)
            break
        except Stopped:
            stops += 1
    with spectrum:
        assert np.allclose(spectrum.eigenvalues, wanted, rtol=1e-10, atol=1e-13)
        assert np.abs(exact[:, None] - spectrum.eigenvalues).min(axis=0).max() < 1e-10
        assert spectrum.residuals.max() < 1e-8
        assert spectrum.count is None or spectrum.count.certified
    assert stops >= 1 or what.get("method") in ("dense", "ciss")


@pytest.mark.parallel([2])
def test_slices_of_groups_are_saved(comm, folder):
    test_a_repeatedly_stopped_solve_gives_the_same(
        comm, folder, {"interval": (0.0, 3.0), "groups": 2, "method": "slicing"}
    )
