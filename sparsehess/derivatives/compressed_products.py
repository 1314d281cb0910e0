"""`CompressedProducts`: what a host has made once for a colouring, so that another point costs one call."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class CompressedProducts(Protocol):
    """Products with the variables of each colour, whose seeds stay where products are evaluated.

    Made by `Objective.compressed(colors, count, reads)`: (n,) colours from 0 to count - 1, and for each entry of
    the pattern the place where it is read, color * n + row. A rank that makes one has all rows.
    """

    def columns(self, x: np.ndarray) -> np.ndarray:
        """Return (count, n) products at x (n,), of float64.

        Not collective. They may not be writable, and are those of this call until the next one.
        """
        ...

    def begin(self, x: np.ndarray) -> Any:
        """Begin with the products at x (n,), which must not change before `finish`; return what that is given.

        Not collective.
        """
        ...

    def finish(self, begun: Any, values: np.ndarray) -> float:
        """Fill `values` (nnz,) with the entries as they are read; return the sum of their squares.

        Not collective. That sum is not finite where an entry is not.
        """
        ...
