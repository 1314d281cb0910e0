"""The diagonal of a Hessian or of a function of it, and traces of its diagonal blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import Coloring, color
from sparsehess.eigen.estimates.block_lanczos import FEWEST, apply_function, batches
from sparsehess.eigen.estimates.random_blocks import random_signs
from sparsehess.eigen.estimates.reduced_operator import ReducedOperator, reduced_operator
from sparsehess.eigen.estimates.spectral_functions import Function, half_width, resolve_function
from sparsehess.eigen.estimates.whole_spectrum import diagonal_of_function
from sparsehess.eigen.problem.whole_matrix import is_cheaper_whole
from sparsehess.errors import InputError
from sparsehess.operators.structure import Exact
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement, destroy
from sparsehess.runtime.citations import cite
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike
    from sparsehess.runtime.row_layout import Layout

# Fewer eigenvalues outside the domain of a function than this are none.
_NONE = 0.5

# Accuracy of functions by Lanczos.
_ACCURACY = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(ShortRepr):
    """A diagonal.

    Attributes
    ----------
    values, stderr
        (n_local,) this rank's entries and their standard errors, 0 where they are exact.
    exact
        Whether they are, to rounding.
    samples, products
        Vectors the function was applied to, and products with the Hessian; the same on every rank.
    rounding
        (n_local,) how far rounding may have moved entries that a structure or all eigenvectors tell, to first
        order, or one number.
    why
        What has told them, where nothing is estimated.
    """

    values: np.ndarray
    stderr: np.ndarray
    exact: bool
    samples: int
    products: int
    rounding: np.ndarray | float = 0.0
    why: str = ""

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(len(self.values), 'entry', 'entries')} of this rank"
        yield "exact" if self.exact else f"standard errors up to {self.stderr.max(initial=0.0):.2g}"
        yield number_of(self.products, "product")


@dataclass(frozen=True, eq=False, repr=False)
class BlockTraces(ShortRepr):
    """Sums of the diagonal over groups of variables. The same on every rank.

    Attributes
    ----------
    traces, stderr
        (blocks,) sums and their standard errors, 0 where they are exact.
    exact
        Whether they are, to rounding.
    samples, products, rounding, why
        As in `Diagonal`; `rounding` is (blocks,).
    """

    traces: np.ndarray
    stderr: np.ndarray
    exact: bool
    samples: int
    products: int
    rounding: np.ndarray | float = 0.0
    why: str = ""

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.traces), "block")
        yield "exact" if self.exact else f"standard errors up to {self.stderr.max(initial=0.0):.2g}"
        yield number_of(self.products, "product")

    def bars(self, level: float = 0.9) -> np.ndarray:
        """Return (blocks,) half widths of error bars that cover with this probability.

        Not collective.
        """
        return half_width(self.stderr, self.samples - 1, level)


def diagonal(
    matrix: MatrixLike | EigenProblem,
    function: str | Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    pattern: Pattern | None = None,
    coloring: Coloring | None = None,
    samples: int = 64,
    gamma: float | None = None,
    time: float | None = None,
    steps: int = 200,
    nullspace: VectorsLike | None = None,
    seed: int = 0,
    comm: MPI.Comm | None = None,
) -> Diagonal:
    """Return the diagonal of H, or of a function of it.

    *Collective.* Of an assembled H it is read, and structured ones tell theirs (see `Operator`). Else, with a
    colouring, by probing: one product for each colour, exact where no two coupled variables share a colour; for
    functions of H the colouring should be of the pattern of a power of H. Without one exact where there are fewer
    variables than products that samples would take, else from random signs, with an error for each entry.

    Parameters
    ----------
    matrix, nullspace, comm
        As for `eigs`, or an `EigenProblem` without a mass.
    function, gamma, time, steps
        As for `trace`.
    pattern, coloring
        The pattern, which is coloured, or a colouring of it of any kind, in the layout of the matrix.
    samples
        Random vectors, where there is no colouring; two at least.
    seed
        Of the random vectors.

    Returns
    -------
    Diagonal
        Entries of this rank's rows, with their errors.

    Raises
    ------
    InputError
        Arguments that cannot be used.
    CheckError
        Products that are not finite.

    References
    ----------
    Tang and Saad 2012, "A probing method for computing the diagonal of a matrix inverse", section 3; Bekas,
    Kokiopoulou, Saad 2007, "An estimator for the diagonal of a matrix", equation 5.

    Examples
    --------
    >>> import scipy.sparse
    >>> import sparsehess as sh
    >>> H = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(4, 4))
    >>> print(sh.diagonal(H).values)
    [2. 2. 2. 2.]
    >>> found = sh.diagonal(H, "inverse")
    >>> print(found.values.round(6), found.exact)
    [0.8 1.2 1.2 0.8] True
    """
    f = resolve_function(function, gamma, time)
    whole_number(samples, "samples", 2)  # their spread is the error
    whole_number(steps, "steps", 1)
    with reduced_operator(_without_mass(matrix), nullspace=nullspace, comm=comm) as operator:
        told = _told(operator, f)
        if told is not None:
            return _exact(operator, told)
        if coloring is None and pattern is not None:
            _check_rows(pattern.layout, operator.layout, "pattern")
            coloring = color(pattern)
        if coloring is not None:
            cite("diagonal by probing")
            return _probed(operator, f, coloring, steps, seed)
        if _pays_whole(operator, f, samples):
            return _exact(operator, _of_whole(operator, f))
        cite("diagonal by signs")
        rows, used, worst = np.zeros((2, operator.layout.n_local)), 0, 0.0
        for entries, error in _sampled(operator, f, samples, steps, seed):
            worst = max(worst, error)
            for row in entries:  # Welford 1962: no cancellation
                used += 1
                change = row - rows[0]
                rows[0] += change / used
                rows[1] += change * (row - rows[0])
        stderr = np.hypot(np.sqrt(rows[1] / (used * (used - 1))), _scaled(rows[0], worst))
        return Diagonal(rows[0] + _of_atoms(operator, f), stderr, False, used, operator.products)


def block_traces(
    matrix: MatrixLike | EigenProblem,
    labels: np.ndarray,
    function: str | Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    samples: int = 64,
    gamma: float | None = None,
    time: float | None = None,
    steps: int = 200,
    nullspace: VectorsLike | None = None,
    seed: int = 0,
    comm: MPI.Comm | None = None,
) -> BlockTraces:
    """Return the trace of each diagonal block of H, or of a function of it: of a layer, of a subdomain.

    *Collective.* Read where H is assembled and the function the identity, told by a structure that knows it, else
    from random signs.

    Parameters
    ----------
    labels
        (n,) whole numbers from 0, which say to which block each variable belongs, the same on every rank; or
        (n_local,) of this rank's variables.
    matrix, function, samples, gamma, time, steps, nullspace, seed, comm
        As for `diagonal`.

    Returns
    -------
    BlockTraces
        One trace for each label, with its error.

    Raises
    ------
    InputError
        Arguments that cannot be used.
    CheckError
        Products that are not finite.

    References
    ----------
    Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines".

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.block_traces(np.diag([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1]))
    >>> print(found.traces, found.exact)
    [3. 7.] True
    """
    f = resolve_function(function, gamma, time)
    whole_number(samples, "samples", 2)  # their spread is the error
    whole_number(steps, "steps", 1)
    with reduced_operator(_without_mass(matrix), nullspace=nullspace, comm=comm) as operator:
        local, blocks = _local_labels(labels, operator)
        told = _told(operator, f)
        if told is None and _pays_whole(operator, f, samples):
            told = _of_whole(operator, f)
        if told is not None:
            sides = [np.bincount(local, side, blocks) for side in (told.value, told.rounding)]
            sums, rounding = operator.sum_over_ranks(np.array(sides))
            stderr = np.where(np.isfinite(rounding), 0.0, np.inf)
            exact = bool(np.isfinite(rounding).all())
            return BlockTraces(sums, stderr, exact, 0, operator.products, rounding, told.why)
        cite("hutchinson")
        rows, worst = [], 0.0
        for entries, error in _sampled(operator, f, samples, steps, seed):
            rows += [np.bincount(local, row, blocks) for row in entries]
            worst = max(worst, error)
        sums = operator.sum_over_ranks(np.array(rows))
        known = operator.sum_over_ranks(np.bincount(local, _of_atoms(operator, f), blocks))
        stderr = np.hypot(sums.std(axis=0, ddof=1) / np.sqrt(len(sums)), _scaled(sums.mean(axis=0), worst))
        return BlockTraces(sums.mean(axis=0) + known, stderr, False, len(sums), operator.products)


def _without_mass(matrix: MatrixLike | EigenProblem) -> MatrixLike | EigenProblem:
    """Return a matrix, or a problem, that brings no mass; raise InputError for others."""
    if (
        getattr(matrix, "M", None) is not None
        or getattr(getattr(matrix, "objective", None), "mass", None) is not None
    ):
        raise InputError(
            "M⁻¹H has no diagonal of its own (it is not symmetric): diagonals are those of H without mass"
        )
    return matrix


def _told(operator: ReducedOperator, f: Function) -> Exact[np.ndarray] | None:
    """Return what the structure tells, or the local diagonal of an assembled matrix; None where nothing does."""
    told = operator.told.entries(f)
    if told is not None or not (f.linear and operator.problem.assembled):
        return told
    vector = operator.problem.A.getDiagonal()
    own = vector.getArray(readonly=True).copy()
    destroy(vector)
    return Exact(own, np.zeros(len(own)), "the diagonal of an assembled matrix")


def _of_whole(operator: ReducedOperator, f: Function) -> Exact[np.ndarray]:
    """Return the local diagonal of a function, of the matrix that n products give. Collective."""
    found = diagonal_of_function(operator, f)
    why = f"{found.why}, of the matrix that {operator.n} products give"
    return Exact(found.value + _of_atoms(operator, f), found.rounding, why)


def _exact(operator: ReducedOperator, told: Exact[np.ndarray]) -> Diagonal:
    """Return a diagonal that is told. Collective."""
    exact = not operator.comm.allreduce(int(not np.isfinite(told.rounding).all()))
    stderr = np.where(np.isfinite(told.rounding), 0.0, np.inf)
    return Diagonal(told.value, stderr, exact, 0, operator.products, told.rounding, told.why)


def _scaled(values: np.ndarray, error: float) -> np.ndarray:
    """Return errors of values that are relative to them; all infinite where the error is. Not collective."""
    return np.full(values.shape, np.inf) if np.isinf(error) else error * np.abs(values)


def _pays_whole(operator: ReducedOperator, f: Function, samples: int) -> bool:
    """Return whether all of the matrix costs no more products than samples would. Not collective."""
    return is_cheaper_whole(operator.n, samples * (1 if f.linear else FEWEST))


def _of_atoms(operator: ReducedOperator, f: Function) -> np.ndarray:
    """Return the local diagonal of the part of f(H) that is deflated, which are null vectors."""
    if not operator.atoms or not f.above < 0.0:
        return np.zeros(operator.layout.n_local)
    return float(f(np.zeros(1))[0]) * operator.deflated_diagonal()


def _applied(operator: ReducedOperator, f: Function, X: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """Return f(operator) X, without the deflated part, and by what part of itself Lanczos may have it wrong."""
    if f.linear:
        return operator.apply(X), 0.0
    found = apply_function(operator, X, f, most=steps, accuracy=_ACCURACY, above=f.above)
    return found.image, np.inf if found.beyond > _NONE else found.change


def _sampled(
    operator: ReducedOperator, f: Function, samples: int, steps: int, seed: int
) -> Iterator[tuple[np.ndarray, float]]:
    """Give (k, n_local) arrays z ∘ f(H) z for random signs z, whose mean is the diagonal; and their errors."""
    for batch in batches(operator, 1 if f.linear else steps, samples):
        Z = random_signs(operator.layout, batch, seed)
        image, error = _applied(operator, f, operator.project(Z), steps)
        yield (Z * image).T, error


def _probed(operator: ReducedOperator, f: Function, coloring: Coloring, steps: int, seed: int) -> Diagonal:
    """Return the diagonal from one vector for each colour, of random signs where the colour is."""
    layout = operator.layout
    _check_rows(coloring.layout, layout, "colouring")
    signs = random_signs(operator.layout, [0], seed)[:, 0]
    worst = 0.0
    values = np.zeros(layout.n_local)  # colour -1 is for variables of which the diagonal is structurally zero
    for batch in batches(operator, 1 if f.linear else steps, coloring.count):
        X = np.zeros((layout.n_local, len(batch)), order="F")
        here = np.flatnonzero((coloring.colors >= batch.start) & (coloring.colors < batch.stop))
        place = coloring.colors[here] - batch.start
        X[here, place] = signs[here]
        image, error = _applied(operator, f, operator.project(X), steps)
        worst = max(worst, error)
        values[here] = image[here, place] * signs[here]
    stderr = _scaled(values, worst)
    values += _of_atoms(operator, f)
    return Diagonal(values, stderr, f.linear, coloring.count, operator.products)


def _check_rows(theirs: Layout, layout: Layout, name: str) -> None:
    """Raise InputError where rows lie otherwise on the ranks than those of the matrix. Collective."""
    same = theirs.n == layout.n and theirs.same(layout)
    if not layout.comm.allreduce(same, op=MPI.LAND):
        raise InputError(
            f"the {name} has other rows on the ranks than the matrix ({theirs.n} and {layout.n} in all)"
        )


def _local_labels(labels: np.ndarray, operator: ReducedOperator) -> tuple[np.ndarray, int]:
    """Return the labels of this rank's variables, and how many blocks there are."""
    layout = operator.layout
    with agreement(layout.comm):
        labels = np.asarray(labels)
        if labels.shape == (layout.n,) and layout.n_local < layout.n:
            labels = labels[layout.start : layout.stop]
        if labels.shape != (layout.n_local,) or labels.dtype.kind not in "iu":
            raise InputError(
                f"labels must be ({layout.n},) whole numbers, not {labels.dtype} of shape {labels.shape}"
            )
        if len(labels) and labels.min() < 0:
            raise InputError(f"labels must not be negative, as {labels.min()} is")
    return labels.astype(np.int64), 1 + layout.comm.allreduce(int(labels.max(initial=-1)), op=MPI.MAX)
