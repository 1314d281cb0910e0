"""Recovery: compressed columns back to the entries of the pattern, symmetric to the last bit.

The plan is made from pattern and colouring once; a recovery is then one pass over the entries and
one exchange with the neighbours. This room knows nothing of how the columns were evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess import recovery_kernels
from sparsehess.coloring import Coloring
from sparsehess.coloring.check import alone_both_ways
from sparsehess.errors import CheckError
from sparsehess.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a recovery saw besides the values.

    Attributes
    ----------
    asymmetry
        Largest |H_ij - H_ji| over entries that were read both ways; 0 where none was.
    where
        (i, j) of that entry, or None.
    largest
        Largest |H_ij|.
    """

    asymmetry: float
    where: tuple[int, int] | None
    largest: float


@dataclass(frozen=True, eq=False)
class Plan:
    """Where each entry is read.

    Attributes
    ----------
    source
        (nnz_local,) uint8: bit 1, entry (i, j) stands alone of colour c(j) in row i;
        bit 2, its mirror stands alone of colour c(i) in row j.
    """

    pattern: Pattern
    coloring: Coloring
    source: np.ndarray

    @classmethod
    def make(cls, pattern: Pattern, coloring: Coloring) -> Plan:
        """Plan the recovery.

        Collective.

        Raises
        ------
        CheckError
            An entry can be read neither way: the colouring is not valid for this pattern.
        """
        own, other = alone_both_ways(pattern, coloring)
        source = np.bitwise_or(own, other << 1, out=other)
        lost = np.flatnonzero(source == 0) if not source.all() else np.empty(0, np.int64)
        comm = pattern.comm
        first = comm.allreduce(comm.rank if len(lost) else comm.size, op=MPI.MIN)
        if first < comm.size:
            entry = comm.bcast(pattern.entry(int(lost[0])) if comm.rank == first else None, root=first)
            raise CheckError(
                f"the {coloring.kind} colouring is not valid for this pattern: entry {entry} cannot be "
                "recovered from either of its rows"
            )
        return cls(pattern, coloring, source)

    def recover(self, changes: np.ndarray, taken: np.ndarray, values: np.ndarray) -> Recovered:
        """Fill `values` (nnz_local,) with the Hessian's entries.

        Collective.

        Parameters
        ----------
        changes
            (colors, n_local) gradient changes.
        taken
            (n_local,) the step of each variable.
        """
        pattern, color = self.pattern, self.coloring.with_ghosts
        indptr, columns = pattern.indptr, pattern.columns
        weight = 1.0 / pattern.exchange.halo(np.ascontiguousarray(taken))
        remote = np.empty(len(pattern.exchange.remote))
        recovery_kernels.readings(indptr, columns, color, changes, weight, self.source, remote)
        remote = pattern.exchange.mirror(remote)
        asymmetry, entry, largest = recovery_kernels.direct(
            indptr, columns, color, changes, weight, self.source, remote, values
        )
        comm = pattern.comm
        largest, (worst, rank) = (
            comm.allreduce(float(largest), op=MPI.MAX),
            comm.allreduce((asymmetry, comm.rank), op=MPI.MAXLOC),
        )
        where = comm.bcast(pattern.entry(entry) if comm.rank == rank and worst > 0 else None, root=rank)
        return Recovered(worst, where, largest)
