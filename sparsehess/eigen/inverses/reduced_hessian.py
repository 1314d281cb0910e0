"""The Hessian on the null space of constraints: whether a KKT point is a minimum, and how well it is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.eigen.inverses.constraint_matrices import constraints_of, without_rows
from sparsehess.eigen.inverses.constraint_rank import redundant_constraints
from sparsehess.eigen.inverses.gaussian_samples import Samples, samples_on_constraints
from sparsehess.eigen.inverses.places import Places, places_of, variables_of
from sparsehess.eigen.inverses.saddle_point import SaddlePoint
from sparsehess.eigen.inverses.selected_inverse import SelectedInverse, assembled_problem, checked_entries
from sparsehess.eigen.inverses.singular import Signs, refuse_singular, signs_on_constraints
from sparsehess.eigen.problem.inertia_of_matrix import ROUNDING
from sparsehess.eigen.solvers.eigs import eigs, shortfall
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.operators.operator import Operator
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from sparsehess.eigen.inverses.constraint_matrices import Jacobian
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.operators.matrix_like import MatrixLike

_WHAT = "the Hessian on the constraints"

# Up to this part of a constraint that was left out may be said by no other; and so many are looked at together.
_FOLLOWS, _TOGETHER = 1e-9, 32


class ReducedHessian(ShortRepr):
    """ZᵀHZ for an orthonormal basis Z of what constraints leave free, and its inverse Z (ZᵀHZ)⁻¹ Zᵀ.

    *Collective* to make, by `reduced_hessian`, and to use. A context manager; `close()` destroys what it holds.
    Numbers are alike on every rank, and in the caller's units: no scaling shows.

    Attributes
    ----------
    n, freedom
        Variables, and the dimension of what is left free: n less variables held, less independent constraints.
    redundant
        Numbers of constraints that follow from the others, to 1e-7 of scaled ones, and have been left out.
    held
        How many variables are held.
    negative, zero, positive
        How many eigenvalues of ZᵀHZ; `zero` are those that a change of rows by a few last digits makes so.
    verdict
        `minimum`: ZᵀHZ is positive definite; `not a minimum`: it has negative eigenvalues; `undecided`.
    certified
        Whether the verdict is proven, by the inertia of [[H, Aᵀ], [A, 0]] with a margin. Where constraints that
        follow only nearly were left out a minimum is one all the more, and what is none is open.
    margin
        How many times the error of its factors must grow to make that matrix singular.
    eigenvalues
        (k,) lowest ones of ZᵀHZ, ascending; those that were found where there is a `shortfall`.
    directions
        (n_local, k) this rank's rows of their eigenvectors, directions in the space of the variables, of norm one.
    shortfall
        Why there are fewer of them than were asked for; empty where there are not. The verdict does not need them.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.reduced_hessian(np.diag([2.0, 4.0, -1.0]), fixed=[2], k=0) as found:  # x₂ is at its bound
    ...     print(found.verdict, found.freedom, found.inverse().values)
    minimum 2 [0.5  0.25 0.  ]
    """

    def __init__(self, system: SaddlePoint, signs: Signs, redundant: np.ndarray, apart: float = 0.0):
        self._system: SaddlePoint | None = system
        self._signs = signs
        self.layout = system.layout
        self.n, self.held = system.layout.n, system.fixed_in_all
        self.freedom = system.freedom - system.multipliers.n
        self.redundant = redundant
        self.margin = signs.margin
        self.negative, self.zero, self.positive, sure = _counted(system, signs, self.freedom)
        follows = apart <= _FOLLOWS  # directions of negative curvature keep to what was left out
        self.certified = sure and ((self.negative > 0 and follows) or (self.negative == 0 and self.zero == 0))
        self.eigenvalues, self.directions = np.empty(0), np.empty((system.layout.n_local, 0))
        self.shortfall = ""

    @property
    def verdict(self) -> str:
        """What the signs say of a point where the gradient of the Lagrangian is zero. Not collective."""
        if self.negative and self.certified:
            return "not a minimum"
        return "minimum" if self.certified else "undecided"

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.verdict}, {'certified' if self.certified else 'not certified'}"
        yield f"{self.freedom} of {number_of(self.n, 'variable')} free"
        yield f"{self.negative} negative, {self.zero} zero"
        if len(self.redundant):
            yield f"{number_of(len(self.redundant), 'constraint')} redundant"
        if self._system is None:
            yield "closed"

    # --- the inverse ---

    def inverse(self, entries: Places = None) -> SelectedInverse:
        """Return entries of Z (ZᵀHZ)⁻¹ Zᵀ; places are as for `selected_inverse`, of which each rank gets its own.

        Collective. Those of variables held are zero.

        Raises
        ------
        InputError
            ZᵀHZ is singular to the accuracy of the factors.
        """
        system = self._open()
        refuse_singular(system, self._signs, _WHAT)
        system.factors.factorize()
        rows, columns = places_of(entries, system.layout)
        values, errors = checked_entries(system, rows, columns)
        return SelectedInverse(
            rows, columns, values, errors, _WHAT, self.negative, self.margin, system.factors.how
        )

    def covariance(self, variables: np.ndarray) -> np.ndarray:
        """Return the covariance (v, v) of chosen variables, the same on every rank.

        Collective. The block of Z (ZᵀHZ)⁻¹ Zᵀ: of a fit whose H is that of half the sum of squares, times the
        variance of the residuals.

        Parameters
        ----------
        variables
            (v,) numbers, the same on every rank.

        Raises
        ------
        InputError
            ZᵀHZ is singular, or not positive definite.
        """
        self._require_minimum()
        chosen = variables_of(variables, self.n, "variables")
        upper = np.triu_indices(len(chosen))
        found = self.inverse((chosen[upper[0]], chosen[upper[1]])).values
        out = np.empty((len(chosen),) * 2)
        out[upper] = found
        out.T[upper] = found
        np.fill_diagonal(out, np.maximum(np.diag(out), 0.0))  # of what constraints hold rounding is left
        return out

    def standard_deviations(self) -> np.ndarray:
        """Return the standard deviations (n_local,) of this rank's variables, zero of those held.

        Collective.
        """
        self._require_minimum()
        return self.inverse().standard_deviations

    def samples(
        self, count: int = 1, *, mean: PETSc.Vec | np.ndarray | None = None, seed: int = 0, error: float = 1e-10
    ) -> Samples:
        """Return samples of the normal law of this covariance; they keep to the constraints about the mean.

        Collective. Arguments as for `gaussian_samples`.
        """
        self._require_minimum()
        system = self._open()
        refuse_singular(system, self._signs, _WHAT)
        system.factors.factorize()
        return samples_on_constraints(system, _WHAT, count, mean, seed, error)

    def _require_minimum(self) -> None:
        if self.negative:
            raise InputError(
                f"{_WHAT} has {self.negative} negative eigenvalues: its inverse is no covariance; `inverse` has "
                "its entries"
            )

    def _open(self) -> SaddlePoint:
        if self._system is None:
            raise InputError("the reduced Hessian is closed")
        return self._system

    def find_lowest(self, k: int) -> None:
        """Find the lowest eigenvalues and their directions. Collective."""
        system, many = self._open(), min(k, self.freedom)
        if not many:
            return
        mass = system.matrix.createVecRight()
        mass.setArray(system.of_whole(np.where(system.free, 1.0, 0.0)))
        try:
            with eigs(system.matrix, many, mass=mass, strict=False) as found:
                short = shortfall(found)
                if isinstance(short, NotConverged):  # what is there is counted
                    self.shortfall = str(short)
                elif short is not None:
                    raise short
                self.eigenvalues = found.eigenvalues.copy()
                own = [vector.getArray(readonly=True)[: self.layout.n_local] for vector in found.vectors]
                self.directions = np.stack(own, axis=1) if own else self.directions
        finally:
            destroy(mass)

    def close(self) -> None:
        """Destroy the factors.

        Collective.
        """
        if self._system is not None:
            self._system.close()
        self._system = None

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the object. Collective."""
        self.close()


def reduced_hessian(
    matrix: MatrixLike | EigenProblem,
    jacobian: Jacobian | None = None,
    *,
    fixed: np.ndarray | None = None,
    k: int = 6,
    comm: MPI.Comm | None = None,
) -> ReducedHessian:
    """Return the Hessian on the null space of constraints: the second-order test of a KKT point, and covariances.

    *Collective.* From the inertia of K = [[H, Aᵀ], [A, 0]], which is (n, m, 0) where ZᵀHZ is positive definite and
    A has full rank, and only there [1]_. No basis Z is formed. A factorization of K with a margin proves both;
    where it has none, constraints that follow from others are found and left out. The lowest eigenvalues are
    those of K x = λ diag(I, 0) x, counted; the inverse is the first block of K⁻¹, entry by entry from its factors.

    That the gradient of the Lagrangian is zero is not looked at: H is to be its Hessian at such a point.

    Parameters
    ----------
    matrix
        H, as for `eigs`, assembled or of up to 2,000 variables. A mass, and null vectors that it brings, play no
        part.
    jacobian
        A (m, n): the gradients of the constraints that hold as equations, one a row. A Mat with columns as the
        rows of H, or an array or SciPy matrix that every rank has; None for none.
    fixed
        Variables that are held, such as those at active bounds: their numbers, the same on every rank; or (n,) or
        (n_local,) bool.
    k
        How many of the lowest eigenvalues are wanted; 0 for none.
    comm
        For arrays and SciPy matrices.

    Returns
    -------
    ReducedHessian
        The caller closes it.

    Raises
    ------
    InputError
        Constraints or numbers that do not fit.
    CheckError
        The rank of the constraints is not to be told.
    StackError
        No MUMPS.

    References
    ----------
    .. [1] N. I. M. Gould, On practical conditions for the existence and uniqueness of solutions to the general
       equality quadratic programming problem, Mathematical Programming 32 (1985), 90-99.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.diag([1.0, 2.0, -1.0])  # a saddle, but not where x₂ = x₀
    >>> with sh.reduced_hessian(H, np.array([[1.0, 0.0, -4.0]]), k=2) as found:
    ...     print(found.verdict, found.certified, found.eigenvalues.round(6), found.covariance([0, 2]).round(6))
    minimum True [0.882353 2.      ] [[1.066667 0.266667]
     [0.266667 0.066667]]
    """
    whole_number(k, "k", 0)
    if isinstance(matrix, Operator):
        matrix = matrix.mat
    with assembled_problem(matrix, [], comm) as problem:
        layout = problem.layout
        held = _held(fixed, layout)
        C = None if jacobian is None else constraints_of(jacobian, layout)
        try:
            found = _without_redundant(problem, C, held)
        finally:
            destroy(C)
    try:
        found.find_lowest(k)
    except Exception:  # on all ranks alike
        found.close()
        raise
    return found


def _without_redundant(problem: EigenProblem, C: PETSc.Mat | None, held: np.ndarray) -> ReducedHessian:
    """Return the Hessian on constraints, those left out that follow from the others. Collective."""
    system = SaddlePoint.of(problem, C, held)
    redundant, apart = np.empty(0, np.int64), 0.0
    try:
        signs = signs_on_constraints(system)
        if C is not None and not signs.sure:
            redundant = redundant_constraints(C, held, problem.layout)
        if len(redundant):
            system.close()
            left = without_rows(C, redundant, problem.layout)
            try:
                system = SaddlePoint.of(problem, left, held)
            finally:
                destroy(left)
            signs = signs_on_constraints(system)
            apart = _apart(system, C, redundant)
        return ReducedHessian(system, signs, redundant, apart)
    except Exception:  # on all ranks alike
        system.close()
        raise


def _apart(system: SaddlePoint, C: PETSc.Mat, rows: np.ndarray) -> float:
    """Return the largest part of some constraints that the others do not say, in units of a diagonal of ones.

    Collective. Of a constraint c it is Z (ZᵀHZ)⁻¹ Zᵀc, which is zero where c follows from the others.
    """
    n_local, comm = system.layout.n_local, system.whole.comm
    transposed, diagonal = C.transpose(PETSc.Mat()), system.matrix.getDiagonal()
    indptr, indices, values = transposed.getValuesCSR()
    columns = scipy.sparse.csc_matrix(
        scipy.sparse.csr_matrix((values, indices, indptr), (n_local, C.getSize()[0]))
    )
    sizes = np.abs(diagonal.getArray(readonly=True)[:n_local])
    weights = np.sqrt(np.where(sizes > 0, sizes, 1.0))[:, None]
    destroy(transposed, diagonal)
    worst = 0.0
    for start in range(0, len(rows), _TOGETHER):
        c = np.where(system.free[:, None], columns[:, rows[start : start + _TOGETHER]].toarray(), 0.0)
        x = system.factors.solve(system.of_whole(c))[:n_local]
        parts = np.array([np.square(weights * x).sum(axis=0), np.square(c / weights).sum(axis=0)])
        left, whole = np.sqrt(np.asarray(comm.allreduce(parts)))
        ratio = np.where(whole > 0, left / np.where(whole > 0, whole, 1.0), 0.0)
        worst = max(worst, float(np.max(np.where(np.isfinite(ratio), ratio, np.inf), initial=0.0)))
    return worst


def _counted(system: SaddlePoint, signs: Signs, freedom: int) -> tuple[int, int, int, bool]:
    """Return how many eigenvalues are negative, zero and positive, and whether that is proven. Collective."""
    if signs.sure:
        return signs.negative, 0, signs.positive, True
    part = max(ROUNDING, system.factors.entry_error)
    try:
        found = system.factors.signs_beyond(part)
    except CheckError:
        return (
            max(signs.negative, 0),
            max(freedom - signs.negative - signs.positive, 0),
            max(signs.positive, 0),
            False,
        )
    m = system.multipliers.n
    counts = found.negative - m, found.zero, found.positive - m - system.fixed_in_all
    return *counts, sum(counts) == freedom and min(counts) >= 0


def _held(fixed: np.ndarray | None, layout: Layout) -> np.ndarray:
    """Return whether each of this rank's variables is held (n_local,). Collective."""
    held = np.zeros(layout.n_local, bool)
    with agreement(layout.comm):
        if fixed is None:
            return held
        given = np.asarray(fixed)
        if given.dtype.kind == "b":
            if given.shape not in ((layout.n,), (layout.n_local,)):
                raise InputError(f"fixed must be ({layout.n},) bool, or numbers of variables, not {given.shape}")
            return given if given.shape == (layout.n_local,) else given[layout.start : layout.stop]
        numbers = variables_of(given, layout.n, "fixed")
        own = numbers[(numbers >= layout.start) & (numbers < layout.stop)]
        held[own - layout.start] = True
        return held
