"""Evaluations: gradients and products of an objective at one point, on all ranks, counted.

A *group* of ranks evaluates one gradient. With a replicated gradient every rank is a group of its own, with a
distributed one all ranks are the only group, and `Objective.in_groups` makes anything between. What groups are
asked for, and how it is dealt to them, stands in `rounds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.compressed_products import CompressedProducts
from sparsehess.derivatives.elements import Elements
from sparsehess.derivatives.objective import Objective, same_on_all
from sparsehess.derivatives.recorder import ElementSums, Recorder
from sparsehess.derivatives.rounds import Evaluate, Rounds
from sparsehess.derivatives.row_transfer import RowTransfer
from sparsehess.derivatives.user_functions import ArrayCalls, Calls, VecCalls
from sparsehess.errors import CheckError
from sparsehess.runtime import agreement

if TYPE_CHECKING:
    from petsc4py import PETSc


# (values, weight) of the gradients of a sum: where variables stand, None for x itself.
Nodes = Sequence[tuple[np.ndarray | None, float]]


class Evaluations:
    """Gradients and products of an objective at one point, counted.

    Collective to make and to use. What a function raises, and what is not finite, is raised on all
    ranks: EvaluationError, and CheckError that names the variable.

    Attributes
    ----------
    x
        (n_local,) the point.
    counts
        Calls so far of `gradient`, `hvp` and `energy`, over all groups.
    seconds
        What they have taken so far, with what ranks had to tell each other.
    on_color
        Called as on_color(pieces of work begun, pieces); may raise, on any rank.
    """

    def __init__(self, objective: Objective, x: np.ndarray | PETSc.Vec) -> None:
        self.objective = objective
        self.comm, self.layout = objective.comm, objective.layout
        self.counts = {"gradient": 0, "hvp": 0, "energy": 0}
        self.on_color: Callable[[int, int], None] = _show_nothing
        self.seconds = 0.0
        inner = objective.group or objective
        if not inner.distributed:
            x = same_on_all(x, self.comm, objective.name)
        self._calls: Calls = (VecCalls if inner.distributed else ArrayCalls)(inner, x, self.comm.rank)
        self._group: MPI.Comm = inner.comm if inner.distributed else MPI.COMM_SELF
        self._transfer = RowTransfer(self.comm, self.layout, self._calls.first, len(self._calls.x))
        self._rounds = Rounds(self.comm, self._group, self._transfer, objective.summed)
        # The gradient at x, once it was needed; this rank's rows of its group.
        self._base: np.ndarray | None = None
        # The first group speaks for all, which have the same point.
        self._first = bool(self._group.allreduce(self.comm.rank == 0, op=MPI.LOR))
        holders = self.comm.allgather([0] if self._first else [])
        self.x = self._transfer.to_owners(holders, [self._calls.x] if self._first else [], 1)[0]

    @property
    def recorder(self) -> Recorder:
        """What saves gradients and products, and looks them up."""
        return self._rounds.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder) -> None:
        self._rounds.recorder = recorder

    @contextmanager
    def at(self, point: np.ndarray) -> Iterator[Evaluations]:
        """Give the evaluations at another point, of (n_local,) values, in a block. Collective."""
        with self._calls.point(self._transfer.to_group(point)) as x:
            yield Evaluations(self.objective, x)

    def changes(self, colors: np.ndarray, count: int, nodes: Nodes) -> np.ndarray:
        """Return (count, n_local) weighted sums of gradients, the variables of one colour moved at a time.

        Collective. Costs a gradient for each node and colour; for all nodes without values together, one.

        Parameters
        ----------
        colors
            (n_local,) from 0 to count - 1; -1 for variables that stay.
        nodes
            Pairs (values, weight): for each gradient of the sum, (n_local,) where the variables of the colour
            stand, complex for the imaginary part of the gradient there; None is x itself.
        """
        with self._timed():
            order, ends = _classes(self._transfer.to_group(colors), count)
            moved, resting = self._split(nodes)
            base = resting * self._gradient_here() if resting else None
            request = self.recorder.describe(self.layout, "changes", colors, nodes=len(moved))
            parts = self.recorder.parts(len(moved))

            def evaluate(units: np.ndarray, rows: np.ndarray, piece: int = -1) -> None:
                color, part = divmod(int(units[0]), parts)
                group = order[ends[color] : ends[color + 1]]
                some = moved if parts == 1 else moved[part : part + 1]
                some = some if piece < 0 else some[piece : piece + 1]
                begun = base is not None and part + max(piece, 0) == 0
                if begun:
                    rows[0] = base
                for values, weight in some:
                    _add(rows[0], self._calls.gradient(group, values[group]), weight, begun)
                    begun = True
                self._check_finite(rows[0], color if count > 1 else None)

            pieces = max(len(moved) // parts, 1)
            out = self._rounds.run(request, count, parts, evaluate, 1, self.on_color, pieces)
            self._count(count * len(moved))
            return out

    def gradients(self, points: list[np.ndarray]) -> np.ndarray:
        """Return (m, n_local) the gradients at m points, each given as (n_local,) values.

        Collective.
        """
        with self._timed():
            wanted = [self._transfer.to_group(point) for point in points]
            every = np.arange(self._transfer.held)

            def evaluate(units: np.ndarray, rows: np.ndarray, piece: int = -1) -> None:
                rows[0] = self._calls.gradient(every, wanted[units[0]])
                self._check_finite(rows[0])

            out = self._run("gradients", None, len(points), evaluate)
            self._count(len(points))
            return out

    def energies(self, points: list[np.ndarray]) -> np.ndarray:
        """Return (m,) the energies at m points, each given as (n_local,) values; the same on every rank.

        Collective. The first group of ranks evaluates them, of a sum every rank its part.
        """
        with self._timed():
            wanted = [self._transfer.to_group(point) for point in points]
            out = np.zeros(len(points))
            with agreement(self.comm):
                if self._first or self.objective.summed:
                    out[:] = [self._calls.energy(point) for point in wanted]
                    if not np.isfinite(out).all():
                        raise CheckError(f"the energy of {self.objective.name} is not finite near x")
            if self.objective.summed:
                self.comm.Allreduce(MPI.IN_PLACE, out)
            else:
                self.comm.Bcast(out)
            self.counts["energy"] += len(points)
            return out

    def products(self, colors: np.ndarray, count: int, directions: np.ndarray) -> np.ndarray:
        """Return (count, n_local) Hessian-vector products with the variables of one colour of `directions`.

        Collective. Batches of products are asked for at once where the objective has them.
        """
        with self._timed():
            held, whole = self._transfer.to_group(colors), self._transfer.to_group(directions)

            def evaluate(units: np.ndarray, rows: np.ndarray, piece: int = -1) -> None:
                seeds, place = np.zeros((len(rows), len(whole))), np.full(count + 1, -1)
                place[units] = np.arange(len(units))
                row = place[held]  # the last is for those without a colour
                here = np.flatnonzero(row >= 0)
                seeds[row[here], here] = whole[here]
                rows[:] = self._calls.products(seeds)
                for product, color in zip(rows, units, strict=True):
                    self._check_finite(product, color if count > 1 else None)

            out = self._run("products", colors, count, evaluate, self._batch(count))
            self.counts["hvp"] += count
            return out

    def compressed(self, products: CompressedProducts, count: int) -> np.ndarray:
        """Return (count, n) products with the variables of each colour, of a rank that has all rows.

        Collective. What was made for the colouring is asked for them, in one call.
        """
        with self._timed(), agreement(self.comm):
            out = self._calls.compressed(products)
            if not np.isfinite(np.dot(out.ravel(), out.ravel())):
                for color, product in enumerate(out):
                    self._check_finite(product, color)
            self.counts["hvp"] += count
            self.on_color(count, count)
            return out

    def along(self, directions: np.ndarray, *, by: str | None = None) -> np.ndarray:
        """Return (k, n_local) Hessian-vector products with directions (k, n_local).

        Collective. Batches of products are asked for at once where the objective has them; `by` is `hvp` or
        `hvps`, default the latter where there is that.
        """
        with self._timed():
            whole = np.array([self._transfer.to_group(row) for row in directions])

            def evaluate(units: np.ndarray, rows: np.ndarray, piece: int = -1) -> None:
                rows[:] = self._calls.products(whole[units], by)
                for product in rows:
                    self._check_finite(product)

            out = self._run("along", None, len(directions), evaluate, self._batch(len(directions)))
            self.counts["hvp"] += len(directions)
            return out

    def by_element(self, nodes: Nodes, taken: np.ndarray, sums: ElementSums) -> None:
        """Add the Hessians of all this rank's elements to sums, a column (m, k) of each kind at a time.

        Collective. A sweep over all elements counts as a gradient: those of the nodes for each variable of the
        largest elements.

        Parameters
        ----------
        nodes
            As in `changes`.
        taken
            (n_local,) what the sums are divided by.
        """
        with self._timed():
            x, taken = self._calls.x, self._transfer.to_group(taken)
            moved, resting = self._split(nodes)
            kinds = self.objective.elements or ()
            sweeps = self.comm.allreduce(max((kind.size for kind in kinds), default=0), op=MPI.MAX)
            begun = self.recorder.begin_sweeps(sums)
            bases: list[np.ndarray | float] = [0.0] * len(kinds)
            with agreement(self.comm):
                if resting and begun < sweeps:
                    bases = [resting * self._calls.slopes(kind, x[kind.members]) for kind in kinds]

            def sweep(variable: int) -> None:
                for number, kind in enumerate(kinds):
                    if variable >= kind.size:
                        continue
                    own = kind.members[:, variable]
                    total = np.zeros(kind.members.shape) + bases[number]
                    for values, weight in moved:
                        X = x[kind.members].astype(values.dtype, copy=False)
                        X[:, variable] = values[own]
                        slopes = self._calls.slopes(kind, X)
                        total += weight * (slopes.imag if slopes.dtype.kind == "c" else slopes)
                    total /= taken[own][:, None]
                    self._check_elements_finite(total, kind)
                    sums.add(number, variable, total)
                self.on_color(variable + 1, sweeps)

            for variable in range(begun, sweeps):
                with agreement(self.comm):
                    sweep(variable)
                self.recorder.end_sweep(variable + 1, variable + 1 == sweeps, sums)
            self._count(sweeps * len(moved) + bool(resting))

    def _split(self, nodes: Nodes) -> tuple[list[tuple[np.ndarray, float]], float]:
        """Return the nodes at which variables are moved, in the group's rows, and the weight of x itself."""
        moved = [(self._transfer.to_group(values), weight) for values, weight in nodes if values is not None]
        return moved, sum(weight for values, weight in nodes if values is None)

    def _run(
        self, kind: str, colors: np.ndarray | None, count: int, evaluate: Evaluate, batch: int = 1
    ) -> np.ndarray:
        """Return (count, n_local) rows of a request of this kind."""
        request = self.recorder.describe(self.layout, kind, colors)
        return self._rounds.run(request, count, 1, evaluate, batch, self.on_color)

    def _batch(self, count: int) -> int:
        """Return how many of so many products a group asks for at once."""
        batch = self.objective.batch
        if self.objective.summed:
            return batch
        return max(1, min(batch, -(-count // self._rounds.groups)))  # nobody idle while others have whole batches

    def _gradient_here(self) -> np.ndarray:
        """Return the gradient at x, this rank's rows of its group; evaluated once."""
        if self._base is None:
            none = np.zeros(0, np.int64)

            def evaluate(units: np.ndarray, rows: np.ndarray, piece: int = -1) -> None:
                rows[0] = self._calls.gradient(none, np.zeros(0))
                self._check_finite(rows[0])

            if self.objective.summed:  # each rank's own part, as the parts at other points are
                base = np.empty((1, self._transfer.held))
                with agreement(self.comm):
                    evaluate(none, base)
                self._base = base[0]
            else:
                self._base = self._transfer.to_group(self._run("here", None, 1, evaluate)[0])
            self._count(1)
        return self._base

    def _count(self, gradients: int) -> None:
        if self.objective.gradient is None:
            self.counts["energy"] += 2 * self.layout.n * gradients
        else:
            self.counts["gradient"] += gradients

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Add the time of the block to `seconds`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    def _check_finite(self, change: np.ndarray, color: int | None = None) -> None:
        with agreement(self._group):
            with np.errstate(invalid="ignore", over="ignore"):
                sound = np.isfinite(change.sum())
            bad = np.zeros(0, np.int64) if sound else np.flatnonzero(~np.isfinite(change))
            if len(bad):
                when = "" if color is None else f" when the variables of colour {color} were stepped"
                raise CheckError(
                    f"the derivatives of {self.objective.name} are not finite: {change[bad[0]]} at variable "
                    f"{self._calls.first + bad[0]} ({len(bad)} in all) on rank {self.comm.rank}{when}; is the "
                    "function defined around x?"
                )

    def _check_elements_finite(self, columns: np.ndarray, kind: Elements) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            sound = np.isfinite(columns.sum())
        if not sound:
            element, i = np.argwhere(~np.isfinite(columns))[0]
            raise CheckError(
                f"the derivatives of {self.objective.name} are not finite: {columns[element, i]} at variable "
                f"{kind.members[element, i]}, in an element of {kind.size} variables on rank {self.comm.rank}; is "
                "the function defined around x?"
            )


def _add(total: np.ndarray, gradient: np.ndarray, weight: float, begun: bool) -> None:
    """Add a weighted gradient to a total, that nothing is in yet unless it is begun."""
    with np.errstate(invalid="ignore"):  # what is not finite is found afterwards, and named
        if not begun:
            np.multiply(gradient, weight, out=total)
        elif weight in (1.0, -1.0):
            (np.add if weight > 0 else np.subtract)(total, gradient, out=total)
        else:
            total += weight * gradient


def _show_nothing(done: int, total: int) -> None:
    """Show no progress."""


def _classes(colors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (order, ends): the variables of colour c are order[ends[c] : ends[c + 1]]."""
    small = colors.astype(np.int16) if count < 2**15 else colors  # numpy sorts 16 bits by radix
    sizes = np.bincount(colors + 1, minlength=count + 1)
    return np.argsort(small, kind="stable"), np.cumsum(sizes)
