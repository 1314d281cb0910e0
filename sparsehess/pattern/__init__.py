"""Sparsity patterns: what a Hessian's structure is, and where it comes from.

Always: a `Pattern` is structurally symmetric over all ranks, has its whole diagonal, and its rows are strictly
ascending; every constructor makes it so. Imports errors and runtime.
"""

from sparsehess.pattern.following import Following
from sparsehess.pattern.sparsity_pattern import Pattern
from sparsehess.runtime.row_layout import Layout

__all__ = ["Following", "Layout", "Pattern"]
