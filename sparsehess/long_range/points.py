"""Where the points of an objective are, and what is known of each: distributed, a rank's share going round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.long_range.boxes import Box, box_of
from sparsehess.runtime import agreement
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import reals

# More labels than these have more pairs than a fit can tell apart.
_LABELS = 8


class Share(NamedTuple):
    """Some points that follow each other.

    Attributes
    ----------
    first
        Number of the first one.
    positions
        (m, d).
    labels
        (m,) int, from 0; all 0 where there are none.
    charges
        (m,), or None.
    """

    first: int
    positions: np.ndarray
    labels: np.ndarray
    charges: np.ndarray | None

    def part(self, begin: int, end: int) -> Share:
        """Return the points begin to end - 1 of these. Not collective."""
        charges = None if self.charges is None else self.charges[begin:end]
        return Share(self.first + begin, self.positions[begin:end], self.labels[begin:end], charges)


@dataclass(frozen=True, eq=False, repr=False)
class Points(ShortRepr):
    """The points whose coordinates are the variables, as many each as the space has dimensions.

    Attributes
    ----------
    layout
        Points of each rank.
    own
        Those of this rank.
    box
        By what they repeat.
    kinds
        How many different labels there are.
    """

    layout: Layout
    own: Share
    box: Box
    kinds: int = 1

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(self.layout.n, 'point')} in {number_of(self.dims, 'dimension')}"

    @property
    def dims(self) -> int:
        """How many coordinates a point has. Not collective."""
        return self.own.positions.shape[1]

    @classmethod
    def of(
        cls,
        objective: Objective,
        positions: Any = None,
        box: Any = None,
        labels: Sequence[Any] | None = None,
        charges: Any = None,
    ) -> Points:
        """Return the points of an objective.

        Collective.

        Parameters
        ----------
        positions
            (N, d); default those of the objective's geometry, and then box, labels and charges are by default
            those of its cell, its species, up to 8 different ones, and its charges. Of an objective on PETSc
            vectors those of this rank's variables; so are labels and charges.
        box
            (d,) lengths, or (d, d) vectors as rows; 0 or infinite where the space is open, None where it is
            altogether.
        labels
            N names: points of two of them have kernels of their own.
        charges
            (N,) numbers.

        Raises
        ------
        InputError
            They are not the points of these variables.
        """
        comm = objective.comm
        with agreement(comm):
            if positions is None:
                where, told = _told(objective)
                box = told["box"] if box is None else box
                labels = told["labels"] if labels is None else labels
                charges = told["charges"] if charges is None else charges
            else:
                where = reals(positions, "points")
            if where.ndim != 2 or where.shape[1] not in (1, 2, 3) or not np.isfinite(where).all():
                raise InputError(f"points must be (points, 1 to 3) finite numbers, not {where.shape}")
            repeats = box_of(box, where.shape[1])
            if charges is not None:
                charges = reals(charges, "charges")
                if charges.shape != where.shape[:1] or not np.isfinite(charges).all():
                    raise InputError(f"charges must be a finite number a point, not {charges.shape}")
            if labels is not None and len(labels) != len(where):
                raise InputError(f"there are {len(where)} points here, and {len(labels)} labels")
        layout = _layout(objective, len(where), where.shape[1])
        mine = slice(None) if objective.distributed else slice(layout.start, layout.stop)
        numbers, kinds = _numbered(comm, labels, len(where))
        own = Share(layout.start, where[mine], numbers[mine], None if charges is None else charges[mine])
        return cls(layout, own, repeats, kinds)

    def shares(self, *arrays: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """Yield (share, *arrays) of each rank in turn: its points, and its arrays.

        Collective.
        """
        comm = self.layout.comm
        for rank in range(comm.size):
            yield comm.bcast((self.own, *arrays) if rank == comm.rank else None, root=rank)

    def apart(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return (m, k, d) from points (k, d) to points (m, d), to the nearest image. Not collective."""
        return self.box.nearest(left[:, None] - right[None])

    def within(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (first, second) numbers of points no farther apart than a radius, the first ones this rank's.

        Collective.
        """
        first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for (share,) in self.shares():
            if len(share.positions) and len(self.own.positions):
                mine, other = self.box.pairs(self.own.positions, share.positions, radius)
                first.append(mine + self.own.first)
                second.append(other + share.first)
        return np.concatenate(first), np.concatenate(second)

    def extent(self) -> tuple[float, float]:
        """Return (about the distance between neighbours, one that no two points exceed). Collective."""
        sides, widest = self.box.sides(self._between)
        wide = np.maximum(sides, 1e-3 * sides.max(initial=0.0))
        return float((wide.prod() / self.layout.n) ** (1 / len(wide))), widest

    def _between(self, directions: np.ndarray) -> np.ndarray:
        """Return (m,) how far all points reach along directions (d, m). Collective."""
        comm, own = self.layout.comm, self.own.positions @ directions
        low, high = own.min(axis=0, initial=np.inf), own.max(axis=0, initial=-np.inf)
        comm.Allreduce(MPI.IN_PLACE, low, op=MPI.MIN)
        comm.Allreduce(MPI.IN_PLACE, high, op=MPI.MAX)
        return high - low


def _told(objective: Objective) -> tuple[np.ndarray, dict[str, Any]]:
    """Return positions of the nodes of an objective's geometry that its variables move, and what else it tells.

    Not collective.
    """
    geometry = objective.geometry
    if geometry is None:
        raise InputError(f"{objective.name} does not say where its points are: give points=, or it a geometry")
    free = geometry.variables.min(axis=1) >= 0
    if ((geometry.variables >= 0).any(axis=1) != free).any():
        raise InputError("points that are held along some axes only have no far part: hold them, or let them free")
    dims, variables = geometry.positions.shape[1], geometry.variables[free].ravel()
    if geometry.variables.shape[1] != dims or (np.diff(variables) != 1).any():
        raise InputError(f"the variables of {objective.name} are not {dims} a point, point by point: give points=")
    labels = None
    if geometry.species is not None and len(set(geometry.species)) <= _LABELS:
        labels = [name for name, moves in zip(geometry.species, free, strict=True) if moves]
    told = {
        "box": geometry.cell,
        "labels": labels,
        "charges": None if geometry.charges is None else geometry.charges[free],
    }
    return geometry.positions[free], told


def _layout(objective: Objective, here: int, dims: int) -> Layout:
    """Return the points of each rank, whose variables are those of the objective. Collective."""
    comm = objective.comm
    layout = Layout.from_local(here, comm) if objective.distributed else Layout.from_size(here, comm)
    if layout.n * dims != objective.n:
        raise InputError(
            f"{layout.n} points in {dims} dimensions are {layout.n * dims} variables, and {objective.name} has "
            f"{objective.n}"
        )
    if objective.distributed and not np.array_equal(layout.starts * dims, objective.layout.starts):
        raise InputError("every rank must have the variables of whole points, and give those points")
    return layout


def _numbered(comm: MPI.Comm, labels: Sequence[Any] | None, many: int) -> tuple[np.ndarray, int]:
    """Return (numbers (m,), how many there are) of labels, numbered alike on all ranks. Collective."""
    if labels is None:
        return np.zeros(many, np.int64), 1
    names = [str(one) for one in labels]
    known = sorted(set().union(*comm.allgather(set(names))))
    if len(known) > _LABELS:
        raise InputError(f"{len(known)} different labels: at most {_LABELS} have kernels of their own")
    number = {name: at for at, name in enumerate(known)}
    return np.array([number[name] for name in names], np.int64), max(len(known), 1)
