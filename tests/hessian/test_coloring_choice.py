"""Colourings that are taken by themselves: trees where they save exact products, stars elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh

pytestmark = pytest.mark.parallel([1, 2, 3])


def grid(side):
    number = np.arange(side**3).reshape(side, side, side)
    pairs = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1]), (number[:, :, 1:], number[:, :, :-1])]
    return np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])


def matrix_on(edges, n):
    rng = np.random.default_rng(0)
    half = sp.coo_array((rng.normal(size=len(edges)), edges.T), (n, n)).tocsr()
    return half + half.T + sp.diags(rng.normal(size=n)).tocsr()


def objective_of(A, edges, comm, **more):
    n = A.shape[0]
    pattern = sh.Pattern.from_edges(edges if comm.rank == 0 else np.zeros((0, 2), int), n, comm=comm)
    return sh.Objective(
        x=np.ones(n), gradient=lambda x: A @ x, hvp=lambda x, v: A @ v, pattern=pattern, comm=comm, **more
    )


def rows_of(A, H):
    return A[H.pattern.layout.start : H.pattern.layout.stop].toarray()


def test_trees_where_they_save_products(comm):
    edges = grid(6)
    A = matrix_on(edges, 216)
    objective = objective_of(A, edges, comm)
    with sh.assemble(objective) as H, sh.assemble(objective, coloring="star") as direct:
        assert H.coloring.kind == "acyclic" and H.coloring.count <= direct.coloring.count - 3
        assert H.evaluations["hvp"] == H.coloring.count
        assert H.verification.passed and H.error < 1e-14  # as a product shows
        assert np.abs(H.to_scipy().toarray() - rows_of(A, H)).max() <= 1e-13 * np.abs(A.data).max()
    with sh.assemble(objective, verify=False) as H:
        assert H.coloring.kind == "acyclic" and H.error == np.finfo(float).eps * H.amplification


def test_stars_where_products_are_differences_or_compiled_or_few_at_a_time(comm):
    edges = grid(6)
    objective = objective_of(matrix_on(edges, 216), edges, comm)
    for chosen in (
        sh.assemble(objective, derivative="central"),
        sh.assemble(replace(objective, compiled=True)),
        sh.assemble(objective, columns=2),
    ):
        with chosen as H:
            assert H.coloring.kind == "star"


def test_stars_where_trees_save_little(comm):
    edges = np.stack([np.arange(99), np.arange(1, 100)], axis=1)
    with sh.assemble(objective_of(matrix_on(edges, 100), edges, comm)) as H:
        assert H.coloring.kind == "star" and H.coloring.count == 3


def test_stars_where_trees_are_deep(comm):
    wide = [[i, i + d] for d in range(1, 9) for i in range(3000 - d)]
    edges = np.array(wide)
    with sh.assemble(objective_of(matrix_on(edges, 3000), edges, comm)) as H:
        assert H.coloring.kind == "star" or H.amplification <= 1000
