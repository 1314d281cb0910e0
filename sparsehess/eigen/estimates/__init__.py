"""What products with random vectors tell of a spectrum: density, counts, traces, diagonals.

Always: no estimate leaves this package without its error, and an error of zero means that the value is exact up to
rounding. Random numbers are functions of a seed and of the global row, so that answers do not depend on the number
of ranks. Imports eigen.problem and what stands before it.
"""

from sparsehess.eigen.estimates.diagonal import BlockTraces, Diagonal, block_traces, diagonal
from sparsehess.eigen.estimates.spectral_density import Atom, Density, count, density
from sparsehess.eigen.estimates.trace import Trace, trace

__all__ = [
    "Atom",
    "BlockTraces",
    "Density",
    "Diagonal",
    "Trace",
    "block_traces",
    "count",
    "density",
    "diagonal",
    "trace",
]
