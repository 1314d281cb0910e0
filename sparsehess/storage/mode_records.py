"""What a file of modes tells beside their shapes: names, eigenvalues, frequencies, residuals, what was counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class ModeRecord:
    """What is told of k modes beside their shapes.

    Attributes
    ----------
    names
        k names without blanks, such as `mode_1_1293.05_Hz`.
    values
        (k,) eigenvalues, or load factors. Of complex modes λ in rad/s where `hertz` is known, else as found.
    hertz
        (k,) frequencies in Hz, negative for imaginary ones, Im λ of complex modes; None where they are not known.
    numbers
        (k,) arrays by name that are written beside the shapes: eigenvalues, frequencies, residuals.
    told
        One line: what was counted, and how modes are scaled.
    buckling
        Whether values are load factors.
    turns
        Whether rotations are written, too.
    complex
        Whether shapes are complex: x = real + i imaginary moves as real cos ωt - imaginary sin ωt.
    """

    names: tuple[str, ...]
    values: np.ndarray
    hertz: np.ndarray | None
    numbers: dict[str, np.ndarray]
    told: str
    buckling: bool
    turns: bool
    complex: bool = False

    def one(self, number: int) -> ModeRecord:
        """Return the record of one mode, from 0. Not collective."""
        part = slice(number, number + 1)
        return replace(
            self,
            names=self.names[part],
            values=self.values[part],
            hertz=None if self.hertz is None else self.hertz[part],
            numbers={name: values[part] for name, values in self.numbers.items()},
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the arrays of vectors: of each mode its translations, and rotations where nodes turn.

        Of complex modes each is two: `…_real`, `…_imaginary`.
        """
        ends = ("", "_rotation") if self.turns else ("",)
        parts = ("_real", "_imaginary") if self.complex else ("",)
        return tuple(name + end + part for name in self.names for end in ends for part in parts)

    def parts_of(self, values: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
        """Return the real arrays that translations or rotations are written as, and the ends of their names.

        Not collective.
        """
        return (("_real", values.real), ("_imaginary", values.imag)) if self.complex else (("", values),)

    def arrays(self, moved: np.ndarray, turned: np.ndarray | None) -> Iterator[np.ndarray]:
        """Yield the arrays of a mode in the order of `fields`. Not collective."""
        for values in (moved,) if turned is None else (moved, turned):
            for _, part in self.parts_of(values):
                yield part


class ModeWriter(Protocol):
    """Takes the modes of a record one after another."""

    def add(self, moved: np.ndarray, turned: np.ndarray | None, mass: float) -> None:
        """Take the next mode: (m, 3) translations of all nodes, and rotations where nodes turn; xᵀMx.

        Not collective. Arrays are complex where the record says so; then the last argument says nothing.
        """
