"""Losses: nodes of one number a sample, of a prediction and a target; either may depend on parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import Function, Local


class _Loss(Function):
    trusted = True

    def width(self, widths):
        if len(widths) != 2 or widths[0] != widths[1]:
            raise InputError(
                f"{type(self).__name__} is of a prediction and a target of one width, not of widths {list(widths)}"
            )
        return 1


class _Scalar(Local):
    """A loss by its derivatives, (N, d) for each parent."""

    def __init__(self, value, slopes):
        super().__init__(value[:, None])
        self._slopes = slopes

    def push(self, p, T):
        return (T * self._slopes[p][:, None, :]).sum(axis=2, keepdims=True)

    def pull(self, p, Y):
        return Y * self._slopes[p][:, None, :]


@dataclass(frozen=True)
class SquaredError(_Loss):
    """½ |prediction - target|².

    Not collective to make.
    """

    def curved(self, p, q):
        return True

    def at(self, w, X):
        return _Squared(X[0] - X[1])


class _Squared(_Scalar):
    def __init__(self, rest):
        super().__init__(0.5 * (rest * rest).sum(axis=1), (rest, -rest))

    def bend(self, delta, p, q, T):
        return T * (delta if p == q else -delta)[:, None, :]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(_Loss):
    """-Σ target·log softmax(prediction); the target is a distribution, one-hot for classes.

    Not collective to make.
    """

    def curved(self, p, q):
        return (p, q) != (1, 1)

    def at(self, w, X):
        return _Entropy(*X)


class _Entropy(_Scalar):
    def __init__(self, logits, target):
        shifted = logits - logits.real.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self._shares = np.exp(logs)
        self._mass = target.sum(axis=1, keepdims=True)
        super().__init__(-(target * logs).sum(axis=1), (self._mass * self._shares - target, -logs))

    def bend(self, delta, p, q, T):
        shares = self._shares[:, None, :]
        if p == q:
            centered = T - (shares * T).sum(axis=2, keepdims=True)
            return (delta * self._mass)[:, None, :] * shares * centered
        if p == 0:
            return delta[:, None, :] * (shares * T.sum(axis=2, keepdims=True) - T)
        return delta[:, None, :] * ((shares * T).sum(axis=2, keepdims=True) - T)
