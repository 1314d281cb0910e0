"""Where the variables of an objective are: nodes with positions, so that modes can be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import reals


@dataclass(frozen=True, eq=False, repr=False)
class Geometry(ShortRepr):
    """Nodes that variables move: atoms, or the nodes of a mesh. For pictures, and for what is near (`near_far`).

    *Not collective.* Of an objective on arrays it is the same on every rank. Of one on PETSc vectors it is the
    part of this rank: nodes are numbered on the rank, variables over all ranks; nodes of others that its faces and
    edges need are told again.

    Attributes
    ----------
    positions
        (m, d) of the nodes, d = 1, 2 or 3.
    variables
        (m, c) the variable that moves a node along each of the first c axes, -1 where it is held. With c = 1 and
        d = 1 or 2 it is a value at each node, drawn upright. Default d variables a node, node by node.
    species
        Optional m chemical symbols: nodes are then drawn as atoms, with bonds where two are near enough.
    faces
        Optional arrays (f, 3) or (f, 4) of nodes, around each triangle or quadrilateral of the surface.
    edges
        Optional (e, 2) nodes that lines join.
    cell
        Optional (d, d) vectors by which all repeats, as rows; 0 0 0 along axes that are open.
    charges
        Optional m charges of the nodes.

    Raises
    ------
    InputError
        Shapes that do not fit each other, or nodes that there are not.

    Examples
    --------
    >>> import sparsehess as sh
    >>> water = sh.Geometry([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]], species=["O", "H", "H"])
    >>> water.variables.tolist()
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    """

    positions: Any
    variables: Any = None
    species: Sequence[str] | None = None
    faces: Sequence[Any] = ()
    edges: Any = None
    cell: Any = None
    charges: Any = None

    def __post_init__(self) -> None:
        """Check shapes and numbers. Not collective."""
        positions = reals(self.positions, "positions of nodes")
        if positions.ndim != 2 or positions.shape[1] not in (1, 2, 3):
            raise InputError(f"positions of nodes must be (nodes, 1 to 3) numbers, not {positions.shape}")
        many, dims = positions.shape
        variables = np.arange(positions.size).reshape(many, dims) if self.variables is None else self.variables
        variables = _whole(variables, "variables of nodes")
        if variables.ndim != 2 or len(variables) != many or not 1 <= variables.shape[1] <= 3:
            raise InputError(f"variables of nodes must be ({many}, 1 to 3) numbers, not {variables.shape}")
        if variables.shape[1] > dims or (variables.shape[1] == 1 and dims == 3):
            raise InputError(f"{variables.shape[1]} variables a node move no nodes in {dims} dimensions")
        if self.species is not None and len(self.species) != many:
            raise InputError(f"there are {many} nodes, and {len(self.species)} species")
        faces = tuple(_members(one, (3, 4), many, "faces") for one in self.faces)
        edges = _members(np.empty((0, 2), np.int64) if self.edges is None else self.edges, (2,), many, "edges")
        for name, value in (
            ("positions", positions),
            ("variables", variables),
            ("faces", faces),
            ("edges", edges),
        ):
            object.__setattr__(self, name, value)
        if self.species is not None:
            object.__setattr__(self, "species", tuple(map(str, self.species)))
        for name, shape in (("cell", (dims, dims)), ("charges", (many,))):
            if getattr(self, name) is not None:
                value = reals(getattr(self, name), name)
                if value.shape != shape or not np.isfinite(value).all():
                    raise InputError(f"{name} of nodes must be {shape} finite numbers, not {value.shape}")
                object.__setattr__(self, name, value)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        many, dims = self.positions.shape
        yield f"{number_of(many, 'atom' if self.species else 'node')} in {number_of(dims, 'dimension')}"
        if self.faces:
            yield number_of(sum(map(len, self.faces)), "face")


def in_turn(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return faces with their corners one after another around each, as some libraries do not store them.

    Not collective. Of the three ways around four corners the shortest is taken.

    Parameters
    ----------
    positions
        (m, d) of the nodes.
    faces
        (f, 3) or (f, 4) nodes.
    """
    if faces.shape[1] != 4:
        return faces
    ways = np.stack([faces[:, [0, 1, 2, 3]], faces[:, [0, 1, 3, 2]], faces[:, [0, 2, 1, 3]]])
    sides = positions[ways] - positions[np.roll(ways, 1, axis=2)]
    shortest = np.linalg.norm(sides, axis=3).sum(axis=2).argmin(axis=0)
    return ways[shortest, np.arange(len(faces))]


def _whole(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name} must be whole numbers, not {array.dtype}")
    return array.astype(np.int64)


def _members(values: Any, sizes: tuple[int, ...], many: int, name: str) -> np.ndarray:
    array = _whole(values, name)
    if array.ndim != 2 or array.shape[1] not in sizes:
        raise InputError(f"{name} must be (number, {' or '.join(map(str, sizes))}) nodes, not {array.shape}")
    if array.size and not 0 <= array.min() <= array.max() < many:
        raise InputError(f"{name} name nodes that there are not: there are {many}")
    return array
