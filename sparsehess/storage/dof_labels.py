"""Labels of rows: which node and which component a row of a matrix belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.runtime.short_repr import number_of
from sparsehess.storage.memory_claims import PER_ROW, PER_TRIPLE, require_memory

# Components of a node by their numbers, as all codes count them.
_COMPONENTS = ("", "x", "y", "z", "rx", "ry", "rz")

# Components that a key of node and component has room for, and labels that are told.
_ROOM, _TOLD = 64, 6


@dataclass(frozen=True, eq=False)
class Labels:
    """Nodes and components of rows.

    Attributes
    ----------
    nodes
        (n,) numbers of nodes as the code has them; negative ones are internal.
    components
        (n,) 1 to 3 translations, 4 to 6 rotations about x, y, z; 0 a scalar point or a temperature; others are
        the code's own.
    """

    nodes: np.ndarray
    components: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.nodes)

    @property
    def keys(self) -> np.ndarray:
        """(n,) numbers that tell labels apart, and sort them by node and component."""
        return keys_of(self.nodes, self.components)

    def part(self, start: int, stop: int) -> Labels:
        """Return those of a range of rows. Not collective."""
        return Labels(self.nodes[start:stop], self.components[start:stop])

    def names(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Return rows in words, as `node 12 z`. Not collective."""
        return [_name(int(self.nodes[row]), int(self.components[row])) for row in rows]

    def told(self) -> str:
        """Return how many nodes and which components there are, in words. Not collective."""
        kinds = ", ".join(_component(int(one)) for one in np.unique(self.components))
        return f"{number_of(len(self), 'dof')} of {number_of(len(np.unique(self.nodes)), 'node')} ({kinds})"


def keys_of(nodes: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Return numbers that tell pairs of node and component apart, and sort them. Not collective."""
    return nodes.astype(np.int64) * _ROOM + components.astype(np.int64)


def labels_of_keys(keys: np.ndarray) -> Labels:
    """Return the labels of numbers of `keys_of`. Not collective."""
    return Labels(np.floor_divide(keys, _ROOM), np.mod(keys, _ROOM).astype(np.int8))


def check_labels(path: Path, nodes: np.ndarray, components: np.ndarray) -> None:
    """Raise InputError for numbers that no node or component has. Not collective."""
    if len(nodes) and (np.abs(nodes).max() > 2**53 or components.min() < 0 or components.max() >= _ROOM):
        raise InputError(
            f"{path}: a component outside 0 to {_ROOM - 1}, or a node of more than 16 digits: damaged, or not "
            "lines of node, dof, node, dof, value"
        )


def assemble(
    path: Path, row: np.ndarray, column: np.ndarray, values: np.ndarray
) -> tuple[scipy.sparse.coo_matrix, Labels]:
    """Return the square matrix of entries with keys in the place of rows and columns, and its labels.

    Not collective. Rows are in the order of nodes, and of components of a node.

    Parameters
    ----------
    row, column
        (m,) as `keys_of` makes them.
    values
        (m,) entries.
    """
    require_memory(path, "its entries", len(values) * PER_TRIPLE + len(values) * PER_ROW)
    keys = np.unique(np.concatenate([row, column]))
    places = np.searchsorted(keys, row), np.searchsorted(keys, column)
    return scipy.sparse.coo_matrix((values, places), (len(keys), len(keys))), labels_of_keys(keys)


def on_rows_of(
    path: Path, matrix: scipy.sparse.csr_matrix, labels: Labels, wanted: Labels
) -> tuple[scipy.sparse.csr_matrix, str]:
    """Return a matrix with the rows of another one, in its order, and what is to be said of it.

    Not collective. Rows that it has not are empty.

    Raises
    ------
    InputError
        It has a row that the other one has not.
    """
    order = np.argsort(wanted.keys, kind="stable")
    keys = wanted.keys[order]
    found = np.minimum(np.searchsorted(keys, labels.keys), len(keys) - 1)
    beside = np.flatnonzero(keys[found] != labels.keys)
    coo = matrix.tocoo()
    if len(beside):
        empty = np.bincount(coo.row[coo.data != 0], minlength=len(labels))[beside] == 0
        beside = beside[~empty]
    if len(beside):
        names = ", ".join(labels.names(beside[:_TOLD])) + (" …" if len(beside) > _TOLD else "")
        raise InputError(
            f"{path}: {number_of(len(beside), 'dof')} that the first matrix has no row for: {names}; take them "
            "out here, or write both matrices of the same dofs"
        )
    places = order[found]
    kept = coo.data != 0
    n = len(wanted)
    made = scipy.sparse.coo_matrix((coo.data[kept], (places[coo.row[kept]], places[coo.col[kept]])), (n, n))
    missing = n - len(np.unique(places))
    said = "its rows are put in the places of those of the first matrix"
    if missing:
        which = np.setdiff1d(np.arange(n), places)[:_TOLD]
        names = ", ".join(wanted.names(which)) + (" …" if missing > _TOLD else "")
        said += f"; {number_of(missing, 'dof')} of that one not in this file, so zero: {names}"
    return made.tocsr(), said


def _component(number: int) -> str:
    return _COMPONENTS[number] if 0 < number < len(_COMPONENTS) else "scalar" if number == 0 else f"dof {number}"


def _name(node: int, component: int) -> str:
    return f"node {node}" + (f" {_component(component)}" if component else "")
