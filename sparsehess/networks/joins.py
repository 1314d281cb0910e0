"""Nodes that join others: sums (residuals), products (gates), concatenations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import Function, Local


@dataclass(frozen=True)
class Sum(Function):
    """The sum of nodes of one width: residual connections.

    Not collective to make.
    """

    trusted: ClassVar[bool] = True

    def width(self, widths):
        if len(set(widths)) != 1:
            raise InputError(f"a sum is of nodes of one width, not {list(widths)}")
        return widths[0]

    def at(self, w, X):
        return _Passing(sum(X))


class _Passing(Local):
    def push(self, p, T):
        return T

    pull = push


@dataclass(frozen=True)
class Product(Function):
    """The product, number by number, of nodes of one width, or of width 1: gates. A node may stand in it twice.

    Not collective to make.
    """

    trusted: ClassVar[bool] = True

    def width(self, widths):
        if not widths or len(set(widths) - {1}) > 1:
            raise InputError(f"a product is of nodes of one width, or of width 1, not {list(widths)}")
        return max(widths)

    def curved(self, p, q):
        return p != q

    def at(self, w, X):
        return _Factors(X)


class _Factors(Local):
    def __init__(self, X):
        self._X = X
        super().__init__(self._without())

    def _without(self, *positions) -> np.ndarray:
        """Return the product (N, d) of the factors at other positions."""
        out = np.ones((len(self._X[0]), max(x.shape[1] for x in self._X)))
        for position, x in enumerate(self._X):
            if position not in positions:
                out = out * x
        return out

    def _folded(self, p, Y) -> np.ndarray:
        """Return adjoints of parent p, of which one number may have multiplied a whole node."""
        narrow = self._X[p].shape[1] < Y.shape[2]
        return Y.sum(axis=2, keepdims=True) if narrow else Y

    def push(self, p, T):
        return T * self._without(p)[:, None, :]

    def pull(self, p, Y):
        return self._folded(p, Y * self._without(p)[:, None, :])

    def bend(self, delta, p, q, T):
        return self._folded(p, T * (delta * self._without(p, q))[:, None, :])


@dataclass(frozen=True)
class Concatenation(Function):
    """Nodes side by side.

    Not collective to make.
    """

    trusted: ClassVar[bool] = True

    def width(self, widths):
        if not widths:
            raise InputError("a concatenation is of one node at least")
        return sum(widths)

    def at(self, w, X):
        return _Beside(X)


class _Beside(Local):
    def __init__(self, X):
        super().__init__(np.concatenate(X, axis=1))
        ends = np.cumsum([x.shape[1] for x in X])
        self._slices = [slice(end - x.shape[1], end) for x, end in zip(X, ends, strict=True)]

    def push(self, p, T):
        out = np.zeros((*T.shape[:2], self.value.shape[1]), T.dtype)
        out[:, :, self._slices[p]] = T
        return out

    def pull(self, p, Y):
        return Y[:, :, self._slices[p]]
