"""Nodes of the user's own, by three functions that state their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsehess.errors import EvaluationError, InputError
from sparsehess.networks.node_function import Function, Local
from sparsehess.runtime.validation import evaluating


@dataclass(frozen=True)
class Custom(Function):
    """A node by three functions, vectorised over samples, that is twice differentiable at them.

    Not collective to make. All of w and of Y, dX, dw below are given for every one of N samples; functions
    treat samples one by one. What they state is compared with differences where a network first meets data. As
    nothing is known of it, every second derivative may be non-zero.

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
    """

    forward: Callable
    vjp: Callable
    second: Callable
    outputs: int
    inputs: tuple[int, ...]
    size: int = 0
    name: str = "custom node"

    def width(self, widths):
        if tuple(widths) != tuple(self.inputs):
            raise InputError(f"{self.name} is of nodes of widths {list(self.inputs)}, not {list(widths)}")
        return self.outputs

    def parameters(self, widths):
        return self.size

    def curved(self, p, q):
        return True

    def mixing(self, p):
        return self.size > 0

    @property
    def curved_parameters(self):
        return self.size > 0

    def at(self, w, X):
        return _Stated(self, w, tuple(X))

    # --- calls, checked for their shapes ---

    def call_forward(self, w, X) -> np.ndarray:
        value = np.asarray(self._called("forward", w, X))
        self._shaped("forward", value, (len(X[0]), self.outputs))
        return value

    def call_vjp(self, w, X, Y):
        return self._pair("vjp", self._called("vjp", w, X, Y), len(Y))

    def call_second(self, w, X, Y, dX, dw):
        return self._pair("second", self._called("second", w, X, Y, dX, dw), len(Y))

    def _called(self, which, *arguments):
        with evaluating(f"{which} of {self.name}"):
            return getattr(self, which)(*arguments)

    def _pair(self, which, result, N):
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
            self._shaped(which, g, (N, width))
        self._shaped(which, by_w, (N, self.size))
        return by_x, by_w

    def _shaped(self, which, array, shape):
        if array.shape != shape:
            raise EvaluationError(f"{which} of {self.name} returned shape {array.shape} where {shape} belongs")


class _Stated(Local):
    """Directions of a sample are met as so many samples; Jacobians of a sample are small, and kept."""

    def __init__(self, function: Custom, w, X):
        self._function, self._w, self._X = function, w, X
        self._kept = None
        super().__init__(function.call_forward(w, X))

    @property
    def _jacobians(self):
        """(N, d, d_p) by each parent and (N, d, k) by the parameters."""
        if self._kept is None:
            N, d = self.value.shape
            by_x, by_w = self._function.call_vjp(self._w, self._copies(d), np.tile(np.eye(d), (N, 1)))
            self._kept = [g.reshape(N, d, g.shape[1]) for g in by_x], by_w.reshape(N, d, by_w.shape[1])
        return self._kept

    def _copies(self, m):
        return tuple(np.repeat(x, m, axis=0) for x in self._X)

    def _second(self, delta, T: dict[int, np.ndarray], V=None):
        """Return the second derivatives, (N, m, ·) each, along T (N, m, d_q) of parents and V (m, k)."""
        m = len(V) if V is not None else next(iter(T.values())).shape[1]
        N, X = len(delta), self._copies(m)
        dX = tuple(T[q].reshape(N * m, -1) if q in T else np.zeros(x.shape) for q, x in enumerate(X))
        dw = np.zeros((N * m, self._function.size)) if V is None else np.tile(V, (N, 1))
        by_x, by_w = self._function.call_second(self._w, X, np.repeat(delta, m, axis=0), dX, dw)
        return [g.reshape(N, m, g.shape[1]) for g in by_x], by_w.reshape(N, m, by_w.shape[1])

    def push(self, p, T):
        return T @ np.swapaxes(self._jacobians[0][p], 1, 2)

    def pull(self, p, Y):
        return Y @ self._jacobians[0][p]

    def bend(self, delta, p, q, T):
        return self._second(delta, {q: T})[0][p]

    def spread(self, Y):
        return Y @ self._jacobians[1]

    def advance(self, V):
        return np.swapaxes(self._jacobians[1] @ V.T, 1, 2)

    def mixed(self, delta, p, T):
        return self._second(delta, {p: T})[1]

    def mixed_adjoint(self, delta, p, V):
        return self._second(delta, {}, V)[0][p]

    def own(self, delta):
        return self._second(delta, {}, np.eye(self._function.size))[1].sum(axis=0)

    def own_product(self, delta, V):
        return self._second(delta, {}, V)[1].sum(axis=0)
