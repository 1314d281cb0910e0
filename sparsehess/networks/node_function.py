"""What a node computes: `Function`, and `Local`, its derivatives at one point for all samples at once.

Shapes throughout the room: N samples, m directions (or adjoints) of each, d the width of a node, d_p that of
its parent at position p, k its parameters. Directions T and adjoints Y are (N, m, d).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NoReturn

import numpy as np

from sparsehess.errors import InputError


class Function(ABC):
    """A function of parents and parameters, sample by sample. Subclasses are immutable.

    Not collective. Which second derivatives can be non-zero decides the block pattern, so `curved`, `mixing`
    and `curved_parameters` may promise too much and never too little. What subclasses state is compared with
    differences where a network first meets data, but for those that are trusted.
    """

    trusted = False

    @abstractmethod
    def width(self, widths: tuple[int, ...]) -> int:
        """Return the width for parents of these widths; InputError if they do not fit."""

    def parameters(self, widths: tuple[int, ...]) -> int:
        """Return the number of parameters."""
        return 0

    def curved(self, p: int, q: int) -> bool:
        """Return whether ∂²f/∂x_p∂x_q can be non-zero, x_p the parent at position p."""
        return False

    def mixing(self, p: int) -> bool:
        """Return whether ∂²f/∂x_p∂w can be non-zero, w the parameters."""
        return False

    @property
    def curved_parameters(self) -> bool:
        """Whether ∂²f/∂w² can be non-zero."""
        return False

    @abstractmethod
    def at(self, w: np.ndarray, X: list[np.ndarray]) -> Local:
        """Return value and derivatives at parameters w (k,) and parents X, (N, d_p) each."""


class Local:
    """Derivatives of a function at a point; δ (N, d) is the derivative of the losses by the node.

    Subclasses state those that their function has: by parents if it has any, by parameters if it has any, second
    ones as far as it promises them. What is asked for and not stated is an InputError.

    Attributes
    ----------
    value
        (N, d).
    """

    def __init__(self, value: np.ndarray):
        self.value = value

    def _unstated(self, name: str) -> NoReturn:
        raise InputError(f"{type(self).__name__} does not state {name!r}, which its function promises")

    # --- first derivatives by parents ---

    def push(self, p: int, T: np.ndarray) -> np.ndarray:
        """Return ∂f/∂x_p T (N, m, d) for T (N, m, d_p)."""
        self._unstated("push")

    def pull(self, p: int, Y: np.ndarray) -> np.ndarray:
        """Return (∂f/∂x_p)ᵀ Y (N, m, d_p) for Y (N, m, d)."""
        self._unstated("pull")

    # --- second derivatives by parents ---

    def bend(self, delta: np.ndarray, p: int, q: int, T: np.ndarray) -> np.ndarray:
        """Return (δ·∂²f/∂x_p∂x_q) T (N, m, d_p) for T (N, m, d_q)."""
        self._unstated("bend")

    # --- derivatives by parameters ---

    def spread(self, Y: np.ndarray) -> np.ndarray:
        """Return (∂f/∂w)ᵀ Y (N, m, k), sample by sample, for Y (N, m, d)."""
        self._unstated("spread")

    def collect(self, Y: np.ndarray) -> np.ndarray:
        """Return Σ over samples of (∂f/∂w)ᵀ Y (m, k)."""
        return self.spread(Y).sum(axis=0)

    def advance(self, V: np.ndarray) -> np.ndarray:
        """Return ∂f/∂w V (N, m, d) for V (m, k)."""
        self._unstated("advance")

    def mixed(self, delta: np.ndarray, p: int, T: np.ndarray) -> np.ndarray:
        """Return (δ·∂²f/∂w∂x_p) T (N, m, k) for T (N, m, d_p)."""
        self._unstated("mixed")

    def collect_mixed(self, delta: np.ndarray, p: int, T: np.ndarray) -> np.ndarray:
        """Return Σ over samples of (δ·∂²f/∂w∂x_p) T (m, k)."""
        return self.mixed(delta, p, T).sum(axis=0)

    def mixed_adjoint(self, delta: np.ndarray, p: int, V: np.ndarray) -> np.ndarray:
        """Return (δ·∂²f/∂x_p∂w) V (N, m, d_p) for V (m, k)."""
        self._unstated("mixed_adjoint")

    def own(self, delta: np.ndarray) -> np.ndarray:
        """Return Σ over samples of δ·∂²f/∂w² (k, k)."""
        self._unstated("own")

    def own_product(self, delta: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return Σ over samples of (δ·∂²f/∂w²) V (m, k) for V (m, k)."""
        return V @ self.own(delta)


class Given(Local):
    """An input: a value that depends on nothing."""


def only(widths: tuple[int, ...], name: str) -> int:
    """Return the width of the one parent of a function that has one."""
    if len(widths) != 1:
        raise InputError(f"{name} is of one node, not of {len(widths)}")
    return widths[0]
