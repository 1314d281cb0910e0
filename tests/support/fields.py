"""A field on a grid, whose Hessian is known."""

from petsc4py import PETSc

import numpy as np
import pytest

import sparsehess as sh
from support.cases import grid, laplacian

SIDE = 8
LAPLACIAN = laplacian(SIDE, SIDE, SIDE)[0]
N = SIDE**3
POINT = np.random.default_rng(0).normal(size=N)


def field(comm, **changes):
    """Return the objective of E = u·Lu/2 - Σ cos(3u)/3: gradient Lu + sin 3u, Hessian L + 3 cos 3u."""
    given = {
        "x": POINT,
        "gradient": lambda u: LAPLACIAN @ u + np.sin(3 * u),
        "pattern": sh.Pattern.from_scipy(grid(SIDE, SIDE, SIDE), comm=comm),
        "comm": comm,
    }
    return sh.Objective(**{**given, **changes})


def distributed_field(comm, gradient=None):
    """Return the same field on PETSc vectors, with an uneven layout of its own."""
    counts = np.diff(np.linspace(0, N, comm.size + 1).astype(int) ** 2 // N)
    layout = sh.Layout.from_local(int(counts[comm.rank]), comm)
    x = PETSc.Vec().createMPI((layout.n_local, N), comm=comm)
    x.setArray(POINT[layout.start : layout.stop])
    rows = LAPLACIAN[layout.start : layout.stop]
    matrix = PETSc.Mat().createAIJ(
        ((layout.n_local, N),) * 2,
        csr=(rows.indptr.astype(PETSc.IntType), rows.indices.astype(PETSc.IntType), rows.data),
        comm=comm,
    )

    def collective(u, g):
        matrix.mult(u, g)
        g.setArray(g.getArray() + np.sin(3 * u.getArray(readonly=True)))

    structure = grid(SIDE, SIDE, SIDE)[layout.start : layout.stop]
    pattern = sh.Pattern.from_csr(structure.indptr, structure.indices, comm=comm)
    return sh.Objective(x=x, gradient=gradient or collective, pattern=pattern), (x, matrix)


def fails(kind, says, objective, **keywords):
    with pytest.raises(kind, match=says):
        sh.assemble(objective, **keywords).close()
