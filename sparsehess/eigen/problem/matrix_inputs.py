"""Matrices and vectors that a caller brings, checked, as PETSc's."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, aij, another_build, complex_scalars, destroy
from sparsehess.runtime.random_numbers import uniform
from sparsehess.runtime.validation import reals


def as_mat(matrix, comm, layout: Layout | None, owned: list, name: str) -> PETSc.Mat:
    if isinstance(matrix, PETSc.Mat):
        rows, columns = matrix.getSize()
        if rows != columns:
            raise InputError(f"{name} must be square; it is {rows} x {columns}")
        if layout is not None:
            _check_rows(matrix.getLocalSize()[0], layout, f"{name} has")
        if not matrix.isAssembled():
            raise InputError(f"{name} is not assembled: call assemble() first")
        return matrix
    if isinstance(matrix, PETSc.Vec):
        if layout is not None:
            _check_rows(matrix.getLocalSize(), layout, f"{name} has")
        result = PETSc.Mat().createAIJ((matrix.getSizes(),) * 2, nnz=1, comm=matrix.comm)
        result.setDiagonal(matrix)
        owned.append(result)
        return result
    if not scipy.sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        if matrix.dtype.kind not in "fiubc":
            raise InputError(f"{name} must be numbers, not {matrix.dtype}")
        matrix = matrix.astype(np.result_type(matrix, np.float64))
        matrix = scipy.sparse.diags(matrix) if matrix.ndim == 1 else scipy.sparse.csr_matrix(matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name} must be square; it is {matrix.shape[0]} x {matrix.shape[1]}")
    _check_kind(name, matrix.dtype)
    layout = layout or Layout.from_size(matrix.shape[0], comm)
    if matrix.shape[0] != layout.n:
        raise InputError(f"{name} has {matrix.shape[0]} rows, the Hessian {layout.n}")
    rows = matrix.tocsr()[layout.start : layout.stop]
    rows = with_diagonal(rows, layout)
    result = aij(layout, rows.indptr, rows.indices, rows.data.astype(PETSc.ScalarType))
    owned.append(result)
    return result


def as_vectors(given, A: PETSc.Mat, layout: Layout, owned: list, name: str) -> list[PETSc.Vec]:
    if given is None:
        return []
    if isinstance(given, (list, tuple)) and all(isinstance(v, PETSc.Vec) for v in given):
        for vector in given:
            _check_rows(vector.getLocalSize(), layout, f"{name}: one has")
        return list(given)
    with agreement(layout.comm):
        array = np.atleast_2d(_scalars(given, name))
        if array.ndim != 2 or array.shape[1] != layout.n:
            raise InputError(f"{name} must be (m, {layout.n}), not {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"{name} must be finite")
    vectors = []
    for row in array:
        vector = A.createVecRight()
        vector.setArray(row[layout.start : layout.stop])
        vectors.append(vector)
        owned.append(vector)
    return vectors


def with_diagonal(rows: scipy.sparse.csr_matrix, layout: Layout) -> scipy.sparse.csr_matrix:
    """Return local rows that store their diagonal, zeros too: shifts need the place.

    Not collective.
    """
    own = np.arange(layout.n_local)
    there = np.zeros(layout.n_local, bool)
    row_of = np.repeat(own, np.diff(rows.indptr))
    there[row_of[rows.indices == row_of + layout.start]] = True
    if not there.all():
        coo, missing = rows.tocoo(), own[~there]
        row = np.concatenate([coo.row, missing])
        col = np.concatenate([coo.col, missing + layout.start])
        data = np.concatenate([coo.data, np.zeros(len(missing))])
        rows = scipy.sparse.coo_matrix((data, (row, col)), rows.shape).tocsr()
    rows.sum_duplicates()
    rows.sort_indices()
    return rows


def check_symmetric(name: str, matrix: PETSc.Mat, norm: float, layout: Layout, allowed: float) -> float:
    """Return by what part of its norm a matrix is not Hermitian, along two random vectors. Collective.

    They are real, which suffices: of H − Hᴴ no entry can hide from both.
    """
    if not np.isfinite(norm):
        raise InputError(f"{name} has entries that are not finite")
    x, y, image = matrix.createVecRight(), matrix.createVecRight(), matrix.createVecLeft()
    x.setArray(uniform(layout, 11))
    y.setArray(uniform(layout, 12))
    matrix.mult(y, image)
    forth = x.dot(image)
    matrix.mult(x, image)
    back = np.conj(y.dot(image))
    size = norm * np.sqrt(x.norm() * y.norm())
    destroy(x, y, image)
    if abs(forth - back) > allowed * size:
        raise InputError(
            f"{name} is not {'Hermitian' if complex_scalars() else 'symmetric'}: x'(H y) and y'(H x) differ by "
            f"{abs(forth - back) / size:.1e} of its norm "
            "(products in single precision are for MatrixFree to know: precision='single')"
        )
    return abs(forth - back) / size if size > 0 else 0.0


def _check_kind(name: str, dtype: np.dtype) -> None:
    """Refuse what is not numbers of the kind of PETSc's scalars."""
    if dtype.kind == "c" and not complex_scalars():
        raise InputError(f"{name} must be real here, not {dtype}; Hermitian ones take {another_build(True)}")
    if dtype.kind not in "fiubc":
        raise InputError(f"{name} must be numbers, not {dtype}")


def _scalars(given, name: str) -> np.ndarray:
    """Return an array of numbers of the kind of PETSc's scalars, or of real ones."""
    array = None
    with suppress(ValueError):  # what is no array `reals` refuses
        array = np.asarray(given)
    if array is None or array.dtype.kind != "c":
        return reals(given, name)
    _check_kind(name, array.dtype)
    return array


def _check_rows(n_local: int, layout: Layout, what: str) -> None:
    """Refuse an object that has other rows on the ranks than the Hessian. Collective."""
    theirs = Layout.from_local(n_local, layout.comm)
    if not theirs.same(layout):
        rank = int(np.argmax(theirs.counts != layout.counts))
        raise InputError(
            f"{what} {theirs.n} rows ({theirs.counts[rank]} on rank {rank}), "
            f"the Hessian {layout.n} ({layout.counts[rank]})"
        )
