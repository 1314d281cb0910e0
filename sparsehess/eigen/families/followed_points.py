"""The modes at one value of a parameter: solved with what is near, counted, and compared with their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.families.clusters import distances_to_others, groups_of
from sparsehess.eigen.families.family_problems import as_problem, matrices_at
from sparsehess.eigen.families.mode_links import Link, Point
from sparsehess.eigen.families.residual_norms import DualNorm, errors_of_pairs, images_of, panel_of
from sparsehess.eigen.problem.block_vectors import dots
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.eigs import shortfall, solve
from sparsehess.errors import InputError
from sparsehess.runtime.row_layout import Layout


@dataclass(eq=False, kw_only=True)
class PointSolver:
    """Solves a user's problem at values of its parameter. Collective to use.

    Attributes
    ----------
    problem_of, done
        The user's function, and what is called with what it gave when that is not needed any more, or None.
    wanted, beside
        How many modes are asked for, and how many more are kept in sight.
    resolution
        Eigenvalues that differ by less than this part of them are taken for a cluster.
    target, tol, method, seed, nullspace, comm
        As of `eigs`.
    """

    problem_of: Callable[[float], Any]
    done: Callable[[Any], None] | None
    wanted: int
    beside: int
    resolution: float
    target: float | None
    tol: float
    method: str
    seed: int
    nullspace: Any
    comm: MPI.Comm | None

    def take(self, value: float, neighbours: list[Point]) -> tuple[Point, list[Link]]:
        """Return the modes at a value, and their products with those of neighbours, which are on the left of each.

        Collective. The first neighbour is where the solve starts.
        """
        given = matrices_at(self.problem_of, value, self.comm)
        try:
            with as_problem(given, self.comm, nullspace=self.nullspace) as problem:
                if neighbours:
                    self._start_from(problem, neighbours[0])
                number = min(self.wanted + self.beside, problem.sought)
                spec = SolveSpec(k=number, target=self.target, tol=self.tol, method=self.method, seed=self.seed)
                spectrum = solve(problem, spec)
                try:
                    return self._described(problem, spectrum, value, neighbours)
                finally:
                    spectrum.close()
        finally:
            if self.done is not None:
                self.done(given)

    def _start_from(self, problem: EigenProblem, near: Point) -> None:
        """Have a solve start from the modes at a value nearby. Collective."""
        fits = near.panel.shape[1] == problem.layout.n_local
        if not all(problem.comm.allgather(fits)):
            raise InputError(
                f"problem_of gives {problem.n} rows, and gave others before, or others on a rank: modes can be "
                "followed on one mesh alone"
            )
        for row in near.panel:
            vector = problem.A.createVecRight()
            vector.setArray(row)
            problem.guess.append(vector)
            problem.owned.append(vector)

    def _described(
        self, problem: EigenProblem, spectrum: Spectrum, value: float, neighbours: list[Point]
    ) -> tuple[Point, list[Link]]:
        short = shortfall(spectrum)
        if short is not None:
            raise type(short)(f"at {value:.10g}: {short}")
        values, layout = spectrum.eigenvalues.copy(), problem.layout
        X = panel_of(spectrum.vectors).reshape(len(values), layout.n_local)
        MX = images_of(problem.M, X)
        whole = len(values) + len(problem.null) == problem.finite
        with closing(DualNorm(problem, quick=True)) as norm:
            errors = errors_of_pairs(problem, norm, values, X, MX)
        unsure = errors.unsure(distances_to_others(spectrum, whole, len(problem.null)))
        size = np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
        order = np.argsort(np.abs(values - self.target) if self.target is not None else values, kind="stable")
        wanted = np.zeros(len(values), bool)
        wanted[order[: self.wanted]] = True
        point = Point(
            value,
            problem.comm,
            values,
            X,
            groups_of(values, unsure, self.resolution * size),
            wanted,
            whole or (spectrum.count is not None and spectrum.count.certified),
            np.full(len(values), -1),
        )
        return point, [_link(problem, near, X, MX, layout) for near in neighbours]


def _link(problem: EigenProblem, near: Point, X: np.ndarray, MX: np.ndarray, layout: Layout) -> Link:
    """Return the products of a neighbour's modes with these, in the mass of these. Collective."""
    theirs = images_of(problem.M, near.panel)
    comm = problem.comm
    return Link(dots(comm, near.panel, MX), dots(comm, near.panel, theirs), dots(comm, X, MX))


def reversed_link(link: Link) -> Link:
    """Return the products with left and right changed. Not collective."""
    return Link(link.table.conj().T, link.right, link.left)
