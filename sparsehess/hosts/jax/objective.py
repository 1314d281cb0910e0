"""Objectives of JAX functions: exact gradients, products in batches, patterns by tracing."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.jax.compressed_products import LITTLE, CompressedProducts
from sparsehess.hosts.jax.features import double_precision, jit_soon
from sparsehess.hosts.jax.sparsity_tracing import trace_sparsity
from sparsehess.hosts.jax.tracing_rules import identity_rows
from sparsehess.hosts.learning.host_errors import advised, explain_host_errors
from sparsehess.hosts.learning.product_modes import (
    DIFFERENCES,
    MOST_PRODUCTS,
    PRODUCTS,
    product_precision,
    require_one_of,
)
from sparsehess.pattern import Pattern
from sparsehess.runtime import log, optional
from sparsehess.runtime.validation import reals, whole_number

if TYPE_CHECKING:
    import scipy.sparse as sp
    from jax import Array
    from jax.extend.core import ClosedJaxpr

# Arrays of the size of x that a product in a batch is taken to need.
_ARRAYS = 8


# Gradients of so few variables that only check products take less time than a compiler that makes them faster.
_SOON = 2**14


def _refuse_tree(jax: Any, x: Any) -> None:
    """Raise InputError where x is a tree of arrays. Not collective."""
    if hasattr(x, "shape") or jax.tree_util.all_leaves([x]):
        return
    leaves = jax.tree_util.tree_leaves(x)
    if not isinstance(x, list | tuple) or any(getattr(leaf, "ndim", 0) for leaf in leaves):
        raise InputError(
            f"x must be a vector, not a tree of {len(leaves)} arrays ({type(x).__name__}): take "
            "x, unravel = jax.flatten_util.ravel_pytree(tree), and the function lambda x: function(unravel(x))"
        )


def from_jax(
    function: Callable[[Array], Array],
    x: Any,
    *,
    pattern: Pattern | None = None,
    products: str = "float64",
    memory: int = 2**29,
    device: Any = None,
    name: str | None = None,
    **more: Any,
) -> Objective:
    """Return the objective of a scalar JAX function.

    Not collective, but for what `Objective` does.

    Parameters
    ----------
    function
        `function(x) -> scalar` of an (n,) array, traceable and twice differentiable by JAX.
    x
        (n,) where the Hessian is taken.
    pattern
        Default none: it is traced where one is needed. Where tracing has no rule a warning says so, and
        `assemble(…, pattern="detect")` probes.
    products
        Precision of Hessian-vector products, float64 or float32, or `differences`: there are none, for functions
        that cannot be differentiated twice. Gradients are always of float64.
    memory
        Bytes that a batch of products may take on the device.
    device
        A JAX device; default JAX's own choice.
    name
        For reports; default the function's.
    more
        Other arguments of `Objective`.

    Returns
    -------
    objective
        Energy, gradient, batches of products and the traced pattern, of replicated arrays.

    Raises
    ------
    StackError
        JAX is not installed.
    InputError
        x is no vector of real numbers, or an option is none of those known.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> objective = sh.from_jax(lambda x: ((x[1:] - x[:-1] ** 2) ** 2).sum(), np.ones(3))
    >>> objective.gradient(objective.x)
    array([0., 0., 0.])
    >>> objective.hvps(objective.x, np.eye(3))
    array([[ 8., -4.,  0.],
           [-4., 10., -4.],
           [ 0., -4.,  2.]])
    """
    jax = optional("jax", "from_jax", "jax")
    from jax.extend.core import jaxpr_as_fun

    require_one_of(PRODUCTS, products, "products")
    _refuse_tree(jax, x)
    x, memory = reals(x, "x"), whole_number(memory, "memory", 1)
    if x.ndim != 1:
        raise InputError(f"x must be a vector; its shape is {x.shape}")
    n, precision = len(x), product_precision(products)
    shown = name or str(getattr(function, "__name__", "JAX function"))
    with explain_host_errors(shown), double_precision():
        value = jax.eval_shape(function, jax.ShapeDtypeStruct((n,), np.float64))
        if getattr(value, "shape", None) != () or not np.issubdtype(value.dtype, np.floating):
            kind = f"{value.dtype} of shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
            raise InputError(f"{shown} must return one real number, a sum or a mean, not {kind}")

    @cache
    def slope(dtype: Any) -> ClosedJaxpr:
        """Return the equations of the gradient, found once for all that is made of them."""
        with double_precision():
            return jax.make_jaxpr(jax.grad(function))(jax.ShapeDtypeStruct((n,), dtype))

    def gradient(at: Array) -> Array:
        return jaxpr_as_fun(slope(at.dtype))(at)[0]

    def directional(at: Array, direction: Array) -> Array:
        return jax.jvp(gradient, (at,), (direction,))[1]

    def trace() -> sp.csr_array | None:
        # One rank says why there is no pattern.
        tell = log.warning if objective.comm.rank == 0 else log.debug
        with explain_host_errors(objective.name):
            found = trace_sparsity(function, n, slope(np.dtype(np.float64)), tell)
        # With the diagonal, which patterns have, so that there is nothing to add.
        return None if found is None else found + identity_rows(n)

    # Batches share what depends on x alone.
    batches = jax.vmap(directional, in_axes=(None, 0))

    def slopes(at: Array) -> tuple[Array, Array]:
        return function(at), gradient(at)

    # Compiled once for each shape. Where gradients only check products, energies come with them: one to compile.
    compiled: dict[str, Callable[..., Any]] = {
        "slopes": jit_soon(jax, slopes, device) if n <= _SOON else jax.jit(slopes),
        "gradient": jax.jit(gradient) if products == DIFFERENCES else lambda at: compiled["slopes"](at)[1],
        "hvps": jax.jit(batches),
        "product": jit_soon(jax, batches, device) if n <= _SOON else jax.jit(batches),  # that checks others
    }
    lengths: set[int] = set()  # of the batches compiled

    made: list[weakref.ref[CompressedProducts]] = []  # the last ones

    def call(what: str, precision: str, *arrays: np.ndarray) -> Any:
        # Double precision for the length of the call: the rest of the process may want the other.
        with double_precision(), jax.default_device(device) if device is not None else nullcontext():
            return compiled[what](*(array.astype(precision, copy=False) for array in arrays))

    def hvps(at: np.ndarray, directions: np.ndarray) -> np.ndarray:
        many, last = len(directions), made[-1]() if made else None
        if last is not None and last.takes(many):
            return last.along(at, directions)
        if last is not None and many == 1:
            return np.asarray(call("product", precision, at, directions), np.float64)
        enough = max(2 * many, LITTLE // max(n, 1))
        length = min((some for some in lengths if many <= some <= enough), default=many)
        lengths.add(length)
        if length > many:
            directions = np.concatenate([directions, np.zeros((length - many, n))])
        return np.asarray(call("hvps", precision, at, directions), np.float64)[:many]

    def compressed(colors: np.ndarray, count: int, reads: np.ndarray) -> CompressedProducts:
        with explain_host_errors(objective.name):
            new = CompressedProducts(jax, function, batches, colors, count, reads, precision, device)
        made[:] = [weakref.ref(new)]
        return new

    batch = max(1, min(MOST_PRODUCTS, memory // (_ARRAYS * np.dtype(precision).itemsize * max(n, 1))))
    objective = Objective(
        x=x,
        gradient=advised(lambda at: np.asarray(call("gradient", "float64", at))),
        energy=advised(lambda at: float(call("slopes", "float64", at)[0])),
        hvps=None if products == DIFFERENCES else advised(hvps),
        compressed=None if products == DIFFERENCES else compressed,
        compiled=True,
        batch=1 if products == DIFFERENCES else 1 << (batch.bit_length() - 1),
        pattern=pattern,
        trace=trace,
        name=shown,
        **more,
    )
    return objective
