"""Rigid-body modes: what a body that hangs in space does not resist, and what multigrid must know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.validation import reals

AXES = "xyz"

# A rotation that moves nothing farther than this part of the body's size is none: the body is a line.
_LINE = 1e-8


def rigid_body_modes(
    coordinates: np.ndarray, dims: int | None = None, fixed: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Return the rigid-body modes of nodes in space, orthonormal, and their names.

    *Not collective.*

    Parameters
    ----------
    coordinates
        (nodes, 2 or 3) positions; dofs are ordered node by node, x before y before z.
    dims
        Components of each node's displacement; those of the coordinates by default.
    fixed
        Indices or (dofs,) mask of dofs that were removed; rotations are then about the centroid of all
        nodes still, and each mode is restricted to the free dofs: a near-null space.

    Returns
    -------
    (modes, names)
        (m, free dofs) rows and m names, "translation x" or "rotation z". m is 6 in space (5 for nodes on a
        line, 3 for one node) and 3 in the plane; a restriction that leaves fewer independent has fewer.
        Rotations in space are about the coordinate axes (a line has the two that move it, about its own
        principal axes: "rotation 1", "rotation 2").

    Raises
    ------
    InputError
        Coordinates are not finite, or not those of nodes in the plane or in space.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> modes, names = sh.rigid_body_modes(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> modes.shape, names
    ((3, 6), ['translation x', 'translation y', 'rotation z'])
    """
    x = reals(coordinates, "coordinates")
    dims = x.shape[1] if dims is None and x.ndim == 2 else dims
    if x.ndim != 2 or dims not in (2, 3) or x.shape[1] < dims or not len(x):
        raise InputError(f"coordinates must be (nodes, 2) or (nodes, 3), not {x.shape} for {dims} dimensions")
    if not np.isfinite(x).all():
        raise InputError("coordinates must be finite")
    x = x[:, :dims] - x[:, :dims].mean(axis=0)
    free = _free(len(x) * dims, fixed)
    named = [(mode.ravel()[free], name) for mode, name in _rigid(x, x.T @ x)]
    return _independent(named, np.dot)


def rigid_body_rows(coordinates: np.ndarray, layout: Layout, dims: int) -> tuple[np.ndarray, list[str]]:
    """Return this rank's part (m, n_local) of the rigid-body modes, and their names; see `rigid_body_modes`.

    Collective.

    Parameters
    ----------
    coordinates
        (nodes, dims or more) finite positions of the nodes that have dofs in this rank's rows.
    layout
        Of the dofs, dims for each node.
    """
    comm = layout.comm
    first = layout.start // dims
    x = coordinates[:, :dims]
    # A node whose dofs two ranks share counts on the first of them.
    mine = slice(-(-layout.start // dims) - first, -(-layout.stop // dims) - first)
    x = x - comm.allreduce(x[mine].sum(axis=0)) / (layout.n // dims)
    inertia = comm.allreduce(x[mine].T @ x[mine])
    here = slice(layout.start - first * dims, layout.stop - first * dims)
    named = [(mode.ravel()[here], name) for mode, name in _rigid(x, inertia)]
    return _independent(named, lambda a, b: comm.allreduce(float(a @ b)))


def _free(n: int, fixed: np.ndarray | None) -> np.ndarray:
    keep = np.ones(n, bool)
    if fixed is not None:
        fixed = np.asarray(fixed)
        if fixed.size and fixed.dtype.kind not in "iub":
            raise InputError(f"fixed dofs must be whole numbers or a mask, not {fixed.dtype}")
        if fixed.dtype == bool and fixed.shape != (n,):
            raise InputError(f"a mask of fixed dofs must be ({n},), not {fixed.shape}")
        if fixed.dtype != bool and fixed.size and not (fixed.min() >= 0 and fixed.max() < n):
            raise InputError(f"fixed dofs must be from 0 to {n - 1}")
        keep[fixed if fixed.dtype == bool else fixed.astype(np.int64)] = False
    return keep


def _rigid(x: np.ndarray, inertia: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Yield (displacements, name) of translations, and of infinitesimal rotations about the origin.

    `inertia` is xᵀx of all nodes, which tells whether they lie on a line.
    """
    dims = x.shape[1]
    for axis in range(dims):
        mode = np.zeros_like(x)
        mode[:, axis] = 1.0
        yield mode, f"translation {AXES[axis]}"
    if dims == 2:
        yield np.stack([-x[:, 1], x[:, 0]], axis=1), "rotation z"
        return
    sizes, axes = np.linalg.eigh(inertia)
    if sizes[1] > _LINE**2 * sizes[2]:
        for axis in range(3):
            yield np.cross(np.eye(3)[axis], x), f"rotation {AXES[axis]}"
    elif sizes[2] > 0:
        for number in (0, 1):
            yield np.cross(axes[:, number], x), f"rotation {number + 1}"


def _independent(
    named: Iterable[tuple[np.ndarray, str]], dot: Callable[[np.ndarray, np.ndarray], float]
) -> tuple[np.ndarray, list[str]]:
    """Orthonormalise modes one after another, so that each keeps its name; leave out those that add nothing."""
    out: list[np.ndarray] = []
    kept = []
    for mode, name in named:
        size = np.sqrt(dot(mode, mode))
        rest = mode
        for _ in range(2):
            for other in out:
                rest = rest - dot(other, rest) * other
        left = np.sqrt(dot(rest, rest))
        if left > 1e-10 * size > 0:
            out.append(rest / left)
            kept.append(name)
    return np.array(out).reshape(len(out), len(mode)), kept


# --- the same for distributed vectors ----------------------------------------------------


def orthonormal(vectors: list[PETSc.Vec]) -> list[PETSc.Vec]:
    """Return orthonormal Vecs of the same span, fewer where they depend on each other.

    Collective. The caller destroys them.
    """
    out: list[PETSc.Vec] = []
    for vector in vectors:
        rest = vector.copy()
        size = rest.norm()
        for _ in range(2):
            for other in out:
                rest.axpy(-rest.dot(other), other)
        left = rest.norm()
        if left > 1e-10 * size > 0:
            rest.scale(1 / left)
            out.append(rest)
        else:
            destroy(rest)
    return out


def block_size(vectors: list[PETSc.Vec]) -> int:
    """Return 3 or 2 if orthonormal vectors hold the translations of dofs in blocks of so many, else 1.

    Collective. Each rank must hold whole blocks, as PETSc wants it.
    """
    if not vectors:
        return 1
    comm = vectors[0].comm.tompi4py()
    first, last = vectors[0].getOwnershipRange()
    for size in (3, 2):
        whole = comm.allreduce(int((last - first) % size == 0 and first % size == 0)) == comm.size
        if whole and len(vectors) >= size and all(_holds(vectors, size, axis) for axis in range(size)):
            return size
    return 1


def _holds(vectors: list[PETSc.Vec], size: int, axis: int) -> bool:
    translation = vectors[0].duplicate()
    translation.set(0.0)
    translation.getArray()[axis::size] = 1.0
    n = translation.norm()
    inside = np.linalg.norm([translation.dot(vector) for vector in vectors])
    destroy(translation)
    return bool(abs(inside - n) <= 1e-8 * n)
