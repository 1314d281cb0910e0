"""What JAX has in different places or forms, release by release: asked for here, and by feature."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from sparsehess.errors import StackError

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr, JaxprEqn


def double_precision() -> AbstractContextManager[Any]:
    """Return a context in which JAX has double precision; the rest of the process may want the other.

    Not collective.

    Raises
    ------
    StackError
        This JAX has none.
    """
    import jax
    import jax.experimental

    for place in (jax, jax.experimental):  # the older place may warn where there is the newer one
        if hasattr(place, "enable_x64"):
            return place.enable_x64(True)
    raise StackError(f"JAX {jax.__version__} has no enable_x64, and so no double precision for the time of a call")


# Primitives that call other equations, whose arguments are theirs.
CALLS = frozenset(["checkpoint", "closed_call", "core_call", "eval_jaxpr", "jit", "pjit", "remat", "remat2"])
CUSTOM = frozenset(["custom_jvp_call", "custom_vjp_call"])


def primitive_name(equation: JaxprEqn) -> str:
    """Return the name of the primitive of an equation.

    Not collective.
    """
    return equation.primitive.name.replace("-", "_")


def called_jaxpr(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    """Return the jaxpr that an equation calls, and its constants.

    Not collective.
    """
    return open_jaxpr(equation.params["jaxpr" if "jaxpr" in equation.params else "call_jaxpr"])


def open_jaxpr(inner: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Return a jaxpr and its constants, of one that is closed or that needs none.

    Not collective.
    """
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())


def inner_jaxprs(equation: JaxprEqn) -> list[Jaxpr]:
    """Return all jaxprs that an equation has as parameters: calls, branches, steps of loops.

    Not collective.
    """
    lists = (value if isinstance(value, tuple | list) else (value,) for value in equation.params.values())
    found = (open_jaxpr(item)[0] for items in lists for item in items)
    return [one for one in found if hasattr(one, "eqns")]


def bind_primitive(equation: JaxprEqn, arguments: Sequence[Any], **other: Any) -> list[Any]:
    """Return the results of an equation's primitive for other arguments, which may be traced, and parameters.

    Not collective.
    """
    primitive = equation.primitive
    given = primitive.get_bind_params({**equation.params, **other})
    functions, parameters = given if isinstance(given, tuple) else ((), given)
    out = primitive.bind(*functions, *arguments, **parameters)
    return list(out) if primitive.multiple_results else [out]
