"""Chosen entries of the inverse of a Hessian: variances and covariances of what its factors say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.inverses.constraint_matrices import constraints_of_vectors
from sparsehess.eigen.inverses.factor_entries import entries_by_solves
from sparsehess.eigen.inverses.places import Places, places_of
from sparsehess.eigen.inverses.remote_rows import values_at
from sparsehess.eigen.inverses.saddle_point import SaddlePoint
from sparsehess.eigen.inverses.singular import Signs, refuse_singular, signs_on_constraints
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.whole_matrix import is_cheaper_whole, whole_problem
from sparsehess.errors import CheckError, InputError
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.operator import Operator
from sparsehess.runtime import destroy
from sparsehess.runtime.random_numbers import draw_normal
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

# Columns that are compared with solutions.
_CHECKED = 4

# Entries of a structure are right to so many roundings of its condition.
_ROUNDINGS = 16 * float(np.finfo(float).eps)

# Right-hand sides that show whether a structure is singular, and the lengths of columns of its inverse.
_PROBES, _SEED = 8, 37


@dataclass(frozen=True, eq=False, repr=False)
class SelectedInverse(ShortRepr):
    """Entries of an inverse.

    *Not collective.* Made by `selected_inverse`.

    Attributes
    ----------
    rows, columns
        (m,) where they are: what this rank has asked for.
    values
        (m,) the entries.
    errors
        (m,) how far they may be off, to first order: ten times the error of the factors, as measured at them, and
        the errors of the entries of the Hessian where these are known; the lengths of columns of the inverse that
        they are multiplied with are measured to a third of themselves.
    of
        What it is the inverse of, in symbols: `H`, `H + shift I`, or with null vectors N `P H P`, P = I - N Nᵀ
        for orthonormal N, whose pseudo-inverse it is: what is orthogonal to N is inverted, N is taken to zero.
    negative
        How many eigenvalues of that are negative: none where it is a covariance.
    margin
        How many times the error of the factors must grow to make it singular.
    how
        `mumps`: entries by pruned solves with the factors; `solves`: a solution for each column that is asked
        for; `structure`: an operator has told them.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.selected_inverse(np.diag([4.0, 25.0]))
    >>> print(found.standard_deviations, found.negative, found.of)
    [0.5 0.2] 0 H
    """

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    of: str
    negative: int
    margin: float
    how: str

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(len(self.values), 'entry', 'entries')} of the inverse of {self.of}"
        yield "positive definite" if not self.negative else f"{self.negative} negative"
        yield f"errors up to {np.max(self.errors, initial=0.0):.1g}"

    @property
    def standard_deviations(self) -> np.ndarray:
        """(m,) roots of the values, where these are of the diagonal and of a covariance. Not collective."""
        if self.negative:
            raise InputError(f"{self.of} has {self.negative} negative eigenvalues: its inverse is no covariance")
        if not np.array_equal(self.rows, self.columns):
            raise InputError("standard deviations are roots of entries of the diagonal: ask for that")
        return np.sqrt(np.maximum(self.values, 0.0))


def selected_inverse(
    matrix: MatrixLike | EigenProblem,
    entries: Places = None,
    *,
    shift: float = 0.0,
    nullspace: VectorsLike | None = None,
    comm: MPI.Comm | None = None,
) -> SelectedInverse:
    """Return chosen entries of H⁻¹: of the diagonal, of a pattern, or of given rows and columns.

    *Collective.* From one LDLᵀ factorization of H, positive definite or not, scaled by powers of two: MUMPS solves
    for the entries alone [1]_. Nothing of the inverse is formed beside them. A shell of up to 2,000 variables is
    made whole first. A structure tells its own: low rank plus diagonal, Kronecker products, blocks, direct sums. A
    mass plays no part.

    Parameters
    ----------
    matrix
        As for `eigs`.
    entries
        None for the diagonal, of which each rank gets its rows; (rows, columns), of which each rank gets what it
        asks for; or a `Pattern`.
    shift
        Added to the diagonal of H.
    nullspace
        Null vectors, as for `eigs`; those that a Hessian brings are taken, unless there is a shift. The
        pseudo-inverse on their complement is returned.
    comm
        For arrays and SciPy matrices.

    Returns
    -------
    SelectedInverse
        The entries, and how far they may be off.

    Raises
    ------
    InputError
        H is singular to the accuracy of its factors or entries; the message says on which rows. Or it has no
        entries to factorize.
    CheckError
        Entries differ from solutions by more than their errors.
    StackError
        No MUMPS.

    References
    ----------
    .. [1] P. R. Amestoy, I. S. Duff, J.-Y. L'Excellent, Y. Robert, F.-H. Rouet, B. Uçar, On computing inverse
       entries of a sparse matrix in an out-of-core environment, SIAM Journal on Scientific Computing 34 (2012),
       A1975-A1999.

    Examples
    --------
    >>> import scipy.sparse
    >>> import sparsehess as sh
    >>> H = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(4, 4))
    >>> found = sh.selected_inverse(H)
    >>> print(found.values.round(6), bool(found.errors.max() < 1e-12))
    [0.8 1.2 1.2 0.8] True
    >>> print(sh.selected_inverse(H, ([0, 1], [3, 2])).values.round(6))
    [0.2 0.8]
    """
    if not np.isfinite(reals(shift, "the shift")):
        raise InputError(f"the shift {shift} must be finite")
    if isinstance(matrix, Operator) and nullspace is None and matrix.knows_inverse:
        return _of_structure(matrix, entries, float(shift))
    with factorized_inverse(matrix, float(shift), nullspace, comm) as (system, of, signs):
        rows, columns = places_of(entries, system.layout)
        values, errors = checked_entries(system, rows, columns)
        how = system.factors.how
    return SelectedInverse(rows, columns, values, errors, of, signs.negative, signs.margin, how)


@contextmanager
def factorized_inverse(
    matrix: MatrixLike | EigenProblem, shift: float, nullspace: VectorsLike | None, comm: MPI.Comm | None
) -> Iterator[tuple[SaddlePoint, str, Signs]]:
    """Give a Hessian factorized on the complement of its null vectors, for a block: (system, what it is, signs).

    Collective. It is not singular.
    """
    if shift and nullspace is not None:
        raise InputError("with a shift null vectors are no longer null: give one of them")
    with assembled_problem(matrix, [] if shift else nullspace, comm) as problem:
        null = [] if shift else problem.null
        C = constraints_of_vectors(null, problem.layout)
        try:
            system = SaddlePoint.of(problem, C, shift=shift)
        finally:
            destroy(C)
        with closing(system):
            of = f"H + {shift:g} I" if shift else "P H P" if null else "H"
            signs = signs_on_constraints(system)
            refuse_singular(system, signs, of)
            yield system, of, signs


@contextmanager
def assembled_problem(
    matrix: MatrixLike | EigenProblem, nullspace: VectorsLike | None, comm: MPI.Comm | None
) -> Iterator[EigenProblem]:
    """Give the problem of a Hessian with entries, for a block; small shells are made whole.

    Collective.
    """
    if isinstance(matrix, EigenProblem):
        if nullspace is not None and len(nullspace):
            raise InputError("an EigenProblem has its null vectors: give them there")
        yield from _with_entries(matrix)
        return
    with EigenProblem.of(matrix, nullspace=nullspace, comm=comm) as problem:
        yield from _with_entries(problem)


def _with_entries(problem: EigenProblem) -> Iterator[EigenProblem]:
    if problem.assembled:
        yield problem
        return
    if not is_cheaper_whole(problem.n, np.inf):
        raise InputError(
            f"a shell of {problem.n} rows has no entries to factorize: assemble it; sparsehess.diagonal(H, "
            "'inverse') estimates the diagonal of its inverse from products"
        )
    with whole_problem(problem) as whole:
        yield whole


def checked_entries(system: SaddlePoint, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return entries (m,) and how far they may be off (m,), some columns compared with solutions.

    Collective.

    Raises
    ------
    CheckError
        They differ by more.
    """
    comm = system.whole.comm
    errors = system.errors(rows, columns)
    picked = columns[[0, len(columns) // 2]] if len(columns) else columns
    every = np.unique(np.concatenate(comm.allgather(picked)))
    compared = [
        (int(column), system.column(int(column))) for column in every[:: max(1, -(-len(every) // _CHECKED))]
    ]
    values = system.entries(rows, columns)
    wrong = not np.isfinite(values).all()
    for column, solution in compared:
        here = np.flatnonzero(columns == column)
        apart = np.abs(values_at(system.layout, solution, rows[here]) - values[here])
        allowed = errors[here] + np.finfo(float).eps * np.abs(values[here])
        wrong = wrong or not bool((apart <= allowed).all())
    if system.any_of(wrong):
        raise CheckError(
            "entries of the inverse differ from solutions by more than the factors' error: trust neither"
        )
    return values, errors


def _of_structure(operator: Operator, entries: Places, shift: float) -> SelectedInverse:
    """Return what a structure tells. Collective."""
    rows, columns = places_of(entries, operator.layout)
    layout = operator.layout
    weights, condition = operator.judged_condition(shift)
    draws = np.stack([draw_normal(layout, _SEED + j) for j in range(_PROBES)], axis=1)
    solved = operator.solve(draws / weights[:, None], shift) / weights[:, None]  # what is singular is refused
    size = layout.comm.allreduce(float(np.abs(solved).max(initial=0.0)), op=MPI.MAX) or 1.0
    lengths = np.sqrt(np.square(solved / size).mean(axis=1))
    own, rounding = _inverse_diagonal(operator, shift)
    if entries is None:
        values = own
    else:
        values = entries_by_solves(lambda b: operator.solve(b, shift), layout, rows, columns)
    negative = operator.negative(shift)
    largest = layout.comm.allreduce(float(np.max(lengths, initial=0.0)), op=MPI.MAX)
    part = _ROUNDINGS * condition * (size / largest) if largest > 0 else 0.0
    lengths *= weights
    errors = part * values_at(layout, lengths, rows) * values_at(layout, lengths, columns)
    roots = np.sqrt(rounding)
    errors = np.maximum(errors, values_at(layout, roots, rows) * values_at(layout, roots, columns))
    of = f"H + {shift:g} I" if shift else "H"
    return SelectedInverse(rows, columns, values, errors, of, negative, 1 / (_ROUNDINGS * condition), "structure")


def _inverse_diagonal(operator: Operator, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the diagonal (n_local,) of (H + shift I)⁻¹, and how far rounding may have moved it. Collective."""
    found = operator.inverse_diagonal(shift)
    if found is not None:
        return found
    if isinstance(operator, DirectSum):
        parts = [_inverse_diagonal(part, shift) for part in operator.parts]
        return np.concatenate([own for own, _ in parts]), np.concatenate([rounding for _, rounding in parts])
    with operator.function(lambda values: 1 / (values + shift)) as inverse:
        own = inverse.diagonal()
    return own, np.zeros(len(own))
