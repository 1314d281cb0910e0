"""Which part of the spectrum a spec asks for."""

from __future__ import annotations

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.largest_targets import Largest, LargestFinite, Magnitude
from sparsehess.eigen.solvers.lowest_targets import Smallest, SmallestByProducts
from sparsehess.eigen.solvers.nearest_target import Nearest
from sparsehess.eigen.solvers.spectrum_targets import SpectrumTarget

_ENDS: dict[str, type[SpectrumTarget]] = {
    "smallest": Smallest,
    "negative": Smallest,
    "largest": Largest,
    "magnitude": Magnitude,
}


def counted_target(problem: EigenProblem, spec: SolveSpec) -> SpectrumTarget:
    """Return the part of the spectrum that a spec asks for, to be counted by factorizations. Collective."""
    if spec.target is not None:
        return Nearest(problem, spec)
    if spec.which == "largest" and problem.massless:
        return LargestFinite(problem, spec)
    return _ENDS[spec.which](problem, spec)


def solved_target(problem: EigenProblem, spec: SolveSpec) -> SpectrumTarget:
    """Return the part of the spectrum that a spec asks for, to be solved for. Collective."""
    if spec.target is None and spec.which == "smallest" and problem.assembled and problem.uncounted:
        return SmallestByProducts(problem, spec)
    return counted_target(problem, spec)
