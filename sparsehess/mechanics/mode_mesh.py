"""`ModeMesh`: a mesh, and which variable moves or turns each of its nodes along and about which axis."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.mechanics.rigid_vectors import LETTERS, check_dofs
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.storage.meshes import Mesh, mesh_of, read_mesh

# Dofs of nodes that are often meant, by how many there are; for messages.
_USUAL = {1: "z", 2: "xy", 3: "xyz", 6: "xyzabc"}


class ModeMesh(ShortRepr):
    """A mesh whose nodes are moved by the variables of a matrix, for files and pictures of modes.

    *Not collective.* A path is read by the rank that calls it; `write_modes` asks rank 0 alone.

    Parameters
    ----------
    mesh
        Path of a file in any format that meshio reads (.inp, .bdf, .msh, .vtu, …), or a `meshio.Mesh`.
    dofs
        Letters of the dofs of each node in their order: x, y, z are translations, a, b, c rotations about x, y
        and z. "xyz" is a solid, "xyzabc" a frame or shell, "xy" a plane, "z" a membrane. Default as many of xyz
        as the mesh has coordinates.
    fixed
        Numbers of the dofs that the matrix is without, each once: node by node, in the order of the mesh, from 0.
    free
        In the place of `fixed`: (n,) the number of the dof of each row of the matrix, in any order.
    fixed_sets
        Sets of nodes of the mesh by their names that are held, all their dofs, or those whose letters stand behind
        a colon: "base", "symmetry:x". Besides the `fixed` ones.

    Attributes
    ----------
    mesh
        Nodes and cells.
    variables
        (nodes, len(dofs)) the row of the matrix that each dof is, -1 where it is fixed.
    n
        Rows of the matrix.

    Raises
    ------
    InputError
        A mesh, letters or numbers that are none, or that do not fit each other.
    StackError
        meshio is not installed.

    Examples
    --------
    >>> import meshio
    >>> import sparsehess as sh
    >>> square = meshio.Mesh([[0, 0], [1, 0], [1, 1], [0, 1]], {"quad": [[0, 1, 2, 3]]})
    >>> sh.ModeMesh(square, "xy", fixed=[0, 1, 3])
    <ModeMesh: 4 nodes in 2 dimensions, 1 cell, dofs xy, 3 of 8 fixed>
    """

    def __init__(
        self,
        mesh: Any,
        dofs: str | None = None,
        *,
        fixed: Any = None,
        free: Any = None,
        fixed_sets: Sequence[str] = (),
    ):
        found, name = _mesh(mesh)
        self.mesh, self.name = found, name
        self.dofs = LETTERS[: found.dims] if dofs is None else dofs
        check_dofs(self.dofs)
        many = len(found.points) * len(self.dofs)
        fixed_sets = [fixed_sets] if isinstance(fixed_sets, str) else fixed_sets
        if free is not None and (fixed is not None or fixed_sets):
            raise InputError("dofs are told as fixed or as free, not both: leave out one of them")
        if free is None:
            held = np.concatenate([_numbers("fixed", fixed, many), *(self._of_set(one) for one in fixed_sets)])
            rows = np.ones(many, bool)
            rows[held] = False
            places = np.flatnonzero(rows)
        else:
            places = _numbers("free", free, many)
        variables = np.full(many, -1, np.int64)
        variables[places] = np.arange(len(places))
        self.variables, self.n = variables.reshape(len(found.points), len(self.dofs)), len(places)

    @classmethod
    def of(cls, mesh: Mesh, dofs: str, variables: np.ndarray, n: int, name: str = "the mesh") -> ModeMesh:
        """Return the mesh whose dofs are these of the n rows of the matrix, -1 for none. Not collective."""
        made = cls.__new__(cls)
        made.mesh, made.name, made.dofs, made.variables = mesh, name, dofs, variables
        made.n = n
        return made

    @classmethod
    def of_rows(cls, mesh: Mesh, nodes: np.ndarray, components: np.ndarray, name: str) -> ModeMesh:
        """Return the mesh whose nodes and components the rows of a matrix are said to be.

        Not collective.

        Parameters
        ----------
        nodes, components
            (n,) numbers of nodes as the file of the mesh has them; 1 to 6 for x, y, z and rotations about them.

        Raises
        ------
        InputError
            There is no such node or component in the mesh.
        """
        order = np.argsort(mesh.labels)
        place = np.minimum(np.searchsorted(mesh.labels[order], nodes), len(order) - 1)
        wrong = np.flatnonzero((mesh.labels[order[place]] != nodes) | (components < 1) | (components > 6))
        if len(wrong):
            row = wrong[0]
            raise InputError(
                f"{name}: row {row} of the matrix, from 0, is dof {components[row]} of node {nodes[row]}, which "
                "the mesh does not have; say which dofs of it the rows are by dofs, and by fixed or free ones"
            )
        dofs = LETTERS if components.max(initial=0) > 3 else LETTERS[:3]
        variables = np.full((len(order), len(dofs)), -1, np.int64)
        variables[order[place], components - 1] = np.arange(len(nodes))
        return cls.of(mesh, dofs, variables, len(nodes), name)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield repr(self.mesh).partition(": ")[2][:-1]
        many, held = self.variables.size, int((self.variables < 0).sum())
        yield f"dofs {self.dofs}"
        yield f"{held} of {many} fixed" if held else "none fixed"

    def _of_set(self, text: str) -> np.ndarray:
        """Return the dofs of a set of nodes, `base` or `base:xz`."""
        name, _, letters = text.partition(":") if text not in self.mesh.sets else (text, "", "")
        nodes = self.mesh.set_of(name)
        if not set(letters) <= set(self.dofs):
            raise InputError(f"{text}: nodes have the dofs {self.dofs}; write some of these behind the colon")
        places = [self.dofs.index(one) for one in letters or self.dofs]
        return (nodes[:, None] * len(self.dofs) + np.array(places)).ravel()

    def check(self, n: int) -> None:
        """Refuse a matrix of another number of rows. Not collective.

        Raises
        ------
        InputError
            It says how many dofs there are, how many fixed, and what else may be meant.
        """
        if n == self.n:
            return
        nodes, each = self.variables.shape
        usual = {letters: count * nodes for count, letters in _USUAL.items()}
        meant = [letters for letters, many in usual.items() if many == n and letters != self.dofs]
        bare = self.mesh.bare
        hints = [
            *(f"--dofs {letters} has as many" for letters in meant),
            *([f"{bare} of the nodes belong to no cell"] if bare else []),
        ]
        raise InputError(
            f"{self.name}: {number_of(nodes, 'node')} with dofs {self.dofs} have {nodes * each}, of which "
            f"{nodes * each - self.n} are fixed: that leaves {self.n}, and the matrix has {n} rows; say which it "
            f"has by dofs, and by fixed or free ones{''.join(f'; {hint}' for hint in hints)}"
        )

    @property
    def turns(self) -> bool:
        """Whether nodes have rotations."""
        return any(letter in LETTERS[3:] for letter in self.dofs)

    def motion(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return how a vector (n,) moves the nodes, (m, 3), and how it turns them where they turn.

        Not collective. Fixed dofs are zero.
        """
        held = self.variables < 0
        values = np.zeros(held.shape, np.result_type(vector, np.float64))
        values[~held] = vector[self.variables[~held]]
        both = np.zeros((len(held), 6), values.dtype)
        both[:, [LETTERS.index(letter) for letter in self.dofs]] = values
        return np.ascontiguousarray(both[:, :3]), np.ascontiguousarray(both[:, 3:]) if self.turns else None


def _mesh(given: Any) -> tuple[Mesh, str]:
    """Return a mesh, and what it is called."""
    if isinstance(given, str | os.PathLike):
        return read_mesh(given), os.fspath(given)
    return (given if isinstance(given, Mesh) else mesh_of(given)), "the mesh"


def _numbers(name: str, given: Any, many: int) -> np.ndarray:
    """Return numbers of dofs that are each told once."""
    found = np.asarray([] if given is None else given)
    if found.size == 0:
        found = found.astype(np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InputError(f"{name} dofs must be a list of whole numbers, not {found.dtype} of shape {found.shape}")
    found = found.astype(np.int64)
    if found.size and not 0 <= found.min() <= found.max() < many:
        wrong = found.min() if found.min() < 0 else found.max()
        raise InputError(
            f"{name} dofs must be from 0 to {many - 1}, counted node by node, and {wrong} is among them"
        )
    twice = np.sort(found)[1:][np.diff(np.sort(found)) == 0]
    if len(twice):
        raise InputError(f"{name} dofs: {twice[0]} is told twice; tell each once")
    return found
