"""PETSc matrices of every type: solved as AIJ or by their products, or refused in one sentence."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, aij

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 60
CHAIN = sp.diags([-np.ones(N - 1), np.full(N, 2.0), -np.ones(N - 1)], [-1, 0, 1]).tocsr()
MASS = sp.diags([0.1 * np.ones(N - 1), np.full(N, 2.0), 0.1 * np.ones(N - 1)], [-1, 0, 1]).tocsr()
LOWEST = np.linalg.eigvalsh(CHAIN.toarray())[:3]


class Products:
    """A shell without a diagonal."""

    def __init__(self, matrix):
        self.matrix = matrix

    def mult(self, mat, x, y):
        self.matrix.mult(x, y)


def shell(matrix):
    made = PETSc.Mat().createPython(matrix.getSizes(), Products(matrix), comm=matrix.comm)
    made.setUp()
    return made


def in_blocks(matrix):
    made = PETSc.Mat().createNest([[matrix]], comm=matrix.comm)
    made.assemble()
    return made


TYPES = ("dense", "sbaij", "baij", "sell", "is")
STORED = {"nest": in_blocks, **{name: lambda A, name=name: A.convert(name, PETSc.Mat()) for name in TYPES}}
SHELLS = {"shell": shell, "transpose": lambda A: PETSc.Mat().createTranspose(A)}


def stored(comm, matrix):
    layout = sh.Layout.from_size(N, comm)
    own = matrix[layout.start : layout.stop].tocsr()
    return aij(layout, own.indptr, own.indices, own.data)


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("method", ["auto", "lobpcg", "jd", "slicing", "feast"])
def test_what_is_stored_otherwise_is_solved(kind, method, comm):
    A = STORED[kind](stored(comm, CHAIN))
    asked = {"interval": (0.0, 0.03)} if method in ("slicing", "feast") else {"k": 3}
    with sh.eigs(A, method=method, **asked) as found:
        assert np.allclose(found.eigenvalues, LOWEST, rtol=1e-7)
        assert found.count is not None and found.count.certified


@pytest.mark.parametrize("kind", STORED)
def test_a_mass_may_be_stored_otherwise(kind, comm):
    from scipy.linalg import eigh

    exact = eigh(CHAIN.toarray(), MASS.toarray(), eigvals_only=True)[:3]
    with sh.eigs(stored(comm, CHAIN), 3, mass=STORED[kind](stored(comm, MASS))) as found:
        assert np.allclose(found.eigenvalues, exact, rtol=1e-7)


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("method", ["auto", "krylovschur", "lobpcg", "gd", "jd", "feast"])
def test_a_shell_is_solved_by_its_products(kind, method, comm):
    asked = {"interval": (0.0, 0.03)} if method == "feast" else {"k": 3}
    with sh.eigs(SHELLS[kind](stored(comm, CHAIN)), method=method, **asked) as found:
        assert np.allclose(found.eigenvalues, LOWEST, rtol=1e-6)


@pytest.mark.parametrize("kind", SHELLS)
def test_a_mass_with_products_alone_is_refused(kind, comm):
    with pytest.raises(InputError, match="mass matrix must be assembled"):
        sh.eigs(stored(comm, CHAIN), 3, mass=SHELLS[kind](stored(comm, MASS)))
    with pytest.raises(InputError, match="preconditioner must be an assembled"):
        sh.eigs(stored(comm, CHAIN), 3, preconditioner=SHELLS[kind](stored(comm, MASS)))


def test_sizes_and_singular_masses_are_refused(comm):
    A = stored(comm, CHAIN)
    short = PETSc.Mat().createAIJ((N - 1, N - 1), nnz=1, comm=comm)
    short.assemble()
    with pytest.raises(InputError, match="the mass matrix has 59 rows"):
        sh.eigs(A, 3, mass=short)
    oblong = PETSc.Mat().createAIJ((N, 3), nnz=1, comm=comm)
    oblong.assemble()
    with pytest.raises(InputError, match="must be square"):
        sh.eigs(oblong, 3)
    for method in ("lobpcg", "jd", "auto"):
        with pytest.raises(sh.SparseHessError) as caught:
            sh.eigs(A, 3, mass=np.zeros(N), method=method)
        assert caught.value.status in (2, 4) and "PETSc" not in str(caught.value)
