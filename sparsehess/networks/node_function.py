"""What a node computes: `NodeFunction`, and `NodeDerivatives`, its derivatives at one point for all samples.

Shapes in this package: N samples, m tangents or adjoints of each, d the width of a node, d_p that of its parent
at position p, k the number of its parameters w. Tangents T and adjoints Y are (N, m, d).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NoReturn

import numpy as np

from sparsehess.errors import InputError


class NodeFunction(ABC):
    """A function of parents x_0, x_1, … and parameters w, sample by sample. Subclasses are immutable.

    *Not collective.*

    `couples_parents`, `couples_to_parameters` and `couples_parameters` decide the block pattern of the Hessian:
    they may promise second derivatives that are zero, and must not deny those that are not. Where a network
    first meets data, finite differences check what a subclass states, unless it is `trusted`.

    Attributes
    ----------
    trusted
        Whether finite differences need not check it.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import NodeDerivatives, NodeFunction
    >>> class Doubled(NodeFunction):
    ...     def width(self, widths):
    ...         return widths[0]
    ...
    ...     def evaluate(self, w, X):
    ...         return DoubledDerivatives(2 * X[0])
    >>> class DoubledDerivatives(NodeDerivatives):
    ...     def jvp(self, p, T):
    ...         return 2 * T
    ...
    ...     vjp = jvp
    >>> Doubled().evaluate(np.zeros(0), [np.ones((1, 2))]).jvp(0, np.ones((1, 1, 2)))
    array([[[2., 2.]]])
    """

    trusted: ClassVar[bool] = False

    @abstractmethod
    def width(self, widths: tuple[int, ...]) -> int:
        """Return the width d for parents of these widths; raise InputError if they do not fit."""

    def parameter_count(self, widths: tuple[int, ...]) -> int:
        """Return the number k of parameters."""
        return 0

    def couples_parents(self, p: int, q: int) -> bool:
        """Return whether ∂²f/∂x_p∂x_q can be non-zero."""
        return False

    def couples_to_parameters(self, p: int) -> bool:
        """Return whether ∂²f/∂x_p∂w can be non-zero."""
        return False

    @property
    def couples_parameters(self) -> bool:
        """Whether ∂²f/∂w² can be non-zero."""
        return False

    @abstractmethod
    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return value and derivatives at parameters w (k,) and parents X, (N, d_p) each."""


class NodeDerivatives:
    """Value and derivatives of a node's function at a point.

    *Not collective.*

    δ (N, d) is the derivative of the losses by the node. A subclass defines the derivatives that its function
    has: those by parents, those by parameters, and the second ones that the function promises. Others raise
    InputError.

    Parameters
    ----------
    value
        (N, d).

    Attributes
    ----------
    value
        (N, d).
    """

    def __init__(self, value: np.ndarray):
        self.value = value

    def _refuse(self, name: str) -> NoReturn:
        raise InputError(f"{type(self).__name__} does not state {name!r}, which its function promises")

    # --- by parents ---

    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        """Return ∂f/∂x_p T (N, m, d) for T (N, m, d_p)."""
        self._refuse("jvp")

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        """Return (∂f/∂x_p)ᵀ Y (N, m, d_p) for Y (N, m, d)."""
        self._refuse("vjp")

    def second_product(self, delta: np.ndarray, p: int, q: int, T: np.ndarray) -> np.ndarray:
        """Return (δ·∂²f/∂x_p∂x_q) T (N, m, d_p) for T (N, m, d_q)."""
        self._refuse("second_product")

    # --- by parameters ---

    def parameter_jvp(self, V: np.ndarray) -> np.ndarray:
        """Return ∂f/∂w V (N, m, d) for V (m, k)."""
        self._refuse("parameter_jvp")

    def parameter_vjp(self, Y: np.ndarray) -> np.ndarray:
        """Return (∂f/∂w)ᵀ Y (N, m, k) of each sample, for Y (N, m, d)."""
        self._refuse("parameter_vjp")

    def parameter_vjp_sum(self, Y: np.ndarray) -> np.ndarray:
        """Return the sum (m, k) of `parameter_vjp` over the samples."""
        return self.parameter_vjp(Y).sum(axis=0)

    def mixed_product(self, delta: np.ndarray, p: int, T: np.ndarray) -> np.ndarray:
        """Return (δ·∂²f/∂w∂x_p) T (N, m, k) of each sample, for T (N, m, d_p)."""
        self._refuse("mixed_product")

    def mixed_product_sum(self, delta: np.ndarray, p: int, T: np.ndarray) -> np.ndarray:
        """Return the sum (m, k) of `mixed_product` over the samples."""
        return self.mixed_product(delta, p, T).sum(axis=0)

    def mixed_transposed_product(self, delta: np.ndarray, p: int, V: np.ndarray) -> np.ndarray:
        """Return (δ·∂²f/∂x_p∂w) V (N, m, d_p) for V (m, k)."""
        self._refuse("mixed_transposed_product")

    def parameter_hessian(self, delta: np.ndarray) -> np.ndarray:
        """Return δ·∂²f/∂w² (k, k), summed over the samples."""
        self._refuse("parameter_hessian")

    def parameter_hessian_product(self, delta: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return (δ·∂²f/∂w²) V (m, k) for V (m, k), summed over the samples."""
        return V @ self.parameter_hessian(delta)


class Input(NodeFunction):
    """An input: its value is the data, and depends on nothing.

    *Not collective.*

    Parameters
    ----------
    width
        Of the data.
    """

    trusted: ClassVar[bool] = True

    def __init__(self, width: int):
        self._width = width

    def width(self, widths: tuple[int, ...]) -> int:
        """Return the width of the data."""
        return self._width

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return the data, X[0] (N, d), as the value."""
        return NodeDerivatives(X[0])


def single_width(widths: tuple[int, ...], name: str) -> int:
    """Return the width of the one parent of a function that has one.

    Raises
    ------
    InputError
        There are more parents than one.
    """
    if len(widths) != 1:
        raise InputError(f"{name} is of one node, not of {len(widths)}")
    return widths[0]
