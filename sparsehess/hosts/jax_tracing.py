"""The sparsity of a Hessian from the equations of its gradient, as JAX writes them: true at every x.

A variable of the equations is held with the sparse matrix of what its components depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import scipy.sparse as sp

from sparsehess.runtime import log


def traced(function, n: int, slope=None):
    """Return the (n, n) sparsity of the Hessian by tracing, as a SciPy array, or None where there is no rule.

    Not collective. It holds at every x: of branches that depend on x all are counted. The gradient is followed
    equation by equation, each variable with the sparse matrix of what its components depend on. Loops,
    sorting, factorisations and the like have no rule here; asdex is asked about those, if it is there.

    Parameters
    ----------
    slope
        The equations of the gradient, a closed jaxpr, if they are there.
    """
    import jax
    from jax.experimental import enable_x64

    with enable_x64():
        slope = slope or jax.make_jaxpr(jax.grad(function))(jax.ShapeDtypeStruct((n,), np.float64))
        x = _Traced(sp.eye_array(n, dtype=bool, format="csr"))
        try:
            (found,) = _followed(slope.jaxpr, slope.consts, [x])
        except _NoRule as missing:
            log.info("no rule to trace %s by: asdex is asked", missing)
            return _asked(function, n)
    return sp.csr_array((n, n), dtype=bool) if found.rows is None else found.rows


class _NoRule(Exception):
    """A primitive that is not followed here."""


def _asked(function, n: int):
    try:
        import asdex

        found = asdex.hessian_sparsity(function, np.zeros(n))
    except Exception as error:  # it is not there, or has limits as well: the function itself was traced before
        log.info("asdex does not tell the sparsity: %s", error)
        return None
    rows, columns = np.asarray(found.rows), np.asarray(found.cols)
    return sp.csr_array((np.ones(len(rows), bool), (rows, columns)), (n, n))


@dataclass(frozen=True, eq=False)
class _Traced:
    """What tracing knows of a variable.

    Attributes
    ----------
    rows
        (size, n) on which components of x the derivatives of each of its components depend; None: on none.
    value
        value() is the array if that is the same at every x, computed when it is asked for; None otherwise.
    varied
        Whether components of the value may differ from each other.
    """

    rows: sp.csr_array | None = None
    value: Callable | None = None
    varied: bool = False


def _names(text: str) -> frozenset:
    return frozenset(text.split())


# Primitives by what they do to rows: component by component; constant but for jumps; sums and the like over axes;
# moves by indices (with the number of arguments that are not indices); calls of other equations.
_POINTWISE = _names(
    "abs acos acosh add add_any asin asinh atan atan2 atanh cbrt clamp convert_element_type copy copy_p cos cosh "
    "device_put digamma div erf erf_inv erfc exp exp2 expm1 integer_pow lgamma log log1p logistic max min mul neg "
    "nextafter pow reduce_precision rem rsqrt select_n sin sinh sqrt square sub tan tanh"
)
_STEPS = _names("ceil floor round sign stop_gradient")
_REDUCTIONS = _names("reduce_max reduce_min reduce_prod reduce_sum")
_INDEXED = {"dynamic_slice": 1, "dynamic_update_slice": 2, "gather": 1}
CALLS = _names("checkpoint closed_call core_call jit pjit remat remat2")
_CUSTOM = _names("custom_jvp_call custom_vjp_call")

# What indices and masks are mostly made with, so that little is compiled for them.
_NUMPY = {
    **dict.fromkeys(("convert_element_type", "copy", "copy_p", "device_put"), np.asarray),
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


def named(equation) -> str:
    """Return the name of the primitive of an equation.

    Not collective.
    """
    return equation.primitive.name.replace("-", "_")


def called(equation) -> tuple:
    """Return the jaxpr that an equation calls, and its constants.

    Not collective.
    """
    inner = equation.params["jaxpr" if "jaxpr" in equation.params else "call_jaxpr"]
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())


def _followed(jaxpr, consts, arguments) -> list[_Traced]:
    """Return what is known of the results of a jaxpr."""
    known = {variable: _constant(value) for variable, value in zip(jaxpr.constvars, consts, strict=True)}
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def of(atom) -> _Traced:
        return _constant(atom.val) if hasattr(atom, "val") else known[atom]

    # Only what results need, and nothing is held longer than that.
    wanted = {atom for atom in jaxpr.outvars if not hasattr(atom, "val")}
    needed = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            variables = {atom for atom in equation.invars if not hasattr(atom, "val")}
            needed.append((equation, variables - wanted))
            wanted |= variables
    for equation, done in reversed(needed):
        results = _applied(equation, [of(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
        for variable in done:
            del known[variable]
    return [of(atom) for atom in jaxpr.outvars]


def _constant(value) -> _Traced:
    return _Traced(value=lambda: value, varied=np.ndim(value) > 0)


def _applied(equation, arguments: list[_Traced]) -> list[_Traced]:
    """Return what is known of the results of one equation."""
    name, outs = named(equation), equation.outvars
    if name in CALLS or name in _CUSTOM:
        return _followed(*called(equation), arguments)
    if all(one.value is not None for one in arguments):
        return _computed(name, equation, arguments)
    flat = name in _STEPS or not any(np.issubdtype(out.aval.dtype, np.inexact) for out in outs)
    if flat or all(one.rows is None for one in arguments):
        return [_Traced() for _ in outs]
    shapes = [atom.aval.shape for atom in equation.invars]
    if name in MOVES or name in _INDEXED or (name == "select_n" and arguments[0].value is not None):
        moved = _moved(name, equation, arguments, _numbers(arguments, shapes))
    elif name in _POINTWISE:
        moved = _pointwise(name, arguments, outs[0].aval.size)
    elif name in _REDUCTIONS:
        axes, (shape,) = equation.params["axes"], shapes
        owners = np.arange(outs[0].aval.size).reshape(outs[0].aval.shape)
        owners = np.broadcast_to(np.expand_dims(owners, axes), shape).ravel()
        moved = _joined(owners, np.arange(owners.size), outs[0].aval.size, arguments[0].rows)
    elif name in ("scatter", "scatter_add"):
        moved = _scattered(name, equation, arguments)
    elif name == "dot_general":
        moved = _contracted(equation, arguments)
    elif name == "conv_general_dilated":
        moved = _convolved(equation, arguments)
    else:
        raise _NoRule(name)
    return [_Traced(rows) for rows in (moved if isinstance(moved, list) else [moved])]


def _computed(name: str, equation, arguments: list[_Traced]) -> list[_Traced]:
    """Return results that are the same at every x, computed when they are asked for."""

    @cache
    def values():
        arrays = [one.value() for one in arguments]
        if name in _NUMPY:
            out = _NUMPY[name](*arrays)
        elif name in MOVES:
            out = MOVES[name](equation.params, *map(np.asarray, arrays))
        else:
            functions, parameters = equation.primitive.get_bind_params(equation.params)
            out = equation.primitive.bind(*functions, *arrays, **parameters)
        out = out if isinstance(out, list | tuple) else [out]
        avals = [result.aval for result in equation.outvars]
        return [np.asarray(array, aval.dtype).reshape(aval.shape) for array, aval in zip(out, avals, strict=True)]

    varied = not arguments or any(one.varied for one in arguments)
    return [_Traced(value=lambda k=k: values()[k], varied=varied) for k in range(len(equation.outvars))]


def _pointwise(name: str, arguments: list[_Traced], size: int):
    """Return the rows of a result whose components depend on those of the arguments in the same place."""
    union = None
    for one in arguments:
        if one.rows is not None:
            rows = one.rows if one.rows.shape[0] == size else one.rows[np.zeros(size, int)]
            union = rows if union is None or union is rows else union + rows
    if name == "mul":  # by a mask, perhaps
        for one in arguments:
            if one.varied and np.size(one.value()) == size:
                kept = np.flatnonzero(one.value())
                union = union if len(kept) == size else _joined(kept, kept, size, union)
    return union


def _joined(owners, components, size: int, rows):
    """Return (size, n) the unions of rows: owners[k] is to depend on what components[k] depends on."""
    ones = np.ones(len(owners), bool)
    out = sp.csr_array((ones, (owners, components)), (size, rows.shape[0])) @ rows
    out.sort_indices()
    return out


def _numbers(arguments: list[_Traced], shapes) -> list[np.ndarray]:
    """Return arrays like the arguments of the numbers of their rows, all together; -1 where there is no row."""
    first, out = 0, []
    for one, shape in zip(arguments, shapes, strict=True):
        if one.rows is None:
            out.append(np.full(shape, -1))
        else:
            out.append(first + np.arange(one.rows.shape[0]).reshape(shape))
            first += one.rows.shape[0]
    return out


def _moved(name: str, equation, arguments: list[_Traced], numbers: list[np.ndarray]) -> list:
    """Return the rows of results whose components are components of the arguments, or constants."""
    parameters = equation.params
    if name in _INDEXED:
        inexact = _INDEXED[name]
        if any(one.value is None for one in arguments[inexact:]):
            raise _NoRule(f"{name} with indices that depend on x")
        if name == "gather":
            parameters = parameters | {"fill_value": -1}
        indices = [one.value() for one in arguments[inexact:]]
        results = equation.primitive.bind(*numbers[:inexact], *indices, **parameters)
    elif name == "select_n":
        results = _NUMPY[name](arguments[0].value(), *numbers[1:])
    else:
        results = MOVES[name](parameters, *numbers)
    results = [np.ravel(result) for result in (results if isinstance(results, list) else [results])]
    stacked = [one.rows for one in arguments if one.rows is not None]
    if any((result < 0).any() for result in results):
        stacked.append(sp.csr_array((1, stacked[0].shape[1]), dtype=bool))  # the last row, that of -1
    rows = stacked[0] if len(stacked) == 1 else sp.vstack(stacked, format="csr")
    return [rows[result] for result in results]


def _broadcast(parameters, array):
    shape = np.ones(len(parameters["shape"]), int)
    shape[list(parameters["broadcast_dimensions"])] = array.shape
    return np.broadcast_to(array.reshape(shape), parameters["shape"])


def _padded(parameters, array, value):
    for axis, (low, high, between) in enumerate(parameters["padding_config"]):
        size, border = array.shape[axis], list(array.shape)
        border[axis] = 1
        array = np.concatenate([array, np.full(border, value)], axis)
        length = low + high + size + between * max(size - 1, 0)
        source, rest = np.divmod(np.arange(length) - low, between + 1)
        inside = (rest == 0) & (source >= 0) & (source < size)
        array = np.take(array, np.where(inside, source, size), axis)
    return array


def _sliced(parameters, array):
    steps = parameters["strides"] or (1,) * array.ndim
    return array[tuple(map(slice, parameters["start_indices"], parameters["limit_indices"], steps))]


# What primitives that only move components do to the numbers of the components.
MOVES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda parameters, *arrays: np.concatenate(arrays, parameters["dimension"]),
    "pad": _padded,
    "reshape": lambda parameters, array: array.transpose(parameters["dimensions"] or range(array.ndim)),
    "rev": lambda parameters, array: np.flip(array, parameters["dimensions"]),
    "slice": _sliced,
    "split": lambda parameters, array: np.split(array, np.cumsum(parameters["sizes"])[:-1], parameters["axis"]),
    "squeeze": lambda parameters, array: array,
    "transpose": lambda parameters, array: array.transpose(parameters["permutation"]),
}


def _scattered(name: str, equation, arguments: list[_Traced]):
    """Return the rows of an array with others written or added in places that are the same at every x."""
    import jax

    target, indices, updates = arguments
    if indices.value is None:
        raise _NoRule(f"{name} with indices that depend on x")
    keys = "dimension_numbers", "indices_are_sorted", "unique_indices", "mode"
    parameters = {key: equation.params[key] for key in keys}
    into, written = (equation.invars[k].aval.shape for k in (0, 2))
    numbers = np.arange(1.0, np.prod(into) + 1).reshape(into)

    @jax.jit
    def places(numbers, indices):
        """Return where the components of the updates go, numbered from 1; 0 for what is dropped."""
        add = partial(jax.lax.scatter_add, numbers, indices, **parameters)
        return jax.vjp(add, jax.numpy.zeros(written))[1](numbers)[0]

    places = np.ravel(places(numbers, indices.value())).astype(int)
    rows = target.rows
    if rows is not None and name == "scatter":
        kept = np.setdiff1d(np.arange(numbers.size), places - 1)
        rows = _joined(kept, kept, numbers.size, rows)
    if updates.rows is not None:
        there = np.flatnonzero(places)
        new = _joined(places[there] - 1, there, numbers.size, updates.rows)
        rows = new if rows is None else rows + new
    return rows


def _contracted(equation, arguments: list[_Traced]):
    """Return the rows of a product of arrays; zeros that are the same at every x count as such."""
    numbers, there = [], []  # of each factor (batch, free, contracted)
    for one, atom, along, over in zip(
        arguments, equation.invars, *equation.params["dimension_numbers"], strict=True
    ):
        shape = atom.aval.shape
        free = [axis for axis in range(len(shape)) if axis not in (*along, *over)]
        sizes = [int(np.prod([shape[axis] for axis in axes])) for axes in (over, free, along)]
        nonzero = np.asarray(one.value()) != 0 if one.varied else np.ones(shape, bool)
        for array, into in ((np.arange(atom.aval.size).reshape(shape), numbers), (nonzero, there)):
            into.append(array.transpose(*over, *free, *along).reshape(sizes))
    results = np.arange(equation.outvars[0].aval.size).reshape(-1, there[0].shape[1], there[1].shape[1])
    union = None
    for own, other, places in ((0, 1, results), (1, 0, results.transpose(0, 2, 1))):
        if arguments[own].rows is not None:
            batch, free, along = np.nonzero(there[other])
            owners, components = places[batch, :, free], numbers[own][batch, :, along]
            rows = _joined(owners.ravel(), components.ravel(), results.size, arguments[own].rows)
            union = rows if union is None else union + rows
    return union


def _convolved(equation, arguments: list[_Traced]):
    """Return the rows of an array convolved with a window that does not depend on x; its zeros count as such."""
    parameters, (array, window) = equation.params, equation.invars
    grouped = parameters["feature_group_count"] > 1 or parameters["batch_group_count"] > 1
    if grouped or arguments[1].rows is not None:
        raise _NoRule("conv_general_dilated in groups, or with a window that depends on x")
    # All (batch, channel, ...), the window (channel of the result, channel, ...).
    into, over, out = parameters["dimension_numbers"]
    holes = zip(parameters["padding"], parameters["lhs_dilation"], strict=True)
    padding = [(0, 0, 0)] * 2 + [(*pad, apart - 1) for pad, apart in holes]
    numbers = np.arange(array.aval.size).reshape(array.aval.shape).transpose(into)
    numbers = _padded({"padding_config": padding}, numbers, -1)
    shape = window.aval.shape
    nonzero = np.asarray(arguments[1].value()) != 0 if arguments[1].varied else np.ones(shape, bool)
    nonzero = nonzero.transpose(over)
    result = equation.outvars[0].aval
    results = np.arange(result.size).reshape(result.shape).transpose(out)
    owners, components = [], []
    for offset in np.ndindex(nonzero.shape[2:]):
        axes = zip(
            offset, parameters["rhs_dilation"], parameters["window_strides"], results.shape[2:], strict=True
        )
        seen = (slice(k * apart, k * apart + (many - 1) * step + 1, step) for k, apart, step, many in axes)
        channels = np.nonzero(nonzero[:, :, *offset])
        owners.append(results[:, channels[0]].ravel())
        components.append(numbers[:, :, *seen][:, channels[1]].ravel())
    owners, components = np.concatenate(owners), np.concatenate(components)
    there = components >= 0
    return _joined(owners[there], components[there], result.size, arguments[0].rows)
