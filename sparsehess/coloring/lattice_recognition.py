"""Lattices: points of a crystal as whole multiples of a primitive basis, from their real coordinates."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.coloring.local_graph import Region
from sparsehess.runtime.random_numbers import hash_numbers

DEFECTS = 0.05  # edges a point, that are no frequent offset
_SAMPLE = 20_000  # edges that the basis comes from


def recognize_lattice(
    region: Region, coordinates: np.ndarray, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return points as whole multiples of a primitive basis, and the stencil; None off any lattice.

    Collective. The lattice is the one that the edges of the graph generate.

    Parameters
    ----------
    coordinates
        (own + ring, d) real, in up to three dimensions.
    tolerance
        How far a point may be off its place, in lengths of the shortest edge.

    Returns
    -------
    tuple or None
        ((own + ring, r) int64 indices, (s, r) int64 offsets, symmetric, without 0): r < d if the edges
        lie in a line or a plane. None also if the points take only some places of the lattice, as a
        crystal of two atoms a cell does: an offset is then no neighbour for half of them, and templates
        waste colours. Rare offsets are left out as defects.
    """
    comm, own = region.comm, region.own
    points = np.asarray(coordinates, np.float64)
    first = np.repeat(np.arange(own), np.diff(region.indptr[: own + 1]))
    second = region.indices[: region.indptr[own]]
    first, second = first[first != second], second[first != second]
    edges = points[second] - points[first]
    total = comm.allreduce(len(edges))
    shortest = comm.allreduce(float(np.sqrt((edges**2).sum(axis=1)).min(initial=np.inf)), op=MPI.MIN)
    if not 0 < shortest < np.inf:
        return None
    # The basis from a sample of points; edges that it does not explain, if any, refine it once.
    drawn = hash_numbers(region.numbers[first], 0) % np.uint64(max(total // _SAMPLE, 1)) == 0
    sample = np.concatenate(comm.allgather(edges[drawn]))
    for _ in range(2):
        basis = _generate(sample, shortest)
        if basis is None:
            return None
        steps = np.rint(edges @ np.linalg.pinv(basis)).astype(np.int64)
        off = np.concatenate(
            comm.allgather(edges[np.abs(edges - steps @ basis).max(axis=1) > 0.01 * shortest][:1000])
        )
        if not len(off):
            break
        sample = np.concatenate([basis, off])
    # Averages over all edges, then over all points, carry the basis from one end to the other.
    basis = _fitted(comm, steps, edges)
    origin = comm.bcast(points[0] if comm.rank == 0 else None)
    indices = np.rint((points - origin) @ np.linalg.pinv(basis)).astype(np.int64)
    size = comm.allreduce(own)
    centered = points - comm.allreduce(points[:own].sum(axis=0)) / size
    places = indices - comm.allreduce(indices[:own].sum(axis=0)) / size
    basis = _fitted(comm, places[:own], centered[:own])
    worst = float(np.abs(centered - places @ basis).max(initial=0.0))
    if comm.allreduce(worst, op=MPI.MAX) > tolerance * shortest:
        return None
    offsets = frequent_offsets(comm, indices[second] - indices[first], size)
    if offsets is None or comm.allreduce(_sparse(indices, offsets), op=MPI.LOR):
        return None
    return indices, offsets


def _fitted(comm: MPI.Comm, whole: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the matrix that takes whole-number rows to real ones best, over all ranks."""
    normal, right = comm.allreduce((whole.T @ whole).astype(float)), comm.allreduce(whole.T @ real)
    return np.linalg.solve(normal, right)


def frequent_offsets(comm: MPI.Comm, steps: np.ndarray, size: int) -> np.ndarray | None:
    """Return the offsets that more than one point in 50 has, None if others come to a few per cent.

    Collective.

    Parameters
    ----------
    steps
        (e, d) what the edges of this rank add to the indices; listed both ways over all ranks.
    size
        Number of points over all ranks.
    """
    reach = np.max(comm.allgather(np.abs(steps).max(axis=0, initial=0)), axis=0)
    spans = 2 * reach + 1
    radix = np.concatenate([[1], np.cumprod(spans[:-1])])
    codes, counts = np.unique((steps + reach) @ radix, return_counts=True)
    if comm.size > 1:
        codes, counts = (np.concatenate(comm.allgather(part)) for part in (codes, counts))
        codes, inverse = np.unique(codes, return_inverse=True)
        counts = np.bincount(inverse, weights=counts)
    kept = 50 * counts > size
    if not kept.any() or counts[~kept].sum() > 2 * DEFECTS * size:
        return None
    offsets = codes[kept][:, None] // radix % spans - reach
    return offsets[np.abs(offsets).any(axis=1)]


def _generate(vectors: np.ndarray, shortest: float) -> np.ndarray | None:
    """Return a basis (r, d) of the lattice that the vectors generate, None if it is too fine for one.

    Euclid's algorithm: what is left of a vector beyond whole multiples of the basis takes the place
    of a basis vector, which is then itself brought in again. The cell at least halves each time.
    """
    cells = np.rint(vectors / (0.01 * shortest)).astype(np.int64)
    _, chosen = np.unique(cells, axis=0, return_index=True)
    if len(chosen) > 2000:
        return None
    vectors = vectors[chosen]
    basis = np.empty((0, vectors.shape[1]))
    for vector in vectors[np.argsort((vectors**2).sum(axis=1), kind="stable")]:
        waiting = [vector]
        while waiting:
            v = waiting.pop()
            multiples = v @ np.linalg.pinv(basis)
            if np.linalg.norm(v - multiples @ basis) > 0.01 * shortest:
                basis = np.concatenate([basis, v[None]])
                continue
            left = v - np.rint(multiples) @ basis
            if np.linalg.norm(left) > 0.01 * shortest:
                i = np.argmax(np.abs(multiples - np.rint(multiples)))
                waiting.append(basis[i].copy())
                basis[i] = left
                if np.linalg.det(basis @ basis.T) < (0.05 * shortest) ** (2 * len(basis)):
                    return None
    return basis


def _sparse(indices: np.ndarray, offsets: np.ndarray) -> bool:
    """Return whether many of the places next to a point are empty, but taken again farther on."""
    if len(indices) == 0:
        return False
    reach = 6
    low, width = indices.min(axis=0), np.ptp(indices, axis=0) + 1
    radix = np.concatenate([[1], np.cumprod(width[:-1])])
    taken = np.sort((indices - low) @ radix)
    sample = indices[:: max(1, len(indices) // 2000)] - low
    holes = 0
    for offset in offsets:
        there = []
        for multiple in range(1, reach + 1):
            place = sample + multiple * offset
            code = np.where(((place >= 0) & (place < width)).all(axis=1), place @ radix, -1)
            there.append(taken[np.minimum(np.searchsorted(taken, code), len(taken) - 1)] == code)
        holes = max(holes, np.count_nonzero(~there[0] & np.any(there[1:], axis=0)))
    return 10 * holes > len(sample)
