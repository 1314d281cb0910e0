"""What the spectrum says without eigenvectors: density, counts, trace, diagonal, rank.

Invariant of this room: no estimate leaves it without its error, and an error of zero means that the value is exact
up to rounding. All random numbers are functions of a seed and of the global row, so that the answers do not depend
on the number of ranks.
"""

from sparsehess.eigen.estimates.diagonal import BlockTraces, Diagonal, block_traces, diagonal
from sparsehess.eigen.estimates.reduced_operator import Reduction, reduced
from sparsehess.eigen.estimates.spectral_density import Atom, Density, count, density
from sparsehess.eigen.estimates.trace import Trace, trace

__all__ = [
    "Atom",
    "BlockTraces",
    "Density",
    "Diagonal",
    "Reduction",
    "Trace",
    "block_traces",
    "count",
    "density",
    "diagonal",
    "reduced",
    "trace",
]
