"""Where commands take what they work on from: made anew each time, unless who runs them has kept it."""

from __future__ import annotations

from sparsehess.coloring import Coloring, color
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solver_pool import Supply
from sparsehess.eigen.problem.spectrum import SolveSpec, Spectrum
from sparsehess.pattern import Pattern
from sparsehess.storage import matrix_files
from sparsehess.storage.matrix_files import StoredMatrix


class Provision:
    """Everything made anew: matrices are read, patterns coloured, solves start from random vectors.

    Who runs commands again and again may put another one, `arguments.provision`, into their arguments.
    """

    def matrix(self, path, comm) -> StoredMatrix:
        """Return the matrix of a file. Collective; it goes to `release` afterwards."""
        return matrix_files.read_matrix(path, comm)

    def release(self, stored: StoredMatrix) -> None:
        """Take back a matrix that is not needed any more. Collective."""
        stored.pattern.free()

    def coloring(self, pattern: Pattern, **asked) -> Coloring:
        """Return the colouring of a pattern, as `coloring.color` does. Collective."""
        return color(pattern, **asked)

    def solvers(self) -> Supply:
        """Return where a problem's solvers come from. Not collective."""
        return Supply()

    def prepare(self, problem: EigenProblem, stored: StoredMatrix, spec: SolveSpec) -> None:
        """Give a problem what is known for its solve. Collective."""

    def learn(self, stored: StoredMatrix, spec: SolveSpec, spectrum: Spectrum) -> None:
        """Hear of the answer of a solve. Collective."""


_ANEW = Provision()


def provision_of(arguments) -> Provision:
    """Return where a command with these arguments takes its things from. Not collective."""
    return getattr(arguments, "provision", _ANEW)
