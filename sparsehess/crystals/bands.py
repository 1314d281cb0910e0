"""Bands: phonons along a path, and what holds of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsehess.crystals.modes import PhononModes
from sparsehess.crystals.paths import Path
from sparsehess.runtime.short_repr import ShortRepr


@dataclass(frozen=True, eq=False, repr=False)
class Bands(ShortRepr):
    """Phonons along a path, made by `Phonons.bands`; the same on every rank.

    Not collective.

    Attributes
    ----------
    path
        Wave vectors, distances, labels.
    modes
        Phonons there.
    """

    path: Path
    modes: PhononModes

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield from self.path._repr_facts()
        yield f"up to {self.modes.frequencies.max(initial=0.0):.6g} THz"
        yield f"{int(self.modes.certified.sum())} certified"

    @property
    def certified(self) -> bool:
        """Whether all points are."""
        return bool(self.modes.certified.all())

    @property
    def lowest(self) -> tuple[float, np.ndarray]:
        """The lowest frequency in THz, negative where imaginary, and the wave vector (3,) where it is."""
        number = int(np.argmin(self.modes.eigenvalues[:, 0]))
        return float(self.modes.frequencies[number, 0]), self.modes.q[number]
