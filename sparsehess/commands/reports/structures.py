"""What is drawn of a structure: nodes, bonds and faces of a geometry, and how modes move them, on rank 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from sparsehess.derivatives.geometry import Geometry

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.runtime import PETSc

# Nodes and faces that are drawn at most, lines, of which more are left out, and modes.
NODES, FACES, LINES, MODES = 12_000, 12_000, 30_000, 20

# Nodes of the same variables that are no farther apart than this part of the whole are one.
_SAME = 1e-5

# Covalent radii in Å (Cordero and others 2008, rounded), and of all others; two atoms are bonded up to so much
# more than the sum.
_RADII = {
    "H": 0.31, "B": 0.84, "C": 0.76, "N": 0.71, "O": 0.66, "F": 0.57, "NA": 1.66, "MG": 1.41, "AL": 1.21,
    "SI": 1.11, "P": 1.07, "S": 1.05, "CL": 1.02, "K": 2.03, "CA": 1.76, "TI": 1.60, "FE": 1.32, "NI": 1.24,
    "CU": 1.32, "ZN": 1.22, "BR": 1.20, "AG": 1.45, "I": 1.39, "PT": 1.36, "AU": 1.36,
}  # fmt: skip
_OTHER, _STRETCH = 1.2, 1.15


@dataclass(frozen=True, eq=False)
class Structure:
    """Nodes as they are drawn.

    Attributes
    ----------
    positions
        (m, d) float32.
    variables
        (m, c) those that move a node, -1 for none.
    species, names
        (m,) the kind of each node, a number in `names`; no names where nodes are no atoms.
    faces
        (f, 4) nodes, the last of a triangle twice.
    edges
        (e, 2) nodes.
    told
        Of how many nodes these are a part.
    """

    positions: np.ndarray
    variables: np.ndarray
    species: np.ndarray
    names: tuple[str, ...]
    faces: np.ndarray
    edges: np.ndarray
    told: int

    def arrays(self) -> dict[str, np.ndarray]:
        """Return {name in a stored result: array}. Not collective."""
        return {
            "nodes": self.positions,
            "node_variables": self.variables,
            "node_species": self.species,
            "faces": self.faces,
            "edges": self.edges,
        }

    def facts(self) -> dict[str, Any]:
        """Return what JSON says beside the arrays. Not collective."""
        return {"told": self.told, "drawn": len(self.positions), "species": list(self.names)}

    def motion(self, read: Any) -> np.ndarray:
        """Return (m, 3) how a vector moves the nodes.

        Not collective.

        Parameters
        ----------
        read
            `read(variables) -> values` of a vector.
        """
        held = self.variables < 0
        values = np.where(held, 0.0, read(np.where(held, 0, self.variables).ravel()).reshape(held.shape))
        moved = np.zeros((len(held), 3))
        if held.shape[1] == 1:  # a value, drawn upright
            moved[:, self.positions.shape[1]] = values[:, 0]
        else:
            moved[:, : held.shape[1]] = values
        return moved


def gather_structure(geometry: Geometry | None, spread: bool, comm: MPI.Comm) -> Structure | None:
    """Return what is drawn of a geometry, on rank 0; None elsewhere, and where there is none.

    Collective. Each rank sends no more than what may be drawn.

    Parameters
    ----------
    spread
        Whether each rank has its own part; else rank 0 has all.
    """
    parts: list[Structure | None]
    if spread:
        share = -(-NODES // comm.size)
        own = None if geometry is None else _thinned(geometry, share, -(-FACES // comm.size))
        parts = comm.gather(own) or []
    else:
        parts = [_thinned(geometry, NODES, FACES) if comm.rank == 0 and geometry is not None else None]
    there = [part for part in parts if part is not None]
    return _joined(there) if there else None


def _thinned(geometry: Geometry, most: int, faces: int) -> Structure:
    """Return the part of a geometry that is drawn: its surface, or every so manieth node."""
    many = len(geometry.positions)
    surface = np.concatenate(
        [np.empty((0, 4), np.int64), *(face[:, [0, 1, 2, -1]] for face in geometry.faces)], axis=0
    )
    edges = geometry.edges
    chosen = np.unique(surface) if len(surface) else np.unique(edges) if len(edges) else np.arange(many)
    if len(chosen) > most or len(surface) > faces:
        chosen, surface = chosen[:: -(-len(chosen) // most)], surface[:0]
    number = np.full(many, -1)
    number[chosen] = np.arange(len(chosen))
    lines = number[edges]
    names, species = np.unique(geometry.species or [], return_inverse=True)
    return Structure(
        geometry.positions[chosen].astype(np.float32),
        geometry.variables[chosen],
        species[chosen].astype(np.uint8) if len(names) else np.zeros(len(chosen), np.uint8),
        tuple(map(str, names)),
        number[surface],
        _few(lines[(lines >= 0).all(axis=1)]),
        many,
    )


def _joined(parts: Sequence[Structure]) -> Structure:
    """Return the parts as one, what several have told once, with bonds where nodes are atoms."""
    names = tuple(sorted({name for part in parts for name in part.names}))
    starts = np.cumsum([0, *(len(part.positions) for part in parts)])
    renamed = [
        np.array([names.index(name) for name in part.names] or [0], np.uint8)[part.species] for part in parts
    ]
    positions = np.concatenate([part.positions for part in parts])
    species = np.concatenate(renamed)
    edges = np.concatenate([part.edges + start for part, start in zip(parts, starts, strict=False)])
    variables = np.concatenate([part.variables for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])
    told, given = sum(part.told for part in parts), len(positions)
    if len(parts) > 1:
        _, chosen, number = np.unique(
            np.column_stack([_alike(positions), variables]), axis=0, return_index=True, return_inverse=True
        )
        order = np.argsort(chosen)  # they stay in the order in which they were told
        chosen, number = chosen[order], np.argsort(order)[number.ravel()]
        positions, variables, species = positions[chosen], variables[chosen], species[chosen]
        faces, edges = number[faces], number[edges]
        told -= given - len(positions)
    if names and not len(edges) and told == len(positions):
        edges = _bonds(positions, np.array([_RADII.get(name.upper(), _OTHER) for name in names])[species])
    return Structure(
        positions,
        variables,
        species,
        names,
        faces,
        edges,
        told,
    )


def _alike(positions: np.ndarray) -> np.ndarray:
    """Return positions in whole numbers, in which rounding on different ranks is not seen."""
    extent = float(np.ptp(positions, axis=0).max(initial=0.0)) or 1.0
    return np.rint((positions - positions.min(axis=0)) / (_SAME * extent)).astype(np.int64)


def _bonds(positions: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return (e, 2) atoms that are as near as covalent bonds are."""
    reach = 2 * _STRETCH * radii.max()
    space = np.pad(positions, ((0, 0), (0, 3 - positions.shape[1])))
    near = cKDTree(space).query_pairs(reach, output_type="ndarray")
    apart = np.linalg.norm(space[near[:, 0]] - space[near[:, 1]], axis=1)
    return _few(near[apart <= _STRETCH * radii[near].sum(axis=1)].astype(np.int64))


def _few(lines: np.ndarray) -> np.ndarray:
    """Return lines, none of them where they are more than can be told apart."""
    return lines if len(lines) <= LINES else lines[:0]


def gather_modes(structure: Structure | None, vectors: Sequence[PETSc.Vec], comm: MPI.Comm) -> np.ndarray:
    """Return (k, m, 3) how the first modes move the nodes that are drawn, on rank 0; nothing elsewhere.

    Collective. Each rank sends what it has of these nodes, of one vector at a time.
    """
    wanted = comm.bcast(None if structure is None else np.unique(structure.variables[structure.variables >= 0]))
    if wanted is None:
        return np.zeros((0, 0, 3), np.float32)
    found = []
    for vector in vectors[:MODES]:
        first, last = vector.getOwnershipRange()
        low, high = np.searchsorted(wanted, (first, last))
        pieces = comm.gather(vector.getArray(readonly=True)[wanted[low:high] - first].real)
        if structure is not None and pieces is not None:
            values = np.concatenate([*pieces, np.zeros(1)])
            found.append(structure.motion(lambda at, values=values: values[_places(wanted, at)]))
    return _stacked(found, structure)


def read_modes(structure: Structure, rows: Iterable[np.ndarray]) -> np.ndarray:
    """Return (k, m, 3) how stored modes move the nodes that are drawn.

    Not collective.

    Parameters
    ----------
    rows
        Whole vectors, of which one is held at a time.
    """
    return _stacked([structure.motion(lambda at, row=row: row[at].real) for row in rows], structure)


def _places(wanted: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.searchsorted(wanted, at)


def _stacked(found: list[np.ndarray], structure: Structure | None) -> np.ndarray:
    """Return modes as one array, each with a largest motion of one."""
    many = 0 if structure is None else len(structure.positions)
    modes = np.array(found, np.float64).reshape(len(found), many, 3)
    largest = np.linalg.norm(modes, axis=2).max(axis=1, initial=0.0)[:, None, None]
    return (modes / np.where(largest > 0, largest, 1.0)).astype(np.float32)


def structure_of(arrays: dict[str, np.ndarray], facts: dict[str, Any], n: int) -> Structure:
    """Return the structure that a stored result holds.

    Not collective.

    Raises
    ------
    ValueError
        Arrays that do not fit each other.
    """
    nodes, variables, species = arrays["nodes"], arrays["node_variables"], arrays["node_species"]
    faces, edges, names = arrays["faces"], arrays["edges"], tuple(map(str, facts["species"]))
    Geometry(nodes, variables, faces=(faces,), edges=edges)
    if len(nodes) > 2 * NODES or len(faces) > 2 * FACES or not np.isfinite(nodes).all():
        raise ValueError("more nodes than are drawn, or such that are nowhere")
    if species.shape != (len(nodes),) or species.max(initial=0) >= max(len(names), 1):
        raise ValueError("species that do not fit the nodes")
    if variables.size and not -1 <= variables.min() <= variables.max() < n:
        raise ValueError("nodes are moved by variables that there are not")
    return Structure(np.asarray(nodes, np.float32), variables, species, names, faces, edges, int(facts["told"]))
