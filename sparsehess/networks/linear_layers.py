"""Nodes that are linear in their parameters and in their parent: dense layers and convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import Function, Local, only
from sparsehess.runtime.validation import whole_number


class _Windows(Protocol):
    """How a node is cut into windows, which all meet the same weights: (..., d) to (..., s, i) and back."""

    def cut(self, x): ...

    def add(self, windows): ...


class _Whole:
    """One window that is the whole node."""

    def cut(self, x):
        return x[..., None, :]

    def add(self, windows):
        return windows[..., 0, :]


@dataclass(frozen=True)
class Affine(Function):
    """W x + b: a dense layer. Parameters are the rows of W (outputs, d_in), one after another, then b.

    Not collective to make.
    """

    trusted: ClassVar[bool] = True

    outputs: int
    bias: bool = True

    def __post_init__(self):
        whole_number(self.outputs, "outputs", 1)

    def width(self, widths):
        only(widths, "a dense layer")
        return self.outputs

    def parameters(self, widths):
        return self.outputs * (widths[0] + self.bias)

    def mixing(self, p):
        return True

    def at(self, w, X):
        return _Weighted(w, X[0], _Whole(), self.outputs, self.bias)


@dataclass(frozen=True)
class Convolution(Function):
    """A two-dimensional convolution (as networks have it: a correlation) with one stride and zero padding.

    Not collective to make. Parameters are the weights (channels, c, kernel...), row-major, then the biases;
    the node is (channels, height, width), row-major.

    Attributes
    ----------
    channels
        Of the result.
    kernel
        (height, width) of the windows.
    shape
        (c, height, width) of the parent.
    stride, padding
        In both directions.
    """

    trusted: ClassVar[bool] = True

    channels: int
    kernel: tuple[int, int]
    shape: tuple[int, int, int]
    stride: int = 1
    padding: int = 0
    bias: bool = True

    def __post_init__(self):
        if len(self.kernel) != 2 or len(self.shape) != 3:
            raise InputError(
                f"a convolution has a kernel of 2 sizes and a parent of 3, not {self.kernel}, {self.shape}"
            )
        for size in (self.channels, *self.kernel, *self.shape, self.stride):
            whole_number(size, "a size of a convolution", 1)
        whole_number(self.padding, "padding", 0)
        if min(self.places) < 1:
            raise InputError(f"windows of {self.kernel} do not fit into {self.shape[1:]}")

    @property
    def places(self) -> tuple[int, int]:
        """(height, width) of the result."""
        rows, columns = (
            (side + 2 * self.padding - reach) // self.stride + 1
            for side, reach in zip(self.shape[1:], self.kernel, strict=True)
        )
        return rows, columns

    def width(self, widths):
        if only(widths, "a convolution") != np.prod(self.shape):
            raise InputError(f"a convolution of {self.shape} is not for a node of width {widths[0]}")
        return self.channels * int(np.prod(self.places))

    def parameters(self, widths):
        return self.channels * (self.shape[0] * int(np.prod(self.kernel)) + self.bias)

    def mixing(self, p):
        return True

    def at(self, w, X):
        return _Weighted(w, X[0], _Sliding(self), self.channels, self.bias)


class _Sliding:
    """The windows of a convolution, s of c·height·width numbers each."""

    def __init__(self, form: Convolution):
        self._form = form

    def _shifts(self):
        """Each place in the window, with the slices of the padded image that come to stand there."""
        form = self._form
        rows, columns = form.places
        for i in range(form.kernel[0]):
            for j in range(form.kernel[1]):
                yield i, j, slice(i, i + form.stride * rows, form.stride), slice(
                    j, j + form.stride * columns, form.stride
                )  # fmt: skip

    def cut(self, x):
        form, head = self._form, x.shape[:-1]
        edge = ((0, 0),) * (len(head) + 1) + ((form.padding, form.padding),) * 2
        image = np.pad(x.reshape(*head, *form.shape), edge)
        out = np.empty((*head, *form.places, form.shape[0], *form.kernel), x.dtype)
        for i, j, rows, columns in self._shifts():
            out[..., i, j] = np.moveaxis(image[..., rows, columns], -3, -1)
        return out.reshape(*head, int(np.prod(form.places)), -1)

    def add(self, windows):
        form, head = self._form, windows.shape[:-2]
        windows = windows.reshape(*head, *form.places, form.shape[0], *form.kernel)
        c, height, width = form.shape
        image = np.zeros((*head, c, height + 2 * form.padding, width + 2 * form.padding), windows.dtype)
        for i, j, rows, columns in self._shifts():
            image[..., rows, columns] += np.moveaxis(windows[..., i, j], -1, -3)
        inside = image[..., form.padding : form.padding + height, form.padding : form.padding + width]
        return inside.reshape(*head, -1)


class _Weighted(Local):
    """z[a, s] = Σ_i K[a, i] P[s, i] + b[a], P the windows of the parent.

    Weights enter by the outer product of adjoints and windows, which are multiplied over samples and windows at
    once wherever a sum over samples is all that is wanted.
    """

    def __init__(self, w, x, windows: _Windows, outputs: int, bias: bool):
        self._windows, self._a, self._bias = windows, outputs, bias
        self._P = windows.cut(x)
        self._K = w[: len(w) - outputs * bias].reshape(outputs, -1)
        value = _times(self._P, self._K.T)
        if bias:
            value = value + w[len(w) - outputs :]
        super().__init__(self._flat(value))

    def _flat(self, z):
        """Return (..., a·s) of (..., s, a)."""
        return np.swapaxes(z, -1, -2).reshape(*z.shape[:-2], -1)

    def _by_window(self, Y):
        """Return (..., s, a) of (..., a·s)."""
        return np.swapaxes(Y.reshape(*Y.shape[:-1], self._a, -1), -1, -2)

    def _with_bias(self, weights, bias):
        """Return (..., k) of weights (..., a, i) and biases (..., a)."""
        weights = weights.reshape(*weights.shape[:-2], -1)
        return np.concatenate([weights, bias], axis=-1) if self._bias else weights

    def _kernels(self, V):
        """Return the weights (m, a, i) and biases (m, a) of directions V (m, k)."""
        end = V.shape[1] - self._a * self._bias
        return V[:, :end].reshape(len(V), self._a, -1), V[:, end:]

    def push(self, p, T):
        return self._flat(_times(self._windows.cut(T), self._K.T))

    def pull(self, p, Y):
        return self._windows.add(_times(self._by_window(Y), self._K))

    def spread(self, Y):
        Z = self._by_window(Y)
        weights = np.swapaxes(Z, -1, -2) @ self._P[:, None] if Z.shape[2] > 1 else _outer(Z, self._P[:, None])
        return self._with_bias(weights, Z.sum(axis=2))

    def collect(self, Y):
        Z = self._by_window(Y)  # (N, m, s, a)
        weights = np.tensordot(Z, self._P, axes=([0, 2], [0, 1]))
        return self._with_bias(weights, Z.sum(axis=(0, 2)))

    def advance(self, V):
        K, b = self._kernels(V)
        out = np.moveaxis(np.tensordot(self._P, K, axes=([2], [2])), 2, 1)  # (N, m, s, a)
        return self._flat(out + b[:, None, :] if self._bias else out)

    def mixed(self, delta, p, T):
        Q, Z = self._windows.cut(T), self._by_window(delta)[:, None]  # (N, m, s, i), (N, 1, s, a)
        weights = np.swapaxes(Z, -1, -2) @ Q if Z.shape[2] > 1 else _outer(Z, Q)
        return self._with_bias(weights, np.zeros((*weights.shape[:2], self._a)))

    def collect_mixed(self, delta, p, T):
        Q, Z = self._windows.cut(T), self._by_window(delta)
        weights = np.moveaxis(np.tensordot(Z, Q, axes=([0, 1], [0, 2])), 0, 1)  # (m, a, i)
        return self._with_bias(weights, np.zeros((len(weights), self._a)))

    def mixed_adjoint(self, delta, p, V):
        K, _ = self._kernels(V)
        out = np.tensordot(self._by_window(delta), K, axes=([2], [1]))  # (N, s, m, i)
        return self._windows.add(np.moveaxis(out, 2, 1))


def _outer(Z, P):
    """Return the outer products (..., a, i) of what single windows (..., 1, a) and (..., 1, i) have."""
    return Z[..., 0, :, None] * P[..., 0, None, :]


def _times(A, B):
    """Return A B for A (..., i) and B (i, a) by one product of matrices."""
    return (A.reshape(-1, len(B)) @ B).reshape(*A.shape[:-1], B.shape[1])
