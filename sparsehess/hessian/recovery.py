"""Recovery: compressed columns back to the entries of the pattern, symmetric to the last bit.

A plan is made from pattern and colouring once; a recovery is then one pass over the entries (direct)
or over the steps of a substitution, without any search, and exchanges with the neighbours. This room
knows nothing of how the columns were evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import KINDS, Coloring
from sparsehess.coloring.definitions import directly_readable, lowest_entry
from sparsehess.coloring.substitution import order_substitution
from sparsehess.errors import CheckError
from sparsehess.hessian import recovery_kernels
from sparsehess.pattern import Pattern
from sparsehess.runtime.citations import cite


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


class Plan(Protocol):
    """Where and in which sequence each entry is read.

    Attributes
    ----------
    pattern, coloring
        What it is made from.
    amplification
        No error of a recovered entry is more than this many times the largest error of a compressed
        one (steps alike): the number of compressed entries that the entry is made of, 1 if direct.
    mean_amplification
        The mean of that number over the entries.
    """

    @property
    def pattern(self) -> Pattern:
        """See the class."""
        ...

    @property
    def coloring(self) -> Coloring:
        """See the class."""
        ...

    @property
    def amplification(self) -> float:
        """See the class."""
        ...

    @property
    def mean_amplification(self) -> float:
        """See the class."""
        ...

    def recover(self, changes: np.ndarray, taken: np.ndarray, values: np.ndarray) -> Recovered:
        """Fill `values` (nnz_local,) with the Hessian's entries.

        Collective.

        Parameters
        ----------
        changes
            (colors, n_local) gradient changes; a substitution uses them up.
        taken
            (n_local,) the step of each variable.
        """
        ...

    def variances(
        self, level: np.ndarray, weight: np.ndarray, vector: np.ndarray
    ) -> tuple[float, float, np.ndarray]:
        """Return the sum of all entries' variances, the largest, and (n_local,) those of rows times a vector.

        Collective.

        Parameters
        ----------
        level
            (n_local,) variance of each component of a gradient change.
        weight
            (n_local,) 1 / step² of each variable.
        vector
            (n_local,) what the rows are multiplied with.
        """
        ...


def plan(pattern: Pattern, coloring: Coloring) -> Plan:
    """Plan the recovery that the colouring's kind asks for.

    Collective.

    Raises
    ------
    CheckError
        An entry cannot be read: the colouring is not valid for this pattern.
    """
    cite(f"{coloring.kind} coloring")  # it may come from a file
    if KINDS[coloring.kind].elimination is None:
        return Direct.make(pattern, coloring)
    return Substitution(pattern, coloring)


@dataclass(frozen=True, eq=False)
class Readings:
    """Entries that are read one way, or both ways: then they are the mean of the two.

    Attributes
    ----------
    source
        (nnz_local,) uint8: bit 1, entry (i, j) is read in row i; bit 2, its mirror is read in row j.
        Neither: a structural zero.
    """

    pattern: Pattern
    source: np.ndarray

    def variances(
        self, level: np.ndarray, weight: np.ndarray, vector: np.ndarray
    ) -> tuple[float, float, np.ndarray]:
        """See `Plan.variances`.

        Collective.
        """
        return _variances(self.pattern, self.source, 1.0, level, weight, vector)

    def finish(self, values: np.ndarray) -> Recovered:
        """Make entries of the readings that were collected.

        Collective.
        """
        pattern = self.pattern
        other = pattern.transposed(values)
        both = self.source == 3
        difference = np.where(both, np.abs(values - other), 0.0)
        values += other  # what cannot be read is zero
        values[both] *= 0.5
        entry = int(difference.argmax()) if len(difference) else -1
        asymmetry = float(difference[entry]) if entry >= 0 else 0.0
        return _agreed(pattern, asymmetry, entry, float(np.abs(values).max(initial=0.0)))


@dataclass(frozen=True, eq=False)
class Direct(Readings):
    """Every entry is one compressed entry, or the mean of two.

    An entry (i, j) is read where it stands alone of colour c(j) in row i, its mirror where it stands alone of
    colour c(i) in row j.
    """

    coloring: Coloring
    amplification: float = 1.0
    mean_amplification: float = 1.0

    @classmethod
    def make(cls, pattern: Pattern, coloring: Coloring) -> Direct:
        """Plan a direct recovery.

        Collective.

        Raises
        ------
        CheckError
            An entry can be read neither way.
        """
        own, other = directly_readable(pattern, coloring)
        source = np.bitwise_or(own, other << 1, out=other)
        lost = np.flatnonzero(source == 0) if not source.all() else np.empty(0, np.int64)
        _all_are_read(pattern, coloring, lost[~pattern.structural_zeros(lost)])
        return cls(pattern, source, coloring)

    def recover(self, changes: np.ndarray, taken: np.ndarray, values: np.ndarray) -> Recovered:
        """See `Plan.recover`.

        Collective.
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
        return _agreed(pattern, asymmetry, entry, largest)

    @cached_property
    def reads(self) -> np.ndarray:
        """(nnz,) where each entry is read, color * n + row; on one rank. It and its mirror are read in one place.

        None at all where an entry is a structural zero, and is not read.
        """
        if not self.source.all():
            return np.zeros(0, np.int32)
        pattern, color = self.pattern, self.coloring.colors.astype(np.int64)
        rows = np.repeat(np.arange(pattern.n), np.diff(pattern.indptr))
        columns = pattern.columns
        own = (self.source == 1) | ((self.source == 3) & (rows <= columns))
        places = np.where(own, color[columns] * pattern.n + rows, color[rows] * pattern.n + columns)
        small = self.coloring.count * pattern.n < 2**31
        return places.astype(np.int32 if small else np.int64)

    def collect(self, first: int, changes: np.ndarray, taken: np.ndarray, values: np.ndarray) -> None:
        """Take from some colours, those from `first` on, what can be read of them: part of a recovery.

        Collective. After all colours `finish` makes the entries of it; `values` (nnz_local,) begins as zeros.
        """
        pattern = self.pattern
        weight = 1.0 / pattern.exchange.halo(np.ascontiguousarray(taken))
        color = self.coloring.with_ghosts
        recovery_kernels.own_readings(
            pattern.indptr, pattern.columns, color, changes, first, weight, self.source, values
        )


class Substitution:
    """Entries are read one after another, each from what the ones before it leave of a compressed entry.

    Stages end where ranks tell each other what they have read.

    Raises
    ------
    CheckError
        An entry cannot be read.
    """

    def __init__(self, pattern: Pattern, coloring: Coloring):
        found = order_substitution(pattern, coloring)
        _all_are_read(pattern, coloring, found.unread)
        self.pattern, self.coloring = pattern, coloring
        self._stages = found.stages
        comm = pattern.comm
        most, total = float(found.terms.max(initial=1.0)), float(found.terms.sum())
        self.amplification = comm.allreduce(most, op=MPI.MAX)
        self.mean_amplification = comm.allreduce(total) / max(pattern.nnz, 1)

    def recover(self, changes: np.ndarray, taken: np.ndarray, values: np.ndarray) -> Recovered:
        """See `Plan.recover`.

        Collective. As many exchanges with the neighbours as the elimination has stages.
        """
        pattern, color = self.pattern, self.coloring.with_ghosts
        columns, remote = pattern.columns, pattern.exchange.remote
        weight = 1.0 / pattern.exchange.halo(np.ascontiguousarray(taken))
        largest, entry = 0.0, -1
        values[:] = 0.0  # structural zeros are not read
        for stage in self._stages:
            asymmetry, where = recovery_kernels.substitute(
                stage.entries, stage.rows, stage.twice, stage.mirror, columns, color, changes, weight, values
            )
            if asymmetry > largest:
                largest, entry = asymmetry, where
            if pattern.comm.size == 1:
                continue
            told = pattern.exchange.mirror(values[remote])
            both, alone = stage.both, stage.heard
            difference = np.abs(values[remote[both]] - told[both])
            if len(both) and difference.max() > largest:
                largest, entry = float(difference.max()), int(remote[both[difference.argmax()]])
            values[remote[both]] = 0.5 * (values[remote[both]] + told[both])
            entries = remote[alone]
            values[entries] = told[alone]
            ghosts = columns[entries]
            np.subtract.at(changes, (color[ghosts], stage.heard_rows), told[alone] / weight[ghosts])
        return _agreed(pattern, largest, entry, float(np.abs(values).max(initial=0.0)))

    def variances(
        self, level: np.ndarray, weight: np.ndarray, vector: np.ndarray
    ) -> tuple[float, float, np.ndarray]:
        """See `Plan.variances`; of an entry as if it were read where that is quieter.

        Collective.
        """
        return _variances(self.pattern, np.zeros(0, np.uint8), self.mean_amplification, level, weight, vector)

    def deviations(self, level: np.ndarray, taken: np.ndarray, values: np.ndarray, relative: float) -> np.ndarray:
        """Return (nnz_local,) how far off entries are: the standard deviation of each.

        Collective. An entry is its compressed entry without those that were read before it, which is a sum over a
        tree of compressed entries: their errors are independent, so variances add up as the entries are taken off.
        Those of a large entry reach all that are read after it, however small they are.

        Parameters
        ----------
        level
            (n_local,) standard deviation of each component of a gradient change.
        taken
            (n_local,) the step of each variable.
        values
            (nnz_local,) the entries.
        relative
            Error of a compressed entry relative to the magnitudes it is the sum of.
        """
        pattern, color, count = self.pattern, self.coloring.with_ghosts, self.coloring.count
        n_local = pattern.layout.n_local
        rows = np.repeat(np.arange(n_local), np.diff(pattern.indptr))
        halo = pattern.exchange.halo(np.ascontiguousarray(taken))
        places = color[pattern.columns].astype(np.int64) * n_local + rows
        sizes = np.bincount(places, np.abs(values) * np.abs(halo[pattern.columns]), count * n_local)
        variances = (relative * sizes.reshape(count, n_local)) ** 2 + level**2
        found, done = np.zeros(len(values)), np.zeros(len(values), bool)
        for bit in range(max(1, int(count - 1).bit_length())):
            # A tree has two colours. Where they differ in this bit, its steps have opposite signs in turn, and
            # what a recovery takes off is added.
            signs = 1.0 - 2.0 * ((color >> bit) & 1)
            of_tree = self._added(variances.copy(), signs / halo**2)
            here = ~done & ((signs[rows] != signs[pattern.columns]) | (color[rows] == color[pattern.columns]))
            found[here] = of_tree[here]
            done |= here
        return np.sqrt(found)

    def _added(self, left: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return (nnz_local,) a recovery that adds instead of taking off, in trees whose ends have opposite signs.

        Collective. The mean of two readings is the root of a tree: nothing is read after it.

        Parameters
        ----------
        left
            (colors, n_local) what entries are read from; used up.
        weight
            (n_local + ghosts,) with signs.
        """
        pattern, color = self.pattern, self.coloring.with_ghosts
        columns, remote = pattern.columns, pattern.exchange.remote
        values = np.zeros(len(columns))
        for stage in self._stages:
            once = np.zeros(len(stage.entries), np.uint8)
            recovery_kernels.substitute(
                stage.entries, stage.rows, once, stage.mirror, columns, color, left, weight, values
            )
            mean = np.flatnonzero(stage.twice)
            entries, mirrors = stage.entries[mean], stage.mirror[mean]
            at, to = stage.rows[mean], columns[entries]
            other = np.maximum(left[color[at], to] - np.abs(values[entries] / weight[at]), 0.0) * np.abs(
                weight[at]
            )
            values[entries] = values[mirrors] = 0.25 * (np.abs(values[entries]) + other)
            if pattern.comm.size == 1:
                continue
            told = pattern.exchange.mirror(values[remote])
            both, alone = remote[stage.both], remote[stage.heard]
            values[both] = 0.25 * (np.abs(values[both]) + np.abs(told[stage.both]))
            values[alone] = told[stage.heard]
            ghosts = columns[alone]
            np.subtract.at(left, (color[ghosts], stage.heard_rows), values[alone] / weight[ghosts])
        return np.abs(values)


def _variances(
    pattern: Pattern,
    source: np.ndarray,
    amplification: float,
    level: np.ndarray,
    weight: np.ndarray,
    vector: np.ndarray,
) -> tuple[float, float, np.ndarray]:
    """Return what `Plan.variances` returns, for entries read from these sources. Collective."""
    rows, halo, comm = np.empty(pattern.layout.n_local), pattern.exchange.halo, pattern.comm
    total, largest = recovery_kernels.variances(
        pattern.indptr, pattern.columns, source, amplification, halo(level), halo(weight), halo(vector**2), rows
    )
    return comm.allreduce(total), comm.allreduce(largest, op=MPI.MAX), rows


def _agreed(pattern: Pattern, asymmetry: float, entry: int, largest: float) -> Recovered:
    comm = pattern.comm
    largest, (worst, rank) = (
        comm.allreduce(float(largest), op=MPI.MAX),
        comm.allreduce((asymmetry, comm.rank), op=MPI.MAXLOC),
    )
    where = comm.bcast(pattern.entry(entry) if comm.rank == rank and worst > 0 else None, root=rank)
    return Recovered(worst, where, largest)


def _all_are_read(pattern: Pattern, coloring: Coloring, lost: np.ndarray) -> None:
    """Raise CheckError if any rank has lost entries. Collective."""
    entry = lowest_entry(pattern, lost)
    if entry is not None:
        raise CheckError(
            f"the {coloring.kind} colouring is not valid for this pattern: entry {entry} cannot be recovered "
            "from either of its rows"
        )
