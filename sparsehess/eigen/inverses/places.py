"""Which entries of an inverse are asked for."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from sparsehess.errors import InputError
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement
from sparsehess.runtime.row_layout import Layout

# Rows and columns, or a pattern; None for the diagonal.
Places: TypeAlias = "tuple[np.ndarray, np.ndarray] | Pattern | None"


def places_of(entries: Places, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns (m,) that this rank asks for: of its rows where they are the diagonal or a pattern.

    Collective.

    Raises
    ------
    InputError
        No whole numbers, rows and columns that are not as many, or beyond the matrix; a pattern of other rows.
    """
    with agreement(layout.comm):
        if entries is None:
            own = np.arange(layout.start, layout.stop)
            return own, own
        if isinstance(entries, Pattern):
            if not entries.layout.same(layout):
                raise InputError(f"the pattern has other rows on the ranks than the matrix of {layout.n}")
            rows = np.repeat(np.arange(layout.start, layout.stop), np.diff(entries.indptr))
            return rows, entries.indices.astype(np.int64)
        if not isinstance(entries, (tuple, list)) or len(entries) != 2:
            raise InputError("entries are (rows, columns), a pattern, or None for the diagonal")
        rows, columns = (np.atleast_1d(np.asarray(numbers)) for numbers in entries)
        if rows.shape != columns.shape or rows.ndim != 1:
            raise InputError(f"entries are as many rows as columns, not {rows.shape} and {columns.shape}")
        return variables_of(rows, layout.n, "rows"), variables_of(columns, layout.n, "columns")


def variables_of(numbers: np.ndarray, n: int, name: str) -> np.ndarray:
    """Return numbers of variables (m,), checked.

    Not collective.
    """
    array = np.atleast_1d(np.asarray(numbers))
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{name} must be whole numbers, not {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() >= n:
        raise InputError(
            f"{name} go from 0 to {n - 1}; there is {array.min() if array.min() < 0 else array.max()}"
        )
    return array.astype(np.int64)
