"""Colourings that are taken by themselves: trees where they save exact products, stars elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.hessian.recovery import plan

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


def random_matrix(n, seed, decades):
    """Return a symmetric matrix of five entries a row or so, of sizes over so many powers of ten."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** (decades * rng.random((2, 4 * n)))
    half = sp.coo_array((rng.normal(size=4 * n) * sizes[0], rng.integers(0, n, (2, 4 * n))), (n, n)).tocsr()
    return sp.csr_array(half + half.T + sp.diags(rng.normal(size=n) * sizes[1, :n]))


def edges_of(A):
    rows, columns = sp.triu(A, 1).nonzero()
    return np.stack([rows, columns], axis=1)


@pytest.mark.parametrize("decades", [0, 8, 12])
def test_bars_hold_where_a_large_entry_spoils_what_is_read_after_it(decades, comm):
    for seed in range(4):
        A = random_matrix(60, seed, decades)
        D = A.toarray()
        with sh.assemble(objective_of(A, edges_of(A), comm)) as H:
            assert H.coloring.kind == "acyclic"
            found = np.concatenate(comm.allgather(H.to_scipy().toarray()))
            layout, known = H.pattern.layout, H.entry_errors
            for x in np.linalg.eigh(D)[1].T:
                here = np.abs(x[layout.start : layout.stop])
                assert abs(x @ (found - D) @ x) <= known.of_quotient(here)
                product = np.abs((found - D) @ x)[layout.start : layout.stop]
                assert (product <= 4 * known.of_product(here)).all()


@pytest.mark.parametrize("options", [{}, {"derivative": "central", "coloring": "acyclic"}])
def test_what_a_pattern_misses_is_found_though_trees_take_it_elsewhere(options, comm):
    for seed in range(6):
        A = random_matrix(100, seed, 0)
        edges = edges_of(A)
        missing = np.random.default_rng(seed).choice(len(edges), 3, replace=False)
        with sh.assemble(objective_of(A, np.delete(edges, missing, axis=0), comm), **options) as H:
            assert H.repaired >= 6 and H.verification.passed
            assert np.abs(H.to_scipy().toarray() - rows_of(A, H)).max() <= 1e-8 * np.abs(A.data).max()


def test_products_of_no_symmetric_matrix_are_an_error_whatever_is_tried(comm):
    edges = grid(6)
    A = matrix_on(edges, 216).tolil()
    A[0, 1] *= 2
    with pytest.raises(sh.CheckError, match="none of a symmetric matrix"):
        sh.assemble(objective_of(A.tocsr(), edges, comm))


@pytest.mark.parametrize("kind", ["acyclic", "powell-toint"])
def test_deviations_of_entries_are_those_of_their_whole_chain(kind, comm):
    """Against the sum over all compressed entries of what each does to each entry, recovered one after another."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        n = 14
        rows, columns = rng.integers(0, n, (2, 2 * n))
        apart = rows != columns
        pattern = sh.Pattern.from_pairs(rows[apart], columns[apart], n, comm=comm)
        made = plan(pattern, sh.color(pattern, kind=kind))
        start, stop = pattern.layout.start, pattern.layout.stop
        taken, level = (10.0 ** rng.uniform(-decades, decades, n)[start:stop] for decades in (3, 6))
        variances, found = np.zeros(pattern.nnz_local), np.empty(pattern.nnz_local)
        for color in range(made.coloring.count):
            for row in range(n):
                changes = np.zeros((made.coloring.count, stop - start))
                if start <= row < stop:
                    changes[color, row - start] = level[row - start]
                made.recover(changes, taken, found)
                variances += found**2
        told = made.deviations(level, taken, np.zeros(pattern.nnz_local), 0.0)
        assert told == pytest.approx(np.sqrt(variances), rel=1e-12)
