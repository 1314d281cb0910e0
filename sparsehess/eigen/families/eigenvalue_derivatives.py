"""Derivatives of eigenvalues along a parameter, told of clusters where eigenvalues cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.eigen.families.clusters import Cluster, distances_to_others, find_clusters
from sparsehess.eigen.families.matrix_derivatives import MatrixDerivative
from sparsehess.eigen.families.residual_norms import DualNorm, errors_of_pairs, images_of, panel_of
from sparsehess.eigen.problem.block_vectors import dots
from sparsehess.eigen.problem.matrix_inputs import as_mat, check_symmetric
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.operators.matrix_like import as_operator, mat_of
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.hessian.hessian import Hessian
    from sparsehess.hessian.matrix_free import MatrixFree
    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike
    from sparsehess.operators.operator import Operator

# By what part of its size a derivative of a matrix may be unsymmetric: differences cancel.
_SYMMETRY = 1e-5

_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False, repr=False)
class EigenvalueDerivatives(ShortRepr):
    """How eigenvalues change with a parameter.

    *Not collective.* Made by `eigenvalue_derivatives`; the same on every rank.

    Attributes
    ----------
    eigenvalues
        (k,) ascending.
    values
        (k,) dλ/dp. Of a cluster they are the derivatives of a multiple eigenvalue in ascending order: those of its
        eigenvalues in ascending order just after p, and in descending order just before.
    errors
        (k,) how far each may be off, to first order; infinite where it is not known that a cluster is complete.
    clusters
        Of `Cluster`: which eigenvalues their errors do not tell apart, and how far the others are.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> A, dA = np.diag([1.0, 1.0, 3.0]), np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    >>> with sh.eigs(A, 3) as found:
    ...     slopes = sh.eigenvalue_derivatives(A, found, dA)
    >>> print(np.round(slopes.values, 8), slopes.simple)
    [-2.  2.  5.] [False False  True]
    """

    eigenvalues: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    clusters: tuple[Cluster, ...]

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.values), "derivative")
        yield number_of(len(self.clusters), "cluster")
        yield f"{np.count_nonzero(self.simple)} simple"

    @property
    def simple(self) -> np.ndarray:
        """(k,) whether an eigenvalue is known to be alone: the derivative is its own."""
        alone = np.zeros(len(self.values), bool)
        for one in self.clusters:
            alone[one.rows] = one.size == 1 and one.gap > 0
        return alone

    @property
    def complete(self) -> np.ndarray:
        """(k,) whether the whole cluster of an eigenvalue is there; else its derivatives are not known."""
        return np.repeat([one.gap > 0 for one in self.clusters], [one.size for one in self.clusters]).astype(bool)

    def facts(self) -> dict[str, Any]:
        """Return the derivatives as JSON. Not collective.

        Of each cluster `low` and `high` hold the derivatives of its members whether they are equal or only too
        near to be told apart, and `sum` is the derivative of their sum.
        """
        return {
            "eigenvalues": self.eigenvalues.tolist(),
            "derivatives": self.values.tolist(),
            "errors": [float(one) if np.isfinite(one) else None for one in self.errors],
            "clusters": [
                {
                    "first": one.first,
                    "size": one.size,
                    "gap": one.gap if np.isfinite(one.gap) else None,
                    "complete": one.gap > 0,
                    "counted": one.proven,
                    "low": float(self.values[one.rows].min()),
                    "high": float(self.values[one.rows].max()),
                    "sum": float(self.values[one.rows].sum()),
                }
                for one in self.clusters
            ],
        }


def eigenvalue_derivatives(
    matrix: Hessian | MatrixFree | Operator | MatrixLike,
    spectrum: Spectrum,
    dA: MatrixDerivative | MatrixLike,
    dM: MatrixLike | None = None,
    *,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    apart: float = 0.0,
    comm: MPI.Comm | None = None,
) -> EigenvalueDerivatives:
    """Compute the derivatives dλ/dp of eigenvalues of A(p) x = λ M(p) x.

    *Collective.* Of a simple one xᵀ(A' - λM')x; of a cluster with M-orthonormal vectors X the eigenvalues of
    Xᵀ(A' - λM')X [1]_, [2]_. Which eigenvalues are a cluster is decided by their gaps against the residuals, the
    errors of the matrix and rounding, and told. The count of the spectrum says whether the last cluster is
    complete; where it is not, ask `eigs` for one more pair.

    Parameters
    ----------
    matrix, mass, nullspace, comm
        A and M, as for `eigs`.
    spectrum
        Eigenpairs of them.
    dA
        A': a matrix, anything with products (a linear operator, a `MatrixFree`), or a `MatrixDerivative`, whose
        errors are added.
    dM
        M'; None for zero, or for that of a `MatrixDerivative`.
    apart
        Eigenvalues that are no farther from each other are one cluster in any case, in their units.

    Returns
    -------
    EigenvalueDerivatives
        Derivatives with how far they may be off, and the clusters.

    Raises
    ------
    InputError
        Matrices that are not symmetric or do not fit, a spectrum that is closed, or of something else; a distance
        that is none.

    Notes
    -----
    Eigenvalues of a cluster that are not equal, but only too near to be told apart, have derivatives between the
    least and the largest of the cluster, and their sum has the sum: they are quotients of vectors of its space.
    Digits that a matrix dA has not are not known here.

    References
    ----------
    .. [1] P. Lancaster, On eigenvalues of matrices dependent on a parameter, Numerische Mathematik 6 (1964),
       377-387, theorems 5 and 7.
    .. [2] T. Kato, Perturbation theory for linear operators, Springer 1966, chapter II, section 5.4.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> A, dA = np.diag([1.0, 2.0, 4.0]), np.diag([3.0, 0.0, -1.0])
    >>> with sh.eigs(A, 2) as found:
    ...     print(np.round(sh.eigenvalue_derivatives(A, found, dA).values, 8) + 0.0)
    [3. 0.]
    """
    if not apart >= 0:
        raise InputError(f"apart={apart} is no distance of eigenvalues: give 0, or a positive number")
    with ExitStack() as later:
        problem = later.enter_context(EigenProblem.of(matrix, mass=mass, nullspace=nullspace, comm=comm))
        change = later.enter_context(closing(PencilChange(problem, dA, dM, comm)))
        return derivatives_of(problem, spectrum, change, apart)


class PencilChange:
    """A' and M' as matrices with products; `close()` destroys what was made here. Collective."""

    def __init__(self, problem: EigenProblem, dA: Any, dM: Any, comm: MPI.Comm | None):
        self._owned: list = []
        self.known = dA if isinstance(dA, MatrixDerivative) else None
        if self.known is not None:
            dA, dM = self.known.A, self.known.M if dM is None else dM
        try:
            self.A = self._taken(problem, dA, comm, "the derivative of the matrix")
            self.M = None if dM is None else self._taken(problem, dM, comm, "the derivative of the mass")
        except BaseException:
            self.close()
            raise

    def _taken(self, problem: EigenProblem, given: Any, comm: MPI.Comm | None, name: str) -> PETSc.Mat:
        given = mat_of(as_operator(given, comm, self._owned, problem.layout))
        matrix = as_mat(given, comm, problem.layout, self._owned, name)
        check_symmetric(name, matrix, np.ones(problem.layout.n_local), problem.layout, _SYMMETRY)
        return matrix

    def images(self, panel: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return (A' - λM') x of a panel (k, n_local) with values (k,). Collective."""
        images = images_of(self.A, panel)
        return images if self.M is None else images - values[:, None] * images_of(self.M, panel)

    def close(self) -> None:
        """Destroy what was made here. Collective."""
        destroy(*self._owned)
        self._owned.clear()


def derivatives_of(
    problem: EigenProblem, spectrum: Spectrum, change: PencilChange, apart: float = 0.0
) -> EigenvalueDerivatives:
    """Return the derivatives of the eigenvalues of a problem; see `eigenvalue_derivatives`. Collective."""
    X, values = checked_panel(problem, spectrum), spectrum.eigenvalues
    if not len(values):
        return EigenvalueDerivatives(values, values, values, ())
    with closing(DualNorm(problem)) as norm:
        MX = images_of(problem.M, X)
        errors = errors_of_pairs(problem, norm, values, X, MX)
        whole = len(values) + len(problem.null) == problem.finite
        distance = distances_to_others(spectrum, whole, len(problem.null))
        counted = whole or (spectrum.count is not None and spectrum.count.certified)
        clusters, unsure = find_clusters(values, errors, distance, counted, apart), errors.unsure(distance)
        BX = change.images(X, values)
        of_mass = None if change.M is None else images_of(change.M, X)
        slopes, off = np.empty(len(values)), np.empty(len(values))
        ours = np.zeros(len(values)) if change.known is None else change.known.errors_of(X, values, problem.comm)
        for one in clusters:
            x, mx, bx = X[one.rows], MX[one.rows], BX[one.rows]
            G = dots(problem.comm, x, bx)
            G = (G + G.conj().T) / 2
            slopes[one.rows] = np.linalg.eigvalsh(G)
            away = float(np.linalg.norm(norm(bx - G.T @ mx)))
            size = float(np.linalg.norm(bx_sizes(problem, x, bx)))
            of_value = 0.0
            if of_mass is not None:
                size_of_mass = float(np.linalg.norm(dots(problem.comm, x, of_mass[one.rows]), 2))
                of_value = float(unsure[one.rows].max()) * size_of_mass
            turned = 0.0 if away == 0 else 2 * one.turn * away
            off[one.rows] = turned + of_value + float(np.linalg.norm(ours[one.rows])) + 8 * _EPS * size
            if one.gap == 0:
                off[one.rows] = np.inf
    return EigenvalueDerivatives(values.copy(), slopes, off, tuple(clusters))


def bx_sizes(problem: EigenProblem, x: np.ndarray, bx: np.ndarray) -> np.ndarray:
    """Return (k,) Σ |xᵢ (Bx)ᵢ|, of which rounding is a part. Collective."""
    return np.asarray(problem.comm.allreduce(np.sum(np.abs(x * bx), axis=1)))


def checked_panel(problem: EigenProblem, spectrum: Spectrum) -> np.ndarray:
    """Return the vectors of a spectrum as a panel (k, n_local).

    Collective.

    Raises
    ------
    InputError
        The spectrum is closed, or has other rows than the matrix.
    """
    if len(spectrum.vectors) < len(spectrum.eigenvalues):
        raise InputError("the spectrum is closed, and its vectors are destroyed: keep it open until here")
    if not spectrum.vectors:
        return np.empty((0, problem.layout.n_local))
    sizes = spectrum.vectors[0].getSizes()
    fits = sizes == problem.A.getSizes()[0]
    if not all(problem.comm.allgather(fits)):
        raise InputError(
            f"the spectrum has vectors of {sizes[1]} rows, the matrix {problem.n}, or others on a rank"
        )
    return panel_of(spectrum.vectors)
