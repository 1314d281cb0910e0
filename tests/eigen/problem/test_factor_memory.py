"""The memory of a factor, estimated and taken."""

import pytest

from sparsehess.eigen.problem.factor_memory import factor_memory
from sparsehess.errors import StackError
from support.cases import laplacian
from support.elastic_block import brick
from support.preconditioned import given

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_memory_of_a_factor(comm):
    K, M, _ = brick((9, 9, 9))
    with given(K, M, comm=comm) as problem:
        most, total = factor_memory(problem)
        assert most <= total <= comm.size * most
        assert 8e6 < total < 2e8  # the factor alone has some 10^6 entries
    with given(laplacian(6, 7)[0], comm=comm, shell=True) as problem, pytest.raises(StackError, match="python"):
        factor_memory(problem)
