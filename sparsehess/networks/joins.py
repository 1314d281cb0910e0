"""Nodes that join others: sums (residual connections), products (gates), concatenations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import NodeDerivatives, NodeFunction


@dataclass(frozen=True)
class Sum(NodeFunction):
    """The sum of nodes of one width: a residual connection.

    *Not collective.*

    Examples
    --------
    >>> from sparsehess.networks import Sum
    >>> Sum().width((3, 3))
    3
    """

    trusted: ClassVar[bool] = True

    def width(self, widths: tuple[int, ...]) -> int:
        """Return the width that all parents have."""
        if len(set(widths)) != 1:
            raise InputError(f"a sum is of nodes of one width, not {list(widths)}")
        return widths[0]

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return the sum of X."""
        return _SumDerivatives(sum(X[1:], X[0]))


class _SumDerivatives(NodeDerivatives):
    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        return T

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        return Y


@dataclass(frozen=True)
class Product(NodeFunction):
    """The product, unit by unit, of nodes of one width, or of width 1: a gate.

    *Not collective.*

    A node may stand in it twice.

    Examples
    --------
    >>> from sparsehess.networks import Product
    >>> Product().width((3, 1))
    3
    """

    trusted: ClassVar[bool] = True

    def width(self, widths: tuple[int, ...]) -> int:
        """Return the width that the parents have, but for those of width 1."""
        if not widths or len(set(widths) - {1}) > 1:
            raise InputError(f"a product is of nodes of one width, or of width 1, not {list(widths)}")
        return max(widths)

    def couples_parents(self, p: int, q: int) -> bool:
        """Return whether the parents are different arguments."""
        return p != q

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return the product of X, and its factors."""
        return _ProductDerivatives(X)


class _ProductDerivatives(NodeDerivatives):
    def __init__(self, X: list[np.ndarray]):
        self._X = X
        super().__init__(self._product_without())

    def _product_without(self, *positions: int) -> np.ndarray:
        """Return the product (N, d) of the factors at other positions."""
        out = np.ones((len(self._X[0]), max(x.shape[1] for x in self._X)))
        for position, x in enumerate(self._X):
            if position not in positions:
                out = out * x
        return out

    def _sum_to_width(self, p: int, Y: np.ndarray) -> np.ndarray:
        """Return adjoints of parent p, whose one unit may have multiplied all units of other nodes."""
        narrow = self._X[p].shape[1] < Y.shape[2]
        return Y.sum(axis=2, keepdims=True) if narrow else Y

    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        return T * self._product_without(p)[:, None, :]

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        return self._sum_to_width(p, Y * self._product_without(p)[:, None, :])

    def second_product(self, delta: np.ndarray, p: int, q: int, T: np.ndarray) -> np.ndarray:
        return self._sum_to_width(p, T * (delta * self._product_without(p, q))[:, None, :])


@dataclass(frozen=True)
class Concatenation(NodeFunction):
    """Nodes side by side.

    *Not collective.*

    Examples
    --------
    >>> from sparsehess.networks import Concatenation
    >>> Concatenation().width((3, 2))
    5
    """

    trusted: ClassVar[bool] = True

    def width(self, widths: tuple[int, ...]) -> int:
        """Return the sum of the widths of the parents."""
        if not widths:
            raise InputError("a concatenation is of one node at least")
        return sum(widths)

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return X side by side."""
        return _ConcatenationDerivatives(X)


class _ConcatenationDerivatives(NodeDerivatives):
    def __init__(self, X: list[np.ndarray]):
        super().__init__(np.concatenate(X, axis=1))
        ends = np.cumsum([x.shape[1] for x in X])
        self._slices = [slice(end - x.shape[1], end) for x, end in zip(X, ends, strict=True)]

    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        out = np.zeros((*T.shape[:2], self.value.shape[1]), T.dtype)
        out[:, :, self._slices[p]] = T
        return out

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        return Y[:, :, self._slices[p]]
