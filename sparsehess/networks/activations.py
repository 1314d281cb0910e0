"""Activations: functions of each number of a node by itself, smooth or piecewise linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import Function, Local, only
from sparsehess.runtime.validation import reals


class Scaled(Local):
    """Value, first and second derivative of every number, each (N, d)."""

    def __init__(self, value, first, second=None):
        super().__init__(value)
        self.first, self.second = first, second

    def push(self, p, T):
        return T * self.first[:, None, :]

    pull = push

    def bend(self, delta, p, q, T):
        return T * (delta * self.second)[:, None, :]


@dataclass(frozen=True)
class Pointwise(Function):
    """An activation φ, twice differentiable.

    Not collective to make.

    Attributes
    ----------
    rule
        `rule(x) -> (φ(x), φ'(x), φ''(x))` for x (N, d), each of that shape.
    """

    rule: Callable

    def width(self, widths):
        return only(widths, "an activation")

    def curved(self, p, q):
        return True

    def at(self, w, X):
        return Scaled(*self.rule(X[0]))


def _tanh(x):
    y = np.tanh(x)
    slope = 1 - y * y
    return y, slope, -2 * y * slope


def _logistic(x):
    """Return the logistic function of real or complex x, without overflow."""
    right = x.real > 0
    small = np.exp(np.where(right, -x, x))
    return np.where(right, 1.0, small) / (1 + small)


def _sigmoid(x):
    y = _logistic(x)
    slope = y * (1 - y)
    return y, slope, slope * (1 - 2 * y)


def _softplus(x):
    right = x.real > 0
    value = np.where(right, x, 0.0) + np.log1p(np.exp(np.where(right, -x, x)))
    slope = _logistic(x)
    return value, slope, slope * (1 - slope)


def _square(x):
    return x * x, 2 * x, np.full_like(x, 2)


def tanh() -> Pointwise:
    """Return the hyperbolic tangent. Not collective."""
    return Pointwise(_tanh)


def sigmoid() -> Pointwise:
    """Return 1 / (1 + exp(-x)). Not collective."""
    return Pointwise(_sigmoid)


def softplus() -> Pointwise:
    """Return log(1 + exp(x)). Not collective."""
    return Pointwise(_softplus)


def square() -> Pointwise:
    """Return x². Not collective."""
    return Pointwise(_square)


@dataclass(frozen=True)
class PiecewiseLinear(Function):
    """left·x below 0, right·x above: an activation with a kink at 0.

    Not collective to make. At 0 itself gradients and products take the slope `left`; the Hessian of a network
    takes an element of least norm, see `Network.hessian`.
    """

    trusted: ClassVar[bool] = True

    left: float
    right: float

    def __post_init__(self):
        if not np.isfinite(reals([self.left, self.right], "slopes")).all():
            raise InputError(f"slopes must be finite, not {self.left} and {self.right}")

    def width(self, widths):
        return only(widths, "an activation")

    def at(self, w, X):
        slopes = np.where(X[0].real > 0, self.right, self.left)
        return Scaled(slopes * X[0], slopes)


def relu() -> PiecewiseLinear:
    """Return max(x, 0). Not collective."""
    return PiecewiseLinear(0.0, 1.0)


def leaky_relu(slope: float = 0.01) -> PiecewiseLinear:
    """Return x, or slope·x below 0. Not collective."""
    return PiecewiseLinear(slope, 1.0)


def absolute() -> PiecewiseLinear:
    """Return |x|. Not collective."""
    return PiecewiseLinear(-1.0, 1.0)
