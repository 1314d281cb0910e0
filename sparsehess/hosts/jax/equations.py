"""`Program`: the equations of a JAX function as one list, and their evaluation with some of them watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsehess.hosts.jax.features import (
    CALLS,
    JaxEquation,
    Jaxpr,
    bind_primitive,
    called_jaxpr,
    inner_jaxprs,
    primitive_name,
)

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr


@dataclass(frozen=True, eq=False)
class Equation:
    """An equation of JAX's, with the numbers of the values that it reads and writes."""

    source: JaxEquation
    reads: tuple[int, ...]
    writes: tuple[int, ...]


class Program:
    """The equations of a function, those of the functions that it calls among them.

    Functions with derivatives of their own (`custom_jvp`, `custom_vjp`) stay closed: theirs are not those of their
    equations. So do loops and branches.

    Parameters
    ----------
    closed
        A closed jaxpr.

    Attributes
    ----------
    equations
        Those that the results need, in order.
    arguments, results
        Numbers of the values that the function is given and returns.
    shapes
        Of the arguments.
    constants
        Values by number that are neither.
    """

    def __init__(self, closed: ClosedJaxpr) -> None:
        self.constants: dict[int, Any] = {}
        self._count = 0
        self.equations: list[Equation] = []
        self.arguments = [self.new_value() for _ in closed.jaxpr.invars]
        self.shapes = [variable.aval.shape for variable in closed.jaxpr.invars]
        self.results = self._inlined(closed.jaxpr, closed.consts, self.arguments)
        wanted, kept = set(self.results), []
        for equation in reversed(self.equations):
            if wanted.intersection(equation.writes):
                kept.append(equation)
                wanted.update(equation.reads)
        self.equations = kept[::-1]

    def new_value(self) -> int:
        """Return the number of another value. Not collective."""
        self._count += 1
        return self._count

    def _constant(self, value: Any) -> int:
        number = self.new_value()
        self.constants[number] = value
        return number

    def _inlined(self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[int]) -> list[int]:
        """Write down the equations of a jaxpr; return the numbers of its results."""
        numbers = {
            variable: self._constant(value) for variable, value in zip(jaxpr.constvars, consts, strict=True)
        }
        numbers.update(zip(jaxpr.invars, arguments, strict=True))

        def of(atom: Any) -> int:
            return self._constant(atom.val) if hasattr(atom, "val") else numbers[atom]

        for equation in jaxpr.eqns:
            reads = tuple(of(atom) for atom in equation.invars)
            if primitive_name(equation) in CALLS:
                writes = tuple(self._inlined(*called_jaxpr(equation), reads))
            else:
                writes = tuple(self.new_value() for _ in equation.outvars)
                self.equations.append(Equation(equation, reads, writes))
            numbers.update(zip(equation.outvars, writes, strict=True))
        return [of(atom) for atom in jaxpr.outvars]

    def run(
        self, arguments: Sequence[Any], watched: Sequence[tuple[int, int]] = (), added: Sequence[Any] = ()
    ) -> tuple[list[Any], list[Any]]:
        """Return the results, and what some equations are given, to whose results something is added.

        Not collective. It can be traced.

        Parameters
        ----------
        arguments
            Of the function.
        watched
            Places of equations, each once, and which of their arguments is asked for.
        added
            For each of these an array like its result.
        """
        values = {**self.constants, **dict(zip(self.arguments, arguments, strict=True))}
        numbers = {place: number for number, (place, _) in enumerate(watched)}
        given: list[Any] = [None] * len(watched)
        for place, equation in enumerate(self.equations):
            read = [values[number] for number in equation.reads]
            out = bind_primitive(equation.source, read)
            if place in numbers:
                number = numbers[place]
                given[number] = read[watched[number][1]]
                out[0] = out[0] + added[number]
            values.update(zip(equation.writes, out, strict=True))
        return [values[number] for number in self.results], given


def value_bytes(jaxpr: Jaxpr) -> int:
    """Return the bytes of all values in between: more than a compiler keeps at a time.

    Not collective.
    """
    total = 0
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            total += variable.aval.size * variable.aval.dtype.itemsize
        total += sum(map(value_bytes, inner_jaxprs(equation)))
    return total
