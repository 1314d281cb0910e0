"""Rules of tracing: on what the results of a primitive depend that is linear in what is followed.

Each rule is given an equation and what is known of its arguments, of which one at least is followed. It returns
for each result a sparse matrix of what its components depend on, None for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from sparsehess.hosts.jax.features import JaxEquation, bind_primitive, primitive_name

if TYPE_CHECKING:
    from jax import Array


class NoRule(Exception):
    """A primitive has no rule; the message says which."""


@dataclass(frozen=True, eq=False)
class TracedVariable:
    """What tracing knows of a variable.

    Attributes
    ----------
    rows
        (size, n) on which components of the direction each of its components depends; None: on none.
    value
        value() is the array if that is the same at every x, computed when it is asked for; None otherwise.
    varied
        Whether components of the value may differ from each other.
    """

    rows: sp.csr_array | None = None
    value: Callable[[], Any] | None = None
    varied: bool = False

    def array(self) -> Any:
        """Return the array that is the same at every x.

        Not collective.

        Raises
        ------
        NoRule
            It depends on x.
        """
        if self.value is None:
            raise NoRule("an array that depends on x")
        return self.value()


# What rules are given and return.
Arguments = Sequence[TracedVariable]
Rows: TypeAlias = sp.csr_array | None
Parameters = Mapping[str, Any]


def constant_variable(value: Any) -> TracedVariable:
    """Return what is known of an array that is there.

    Not collective.
    """
    return TracedVariable(value=lambda: value, varied=np.ndim(value) > 0)


def identity_rows(n: int) -> sp.csr_array:
    """Return (n, n) on what x depends, or a direction: each component on itself.

    Not collective.
    """
    return sp.csr_array((np.ones(n, bool), np.arange(n), np.arange(n + 1)), (n, n))


def unite_rows(rows: Iterable[sp.csr_array | None]) -> sp.csr_array | None:
    """Return the unions of rows that have the same place in several matrices, None among them.

    Not collective.
    """
    union: sp.csr_array | None = None
    for some in rows:
        if some is not None:
            union = some if union is None or union is some else union + some
    return union


def _join_rows(owners: np.ndarray, components: np.ndarray, size: int, rows: sp.csr_array) -> sp.csr_array:
    """Return (size, n) the unions of rows: owners[k] is to depend on what components[k] depends on."""
    ones = np.ones(len(owners), bool)
    out = sp.csr_array((ones, (owners, components)), (size, rows.shape[0])) @ rows
    out.sort_indices()
    return out


# --- component by component ---


def _pointwise(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow what is computed component by component; axes of length 1 are repeated."""
    result = equation.outvars[0].aval
    union = unite_rows(
        _repeat_rows(one.rows, atom.aval.shape, result.shape)
        for one, atom in zip(arguments, equation.invars, strict=True)
        if one.rows is not None
    )
    if primitive_name(equation) == "mul":  # by a mask, perhaps
        for one in arguments:
            if one.varied:
                kept = np.flatnonzero(np.broadcast_to(one.array(), result.shape))
                union = union if len(kept) == result.size else _join_rows(kept, kept, result.size, union)
    return [union]


def _repeat_rows(rows: sp.csr_array, shape: tuple[int, ...], into: tuple[int, ...]) -> sp.csr_array:
    if shape == into:
        return rows
    return rows[np.broadcast_to(np.arange(rows.shape[0]).reshape(shape), into).ravel()]


def _each(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow results that are the arguments."""
    return [one.rows for one in arguments]


def _selected(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    if arguments[0].value is None:
        return _pointwise(equation, arguments)
    numbers, rows = _numbers(equation, arguments)
    return _pick_rows([NUMPY["select_n"](arguments[0].array(), *numbers[1:])], rows)


# --- components that are moved ---

# What indices and masks are mostly made with, so that little is compiled for them.
NUMPY: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("convert_element_type", "copy", "copy_p"), np.asarray),
    "device_put": lambda *arrays: list(arrays),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases),
}


def _numbers(equation: JaxEquation, arguments: Arguments) -> tuple[list[Any], list[sp.csr_array]]:
    """Return arrays like the arguments of the numbers of their rows, -1 where there is none, and all the rows."""
    first = 0
    numbers: list[np.ndarray] = []
    rows: list[sp.csr_array] = []
    for one, atom in zip(arguments, equation.invars, strict=True):
        if one.rows is None:
            numbers.append(np.full(atom.aval.shape, -1))
        else:
            numbers.append(first + np.arange(one.rows.shape[0]).reshape(atom.aval.shape))
            rows.append(one.rows)
            first += one.rows.shape[0]
    return numbers, rows


def _pick_rows(results: Sequence[Any], rows: Sequence[sp.csr_array]) -> list[Rows]:
    """Return the rows of arrays of numbers of rows."""
    results = [np.ravel(result) for result in results]
    if any((result < 0).any() for result in results):
        rows = [*rows, sp.csr_array((1, rows[0].shape[1]), dtype=bool)]  # the last row, that of -1
    rows = rows[0] if len(rows) == 1 else sp.vstack(rows, format="csr")
    return [rows[result] for result in results]


def _moved(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    numbers, rows = _numbers(equation, arguments)
    results = MOVES[primitive_name(equation)](equation.params, *numbers)
    return _pick_rows(results if isinstance(results, list) else [results], rows)


def _indexed(inexact: int, equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow components of the first arguments, `inexact` many, at indices that are the others."""
    name = primitive_name(equation)
    if any(one.value is None for one in arguments[inexact:]):
        raise NoRule(f"{name} with indices that depend on x")
    numbers, rows = _numbers(equation, arguments)
    numbers[inexact:] = [one.array() for one in arguments[inexact:]]
    return _pick_rows(bind_primitive(equation, numbers, **({"fill_value": -1} if name == "gather" else {})), rows)


def _broadcast(parameters: Parameters, array: np.ndarray) -> np.ndarray:
    shape = np.ones(len(parameters["shape"]), int)
    shape[list(parameters["broadcast_dimensions"])] = array.shape
    return np.broadcast_to(array.reshape(shape), parameters["shape"])


def _padded(parameters: Parameters, array: np.ndarray, value: Any) -> np.ndarray:
    for axis, (low, high, between) in enumerate(parameters["padding_config"]):
        size, border = array.shape[axis], list(array.shape)
        border[axis] = 1
        array = np.concatenate([array, np.full(border, value)], axis)
        length = low + high + size + between * max(size - 1, 0)
        source, rest = np.divmod(np.arange(length) - low, between + 1)
        inside = (rest == 0) & (source >= 0) & (source < size)
        array = np.take(array, np.where(inside, source, size), axis)
    return array


def _sliced(parameters: Parameters, array: np.ndarray) -> np.ndarray:
    steps = parameters["strides"] or (1,) * array.ndim
    return array[tuple(map(slice, parameters["start_indices"], parameters["limit_indices"], steps))]


# What primitives that only move components do to the numbers of the components.
MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda parameters, *arrays: np.concatenate(arrays, parameters["dimension"]),
    "pad": _padded,
    "reshape": lambda parameters, array: array.transpose(parameters["dimensions"] or range(array.ndim)),
    "rev": lambda parameters, array: np.flip(array, parameters["dimensions"]),
    "slice": _sliced,
    "split": lambda parameters, array: np.split(array, np.cumsum(parameters["sizes"])[:-1], parameters["axis"]),
    "squeeze": lambda parameters, array: array,
    "stack": lambda parameters, *arrays: np.stack(arrays, parameters["axis"]),
    "tile": lambda parameters, array: np.tile(array, parameters["reps"]),
    "transpose": lambda parameters, array: array.transpose(parameters["permutation"]),
    "unstack": lambda parameters, array: list(np.moveaxis(array, parameters["axis"], 0)),
}


def _scattered(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow an array to which others are written or added, in places that are the same at every x."""
    import jax

    target, indices, updates = arguments
    if primitive_name(equation) == "scatter_mul":
        if updates.rows is not None:
            raise NoRule("scatter_mul by a direction")
        return [target.rows]
    if indices.value is None:
        raise NoRule(f"{primitive_name(equation)} with indices that depend on x")
    keys = "dimension_numbers", "indices_are_sorted", "unique_indices", "mode"
    parameters = {key: equation.params[key] for key in keys}
    into, written = (equation.invars[k].aval.shape for k in (0, 2))
    numbers = np.arange(1.0, np.prod(into) + 1).reshape(into)

    @jax.jit
    def find_places(numbers: Array, indices: Array) -> Array:
        """Return where the components of the updates go, numbered from 1; 0 for what is dropped."""
        add = partial(jax.lax.scatter_add, numbers, indices, **parameters)
        return jax.vjp(add, jax.numpy.zeros(written))[1](numbers)[0]

    places = np.ravel(find_places(numbers, indices.array())).astype(int)
    rows = target.rows
    if rows is not None and primitive_name(equation) == "scatter":
        kept = np.setdiff1d(np.arange(numbers.size), places - 1)
        rows = _join_rows(kept, kept, numbers.size, rows)
    if updates.rows is not None:
        there = np.flatnonzero(places)
        rows = unite_rows([rows, _join_rows(places[there] - 1, there, numbers.size, updates.rows)])
    return [rows]


# --- sums ---


def _summed(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    result, (atom,) = equation.outvars[0].aval, equation.invars
    owners = np.expand_dims(np.arange(result.size).reshape(result.shape), equation.params["axes"])
    owners = np.broadcast_to(owners, atom.aval.shape).ravel()
    return [_join_rows(owners, np.arange(owners.size), result.size, arguments[0].rows)]


def _running(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow the sums of all components up to each place along an axis."""
    (atom,), axis = equation.invars, equation.params["axis"]
    numbers = np.moveaxis(np.arange(atom.aval.size).reshape(atom.aval.shape), axis, 0)
    last, first = np.tril_indices(len(numbers))
    owners, components = (last, first) if not equation.params["reverse"] else (first, last)
    return [_join_rows(numbers[owners].ravel(), numbers[components].ravel(), atom.aval.size, arguments[0].rows)]


def _mix_rows(
    axes: Iterable[int], shape: tuple[int, ...], into: tuple[int, ...], rows: sp.csr_array
) -> sp.csr_array:
    """Return the rows of an array whose components depend on all along some axes; their lengths may change."""
    groups = [1 if axis in axes else size for axis, size in enumerate(shape)]
    numbers = np.arange(int(np.prod(groups))).reshape(groups)
    all_of_them = np.arange(rows.shape[0])
    union = _join_rows(np.broadcast_to(numbers, shape).ravel(), all_of_them, numbers.size, rows)
    return union[np.broadcast_to(numbers, into).ravel()]


def _transformed(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    shape, into = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    axes = range(len(shape) - len(equation.params["fft_lengths"]), len(shape))
    return [_mix_rows(axes, shape, into, arguments[0].rows)]


def _solved(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow solutions of triangular systems; right-hand sides are columns or rows of the second argument."""
    if arguments[0].rows is not None:
        raise NoRule("triangular_solve with a matrix that is a direction")
    shape = equation.invars[1].aval.shape
    axis = len(shape) - (2 if equation.params["left_side"] else 1)
    return [_mix_rows([axis], shape, shape, arguments[1].rows)]


def _contracted(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow products of arrays; where a factor is zero at every x nothing is added."""
    # Of each factor (batch, free, contracted).
    numbers: list[np.ndarray] = []
    there: list[np.ndarray] = []
    for one, atom, along, over in zip(
        arguments, equation.invars, *equation.params["dimension_numbers"], strict=True
    ):
        shape = atom.aval.shape
        free = [axis for axis in range(len(shape)) if axis not in (*along, *over)]
        sizes = [int(np.prod([shape[axis] for axis in axes])) for axes in (over, free, along)]
        nonzero = np.asarray(one.array()) != 0 if one.varied else np.ones(shape, bool)
        for array, into in ((np.arange(atom.aval.size).reshape(shape), numbers), (nonzero, there)):
            into.append(array.transpose(*over, *free, *along).reshape(sizes))
    results = np.arange(equation.outvars[0].aval.size).reshape(len(there[0]), there[0].shape[1], there[1].shape[1])
    union = None
    for own, other, places in ((0, 1, results), (1, 0, results.transpose(0, 2, 1))):
        if arguments[own].rows is not None:
            batch, row, column = np.nonzero(there[other])
            owners, components = places[batch, :, row], numbers[own][batch, :, column]
            union = unite_rows(
                [union, _join_rows(owners.ravel(), components.ravel(), results.size, arguments[own].rows)]
            )
    return [union]


def _convolved(equation: JaxEquation, arguments: Arguments) -> list[Rows]:
    """Follow an array that is convolved with a window; where the window is zero at every x nothing is added."""
    parameters, (array, window) = equation.params, equation.invars
    grouped = parameters["feature_group_count"] > 1 or parameters["batch_group_count"] > 1
    if grouped or arguments[1].rows is not None:
        raise NoRule("conv_general_dilated in groups, or with a window that depends on x")
    # All (batch, channel, ...), the window (channel of the result, channel, ...).
    into, over, out = parameters["dimension_numbers"]
    holes = zip(parameters["padding"], parameters["lhs_dilation"], strict=True)
    padding = [(0, 0, 0)] * 2 + [(*pad, apart - 1) for pad, apart in holes]
    numbers = np.arange(array.aval.size).reshape(array.aval.shape).transpose(into)
    numbers = _padded({"padding_config": padding}, numbers, -1)
    shape = window.aval.shape
    nonzero = np.asarray(arguments[1].array()) != 0 if arguments[1].varied else np.ones(shape, bool)
    nonzero = nonzero.transpose(over)
    result = equation.outvars[0].aval
    results = np.arange(result.size).reshape(result.shape).transpose(out)
    owners, components = [], []
    for offset in np.ndindex(nonzero.shape[2:]):
        axes = zip(
            offset, parameters["rhs_dilation"], parameters["window_strides"], results.shape[2:], strict=True
        )
        seen = [slice(k * apart, k * apart + (many - 1) * step + 1, step) for k, apart, step, many in axes]
        kernel: tuple[Any, ...] = (slice(None), slice(None), *offset)
        channels = np.nonzero(nonzero[kernel])
        owners.append(results[:, channels[0]].ravel())
        here = numbers[(slice(None), slice(None), *seen)]
        components.append(here[:, channels[1]].ravel())
    owner, component = np.concatenate(owners), np.concatenate(components)
    there = component >= 0
    return [_join_rows(owner[there], component[there], result.size, arguments[0].rows)]


# --- all of them ---


def _names(text: str, rule: Callable) -> dict[str, Callable]:
    return dict.fromkeys(text.split(), rule)


RULES: dict[str, Callable[[JaxEquation, Arguments], list[Rows]]] = {
    **_names("add add_any complex conj convert_element_type copy copy_p div imag mul neg", _pointwise),
    **_names("real reduce_precision sub", _pointwise),
    **_names("device_put layout_constraint name optimization_barrier pvary reshard sharding_constraint", _each),
    "select_n": _selected,
    **_names(" ".join(MOVES), _moved),
    "dynamic_slice": partial(_indexed, 1),
    "dynamic_update_slice": partial(_indexed, 2),
    "gather": partial(_indexed, 1),
    **_names("scatter scatter_add scatter_mul scatter_sub", _scattered),
    "reduce_sum": _summed,
    "cumsum": _running,
    "fft": _transformed,
    "triangular_solve": _solved,
    "dot_general": _contracted,
    "conv_general_dilated": _convolved,
}
