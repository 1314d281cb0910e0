"""Activations: functions of each unit of a node by itself, smooth or piecewise linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import NodeDerivatives, NodeFunction, single_width
from sparsehess.runtime.validation import reals

Rule = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


class ElementwiseDerivatives(NodeDerivatives):
    """Value, first and second derivative of every unit.

    *Not collective.*

    Parameters
    ----------
    value, first, second
        φ(x), φ'(x) and φ''(x), (N, d) each; a piecewise linear activation has no `second`.

    Attributes
    ----------
    value, first
        (N, d).
    """

    def __init__(self, value: np.ndarray, first: np.ndarray, second: np.ndarray | float = 0.0):
        super().__init__(value)
        self.first, self._second = first, second

    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        """Return φ' T."""
        return T * self.first[:, None, :]

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        """Return φ' Y."""
        return Y * self.first[:, None, :]

    def second_product(self, delta: np.ndarray, p: int, q: int, T: np.ndarray) -> np.ndarray:
        """Return δ φ'' T."""
        return T * (delta * self._second)[:, None, :]


@dataclass(frozen=True)
class Pointwise(NodeFunction):
    """An activation φ, twice differentiable.

    *Not collective.*

    Attributes
    ----------
    rule
        `rule(x) -> (φ(x), φ'(x), φ''(x))` for x (N, d), each of that shape.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import Pointwise
    >>> cube = Pointwise(lambda x: (x**3, 3 * x**2, 6 * x))
    >>> print(cube.evaluate(np.zeros(0), [np.array([[2.0, 3.0]])]).value)
    [[ 8. 27.]]
    """

    rule: Rule

    def width(self, widths: tuple[int, ...]) -> int:
        """Return the width of the one parent."""
        return single_width(widths, "an activation")

    def couples_parents(self, p: int, q: int) -> bool:
        """Return True: φ'' may be non-zero."""
        return True

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return φ and its derivatives at X[0]."""
        return ElementwiseDerivatives(*self.rule(X[0]))


def _tanh(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = np.tanh(x)
    slope = 1 - y * y
    return y, slope, -2 * y * slope


def _logistic(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of real or complex x, without overflow."""
    right = x.real > 0
    small = np.exp(np.where(right, -x, x))
    return np.where(right, 1.0, small) / (1 + small)


def _sigmoid(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = _logistic(x)
    slope = y * (1 - y)
    return y, slope, slope * (1 - 2 * y)


def _softplus(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    right = x.real > 0
    value = np.where(right, x, 0.0) + np.log1p(np.exp(np.where(right, -x, x)))
    slope = _logistic(x)
    return value, slope, slope * (1 - slope)


def _square(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return x * x, 2 * x, np.full_like(x, 2)


def tanh() -> Pointwise:
    """Return the hyperbolic tangent.

    *Not collective.*

    Returns
    -------
    Pointwise
        For `Network.add`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import tanh
    >>> [d.item() for d in tanh().rule(np.array([0.0]))]  # value and derivatives
    [0.0, 1.0, -0.0]
    """
    return Pointwise(_tanh)


def sigmoid() -> Pointwise:
    """Return 1 / (1 + exp(-x)).

    *Not collective.*

    Returns
    -------
    Pointwise
        For `Network.add`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import sigmoid
    >>> [d.item() for d in sigmoid().rule(np.array([0.0]))]  # value and derivatives
    [0.5, 0.25, 0.0]
    """
    return Pointwise(_sigmoid)


def softplus() -> Pointwise:
    """Return log(1 + exp(x)).

    *Not collective.*

    Returns
    -------
    Pointwise
        For `Network.add`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import softplus
    >>> [round(d.item(), 3) for d in softplus().rule(np.array([0.0]))]  # value and derivatives
    [0.693, 0.5, 0.25]
    """
    return Pointwise(_softplus)


def square() -> Pointwise:
    """Return x².

    *Not collective.*

    Returns
    -------
    Pointwise
        For `Network.add`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import square
    >>> [d.item() for d in square().rule(np.array([3.0]))]  # value and derivatives
    [9.0, 6.0, 2.0]
    """
    return Pointwise(_square)


@dataclass(frozen=True)
class PiecewiseLinear(NodeFunction):
    """An activation with a kink at 0: left·x below 0, right·x above.

    *Not collective.*

    At 0 itself gradients and products take the slope `left`; `NetworkHessian` takes the element of least norm.

    Attributes
    ----------
    left, right
        Slopes.

    Raises
    ------
    InputError
        A slope is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import PiecewiseLinear
    >>> print(PiecewiseLinear(0.5, 2.0).evaluate(np.zeros(0), [np.array([[-2.0, 3.0]])]).value)
    [[-1.  6.]]
    """

    trusted: ClassVar[bool] = True

    left: float
    right: float

    def __post_init__(self) -> None:
        """Check the slopes."""
        if not np.isfinite(reals([self.left, self.right], "slopes")).all():
            raise InputError(f"slopes must be finite, not {self.left} and {self.right}")

    def width(self, widths: tuple[int, ...]) -> int:
        """Return the width of the one parent."""
        return single_width(widths, "an activation")

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return value and slopes at X[0]."""
        slopes = np.where(X[0].real > 0, self.right, self.left)
        return ElementwiseDerivatives(slopes * X[0], slopes)


def relu() -> PiecewiseLinear:
    """Return max(x, 0).

    *Not collective.*

    Returns
    -------
    PiecewiseLinear
        For `Network.add`.

    Examples
    --------
    >>> from sparsehess.networks import relu
    >>> relu()
    PiecewiseLinear(left=0.0, right=1.0)
    """
    return PiecewiseLinear(0.0, 1.0)


def leaky_relu(slope: float = 0.01) -> PiecewiseLinear:
    """Return x, or slope·x below 0.

    *Not collective.*

    Parameters
    ----------
    slope
        Below 0.

    Returns
    -------
    PiecewiseLinear
        For `Network.add`.

    Raises
    ------
    InputError
        The slope is not finite.

    Examples
    --------
    >>> from sparsehess.networks import leaky_relu
    >>> leaky_relu(0.1)
    PiecewiseLinear(left=0.1, right=1.0)
    """
    return PiecewiseLinear(slope, 1.0)


def absolute() -> PiecewiseLinear:
    """Return |x|.

    *Not collective.*

    Returns
    -------
    PiecewiseLinear
        For `Network.add`.

    Examples
    --------
    >>> from sparsehess.networks import absolute
    >>> absolute()
    PiecewiseLinear(left=-1.0, right=1.0)
    """
    return PiecewiseLinear(-1.0, 1.0)
