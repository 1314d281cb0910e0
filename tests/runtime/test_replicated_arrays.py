"""Arrays that every rank brings whole: the same everywhere, to rounding, or refused on all ranks."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.runtime.replicated_arrays import have_same, of_all_ranks

pytestmark = pytest.mark.parallel([1, 2, 3])


def taken(comm, array):
    return of_all_ranks(comm, array, "the numbers", "give the same", "entry {}".format)


def test_same_numbers_pass_as_they_are(comm):
    for array in (np.arange(5.0), np.zeros(0), np.array([np.nan, np.inf]), np.arange(7, dtype=np.int32)[::2]):
        assert have_same(comm, array)
        assert taken(comm, array) is array


def test_rounding_gives_those_of_rank_0(comm):
    array = np.array([1.0, -3.0, np.inf, np.nan, 0.0])
    np.testing.assert_array_equal(taken(comm, array * (1 + 1e-13 * comm.rank)), array)


@pytest.mark.parametrize("other", [np.array([1.0, 2.1]), np.array([1.0, np.nan]), np.array([1.0, -np.inf])])
def test_other_numbers_are_named_on_all_ranks(other, comm):
    if comm.size == 1:
        return
    mine = other if comm.rank == comm.size - 1 else np.array([1.0, 2.0])
    with pytest.raises(InputError, match=f"entry 1 is 2 on rank 0, .* on rank {comm.size - 1}: give the same"):
        taken(comm, mine)
    with pytest.raises(InputError, match="differ between ranks"):
        taken(comm, other if comm.rank == 0 else np.array([1.0, 2.0]))


def test_other_sizes_are_refused_on_all_ranks(comm):
    if comm.size > 1:
        with pytest.raises(InputError, match="3 numbers on rank 0, 4 on rank 1"):
            taken(comm, np.ones(4 if comm.rank == 1 else 3))


@pytest.mark.parametrize("more", [0, 1])
def test_points_and_matrices_of_each_rank_are_refused(more, comm):
    """Each of these is what a random number without a seed makes; some hang if they are not seen."""
    if comm.size == 1:
        return
    x = np.ones(20 + more * comm.rank) + 0.1 * comm.rank
    with pytest.raises(InputError, match="values of x of objective differ"):
        sh.Objective(x=x, gradient=lambda x: x**3, comm=comm)
    objective = sh.Objective(x=np.ones(20), hvp=lambda x, v: 3 * x**2 * v, comm=comm)
    with sh.MatrixFree(objective) as shell, pytest.raises(InputError, match="values of x of objective differ"):
        shell.update(x)
    for matrix in (sp.diags(x), np.diag(x)):
        with pytest.raises(InputError, match="entries of the Hessian differ"):
            sh.eigs(matrix, 2, comm=comm)
        if not more:
            with pytest.raises(InputError, match="entries of the mass matrix differ"):
                sh.eigs(sp.identity(20), 2, mass=matrix, comm=comm)
