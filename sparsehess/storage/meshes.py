"""Meshes: nodes, cells and sets of nodes, from the files of finite-element codes as meshio reads them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsehess.errors import InputError, did_you_mean, no_such_file
from sparsehess.runtime import optional
from sparsehess.runtime.short_repr import ShortRepr, number_of

# Formats of which meshio turns the triangles of linear wedges round, so that their volumes are negative.
_TURNED = (".vtu", ".vtk")

# What blocks of Abaqus that name a set call it.
_SETS = {"ELEMENT": "ELSET", "ELSET": "ELSET", "NSET": "NSET"}

# Names that are listed of the sets of a mesh, at most.
_SHOWN = 12


@dataclass(frozen=True, eq=False, repr=False)
class Mesh(ShortRepr):
    """A mesh, as files of modes need it.

    Attributes
    ----------
    points
        (m, 3) positions of the nodes, zeros where fewer coordinates are given.
    dims
        How many coordinates are given: 1, 2 or 3.
    cells
        (type, (c, nodes)) blocks in meshio's words and order of nodes: `line`, `quad8`, `hexahedron20`.
    sets
        Nodes by the name of their set.
    numbers
        (m,) what the file calls the nodes; None where that is not known.
    """

    points: np.ndarray
    dims: int
    cells: tuple[tuple[str, np.ndarray], ...]
    sets: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: np.ndarray | None = None

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(len(self.points), 'node')} in {number_of(self.dims, 'dimension')}"
        yield number_of(sum(len(nodes) for _, nodes in self.cells), "cell")

    @property
    def labels(self) -> np.ndarray:
        """(m,) numbers of the nodes: those of the file where they are known, else from 1."""
        return np.arange(1, len(self.points) + 1) if self.numbers is None else self.numbers

    @property
    def bare(self) -> int:
        """How many nodes belong to no cell."""
        used = np.zeros(len(self.points), bool)
        for _, nodes in self.cells:
            used[nodes] = True
        return int(len(used) - used.sum())

    def set_of(self, name: str) -> np.ndarray:
        """Return the nodes of a set, ascending. Not collective.

        Raises
        ------
        InputError
            The mesh has no such set; the message names those that it has.
        """
        if name not in self.sets:
            names = sorted(self.sets)
            known = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            told = f"it has {known}" if names else "it has no sets that meshio reads: give dofs in a file"
            raise InputError(f"the mesh has no set of nodes {name!r}: {did_you_mean(name, names) or told}")
        if not len(self.sets[name]):
            raise InputError(
                f"the nodes of the set {name!r} are none that meshio reads right: give its dofs in a file"
            )
        return np.unique(self.sets[name])


def mesh_of(found: Any, name: str = "the mesh", misread: Collection[str] = ()) -> Mesh:
    """Return the mesh of a `meshio.Mesh`, checked.

    Not collective.

    Parameters
    ----------
    misread
        Names of sets that it has not right.

    Raises
    ------
    InputError
        Points or cells that are none; the message says which.
    """
    try:
        points = np.asarray(found.points, np.float64)
        blocks = [(str(block.type), np.asarray(block.data)) for block in found.cells]
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} is no mesh: give the path of a file that meshio reads, or a meshio.Mesh"
        ) from error
    if points.ndim != 2 or not len(points) or points.shape[1] not in (1, 2, 3):
        raise InputError(f"{name}: nodes must be (nodes, 1 to 3) positions, not {points.shape}; is it a mesh?")
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(wrong):
        raise InputError(f"{name}: the position of node {wrong[0]}, counted from 0, is not finite: mend the file")
    if np.any(getattr(found, "point_data", {}).get("nastran:ref", 0)):
        raise InputError(
            f"{name}: nodes are told in systems (CP) that meshio takes for the global one: tell all in it"
        )
    cells = []
    for kind, nodes in blocks:
        if nodes.ndim != 2 or nodes.dtype.kind not in "iu" or kind.startswith("polyhedron"):
            raise InputError(f"{name}: cells of type {kind} are not written: leave them out of the mesh")
        if nodes.size and not 0 <= nodes.min() <= nodes.max() < len(points):
            raise InputError(f"{name}: a {kind} names node {nodes.max()}, and nodes are 0 to {len(points) - 1}")
        if len(nodes):
            cells.append((kind, nodes.astype(np.int64)))
    sets = {**_sets(found, misread), **{one: np.empty(0, np.int64) for one in misread}}
    return Mesh(np.pad(points, ((0, 0), (0, 3 - points.shape[1]))), points.shape[1], tuple(cells), sets)


def _sets(found: Any, misread: Collection[str]) -> dict[str, np.ndarray]:
    """Return the sets of nodes: those of the file, and the nodes of its sets of cells and physical groups."""
    sets: dict[str, list[np.ndarray]] = {}
    blocks = [np.asarray(block.data) for block in found.cells]
    for name, (tag, dims) in _tags(found).items():  # a line and a surface may have one tag
        for block, tags in zip(found.cells, found.cell_data.get("gmsh:physical", []), strict=False):
            if getattr(block, "dim", dims) == dims:
                sets.setdefault(name, []).append(np.asarray(block.data)[np.asarray(tags) == tag].ravel())
    for name, parts in getattr(found, "cell_sets", {}).items():
        if name.startswith("gmsh:") or name in misread:
            continue
        for nodes, part in zip(blocks, parts, strict=False):
            if part is not None and len(part):
                cells = _members(part, len(nodes), f"the set of cells {name!r}", "cell")
                sets.setdefault(name, []).append(nodes[cells].ravel())
    for name, nodes in getattr(found, "point_sets", {}).items():
        sets[name] = [_members(nodes, len(found.points), f"the set of nodes {name!r}", "node")]
    return {name: np.unique(np.concatenate(parts)).astype(np.int64) for name, parts in sets.items() if parts}


def _members(given: Any, many: int, name: str, kind: str) -> np.ndarray:
    """Return the numbers of a set, refusing what is none of so many. Not collective."""
    numbers = np.asarray(given).ravel()
    if not len(numbers):
        return np.empty(0, np.int64)
    if numbers.dtype.kind not in "iu":
        raise InputError(f"{name} has {numbers.dtype} in it: give the numbers of its {kind}s, counted from 0")
    wrong = numbers[(numbers < 0) | (numbers >= many)]
    if len(wrong):
        raise InputError(f"{name} has {kind} {wrong[0]}, counted from 0, of {many}: mend the set")
    return numbers.astype(np.int64)


def _tags(found: Any) -> dict[str, tuple[int, int]]:
    """Return {name: (tag, dimension)} of physical groups, as meshio has them of Gmsh."""
    tags = {}
    for name, value in getattr(found, "field_data", {}).items():
        pair = np.asarray(value).ravel()
        if len(pair) == 2 and pair.dtype.kind in "iu":
            tags[name] = (int(pair[0]), int(pair[1]))
    return tags


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Return the mesh of a file, in any format that meshio reads.

    Not collective: rank 0 reads. Nodes are in the order of the file.

    Raises
    ------
    InputError
        There is no such file, meshio does not read it, or it holds no mesh.
    StackError
        There is no meshio.
    """
    meshio = optional("meshio", f"{path}: a mesh", "mesh")
    if not Path(path).is_file():
        raise no_such_file(path)
    suffix = Path(path).suffix.lower()
    wrong = _misread_sets(path) if suffix == ".inp" else set()
    said = io.StringIO()
    try:
        # What meshio prints, and that it ends the process where no format fits, is not for the user.
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            found = meshio.read(path)
    except (Exception, SystemExit) as error:  # whatever a damaged file makes a reader do
        told = " ".join(f"{'' if isinstance(error, SystemExit) else error} {said.getvalue()}".split())[:200]
        raise InputError(
            f"{path}: meshio {meshio.__version__} does not read this mesh ({told or type(error).__name__}); write "
            "it as .msh, .vtu, .bdf or .inp of plain elements"
        ) from error
    mesh = mesh_of(found, str(path), wrong)
    if suffix == ".inp":
        return replace(mesh, numbers=_numbers_of_nodes(path, len(mesh.points)))
    if suffix in _TURNED:
        turned = [(kind, nodes[:, [0, 2, 1, 3, 5, 4]] if kind == "wedge" else nodes) for kind, nodes in mesh.cells]
        return replace(mesh, cells=tuple(turned))
    return mesh


def _numbers_of_nodes(path: str | os.PathLike[str], many: int) -> np.ndarray | None:
    """Return the numbers of nodes of an Abaqus file, which meshio does not tell; None where they are elsewhere."""
    numbers: list[int] = []
    inside = False
    with open(path, errors="replace") as file:
        for line in file:
            if line.startswith("*"):
                if line.startswith("**"):
                    continue
                inside = line.partition(",")[0].strip().upper() == "*NODE"
                numbers = [] if inside else numbers
            elif inside and line.strip():
                numbers.append(int(line.partition(",")[0]))
    found = np.array(numbers, np.int64)
    return found if len(found) == many and len(np.unique(found)) == many and found.min() > 0 else None


def _misread_sets(path: str | os.PathLike[str]) -> set[str]:
    """Return the names of sets that meshio does not read right of a file of Abaqus or CalculiX.

    Where it would leave out nodes or elements without a word, that is refused.
    """
    blocks: list[tuple[str, str]] = []  # what is told before, and the name of its set
    wrong: set[str] = set()
    behind = False  # whether the line is behind a comment in a block
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = [word.strip() for word in line.split(",")]
            here, name = blocks[-1] if blocks else ("", "")
            if line.startswith("**"):
                behind = True
            elif line.startswith("*"):
                here, behind = words[0][1:].upper(), False
                pairs = (word.partition("=") for word in words[1:])
                name = {key.strip().upper(): value.strip() for key, _, value in pairs}.get(_SETS.get(here, ""), "")
                if here == "NODE" and any(one == "NODE" for one, _ in blocks):
                    raise InputError(
                        f"{path}, line {number}: meshio reads one block *NODE: join it with that before"
                    )
                if (here, name) in blocks or (here == "ELEMENT" and ("ELEMENT", "") in blocks):
                    wrong.add(name)
                if {"ELSET", "ELEMENT"} <= {here, *(one for one, told in blocks if told == name)}:
                    wrong.add(name)
                blocks.append((here, name))
            elif line.strip() and behind and here in ("NODE", *_SETS):
                raise InputError(
                    f"{path}, line {number}: meshio leaves out what is behind a comment in *{here}: remove that"
                )
            elif here in ("NSET", "ELSET") and not all(word.isdigit() for word in words if word):
                wrong.add(name)  # sets of sets
    return wrong - {""}
