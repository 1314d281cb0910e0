"""Assembly of a sum over elements: the elements' own Hessians, added up where they belong."""

from __future__ import annotations

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.derivatives.elements import Elements
from sparsehess.errors import InputError
from sparsehess.hessian.recovery import Readings, Recovered
from sparsehess.hessian.recovery_kernels import add_at
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement
from sparsehess.runtime.row_layout import send_to_owners


class ElementAssembly:
    """Where the entries of the elements' Hessians belong: the recovery of a sum over elements.

    Collective to make and to finish. Nothing is compressed, so `coloring` is None.

    Parameters
    ----------
    pattern
        Holds at least what the elements couple.
    elements
        Of this rank.
    """

    coloring: Coloring | None = None
    amplification = mean_amplification = 1.0

    def __init__(self, pattern: Pattern, elements: tuple[Elements, ...]) -> None:
        self.pattern, layout, n = pattern, pattern.layout, pattern.n
        # Every entry is read both ways: by moving the one variable, and the other.
        self._mean = Readings(pattern, np.full(pattern.nnz_local, 3, np.uint8))
        self.variances = self._mean.variances
        rows = np.repeat(np.arange(layout.start, layout.stop), np.diff(pattern.indptr))
        ours = rows * n + pattern.indices
        # [a, e, i]: the entry in the row of variable i of element e when variable a is moved.
        keys = [kind.members.T[:, :, None] + n * kind.members[None] for kind in elements]
        everywhere = np.unique(np.concatenate([np.zeros(0, np.int64), *(key.ravel() for key in keys)]))
        first, last = np.searchsorted(everywhere, (layout.start * n, layout.stop * n))
        foreign = np.concatenate([everywhere[:first], everywhere[last:]])
        self._foreign_rows = foreign // n
        arrived = send_to_owners(layout, self._foreign_rows, foreign)[1]
        with agreement(pattern.comm):
            self._arrive = _places(ours, arrived, n)
            _places(ours, everywhere[first:last], n)
        self._sums = np.zeros(len(ours) + len(foreign))
        self._slots = [self._numbers(key, ours, foreign) for key in keys]

    def _numbers(self, keys: np.ndarray, ours: np.ndarray, foreign: np.ndarray) -> np.ndarray:
        layout, n = self.pattern.layout, self.pattern.n
        local = (keys >= layout.start * n) & (keys < layout.stop * n)
        slots = np.where(local, np.searchsorted(ours, keys), len(ours) + np.searchsorted(foreign, keys))
        return slots.astype(np.int32 if len(self._sums) < 2**31 else np.int64)

    def add(self, kind: int, variable: int, columns: np.ndarray) -> None:
        """Add columns (m, k) of the Hessians of all elements of a kind. Not collective."""
        add_at(self._sums, self._slots[kind][variable].ravel(), np.ascontiguousarray(columns).ravel())

    def finish(self, values: np.ndarray) -> Recovered:
        """Make the entries (nnz_local,) of what was added, and begin anew.

        Collective.
        """
        values[:] = self.partial()
        self._sums[:] = 0.0
        return self._mean.finish(values)

    def partial(self) -> np.ndarray:
        """Return (nnz_local,) what was added so far, from all ranks.

        Collective.
        """
        values = self._sums[: self.pattern.nnz_local].copy()
        arrived = send_to_owners(self.pattern.layout, self._foreign_rows, self._sums[len(values) :])[1]
        add_at(values, self._arrive, np.ascontiguousarray(arrived))
        return values

    def resume(self, values: np.ndarray) -> None:
        """Begin with what `partial` has returned. Not collective."""
        self._sums[:] = 0.0
        self._sums[: len(values)] = values


def _places(ours: np.ndarray, keys: np.ndarray, n: int) -> np.ndarray:
    """Return where keys stand among ours, ascending; all must be there."""
    places = np.searchsorted(ours, keys)
    there = places < len(ours)
    there[there] = ours[places[there]] == keys[there]
    if not there.all():
        row, column = divmod(int(keys[~there][0]), n)
        raise InputError(f"the pattern lacks entry ({row}, {column}), which an element couples")
    return places
