"""`Objective`: what a user brings, and how its functions are called on any number of ranks.

Two forms of a gradient, told apart by the type of `x`. *Replicated*: x is an ndarray, every rank
can evaluate `gradient(x) -> ndarray` alone, and different ranks evaluate different colours.
*Distributed*: x is a PETSc Vec with the user's layout, and `gradient(x, g)` fills the Vec g
collectively, one colour after another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sparsehess.errors import CheckError, EvaluationError, InputError
from sparsehess.pattern import Layout, Pattern
from sparsehess.pattern.layout import offsets
from sparsehess.runtime import PETSc, agreement, communicator
from sparsehess.units import Units


@dataclass(frozen=True, eq=False, kw_only=True)
class Objective:
    """A function that can be differentiated once, at a point.

    Collective to make.

    Attributes
    ----------
    x
        (n,) ndarray, the same on every rank (replicated), or a PETSc Vec (distributed).
        It is where the Hessian is taken.
    gradient
        `gradient(x) -> (n,) ndarray`, or `gradient(x, g)` on Vecs. The array or Vec it gets belongs
        to sparsehess and is used again: read it, do not keep or change it.
    pattern
        Which variables may be coupled.
    hvp
        Optional Hessian-vector product, `hvp(x, v) -> ndarray`, or `hvp(x, v, y)` on Vecs.
    energy
        Optional, `energy(x) -> float`.
    mass
        Optional mass matrix of the generalised problem H u = λ M u: an (n,) diagonal, a SciPy
        matrix (both the same on every rank) or a PETSc Mat.
    null_vectors
        Optional (m, n) array, the same on every rank, or list of Vecs: known null vectors, such as
        the rigid-body modes of a free structure. They are checked and deflated.
    null_names
        Optional names of the null vectors, for reports.
    typical_x
        Optional scale of the variables, a number or (n,): the distance over which the gradient
        changes by its own size, in the units of x. Default: see `differences.steps`.
    units
        Optional, what an eigenvalue means: `Units.of("eV", "angstrom", "amu")` and others.
    name
        For reports.
    comm
        mpi4py or petsc4py communicator; for a Vec it is the Vec's own.
    """

    x: np.ndarray | PETSc.Vec
    gradient: Callable
    pattern: Pattern | None = None
    hvp: Callable | None = None
    energy: Callable | None = None
    mass: object = None
    null_vectors: object = None
    null_names: tuple[str, ...] = ()
    typical_x: float | np.ndarray | None = None
    units: Units | None = None
    name: str = "objective"
    comm: object = field(default=None, repr=False)

    def __post_init__(self):
        if isinstance(self.x, PETSc.Vec):
            comm = communicator(self.x.comm)
        else:
            comm = communicator(self.comm)
            x = np.array(self.x, dtype=np.float64)
            if x.ndim != 1:
                raise InputError(f"x must be a vector; its shape is {x.shape}")
            x.flags.writeable = False
            object.__setattr__(self, "x", x)
        object.__setattr__(self, "comm", comm)
        for name in ("gradient", "hvp", "energy"):
            function = getattr(self, name)
            if not (callable(function) or (function is None and name != "gradient")):
                raise InputError(f"{name} must be a function, not {type(function).__name__}")
        if self.pattern is not None and self.pattern.n != self.n:
            raise InputError(f"the pattern has {self.pattern.n} variables, x has {self.n}")

    @property
    def n(self) -> int:
        return self.x.getSize() if self.distributed else len(self.x)

    @property
    def distributed(self) -> bool:
        return isinstance(self.x, PETSc.Vec)

    @cached_property
    def layout(self) -> Layout:
        """Rows of each rank: the Vec's, the pattern's, or PETSc's even one. Collective the first time."""
        if self.distributed:
            return Layout.from_local(self.x.getLocalSize(), self.comm)
        return self.pattern.layout if self.pattern is not None else Layout.from_size(self.n, self.comm)

    def at(self, x) -> Evaluations:
        """Return the evaluations of this objective at x, of the same kind as the objective's own x.

        Collective.
        """
        return (DistributedEvaluations if self.distributed else ReplicatedEvaluations)(self, x)

    def local(self, values) -> np.ndarray:
        """Return the local rows of an (n,) array that every rank holds, of a scalar, or of a Vec.

        Not collective.
        """
        if isinstance(values, PETSc.Vec):
            return values.getArray(readonly=True)
        array = np.asarray(values, np.float64)
        if array.ndim == 0:
            return np.full(self.layout.n_local, float(array))
        if array.shape != (self.n,):
            raise InputError(f"expected a number or ({self.n},) values, not shape {array.shape}")
        return array[self.layout.start : self.layout.stop]


class Evaluations(ABC):
    """Gradient changes and products of an objective at one point, counted.

    `changes` is the one question: for colours and steps, how does the gradient change when all
    variables of a colour take their step together?
    """

    def __init__(self, objective: Objective):
        self.objective = objective
        self.comm = objective.comm
        self.layout = objective.layout
        self.counts = {"gradient": 0, "hvp": 0, "energy": 0}
        self.on_color: Callable[[int, int], None] = lambda done, total: None
        self._gradient_here: np.ndarray | None = None  # at the point itself, once it was needed

    @abstractmethod
    def changes(self, colors: np.ndarray, steps: np.ndarray, count: int, scheme: str):
        """Return (changes, taken): gradient changes (count, n_local) and the steps made (n_local,).

        Collective.

        Parameters
        ----------
        colors
            (n_local,) from 0 to count - 1; -1 for variables that stay.
        steps
            (n_local,) wanted steps.
        scheme
            `central`: g(x + s) - g(x - s), and `taken` is the whole way from one to the other;
            `forward`: g(x + s) - g(x); `product`: hvp(x, s).

        Raises
        ------
        EvaluationError
            The function raised, or returned a wrong shape; on every rank.
        CheckError
            It returned a number that is not finite; the message names the variable.
        """

    def _called(self, name: str, *arguments):
        """Call the user's function; what it raises becomes an EvaluationError that names the rank."""
        try:
            return getattr(self.objective, name)(*arguments)
        except Exception as error:  # the user's code may raise anything
            raise EvaluationError(
                f"the {name} of {self.objective.name} raised {type(error).__name__} on rank "
                f"{self.comm.rank}: {' '.join(str(error).split())}"
            ) from error

    def _finite(self, change: np.ndarray, first: int, color: int) -> None:
        if np.isfinite(change.sum()):
            return
        bad = np.flatnonzero(~np.isfinite(change))
        if len(bad):
            raise CheckError(
                f"the derivatives of {self.objective.name} are not finite: {change[bad[0]]} at variable "
                f"{first + bad[0]} ({len(bad)} in all) when the variables of colour {color} were stepped; "
                "is the function defined around x?"
            )


def _classes(colors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (order, ends): the variables of colour c are order[ends[c] : ends[c + 1]].

    Not collective.
    """
    small = colors.astype(np.int16) if count < 2**15 else colors  # numpy sorts 16 bits by radix
    sizes = np.bincount(colors + 1, minlength=count + 1)
    return np.argsort(small, kind="stable"), np.cumsum(sizes)


def stepped(x: np.ndarray, steps: np.ndarray, scheme: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (upper, lower, taken): the points of the scheme and their exact distance in floating point.

    Not collective.
    """
    upper = x + steps
    lower = x - steps if scheme == "central" else x
    return upper, lower, upper - lower


class ReplicatedEvaluations(Evaluations):
    """Every rank evaluates alone: the colours are dealt out, and each row goes to its owner."""

    def __init__(self, objective: Objective, x):
        super().__init__(objective)
        point = np.array(x, dtype=np.float64)
        if point.shape != (objective.n,):
            raise InputError(f"x must be ({objective.n},), not {point.shape}")
        self._x = point
        self._shown = point.view()  # what the user's function sees: the same memory, not to be written
        self._shown.flags.writeable = False

    @property
    def x(self) -> np.ndarray:
        return self._x[self.layout.start : self.layout.stop]

    def _vector(self, name: str, *arguments) -> np.ndarray:
        value = np.asarray(self._called(name, self._shown, *arguments))
        if value.shape != (self.objective.n,) or value.dtype.kind not in "fiu":
            raise EvaluationError(
                f"the {name} of {self.objective.name} must return ({self.objective.n},) real numbers, "
                f"not {value.dtype} of shape {value.shape}"
            )
        return value

    def changes(self, colors, steps, count, scheme):
        comm, layout, n = self.comm, self.layout, self.objective.n
        colors, steps = self._whole(colors), self._whole(steps)
        order, ends = _classes(colors, count)
        out = np.empty((count, layout.n_local))
        base = self._base(scheme)
        # Each round every rank takes one colour, evaluates it and sends each owner its rows.
        own = None if comm.size == 1 else np.empty(n)
        for first in range(0, count, comm.size):
            color = first + comm.rank
            active = min(comm.size, count - first)
            with agreement(comm):
                if color < count:
                    group = order[ends[color] : ends[color + 1]]
                    change = out[color] if own is None else own
                    self._one(group, steps[group], base, scheme, change)
                    self._finite(change, 0, color)
            if own is not None:
                counts = layout.counts if color < count else np.zeros(comm.size, np.int64)
                into = np.where(np.arange(comm.size) < active, layout.n_local, 0)
                comm.Alltoallv(
                    [own, (counts, offsets(counts))], [out[first : first + active], (into, offsets(into))]
                )
            self.on_color(first + active, count)
        self.counts["hvp" if scheme == "product" else "gradient"] += count * (2 if scheme == "central" else 1)
        if scheme == "product":
            return out, self.objective.local(steps)
        return out, stepped(self.x, steps[layout.start : layout.stop], scheme)[2]

    def _one(self, group, steps, base, scheme, change) -> None:
        if scheme == "product":
            direction = np.zeros(self.objective.n)
            direction[group] = steps
            change[:] = self._vector("hvp", direction)
            return
        here = self._x[group]
        upper, lower, _ = stepped(here, steps, scheme)
        try:
            self._x[group] = upper
            change[:] = self._vector("gradient")
            if scheme == "central":
                self._x[group] = lower
                base = self._vector("gradient")
            with np.errstate(invalid="ignore"):  # what is not finite is found by the caller, and named
                change -= base
        finally:
            self._x[group] = here

    def _base(self, scheme: str) -> np.ndarray | None:
        """Return the gradient at x itself where the scheme needs it: evaluated once, on rank 0."""
        if scheme != "forward" or self._gradient_here is not None:
            return self._gradient_here
        base = np.empty(self.objective.n)
        with agreement(self.comm):
            if self.comm.rank == 0:
                base[:] = self._vector("gradient")
        self.counts["gradient"] += 1
        self.comm.Bcast(base)
        self._gradient_here = base
        return base

    def _whole(self, local: np.ndarray) -> np.ndarray:
        if self.comm.size == 1:
            return local
        whole = np.empty(self.objective.n, local.dtype)
        counts = self.layout.counts
        self.comm.Allgatherv(np.ascontiguousarray(local), [whole, (counts, offsets(counts))])
        return whole


class DistributedEvaluations(Evaluations):
    """All ranks evaluate one colour together, on the user's vectors."""

    def __init__(self, objective: Objective, x: PETSc.Vec):
        super().__init__(objective)
        if x.getLocalSize() != self.layout.n_local:
            raise InputError(f"x has {x.getLocalSize()} local rows, the objective's own {self.layout.n_local}")
        self._x = x

    @property
    def x(self) -> np.ndarray:
        return self._x.getArray(readonly=True)

    def _vector(self, name: str, *arguments) -> np.ndarray:
        with agreement(self.comm):
            self._called(name, *arguments)
        return arguments[-1].getArray(readonly=True)

    def changes(self, colors, steps, count, scheme):
        at, result, direction = self._x.duplicate(), self._x.duplicate(), self._x.duplicate()
        try:
            out = np.empty((count, self.layout.n_local))
            upper, lower, taken = stepped(self.x, steps, scheme)
            base = self._gradient_here if scheme == "forward" else None
            if scheme == "forward" and base is None:
                self._x.copy(at)
                base = self._gradient_here = self._vector("gradient", at, result).copy()
                self.counts["gradient"] += 1
            for color in range(count):
                group = colors == color
                if scheme == "product":
                    self._x.copy(at)
                    direction.setArray(np.where(group, steps, 0.0))
                    out[color] = self._vector("hvp", at, direction, result)
                else:
                    at.setArray(np.where(group, upper, self.x))
                    out[color] = self._vector("gradient", at, result)
                    if scheme == "central":
                        at.setArray(np.where(group, lower, self.x))
                        base = self._vector("gradient", at, result)
                    with np.errstate(invalid="ignore"):
                        out[color] -= base
                with agreement(self.comm):
                    self._finite(out[color], self.layout.start, color)
                self.on_color(color + 1, count)
            self.counts["hvp" if scheme == "product" else "gradient"] += count * (2 if scheme == "central" else 1)
            return out, steps if scheme == "product" else taken
        finally:
            for vector in (at, result, direction):
                vector.destroy()
