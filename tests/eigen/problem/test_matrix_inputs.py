"""Matrices of callers: what is taken, and what is refused."""

import warnings

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from support.cases import agree, lapack, laplacian

pytestmark = [pytest.mark.parallel([1, 2, 4]), pytest.mark.essential]


def test_petsc_objects_go_in_and_stay_the_callers(comm):
    matrix, exact = laplacian(7, 8)
    mat = PETSc.Mat().createAIJ(matrix.shape, comm=comm, nnz=5)
    first, last = mat.getOwnershipRange()
    for row in range(first, last):
        columns = matrix[row].indices
        mat.setValues(row, columns.astype(PETSc.IntType), matrix[row].data)
    mat.assemble()
    mass = mat.createVecRight()
    mass.set(2.0)
    with sh.eigs(mat, 4, mass=mass) as spectrum:
        agree(spectrum, exact[:4] / 2, exact.max(), comm)
        assert spectrum.vectors[0].getSizes() == mass.getSizes()
    assert mat.norm() > 0
    mat.destroy()
    mass.destroy()


@pytest.mark.parametrize(
    ("matrix", "keywords", "says"),
    [
        (sp.identity(5), {"k": 6}, "k=6 eigenpairs of a matrix with 5 rows"),
        (sp.identity(5), {"k": 0}, "k=0"),
        (sp.identity(5), {"which": "best"}, "which='best'"),
        (sp.identity(5), {"tol": 2.0}, "tol=2.0"),
        (sp.identity(5), {"target": np.inf}, "target=inf"),
        (sp.csr_matrix(np.ones((3, 4))), {"k": 1}, "3 x 4"),
        (
            sp.csr_matrix(np.triu(np.ones((5, 5)))),
            {"k": 1},
            "not symmetric.*only its upper triangle T has entries",
        ),
        (np.tril(np.ones((5, 5))), {"k": 1}, "not symmetric.*only its lower triangle T has entries"),
        (np.eye(5), {"k": 1, "mass": np.tril(np.ones((5, 5)))}, "mass matrix is not symmetric.*only its lower"),
        (sp.csr_matrix([[1.0, 2.0], [1.0, 3.0]]), {"k": 1}, "not symmetric.*single precision"),
        (sp.diags([1.0, np.nan, 2.0]), {"k": 1}, "not finite"),
        (sp.identity(5), {"k": 1, "mass": -np.ones(5)}, "positive semidefinite"),
        (sp.identity(5), {"k": 1, "mass": np.ones(4)}, "4 rows"),
        (sp.identity(5), {"k": 1, "nullspace": np.ones((1, 4))}, "null vectors must be"),
        (sp.identity(5) * 1j, {"k": 1}, "not Hermitian"),
    ],
)
def test_unusable_input(matrix, keywords, says, comm):
    with pytest.raises(InputError, match=says):
        sh.eigs(matrix, **keywords, comm=comm)


@pytest.mark.parametrize("kind", [bool, int, np.float32])
def test_a_mass_may_be_of_any_numbers(kind, comm):
    K = laplacian(5, 6)[0]
    mass = (1 + np.arange(30) % 3).astype(kind)
    for given in (mass, np.diag(mass)):
        with sh.eigs(K, 3, mass=given, comm=comm) as spectrum:
            assert spectrum.eigenvalues == pytest.approx(lapack(K, sp.diags(mass.astype(float)))[:3], rel=1e-10)


@pytest.mark.parametrize("form", ["blocks of three", "half"])
def test_matrices_stored_in_blocks_or_by_their_upper_half(form, comm):
    matrix, exact = laplacian(9, 10, 10)
    layout = Layout.from_size(900, comm)
    own = matrix[layout.start : layout.stop]
    csr = (own.indptr.astype(PETSc.IntType), own.indices.astype(PETSc.IntType), own.data)
    sizes = ((layout.n_local, 900),) * 2
    stored = PETSc.Mat().createAIJ(sizes, bsize=3 if form != "half" else 1, csr=csr, comm=layout.comm)
    if form == "half":
        stored.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        stored.convert("sbaij")
    for mass in (None, np.full(900, 2.0)):
        with sh.eigs(stored, 4, mass=mass) as spectrum:
            scale = 1.0 if mass is None else 2.0
            assert scale * spectrum.eigenvalues == pytest.approx(exact[:4], rel=1e-10)
            assert spectrum.count.certified
    stored.destroy()


@pytest.mark.parametrize("size", [1e-310, 1e-300, 1e-155, 1e160, 1e307])
def test_the_least_and_the_largest_entries(size, comm):
    """Their squares are no numbers, and nothing warns of it; what is not symmetric is refused all the same."""
    matrix, exact = laplacian(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sh.eigs(matrix * size, 4, comm=comm) as spectrum:
            assert spectrum.eigenvalues == pytest.approx(exact[:4] * size, rel=1e-11)
            assert spectrum.count.certified
        unlike = matrix.tolil()
        unlike[3, 4] *= 1.001
        with pytest.raises(InputError, match="not symmetric"):
            sh.eigs(unlike.tocsr() * size, 4, comm=comm)


@pytest.mark.parametrize(("stiffness", "mass"), [(1e-300, 1e-200), (1e-310, 1.0), (1e250, 1e220), (1.0, 1e-250)])
def test_the_least_and_the_largest_masses(stiffness, mass, comm):
    """A free chain: its zero is found beside eigenvalues whatever the units of both matrices are."""
    matrix = sp.diags([-np.ones(11), np.r_[1.0, np.full(10, 2.0), 1.0], -np.ones(11)], [-1, 0, 1])
    exact = lapack(matrix)[:3] * (stiffness / mass)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sh.eigs(matrix * stiffness, 3, mass=np.full(12, mass), comm=comm) as spectrum:
            assert spectrum.count.certified and spectrum.zeros == 1
            assert spectrum.eigenvalues[1:] == pytest.approx(exact[1:], rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ranks_without_rows_take_part(n, comm):
    exact = np.array([1e-8, 3.0, 1e9])[:n]
    with sh.eigs(np.diag(exact), mass=np.ones(n), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact) and spectrum.count.certified


@pytest.mark.parametrize("size", [1e-310, 1e-300, 1e300])
def test_what_is_zero_has_the_units_of_the_entries(size, comm):
    matrix, exact = laplacian(5, 6)
    below = int((exact < 2.5).sum())
    shifted = (matrix - 2.5 * sp.identity(30)) * size
    with sh.eigs(shifted, which="negative", comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx((exact[:below] - 2.5) * size, rel=1e-9)
        assert spectrum.count.certified and spectrum.zeros == 0
    found = sh.inertia(shifted, comm=comm)
    assert (found.negative, found.zero, found.positive, found.certified) == (below, 0, 30 - below, True)
    assert found.threshold < 1e-9 * size
    wide = sh.inertia(shifted, zero=0.2 * size, comm=comm)
    assert wide.zero == int((abs(exact - 2.5) < 0.2).sum())
