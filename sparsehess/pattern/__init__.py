"""Sparsity patterns: what a Hessian's structure is, and where it comes from.

Invariant of this room: a `Pattern` is structurally symmetric over all ranks, has its whole
diagonal, and its rows are strictly ascending; every constructor makes it so.
"""

from sparsehess.pattern.drift import Following
from sparsehess.pattern.layout import Layout
from sparsehess.pattern.structure import Pattern

__all__ = ["Following", "Layout", "Pattern"]
