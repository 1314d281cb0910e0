"""Calls of the user's functions, on one rank's rows of its group; what they raise and return is looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from sparsehess.derivatives.compressed_products import CompressedProducts
from sparsehess.derivatives.elements import Elements
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.returned_values import COMPLEX, REAL, as_number, as_vector
from sparsehess.errors import EvaluationError, InputError, raised
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.guards import NO_GUARD, Guard, guard_of
from sparsehess.runtime.validation import reals

# A step for differences of energies, in typical lengths: what it leaves out is smooth, so that the Hessian, which
# differentiates once more, suffers from their noise alone, and that falls with the step.
_ENERGY_STEP = 1e-4


def typical_length(squares: float, n: int) -> float:
    """Return 1, or the root mean square of x where that is smaller (x in metres of nanometre things).

    Not collective. `squares` is the sum over all n variables.
    """
    rms = float(np.sqrt(squares / max(n, 1)))
    return rms if 0 < rms < 1 else 1.0


class Calls(ABC):
    """Calls of the functions of an objective on this rank's rows of its group.

    Attributes
    ----------
    x
        (held,) the point.
    first
        Number of the first variable of x.
    rank
        That errors name: among all, not in the group.
    guard
        Asked before each call.
    """

    first: int
    guard: Guard = NO_GUARD

    def __init__(self, objective: Objective, rank: int) -> None:
        self.objective, self.rank = objective, rank

    @property
    @abstractmethod
    def x(self) -> np.ndarray:
        """See the class."""

    @abstractmethod
    def gradient(self, variables: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the gradient (held,) where variables of x have these values. Collective on the group."""

    @abstractmethod
    def products(self, seeds: np.ndarray, by: str | None = None) -> np.ndarray:
        """Return the products (k, held) with directions (k, held). Collective on the group.

        `by` is `hvp` or `hvps`; default `hvps` where there is that.
        """

    def compressed(self, products: CompressedProducts) -> np.ndarray:
        """Return the products (count, held) that were made for a colouring. Not collective."""
        return self._guarded("hvps", products.columns, self.x)

    @abstractmethod
    def energy(self, point: np.ndarray) -> float:
        """Return the energy at a point (held,). Collective on the group."""

    @abstractmethod
    def point(self, values: np.ndarray) -> AbstractContextManager[np.ndarray | PETSc.Vec]:
        """Give a point of the kind of the objective's x with these values (held,). Collective on the group."""

    def slopes(self, kind: Elements, X: np.ndarray) -> np.ndarray:
        """Return the gradients (m, k) of the elements of a kind."""
        return self._guarded("gradient", kind.slopes, X)

    def _number(self, name: str, returned: Any) -> float:
        """Return the real number that a function of this name has returned."""
        return as_number(returned, self.objective.n, self._whose(name), self._where)

    def _whose(self, name: str) -> str:
        """Return how errors call a function of the user."""
        return f"the {name} of {self.objective.name}"

    @property
    def _where(self) -> str:
        return f" on rank {self.rank}"

    def _called(self, name: str, *arguments: Any) -> Any:
        """Call the user's function of this name."""
        return self._guarded(name, getattr(self.objective, name), *arguments)

    def _guarded(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the user; what it raises becomes an EvaluationError that names the rank."""
        self.guard.check_call()
        try:
            with guard_of(self.objective.comm).watch_call(self._whose(name)):
                return function(*arguments)
        except (EvaluationError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the user's code may raise anything
            told = raised(self._whose(name), error, self._where)
            hint = ": it may not change its argument, but a copy" if "read-only" in told else ""
            raise EvaluationError(f"{told}{hint}") from error


class ArrayCalls(Calls):
    """Functions of an (n,) array, which this rank evaluates alone."""

    first = 0

    def __init__(self, objective: Objective, x: np.ndarray, rank: int) -> None:
        super().__init__(objective, rank)
        self.guard = guard_of(objective.comm)
        self._x = np.array(reals(x, "x"))
        if self._x.shape != (objective.n,):
            raise InputError(f"x must be ({objective.n},), not {self._x.shape}")
        self._shown = self._frozen()
        if objective.gradient is None and objective.energy is not None:
            length = objective.typical_x
            if length is None:
                length = typical_length(float(np.dot(self._x, self._x)), len(self._x))
            self._steps = np.broadcast_to(_ENERGY_STEP * reals(length, "typical_x"), self._x.shape)
            bounds = (-np.inf, np.inf) if objective.bounds is None else objective.bounds
            self._limits = [np.broadcast_to(reals(bound, "bounds"), self._x.shape) for bound in bounds]

    @property
    def x(self) -> np.ndarray:
        """See `Calls`."""
        return self._x

    def _frozen(self) -> np.ndarray:
        """Return a copy of x as it is now, not to be written.

        A function may keep its last argument, to answer soon when it is asked for the same again: what it has kept
        must not change afterwards, nor be the same object as the next argument.
        """
        copy = self._x.copy()
        copy.flags.writeable = False
        return copy

    def gradient(self, variables: np.ndarray, values: np.ndarray) -> np.ndarray:
        """See `Calls`."""
        if values.dtype.kind == "c":
            point = self._x.astype(np.complex128)
            point[variables] = values
            return self._vector("gradient", COMPLEX, point).imag
        here = self._x[variables]
        try:
            self._x[variables] = values
            if self.objective.gradient is None:
                return self._slope()
            self._last = self._frozen()
            return self._vector("gradient", REAL, self._last)
        finally:
            self._x[variables] = here

    def _slope(self) -> np.ndarray:
        """Return the gradient by central differences of the energy, each variable by itself."""
        out, (lower, upper) = np.empty(len(self._x)), self._limits
        for i, here in enumerate(self._x.tolist()):
            try:
                high = self._x[i] = min(here + self._steps[i], upper[i])
                ahead = self._energy()
                low = self._x[i] = max(here - self._steps[i], lower[i])
                out[i] = (ahead - self._energy()) / (high - low)
            finally:
                self._x[i] = here
        return out

    def energy(self, point: np.ndarray) -> float:
        """See `Calls`."""
        here = self._x.copy()
        try:
            self._x[:] = point
            return self._energy()
        finally:
            self._x[:] = here

    def point(self, values: np.ndarray) -> AbstractContextManager[np.ndarray | PETSc.Vec]:
        """See `Calls`."""
        return nullcontext(values)

    def _energy(self) -> float:
        self._last = self._frozen()
        return self._number("energy", self._called("energy", self._last))

    def products(self, seeds: np.ndarray, by: str | None = None) -> np.ndarray:
        """See `Calls`."""
        if self.objective.hvps is None or by == "hvp":
            return np.array([self._vector("hvp", REAL, self._shown, seed) for seed in seeds])
        return self._vector("hvps", REAL, self._shown, seeds, shape=seeds.shape)

    def _vector(
        self, name: str, kinds: str, *arguments: np.ndarray, shape: tuple[int, ...] | None = None
    ) -> np.ndarray:
        returned = self._called(name, *arguments)
        shape = (self.objective.n,) if shape is None else shape
        return as_vector(returned, shape, kinds, self._whose(name), self._where)


class VecCalls(Calls):
    """Functions of PETSc vectors, which the ranks of a group evaluate together."""

    def __init__(self, objective: Objective, x: PETSc.Vec, rank: int) -> None:
        super().__init__(objective, rank)
        if objective.gradient is None and objective.hvp is None:
            raise InputError("differences of energies are for energies of arrays, which a rank can evaluate alone")
        layout = objective.layout
        if x.getLocalSize() != layout.n_local:
            raise InputError(f"x has {x.getLocalSize()} local rows, the objective's own {layout.n_local}")
        self._x, self.first = x, layout.start

    @property
    def x(self) -> np.ndarray:
        """See `Calls`."""
        return self._x.getArray(readonly=True)

    def gradient(self, variables: np.ndarray, values: np.ndarray) -> np.ndarray:
        """See `Calls`."""
        if values.dtype.kind == "c":
            raise InputError("complex steps need a gradient of arrays: PETSc's vectors are real here")
        point = self.x.copy()
        point[variables] = values
        return self._vector("gradient", point)

    def products(self, seeds: np.ndarray, by: str | None = None) -> np.ndarray:
        """See `Calls`."""
        return np.array([self._vector("hvp", self.x, seed) for seed in seeds])

    def energy(self, point: np.ndarray) -> float:
        """See `Calls`."""
        with self.point(point) as vector, agreement(self.objective.comm):
            return self._number("energy", self._called("energy", vector))

    @contextmanager
    def point(self, values: np.ndarray) -> Iterator[np.ndarray | PETSc.Vec]:
        """See `Calls`."""
        vector = self._x.duplicate()
        try:
            vector.setArray(values)
            yield vector
        finally:
            destroy(vector)

    def _vector(self, name: str, *arrays: np.ndarray) -> np.ndarray:
        vectors = [self._x.duplicate() for _ in (*arrays, None)]
        try:
            for vector, array in zip(vectors, arrays, strict=False):
                vector.setArray(array)
            with agreement(self.objective.comm):
                returned = self._called(name, *vectors)
                if isinstance(returned, (np.ndarray, PETSc.Vec)) and returned is not vectors[-1]:
                    raise EvaluationError(
                        f"{self._whose(name)} returned another {type(returned).__name__}{self._where}: of PETSc's "
                        "vectors it must fill in its last argument"
                    )
            return vectors[-1].getArray(readonly=True).copy()
        finally:
            destroy(*vectors)
