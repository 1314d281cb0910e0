"""One factorization that finds the lowest eigenpairs and counts them: its shift lies just past the last wanted.

Where the last wanted eigenvalue lies is known beforehand from upper bounds (`nested_start`), so the shift can be
put past it. From there the lowest are not the nearest, and a Krylov space would take long for them. A block that
starts near all of them takes a few solves with all of its vectors at once (LOBPCG preconditioned by the factors),
which cost a small part of as many solves one by one. The inertia at the shift then counts what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from sparsehess.eigen.problem.panel_products import Preconditioning
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.lobpcg import Lobpcg, guarded
from sparsehess.eigen.solvers.nested_start import nested_start
from sparsehess.eigen.solvers.preconditioners import Preconditioner
from sparsehess.runtime import PETSc

# So many more eigenvalues than are wanted may lie below the shift, or this part more: they are found too.
_MORE, _PART = 6, 0.5

# Where in a gap between bounds the shift is put: those of the unwanted ones are too high by more.
_PLACE = 0.4

# A gap that is one place farther must be so much wider.
_FARTHER = 1.2

# How far past the last bound the shift is put where no further one is known, as a part of it.
_BEYOND = 0.02

# Eigenvalues far below the others, which the bounds have not seen, take a block longer than this.
_ITERATIONS = 25

# Beyond this many there are too many vectors for a block.
MOST = 40


class Start(NamedTuple):
    """Where one factorization serves.

    Attributes
    ----------
    shift
        Past the last wanted eigenvalue, factorized.
    inside
        How many eigenvalues lie below it.
    vectors
        Vecs near the eigenvectors; whoever has them destroys them.
    """

    shift: float
    inside: int
    vectors: list[PETSc.Vec]


def find_start(problem: EigenProblem, wanted: int, solver: KrylovSchur) -> Start | None:
    """Return where one factorization serves, made there by a solver; None where the bounds are too far off.

    Collective. The bounds are those of the caller's guess, if it is of as many vectors as are wanted.
    """
    basis = nested_start(problem, wanted, guarded(wanted), problem.guess)
    if basis is None:
        return None
    try:
        # The bounds beside a guess are those of vectors that know nothing yet.
        bounds = basis.values[: len(problem.guess)] if len(problem.guess) >= wanted else basis.values
        shift = _past(bounds, wanted)
        inside = solver.shift_to(shift)
        if inside.zero or not wanted <= inside.negative <= wanted + max(_MORE, _PART * wanted):
            return None
        return Start(shift, inside.negative, basis.vectors())
    finally:
        basis.close()


def _past(bounds: np.ndarray, wanted: int) -> float:
    """Return a shift past the last wanted eigenvalue, by upper bounds of it and of the next ones."""
    last = bounds[wanted - 1]
    later = bounds[wanted - 1 : wanted + max(1, (len(bounds) - wanted) // 2)]
    if len(later) < 2:
        return float(last + _BEYOND * abs(last))
    gaps = np.diff(later) / _FARTHER ** np.arange(len(later) - 1)
    best = int(np.argmax(gaps))
    return float(later[best] + _PLACE * (later[best + 1] - later[best]))


class Factors:
    """A factorization as a preconditioner of panels; see `Preconditioner`."""

    matrix = None

    def __init__(self, solver: KrylovSchur):
        self.defaults: dict = {}
        self._solver, self._panels = solver, list[Preconditioning]()

    def on_panels(self, options: dict) -> Preconditioning:
        """Return what solves for panels of vectors with the last factorization. Collective."""
        self.close()  # another may have been made since
        self._panels.append(self._solver.on_panels())
        return self._panels[-1]

    def adapt(self, values: np.ndarray, broke: bool) -> bool:
        """Return that nothing changes. Not collective."""
        return False

    def close(self) -> None:
        """Free what solves of panels keep. Collective."""
        for panel in self._panels:
            panel.close()
        self._panels.clear()


@dataclass
class OneShift(Lobpcg):
    """LOBPCG preconditioned by the factors of A - σM, σ past the wanted eigenvalues.

    Attributes
    ----------
    factors
        The solver whose last factorization it is.
    """

    _attempts: ClassVar[int] = 1
    factors: KrylovSchur = field(kw_only=True)

    def _settings(self) -> dict:
        return {"eps_max_it": _ITERATIONS}

    def _preconditioner(self, which: str) -> Preconditioner:
        return Factors(self.factors)
