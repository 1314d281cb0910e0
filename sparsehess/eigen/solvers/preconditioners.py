"""What the solvers for the ends of a spectrum are preconditioned by: a definite matrix, and how to use it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sparsehess.eigen.problem.lanczos_bounds import spectral_bounds
from sparsehess.eigen.problem.panel_products import Preconditioning
from sparsehess.eigen.problem.petsc_options import PREFIX
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rigid_body_modes import block_size, orthonormal
from sparsehess.eigen.solvers.factor_packages import DEFAULTS, DEFINITE, has_cholmod
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.multigrid_cycle import NOT_DEFINITE, STRICT_ESTIMATES, VCycle
from sparsehess.eigen.solvers.structured_preconditioner import NearbyStructure
from sparsehess.errors import CheckError
from sparsehess.operators.operator import Operator
from sparsehess.runtime import (
    PETSc,
    complex_scalars,
    destroy,
    error_code,
    held_errors,
    inserted_options,
    readable_errors,
)
from sparsehess.runtime.petsc_matrices import diagonal_of
from sparsehess.runtime.random_numbers import draw_uniform

# Products that smoothing takes.
_DEGREE = 3

# Smoothed aggregation (Vaněk, Mandel, Brezina 1996); the smoothers are symmetric, as the methods require. PETSc
# restricts by the transpose of the prolongation P: PᵀAP is Hermitian for a real P only, which smoothing would make
# complex.
_GAMG = {
    "st_pc_type": "gamg",
    "st_pc_gamg_type": "agg",
    "st_pc_gamg_agg_nsmooths": 0 if complex_scalars() else 1,
    "st_mg_levels_ksp_type": "chebyshev",
    "st_mg_levels_ksp_max_it": _DEGREE,
    "st_mg_levels_pc_type": "jacobi",
}

# What multigrid coarsens is shifted up by this part of a typical eigenvalue: far below what slows convergence,
# far above what rounding makes of a zero eigenvalue.
_SHIFT = 1e-8

# A matrix near the Hessian is shifted farther: it knows the lowest eigenvalues but roughly.
_ABOVE = 1e-2

# Times that the shift may grow until the matrix is definite; after a breakdown it grows by a factor.
_RUNGS, _STEP = 12, 1e3

# Steps of conjugate gradients that must find matrix and preconditioner positive definite. Where scalars are
# complex PETSc's do not look; its MINRES looks at the preconditioner, and Lanczos tells of the matrix.
_PROBE = 15
_PROBED_BY = "minres" if complex_scalars() else "cg"


class PanelMap(Protocol):
    """A map of panels of vectors."""

    def __call__(self, panel: np.ndarray, /) -> np.ndarray:
        """Return the image of a panel (m, n_local). Collective."""


class Preconditioner(Protocol):
    """What the solvers for the ends of a spectrum ask of a preconditioner.

    Attributes
    ----------
    matrix
        For SLEPc to make its preconditioner from.
    defaults
        PETSc options that say how.
    """

    matrix: PETSc.Mat | None
    defaults: dict

    def on_panels(self, options: dict) -> PanelMap:
        """Return what applies it to panels of vectors; it is kept until `close()`. Collective."""

    def adapt(self, values: np.ndarray, broke: bool) -> bool:
        """Change what a solve has shown to be unfit, and say whether. Collective."""

    def close(self) -> None:
        """Destroy what it holds. Collective."""


def preconditioner(problem: EigenProblem, which: str, options: dict) -> Preconditioner:
    """Return what serves the smallest or the largest eigenvalues of a problem; the caller closes it.

    Collective.

    Parameters
    ----------
    which
        `smallest` or `largest`.
    options
        The caller's PETSc options, without a prefix.
    """
    if isinstance(problem.preconditioner, Operator):
        return NearbyStructure(problem, which, options)
    if problem.preconditioner is not None:
        return NearbyMatrix(problem, problem.preconditioner, which)
    if which == "largest":
        return Diagonal(problem, problem.M)
    return Multigrid(problem, options) if problem.assembled else Diagonal(problem, problem.A)


class Diagonal:
    """The diagonal of a matrix, made positive; the identity's for None, or for a shell that has none.

    Attributes
    ----------
    matrix
        For SLEPc to make its preconditioner from.
    defaults
        PETSc options that say how.
    """

    _pc: PETSc.PC | None = None
    _on_panels: Preconditioning | VCycle | None = None

    def __init__(self, problem: EigenProblem, matrix: PETSc.Mat | None):
        self.defaults: dict = {"st_pc_type": "jacobi"}
        diagonal = problem.A.createVecRight()
        found = None if matrix is None else diagonal_of(matrix)
        diagonal.set(1.0)
        if found is not None:
            sizes = np.abs(found)
            mean = problem.comm.allreduce(float(sizes.sum())) / problem.n
            diagonal.setArray(np.maximum(sizes, 1e-3 * mean or 1.0))
        self.matrix = PETSc.Mat().createAIJ((diagonal.getSizes(),) * 2, nnz=1, comm=diagonal.comm)
        self.matrix.setDiagonal(diagonal)
        self.matrix.assemble()
        destroy(diagonal)

    def on_panels(self, options: dict) -> Preconditioning | VCycle:
        """Return what applies it to panels of vectors; it is kept until `close()`.

        Collective.

        Parameters
        ----------
        options
            The caller's, which are in the database.
        """
        if self._on_panels is None:
            self._on_panels = self._for_panels(options)
        return self._on_panels

    def _for_panels(self, options: dict) -> Preconditioning | VCycle:
        self._pc = PETSc.PC().create(self.matrix.comm)
        self._pc.setOptionsPrefix(PREFIX + "st_")
        self._pc.setOperators(self.matrix)
        self._pc.setFromOptions()
        self._pc.setUp()
        return Preconditioning(self._pc)

    def adapt(self, values: np.ndarray, broke: bool) -> bool:
        """Change what a solve has shown to be unfit, and say whether; `Multigrid` does.

        Collective.

        Parameters
        ----------
        values
            Eigenvalues found.
        broke
            Whether the solve ended early.
        """
        return False

    def close(self) -> None:
        """Destroy the matrix.

        Collective.
        """
        if self._on_panels is not None:
            self._on_panels.close()
        destroy(self._pc, self.matrix)
        self._on_panels = self._pc = self.matrix = None


class NearbyMatrix(Diagonal):
    """The matrix near A that the problem has, shifted up until its inertia tells that it is definite.

    Where nothing counts some Lanczos steps tell how far: a preconditioner that is not definite costs iterations.
    For the largest eigenvalues it is turned round.
    """

    def __init__(self, problem: EigenProblem, matrix: PETSc.Mat, which: str):
        every = DEFINITE if has_cholmod(problem.comm) else DEFAULTS
        self.defaults = {key: value for key, value in every.items() if key.startswith(("st_pc", "st_mat"))}
        self.matrix = matrix.duplicate(copy=True)
        if which == "largest":
            self.matrix.scale(-1.0)
        near = EigenProblem(A=self.matrix, M=problem.M, null=[], owned=[])
        shift = _ABOVE * (near.typical or near.scale or 1.0)  # a diagonal may be zero
        shift = _counted_up(near, shift) if not near.uncounted else _lifted_up(near, shift)
        if problem.M is None:
            self.matrix.shift(shift)
        else:
            self.matrix.axpy(shift, problem.M)


def _counted_up(near: EigenProblem, shift: float) -> float:
    """Return a shift up that leaves no eigenvalue negative: from this one on, as inertia tells. Collective."""
    solver = KrylovSchur(near, True, {}, tol=1e-8)
    try:
        while not solver.shift_below(-shift):
            shift *= 4  # ends: beyond the norm nothing is negative
    finally:
        solver.close()
    return shift


def _lifted_up(near: EigenProblem, shift: float) -> float:
    """Return a shift up that likely leaves no eigenvalue negative, this one or more. Collective."""
    low, _, error = spectral_bounds(near.A, near.layout, _PROBE)
    return shift if low >= 0 else shift + (error - low) / (near.masses[1] or near.masses[0])


class Multigrid(Diagonal):
    """Algebraic multigrid for a copy of A, shifted up as far as it takes to be positive definite.

    A copy: the near-null space and the block size are ours, not the caller's.
    """

    def __init__(self, problem: EigenProblem, options: dict):
        self.problem, self.options, self.defaults = problem, options, _GAMG
        self._probed: PETSc.KSP | None = None  # with the multigrid set up
        self.shift = _SHIFT * problem.typical if options.get("st_pc_type", "gamg") != "none" else 0.0
        self._make()

    def adapt(self, values: np.ndarray, broke: bool) -> bool:
        """Shift what is coarsened farther up where a solve has shown that to be needed, and say so. Collective."""
        if broke:
            # The preconditioner blows so few directions up that all its images are dependent.
            self.shift *= _STEP
        elif len(values) and values[0] < -self.shift:
            self.shift = 2 * abs(float(values[0]))
        else:
            return False
        self.close()
        self._make()
        return True

    def _make(self) -> None:
        self.matrix = matrix = self.problem.A.duplicate(copy=True)
        space = self._describe(matrix)
        mean = self.problem.masses[0]
        matrix.shift(self.shift * mean)
        for _ in range(_RUNGS):
            if self._is_definite(matrix):
                break
            more = 9 * self.shift
            matrix.shift(more * mean)
            self.shift += more
        destroy(space)

    @property
    def pc(self) -> PETSc.PC:
        """The multigrid, set up."""
        if self._probed is None:
            raise CheckError(
                f"no shift up to {self.shift:.3g} makes the matrix of the multigrid positive definite"
            )
        return self._probed.getPC()

    def _for_panels(self, options: dict) -> Preconditioning | VCycle:
        if any(key.startswith("st_") for key in options):
            return super()._for_panels(options)
        return VCycle(self.pc, _DEGREE)

    def close(self) -> None:
        """Destroy the matrix and the multigrid. Collective."""
        super().close()
        destroy(self._probed)
        self._probed = None

    def _describe(self, matrix: PETSc.Mat) -> PETSc.NullSpace | None:
        """Tell multigrid what it should know: definiteness, blocks and near-null space."""
        matrix.setOption(PETSc.Mat.Option.SPD, True)
        given = _real_parts(self.problem.near_null or self.problem.null)
        vectors = orthonormal(given)
        destroy(*given)
        if not vectors:
            return None
        size = block_size(vectors)
        if size > 1:
            matrix.setBlockSize(size)
        space = PETSc.NullSpace().create(vectors=vectors, comm=matrix.comm)
        matrix.setNearNullSpace(space)
        destroy(*vectors)  # the null space holds them
        return space

    def _is_definite(self, matrix: PETSc.Mat) -> bool:
        """Say whether a few steps find matrix and preconditioner positive definite."""
        if _PROBED_BY != "cg" and spectral_bounds(matrix, self.problem.layout, _PROBE)[0] <= 0:
            return False
        destroy(self._probed)
        self._probed = ksp = PETSc.KSP().create(matrix.comm)
        b, x = matrix.createVecRight(), matrix.createVecRight()
        b.setArray(draw_uniform(self.problem.layout, 29))
        every = {**self.defaults, **self.options}
        told = {key[3:]: value for key, value in every.items() if key.startswith(("st_pc", "st_mg"))}
        options = STRICT_ESTIMATES | told
        prefix = PREFIX + "probe_"
        try:
            with inserted_options(prefix, options), readable_errors("setting up the preconditioner"):
                ksp.setOptionsPrefix(prefix)
                ksp.setOperators(matrix)
                ksp.setFromOptions()
                ksp.setType(_PROBED_BY)
                ksp.setTolerances(rtol=1e-12, max_it=_PROBE)
                ksp.setErrorIfNotConverged(False)
                try:
                    with held_errors():
                        ksp.solve(b, x)
                except (PETSc.Error, SystemError) as error:  # on all ranks alike
                    if error_code(error) not in NOT_DEFINITE:
                        raise
                    self._probed = None
                    destroy(ksp)
                    return False
            reasons = PETSc.KSP.ConvergedReason
            return ksp.getConvergedReason() in (reasons.DIVERGED_MAX_IT,) or ksp.getConvergedReason() > 0
        finally:
            destroy(b, x)


def _real_parts(vectors: list[PETSc.Vec]) -> list[PETSc.Vec]:
    """Return real Vecs, the caller's to destroy, whose span holds these: real parts, and imaginary ones of any.

    Collective. Prolongations are real, see `_GAMG`.
    """
    parts = []
    for vector in vectors:
        for part in (vector.getArray(readonly=True).real, vector.getArray(readonly=True).imag):
            parts.append(vector.duplicate())
            parts[-1].setArray(part)
            if parts[-1].norm() == 0:
                destroy(parts.pop())
    return parts
