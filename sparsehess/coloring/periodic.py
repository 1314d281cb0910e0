"""Periodic colourings of patterns that are grids or lattices, verified entry by entry, repaired at defects."""

from __future__ import annotations

import numpy as np

from sparsehess.coloring import grid_recognition, periodic_templates, stencil_kernels
from sparsehess.coloring.distributed_greedy import NO_TRAFFIC, Greedy, color_greedily
from sparsehess.coloring.kinds import KINDS
from sparsehess.coloring.lattice_recognition import frequent_offsets, recognize_lattice
from sparsehess.coloring.local_graph import Region, redistribute
from sparsehess.coloring.vertex_orders import natural
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement
from sparsehess.runtime.random_numbers import hash_numbers

# Rules that give single vertices valid colours whatever the others have; a triangular colouring has none.
_REPAIRS = {"star": "2007", "acyclic": "local", "distance2": "distance2", "cpr": "columns"}

_ROOM = 4096  # distinct differences of row numbers beyond which a pattern is no grid
_PEEK = 2000  # rows looked at before all of them are
_DEFECTIVE = 0.1  # part of the vertices beyond which a template is not repaired


def color_periodically(
    pattern: Pattern, region: Region, kind: str, coordinates: np.ndarray | None
) -> Greedy | None:
    """Return the colouring by a periodic template, or None where the pattern is no grid or lattice.

    Collective.

    Parameters
    ----------
    coordinates
        (n_local, d) of the pattern's rows; None to recognise a grid by the numbering.

    Raises
    ------
    InputError
        Coordinates are given, but not of the right shape.
    """
    if coordinates is None:
        grid = _recognized(pattern)
        if grid is None:
            return None
        places, offsets = grid.indices(region.numbers), grid.offsets
        sides = np.where(grid.periodic, grid.shape, 0)
        template = periodic_templates.find_template(
            offsets, KINDS[kind].template, shape=grid.shape, periodic=grid.periodic
        )
        if template is None and any(grid.periodic):
            sides = np.zeros(len(sides), np.int64)  # the seam is repaired
            template = periodic_templates.find_template(offsets, KINDS[kind].template)
    else:
        placed = _placed(pattern, region, coordinates)
        if placed is None:
            return None
        places, offsets = placed
        sides = np.zeros(places.shape[1], np.int64)
        template = periodic_templates.find_template(offsets, KINDS[kind].template)
    if template is None:
        return None
    colors = template.color(places[: region.own])
    strange = _strangers(region, places, offsets, sides)
    many = region.comm.allreduce(int(strange.sum()))
    if many == 0:
        return Greedy(colors, template.colors, 0, NO_TRAFFIC)
    if kind not in _REPAIRS or many > _DEFECTIVE * pattern.n:
        return None
    fixed = np.where(strange, np.int32(-1), colors)
    found = color_greedily(region, KINDS[kind].rules[_REPAIRS[kind]], natural(region), fixed=fixed)
    return found


def _recognized(pattern: Pattern) -> grid_recognition.Grid | None:
    """Return the grid that the numbering is row-major on, or None. Collective."""
    comm, rows = pattern.comm, np.arange(pattern.layout.n_local)
    start, n = pattern.layout.start, pattern.n
    drawn = rows[hash_numbers(rows + start, 0) % np.uint64(max(n // _PEEK, 1)) == 0]
    for looked_at, room in ((drawn, _ROOM // 4), (rows, _ROOM)):
        found = stencil_kernels.differences(pattern.indptr, pattern.indices, start, looked_at, room)
        parts = comm.allgather(found)
        if any(part is None for part in parts):
            return None
    steps, inverse = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    counts = np.bincount(inverse, weights=np.concatenate([part[1] for part in parts])).astype(np.int64)
    return grid_recognition.recognize_grid(steps, counts, n) if n else None


def _placed(pattern: Pattern, region: Region, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return whole-number coordinates of the region's vertices, and the stencil, or None. Collective."""
    given = np.asarray(coordinates)
    with agreement(pattern.comm):
        if given.ndim != 2 or len(given) != pattern.layout.n_local or given.dtype.kind not in "iuf":
            raise InputError(
                f"lattice: coordinates must be ({pattern.layout.n_local}, directions) numbers, one row for each "
                f"variable (or group of variables) of this rank, not {given.shape}"
            )
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise InputError("lattice: coordinates must be finite")
    own = redistribute(pattern.layout, region.layout, np.ascontiguousarray(given))
    whole = np.stack([region.whole(np.ascontiguousarray(column)) for column in own.T], axis=1)
    if whole.dtype.kind == "f":
        return recognize_lattice(region, whole)
    whole = whole.astype(np.int64)
    rows = np.repeat(np.arange(region.own), np.diff(region.indptr[: region.own + 1]))
    columns = region.indices[: region.indptr[region.own]]
    apart = rows != columns
    offsets = frequent_offsets(region.comm, (whole[columns] - whole[rows])[apart], pattern.n)
    return None if offsets is None else (whole, offsets)


def _strangers(region: Region, places: np.ndarray, offsets: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return (own,) bool: vertices with an entry that is at no offset of the stencil."""
    reach = np.abs(offsets).max(axis=0)
    spans = 2 * reach + 1
    inside = np.zeros(int(spans.prod()), np.uint8)
    radix = np.concatenate([[1], np.cumprod(spans[:-1])])
    inside[(offsets + reach) @ radix] = 1
    inside[reach @ radix] = 1  # the diagonal
    return stencil_kernels.off_stencil(
        region.indptr,
        region.indices,
        region.own,
        np.ascontiguousarray(places, np.int32),
        sides.astype(np.int32),
        reach.astype(np.int32),
        inside,
    ).astype(bool)
