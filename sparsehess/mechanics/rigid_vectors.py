"""Rigid motions of nodes with translations and rotations about a point: the directions that supports shake in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.validation import reals

# Dofs of a node by their letters: translations along x, y, z, and rotations about them.
LETTERS = "xyzabc"


def rigid_vectors(
    coordinates: Any,
    dofs: str = "xyz",
    *,
    about: Sequence[float] = (0.0, 0.0, 0.0),
    fixed: Any = None,
) -> tuple[np.ndarray, list[str]]:
    """Return unit rigid motions of nodes, and their names: not orthonormal, translations and rotations by one.

    *Not collective.*

    Parameters
    ----------
    coordinates
        (nodes, 1 to 3) positions: x, then y, then z, those that lack being 0.
    dofs
        Letters of the dofs of each node in their order: x, y, z are translations, a, b, c rotations about x, y
        and z. "xyz" is a solid, "xyzabc" a shell, "xyc" a beam in its plane, "zab" a plate.
    about
        Point that rotations are about.
    fixed
        Indices of dofs, numbered node by node, that were removed from the matrices.

    Returns
    -------
    (vectors, names)
        (m, free dofs) rows and m names, "translation x" or "rotation z". A rotation is there where nodes turn
        about its axis, or move along both others. It moves a node at distance d from `about` by its axis times d
        (small angles).

    Raises
    ------
    InputError
        Positions, letters or indices that are none.

    Examples
    --------
    >>> import sparsehess as sh
    >>> vectors, names = sh.rigid_vectors([[0.0], [2.0]], "yc")  # a beam along x that bends in y
    >>> names
    ['translation y', 'rotation z']
    >>> vectors.tolist()
    [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 2.0, 1.0]]
    """
    check_dofs(dofs)
    positions = check_positions(coordinates)
    full = free_dofs(len(positions) * len(dofs), fixed)
    return rigid_rows(positions, dofs, check_point(about), full)


def rigid_rows(
    positions: np.ndarray, dofs: str, about: np.ndarray, full: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Return rows (m, n_local) of unit rigid motions, and their names. Not collective.

    Parameters
    ----------
    positions
        (nodes, 3) of the nodes that have rows here.
    dofs, about
        See `rigid_vectors`.
    full
        (n_local,) numbers of the rows among all dofs of these nodes, from 0.
    """
    node, letter = np.divmod(full, len(dofs))
    arms = positions[node] - about
    out, names = [], []
    for axis in (axis for axis in range(3) if LETTERS[axis] in dofs):
        out.append((letter == dofs.index(LETTERS[axis])).astype(np.float64))
        names.append(f"translation {LETTERS[axis]}")
    for axis in range(3):
        others = [LETTERS[one] for one in range(3) if one != axis]
        if LETTERS[3 + axis] not in dofs and not all(one in dofs for one in others):
            continue
        moved = np.cross(np.eye(3)[axis], arms)
        row = np.zeros(len(full))
        for place, name in enumerate(dofs):
            which, number = letter == place, LETTERS.index(name)
            row[which] = moved[which, number] if number < 3 else float(number - 3 == axis)
        out.append(row)
        names.append(f"rotation {LETTERS[axis]}")
    return np.array(out).reshape(len(out), len(full)), names


def check_dofs(dofs: str) -> None:
    """Raise InputError for letters that are no dofs of a node. Not collective."""
    if not dofs or len(set(dofs)) < len(dofs) or not set(dofs) <= set(LETTERS):
        raise InputError(
            f"dofs {dofs!r}: write each of a node's once, in their order: x, y, z for translations, a, b, c for "
            "rotations about x, y, z, such as xyz or xyzabc"
        )


def check_positions(coordinates: Any) -> np.ndarray:
    """Return (nodes, 3) positions, zeros where fewer coordinates are given. Not collective."""
    x = reals(coordinates, "coordinates")
    if x.ndim != 2 or x.shape[1] not in (1, 2, 3) or not len(x):
        raise InputError(f"coordinates must be (nodes, 1 to 3) numbers, not {x.shape}")
    if not np.isfinite(x).all():
        raise InputError("coordinates must be finite")
    return np.pad(x, ((0, 0), (0, 3 - x.shape[1])))


def check_point(about: Sequence[float]) -> np.ndarray:
    """Return (3,) a point, zeros where fewer coordinates are given. Not collective."""
    point = reals(np.asarray(about), "the point that rotations are about").ravel()
    if not 1 <= len(point) <= 3 or not np.isfinite(point).all():
        raise InputError(f"rotations are about a point of 1 to 3 finite coordinates, not {about}")
    return np.pad(point, (0, 3 - len(point)))


def check_fixed(fixed: Any, n: int) -> np.ndarray:
    """Return indices of fixed dofs, ascending, each once. Not collective."""
    found = np.asarray([] if fixed is None else fixed)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise InputError(f"fixed dofs must be a list of whole numbers, not {found.dtype} of shape {found.shape}")
    found = np.unique(found.astype(np.int64))
    if found.size and not 0 <= found[0] <= found[-1] < n:
        raise InputError(f"fixed dofs must be from 0 to {n - 1}: the nodes have {n} in all")
    return found


def free_dofs(n: int, fixed: Any, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return the numbers among all n dofs of the rows start to stop without the fixed ones. Not collective."""
    held = check_fixed(fixed, n)
    rows = np.arange(start, n - len(held) if stop is None else stop)
    return rows + np.searchsorted(held - np.arange(len(held)), rows, side="right")
