"""Hessians in which every point couples with every other: a sparse near part, and a far part of pair terms.

Always: no dense matrix and no array of all points on one rank; what ranks need of each other's points goes round,
one rank's at a time. What is left out is measured by products that nothing else has used, never by the misfit
of a fit. Modules are imported when a name is first used.

May import errors to operators.
"""

from sparsehess.runtime.lazy import attributes

_HOME = {"near_far": "assembly", "NearFar": "near_far_hessian", "forecast": "forecasts", "Forecast": "forecasts"}

__all__ = [*_HOME]


__getattr__ = attributes(globals(), {name: f"sparsehess.long_range.{module}" for name, module in _HOME.items()})
