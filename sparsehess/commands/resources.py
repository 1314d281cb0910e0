"""The source of matrices, colourings and solvers for commands; a service substitutes one that caches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sparsehess.coloring import Coloring, color
from sparsehess.eigen.problem.solver_pool import SolverPool
from sparsehess.storage import matrix_files
from sparsehess.storage.matrix_files import StoredMatrix

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.solve_spec import SolveSpec
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.pattern import Pattern


class Resources:
    """A source without a cache: matrices are read, patterns coloured, solves start from random vectors."""

    def read_matrix(
        self, path: str | os.PathLike[str], comm: MPI.Comm, *, one_triangle: bool = False, hermitian: bool = False
    ) -> StoredMatrix:
        """Return the matrix of a file. Collective; the caller passes it to `free_matrix`."""
        return matrix_files.read_matrix(path, comm, one_triangle=one_triangle, hermitian=hermitian)

    def free_matrix(self, stored: StoredMatrix) -> None:
        """Free a matrix that is not needed any more. Collective."""
        stored.pattern.free()

    def color(self, pattern: Pattern, **wanted: Any) -> Coloring:
        """Return the colouring of a pattern, as `coloring.color` does. Collective."""
        return color(pattern, **wanted)

    def solver_pool(self) -> SolverPool:
        """Return the pool of solvers of one problem. Not collective."""
        return SolverPool()

    def add_guess(self, problem: EigenProblem, stored: StoredMatrix, spec: SolveSpec) -> None:
        """Add known eigenvectors of a stored matrix to its problem as a guess. Collective."""

    def keep_vectors(self, stored: StoredMatrix, spec: SolveSpec, spectrum: Spectrum) -> None:
        """Keep the eigenvectors of a solve as guesses for later ones. Collective."""
