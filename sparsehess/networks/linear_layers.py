"""Nodes that are linear in their parameters and in their parent: dense layers and convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import NodeDerivatives, NodeFunction, single_width
from sparsehess.runtime.validation import whole_number


class _Windows(Protocol):
    """Windows of a node, all of which meet the same weights: s windows of i units each."""

    def cut(self, x: np.ndarray) -> np.ndarray:
        """Return the windows (..., s, i) of nodes (..., d)."""
        ...

    def add(self, windows: np.ndarray) -> np.ndarray:
        """Return nodes (..., d), the sums of what windows (..., s, i) have at each unit."""
        ...


class _WholeNode:
    """One window, the whole node."""

    def cut(self, x: np.ndarray) -> np.ndarray:
        return x[..., None, :]

    def add(self, windows: np.ndarray) -> np.ndarray:
        return windows[..., 0, :]


@dataclass(frozen=True)
class Affine(NodeFunction):
    """A dense layer, W x + b.

    *Not collective.*

    Its parameters are the rows of W (outputs, d_in), one after another, then b.

    Attributes
    ----------
    outputs
        Width of the layer.
    bias
        Whether there is b.

    Raises
    ------
    InputError
        `outputs` is not a positive whole number.

    Examples
    --------
    >>> from sparsehess.networks import Affine
    >>> Affine(3).parameter_count((2,))
    9
    """

    trusted: ClassVar[bool] = True

    outputs: int
    bias: bool = True

    def __post_init__(self) -> None:
        """Check the width."""
        whole_number(self.outputs, "outputs", 1)

    def width(self, widths: tuple[int, ...]) -> int:
        """Return `outputs`."""
        single_width(widths, "a dense layer")
        return self.outputs

    def parameter_count(self, widths: tuple[int, ...]) -> int:
        """Return the number of weights and biases."""
        return self.outputs * (widths[0] + self.bias)

    def couples_to_parameters(self, p: int) -> bool:
        """Return True: weights multiply the parent."""
        return True

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return W X[0] + b of each sample."""
        return _LinearDerivatives(w, X[0], _WholeNode(), self.outputs, self.bias)


@dataclass(frozen=True)
class Convolution(NodeFunction):
    """A two-dimensional convolution (in networks: a correlation) with one stride and zero padding.

    *Not collective.*

    Its parameters are the weights (channels, c, kernel...), row-major, then the biases; the node is
    (channels, height, width), row-major.

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
    bias
        Whether every channel has a bias.

    Raises
    ------
    InputError
        A size is not a whole number, or no window fits into the parent.

    Examples
    --------
    >>> from sparsehess.networks import Convolution
    >>> Convolution(8, (3, 3), (1, 28, 28), stride=2, padding=1).places
    (14, 14)
    """

    trusted: ClassVar[bool] = True

    channels: int
    kernel: tuple[int, int]
    shape: tuple[int, int, int]
    stride: int = 1
    padding: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        """Check the sizes."""
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

    def width(self, widths: tuple[int, ...]) -> int:
        """Return channels·height·width of the result."""
        if single_width(widths, "a convolution") != np.prod(self.shape):
            raise InputError(f"a convolution of {self.shape} is not for a node of width {widths[0]}")
        return self.channels * int(np.prod(self.places))

    def parameter_count(self, widths: tuple[int, ...]) -> int:
        """Return the number of weights and biases."""
        return self.channels * (self.shape[0] * int(np.prod(self.kernel)) + self.bias)

    def couples_to_parameters(self, p: int) -> bool:
        """Return True: weights multiply the parent."""
        return True

    def evaluate(self, w: np.ndarray, X: list[np.ndarray]) -> NodeDerivatives:
        """Return the convolution of each sample of X[0]."""
        return _LinearDerivatives(w, X[0], _SlidingWindows(self), self.channels, self.bias)


class _SlidingWindows:
    """The windows of a convolution, of c·height·width units each."""

    def __init__(self, form: Convolution):
        self._form = form

    def _shifts(self) -> Iterator[tuple[int, int, slice, slice]]:
        """Yield each place in the window, with the rows and columns of the padded image that it visits."""
        form = self._form
        rows, columns = form.places
        for i in range(form.kernel[0]):
            for j in range(form.kernel[1]):
                down = slice(i, i + form.stride * rows, form.stride)
                yield i, j, down, slice(j, j + form.stride * columns, form.stride)

    def cut(self, x: np.ndarray) -> np.ndarray:
        form, head = self._form, x.shape[:-1]
        edge = ((0, 0),) * (len(head) + 1) + ((form.padding, form.padding),) * 2
        image = np.pad(x.reshape(*head, *form.shape), edge)
        out = np.empty((*head, *form.places, form.shape[0], *form.kernel), x.dtype)
        for i, j, rows, columns in self._shifts():
            out[..., i, j] = np.moveaxis(image[..., rows, columns], -3, -1)
        return out.reshape(*head, int(np.prod(form.places)), -1)

    def add(self, windows: np.ndarray) -> np.ndarray:
        form, head = self._form, windows.shape[:-2]
        windows = windows.reshape(*head, *form.places, form.shape[0], *form.kernel)
        c, height, width = form.shape
        image = np.zeros((*head, c, height + 2 * form.padding, width + 2 * form.padding), windows.dtype)
        for i, j, rows, columns in self._shifts():
            image[..., rows, columns] += np.moveaxis(windows[..., i, j], -1, -3)
        inside = image[..., form.padding : form.padding + height, form.padding : form.padding + width]
        return inside.reshape(*head, -1)


class _LinearDerivatives(NodeDerivatives):
    """z[a, s] = Σ_i K[a, i] P[s, i] + b[a] with the windows P of the parent, s windows and a outputs.

    The derivatives by the weights are outer products of adjoints and windows. Where only their sum over samples is
    wanted, one product of matrices sums them over samples and windows.
    """

    def __init__(self, w: np.ndarray, x: np.ndarray, windows: _Windows, outputs: int, bias: bool):
        self._windows, self._outputs, self._bias = windows, outputs, bias
        self._P = windows.cut(x)
        self._K = w[: len(w) - outputs * bias].reshape(outputs, -1)
        value = _multiply(self._P, self._K.T)
        if bias:
            value = value + w[len(w) - outputs :]
        super().__init__(self._by_unit(value))

    def _by_unit(self, z: np.ndarray) -> np.ndarray:
        """Return (..., a·s) of (..., s, a)."""
        return np.swapaxes(z, -1, -2).reshape(*z.shape[:-2], -1)

    def _by_window(self, Y: np.ndarray) -> np.ndarray:
        """Return (..., s, a) of (..., a·s)."""
        return np.swapaxes(Y.reshape(*Y.shape[:-1], self._outputs, -1), -1, -2)

    def _with_bias(self, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return (..., k) of weights (..., a, i) and biases (..., a)."""
        weights = weights.reshape(*weights.shape[:-2], -1)
        return np.concatenate([weights, bias], axis=-1) if self._bias else weights

    def _weights_and_biases(self, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (m, a, i) and biases (m, a) of directions V (m, k)."""
        end = V.shape[1] - self._outputs * self._bias
        return V[:, :end].reshape(len(V), self._outputs, -1), V[:, end:]

    def jvp(self, p: int, T: np.ndarray) -> np.ndarray:
        return self._by_unit(_multiply(self._windows.cut(T), self._K.T))

    def vjp(self, p: int, Y: np.ndarray) -> np.ndarray:
        return self._windows.add(_multiply(self._by_window(Y), self._K))

    def parameter_vjp(self, Y: np.ndarray) -> np.ndarray:
        Z = self._by_window(Y)
        weights = np.swapaxes(Z, -1, -2) @ self._P[:, None] if Z.shape[2] > 1 else _outer(Z, self._P[:, None])
        return self._with_bias(weights, Z.sum(axis=2))

    def parameter_vjp_sum(self, Y: np.ndarray) -> np.ndarray:
        Z = self._by_window(Y)  # (N, m, s, a)
        weights = np.tensordot(Z, self._P, axes=([0, 2], [0, 1]))
        return self._with_bias(weights, Z.sum(axis=(0, 2)))

    def parameter_jvp(self, V: np.ndarray) -> np.ndarray:
        K, b = self._weights_and_biases(V)
        out = np.moveaxis(np.tensordot(self._P, K, axes=([2], [2])), 2, 1)  # (N, m, s, a)
        return self._by_unit(out + b[:, None, :] if self._bias else out)

    def mixed_product(self, delta: np.ndarray, p: int, T: np.ndarray) -> np.ndarray:
        Q, Z = self._windows.cut(T), self._by_window(delta)[:, None]  # (N, m, s, i), (N, 1, s, a)
        weights = np.swapaxes(Z, -1, -2) @ Q if Z.shape[2] > 1 else _outer(Z, Q)
        return self._with_bias(weights, np.zeros((*weights.shape[:2], self._outputs)))

    def mixed_product_sum(self, delta: np.ndarray, p: int, T: np.ndarray) -> np.ndarray:
        Q, Z = self._windows.cut(T), self._by_window(delta)
        weights = np.moveaxis(np.tensordot(Z, Q, axes=([0, 1], [0, 2])), 0, 1)  # (m, a, i)
        return self._with_bias(weights, np.zeros((len(weights), self._outputs)))

    def mixed_transposed_product(self, delta: np.ndarray, p: int, V: np.ndarray) -> np.ndarray:
        K, _ = self._weights_and_biases(V)
        out = np.tensordot(self._by_window(delta), K, axes=([2], [1]))  # (N, s, m, i)
        return self._windows.add(np.moveaxis(out, 2, 1))


def _outer(Z: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Return the outer products (..., a, i) of single windows (..., 1, a) and (..., 1, i)."""
    return Z[..., 0, :, None] * P[..., 0, None, :]


def _multiply(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return A B for A (..., i) and B (i, a) by one product of matrices."""
    return (A.reshape(-1, len(B)) @ B).reshape(*A.shape[:-1], B.shape[1])
