"""Objectives of JAX functions: exact gradients, products in batches, patterns by tracing."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from sparsehess.errors import InputError, StackError
from sparsehess.objective import Objective

PRODUCTS = ("float64", "float32")

# Arrays of the size of x that a product in a batch is taken to need, and how many products a batch has at most.
_ARRAYS = 8
_MOST = 64


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
        Default none: it is traced where one is needed, if asdex is there, else probed.
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
    try:
        import jax
        from jax.experimental import enable_x64
    except ImportError as error:
        raise StackError(f"{error}: pip install 'sparsehess[jax]'") from error
    if products not in PRODUCTS:
        raise InputError(f"products {products!r} is none of {', '.join(PRODUCTS)}")
    x = np.asarray(x, np.float64)
    slope = jax.grad(function)

    def directional(at, direction):
        return jax.jvp(slope, (at,), (direction,))[1]

    # Compiled once for each shape. Batches share what depends on x alone.
    compiled = {
        "energy": jax.jit(function),
        "gradient": jax.jit(slope),
        "hvps": jax.jit(jax.vmap(directional, in_axes=(None, 0))),
    }

    def call(name, dtype, *arrays):
        # Double precision for the length of the call: the rest of the process may want the other.
        with enable_x64(), jax.default_device(device) if device is not None else nullcontext():
            return np.asarray(compiled[name](*(array.astype(dtype) for array in arrays)), np.float64)

    def hvps(at, directions):
        # As few shapes as possible: batches are filled up to a power of two.
        many = 1 << (len(directions) - 1).bit_length()
        filled = np.zeros((many, len(at)))
        filled[: len(directions)] = directions
        return call("hvps", products, at, filled)[: len(directions)]

    batch = max(1, min(_MOST, memory // (_ARRAYS * np.dtype(products).itemsize * max(len(x), 1))))
    return Objective(
        x=x,
        gradient=lambda at: call("gradient", "float64", at),
        energy=lambda at: float(call("energy", "float64", at)),
        hvps=hvps,
        batch=1 << (batch.bit_length() - 1),
        pattern=pattern,
        trace=lambda: traced(function, len(x)),
        **{"name": getattr(function, "__name__", "JAX function"), **more},
    )


def traced(function, n: int):
    """Return the (n, n) sparsity of the Hessian by tracing, as a SciPy matrix, or None without asdex.

    Not collective. It holds at every x: of branches that depend on x all are counted.
    """
    try:
        import asdex
    except ImportError:
        return None
    import scipy.sparse

    found = asdex.hessian_sparsity(function, np.zeros(n, np.float32))
    rows, columns = np.asarray(found.rows), np.asarray(found.cols)
    return scipy.sparse.csr_matrix((np.ones(len(rows), np.int8), (rows, columns)), (n, n))
