"""Orders in which a greedy colouring takes the vertices; each returns (n,) int64."""

from __future__ import annotations

import numpy as np

from sparsehess.coloring import kernels


def natural(indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the vertices as they are numbered."""
    return np.arange(len(indptr) - 1, dtype=np.int64)


def largest_first(indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the vertices by falling degree, ties as numbered (Welsh and Powell 1967)."""
    return np.argsort(-np.diff(indptr), kind="stable").astype(np.int64, copy=False)


def smallest_last(indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the smallest-last order (Matula and Beck 1983)."""
    return kernels.smallest_last(indptr, indices)
