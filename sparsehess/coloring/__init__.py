"""Colourings of a pattern: which variables may be stepped together.

Always: a `Coloring` says nothing of values; whether it is valid is decided by `verify_coloring` from the
definition of its kind alone, never by the algorithm that made it; it does not depend on the number of ranks.
Imports errors, runtime, pattern and storage.
"""

from sparsehess.coloring.color_pattern import BEST, color
from sparsehess.coloring.coloring import Coloring
from sparsehess.coloring.coloring_files import fingerprint, load, save
from sparsehess.coloring.definitions import verify_coloring
from sparsehess.coloring.kinds import KINDS
from sparsehess.coloring.portfolio import BUDGET
from sparsehess.coloring.vertex_orders import ORDERS

__all__ = [
    "BEST",
    "BUDGET",
    "KINDS",
    "ORDERS",
    "Coloring",
    "color",
    "fingerprint",
    "load",
    "save",
    "verify_coloring",
]
