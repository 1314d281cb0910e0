"""Units of eigenvalues, by the short name of their module."""

from sparsehess.derivatives.units import Units

__all__ = ["Units"]
