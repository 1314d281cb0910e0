"""A matrix of few rows of which only products are known, made whole by its products with the unit vectors.

One rule says where that is cheaper than what a method would spend on products: `is_cheaper_whole`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np

from sparsehess.eigen.problem.block_products import BlockProduct
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solver_pool import SolverPool
from sparsehess.errors import CheckError
from sparsehess.operators.structure import NOTHING
from sparsehess.runtime import PETSc, aij
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.runtime.row_layout import Layout

# Maps a block (n_local, k) to its image.
Product = Callable[[np.ndarray], np.ndarray]

# Up to this size a dense matrix takes 32 MB, and LAPACK a second or two for all eigenpairs.
LARGEST = 2000

# Unit vectors that are multiplied together.
_TOGETHER = 64

# Of the random vector that the whole matrix is compared along.
_SEED = 17


def is_cheaper_whole(n: int, products: float) -> bool:
    """Return whether n products, which give a matrix of n rows whole, are no more than a method would spend.

    Not collective.

    Parameters
    ----------
    products
        The least that the method would spend; infinite where there is none that could do it.
    """
    return n <= min(products, LARGEST)


def products_of_whole(n: int) -> int:
    """Return how many products make a matrix of n rows whole: all columns, and one that tells their error.

    Not collective.
    """
    return n + 1


@contextmanager
def whole_problem(problem: EigenProblem) -> Iterator[EigenProblem]:
    """Give a problem of products alone with its matrix assembled, for the length of a block.

    Collective. The matrix is the symmetric part of what the products give. Its relative error, in the Frobenius
    norm, is no less than the part that is not symmetric, nor than what a product with a random vector differs from
    that of the matrix: products by differences, or in single precision, are no exact linear map.

    Raises
    ------
    CheckError
        Products that are not finite, or noise that leaves nothing of the matrix.
    """
    with closing(BlockProduct(problem.A, problem.layout)) as product:
        rows, error = symmetric_rows(product, problem.layout)
    error = max(problem.relative_error, error)
    problem.check_hope(error)
    matrix = _assembled(problem, rows)
    del rows
    with replace(
        problem, A=matrix, structure=NOTHING, relative_error=error, solver_pool=SolverPool(), owned=[matrix]
    ) as made:
        yield made


def symmetric_rows(product: Product, layout: Layout) -> tuple[np.ndarray, float]:
    """Return the local rows (n_local, n) of the symmetric part of a map, and its error relative to the norm.

    Collective.

    Parameters
    ----------
    product
        Maps a block (n_local, k) to its image, which the next call may overwrite.

    Raises
    ------
    CheckError
        Products that are not finite.
    """
    comm = layout.comm
    rows = np.empty((layout.n_local, layout.n), PETSc.ScalarType)
    for begin in range(0, layout.n, _TOGETHER):
        columns = np.arange(begin, min(begin + _TOGETHER, layout.n))
        rows[:, columns] = product(unit_vectors(layout, columns))
    across = comm.alltoall([np.ascontiguousarray(rows[:, start:stop]) for start, stop in pairwise(layout.starts)])
    mirror = np.concatenate([part.conj().T for part in across], axis=1)
    squares = comm.allreduce(np.array([np.linalg.norm(rows - mirror) ** 2, np.linalg.norm(rows) ** 2]))
    if not np.isfinite(squares).all():
        raise CheckError("products with the Hessian are not finite: is the function defined around x?")
    rows = 0.5 * (rows + mirror)
    if not squares[1] > 0:
        return rows, 0.0
    apart = max(float(squares[0]), _difference_along(product, rows, layout))
    return rows, float(np.sqrt(apart / squares[1]))


def unit_vectors(layout: Layout, columns: np.ndarray) -> np.ndarray:
    """Return the local rows (n_local, k) of these columns of the identity, contiguous.

    Not collective.
    """
    X = np.zeros((layout.n_local, len(columns)), order="F")
    here = np.flatnonzero((columns >= layout.start) & (columns < layout.stop))
    X[columns[here] - layout.start, here] = 1.0
    return X


def _difference_along(product: Product, rows: np.ndarray, layout: Layout) -> float:
    """Return an estimate of the squared Frobenius norm of what products differ from those of local rows.

    Collective. From one random direction.
    """
    own = draw_signed(layout, _SEED)
    everywhere = np.concatenate(layout.comm.allgather(own))
    apart = product(np.asfortranarray(own[:, None]))[:, 0] - rows @ everywhere
    sums = layout.comm.allreduce(np.array([np.linalg.norm(apart) ** 2, own @ own]))
    return float(sums[0] / sums[1] * layout.n)


def _assembled(problem: EigenProblem, rows: np.ndarray) -> PETSc.Mat:
    """Return the AIJ matrix of dense local rows, without their zeros but for the diagonal. Collective."""
    layout = problem.layout
    kept = rows != 0
    own = np.arange(layout.n_local)
    kept[own, own + layout.start] = True
    where, columns = np.nonzero(kept)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(where, minlength=layout.n_local))])
    return aij(layout, indptr, columns, rows[where, columns])
