"""How the user's functions are called on many ranks: shared out, all together, or by groups.

A *group* of ranks evaluates one gradient. With a replicated gradient every rank is a group of its
own, with a distributed one all ranks are the only group, and `Objective.in_groups` makes anything
between. Groups share out the work (`work`); in the end every row goes to the rank that owns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.row_transfer import Traffic
from sparsehess.derivatives.user_functions import ArrayCalls, VecCalls
from sparsehess.errors import CheckError
from sparsehess.runtime import agreement, raise_together
from sparsehess.runtime.random_numbers import digest
from sparsehess.runtime.work_stealing import Work

if TYPE_CHECKING:
    from sparsehess.derivatives.elements import Gathering
    from sparsehess.hessian.evaluation_journal import Journal


def _timed(method):
    """Add the time of a method to `seconds`."""

    @wraps(method)
    def timed(self, *arguments, **named):
        began = time.perf_counter()
        try:
            return method(self, *arguments, **named)
        finally:
            self.seconds += time.perf_counter() - began

    return timed


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
    journal
        Where gradients and products are saved, and looked up; None for nowhere.
    """

    def __init__(self, objective, x):
        self.objective = objective
        self.comm, self.layout = objective.comm, objective.layout
        self.counts = {"gradient": 0, "hvp": 0, "energy": 0}
        self.on_color: Callable[[int, int], None] = lambda done, total: None
        self.seconds = 0.0
        inner = objective.group or objective
        self._calls = (VecCalls if inner.distributed else ArrayCalls)(inner, x, self.comm.rank)
        self._group = inner.comm if inner.distributed else MPI.COMM_SELF
        self._traffic = Traffic(self.comm, self.layout, self._calls.first, len(self._calls.x))
        self._groups = self.comm.allreduce(int(self._group.rank == 0))
        self._together = self._group.size == self.comm.size and not (objective.summed and self.comm.size > 1)
        # The gradient at x, once it was needed; this rank's rows of its group.
        self._base: np.ndarray | None = None
        self.journal: Journal | None = None
        first = bool(self._group.allreduce(self.comm.rank == 0, op=MPI.LOR))  # all groups have the same point
        self.x = self._traffic.up([0] if first else [], [self._calls.x] if first else [], 1)[0]

    @_timed
    def changes(self, colors: np.ndarray, count: int, nodes) -> np.ndarray:
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
        order, ends = _classes(self._traffic.down(colors), count)
        moved = [(self._traffic.down(values), weight) for values, weight in nodes if values is not None]
        resting = sum(weight for values, weight in nodes if values is None)
        base = self._gradient_here() if resting else None
        asked = self._asked("changes", colors, nodes=len(moved))
        # Where gradients are saved each is a piece of work of its own: no finished one is lost with another.
        parts = 1 if self.journal is None else len(moved)

        def one(units, into):
            color, part = divmod(int(units[0]), parts)
            group = order[ends[color] : ends[color + 1]]
            into[0] = 0.0 if base is None or part else resting * base
            for values, weight in moved if parts == 1 else moved[part : part + 1]:
                gradient = self._calls.gradient(group, values[group])
                with np.errstate(invalid="ignore"):  # what is not finite is found below, and named
                    into[0] += gradient if weight == 1 else weight * gradient
            self._finite(into[0], color)

        out = self._evaluated(count, one, asked, parts=parts)
        self._count(count * len(moved))
        return out

    @_timed
    def gradients(self, points: list[np.ndarray]) -> np.ndarray:
        """Return (m, n_local) the gradients at m points, each given as (n_local,) values.

        Collective.
        """
        wanted = [self._traffic.down(point) for point in points]
        every = np.arange(len(self._calls.x))

        def one(units, into):
            into[0] = self._calls.gradient(every, wanted[units[0]])
            self._finite(into[0], None)

        out = self._evaluated(len(points), one, self._asked("gradients"))
        self._count(len(points))
        return out

    @_timed
    def products(self, colors: np.ndarray, count: int, directions: np.ndarray) -> np.ndarray:
        """Return (count, n_local) Hessian-vector products with the variables of one colour of `directions`.

        Collective. Batches of products are asked for at once where the objective has them.
        """
        asked = self._asked("products", colors)
        colors, whole = self._traffic.down(colors), self._traffic.down(directions)
        batch = self.objective.batch
        if not self.objective.summed:  # nobody idle while others have whole batches
            batch = max(1, min(batch, -(-count // self._groups)))

        def one(units, into):
            seeds, place = np.zeros((len(into), len(whole))), np.full(count + 1, -1)
            place[units] = np.arange(len(units))
            rows = place[colors]  # the last is for those without a colour
            here = np.flatnonzero(rows >= 0)
            seeds[rows[here], here] = whole[here]
            into[:] = self._calls.products(seeds)
            for row, color in enumerate(units):
                self._finite(into[row], color)

        out = self._evaluated(count, one, asked, batch)
        self.counts["hvp"] += count
        return out

    @_timed
    def along(self, directions: np.ndarray) -> np.ndarray:
        """Return (k, n_local) Hessian-vector products with directions (k, n_local).

        Collective. Batches of products are asked for at once where the objective has them.
        """
        whole = np.array([self._traffic.down(row) for row in directions])
        batch = self.objective.batch
        if not self.objective.summed:  # as for the colours
            batch = max(1, min(batch, -(-len(directions) // self._groups)))

        def one(units, into):
            into[:] = self._calls.products(whole[units])
            for row in range(len(into)):
                self._finite(into[row], None)

        out = self._evaluated(len(directions), one, self._asked("along"), batch)
        self.counts["hvp"] += len(directions)
        return out

    @_timed
    def by_element(self, nodes, taken: np.ndarray, gathering: Gathering) -> None:
        """Add the Hessians of all this rank's elements to a gathering, a column (m, k) of each kind at a time.

        Collective. A sweep over all elements counts as a gradient: those of the nodes for each variable of the
        largest elements.

        Parameters
        ----------
        nodes
            As in `changes`.
        taken
            (n_local,) what the sums are divided by.
        """
        x, taken = self._calls.x, self._traffic.down(taken)
        moved = [(self._traffic.down(values), weight) for values, weight in nodes if values is not None]
        resting = sum(weight for values, weight in nodes if values is None)
        kinds = self.objective.elements
        steps = self.comm.allreduce(max((kind.size for kind in kinds), default=0), op=MPI.MAX)
        begun = 0 if self.journal is None else self.journal.begin_sweeps(gathering)
        here = []

        def sweep(variable):
            for number, kind in enumerate(kinds):
                if variable >= kind.size:
                    continue
                own = kind.members[:, variable]
                total = np.zeros(kind.members.shape) + here[number]
                for values, weight in moved:
                    X = x[kind.members].astype(values.dtype, copy=False)
                    X[:, variable] = values[own]
                    slopes = self._calls.slopes(kind, X)
                    total += weight * (slopes.imag if slopes.dtype.kind == "c" else slopes)
                total /= taken[own][:, None]
                self._elements_finite(total, kind)
                gathering.add(number, variable, total)
            self.on_color(variable + 1, steps)

        with agreement(self.comm):
            if begun < steps:
                here += [resting * self._calls.slopes(kind, x[kind.members]) if resting else 0.0 for kind in kinds]
            if self.journal is None:
                for variable in range(steps):
                    sweep(variable)
        if self.journal is not None:
            for variable in range(begun, steps):
                with agreement(self.comm):
                    sweep(variable)
                self.journal.swept(variable + 1, variable + 1 == steps, gathering)
        self._count(steps * len(moved) + bool(resting))

    def _elements_finite(self, columns: np.ndarray, kind) -> None:
        if not np.isfinite(columns.sum()):
            element, i = np.argwhere(~np.isfinite(columns))[0]
            raise CheckError(
                f"the derivatives of {self.objective.name} are not finite: {columns[element, i]} at variable "
                f"{kind.members[element, i]}, in an element of {kind.size} variables on rank {self.comm.rank}; is "
                "the function defined around x?"
            )

    def _count(self, gradients: int) -> None:
        if self.objective.gradient is None:
            self.counts["energy"] += 2 * self.layout.n * gradients
        else:
            self.counts["gradient"] += gradients

    def _gradient_here(self) -> np.ndarray:
        if self._base is None:
            none = np.zeros(0, np.int64)

            def one(units, into):
                into[0] = self._calls.gradient(none, np.zeros(0))
                self._finite(into[0], None)

            if self.objective.summed:  # each rank's own part, as the parts at other points are
                base = np.empty((1, len(self._calls.x)))
                with agreement(self.comm):
                    one(none, base)
                self._base = base[0]
            else:
                self._base = self._traffic.down(self._evaluated(1, one, self._asked("here"))[0])
            self._count(1)
        return self._base

    def _asked(self, kind: str, colors: np.ndarray | None = None, **more) -> dict:
        """Return what tells a request from others, for the journal, if there is one. Collective."""
        if self.journal is None:
            return {}
        return {"kind": kind, "colors": None if colors is None else digest(self.layout, colors), **more}

    def _evaluated(self, count: int, one, asked: dict, batch: int = 1, parts: int = 1) -> np.ndarray:
        """Return (count, n_local) rows of what one(units, into) fills in, `batch` units at a time.

        Parameters
        ----------
        asked
            Of the request, for the journal.
        parts
            Consecutive units of which each row is the sum.
        """

        def tell(unit):
            self.on_color(int(unit) // parts + 1, count)

        if self.journal is None:
            return self._round(np.arange(count), one, batch, tell)[0]
        record = self.journal.begin(asked, count, parts)
        while not record.done.all():
            left = np.flatnonzero(~record.done)
            if self._together or self.objective.summed:
                left = left[:batch]  # nobody goes on alone: all look up together after each
            rows, done = self._round(left, one, batch, tell)
            for unit, row in zip(left[done], rows[done], strict=True):
                record.rows[unit // parts] += row
            record.done.flat[left[done]] = True
            self.journal.look()
        return self.journal.handed_out(record)

    def _round(self, left: np.ndarray, one, batch: int, tell) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows (m, n_local), done (m,)) of these units: of all, or of those until a save is due."""
        m = len(left)
        if self._together:
            out = np.empty((m, self.layout.n_local))
            for first in range(0, m, batch):
                units = left[first : first + batch]
                one(units, out[first : first + len(units)])
                with agreement(self.comm):  # it may end the work, on all ranks then
                    tell(units[-1])
            return out, np.ones(m, bool)
        numbers, vectors, error = [], [], None
        work = Work(self.comm, self._group, -(-m // batch), self.objective.summed)
        try:
            for task in work:
                units = left[task * batch : (task + 1) * batch]
                rows = np.empty((len(units), len(self._calls.x)))
                one(units, rows)
                numbers += range(task * batch, task * batch + len(units))
                vectors += list(rows)
                tell(units[-1])
                if self.journal is not None and self._group.allreduce(self.journal.wanted, op=MPI.LOR):
                    work.stop()
        except Exception as caught:  # the others must hear of it, and stop
            error = caught
        work.finish(error)
        raise_together(self.comm, error)
        if self.objective.summed:
            return self._traffic.summed(vectors), np.ones(m, bool)
        done = np.ones(m, bool)
        if self.journal is not None:
            done[:] = False
            done[np.concatenate(self.comm.allgather(np.array(numbers, np.int64)))] = True
        return self._traffic.up(numbers, vectors, m), done

    def _finite(self, change: np.ndarray, color: int | None) -> None:
        with agreement(self._group):
            bad = np.flatnonzero(~np.isfinite(change)) if not np.isfinite(change.sum()) else ()
            if len(bad):
                when = "" if color is None else f" when the variables of colour {color} were stepped"
                raise CheckError(
                    f"the derivatives of {self.objective.name} are not finite: {change[bad[0]]} at variable "
                    f"{self._calls.first + bad[0]} ({len(bad)} in all) on rank {self.comm.rank}{when}; is the "
                    "function defined around x?"
                )


def _classes(colors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (order, ends): the variables of colour c are order[ends[c] : ends[c + 1]]."""
    small = colors.astype(np.int16) if count < 2**15 else colors  # numpy sorts 16 bits by radix
    sizes = np.bincount(colors + 1, minlength=count + 1)
    return np.argsort(small, kind="stable"), np.cumsum(sizes)
