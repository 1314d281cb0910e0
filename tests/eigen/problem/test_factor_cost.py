"""What a factor takes, estimated before it is made."""

import pytest

from sparsehess.errors import StackError
from support.cases import laplacian
from support.elastic_block import brick
from support.preconditioned import given

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_cost_of_a_factor(comm):
    K, M, _ = brick((9, 9, 9))
    with given(K, M, comm=comm) as problem:
        cost = problem.factor_cost
        assert cost.most <= cost.total <= comm.size * cost.most
        assert 8e6 < cost.total < 2e8  # the factor alone has some 10^6 entries
        assert 5e5 < cost.entries < 5e6
        # Each column of m entries takes m² operations or so: least where all have the same number.
        assert cost.entries**2 / problem.n < cost.operations < 1e3 * cost.entries**2 / problem.n
    with given(laplacian(6, 7)[0], comm=comm, shell=True) as problem, pytest.raises(StackError, match="python"):
        assert problem.factor_cost
