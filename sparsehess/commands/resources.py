"""Where commands take matrices, colourings and solvers from: made anew, unless who runs them keeps some."""

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
    from sparsehess.eigen.problem.spectrum import SolveSpec, Spectrum
    from sparsehess.pattern import Pattern


class Resources:
    """Everything made anew: matrices are read, patterns coloured, solves start from random vectors."""

    def read_matrix(self, path: str | os.PathLike[str], comm: MPI.Comm) -> StoredMatrix:
        """Return the matrix of a file. Collective; it goes to `free_matrix` afterwards."""
        return matrix_files.read_matrix(path, comm)

    def free_matrix(self, stored: StoredMatrix) -> None:
        """Free a matrix that is not needed any more. Collective."""
        stored.pattern.free()

    def color(self, pattern: Pattern, **wanted: Any) -> Coloring:
        """Return the colouring of a pattern, as `coloring.color` does. Collective."""
        return color(pattern, **wanted)

    def solver_pool(self) -> SolverPool:
        """Return where the solvers of one problem come from. Not collective."""
        return SolverPool()

    def add_guess(self, problem: EigenProblem, stored: StoredMatrix, spec: SolveSpec) -> None:
        """Add what is known of the eigenvectors of a stored matrix to its problem. Collective."""

    def keep_vectors(self, stored: StoredMatrix, spec: SolveSpec, spectrum: Spectrum) -> None:
        """Keep what a solve has found for others to begin with. Collective."""
