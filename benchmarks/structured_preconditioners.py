"""Structured operators as preconditioners of the lowest eigenpairs, beside none, all in one run.

network
    The Hessian of the digits' network of `drivers/training_curvature.py` (6,570 parameters) near a minimum, where
    its lowest eigenvalues say whether it is one; K-FAC and EKFAC of its Gauss-Newton matrix as P. Needs PyTorch,
    and scikit-learn for the digits.
elastic
    The elastic network of a protein (`drivers/elastic_network.py`, about 10,000 rows), tethered, plus a far field
    of low rank in which polynomials of the coordinates are stiffer. P: blocks of neighbouring atoms; the far field
    with the diagonal, with these blocks, and with the network of a shorter cut-off or the network itself, which
    are factorized: Woodbury's formula does the rest.

Products with the Hessian are counted where they are made, those of checks, set-up and the search beyond the pairs
among them; seconds are of the wall, those of making P apart. Peers: SciPy's `lobpcg` without a preconditioner and
with the diagonal, to the residual that ours reaches. `error` is that of the eigenvalues found, in parts of the
largest, beside those of the first row.

    python benchmarks/structured_preconditioners.py [network] [elastic] [--steps 3000] [--cutoff 6] [-k 6]
        [--methods gd lobpcg jd] [--quick]
"""

import argparse
import contextlib
import sys
import time
import warnings
from pathlib import Path

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
import scipy.sparse.linalg as sla

sys.path[:0] = [str(Path(__file__).parents[1] / "drivers")]

import sparsehess as sh

METHODS = ("gd", "lobpcg", "jd")
TOL = 1e-8
MOST = 1000  # iterations of SciPy's


class Counted:
    """Products with a matrix, and their number; PETSc and SciPy call it."""

    def __init__(self, mat):
        self._mat, self.number = mat, 0
        self._x, self._y = mat.createVecs()

    def mult(self, mat, x, y):
        self.number += 1
        self._mat.mult(x, y)

    def getDiagonal(self, mat, d):  # the name is PETSc's
        self._mat.getDiagonal(d)

    def product(self, x):
        self._x.setArray(x)
        self.mult(None, self._x, self._y)
        return self._y.getArray().copy()

    def shell(self):
        matrix = PETSc.Mat().createPython(self._mat.getSizes(), self, comm=self._mat.comm)
        matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        matrix.setUp()
        return matrix


class Table:
    """Prints a row for each contender, with its errors beside the first one's eigenvalues."""

    def __init__(self, size):
        self.reference, self.size = None, size

    def row(self, name, count, began, values):
        if self.reference is None:
            self.reference = values
        error = np.abs(np.sort(values)[: len(self.reference)] - self.reference[: len(values)]).max() / self.size
        print(
            f"  {name:44s} {count:7,} products {time.perf_counter() - began:8.2f} s   error {error:.0e}",
            flush=True,
        )


def ours(table, count, k, method, name, preconditioner):
    count.number, began, shell = 0, time.perf_counter(), count.shell()
    label = f"{method}, {name}"
    try:
        with sh.eigs(shell, k, method=method, preconditioner=preconditioner, tol=TOL) as found:
            table.row(label, count.number, began, found.eigenvalues)
            return float(found.residuals.max())
    except sh.NotConverged as error:
        print(f"  {label:44s} {count.number:7,} products: {error}", flush=True)
    finally:
        shell.destroy()
    return TOL


def scipys(table, count, n, k, diagonal, norm):
    """SciPy's lobpcg to a residual of TOL times the norm; what it has not reached is told."""
    H = sla.LinearOperator((n, n), count.product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal((n, k))
    for name, M in (("without", None), ("the diagonal", sla.aslinearoperator(_inverse(diagonal)))):
        count.number, began = 0, time.perf_counter()
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            values, vectors = sla.lobpcg(H, start, M=M, largest=False, tol=TOL * norm, maxiter=MOST)
        spent = count.number
        left = max(np.linalg.norm(count.product(v) - w * v) for w, v in zip(values, vectors.T, strict=True))
        reached = "" if left <= 2 * TOL * norm else f" (not converged: {left / norm:.0e})"
        table.row(f"SciPy lobpcg, {name}{reached}", spent, began, values)


def _inverse(diagonal):
    import scipy.sparse

    sizes = np.abs(diagonal)
    return scipy.sparse.diags(1 / np.maximum(sizes, 1e-3 * sizes.mean()))


def compare(mat, given, near, diagonal):
    """Print the table of a Hessian and the structures near it, by name."""
    count = Counted(mat)
    shell = count.shell()
    with sh.eigs(shell, 1, which="magnitude", tol=1e-4, count="no") as largest:
        norm = float(np.abs(largest.eigenvalues[0]))
    shell.destroy()
    table = Table(norm)
    ours(table, count, given.k, "krylovschur", "without", None)
    for method in given.methods:
        for name, made in {"without": None, **near}.items():
            ours(table, count, given.k, method, name, made)
    scipys(table, count, mat.getSize()[0], given.k, diagonal, norm)


def network(given):
    import torch

    import training_curvature
    from sparsehess.hosts.torch.kfac import ekfac, kfac
    from sparsehess.hosts.torch.model_curvature import hessian

    torch.set_num_threads(1)
    widths, samples = ([64, 16, 10], 200) if given.quick else ([64, 64, 32, 10], 600)
    training = training_curvature.Training(MPI.COMM_SELF, widths, samples, 100, 0.1, 0)
    for _ in range(200 if given.quick else given.steps):
        training.advance()
    model = training.model, training_curvature.LOSS, training.inputs, training.targets
    H = sh.MatrixFree(hessian(*model, comm=MPI.COMM_SELF))
    began = time.perf_counter()
    with kfac(*model, comm=MPI.COMM_SELF) as plain, ekfac(*model, comm=MPI.COMM_SELF) as corrected:
        seconds = time.perf_counter() - began
        print(f"\nnetwork {widths}, {H.mat.getSize()[0]:,} parameters; K-FAC and EKFAC made in {seconds:.1f} s")
        compare(H.mat, given, {"K-FAC": plain, "EKFAC": corrected}, corrected.diagonal())


def far_field(coordinates):
    """Return (n, r) displacements, orthonormal, that are polynomials of the coordinates up to degree two."""
    x, y, z = ((coordinates - coordinates.mean(axis=0)) / coordinates.std()).T
    scalar = np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x, y * y, z * z], axis=1)
    return np.linalg.qr(np.kron(scalar, np.eye(3)))[0]


def elastic(given):
    import elastic_network

    _, coordinates = elastic_network.read_structure(elastic_network.ENOLASE)
    if given.quick:
        coordinates = coordinates[:300]
    U, tether = far_field(coordinates), 1e-3
    C = np.diag(np.geomspace(200.0, 5.0, U.shape[1]))  # beside springs of 1
    with contextlib.ExitStack() as stack:
        K, short = (springs(coordinates, cutoff) for cutoff in (given.cutoff, 0.85 * given.cutoff))
        far = stack.enter_context(sh.LowRankDiagonal(tether, U, C))
        H = stack.enter_context(sh.weighted_sum([(1.0, K), (1.0, far)]))
        began = time.perf_counter()
        diagonal = K.diagonal() + tether
        block = 60
        blocks = [K[i : i + block, i : i + block] for i in range(0, K.shape[0], block)]
        beside = stack.enter_context(sh.BlockDiagonal(blocks))
        near = {
            "blocks of 20 atoms": beside,
            "far field and diagonal": stack.enter_context(sh.LowRankDiagonal(diagonal, U, C)),
        }
        for name, part in {"blocks": beside, "a shorter cut-off": short, "network": K}.items():
            near[f"far field and {name}"] = stack.enter_context(sh.weighted_sum([(1.0, part), (1.0, far)]))
        seconds = time.perf_counter() - began
        print(
            f"\nelastic network of {K.shape[0]:,} rows, {K.nnz / K.shape[0]:.0f} entries in each, and a far field "
            f"of rank {U.shape[1]}; P made in {seconds:.1f} s"
        )
        compare(H.mat, given, near, H.diagonal())


def springs(coordinates, cutoff):
    """Return the Hessian of springs at rest between all atoms closer than a cut-off: Σ t tᵀ, t a stretch."""
    import scipy.sparse
    from scipy.spatial import cKDTree

    pairs = cKDTree(coordinates).query_pairs(cutoff, output_type="ndarray")
    direction = coordinates[pairs[:, 0]] - coordinates[pairs[:, 1]]
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    rows = np.repeat(np.arange(len(pairs)), 6)
    columns = np.concatenate([3 * pairs[:, :1] + np.arange(3), 3 * pairs[:, 1:] + np.arange(3)], axis=1)
    stretch = np.concatenate([direction, -direction], axis=1)
    T = scipy.sparse.csr_matrix((stretch.ravel(), (rows, columns.ravel())), (len(pairs), coordinates.size))
    return (T.T @ T).tocsr()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["network", "elastic", []], default=[])
    parser.add_argument("-k", type=int, default=6, help="eigenpairs")
    parser.add_argument("--steps", type=int, default=3000, help="of the network's training")
    parser.add_argument("--cutoff", type=float, default=6.0, help="of the elastic network, in Å")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--quick", action="store_true", help="small ones, in seconds")
    given = parser.parse_args()
    for part in given.parts or ["elastic", "network"]:
        {"network": network, "elastic": elastic}[part](given)


if __name__ == "__main__":
    main()
