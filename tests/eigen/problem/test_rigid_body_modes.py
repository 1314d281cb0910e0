"""Rigid-body modes of nodes in one to three dimensions."""

from petsc4py import PETSc

import numpy as np
import pytest

from sparsehess.eigen.problem.rigid_body_modes import block_size, orthonormal, rigid_body_modes, rigid_body_rows
from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import destroy

pytestmark = pytest.mark.parallel([1, 2, 3])


@pytest.mark.thorough
def test_rigid_body_modes():
    x = np.random.default_rng(3).normal(size=(7, 3)) + 5
    modes, names = rigid_body_modes(x)
    assert names == [f"{kind} {axis}" for kind in ("translation", "rotation") for axis in "xyz"]
    assert np.abs(modes @ modes.T - np.eye(6)).max() < 1e-14
    stretch = np.random.default_rng(4).normal(size=(3, 3))
    spun = ((x - x.mean(0)) @ (stretch - stretch.T).T + 2.0).ravel()  # an infinitesimal motion of all kinds
    assert np.linalg.norm(spun - modes.T @ (modes @ spun)) < 1e-12 * np.linalg.norm(spun)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "x, count",
    [
        (np.outer(np.arange(5), [1, 2, 3]), 5),
        (np.zeros((1, 3)), 3),
        (np.random.default_rng(0).normal(size=(6, 2)), 3),
        (np.zeros((1, 2)), 2),
        (np.column_stack([np.random.default_rng(0).normal(size=(6, 2)), np.zeros(6)]), 6),
    ],
)
def test_bodies_with_fewer_modes(x, count):
    modes, names = rigid_body_modes(x)
    assert len(modes) == len(names) == count
    assert np.allclose(modes @ modes.T, np.eye(count), atol=1e-13)


@pytest.mark.parametrize("x", [np.random.default_rng(3).normal(size=(9, 3)), np.outer(np.arange(9), [1, 2, 3])])
def test_rows_of_the_modes_over_ranks(x, comm):
    layout = Layout.from_size(27, comm)  # ranks share nodes
    nodes = x[layout.start // 3 : -(-layout.stop // 3)]
    rows, names = rigid_body_rows(nodes, layout, 3)
    modes, same = rigid_body_modes(x)
    assert names == same and rows.shape == (len(modes), layout.n_local)
    whole = np.concatenate(comm.allgather(rows), axis=1)
    assert np.abs(whole.T @ whole - modes.T @ modes).max() < 1e-12  # axes of a line may turn round


def test_modes_of_the_free_dofs():
    x = np.random.default_rng(1).normal(size=(9, 3))
    all_of_them, _ = rigid_body_modes(x)
    mask = np.zeros(27, bool)
    mask[[0, 1, 2, 7]] = True
    for fixed in (mask, np.flatnonzero(mask)):
        modes, _ = rigid_body_modes(x, fixed=fixed)
        assert modes.shape == (6, 23)
        outside = all_of_them[:, ~mask] - (all_of_them[:, ~mask] @ modes.T) @ modes
        assert np.abs(outside).max() < 1e-13
    with pytest.raises(InputError):
        rigid_body_modes(x, fixed=[27])
    with pytest.raises(InputError):
        rigid_body_modes(x.ravel())


@pytest.mark.thorough
def test_blocks_are_seen_in_the_near_null_space(comm):
    x = np.random.default_rng(1).normal(size=(4 * comm.size, 3))
    for dims in (2, 3):
        template = PETSc.Vec().createMPI((4 * dims, PETSc.DETERMINE), comm=comm)
        first, last = template.getOwnershipRange()
        vectors = []
        for row in rigid_body_modes(x, dims)[0]:
            vectors.append(template.duplicate())
            vectors[-1].setArray(row[first:last])
        basis = orthonormal([*vectors, vectors[0]])
        assert len(basis) == len(vectors)
        assert block_size(basis) == dims and block_size(basis[1:]) == 1
        destroy(*vectors, *basis, template)
