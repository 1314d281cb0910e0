"""Krylov-Schur on a polynomial of the matrix that is large in an interval: products alone, no factorization.

The polynomial is SLEPc's (Fang and Saad 2012, "A filtered Lanczos procedure for extreme and interior
eigenvalue problems"). A diagonal mass goes into the matrix, D^(-1/2) A D^(-1/2).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from sparsehess.eigen.problem.lanczos_bounds import spectral_bounds
from sparsehess.eigen.problem.null_space import projected
from sparsehess.eigen.problem.petsc_options import PREFIX
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.interval_method import IntervalMethod
from sparsehess.eigen.solvers.solve_monitor import OnRestart, SolveMonitor, ignore_restart
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, SLEPc, called_back, destroy, held_errors, readable_errors
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.random_numbers import draw_uniform

DEFAULTS = {"eps_type": "krylovschur", "st_type": "filter"}

# The polynomial's interval is wider by this part at each end: there it is half as large as inside.
_WIDER = 0.02

# Least width of that interval, as a part of the spectrum: a narrower one takes too high a degree.
_NARROWEST = 1e-4

# The degree: so many half waves of the Chebyshev polynomial in the interval, as far as these bounds let it.
_WAVES, _LEAST, _MOST = 2.0, 10, 2000

# Times that the polynomial is applied: in all searches, and for each eigenvalue that is expected.
_ALWAYS, _EACH = 20, 2.5

# Steps of Lanczos that tell where the spectrum ends.
_STEPS = 25


class PolynomialFilter(IntervalMethod):
    """Krylov-Schur with SLEPc's polynomial filter; see `IntervalMethod`. `close()` destroys its matrix.

    The problem is assembled or not. Its mass, if any, is diagonal and positive.
    """

    defaults = DEFAULTS

    def __post_init__(self) -> None:
        """Scale the matrix, and find the ends of its spectrum. Collective."""
        super().__post_init__()
        self._root = _root_of_mass(self.problem)
        self._projected = projected(self.problem.A, self.problem.null_space)
        self._matrix = _filterable(self._projected, self._root)
        low, high, error = spectral_bounds(self._matrix, self.problem.layout, _STEPS)
        margin = max(error, 1e-6 * (max(abs(low), abs(high)) or 1.0))
        self.low, self.high = low - margin, high + margin

    def find(
        self,
        low: float,
        high: float,
        expected: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        seed: int = 0,
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return eigenvectors with eigenvalues in and about [low, high]; the caller destroys them.

        Collective.

        Parameters
        ----------
        low, high
            Ends, infinite ones too.
        expected
            How many there are beside those to deflate, about.
        deflate
            Vecs to stay away from, as from the problem's null vectors.
        seed
            Of the starting vector.
        on_restart
            Called between restarts; what it returns ends the solve.
        """
        problem = self.problem
        inner = _inner(low, high, (self.low, self.high))
        if not inner[0] < inner[1]:
            return []
        if inner == (self.low, self.high):
            raise InputError(
                f"the interval holds the whole spectrum, about [{self.low:.6g}, {self.high:.6g}]: a filter has "
                "nothing to leave out; take a narrower one, or method dense"
            )
        away = [self._weighted(vector) for vector in (*problem.null, *deflate)]
        room = problem.n - len(away)
        start = problem.A.createVecRight()
        start.setArray(draw_uniform(problem.layout, seed))
        chosen = {
            "st_filter_range": (self.low, self.high),
            "st_filter_interval": inner,
            "st_filter_degree": _degree(*inner, (self.low, self.high)),
        }
        eps = SLEPc.EPS().create(problem.A.comm)
        try:
            with (
                self._given.inserted({**chosen, **self.used_defaults()}),
                readable_errors("solving with a polynomial filter"),
            ):
                eps.setOptionsPrefix(PREFIX)
                eps.setOperators(self._matrix)
                eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
                eps.setWhichEigenpairs(SLEPc.EPS.Which.ALL)
                eps.setInterval(*inner)
                eps.setTolerances(tol=self.tol)
                nev = max(1, min(expected, room - 1))  # SLEPc wants a basis that is larger
                eps.setDimensions(nev=nev, ncv=max(nev + 1, min(2 * expected + 30, room)))
                if away:
                    eps.setDeflationSpace(away)
                eps.setInitialSpace([start])
                eps.setFromOptions()
                monitor = SolveMonitor(self.on_progress, on_restart, expected)
                monitor.attach(eps)
                began = time.perf_counter()
                with held_errors():
                    eps.solve()
                monitor.raise_error()
                self.seconds["solve"] += time.perf_counter() - began
            self._given.refuse_unused()
            self.iterations += eps.getIterationNumber()
            return self._vectors(eps)
        finally:
            eps.cancelMonitor()
            destroy(eps, start, *away)

    def predict_products(self, low: float, high: float, expected: int) -> float:
        """Return about how many products the searches of an interval take. Not collective.

        Measured on a chain of 2,500, with 5 to 417 eigenvalues inside: within a tenth.
        """
        return predict_products(low, high, (self.low, self.high), expected)

    def _weighted(self, vector: PETSc.Vec) -> PETSc.Vec:
        """Return D^(1/2) v, as the scaled matrix has it."""
        copy = vector.copy()
        if self._root is not None:
            copy.pointwiseMult(copy, self._root)
        return copy

    def _vectors(self, eps: SLEPc.EPS) -> list[PETSc.Vec]:
        vectors = []
        for i in range(eps.getConverged()):
            vector = self.problem.A.createVecRight()
            eps.getEigenvector(i, vector)
            if self._root is not None:
                vector.pointwiseDivide(vector, self._root)
            vectors.append(vector)
        return vectors

    def close(self) -> None:
        """Destroy the scaled matrix.

        Collective.
        """
        for one in (self._matrix, self._projected):
            if one is not self.problem.A:
                destroy(one)
        self._matrix = self._projected = self.problem.A
        destroy(self._root)
        self._root = None


def predict_products(low: float, high: float, ends: tuple[float, float], expected: int) -> float:
    """Return about how many products the searches of an interval take in a spectrum with these ends.

    Not collective.
    """
    inner = _inner(low, high, ends)
    return _degree(*inner, ends) * (_ALWAYS + _EACH * expected) if inner[0] < inner[1] else 0.0


def _inner(low: float, high: float, ends: tuple[float, float]) -> tuple[float, float]:
    """Return the interval of the polynomial for the one that is asked for."""
    pad = max(_WIDER * (high - low), _NARROWEST * (ends[1] - ends[0])) if np.isfinite(high - low) else 0.0
    return max(low - pad, ends[0]), min(high + pad, ends[1])


def _degree(low: float, high: float, ends: tuple[float, float]) -> int:
    """Return the degree that a filter of this interval takes, as wide as that is for Chebyshev polynomials."""
    angles = np.arccos(np.clip((2 * np.array([low, high]) - sum(ends)) / (ends[1] - ends[0]), -1, 1))
    return int(np.clip(np.ceil(_WAVES * np.pi / (angles[0] - angles[1])), _LEAST, _MOST))


def _root_of_mass(problem: EigenProblem) -> PETSc.Vec | None:
    """Return the square root of a diagonal mass, None for no mass. Collective."""
    if problem.M is None:
        return None
    root = problem.M.getDiagonal()
    entries = problem.norms[1]
    if root.norm() < (1 - 1e-12) * entries or problem.masses[1] <= 0:
        destroy(root)
        raise InputError(
            "method filter takes products alone: its mass matrix must be diagonal and positive; "
            "for others there are slicing and feast"
        )
    root.sqrtabs()
    return root


@contextmanager
def scaled_by_mass(problem: EigenProblem) -> Iterator[PETSc.Mat]:
    """Provide D^(-1/2) A D^(-1/2), D the diagonal of the mass, for the length of a block.

    Collective. Where D is zero, as it is for massless dofs, their rows are left as they are.
    """
    root = None
    if problem.M is not None:
        root = problem.M.getDiagonal()
        values = root.getArray()
        values[values == 0] = 1.0
        root.sqrtabs()
    matrix = _filterable(problem.A, root)
    try:
        yield matrix
    finally:
        destroy(None if matrix is problem.A else matrix, root)


def _filterable(A: PETSc.Mat, root: PETSc.Vec | None) -> PETSc.Mat:
    """Return A, or D^(-1/2) A D^(-1/2), for a filter to copy, shift and scale. Collective."""
    if is_assembled(A):
        if root is None:
            return A
        inverse = root.copy()
        inverse.reciprocal()
        matrix = A.duplicate(copy=True)
        matrix.diagonalScale(inverse, inverse)
        destroy(inverse)
        return matrix
    return _shell(A, _Filterable(A, root, 0.0, 1.0))


def _shell(A: PETSc.Mat, context: _Filterable) -> PETSc.Mat:
    matrix = PETSc.Mat().createPython(A.getSizes(), context, comm=A.comm)
    matrix.setOption(PETSc.Mat.Option.HERMITIAN, True)
    matrix.setUp()
    return matrix


class _Filterable:
    """What PETSc calls for shift + factor D^(-1/2) A D^(-1/2), A any shell."""

    def __init__(self, A: PETSc.Mat, root: PETSc.Vec | None, shift: float, factor: float):
        self._A, self._root, self._shift, self._factor = A, root, shift, factor
        self._work = A.createVecRight()

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        if self._root is None:
            self._A.mult(x, y)
        else:
            self._work.pointwiseDivide(x, self._root)
            self._A.mult(self._work, y)
            y.pointwiseDivide(y, self._root)
        y.scale(self._factor)
        y.axpy(self._shift, x)

    multTranspose = mult  # the name is PETSc's

    def duplicate(self, mat: PETSc.Mat, copy: bool) -> PETSc.Mat:
        return _shell(self._A, _Filterable(self._A, self._root, self._shift, self._factor))

    def shift(self, mat: PETSc.Mat, number: float) -> None:
        self._shift += number

    def scale(self, mat: PETSc.Mat, number: float) -> None:
        self._shift *= number
        self._factor *= number

    def destroy(self, mat: PETSc.Mat) -> None:
        destroy(self._work)
