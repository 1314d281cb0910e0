"""Objectives of JAX functions: exact gradients, products in batches, patterns by tracing."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.jax.features import double_precision
from sparsehess.hosts.jax.sparsity_tracing import trace_sparsity
from sparsehess.hosts.jax.tracing_rules import identity_rows
from sparsehess.runtime import log, optional
from sparsehess.runtime.validation import evaluating, reals, whole_number

PRODUCTS = ("float64", "float32")

# Arrays of the size of x that a product in a batch is taken to need, and how many products a batch has at most.
_ARRAYS = 8
_MOST = 64

# Batches are filled up to a length that was compiled before, unless that more than doubles them and comes to more
# numbers than these: their products take less time than a compiler.
_LITTLE = 2**16


def from_jax(
    function, x, *, pattern=None, products: str = "float64", memory: int = 2**29, device=None, **more
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
        Default none: it is traced where one is needed, see `traced`. Where that has no rule a warning says so, and
        the pattern is probed.
    products
        Precision of Hessian-vector products; gradients are always of float64.
    memory
        Bytes that a batch of products may take on the device.
    device
        A JAX device; default JAX's own choice.
    more
        Other arguments of `Objective`.

    Raises
    ------
    StackError
        JAX is not installed.
    """
    jax = optional("jax", "from_jax", "jax")
    from jax.extend.core import jaxpr_as_fun

    if products not in PRODUCTS:
        raise InputError(f"products {products!r} is none of {', '.join(PRODUCTS)}")
    x, memory = reals(x, "x"), whole_number(memory, "memory", 1)
    if x.ndim != 1:
        raise InputError(f"x must be a vector; its shape is {x.shape}")

    @cache
    def slope(dtype):
        """Return the equations of the gradient, found once for all that is made of them."""
        with double_precision():
            return jax.make_jaxpr(jax.grad(function))(jax.ShapeDtypeStruct(x.shape, dtype))

    def gradient(at):
        return jaxpr_as_fun(slope(at.dtype))(at)[0]

    def directional(at, direction):
        return jax.jvp(gradient, (at,), (direction,))[1]

    def trace():
        # One rank says why there is no pattern.
        tell = log.warning if objective.comm.rank == 0 else log.debug
        with evaluating(objective.name):
            found = trace_sparsity(function, len(x), slope(x.dtype), tell)
        # With the diagonal, which patterns have, so that there is nothing to add.
        return None if found is None else found + identity_rows(len(x))

    # Compiled once for each shape. Batches share what depends on x alone.
    compiled = {
        "energy": jax.jit(function),
        "gradient": jax.jit(gradient),
        "hvps": jax.jit(jax.vmap(directional, in_axes=(None, 0))),
    }
    lengths = set()  # of the batches compiled

    def call(name, dtype, *arrays):
        # Double precision for the length of the call: the rest of the process may want the other.
        with double_precision(), jax.default_device(device) if device is not None else nullcontext():
            out = compiled[name](*(array.astype(dtype, copy=False) for array in arrays))
            return np.asarray(out, np.float64)

    def hvps(at, directions):
        many = len(directions)
        enough = max(2 * many, _LITTLE // max(len(at), 1))
        length = min((some for some in lengths if many <= some <= enough), default=many)
        lengths.add(length)
        if length > many:
            directions = np.concatenate([directions, np.zeros((length - many, len(at)))])
        return call("hvps", products, at, directions)[:many]

    batch = max(1, min(_MOST, memory // (_ARRAYS * np.dtype(products).itemsize * max(len(x), 1))))
    objective = Objective(
        x=x,
        gradient=lambda at: call("gradient", "float64", at),
        energy=lambda at: float(call("energy", "float64", at)),
        hvps=hvps,
        batch=1 << (batch.bit_length() - 1),
        pattern=pattern,
        trace=trace,
        **{"name": getattr(function, "__name__", "JAX function"), **more},
    )
    return objective
