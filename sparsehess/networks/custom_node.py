"""Nodes of the user's own, by three functions that state their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sparsehess.errors import EvaluationError, InputError
from sparsehess.networks.node_function import NodeDerivatives, NodeFunction
from sparsehess.runtime.validation import explain_evaluation_errors

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Custom(NodeFunction):
    """A node of the user's own: three functions, vectorised over samples, state its value and derivatives.

    *Not collective.*

    The node is twice differentiable at the samples, and its functions treat them one by one. Where a network first
    meets data, finite differences check what they state. Every second derivative may be non-zero, as nothing is
    known of them.

    Attributes
    ----------
    forward
        `forward(w, X) -> (N, d)`: w (k,), X a tuple of (N, d_p).
    vjp
        `vjp(w, X, Y) -> (tuple of (N, d_p), (N, k))`: Yᵀ∂f/∂x_p and Yᵀ∂f/∂w for Y (N, d).
    second
        `second(w, X, Y, dX, dw) -> (tuple of (N, d_p), (N, k))`: the derivative of what `vjp` returns, at
        fixed Y, when X moves by dX (tuple of (N, d_p)) and w by dw (N, k).
    outputs
        Width d.
    inputs
        Widths of the parents.
    size
        Number k of parameters.
    name
        For messages.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import Custom
    >>> scale = Custom(  # w x, of one parameter w
    ...     forward=lambda w, X: w * X[0],
    ...     vjp=lambda w, X, Y: ((w * Y,), (X[0] * Y).sum(axis=1, keepdims=True)),
    ...     second=lambda w, X, Y, dX, dw: ((dw * Y,), (dX[0] * Y).sum(axis=1, keepdims=True)),
    ...     outputs=2,
    ...     inputs=(2,),
    ...     size=1,
    ... )
    >>> print(scale.evaluate(np.array([3.0]), [np.array([[1.0, 2.0]])]).value)
    [[3. 6.]]
    """

    forward: Callable[..., np.ndarray]
    vjp: Callable[..., tuple]
    second: Callable[..., tuple]
    outputs: int
    inputs: tuple[int, ...]
    size: int = 0
    name: str = "custom node"

    def width(self, widths: tuple[int, ...]) -> int:
        """Return `outputs`."""
        if tuple(widths) != tuple(self.inputs):
            raise InputError(f"{self.name} is of nodes of widths {list(self.inputs)}, not {list(widths)}")
        return self.outputs

    def parameter_count(self, widths: tuple[int, ...]) -> int:
        """Return `size`."""
        return self.size

    def couples_parents(self, p: int, q: int) -> bool:
        """Return True."""
        return True

    def couples_to_parameters(self, p: int) -> bool:
        """Return whether there are parameters."""
        return self.size > 0

    @property
    def couples_parameters(self) -> bool:
        """Whether there are parameters."""
        return self.size > 0

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return the value at X, and derivatives by `vjp` and `second`."""
        return _CustomDerivatives(self, w, tuple(X))

    # --- calls, checked for their shapes ---

    def call_forward(self, w: np.ndarray, X: Arrays) -> np.ndarray:
        """Return `forward(w, X)`."""
        value = np.asarray(self._call("forward", w, X))
        self._check_shape("forward", value, (len(X[0]), self.outputs))
        return value

    def call_vjp(self, w: np.ndarray, X: Arrays, Y: np.ndarray) -> tuple[Arrays, np.ndarray]:
        """Return `vjp(w, X, Y)`."""
        return self._pair("vjp", self._call("vjp", w, X, Y), len(Y))

    def call_second(
        self, w: np.ndarray, X: Arrays, Y: np.ndarray, dX: Arrays, dw: np.ndarray
    ) -> tuple[Arrays, np.ndarray]:
        """Return `second(w, X, Y, dX, dw)`."""
        return self._pair("second", self._call("second", w, X, Y, dX, dw), len(Y))

    def _call(self, which: str, *arguments: object) -> Any:
        with explain_evaluation_errors(f"{which} of {self.name}"):
            return getattr(self, which)(*arguments)

    def _pair(self, which: str, result: Any, N: int) -> tuple[Arrays, np.ndarray]:
        try:
            by_x, by_w = result
            by_x, by_w = tuple(np.asarray(g) for g in by_x), np.asarray(by_w)
        except (TypeError, ValueError) as error:
            raise EvaluationError(f"{which} of {self.name} must return (arrays by parents, array)") from error
        if len(by_x) != len(self.inputs):
            raise EvaluationError(
                f"{which} of {self.name} returned {len(by_x)} arrays for {len(self.inputs)} parents"
            )
        for g, width in zip(by_x, self.inputs, strict=True):
            self._check_shape(which, g, (N, width))
        self._check_shape(which, by_w, (N, self.size))
        return by_x, by_w

    def _check_shape(self, which: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise EvaluationError(f"{which} of {self.name} returned shape {array.shape} where {shape} belongs")


class _CustomDerivatives(NodeDerivatives):
    """Derivatives by the functions of the node, to which m tangents of a sample are m samples.

    The Jacobians of the samples are small, and kept.
    """

    def __init__(self, function: Custom, w: np.ndarray, X: Arrays):
        self._function, self._w, self._X = function, w, X
        super().__init__(function.call_forward(w, X))

    @cached_property
    def _jacobians(self) -> tuple[list[np.ndarray], np.ndarray]:
        """(N, d, d_p) by each parent and (N, d, k) by the parameters."""
        N, d = self.value.shape
        by_x, by_w = self._function.call_vjp(self._w, self._repeat_samples(d), np.tile(np.eye(d), (N, 1)))
        return [g.reshape(N, d, g.shape[1]) for g in by_x], by_w.reshape(N, d, by_w.shape[1])

    def _repeat_samples(self, m: int) -> Arrays:
        return tuple(np.repeat(x, m, axis=0) for x in self._X)

    def _second(
        self, delta: np.ndarray, T: dict[int, np.ndarray], V: np.ndarray | None = None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the second derivatives, (N, m, ·) each, along T (N, m, d_q) of parents and V (m, k)."""
        m = len(V) if V is not None else next(iter(T.values())).shape[1]
        N, X = len(delta), self._repeat_samples(m)
        dX = tuple(T[q].reshape(N * m, -1) if q in T else np.zeros(x.shape) for q, x in enumerate(X))
        dw = np.zeros((N * m, self._function.size)) if V is None else np.tile(V, (N, 1))
        by_x, by_w = self._function.call_second(self._w, X, np.repeat(delta, m, axis=0), dX, dw)
        return [g.reshape(N, m, g.shape[1]) for g in by_x], by_w.reshape(N, m, by_w.shape[1])

    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        return T @ np.swapaxes(self._jacobians[0][p], 1, 2)

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        return Y @ self._jacobians[0][p]

    def second_product(self, delta: np.ndarray, p: int, q: int, T: np.ndarray) -> np.ndarray:
        return self._second(delta, {q: T})[0][p]

    def parameter_jvp(self, V: np.ndarray) -> np.ndarray:
        return np.swapaxes(self._jacobians[1] @ V.T, 1, 2)

    def parameter_vjp(self, Y: np.ndarray) -> np.ndarray:
        return Y @ self._jacobians[1]

    def mixed_product(self, delta: np.ndarray, p: int, T: np.ndarray) -> np.ndarray:
        return self._second(delta, {p: T})[1]

    def mixed_transposed_product(self, delta: np.ndarray, p: int, V: np.ndarray) -> np.ndarray:
        return self._second(delta, {}, V)[0][p]

    def parameter_hessian(self, delta: np.ndarray) -> np.ndarray:
        return self._second(delta, {}, np.eye(self._function.size))[1].sum(axis=0)

    def parameter_hessian_product(self, delta: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self._second(delta, {}, V)[1].sum(axis=0)
