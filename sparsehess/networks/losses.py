"""Losses: nodes of one number a sample, of a prediction and a target; either may depend on parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import NodeDerivatives, NodeFunction


class _Loss(NodeFunction):
    trusted: ClassVar[bool] = True

    def width(self, widths: tuple[int, ...]) -> int:
        """Return 1."""
        if len(widths) != 2 or widths[0] != widths[1]:
            raise InputError(
                f"{type(self).__name__} is of a prediction and a target of one width, not of widths {list(widths)}"
            )
        return 1


class _LossDerivatives(NodeDerivatives):
    """Values (N,) of a loss, and its slopes (N, d) by each parent."""

    def __init__(self, value: np.ndarray, slopes: tuple[np.ndarray, np.ndarray]):
        super().__init__(value[:, None])
        self._slopes = slopes

    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        return (T * self._slopes[p][:, None, :]).sum(axis=2, keepdims=True)

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        return Y * self._slopes[p][:, None, :]


@dataclass(frozen=True)
class SquaredError(_Loss):
    """½ |prediction - target|².

    *Not collective.*

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import SquaredError
    >>> print(SquaredError().evaluate(np.zeros(0), [np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])]).value)
    [[2.5]]
    """

    def couples_parents(self, p: int, q: int) -> bool:
        """Return True."""
        return True

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return the losses of predictions X[0] and targets X[1]."""
        return _SquaredErrorDerivatives(X[0] - X[1])


class _SquaredErrorDerivatives(_LossDerivatives):
    def __init__(self, residual: np.ndarray):
        super().__init__(0.5 * (residual * residual).sum(axis=1), (residual, -residual))

    def second_product(self, delta: np.ndarray, p: int, q: int, T: np.ndarray) -> np.ndarray:
        return T * (delta if p == q else -delta)[:, None, :]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(_Loss):
    """-Σ target·log softmax(prediction); the target is a distribution, one-hot for classes.

    *Not collective.*

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import SoftmaxCrossEntropy
    >>> value = SoftmaxCrossEntropy().evaluate(np.zeros(0), [np.zeros((1, 2)), np.array([[1.0, 0.0]])]).value
    >>> print(value.round(6))  # log 2
    [[0.693147]]
    """

    def couples_parents(self, p: int, q: int) -> bool:
        """Return whether one of the parents is the prediction: the loss is linear in the target."""
        return (p, q) != (1, 1)

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return the losses of predictions X[0] and targets X[1]."""
        return _CrossEntropyDerivatives(*X)


class _CrossEntropyDerivatives(_LossDerivatives):
    def __init__(self, logits: np.ndarray, target: np.ndarray):
        shifted = logits - logits.real.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self._probabilities = np.exp(logs)
        self._mass = target.sum(axis=1, keepdims=True)
        slopes = self._mass * self._probabilities - target, -logs
        super().__init__(-(target * logs).sum(axis=1), slopes)

    def second_product(self, delta: np.ndarray, p: int, q: int, T: np.ndarray) -> np.ndarray:
        probabilities = self._probabilities[:, None, :]
        if p == q:
            centered = T - (probabilities * T).sum(axis=2, keepdims=True)
            return (delta * self._mass)[:, None, :] * probabilities * centered
        if p == 0:
            return delta[:, None, :] * (probabilities * T.sum(axis=2, keepdims=True) - T)
        return delta[:, None, :] * ((probabilities * T).sum(axis=2, keepdims=True) - T)
