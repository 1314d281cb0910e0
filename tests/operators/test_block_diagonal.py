"""Blocks and direct sums against dense matrices, on any number of ranks."""

from itertools import chain

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.operators.block_diagonal import BlockDiagonal
from sparsehess.operators.combinations import weighted_sum
from sparsehess.operators.connected_components import balance_loads
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.kronecker import Kronecker
from support.dense_answers import BLOCKS, agrees, dense, low_rank, own, positive

pytestmark = pytest.mark.parallel([1, 2, 3])


def sizes_of(operator):
    """Return the sizes of all blocks, ascending."""
    return sorted(chain.from_iterable(operator.comm.allgather([len(block) for block in operator.blocks])))


def test_blocks(comm):
    mixed = [sp.csr_matrix(block) if number % 2 else block for number, block in enumerate(BLOCKS)]
    with BlockDiagonal(mixed, comm=comm) as operator:
        agrees(operator, scipy.linalg.block_diag(*BLOCKS))
        union = np.sort(np.concatenate([np.linalg.eigvalsh(block) for block in BLOCKS]))
        assert np.abs(operator.eigenvalues().whole() - union).max() < 1e-13 * 12
        assert sum(comm.allgather(len(operator.blocks))) == len(BLOCKS)


def test_blocks_that_are_components(comm):
    H = scipy.linalg.block_diag(*BLOCKS)
    order = np.random.default_rng(7).permutation(len(H))
    H = H[np.ix_(order, order)]
    layout = sh.Layout.from_size(len(H), comm)
    rows, cols = np.nonzero(own(layout, H))
    every = (
        np.concatenate([rows, np.arange(layout.n_local)]),
        np.concatenate([cols, np.zeros(layout.n_local, int)]),
    )
    data = np.concatenate([own(layout, H)[rows, cols], np.zeros(layout.n_local)])
    local = sp.csr_matrix((data, every), (layout.n_local, len(H)))  # stored zeros connect nothing
    csr = (local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data)
    mat = PETSc.Mat().createAIJ(((layout.n_local, len(H)),) * 2, csr=csr, comm=comm)
    with BlockDiagonal.from_components(mat) as operator:
        sizes = sizes_of(operator)
        assert sizes == sorted(map(len, BLOCKS))
        agrees(operator, H)
        with operator.function(np.square) as squared:
            assert np.abs(dense(squared) - H @ H).max() < 1e-12 * np.linalg.norm(H @ H)
    mat.destroy()


def test_a_chain_through_all_ranks_and_many_singles(comm):
    n = 300
    links = np.ones(n - 1)
    links[:100], links[200] = 0, 0
    H = sp.diags([links, np.arange(n) % 5, links], [-1, 0, 1]).tocsr()
    order = np.random.default_rng(8).permutation(n)
    H = H[order][:, order]
    with weighted_sum([(1.0, H)], comm=comm) as stored, BlockDiagonal.from_components(stored) as operator:
        sizes = sizes_of(operator)
        assert sizes == [1] * 100 + [99, 101]
        assert np.abs(operator.eigenvalues().whole() - np.linalg.eigvalsh(H.toarray())).max() < 1e-13
    with weighted_sum([(1.0, sp.identity(n))], comm=comm) as stored, BlockDiagonal.from_components(stored) as many:
        counts = comm.allgather(len(many.blocks))
        assert max(counts) - min(counts) <= 1  # dealt evenly though no rank has the list


def test_blocks_are_dealt_by_their_cost():
    target, load = balance_loads(np.array([8.0, 1.0, 7.0, 1.0, 1.0, 6.0]), 3)
    assert load.tolist() == [8.0, 8.0, 8.0] and len(set(target[[0, 2, 5]])) == 3


def test_a_value_refused_on_one_rank_is_refused_on_all(comm):
    blocks = [np.eye(2), np.eye(3), np.eye(2), -np.eye(1)]
    with BlockDiagonal(blocks, comm=comm) as operator:
        with pytest.raises(InputError, match="positive definite"):
            sh.trace(operator, "logdet")
        assert sh.trace(operator, "identity").trace == pytest.approx(6.0)


def test_direct_sums(comm):
    low, H = low_rank(20, comm)
    K = Kronecker((positive(3, 1), positive(4, 2)), comm=comm)
    with DirectSum([low, K]) as network:
        # Rows are in the order of the ranks, and within one in that of the parts.
        rows = [np.arange(low.layout.start, low.layout.stop), 20 + np.arange(K.layout.start, K.layout.stop)]
        order = np.concatenate(comm.allgather(np.concatenate(rows)))
        agrees(network, scipy.linalg.block_diag(H, dense(K))[np.ix_(order, order)])
        with pytest.raises(InputError, match="not all eigenvalues are known of LowRankDiagonal"):
            network.eigenvalues()
    for operator in (low, K):
        operator.close()
