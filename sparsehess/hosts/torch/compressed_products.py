"""Products of a PyTorch function with the variables of each colour: seeds stay on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.hessian import recovery_kernels
from sparsehess.hosts.torch.parameters import Leaves

if TYPE_CHECKING:
    from torch import Tensor


class CompressedProducts:
    """See `derivatives.compressed_products`.

    On a processor the columns are read where they are; on an accelerator entries are read there, and they alone
    are sent.

    Parameters
    ----------
    torch
        The package.
    leaves
        The variables.
    products
        `products(x, parts)` of x (n,) and directions by leaves, (count, …) each, as `Leaves.split` makes them.
    colors, count, reads
        See there.
    there
        Whether entries are read on the device; default where it is no processor.
    """

    def __init__(
        self,
        torch: ModuleType,
        leaves: Leaves,
        products: Callable[[np.ndarray, Sequence[Tensor]], Sequence[Tensor]],
        colors: np.ndarray,
        count: int,
        reads: np.ndarray,
        there: bool | None = None,
    ) -> None:
        seeds = np.zeros((count, len(colors)))
        seeds[colors, np.arange(len(colors))] = 1.0
        self._leaves, self._products, self._seeds = leaves, products, leaves.split(seeds)
        device = leaves.tensors[0].device
        there = device.type != "cpu" if there is None else there
        self._reads = reads
        self._there = torch.tensor(reads.astype(np.int64), device=device) if there else None
        self._reader: recovery_kernels.Reader | None = None

    def columns(self, x: np.ndarray) -> np.ndarray:
        """See `derivatives.compressed_products`."""
        return self._here(self._leaves.joined(self._products(x, self._seeds)))

    def begin(self, x: np.ndarray) -> Tensor:
        """See `derivatives.compressed_products`."""
        columns = self._leaves.joined(self._products(x, self._seeds))
        return columns if self._there is None else columns.take(self._there)

    def finish(self, begun: Tensor, values: np.ndarray) -> float:
        """See `derivatives.compressed_products`."""
        if self._there is not None:
            np.copyto(values, self._here(begun))
            return float(np.dot(values, values))
        if self._reader is None or self._reader.values is not values:
            self._reader = recovery_kernels.Reader(self._reads, values)
        return self._reader.take(self._here(begun))

    @staticmethod
    def _here(tensor: Tensor) -> np.ndarray:
        """Return a tensor as an array of float64, where it is if it can be."""
        return np.ascontiguousarray(tensor.cpu().numpy(), np.float64)
