"""`SplitProgram`: what a function makes of those arguments alone that stay the same is evaluated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparsehess.hosts.jax.equations import Equation, Program
from sparsehess.hosts.jax.features import bind_primitive, jit_soon, primitive_name

if TYPE_CHECKING:
    from types import ModuleType

    from jax import Array

# Passes over memory that a value is worth, by what makes it: a compiler does the first for nothing, together with
# what needs them, and the second for little; all others are worth keeping.
_FREE = frozenset(
    [
        "broadcast_in_dim",
        "convert_element_type",
        "copy",
        "copy_p",
        "expand_dims",
        "neg",
        "reshape",
        "rev",
        "slice",
        "squeeze",
        "transpose",
    ]
)
_CHEAP = frozenset(["add", "add_any", "concatenate", "div", "mul", "pad", "select_n", "sub"])
_PASS, _DEAR = 1, 10

# What is worth so many passes is kept, unless all that is kept comes to more than so many times the arguments.
_WORTH, _MOST = 4, 8

# Of an argument of fewer numbers nothing is kept: it takes less time than a call.
_LITTLE = 2**12


class SplitProgram:
    """A program of an argument that changes and of one that stays.

    Parameters
    ----------
    jax
        The package.
    program
        Of two arguments, x and the one that stays, and one result.
    stays
        That argument. Where all of it is 1 it is none: a compiler then leaves it out.

    Attributes
    ----------
    kept
        Arrays that `run` is given beside x.
    takes_any
        Whether those are the argument alone, so that another one may be given in its place.
    """

    def __init__(self, jax: ModuleType, program: Program, stays: Array) -> None:
        self._jax, self._constants = jax, program.constants
        self._x, second = program.arguments
        self._result = program.results[0]
        worth = stays.size >= _LITTLE
        most = _MOST * stays.nbytes if worth else 0
        self._late, names, early = _split(program, self._x, second, most)
        self._stays, self._ones = second, worth and bool((stays == 1).all())
        self._names = names if self._ones else [second, *names]
        self._kind = stays.shape, stays.dtype

        def evaluate(given: Array) -> list[Array]:
            values = _run(jax, early, {**self._constants, second: given})
            return [values[name] for name in names]

        made = jit_soon(jax, evaluate, next(iter(stays.devices())))(stays) if names else ()
        self.takes_any = not names and not self._ones
        self.kept: tuple[Array, ...] = (*made,) if self._ones else (stays, *made)

    def run(self, x: Array, *kept: Array) -> Array:
        """Return the result. Not collective. It can be traced."""
        given = {**self._constants, self._x: x, **dict(zip(self._names, kept, strict=True))}
        if self._ones:
            given[self._stays] = self._jax.numpy.ones(*self._kind)
        return _run(self._jax, self._late, given)[self._result]


def _split(program: Program, x: int, stays: int, most: int) -> tuple[list[Equation], list[int], list[Equation]]:
    """Return the equations for each x, the values that they are given, and the equations that make these."""
    equations = _known_terms_first(program, _changing(program, x))
    changing, worth, sizes = _changing(program, x, equations), {stays: 0}, {}
    for equation in equations:
        if _is_one(equation) or changing.intersection(equation.writes):
            continue
        reads = [number for number in equation.reads if number in worth]
        if reads:  # what needs neither is the compiler's
            total = sum(worth[number] for number in reads) + _passes(equation, len(reads))
            worth.update(dict.fromkeys(equation.writes, total))
        for number, variable in zip(equation.writes, equation.source.outvars, strict=True):
            sizes[number] = variable.aval.size * variable.aval.dtype.itemsize
    used = set(program.results).difference(changing)
    for equation in equations:
        if equation.writes[0] in changing:
            used.update(equation.reads)
    names = sorted(number for number in used if worth.get(number, 0) >= _WORTH)
    if sum(sizes[name] for name in names) > most:
        names = []
    return _needed(equations, program.results, names), names, _needed(equations, names, [])


def _changing(program: Program, x: int, equations: Sequence[Equation] | None = None) -> set[int]:
    """Return the values that change with x."""
    changing = {x}
    for equation in program.equations if equations is None else equations:
        if not _is_one(equation) and (changing.intersection(equation.reads) or equation.source.effects):
            changing.update(equation.writes)
    return changing


def _known_terms_first(program: Program, changing: set[int]) -> list[Equation]:
    """Return the equations, those of sums in an order that adds up first what does not change."""
    readers: dict[int, list[Equation | None]] = {number: [None] for number in program.results}
    for equation in program.equations:
        for number in equation.reads:
            readers.setdefault(number, []).append(equation)
    open_sums: dict[int, list[int]] = {}
    out: list[Equation] = []

    def add(terms: list[int], source: Equation, result: int | None = None) -> int:
        """Write down a sum; return its number."""
        total = terms[0]
        for place, term in enumerate(terms[1:], start=2):
            made = result if result is not None and place == len(terms) else program.new_value()
            out.append(Equation(source.source, (total, term), (made,)))
            total = made
        return total

    for equation in program.equations:
        if not _is_sum(equation):
            out.append(equation)
            continue
        terms = [term for number in equation.reads for term in open_sums.pop(number, [number])]
        made = equation.writes[0]
        (reader, *others) = readers.get(made, [None])
        if reader is not None and not others and _is_sum(reader):
            open_sums[made] = terms
            continue
        known = [term for term in terms if term not in changing]
        moving = [term for term in terms if term in changing]
        if known and moving:
            moving.append(add(known, equation))
            add(moving, equation, made)
        else:
            add(terms, equation, made)
    return out


def _is_sum(equation: Equation) -> bool:
    """Return whether an equation adds two arrays of one shape."""
    if primitive_name(equation.source) not in ("add", "add_any"):
        return False
    kinds = {(atom.aval.shape, atom.aval.dtype) for atom in (*equation.source.invars, *equation.source.outvars)}
    return len(kinds) == 1


def _passes(equation: Equation, arrays: int) -> int:
    """Return the passes over memory that an equation of so many arrays is worth."""
    name = primitive_name(equation.source)
    if name in _FREE or (name in _CHEAP and arrays == 1 and name != "pad"):
        return 0
    return _PASS if name in _CHEAP else _DEAR


def _needed(equations: Sequence[Equation], results: Sequence[int], given: Sequence[int]) -> list[Equation]:
    """Return the equations that make results of the arguments and of values that are given."""
    wanted, out = set(results).difference(given), []
    for equation in reversed(equations):
        if wanted.intersection(equation.writes):
            out.append(equation)
            if not _is_one(equation):
                wanted.update(set(equation.reads).difference(given))
    return out[::-1]


def _is_one(equation: Equation) -> bool:
    """Return whether an equation makes ones of whatever it reads, as the second derivative of a square is made."""
    return primitive_name(equation.source) == "integer_pow" and equation.source.params["y"] == 0


def _run(jax: ModuleType, equations: Sequence[Equation], values: dict[int, Any]) -> dict[int, Any]:
    """Return the values with those that equations make of them."""
    for equation in equations:
        if _is_one(equation):
            (made,) = (variable.aval for variable in equation.source.outvars)
            values[equation.writes[0]] = jax.numpy.ones(made.shape, made.dtype)
            continue
        out = bind_primitive(equation.source, [values[number] for number in equation.reads])
        values.update(zip(equation.writes, out, strict=True))
    return values
