"""Derivatives of eigenvectors of simple eigenvalues along a parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from sparsehess.eigen.families.eigenvalue_derivatives import (
    EigenvalueDerivatives,
    PencilChange,
    checked_panel,
    derivatives_of,
)
from sparsehess.eigen.families.residual_norms import DualNorm, images_of, panel_of
from sparsehess.eigen.problem.block_vectors import dots
from sparsehess.eigen.problem.panel_products import Preconditioning
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import InputError, NotConverged
from sparsehess.runtime import PETSc, called_back, destroy, held_errors
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.families.matrix_derivatives import MatrixDerivative
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.hessian.hessian import Hessian
    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

# Residual that a derivative is held to, relative to the right-hand side; what GMRES is asked for, and its steps.
_HELD, _ASKED, _STEPS = 1e-8, 1e-12, 80

# Where the shift lies below the lowest eigenvalue that is asked for, and beside one of its own, as parts of a gap.
_BELOW, _BESIDE = 0.3, 1e-3


@dataclass(frozen=True, eq=False, repr=False)
class EigenvectorDerivatives(ShortRepr):
    """How eigenvectors change with a parameter.

    *Collective* to make, by `eigenvector_derivatives`, and to close. A context manager.

    Attributes
    ----------
    numbers
        (m,) of which eigenpairs, from 0.
    vectors
        m Vecs dx/dp, for x of norm 1 in M at every p, and the sign of the spectrum's.
    residuals
        (m,) ‖(A - λM)x' - f‖ in the norm of M⁻¹, computed from the vectors, relative to those of the terms of
        f = (λ'M + λM' - A')x added up.
    of_eigenvalues
        Derivatives of all eigenvalues of the spectrum.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> A, dA = np.diag([1.0, 2.0, 4.0]), np.ones((3, 3))
    >>> with sh.eigs(A, 2) as found, sh.eigenvector_derivatives(A, found, dA, numbers=[0]) as changes:
    ...     x, change = found.vectors[0].getArray(), changes.vectors[0].getArray()
    ...     print(np.round(change * np.sign(x[0]), 6) + 0.0)
    [ 0.       -1.       -0.333333]
    """

    numbers: np.ndarray
    vectors: list[PETSc.Vec]
    residuals: np.ndarray
    of_eigenvalues: EigenvalueDerivatives

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.numbers), "eigenvector")
        yield f"residuals up to {self.residuals.max(initial=0.0):.1g}"
        if len(self.vectors) < len(self.numbers):
            yield "closed"

    def close(self) -> None:
        """Destroy the vectors.

        Collective.
        """
        destroy(*self.vectors)
        self.vectors.clear()

    def __enter__(self) -> Self:
        """Return the derivatives themselves."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy the vectors. Collective."""
        self.close()


def eigenvector_derivatives(
    matrix: Hessian | MatrixLike,
    spectrum: Spectrum,
    dA: MatrixDerivative | MatrixLike,
    dM: MatrixLike | None = None,
    *,
    numbers: Sequence[int] | None = None,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    comm: MPI.Comm | None = None,
) -> EigenvectorDerivatives:
    """Compute the derivatives dx/dp of eigenvectors of simple eigenvalues of A(p) x = λ M(p) x.

    *Collective.* They solve (A - λM) x' = (λ'M + λM' - A') x with xᵀMx' = -xᵀM'x / 2 [1]_. What x' has of the
    other vectors of the spectrum is known; the rest is solved for on their complement, where one factorization
    near the lowest eigenvalue preconditions GMRES for all, and another one beside an eigenvalue where that is too
    far.

    Parameters
    ----------
    matrix, mass, nullspace, comm
        A and M, as for `eigs`; A with entries.
    spectrum
        Eigenpairs of them.
    dA, dM
        As for `eigenvalue_derivatives`.
    numbers
        Of which eigenpairs, from 0; default all that are simple.

    Returns
    -------
    EigenvectorDerivatives
        The caller closes it.

    Raises
    ------
    InputError
        An eigenvalue asked for is not known to be simple: vectors of a cluster are any basis of its space, and
        have no derivative. Or as for `eigenvalue_derivatives`.
    NotConverged
        A residual is above 1e-8.

    References
    ----------
    .. [1] R. B. Nelson, Simplified calculation of eigenvector derivatives, AIAA Journal 14 (1976), 1201-1205.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> A, dA = np.diag([1.0, 2.0, 4.0]), np.ones((3, 3))
    >>> with sh.eigs(A, 2) as found, sh.eigenvector_derivatives(A, found, dA) as changes:
    ...     print(changes.numbers, bool(changes.residuals.max() < 1e-8))
    [0 1] True
    """
    with ExitStack() as later:
        problem = later.enter_context(EigenProblem.of(matrix, mass=mass, nullspace=nullspace, comm=comm))
        if not problem.factorizes:
            raise InputError("derivatives of eigenvectors need a factorization: assemble the matrix")
        change = later.enter_context(closing(PencilChange(problem, dA, dM, comm)))
        slopes = derivatives_of(problem, spectrum, change)
        chosen = _chosen(slopes, numbers)
        bordered = later.enter_context(closing(_Complement(problem, spectrum)))
        norm = later.enter_context(closing(DualNorm(problem)))
        vectors: list[PETSc.Vec] = []
        residuals = np.empty(len(chosen))
        try:
            for place, i in enumerate(chosen):
                vector, residuals[place] = bordered.derivative(i, slopes, change, norm)
                vectors.append(vector)
                if not residuals[place] <= _HELD:
                    off = residuals[place]
                    raise NotConverged(f"the residual of eigenvector derivative {i} is {off:.1e}, above {_HELD:g}")
        except BaseException:
            destroy(*vectors)
            raise
    return EigenvectorDerivatives(np.array(chosen, int), vectors, residuals, slopes)


def _chosen(slopes: EigenvalueDerivatives, numbers: Sequence[int] | None) -> list[int]:
    """Return the pairs that are asked for, all of them simple. Not collective."""
    if numbers is None:
        return np.flatnonzero(slopes.simple).tolist()
    chosen = [whole_number(one, "number of an eigenpair", 0) for one in numbers]
    for one in chosen:
        if one >= len(slopes.values):
            raise InputError(f"eigenpair {one} of {len(slopes.values)}: they are numbered from 0")
        if not slopes.simple[one]:
            (cluster,) = (each for each in slopes.clusters if each.first <= one < each.stop)
            why = (
                "it is not known what is beside it: ask eigs for one more pair"
                if cluster.gap == 0
                else f"{cluster.size} eigenvalues there are not told apart, and their vectors are any basis"
            )
            raise InputError(
                f"the eigenvector of λ{one + 1} = {slopes.eigenvalues[one]:.6g} has no derivative: {why}"
            )
    return chosen


class _Complement:
    """(A - λM) on what is M-orthogonal to the vectors of a spectrum and to null vectors; PETSc calls it back."""

    def __init__(self, problem: EigenProblem, spectrum: Spectrum):
        self.problem, self._scaled = problem, problem.equilibrated
        found = checked_panel(problem, spectrum)
        null = panel_of(problem.null).reshape(len(problem.null), problem.layout.n_local)
        self.values = np.concatenate([spectrum.eigenvalues, np.zeros(len(null))])
        self.X = np.concatenate([found, null])
        self.MX = np.array(images_of(problem.M, self.X))
        self._solver = KrylovSchur(self._scaled, True, {}, tol=1e-10)
        self._panels: Preconditioning | None = None
        self._value, self._at = 0.0, np.nan

    def _factorize(self, shift: float) -> None:
        if self._panels is not None:
            self._panels.close()
        self._solver.shift_to(float(np.ldexp(shift, -self.problem.power)))
        self._panels = self._solver.on_panels()

    def _off(self, x: np.ndarray) -> np.ndarray:
        """Return x without its parts in X. Collective."""
        return np.asarray(x - dots(self.problem.comm, self.MX, x[None])[:, 0] @ self.X)

    def _dual_off(self, y: np.ndarray) -> np.ndarray:
        """Return a right-hand side without what X sees of it. Collective."""
        return np.asarray(y - dots(self.problem.comm, self.X, y[None])[:, 0] @ self.MX)

    def product(self, x: np.ndarray) -> np.ndarray:
        """Return (A - λM) x. Collective."""
        panel = x[None]
        return np.asarray((images_of(self.problem.A, panel) - self._value * images_of(self.problem.M, panel))[0])

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Multiply. Collective."""
        y.setArray(self._dual_off(self.product(self._off(x.getArray(readonly=True)))))

    @called_back
    def apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Solve with the factors. Collective."""
        d = self.problem.scales.d if self._scaled is not self.problem else 1.0
        if self._panels is None:
            raise RuntimeError("nothing is factorized")
        solved = self._panels((self._dual_off(x.getArray(readonly=True)) * d)[None])[0]
        y.setArray(self._off(solved * d))

    def derivative(
        self, i: int, slopes: EigenvalueDerivatives, change: PencilChange, norm: DualNorm
    ) -> tuple[PETSc.Vec, float]:
        """Return x' of a pair, and its residual. Collective. The caller destroys it."""
        value, x, mx = self.values[i], self.X[i], self.MX[i]
        self._value = float(value)
        moved = change.images(x[None], np.array([value]))[0]
        f = slopes.values[i] * mx - moved
        others = np.abs(self.values - value)
        others[i] = np.inf
        terms = [slopes.values[i] * mx, images_of(change.A, x[None])[0]]
        if change.M is not None:
            terms.append(value * images_of(change.M, x[None])[0])
        size = float(norm(np.array(terms)).sum())
        parts = np.zeros(len(self.values))
        near = np.arange(len(parts)) != i
        parts[near] = dots(self.problem.comm, self.X, f[None])[near, 0].real / (self.values[near] - value)
        if change.M is not None:
            parts[i] = -0.5 * dots(self.problem.comm, x[None], images_of(change.M, x[None]))[0, 0].real
        known, rest = parts @ self.X, self._dual_off(f)
        gap = float(min(others.min(), _gap_around(slopes, i)))
        for shift in (self._first_shift(slopes, gap), value - _BESIDE * gap):
            if self._solver.shift is None or shift != self._at:
                self._factorize(shift)
                self._at = shift
            found = self._off(self._solved(rest)) + known
            off = float(norm((self.product(found) - f)[None])[0])
            residual = off / size if size > 0 else off
            if residual <= _HELD:
                break
        vector = self.problem.A.createVecRight()
        vector.setArray(found)
        return vector, residual

    def _first_shift(self, slopes: EigenvalueDerivatives, gap: float) -> float:
        if self._solver.shift is not None:
            return self._at
        simple = slopes.eigenvalues[slopes.simple]
        return float(simple[0] - _BELOW * gap)

    def _solved(self, right: np.ndarray) -> np.ndarray:
        """Return what GMRES makes of a right-hand side (n_local,). Collective."""
        problem = self.problem
        shell = PETSc.Mat().createPython(problem.A.getSizes(), self, comm=problem.A.comm)
        shell.setUp()
        ksp = PETSc.KSP().create(problem.A.comm)
        ksp.setOptionsPrefix("sparsehess_derivative_")
        ksp.setOperators(shell)
        ksp.setType("gmres")
        ksp.setGMRESRestart(_STEPS)
        ksp.setTolerances(rtol=_ASKED, atol=0.0, max_it=_STEPS)
        ksp.getPC().setType("python")
        ksp.getPC().setPythonContext(self)
        b, x = problem.A.createVecLeft(), problem.A.createVecRight()
        b.setArray(right)
        try:
            with held_errors():
                ksp.solve(b, x)
            return np.array(x.getArray(readonly=True))
        finally:
            destroy(ksp, shell, b, x)

    def close(self) -> None:
        """Free the factors. Collective."""
        if self._panels is not None:
            self._panels.close()
        self._panels = None
        self._solver.close()


def _gap_around(slopes: EigenvalueDerivatives, i: int) -> float:
    """Return the gap around an eigenvalue. Not collective."""
    (cluster,) = (one for one in slopes.clusters if one.first <= i < one.stop)
    return cluster.gap
