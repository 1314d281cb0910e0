"""The colouring of a Hessian inside the user's own compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.hosts.jax.compressed_products import CompressedProducts

if TYPE_CHECKING:
    from jax import Array
    from jax.experimental.sparse import BCOO


def jax_hessian(hessian: Hessian) -> Callable[[Array], BCOO]:
    """Return a function of x that gives the Hessian as a BCOO array of JAX, to be used inside `jax.jit`.

    Not collective. Everything stays on the device. It may be differentiated and batched, is of the precision of
    its x, and goes on when the Hessian is closed. What it is given it does not check: pattern and colouring are
    those that the assembly has verified.

    Parameters
    ----------
    hessian
        Of `from_jax`, assembled on one rank by a colouring that is read directly.

    Returns
    -------
    function
        `function(x) -> (n, n) BCOO`; indices are sorted, and the same at every x.

    Raises
    ------
    InputError
        The Hessian is not of `from_jax`, is on several ranks, or its colouring is not read directly.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> def energy(x):
    ...     return ((x[1:] - x[:-1] ** 2) ** 2).sum()
    >>> with sh.assemble(sh.from_jax(energy, np.ones(100))) as H:
    ...     sparse = sh.jax_hessian(H)
    >>> curvature = jax.jit(lambda x, v: v @ (sparse(x) @ v))
    >>> float(curvature(np.ones(100), np.ones(100)))
    198.0
    """
    made, pattern = hessian.compressed, hessian.pattern
    if pattern.comm.size > 1:
        raise InputError("jax_hessian needs all rows: assemble on one rank (comm=MPI.COMM_SELF)")
    if not isinstance(made, CompressedProducts):
        raise InputError(
            f"the Hessian of {hessian.objective.name} has no products of JAX made for its colouring: assemble an "
            "objective of from_jax by derivative='ad', with memory= for all colours, and without columns="
        )
    if not made.direct:
        raise InputError("jax_hessian needs entries that are read directly: coloring='star', 'cpr' or 'distance2'")
    rows = np.repeat(np.arange(pattern.n, dtype=np.int32), np.diff(pattern.indptr))
    indices = np.stack([rows, pattern.columns.astype(np.int32)], axis=1)

    name, n = hessian.objective.name, pattern.n

    def at(x: Array) -> BCOO:
        import jax.numpy as jnp

        x = jnp.asarray(x)
        if x.shape != (n,):
            raise InputError(f"x of {name} must have shape ({n},), not {x.shape}")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(float)  # whole numbers have no derivatives in JAX
        return made.as_bcoo(made.traced(x), indices)

    return at
