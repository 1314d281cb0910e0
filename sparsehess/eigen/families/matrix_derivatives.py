"""Derivatives of matrices along a parameter: central differences of Hessians, with their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.scales import Scales
from sparsehess.eigen.families.family_problems import as_problem, matrices_at
from sparsehess.eigen.families.residual_norms import images_of, row_sums
from sparsehess.eigen.problem.block_vectors import dots
from sparsehess.errors import InputError
from sparsehess.hessian.entry_errors import EntryErrors
from sparsehess.hessian.hessian import Hessian
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import positive_number, reals

if TYPE_CHECKING:
    pass

_EPS = float(np.finfo(float).eps)

# No step is longer than this part of the length over which the matrix changes.
_LONGEST = 0.1

# Points of the differences in steps; the outer pair tells what the inner one leaves out.
_NODES = (1.0, -1.0, 2.0, -2.0)


@dataclass(frozen=True, eq=False, repr=False)
class MatrixDerivative(ShortRepr):
    """The derivative of H, and of a mass, along a parameter, by differences, with an estimate of its errors.

    *Collective* to make, by `hessian_derivative` and `matrix_derivative`, and to close. A context manager.

    Attributes
    ----------
    A, M
        Mats: (A(p + h) - A(p - h)) / 2h, and that of the mass, None where there is none.
    step
        h, in units of the parameter.
    left
        Mats: what the steps leave out of both, a third of how much they change with steps twice as long.
    entry_errors
        Of the entries of H, where they are known; those of the difference are √2 times as large, over 2h.
    rows
        (n_local,) sums of the rows of |A| and of |M|, of which rounding is a part.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.matrix_derivative(lambda p: np.diag([p**2, 3.0 * p]), 2.0) as d:
    ...     print(np.round(d.A.getDiagonal().getArray(), 6), d.M is None)
    [4. 3.] True
    """

    A: PETSc.Mat
    M: PETSc.Mat | None
    step: float
    left: tuple[PETSc.Mat, PETSc.Mat | None]
    entry_errors: EntryErrors | None
    rows: tuple[np.ndarray, np.ndarray | None]

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"step {self.step:.3g}"
        yield "of a matrix" if self.M is None else "of a matrix and a mass"

    def errors_of(self, panel: np.ndarray, values: np.ndarray, comm: MPI.Comm) -> np.ndarray:
        """Return (k,) how far xᵀ(A' - λM')x may be off by steps, noise and rounding.

        Collective. What steps leave out is measured by other steps; noise is two standard deviations.

        Parameters
        ----------
        panel, values
            (k, n_local) vectors x, (k,) their λ.
        comm
            The ranks.
        """
        images = images_of(self.left[0], panel)
        sums = self.rows[0] + np.zeros((len(panel), 1))
        if self.left[1] is not None and self.rows[1] is not None:
            images = images - values[:, None] * images_of(self.left[1], panel)
            sums = sums + np.abs(values)[:, None] * self.rows[1]
        left = np.linalg.norm(dots(comm, panel, images), axis=1)
        rounding = np.sum(np.abs(panel) ** 2 * sums, axis=1)
        comm.Allreduce(MPI.IN_PLACE, rounding)
        errors = left + _EPS * rounding / self.step
        if self.entry_errors is not None:
            noise = [self.entry_errors.of_quotient(np.abs(x)) for x in panel]
            errors = errors + np.array(noise) / (2**0.5 * self.step)
        return np.asarray(errors)

    def close(self) -> None:
        """Destroy the matrices.

        Collective.
        """
        destroy(self.A, self.M, *self.left)

    def __enter__(self) -> Self:
        """Return the derivative itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy the matrices. Collective."""
        self.close()


def hessian_derivative(
    hessian: Hessian, direction: np.ndarray | PETSc.Vec, *, step: float | None = None
) -> MatrixDerivative:
    """Differentiate an assembled Hessian along a direction, by differences of its coloured gradients.

    *Collective.* Four updates of the Hessian, x ± h d and x ± 2h d, and one that brings it back to where it was.
    The derivative of an eigenvalue along d is that of `eigenvalue_derivatives` with it.

    Parameters
    ----------
    hessian
        Of `assemble`.
    direction
        d: (n,) on every rank, or a Vec, as the x of its objective.
    step
        h; default (3e)^(1/3) of the distance over which the variables change the gradient, e the relative error of
        the Hessian: where noise and what the step leaves out are about equal, and no more than a tenth of it.

    Returns
    -------
    MatrixDerivative
        The caller closes it.

    Raises
    ------
    InputError
        The direction is zero, or does not fit.
    EvaluationError, CheckError
        As for `Hessian.update`.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> pattern = sh.Pattern.from_edges(np.zeros((0, 2), int), 3)
    >>> objective = sh.Objective(x=np.ones(3), gradient=lambda x: x**3, pattern=pattern)
    >>> with sh.assemble(objective) as H, sh.hessian_derivative(H, np.array([1.0, 2.0, 0.0])) as d:
    ...     print(np.round(d.A.getDiagonal().getArray(), 4) + 0.0)
    [ 6. 12.  0.]
    """
    objective, layout = hessian.objective, hessian.pattern.layout
    with agreement(layout.comm):
        along = objective.local(direction)
        if along.shape != (layout.n_local,) or not np.isfinite(along).all():
            raise InputError(f"a direction must be {layout.n} finite numbers, as x is")
    x, error = hessian.point.copy(), max(float(hessian.error), _EPS)
    if step is None:
        with _point(hessian, x) as point:
            lengths = Scales.of(Evaluations(objective, point)).length
        if hessian.noise is not None:
            lengths = np.minimum(lengths, hessian.noise.length)
        steepest = layout.comm.allreduce(float((np.abs(along) / lengths).max(initial=0.0)), MPI.MAX)
        if not steepest > 0:
            raise InputError("a direction of zeros: along it nothing changes")
        step = min((3 * error) ** (1 / 3), _LONGEST) / steepest
    h = positive_number(step, "step")
    taken: list[PETSc.Mat] = []
    try:
        for node in _NODES:
            _update(hessian, x + node * h * along)
            taken.append(hessian.mat.copy())
        _update(hessian, x)
        known = hessian.entry_errors
        if known is not None:
            known = replace(known, values=known.values.copy())  # the Hessian's own change with it
        A, left = _differences(taken, h)
    finally:
        destroy(*taken)
    with as_problem(hessian, None, nullspace=[]) as problem:
        rows = row_sums(problem, problem.A)
    return MatrixDerivative(A, None, h, (left, None), known, (rows, None))


@contextmanager
def _point(hessian: Hessian, x: np.ndarray) -> Iterator[np.ndarray | PETSc.Vec]:
    """Lend a point (n_local,) as the objective's x is. Collective."""
    objective = hessian.objective
    if not objective.distributed:
        yield np.concatenate(objective.comm.allgather(x))
        return
    given: PETSc.Vec = objective.x
    point = given.duplicate()
    try:
        point.setArray(x)
        yield point
    finally:
        destroy(point)


def _update(hessian: Hessian, x: np.ndarray) -> None:
    """Take a Hessian at a point (n_local,). Collective."""
    with _point(hessian, x) as point:
        hessian.update(point, verify=False)


def matrix_derivative(
    problem_of: Callable[[float], Any],
    value: float,
    *,
    length: float | None = None,
    step: float | None = None,
    comm: MPI.Comm | None = None,
) -> MatrixDerivative:
    """Differentiate a matrix, or K and M, that a function gives for a parameter.

    *Collective.* Differences of four matrices, p ± h and p ± 2h.

    Parameters
    ----------
    problem_of
        Called as problem_of(p) on every rank: an assembled matrix, a `Hessian`, or (K, M).
    value
        p.
    length
        Over which the matrix changes by its own size; default |p|, or 1 at 0.
    step
        h; default (3e)^(1/3) of the length, e the error of a Hessian or rounding, and no more than a tenth.
    comm
        For arrays and SciPy's matrices.

    Returns
    -------
    MatrixDerivative
        The caller closes it.

    Raises
    ------
    InputError
        What the function returns is no symmetric matrix with entries.
    EvaluationError
        The function raised.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.matrix_derivative(lambda p: (np.diag([p, 2.0]), np.array([1.0, p**2])), 3.0) as d:
    ...     print(np.round(d.A.getDiagonal().getArray(), 6), np.round(d.M.getDiagonal().getArray(), 6))
    [1. 0.] [0. 6.]
    """
    number = reals(value, "value")
    if number.ndim or not np.isfinite(number):
        raise InputError(f"value={value} must be a finite number")
    p, h = float(number), None if step is None else positive_number(step, "step")
    reach = (abs(p) or 1.0) if length is None else positive_number(length, "length")
    As: list[PETSc.Mat] = []
    Ms: list[PETSc.Mat] = []
    known: EntryErrors | None = None
    rows: tuple[np.ndarray, np.ndarray | None] = np.zeros(0), None
    with ExitStack() as later:
        later.callback(lambda: destroy(*As, *Ms))
        if h is None:
            with as_problem(matrices_at(problem_of, p, comm), comm) as problem:
                h = min((3 * max(problem.relative_error, _EPS)) ** (1 / 3), _LONGEST) * reach
        for node in _NODES:
            with as_problem(matrices_at(problem_of, p + node * h, comm), comm) as problem:
                if not problem.assembled:
                    raise InputError("a derivative of a matrix needs its entries: assemble it")
                As.append(problem.A.copy())
                if problem.M is not None:
                    Ms.append(problem.M.copy())
                if known is None and problem.entry_errors is not None:
                    known = replace(problem.entry_errors, values=problem.entry_errors.values.copy())
                sums = None if problem.M is None else row_sums(problem, problem.M)
                rows = row_sums(problem, problem.A), sums
        if Ms and len(Ms) < len(As):
            raise InputError("problem_of gave a mass at some values, and none at others")
        A, left = _differences(As, h)
        M, left_of_mass = _differences(Ms, h) if Ms else (None, None)
    return MatrixDerivative(A, M, h, (left, left_of_mass), known, rows)


def _differences(taken: list[PETSc.Mat], h: float) -> tuple[PETSc.Mat, PETSc.Mat]:
    """Return the central difference of matrices at the nodes, and what it leaves out. Collective."""
    any_pattern = PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN
    inner, outer = taken[0].copy(), taken[2].copy()
    inner.axpy(-1.0, taken[1], any_pattern)
    inner.scale(0.5 / h)
    outer.axpy(-1.0, taken[3], any_pattern)
    outer.scale(0.25 / h)
    outer.axpy(-1.0, inner, any_pattern)
    outer.scale(1 / 3)
    return inner, outer
