"""What JAX has in different places or forms, release by release: asked for here, and by feature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol

from sparsehess.errors import StackError


class JaxEquation(Protocol):
    """What is used of an equation of JAX's.

    Arguments and results are variables with `aval`, an array's shape and type, or constants with `val` too.
    """

    @property
    def primitive(self) -> Any:
        """The operation."""

    @property
    def params(self) -> dict[str, Any]:
        """Static parameters of the operation."""

    @property
    def invars(self) -> Sequence[Any]:
        """Arguments."""

    @property
    def outvars(self) -> Sequence[Any]:
        """Results."""

    @property
    def effects(self) -> Any:
        """Side effects, empty for a pure operation."""


class Jaxpr(Protocol):
    """What is used of a program of JAX's: equations in order, from its variables to its results."""

    @property
    def eqns(self) -> Sequence[Any]:
        """Equations, each a `JaxEquation`."""

    @property
    def constvars(self) -> Sequence[Any]:
        """Variables of constants."""

    @property
    def invars(self) -> Sequence[Any]:
        """Variables of arguments."""

    @property
    def outvars(self) -> Sequence[Any]:
        """Results, variables or constants."""


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


def primitive_name(equation: JaxEquation) -> str:
    """Return the name of the primitive of an equation.

    Not collective.
    """
    return equation.primitive.name.replace("-", "_")


def called_jaxpr(equation: JaxEquation) -> tuple[Jaxpr, Sequence[Any]]:
    """Return the jaxpr that an equation calls, and its constants.

    Not collective.
    """
    return open_jaxpr(equation.params["jaxpr" if "jaxpr" in equation.params else "call_jaxpr"])


def open_jaxpr(inner: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Return a jaxpr and its constants, of one that is closed or that needs none.

    Not collective.
    """
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())


def inner_jaxprs(equation: JaxEquation) -> list[Jaxpr]:
    """Return all jaxprs that an equation has as parameters: calls, branches, steps of loops.

    Not collective.
    """
    lists = (value if isinstance(value, tuple | list) else (value,) for value in equation.params.values())
    found = (open_jaxpr(item)[0] for items in lists for item in items)
    return [one for one in found if hasattr(one, "eqns")]


def jaxpr_constants(closed: Any) -> list[Any]:
    """Return all arrays that a closed jaxpr has in it, those of the functions that it calls too.

    Not collective.
    """
    jaxpr, consts = open_jaxpr(closed)
    found = list(consts)
    for equation in jaxpr.eqns:
        found += [atom.val for atom in equation.invars if hasattr(atom, "val")]
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if hasattr(open_jaxpr(item)[0], "eqns"):
                    found += jaxpr_constants(item)
    return found


def bind_primitive(equation: JaxEquation, arguments: Sequence[Any], **other: Any) -> list[Any]:
    """Return the results of an equation's primitive for other arguments, which may be traced, and parameters.

    Not collective.
    """
    primitive = equation.primitive
    given = primitive.get_bind_params({**equation.params, **other})
    functions, parameters = given if isinstance(given, tuple) else ((), given)
    out = primitive.bind(*functions, *arguments, **parameters)
    return list(out) if primitive.multiple_results else [out]


def jit_soon(jax: ModuleType, function: Callable[..., Any], device: Any) -> Callable[..., Any]:
    """Return a function to be compiled in half the time, and run in more; on a processor, where JAX can.

    Not collective.
    """
    platform = jax.default_backend() if device is None else device.platform
    if platform != "cpu" or "compiler_options" not in inspect.signature(jax.jit).parameters:
        return jax.jit(function)
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
