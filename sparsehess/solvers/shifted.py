"""Solves at the points of a contour: complex shifts as real symmetric systems of twice the size."""

from __future__ import annotations

import time

import numpy as np

from sparsehess.errors import StackError
from sparsehess.pattern.layout import Layout
from sparsehess.runtime import (
    PETSc,
    agreement,
    destroy,
    free_memory,
    readable_errors,
)
from sparsehess.solvers.contours import Filter
from sparsehess.solvers.doubled import Shell, Stored
from sparsehess.solvers.options import Options
from sparsehess.solvers.problem import EigenProblem
from sparsehess.solvers.teams import Teams

PREFIX = "sparsehess_feast_"

DEFAULTS = {
    "ksp_type": "preonly",
    "pc_type": "cholesky",
    "pc_factor_mat_solver_type": "mumps",
    "mat_mumps_icntl_14": 50,  # room for pivoting, in percent
}

# For shells.
PRODUCTS = {"ksp_type": "minres", "ksp_rtol": 1e-3, "ksp_max_it": 1000, "pc_type": "jacobi"}

# Columns solved for at a time: bounds the memory of right-hand sides of twice the size.
_BATCH = 128

# What MUMPS says where its workspace is too small, and the most that it gets, in percent of its estimate.
_TOO_LITTLE, _MOST_ROOM = (-8, -9, -14, -15, -17, -20), 3000

# Preconditioners that are factorizations, and solve for blocks.
_DIRECT = ("cholesky", "lu")


def dense_block(layout: Layout, X: np.ndarray) -> PETSc.Mat:
    """Return a dense Mat on the memory of X (n_local, k), or of a copy that has PETSc's order.

    Collective.
    """
    sizes = ((layout.n_local, layout.n), (None, X.shape[1]))
    matrix = PETSc.Mat().createDense(sizes, array=np.asfortranarray(X), comm=layout.comm)
    matrix.assemble()
    return matrix


class Systems:
    """Solves with zM − A at the contour points of this rank's group, by the real systems of `doubled`.

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
        PETSc options that override `DEFAULTS`.
    seconds
        `factorization` and `solve` are added to here.
    """

    def __init__(self, problem: EigenProblem, groups: int, options: dict, seconds: dict[str, float]):
        defaults = DEFAULTS if problem.assembled else PRODUCTS
        self.given, self.options = Options(PREFIX, options), {**defaults, **options}
        self.groups, self.seconds = groups, seconds
        self.comm = problem.comm
        self.teams = None if groups == 1 else Teams(problem.layout, groups)
        self.pencil = Stored(problem, self.teams) if problem.assembled else Shell(problem)
        self.layout, self.doubled = self.pencil.layout, self.pencil.doubled
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

    def filtered(self, Y: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Return Re Σ_j c_j (z_j M − A)⁻¹ Y with c (points, k) complex.

        Collective.
        """
        k = Y.shape[1]
        if k == 0:
            return Y.copy()
        if self.teams is not None:
            Y = self.teams.spread(Y)
        total = np.zeros(Y.shape, order="F")
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

    def _accumulate(self, ksp, Y, coefficients, total) -> None:
        began = time.perf_counter()
        for first in range(0, Y.shape[1], _BATCH):
            part = slice(first, first + _BATCH)
            c = coefficients[part]
            U = self._solve(ksp, Y[:, part])
            total[:, part] += U[0::2] * c.real - U[1::2] * c.imag
        self.seconds["solve"] += time.perf_counter() - began

    def _solve(self, ksp, Y) -> np.ndarray:
        """Return the (2 n_local, k) solutions, as a block where there is a factorization to apply."""
        right = np.zeros((2 * Y.shape[0], Y.shape[1]), order="F")
        right[0::2] = Y
        left = np.zeros_like(right)
        if ksp.getType() == "preonly" and ksp.getPC().getType() in _DIRECT:
            B, X = dense_block(self.doubled, right), dense_block(self.doubled, left)
            ksp.getPC().getFactorMatrix().matSolve(B, X)
            left = X.getDenseArray().copy()
            destroy(X, B)
        else:
            x, b = ksp.getOperators()[0].createVecs()
            for i in range(Y.shape[1]):
                b.setArray(right[:, i])
                ksp.solve(b, x)
                left[:, i] = x.getArray(readonly=True)
            destroy(x, b)
        return left

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

    def _make_room(self, ksp, matrix, z) -> None:
        """Factorize again with more workspace while MUMPS asks for it.

        Where the diagonal of aM − A vanishes, more pivots are delayed than its analysis expects. PETSc
        does not raise for it here.
        """
        pc = ksp.getPC()
        if pc.getType() not in _DIRECT or pc.getFactorSolverType() != "mumps":
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

    def _fits(self, ksp) -> bool:
        """Return whether the factors of all points of this group fit into half of what memory is left.

        Collective on the group.
        """
        pc = ksp.getPC()
        if pc.getType() not in _DIRECT or pc.getFactorSolverType() != "mumps":
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
