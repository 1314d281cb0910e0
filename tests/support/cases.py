"""One table of matrices and spectra for all tests, and slow oracles that obviously tell the truth."""

import doctest
import fcntl
import functools
import itertools
import json
import os
from pathlib import Path

from mpi4py import MPI

import networkx
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from support import DATA

NAMES = [
    "hb_bcsst01",
    "hb_lund",
    "hb_bcsstk16",
    "ccx_beam8f",
    "ccx_acou3",
    "nafems_fv52_p2",
    "anm_3mht",
    "evsl_ab_fem3d",
]
LARGE = ("hb_bcsstk16", "evsl_ab_fem3d")  # dense LAPACK takes them half a minute and more


def real(*names):
    """Return real matrices as parameters of a test; the large ones are thorough."""
    return [pytest.param(name, marks=[pytest.mark.thorough] * (name in LARGE)) for name in names or NAMES]


@functools.cache
def stored(name):
    """Return (K, M or None) of a matrix of the shared data; skip where the folder is absent."""
    if not (DATA / f"{name}_K.npz").exists():
        pytest.skip(f"no {name} beside the project")
    mass = DATA / f"{name}_M.npz"
    return sp.load_npz(DATA / f"{name}_K.npz"), sp.load_npz(mass) if mass.exists() else None


def facts(name):
    """Return what is known of a matrix of the shared data."""
    return json.loads((DATA / f"{name}.json").read_text())


@functools.cache
def reference(name):
    """Return all finite eigenvalues, ascending, by dense LAPACK.

    Collective on all ranks of the run. In a folder $REFERENCES, if there is one, they are kept for the
    runs on other numbers of ranks.
    """
    pencil = stored(name)
    world = MPI.COMM_WORLD
    return world.bcast(_computed_once(name, pencil) if world.rank == 0 else None)


def _computed_once(name, pencil):
    folder = os.environ.get("REFERENCES")
    if folder is None:
        return lapack(*pencil)
    kept = Path(folder) / f"{name}.npy"
    with open(kept.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            np.save(kept, lapack(*pencil))
        return np.load(kept)


def lapack(K, M=None):
    """Return all finite eigenvalues of a symmetric pencil; massless rows are condensed out."""
    K = K.toarray() if sp.issparse(K) else np.asarray(K)
    K = (K + K.T) / 2
    if M is None:
        return scipy.linalg.eigvalsh(K)
    M = M.toarray() if sp.issparse(M) else np.asarray(M)
    full = np.abs(M).sum(axis=1) > 0
    if not full.all():
        inner = K[np.ix_(~full, ~full)]
        K = K[np.ix_(full, full)] - K[np.ix_(full, ~full)] @ scipy.linalg.solve(inner, K[np.ix_(~full, full)])
        M = M[np.ix_(full, full)]
    return scipy.linalg.eigvalsh((K + K.T) / 2, M)


# --- matrices with known spectra -------------------------------------------------------


def second_difference(m):
    return sp.diags([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], [-1, 0, 1], format="csr")


def laplacian(*sides):
    """Return the grid Laplacian with fixed ends and its exact eigenvalues, ascending."""
    total, spectrum = None, np.zeros(1)
    for axis, side in enumerate(sides):
        term = sp.identity(1)
        for other, length in enumerate(sides):
            term = sp.kron(term, second_difference(length) if other == axis else sp.identity(length))
        total = term if total is None else total + term
        own = 4 * np.sin(np.pi * np.arange(1, side + 1) / (2 * (side + 1))) ** 2
        spectrum = np.add.outer(spectrum, own).ravel()
    return sp.csr_matrix(total), np.sort(spectrum)


def free_chain(n):
    """Return the Laplacian of a path graph (one zero mode) and its eigenvalues."""
    matrix = second_difference(n).tolil()
    matrix[0, 0] = matrix[n - 1, n - 1] = 1
    return matrix.tocsr(), 4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2


def prescribed(eigenvalues, seed=0):
    """Return a dense symmetric matrix, as sparse, with these eigenvalues."""
    n = len(eigenvalues)
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = (Q * np.asarray(eigenvalues)) @ Q.T
    return sp.csr_matrix((matrix + matrix.T) / 2)


# --- patterns --------------------------------------------------------------------------


def grid(*sides, full=False):
    """Return the pattern of a 5-, 7- (or, `full`, 9-, 27-) point grid."""
    line = [sp.diags([np.ones(m - abs(k)) for k in (-1, 0, 1)], [-1, 0, 1], format="csr") for m in sides]
    if full:
        return functools.reduce(sp.kron, line).tocsr()
    total = None
    for axis in range(len(sides)):
        term = functools.reduce(
            sp.kron, [line[a] if a == axis else sp.identity(m) for a, m in enumerate(sides)], sp.identity(1)
        )
        total = term if total is None else total + term
    return total.tocsr()


def band(n, w):
    return sp.diags([np.ones(n - abs(k)) for k in range(-w, w + 1)], range(-w, w + 1), format="csr")


def arrow(n, rows=3):
    matrix = sp.lil_matrix(band(n, 2))
    matrix[:rows, :] = 1
    matrix[:, :rows] = 1
    return matrix.tocsr()


def random_pattern(n, pairs, seed):
    rng = np.random.default_rng(seed)
    i, j = rng.integers(0, n, (2, pairs))
    matrix = sp.coo_matrix((np.ones(pairs), (i, j)), (n, n)) + sp.identity(n)
    matrix = sp.csr_matrix(matrix + matrix.T)
    matrix.data[:] = 1
    return matrix


def random_symmetric(pattern, seed=0):
    """Return a matrix with random values on a symmetric pattern."""
    rng = np.random.default_rng(seed)
    upper = sp.triu(pattern, format="csr")
    upper.data = rng.normal(size=upper.nnz)
    return sp.csr_matrix(upper + sp.triu(upper, 1).T)


# --- oracles ---------------------------------------------------------------------------


def is_star_coloring(pattern, colors):
    """Say whether a colouring is proper and no path on four vertices has two colours, by listing them."""
    n = pattern.shape[0]
    neighbors = [set(pattern[v].indices) - {v} for v in range(n)]
    for v in range(n):
        if any(colors[v] == colors[w] for w in neighbors[v]):
            return False
    for b in range(n):
        for a, c in itertools.permutations(neighbors[b], 2):
            if colors[a] == colors[c] and any(colors[d] == colors[b] for d in neighbors[c] - {b, a}):
                return False
    return True


def is_column_partition(pattern, colors):
    """Say whether no row holds two columns of one colour."""
    return all(len(set(colors[row.indices])) == row.nnz for row in pattern)


def is_acyclic(pattern, colors):
    """Say whether no edge has ends of one colour and every two colours span a forest."""
    graph = networkx.from_scipy_sparse_array(pattern)
    graph.remove_edges_from(networkx.selfloop_edges(graph))
    if min(colors, default=0) < 0 or any(colors[v] == colors[w] for v, w in graph.edges):
        return False
    pairs = {tuple(sorted((colors[v], colors[w]))) for v, w in graph.edges}
    return all(networkx.is_forest(graph.subgraph(np.flatnonzero(np.isin(colors, pair)))) for pair in pairs)


def is_triangular(pattern, colors):
    """Say whether rows can be taken off one by one, each with one column of a colour at most when it goes."""
    left = set(range(pattern.shape[0]))
    rows = [set(pattern[v].indices) for v in left]
    while left:
        free = [v for v in left if len({colors[w] for w in rows[v] & left}) == len(rows[v] & left)]
        if not free:
            return False
        left.difference_update(free)
    return min(colors, default=0) >= 0


DEFINITIONS = {
    "star": is_star_coloring,
    "acyclic": is_acyclic,
    "cpr": is_column_partition,
    "distance2": is_column_partition,
    "powell-toint": is_triangular,
}


def run_example(module):
    """Run the example of a module's docstring."""
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0 and results.failed == 0


def local_rows(matrix):
    """Return the local rows of a PETSc matrix as SciPy CSR with global columns."""
    indptr, indices, data = matrix.getValuesCSR()
    return sp.csr_matrix((data, indices, indptr), (len(indptr) - 1, matrix.getSize()[1]))


def frobenius_error(matrix, exact, comm):
    """Return |A - exact| / |exact| over all ranks; exact is whole on every rank."""
    first, last = matrix.getOwnershipRange()
    own = exact.tocsr()[first:last]
    difference = comm.allreduce(float(abs(local_rows(matrix) - own).power(2).sum()))
    return np.sqrt(difference / comm.allreduce(float(own.power(2).sum())))


def agree(spectrum, expected, top, comm, within=1e-9):
    """Assert right eigenvalues, the same on every rank, small residuals and a certified count."""
    assert spectrum.converged == len(expected)
    assert np.abs(spectrum.eigenvalues - expected).max(initial=0.0) <= within * top
    assert (np.diff(spectrum.eigenvalues) >= 0).all()
    assert spectrum.residuals.max(initial=0.0) <= 1e-8
    assert spectrum.orthogonality <= 1e-10
    count = spectrum.count
    assert count.certified and count.inertia == count.found + count.group and not count.margin <= 2
    low, high = count.interval
    inside = (spectrum.eigenvalues > low) & (spectrum.eigenvalues < high)
    assert (inside if low < high else ~inside).all()  # beyond both ends, for the largest in magnitude
    for other in comm.allgather(spectrum.eigenvalues):
        assert np.array_equal(other, spectrum.eigenvalues)
