"""Matrices and vectors that a caller brings, checked, as PETSc's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.derivatives.objective import Objective
from sparsehess.eigen.problem.caller_matrices import usable
from sparsehess.errors import CheckError, InputError
from sparsehess.operators.matrix_like import HasProducts, stored
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, aij, another_build, complex_scalars, destroy
from sparsehess.runtime.random_numbers import draw_uniform
from sparsehess.runtime.replicated_arrays import of_all_ranks
from sparsehess.runtime.validation import reals

# What a caller may give for a matrix: a Vec or (n,) array is a diagonal. Every rank holds all of an array.
MatrixLike: TypeAlias = (
    "PETSc.Mat | PETSc.Vec | HasProducts | scipy.sparse.spmatrix | scipy.sparse.sparray | np.ndarray"
)

# What a caller may give for vectors: Vecs, or an (m, n) array that every rank holds.
VectorsLike: TypeAlias = "Sequence[PETSc.Vec] | np.ndarray"


# Standard deviations of what noise makes of an asymmetry that are no asymmetry.
_SIGMAS = 7.0


def as_mat(matrix: object, comm: MPI.Comm | None, layout: Layout | None, owned: list, name: str) -> PETSc.Mat:
    """Return a caller's matrix as a Mat, checked.

    Collective.

    Parameters
    ----------
    matrix
        What the caller gave.
    comm
        For arrays and SciPy matrices; PETSc objects have their own.
    layout
        Rows that the matrix must have; None for any.
    owned
        Gets the Mat if it is made here.
    name
        Of the matrix, for messages.

    Raises
    ------
    InputError
        Not square, not numbers, not assembled, rows that do not fit, or another array on another rank.
    """
    if isinstance(matrix, PETSc.Mat):
        rows, columns = matrix.getSize()
        if rows != columns:
            raise InputError(f"{name} must be square; it is {rows} x {columns}")
        if layout is not None:
            _check_rows(matrix.getLocalSize()[0], layout, f"{name} has")
        if not matrix.isAssembled():
            raise InputError(f"{name} is not assembled: call assemble() first")
        return usable(matrix, owned, name)
    if isinstance(matrix, PETSc.Vec):
        if layout is not None:
            _check_rows(matrix.getLocalSize(), layout, f"{name} has")
        result = PETSc.Mat().createAIJ((matrix.getSizes(),) * 2, nnz=1, comm=matrix.comm)
        result.setDiagonal(matrix)
        owned.append(result)
        return result
    whole = as_sparse(matrix, name)
    if whole.shape[0] != whole.shape[1]:
        raise InputError(f"{name} must be square; it is {whole.shape[0]} x {whole.shape[1]}")
    _check_kind(name, whole.dtype)
    layout = layout or Layout.from_size(whole.shape[0], comm)
    if whole.shape[0] != layout.n:
        raise InputError(f"{name} has {whole.shape[0]} rows, the Hessian {layout.n}")
    whole = whole.tocsr()
    for part in (whole.indptr, whole.indices, whole.data):
        of_all_ranks(layout.comm, part, f"the entries of {name}", "every rank gives all of one matrix")
    rows = with_diagonal(whole[layout.start : layout.stop], layout)
    result = aij(layout, rows.indptr, rows.indices, rows.data.astype(PETSc.ScalarType))
    owned.append(result)
    return result


def as_sparse(matrix: Any, name: str) -> scipy.sparse.spmatrix:
    """Return an array as a sparse matrix, an (n,) one as a diagonal. Not collective."""
    if scipy.sparse.issparse(matrix):
        if len(matrix.shape) != 2:
            raise InputError(f"{name} must be a matrix; this sparse array has the shape {matrix.shape}")
        return matrix
    array = np.asarray(stored(matrix, name))
    if array.ndim == 0:
        raise InputError(f"{name} is {_no_matrix(matrix)}")
    if array.dtype.kind not in "fiubc":
        raise InputError(f"{name} must be numbers, not {array.dtype}")
    array = array.astype(np.result_type(array, np.float64))
    return scipy.sparse.diags(array) if array.ndim == 1 else scipy.sparse.csr_matrix(array)


def _no_matrix(given: object) -> str:
    """Return what a caller gave in the place of a matrix, and what to do. Not collective."""
    if isinstance(given, str | os.PathLike):
        return (
            f"the name of a file, {str(given)!r}: the command line reads files, here scipy.sparse.load_npz or "
            "scipy.io.mmread does"
        )
    if isinstance(given, Objective):
        return "an objective: sparsehess.assemble(objective) makes its Hessian, sparsehess.MatrixFree its products"
    return f"of type {type(given).__name__}: give a matrix of SciPy's or PETSc's, an array, or a Hessian"


def as_vectors(given: object, A: PETSc.Mat, layout: Layout, owned: list, name: str) -> list[PETSc.Vec]:
    """Return a caller's vectors as Vecs of the layout of A, checked.

    Collective.

    Parameters
    ----------
    given
        What the caller gave; None for none.
    owned
        Gets the Vecs if they are made here.
    name
        Of the vectors, for messages.

    Raises
    ------
    InputError
        Not numbers, not finite, or sizes that do not fit.
    """
    if given is None:
        return []
    if isinstance(given, (list, tuple)) and all(isinstance(v, PETSc.Vec) for v in given):
        for vector in given:
            _check_rows(vector.getLocalSize(), layout, f"{name}: one has")
        with agreement(layout.comm):
            if not all(np.isfinite(vector.getArray(readonly=True)).all() for vector in given):
                raise InputError(f"{name} must be finite")
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


class Symmetry(NamedTuple):
    """By what part of its size a matrix is not Hermitian, and how noisy its products were seen to be."""

    asymmetry: float
    noise: float


def check_symmetric(
    name: str, matrix: PETSc.Mat, scale: np.ndarray, layout: Layout, allowed: float, products: bool = False
) -> Symmetry:
    """Return by what part of its size a matrix is not Hermitian, along random vectors.

    Collective. Products of a shell that are not those of a symmetric matrix may be noisy: then they are not linear
    either, which one more tells. What noise of that size makes of x'(H y) - y'(H x) is no asymmetry.

    The vectors are real, which suffices: of H − Hᴴ no entry can hide from all. They have the units of the matrix,
    so that large entries do not hide small ones.

    Parameters
    ----------
    scale
        (n_local,) D, such that the entries of D H D are of about one size.
    allowed
        By what part it may be unsymmetric.
    products
        Whether there are no entries, but products, which may be noisy.
    """
    x, y, image = matrix.createVecRight(), matrix.createVecRight(), matrix.createVecLeft()
    draws = [scale * draw_uniform(layout, seed) for seed in (11, 12)]
    image_of = []
    for draw in draws:
        x.setArray(draw)
        matrix.mult(x, image)
        image_of.append(image.getArray(readonly=True).copy())
    together = draws[0] + draws[1]

    def image_together() -> np.ndarray:
        x.setArray(together)
        matrix.mult(x, image)
        return image.getArray(readonly=True).copy()

    # By a power of two, after which squares are numbers that are not zero.
    largest = max(float(np.abs(scale * one).max(initial=0.0)) for one in image_of)
    power = -int(np.frexp(layout.comm.allreduce(largest, MPI.MAX))[1])
    image_of = [_times_power_of_two(one, power) for one in image_of]
    forth, back = draws[0] @ image_of[1], np.conj(draws[1] @ image_of[0])
    # As large as x'(H y) could be, the signs of its terms apart.
    size = sum(float(np.sum(np.abs(scale * one) ** 2)) for one in image_of)
    forth, back, size = layout.comm.allreduce(np.array([forth, back, size]))
    apart, size = abs(forth - back), float(np.sqrt(size.real / 2 * layout.n / 3))
    if not np.isfinite(apart):
        destroy(x, y, image)
        if products:
            raise CheckError(f"products with {name} are not finite: is the function defined around x?")
        raise InputError(f"{name} has entries that are not finite")
    noise = 0.0
    if products and not apart <= allowed * size:
        third = _times_power_of_two(image_together(), power)
        off = scale * (third - image_of[0] - image_of[1])
        noise = _noise_of(off, [scale * one for one in image_of], layout)
    destroy(x, y, image)
    felt = noise * min(2.0, _SIGMAS * np.sqrt(2.0 / layout.n))
    if not apart <= max(allowed, felt) * size:
        raise InputError(
            f"{name} is not {'Hermitian' if complex_scalars() else 'symmetric'}: x'(H y) and y'(H x) differ by "
            f"{apart / size if size > 0 else np.inf:.1e} of its size {_why_unsymmetric(matrix, layout)}"
        )
    return Symmetry(float(apart / size) if size > 0 else 0.0, noise)


def _noise_of(off: np.ndarray, images: list[np.ndarray], layout: Layout) -> float:
    """Return the noise of a product, relative to its size, from what three products of a linear map cancel to.

    Collective.
    """
    sums = np.array([np.linalg.norm(off) ** 2, sum(np.linalg.norm(one) ** 2 for one in images)])
    apart, size = layout.comm.allreduce(sums).tolist()
    # Of the three the squares of two are `size`, and that of the third is about as much again.
    return float(np.sqrt(apart / (2 * size))) if size > 0 and np.isfinite(apart) else 0.0


def _times_power_of_two(values: np.ndarray, power: int) -> np.ndarray:
    """Return numbers times two to a power, which itself may be no number."""
    for part in (power // 2, power - power // 2):
        values = values * 2.0**part
    return values


def _why_unsymmetric(matrix: PETSc.Mat, layout: Layout) -> str:
    """Return what may be the reason that a matrix is not symmetric, in brackets. Collective."""
    if "aij" in matrix.getType() and "sbaij" not in matrix.getType():
        indptr, indices, values = matrix.getValuesCSR()
        row = np.repeat(np.arange(layout.start, layout.stop), np.diff(indptr))
        counts = [np.count_nonzero((values != 0) & side) for side in (indices > row, indices < row)]
        above, below = layout.comm.allreduce(np.array(counts))
        if not (above and below):
            return (
                f"(only its {'upper' if above else 'lower'} triangle T has entries: the whole is T + T' - diag(T))"
            )
    return "(products in single precision are for MatrixFree to know: precision='single')"


def _check_kind(name: str, dtype: np.dtype) -> None:
    """Refuse what is not numbers of the kind of PETSc's scalars."""
    if dtype.kind == "c" and not complex_scalars():
        raise InputError(
            f"{name} must be real here, not {dtype}: give its real part if it has no other; Hermitian ones are "
            f"for eigs, inertia, certify, trace, density and rank, elsewhere they take {another_build(True)}"
        )
    if dtype.kind not in "fiubc":
        raise InputError(f"{name} must be numbers, not {dtype}")


def _scalars(given: object, name: str) -> np.ndarray:
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
