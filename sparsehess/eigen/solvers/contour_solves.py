"""Solves at the points of a contour: where scalars are real, as real symmetric systems of twice the size."""

from __future__ import annotations

import time

import numpy as np

from sparsehess.eigen.problem.petsc_options import Options
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.contour_quadrature import Filter
from sparsehess.eigen.solvers.shifted_complex_form import ComplexForm
from sparsehess.eigen.solvers.shifted_real_form import DIRECT, AssembledRealForm, MatrixFreeRealForm
from sparsehess.eigen.solvers.structured_preconditioner import StructuredRealForm
from sparsehess.errors import StackError
from sparsehess.runtime import (
    PETSc,
    agreement,
    complex_scalars,
    destroy,
    readable_errors,
)
from sparsehess.runtime.memory import free_memory
from sparsehess.runtime.process_groups import Teams

PREFIX = "sparsehess_feast_"

# Columns solved for at a time: bounds the memory of right-hand sides of twice the size.
_BATCH = 128

# What MUMPS says where its workspace is too small, and the most that it gets, in percent of its estimate.
_TOO_LITTLE, _MOST_ROOM = (-8, -9, -14, -15, -17, -20), 3000


def shifted_form(problem: EigenProblem) -> type[AssembledRealForm | MatrixFreeRealForm | ComplexForm]:
    """Return how the systems of a problem are written: by its build, and by what is known of its matrix.

    Not collective.
    """
    if not problem.assembled:
        return MatrixFreeRealForm if problem.preconditioner is None else StructuredRealForm
    return ComplexForm if complex_scalars() else AssembledRealForm


class ContourSystems:
    """Solves with zM − A at the contour points of this rank's group, by the systems of `shifted_form`.

    Assembled ones are factorized, for blocks of right-hand sides, which takes an eighth of the time of vector by
    vector; for shells there is preconditioned MINRES, loose: FEAST filters residuals. Without a good
    preconditioner a polynomial filter takes far fewer products.

    Collective to make.

    Parameters
    ----------
    problem
        Its matrices assembled, or of A the products alone.
    groups
        Groups of ranks that share the points out.
    options
        PETSc options that override the defaults of the systems.
    seconds
        `factorization` and `solve` are added to here.
    """

    def __init__(self, problem: EigenProblem, groups: int, options: dict, seconds: dict[str, float]):
        kind = shifted_form(problem)
        self.given, self.options = Options(PREFIX, options), {**kind.defaults, **options}
        self.groups, self.seconds = groups, seconds
        self.comm = problem.comm
        self.teams = None if groups == 1 else Teams(problem.layout, groups)
        self.pencil = kind(problem, self.teams)
        self.layout = self.pencil.layout
        self.points = np.empty(0)
        self.mine: list[int] = []
        self.keep: bool | None = None
        self.solvers: list[tuple[PETSc.KSP, PETSc.Mat, PETSc.Mat]] = []
        self.current: list[complex | None] = []

    def move_to(self, chosen: Filter) -> None:
        """Take these contour points for the next solves.

        Not collective.
        """
        team = 0 if self.teams is None else self.teams.index
        self.points = chosen.points
        self.mine = list(range(team, len(chosen.points), self.groups))

    def apply_filter(self, Y: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Return ½ Σ_j (c_j (z_j M − A)⁻¹ + c̄_j (z̄_j M − A)⁻¹) Y with c (points, k) complex.

        Collective. Of real matrices and vectors Re Σ_j c_j (z_j M − A)⁻¹ Y.
        """
        k = Y.shape[1]
        if k == 0:
            return Y.copy()
        if self.teams is not None:
            Y = self.teams.spread_rows(Y)
        total = np.zeros(Y.shape, PETSc.ScalarType, order="F")
        with (
            agreement(self.comm),
            self.given.inserted(self.options),
            readable_errors("solving at the contour points of FEAST", "give it more memory or more ranks"),
        ):
            for slot, j in enumerate(self.mine):
                ksp = self._at(self.points[j], slot)
                self._accumulate(ksp, Y, coefficients[j], total)
        self.given.refuse_unused()
        return total if self.teams is None else self.teams.collect(total)

    def _accumulate(self, ksp: PETSc.KSP, Y: np.ndarray, coefficients: np.ndarray, total: np.ndarray) -> None:
        began = time.perf_counter()
        for first in range(0, Y.shape[1], _BATCH):
            part = slice(first, first + _BATCH)
            c = coefficients[part]
            U, V = self.pencil.parts(ksp, Y[:, part])
            total[:, part] += U * c.real - V * c.imag
        self.seconds["solve"] += time.perf_counter() - began

    def _at(self, z: complex, slot: int) -> PETSc.KSP:
        """Return the solver at a point: its own, or the one for all where memory does not hold them all."""
        slot = slot if self.keep is not False else 0
        if slot == len(self.solvers):
            ksp = PETSc.KSP().create(self.layout.comm)
            self.solvers.append((ksp, *self.pencil.matrices(z)))
            self.current.append(None)
        ksp, matrix, preconditioner = self.solvers[slot]
        if self.current[slot] != z:
            began = time.perf_counter()
            if self.current[slot] is None:
                ksp.setOptionsPrefix(PREFIX)
                ksp.setOperators(matrix, preconditioner)
                ksp.setFromOptions()
            else:
                self.pencil.move(matrix, preconditioner, z)
                ksp.setOperators(matrix, preconditioner)  # the symbolic factorization stays
            ksp.setUp()
            self._make_room(ksp, matrix, z)
            self.current[slot] = z
            if self.keep is None:
                self.keep = self._fits(ksp)
            self.seconds["factorization"] += time.perf_counter() - began
        return ksp

    def _make_room(self, ksp: PETSc.KSP, matrix: PETSc.Mat, z: complex) -> None:
        """Factorize again with more workspace while MUMPS asks for it.

        Where the diagonal of aM − A vanishes, more pivots are delayed than its analysis expects. PETSc
        does not raise for it here.
        """
        pc = ksp.getPC()
        if pc.getType() not in DIRECT or pc.getFactorSolverType() != "mumps":
            return
        room = int(self.options["mat_mumps_icntl_14"])
        while (failure := pc.getFactorMatrix().getMumpsInfog(1)) in _TOO_LITTLE and room < _MOST_ROOM:
            room = 4 * max(room, 25)
            self.options["mat_mumps_icntl_14"] = room  # for the points to come too
            PETSc.Options().setValue(PREFIX + "mat_mumps_icntl_14", str(room))
            ksp.reset()  # MUMPS takes it at its analysis
            ksp.setOperators(matrix)
            ksp.setUp()
        if failure < 0:
            raise StackError(
                f"MUMPS failed to factorize at contour point {z:.6g}: INFOG(1) = {failure}, "
                f"INFOG(2) = {pc.getFactorMatrix().getMumpsInfog(2)}; give it more memory or more ranks, or move "
                "the interval"
            )

    def _fits(self, ksp: PETSc.KSP) -> bool:
        """Return whether the factors of all points of this group fit into half of what memory is left.

        Collective on the group.
        """
        pc = ksp.getPC()
        if pc.getType() not in DIRECT or pc.getFactorSolverType() != "mumps":
            return True
        megabytes = pc.getFactorMatrix().getMumpsInfog(22)  # of all ranks of the group
        share = megabytes * 10**6 / self.layout.comm.size * (len(self.mine) - 1)
        return share < free_memory(self.layout.comm) / 2

    def close(self) -> None:
        """Destroy the factorizations.

        Collective.
        """
        for ksp, matrix, preconditioner in self.solvers:
            destroy(ksp, matrix, None if preconditioner is matrix else preconditioner)
        self.solvers.clear()
        self.current.clear()
        self.pencil.close()
        if self.teams is not None:
            self.teams.close()
