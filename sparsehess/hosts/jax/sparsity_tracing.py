"""The sparsity of a Hessian from the equations of its products, as JAX writes them: true at every x.

Whatever the function is, a product is linear in its direction. So the direction alone is followed, by rules for
what is linear in it (`tracing_rules`); everything else makes coefficients, and needs none. What JAX is told of
derivatives (`custom_jvp`) is in these equations already.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from sparsehess.hosts.jax.features import (
    CALLS,
    CUSTOM,
    JaxEquation,
    Jaxpr,
    bind_primitive,
    called_jaxpr,
    double_precision,
    inner_jaxprs,
    open_jaxpr,
    primitive_name,
)
from sparsehess.hosts.jax.tracing_rules import (
    MOVES,
    NUMPY,
    RULES,
    NoRule,
    TracedVariable,
    constant_variable,
    identity_rows,
    unite_rows,
)
from sparsehess.runtime import log

if TYPE_CHECKING:
    from jax import Array
    from jax.extend.core import ClosedJaxpr

# Equations that a loop comes to at most, one step after another.
_LONG = 20_000


def trace_sparsity(
    function: Callable[[Array], Array],
    n: int,
    slope: ClosedJaxpr | None = None,
    tell: Callable[[str], None] = log.warning,
) -> sp.csr_array | None:
    """Return the (n, n) sparsity of the Hessian by tracing, as a SciPy array, or None where there is no rule.

    Not collective. It holds at every x: of branches that depend on x all are counted. Products are followed
    equation by equation, each variable with the sparse matrix of what its components depend on. There is no rule
    here for what picks by x (sorting, pivots), long loops and some others; asdex is asked about those, if it is
    there.

    Parameters
    ----------
    function
        `function(x) -> scalar` of an (n,) array.
    n
        Number of variables.
    slope
        The equations of the gradient; default they are made from the function.
    tell
        Called with a message that says why, where None is returned.
    """
    import jax
    from jax.extend.core import jaxpr_as_fun

    at = jax.ShapeDtypeStruct((n,), np.float64)
    with double_precision():
        gradient = jaxpr_as_fun(slope or jax.make_jaxpr(jax.grad(function))(at))

        def product(x: Array, direction: Array) -> Array:
            return jax.jvp(lambda x: gradient(x)[0], (x,), (direction,))[1]

        closed = jax.make_jaxpr(product)(at, at)
        direction = TracedVariable(identity_rows(n))
        try:
            (found,) = _follow(*open_jaxpr(closed), [TracedVariable(), direction])
        except NoRule as missing:
            return _ask_asdex(product, n, missing, tell)
    return sp.csr_array((n, n), dtype=bool) if found.rows is None else found.rows


def _ask_asdex(
    product: Callable[[Array, Array], Array], n: int, missing: NoRule, tell: Callable[[str], None]
) -> sp.csr_array | None:
    """Return what asdex finds, None where it is not there or has no rule either."""
    there, probed = importlib.util.find_spec("asdex"), "the pattern must be probed, at one x"
    if there is None:
        tell(f"no rule to trace {missing}; asdex may have one (pip install 'sparsehess[asdex]'): {probed}")
        return None
    try:
        from asdex import jacobian_sparsity

        found = jacobian_sparsity(product, np.zeros(n), np.zeros(n), argnums=1)
    except Exception as error:  # it has limits as well: the products themselves were traced before
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        tell(f"no rule to trace {missing}, and asdex fails ({told}): {probed}")
        return None
    log.info("no rule to trace %s: asdex has traced the pattern", missing)
    rows, columns = np.asarray(found.rows), np.asarray(found.cols)
    return sp.csr_array((np.ones(len(rows), bool), (rows, columns)), (n, n))


def _follow(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[TracedVariable]) -> list[TracedVariable]:
    """Return what is known of the results of a jaxpr."""
    known: dict[Any, TracedVariable] = dict(zip(jaxpr.constvars, map(constant_variable, consts), strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def of(atom: Any) -> TracedVariable:
        return constant_variable(atom.val) if hasattr(atom, "val") else known[atom]

    # Only what results need, and nothing is held longer than that.
    wanted = {atom for atom in jaxpr.outvars if not hasattr(atom, "val")}
    needed = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            variables = {atom for atom in equation.invars if not hasattr(atom, "val")}
            needed.append((equation, variables - wanted))
            wanted |= variables
    for equation, done in reversed(needed):
        results = _apply_rule(equation, [of(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
        for variable in done:
            del known[variable]
    return [of(atom) for atom in jaxpr.outvars]


def _apply_rule(equation: JaxEquation, arguments: Sequence[TracedVariable]) -> list[TracedVariable]:
    """Return what is known of the results of one equation."""
    import jax

    name, outs = primitive_name(equation), equation.outvars
    if any(not isinstance(atom.aval, jax.core.ShapedArray) for atom in (*equation.invars, *outs)):
        raise NoRule(f"{name} of an array that is written to")
    if name in CALLS or name in CUSTOM:
        return _follow(*called_jaxpr(equation), arguments)
    if all(one.value is not None for one in arguments):
        return [TracedVariable() for _ in outs] if equation.effects else _compute(name, equation, arguments)
    if all(one.rows is None for one in arguments):
        return [TracedVariable() for _ in outs]
    if name == "cond":
        return _follow_branches(equation, arguments)
    if name == "scan":
        return _follow_loop(equation, arguments)
    if name not in RULES or not all(jax.numpy.issubdtype(out.aval.dtype, np.inexact) for out in outs):
        raise NoRule(name)
    return [TracedVariable(rows) for rows in RULES[name](equation, arguments)]


def _compute(name: str, equation: JaxEquation, arguments: Sequence[TracedVariable]) -> list[TracedVariable]:
    """Return results that are the same at every x, computed when they are asked for."""
    import jax

    avals = [result.aval for result in equation.outvars]
    # Keys of random numbers are no arrays of NumPy's.
    plain = not any(
        jax.numpy.issubdtype(aval.dtype, jax.dtypes.extended)
        for aval in (*avals, *(atom.aval for atom in equation.invars))
    )

    @cache
    def values() -> list[Any]:
        arrays = [one.array() for one in arguments]
        if not plain:
            return bind_primitive(equation, arrays)
        if name in NUMPY:
            out: Any = NUMPY[name](*arrays)
        elif name in MOVES:
            out = MOVES[name](equation.params, *map(np.asarray, arrays))
        else:
            out = bind_primitive(equation, arrays)
        out = out if isinstance(out, list) else [out]
        return [np.asarray(array, aval.dtype).reshape(aval.shape) for array, aval in zip(out, avals, strict=True)]

    varied = not arguments or any(one.varied for one in arguments)
    return [TracedVariable(value=partial(_component, values, k), varied=varied) for k in range(len(avals))]


def _component(values: Callable[[], list[Any]], number: int) -> Any:
    return values()[number]


def _follow_branches(equation: JaxEquation, arguments: Sequence[TracedVariable]) -> list[TracedVariable]:
    """Return what is known of the results of a branch, or of all branches where x decides."""
    which, *others = arguments
    branches = equation.params["branches"]
    if which.value is not None:
        return _follow(*open_jaxpr(branches[int(which.array())]), others)
    found = [_follow(*open_jaxpr(branch), others) for branch in branches]
    return [TracedVariable(unite_rows(one.rows for one in same)) for same in zip(*found, strict=True)]


def _follow_loop(equation: JaxEquation, arguments: Sequence[TracedVariable]) -> list[TracedVariable]:
    """Return what is known of the results of a loop, step by step."""
    (jaxpr, consts), length = open_jaxpr(equation.params["jaxpr"]), equation.params["length"]
    if _long(equation) > _LONG:
        raise NoRule(f"scan of {length} steps, {_long(equation)} equations in all,")
    # What goes along the loop, and comes out along it, has an axis more outside than in a step, and stands last.
    count = len(arguments) - sum(map(_longer, equation.invars, jaxpr.invars))
    carried = len(equation.outvars) - sum(map(_longer, equation.outvars, jaxpr.outvars))
    fixed, state, along = arguments[: count - carried], arguments[count - carried : count], arguments[count:]
    made: dict[int, list[TracedVariable]] = {}
    for step in range(length)[:: -1 if equation.params["reverse"] else 1]:
        results = _follow(jaxpr, consts, [*fixed, *state, *(_entry(one, step, length) for one in along)])
        state, made[step] = results[:carried], results[carried:]
        for one in results:  # now, as each step's may need the one before
            if one.value is not None:
                one.value()
    return [
        *state,
        *(
            _stack([made[step][k] for step in range(length)], variable.aval.size)
            for k, variable in enumerate(jaxpr.outvars[carried:])
        ),
    ]


def _long(equation: JaxEquation) -> int:
    """Return how many equations one comes to, those of loops one step after another."""
    return 1 + equation.params.get("length", 1) * sum(
        _long(inner) for jaxpr in inner_jaxprs(equation) for inner in jaxpr.eqns
    )


def _longer(outside: Any, inside: Any) -> bool:
    return outside.aval.ndim > inside.aval.ndim


def _entry(one: TracedVariable, step: int, length: int) -> TracedVariable:
    """Return what is known of an entry along the first axis."""
    if one.value is not None:
        return TracedVariable(value=lambda: one.array()[step], varied=one.varied)
    if one.rows is None:
        return one
    size = one.rows.shape[0] // length
    return TracedVariable(one.rows[step * size : (step + 1) * size])


def _stack(entries: Sequence[TracedVariable], size: int) -> TracedVariable:
    """Return what is known of entries, of so many components each, along a new first axis."""
    if entries and all(one.value is not None for one in entries):
        return TracedVariable(value=lambda: np.stack([one.array() for one in entries]), varied=True)
    width = next((one.rows.shape[1] for one in entries if one.rows is not None), None)
    if width is None:
        return TracedVariable()
    nothing = sp.csr_array((size, width), dtype=bool)
    return TracedVariable(sp.vstack([nothing if one.rows is None else one.rows for one in entries], format="csr"))
