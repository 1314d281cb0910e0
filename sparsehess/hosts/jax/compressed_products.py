"""Products of a JAX function with the variables of each colour: seeds on the device, compiled for a colouring."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.hessian import recovery_kernels
from sparsehess.hosts.jax.equations import Program
from sparsehess.hosts.jax.features import double_precision
from sparsehess.hosts.jax.known_values import SplitProgram

if TYPE_CHECKING:
    from jax import Array
    from jax.experimental.sparse import BCOO

# Batches are filled up to a length that is compiled, unless that more than doubles them and comes to more numbers
# than these: their products take less time than a compiler.
LITTLE = 2**18


class CompressedProducts:
    """See `derivatives.compressed_products`.

    On a processor the columns are read where they are, without being copied: a compiler's gather takes longer.
    On an accelerator entries are read there, and they alone are sent.

    Parameters
    ----------
    jax
        The package.
    function
        `function(x) -> scalar`, traceable.
    products
        `products(x, seeds)`, the products (count, n) at x (n,) with seeds (count, n), traceable.
    colors, count, reads
        See there.
    precision
        Of the products.
    device
        A JAX device, or None for JAX's own choice.
    there
        Whether entries are read on the device; default where it is no processor.

    Attributes
    ----------
    count
        Of the colours.
    direct
        Whether entries are read directly.
    """

    def __init__(
        self,
        jax: ModuleType,
        function: Callable[[Array], Array],
        products: Callable[[Array, Array], Array],
        colors: np.ndarray,
        count: int,
        reads: np.ndarray,
        precision: str,
        device: Any = None,
        there: bool | None = None,
    ) -> None:
        self._jax, self._function, self._colors, self.count = jax, function, colors, count
        self._device, self._config = device, jax.config
        self.direct = len(reads) > 0
        self._reads, self._precision = reads, np.dtype(precision)
        # Whether what is compiled gives arrays that others can read as they are.
        self._shared = self._double = self._precision == np.float64
        self._reader: recovery_kernels.Reader | None = None
        given = np.zeros((count, len(colors)), precision)
        given[colors, np.arange(len(colors))] = 1.0
        with double_precision(), jax.default_device(device) if device is not None else nullcontext():
            self._seeds = jax.device_put(given, device)
            where = next(iter(self._seeds.devices())).platform
            self._shared &= where == "cpu"
            self._there = jax.device_put(reads, device) if there or (there is None and where != "cpu") else None
        self._products = products
        self._columns = jax.jit(products)
        # What another point takes, and what that is given beside x; made when it is asked for.
        self._next: Callable[..., Array] | None = None
        self._kept: tuple[Array, ...] = ()

    def _specialized(self) -> Callable[..., Array]:
        """Return what gives the columns, or the entries on the device, at x and with what is kept."""
        jax, seeds, there = self._jax, self._seeds, self._there
        with double_precision():
            point = jax.ShapeDtypeStruct(seeds.shape[1:], seeds.dtype)
            program = Program(
                jax.make_jaxpr(self._products)(point, jax.ShapeDtypeStruct(seeds.shape, seeds.dtype))
            )
            split = SplitProgram(jax, program, seeds)
        self._kept = split.kept
        if there is None:
            return self._columns if split.takes_any else jax.jit(split.run)
        self._kept = (there, *split.kept)

        def entries(x: Array, places: Array, *kept: Array) -> Array:
            return split.run(x, *kept).ravel().at[places].get(mode="promise_in_bounds")

        return jax.jit(entries)

    def _called(self, function: Callable[..., Array], x: np.ndarray, *more: Array | np.ndarray) -> Array:
        """Return what a compiled function gives at x; it may not be there yet."""
        if x.dtype != self._precision:
            x = x.astype(self._precision)
        if self._config.jax_enable_x64:
            return function(x, *more)
        with double_precision():  # for the length of the call: the rest of the process may want the other
            return function(x, *more)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """See `derivatives.compressed_products`."""
        return np.asarray(self._called(self._columns, x, self._seeds), np.float64)

    def takes(self, many: int) -> bool:
        """Return whether so many directions are best left to `along`. Not collective."""
        return many <= self.count <= max(2 * many, LITTLE // max(len(self._colors), 1))

    def along(self, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return (m, n) products at x (n,) with directions (m, n). Not collective."""
        given = np.zeros((self.count, len(x)), self._precision)
        given[: len(directions)] = directions
        return np.asarray(self._called(self._columns, x, given), np.float64)[: len(directions)]

    def traced(self, x: Array) -> Array:
        """Return (nnz,) the entries at x (n,), in its precision. Not collective. It can be traced."""
        jax = self._jax
        slope = jax.grad(self._function)
        seeds = (self._colors == np.arange(self.count)[:, None]).astype(x.dtype)
        columns = jax.vmap(lambda seed: jax.jvp(slope, (x,), (seed,))[1])(seeds)
        return columns.ravel().at[self._reads].get(mode="promise_in_bounds")

    def sparse_array(self, indptr: np.ndarray, columns: np.ndarray, values: np.ndarray) -> BCOO:
        """Return entries of rows, on the device, as a BCOO array. Not collective."""
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        with double_precision():
            entries = self._jax.device_put(values, self._device)
            return self.as_bcoo(entries, np.stack([rows, columns], axis=1).astype(np.int32))

    def as_bcoo(self, entries: Array, indices: np.ndarray) -> BCOO:
        """Return entries with their indices (nnz, 2) as a BCOO array. Not collective. It can be traced."""
        from jax.experimental.sparse import BCOO

        given = self._jax.numpy.asarray(indices)
        shape = (len(self._colors),) * 2
        return BCOO((entries, given), shape=shape, indices_sorted=True, unique_indices=True)

    def begin(self, x: np.ndarray) -> Array:
        """See `derivatives.compressed_products`."""
        if self._next is None:
            self._next = self._specialized()
        if self._double and self._config.jax_enable_x64 and x.dtype is self._precision:
            return self._next(x, *self._kept)
        return self._called(self._next, x, *self._kept)

    def finish(self, begun: Array, values: np.ndarray) -> float:
        """See `derivatives.compressed_products`."""
        if self._there is not None:
            np.copyto(values, begun)
            return float(np.dot(values, values))
        if self._reader is None or self._reader.values is not values:
            self._reader = recovery_kernels.Reader(self._reads, values)
        return self._reader.take(begun.block_until_ready() if self._shared else np.asarray(begun, np.float64))
