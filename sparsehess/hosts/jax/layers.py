"""Linear and convolution layers of a JAX function, found in its equations.

A pure function of parameters and samples has no layers as objects. Here a layer is what one parameter does, with
its entries in whatever order, as a factor of `dot_general` or as the kernel of `conv_general_dilated`; another
parameter that is added to the result, where that is read by nothing else, is its bias.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.jax.equations import Equation, Program
from sparsehess.hosts.jax.features import primitive_name
from sparsehess.hosts.jax.tracing_rules import MOVES

if TYPE_CHECKING:
    from jax import Array

# What leaves components as they are, but for their order and how often they are there.
_ORDERS: dict[str, Callable[..., Any]] = {
    **{name: MOVES[name] for name in ("broadcast_in_dim", "reshape", "rev", "squeeze", "tile", "transpose")},
    **dict.fromkeys(("convert_element_type", "copy", "copy_p"), lambda parameters, array: array),
}


@dataclass(frozen=True)
class Call(ABC):
    """An equation in which a layer is applied.

    Attributes
    ----------
    equation
        Its place in the program.
    operand
        Which of the arguments of the equation is the input of the layer.
    outer
        Size of the output at each position.
    ends
        The axes of the result: those of positions, then those of outputs.
    """

    equation: int
    operand: int
    outer: int
    ends: tuple[int, ...]

    def slopes(self, array: Array) -> Array:
        """Return what has the shape of the result as (positions, outer)."""
        return array.transpose(self.ends).reshape(-1, self.outer)

    def outputs(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return for each component of the result which of the outputs it is."""
        turned = [shape[axis] for axis in self.ends]
        columns = np.broadcast_to(np.arange(self.outer), (prod(turned) // max(1, self.outer), self.outer))
        return columns.reshape(turned).transpose(np.argsort(self.ends))

    @abstractmethod
    def inputs(self, array: Array) -> Array:
        """Return the input as (positions, inner), in the order of the columns of the weight."""


@dataclass(frozen=True)
class _Product(Call):
    axes: tuple[int, ...]
    inner: int

    def inputs(self, array: Array) -> Array:
        return array.transpose(self.axes).reshape(-1, self.inner)


@dataclass(frozen=True)
class _Convolution(Call):
    axes: tuple[int, ...]
    padding: tuple[tuple[int, int, int], ...]
    windows: tuple[tuple[int, int, int], ...]  # width, stride, dilation

    def inputs(self, array: Array) -> Array:
        """Return what the kernel sees at each position: (positions, channels × kernel)."""
        import jax

        array = array.transpose(self.axes)
        array = jax.lax.pad(array, np.zeros((), array.dtype), ((0, 0, 0), (0, 0, 0), *self.padding))
        for axis, (width, stride, apart) in enumerate(self.windows):
            places = (array.shape[2 + 2 * axis] - apart * (width - 1) - 1) // stride + 1
            seen = stride * np.arange(places)[:, None] + apart * np.arange(width)
            array = jax.numpy.take(array, seen, axis=2 + 2 * axis)
        many = len(self.windows)
        array = array.transpose(0, *range(2, 2 + 2 * many, 2), 1, *range(3, 3 + 2 * many, 2))
        return array.reshape(prod(array.shape[: 1 + many]), -1)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer, and where it is applied. Attributes beside `calls` and `parts` are those of `FactoredLayer`.

    Attributes
    ----------
    parts
        Whether the weight, and the bias, are among the variables.
    """

    name: str
    outer: int
    inner: int
    variables: np.ndarray
    covered: tuple[str, ...]
    parts: tuple[bool, bool]
    calls: tuple[Call, ...]

    def inputs(self, jax: ModuleType, given: Sequence[Array]) -> Array:
        """Return the inputs (positions, inner) of all calls, from those of their equations."""
        rows = []
        for call, array in zip(self.calls, given, strict=True):
            a = call.inputs(array).astype(np.float64)
            columns = a, jax.numpy.ones((len(a), 1))
            there = [column for column, wanted in zip(columns, self.parts, strict=True) if wanted]
            rows.append(jax.numpy.concatenate(there, 1))
        return jax.numpy.concatenate(rows)

    def slopes(self, jax: ModuleType, given: Sequence[Array]) -> Array:
        """Return the slopes (positions, outer) of all calls, from those by the results of their equations."""
        rows = [call.slopes(array) for call, array in zip(self.calls, given, strict=True)]
        return jax.numpy.concatenate(rows).astype(np.float64)


@dataclass(eq=False)
class _Use:
    """A call, with the entries of the parameters: weight[matrix (outer, inner)], bias[order (outer,)]."""

    call: Call
    weight: str
    matrix: np.ndarray
    groups: int
    bias: str | None = None
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, int))


def find_layers(program: Program, names: Sequence[str | None], slices: Mapping[str, slice]) -> list[Layer]:
    """Return the layers of a program that have one of the variables.

    Not collective. A layer that is applied several times is one layer with more positions.

    Parameters
    ----------
    names
        Of the first arguments of the program, None for those that are no parameters.
    slices
        Which variables the entries of parameters are; others are frozen.

    Raises
    ------
    InputError
        A parameter is in two layers, or in one and elsewhere; a convolution in groups.
    """
    search = _Search(program, names)
    keyed: dict[tuple[str, str | None], list[_Use]] = {}
    for use in search.uses:
        keyed.setdefault((use.weight, use.bias), []).append(use)
    for name in slices:
        homes = [key for key in keyed if name in key]
        if len(homes) > 1:
            told = " and ".join(" with ".join(part for part in key if part) for key in homes)
            raise InputError(f"{name} is in {len(homes)} layers, {told}: shared parameters have no factors")
        if homes and name in search.elsewhere:
            raise InputError(
                f"{name} is in a layer, and {search.elsewhere[name]} reads it: shared parameters have no factors"
            )
    made = []
    for key, same in keyed.items():
        (weight, bias), first = key, same[0]
        wanted = weight in slices, bias in slices
        if not any(wanted):
            continue
        for use in same:
            if use.groups != 1:
                raise InputError(f"{weight} is of a convolution in {use.groups} groups, which has no two factors")
            turned = wanted[0] and not np.array_equal(use.matrix, first.matrix)
            if turned or (wanted[1] and not np.array_equal(use.order, first.order)):
                raise InputError(f"{weight} is applied in two ways, transposed perhaps: it has no two factors")
        entries = ((weight, first.matrix), (bias, first.order[:, None]))
        there = [(name, order) for name, order in entries if name is not None and name in slices]
        variables = np.concatenate([slices[name].start + order for name, order in there], 1)
        covered = tuple(name for name, _ in there)
        calls = tuple(use.call for use in same)
        outer, inner = variables.shape
        made.append(Layer(_name(key, keyed), outer, inner, variables.ravel(), covered, wanted, calls))
    return made


def _name(key: tuple[str, str | None], keys: Iterable[tuple[str, str | None]]) -> str:
    """Return where in the tree a layer's parameters are, if no other's are there; else the name of one."""
    weight, bias = key
    folder = _folder(weight)
    alone = sum(_folder(other) == folder for other, _ in keys) == 1
    if folder and alone and (bias is None or _folder(bias) == folder):
        return folder
    return weight if sum(other == weight for other, _ in keys) == 1 else bias or weight


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


class _Search:
    """Where parameters are applied as layers, and by what they are read elsewhere.

    Attributes
    ----------
    uses
        In the order of the equations.
    elsewhere
        For parameters that something else reads, what.
    """

    def __init__(self, program: Program, names: Sequence[str | None]) -> None:
        self.uses: list[_Use] = []
        self.elsewhere: dict[str, str] = {}
        # Values that are a parameter but for the order of entries: which, and which entry each component is.
        self._parameters = {
            number: (name, np.arange(prod(shape)).reshape(shape))
            for name, number, shape in zip(names, program.arguments, program.shapes, strict=False)
            if name is not None
        }
        self._sizes = {name: numbers.size for name, numbers in self._parameters.values()}
        # Values that are the result of a layer but for order and for what is added: by which the slopes are the
        # same, as nothing else reads the result. Which use, and which output each component is.
        self._results: dict[int, list[tuple[_Use, np.ndarray]]] = {}
        self._read = Counter(program.results)
        for equation in program.equations:
            self._read.update(equation.reads)
        for place, equation in enumerate(program.equations):
            self._visit(place, equation)
        for number in program.results:
            self._note([number], "what returns it")

    def _note(self, numbers: Iterable[int], reader: str) -> None:
        found = (self._parameters[number][0] for number in numbers if number in self._parameters)
        self.elsewhere.update(dict.fromkeys(found, reader))

    def _visit(self, place: int, equation: Equation) -> None:
        import jax

        kind, reads, (end, *_) = primitive_name(equation.source), equation.reads, equation.writes
        outs = [variable.aval for variable in equation.source.outvars]
        if kind == "stop_gradient" or not any(jax.numpy.issubdtype(out.dtype, np.inexact) for out in outs):
            return
        if kind in _ORDERS:

            def moved(numbers: np.ndarray) -> np.ndarray:
                return _ORDERS[kind](equation.source.params, numbers).reshape(outs[0].shape)

            if reads[0] in self._parameters:
                name, numbers = self._parameters[reads[0]]
                self._parameters[end] = name, moved(numbers)
            self._results[end] = [(use, moved(outputs)) for use, outputs in self._alone(reads[0])]
        elif kind in ("add", "sub") and not any(number in self._parameters for number in reads):
            self._results[end] = [
                (use, np.broadcast_to(outputs, outs[0].shape))
                for number in reads[: 1 + (kind == "add")]
                for use, outputs in self._alone(number)
            ]
        elif not (kind == "add" and self._biased(reads, outs[0].shape)):
            use = self._applied(
                place, equation, {"dot_general": _product, "conv_general_dilated": _convolution}.get(kind)
            )
            if use:
                self.uses.append(use)
                self._results[end] = [(use, use.call.outputs(outs[0].shape))]
            else:
                self._note(reads, kind)

    def _alone(self, number: int) -> list[tuple[_Use, np.ndarray]]:
        return self._results.get(number, []) if self._read[number] == 1 else []

    def _applied(self, place: int, equation: Equation, make: Callable | None) -> _Use | None:
        """Return the use of the one parameter that is read, None where it is no layer's."""
        own = [number for number in equation.reads if number in self._parameters]
        if make is None or len(own) != 1:
            return None
        name, numbers = self._parameters[own[0]]
        return (
            make(place, equation, equation.reads.index(own[0]), name, numbers)
            if self._whole(name, numbers)
            else None
        )

    def _whole(self, name: str, numbers: np.ndarray) -> bool:
        return numbers.size == self._sizes[name]

    def _biased(self, reads: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Make a parameter that is added the bias of a layer, and return whether it can be."""
        own = [number for number in reads if number in self._parameters]
        if len(own) != 1:
            return False
        name, numbers = self._parameters[own[0]]
        numbers = np.broadcast_to(numbers, shape)
        layers = [one for one in self._alone(reads[1 - reads.index(own[0])]) if one[0].bias is None]
        # Of several layers whose results are summed preferably the one that has its weight beside the bias.
        for use, outputs in sorted(layers, key=lambda one: _folder(one[0].weight) != _folder(name)):
            order = np.full(use.call.outer, -1)
            order[outputs] = numbers
            if self._sizes[name] == len(order) and np.array_equal(order[outputs], numbers):
                use.bias, use.order = name, order
                return True
        return False


def _product(place: int, equation: Equation, own: int, name: str, numbers: np.ndarray) -> _Use | None:
    """Return the use of a parameter as a factor of a product, None where positions have matrices of their own."""
    along, over = equation.source.params["dimension_numbers"]
    shape = equation.source.invars[1 - own].aval.shape
    if any(numbers.shape[axis] != 1 for axis in over[own]):
        return None
    free = [axis for axis in range(numbers.ndim) if axis not in (*along[own], *over[own])]
    outer = prod(numbers.shape[axis] for axis in free)
    inner = numbers.size // max(1, outer)
    positions = tuple(axis for axis in range(len(shape)) if axis not in along[1 - own])
    # The result has the axes that both have, those of the left alone, those of the right alone.
    both, ends = len(over[own]), tuple(range(len(positions) + len(free)))
    if own == 0:
        ends = (*ends[:both], *ends[both + len(free) :], *ends[both : both + len(free)])
    matrix = numbers.transpose(*over[own], *free, *along[own]).reshape(outer, inner)
    call = _Product(place, 1 - own, outer, ends, (*positions, *along[1 - own]), inner)
    return _Use(call, name, matrix, 1)


def _convolution(place: int, equation: Equation, own: int, name: str, numbers: np.ndarray) -> _Use | None:
    """Return the use of a parameter as a kernel, None where it is what is convolved."""
    if own != 1:
        return None
    parameters = equation.source.params
    into, over, out = parameters["dimension_numbers"]
    kernel = numbers.transpose(over)
    holes = zip(parameters["padding"], parameters["lhs_dilation"], strict=True)
    call = _Convolution(
        place,
        0,
        len(kernel),
        (out[0], *out[2:], out[1]),
        tuple(into),
        tuple((*pad, apart - 1) for pad, apart in holes),
        tuple(zip(kernel.shape[2:], parameters["window_strides"], parameters["rhs_dilation"], strict=True)),
    )
    groups = parameters["feature_group_count"] * parameters["batch_group_count"]
    return _Use(call, name, kernel.reshape(len(kernel), -1), groups)
