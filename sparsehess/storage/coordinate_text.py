"""Matrices as text without a head of their own: Abaqus, CalculiX, OpenSees, and plain numbers.

Abaqus Analysis User's Guide, "Generating matrices", formats of `*MATRIX OUTPUT`: MATRIX INPUT and LABELS have row
node, row dof, column node, column dof, entry in a line; COORDINATE has row, column, entry, numbered from 1. Of a
symmetric matrix one triangle or both may be there ("MATRIX INPUT").

CalculiX CrunchiX User's Manual, "*FREQUENCY", SOLVER=MATRIXSTORAGE: row, column, entry of the upper triangle,
numbered from 1, in .sti (stiffness; .con conductivity), .mas (mass; .sph capacity), .str (stress stiffness of
buckling); .dof has node.direction of each row.

OpenSees Command Manual, "printA": the rows of the matrix as lines; with -sparse lines of row, column, entry,
numbered from the base that was asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.storage.dof_labels import Labels, assemble, check_labels, keys_of
from sparsehess.storage.found_matrix import Found, in_range, is_completed, symmetric_of
from sparsehess.storage.memory_claims import PER_ROW, PER_TRIPLE, require_memory
from sparsehess.storage.number_lines import read_number_lines, whole_numbers

# Numbers in a line of row and column, and of two labels.
_TRIPLE, _LABELLED = 3, 5

# Rows from which on a matrix of so few entries is none: a number was read where another should be.
_FAR = 2**20


def load_calculix(path: Path) -> Found:
    """Return the matrix of a CalculiX file, with the nodes of its `.dof` where that lies beside it.

    Not collective.
    """
    matrix, word = _of_triples(path, read_number_lines(path, _TRIPLE), base=1)
    labels, said = None, []
    beside = path.with_suffix(".dof")
    if beside.is_file() and not beside.is_symlink():
        dofs = read_dofs(beside)
        n = matrix.shape[0]
        if 2 * len(dofs) == n:
            said.append("cyclic symmetry: a Hermitian matrix as a real one of twice its size, each mode twice")
        elif len(dofs) < n:
            raise InputError(f"{path}: {n} rows, and {beside.name} has {len(dofs)} dofs: not of one run")
        else:
            matrix.resize((len(dofs), len(dofs)))
            labels = dofs
    form, completed = f"CalculiX, {word}", is_completed(word)
    return Found(matrix, form, tuple(said), labels, sized=labels is not None, text=True, completed=completed)


def read_dofs(path: Path) -> Labels:
    """Return the labels of rows of a CalculiX `.dof` file, a line `node.direction` each.

    Not collective.
    """
    words = path.read_bytes().split()
    require_memory(path, "its dofs", 64 * len(words))
    if any(len(word) > 40 for word in words):
        raise InputError(f"{path}: a line that is not node.direction, as 12.3: damaged")
    try:
        parts = np.char.partition(np.array(words, np.bytes_), b".")
        nodes, directions = parts[:, 0].astype(np.int64), parts[:, 2].astype(np.int64)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: a line that is not node.direction, as 12.3: damaged") from error
    check_labels(path, nodes, directions)
    labels = Labels(nodes, directions.astype(np.int8))
    if len(np.unique(labels.keys)) != len(labels):
        raise InputError(f"{path}: a node and direction stand there twice: damaged")
    return labels


def load_plain_text(path: Path, abaqus: bool = False) -> Found:
    """Return the matrix of lines of numbers: five are labels, three row and column, as many as lines a dense one.

    Not collective.

    Parameters
    ----------
    abaqus
        Whether the file is named as Abaqus names it, which counts rows from 1.

    Raises
    ------
    InputError
        Lines are none of these, or it cannot be told which.
    """
    numbers = read_number_lines(path)
    lines, columns = numbers.shape
    alike = lines == columns and not abaqus
    if alike and (columns not in (_TRIPLE, _LABELLED) or np.array_equal(numbers, numbers.T)):
        return Found(numbers, "rows as lines", text=True)
    if columns == _LABELLED:
        return _labelled(path, numbers)
    if columns == _TRIPLE and (abaqus or lines != _TRIPLE):
        return _triples(path, numbers, abaqus)
    if columns == _TRIPLE and (numbers[:, :2] == np.rint(numbers[:, :2])).all():
        return _triples(path, numbers, abaqus)
    raise InputError(
        f"{path}: {lines} lines of {columns} numbers: neither rows of a square matrix, nor row, column, value, "
        "nor node, dof, node, dof, value"
    )


def _labelled(path: Path, numbers: np.ndarray) -> Found:
    """Return a matrix of lines node, dof, node, dof, value, as Abaqus writes them."""
    places = whole_numbers(path, numbers[:, :4], "a node or dof")
    for nodes, dofs in ((0, 1), (2, 3)):
        check_labels(path, places[:, nodes], places[:, dofs])
    row, column = (keys_of(places[:, nodes], places[:, dofs]) for nodes, dofs in ((0, 1), (2, 3)))
    entries, labels = assemble(path, row, column, numbers[:, 4])
    matrix, word = symmetric_of(path, _in_one_triangle(entries))
    internal = np.count_nonzero(labels.nodes < 0)
    said = (f"{internal} dofs are of internal nodes, whose numbers are negative",) if internal else ()
    form = f"Abaqus, labels of nodes, {word}"
    return Found(matrix, form, said, labels, text=True, completed=is_completed(word))


def _in_one_triangle(entries: scipy.sparse.coo_matrix) -> scipy.sparse.coo_matrix:
    """Return entries of which each pair of rows has one place in one triangle, others as they are.

    Codes write one triangle in an order of rows of their own, in which internal nodes, with the least numbers, are
    the last.
    """
    row, column, n = entries.row.astype(np.int64), entries.col.astype(np.int64), entries.shape[0]
    lower, upper = row > column, row < column
    if np.isin(row[lower] * n + column[lower], column[upper] * n + row[upper]).any():
        return entries
    return scipy.sparse.coo_matrix((entries.data, (np.maximum(row, column), np.minimum(row, column))), (n, n))


def _triples(path: Path, numbers: np.ndarray, abaqus: bool) -> Found:
    rows, columns, many = numbers[0]
    # A line of sizes, as a file has that lost its banner: no entry stands at the end of both, and is their number.
    headed = many == len(numbers) - 1 > 0 and rows == columns >= numbers[1:, :2].max()
    numbers = numbers[1:] if headed else numbers
    zero = not abaqus and (numbers[:, :2] == 0).any()
    matrix, word = _of_triples(path, numbers, base=0 if zero else 1)
    if headed and rows > matrix.shape[0]:
        in_range(path, np.array([rows]), 1, max(_FAR, 64 * len(numbers)), "a number of rows")
        matrix.resize((int(rows), int(rows)))
    form = "Abaqus, row and column" if abaqus else f"row, column and value, numbered from {0 if zero else 1}"
    said = ("its first line is taken for rows, columns and entries",) if headed else ()
    return Found(matrix, f"{form}, {word}", said, sized=headed, text=True, completed=is_completed(word))


def _of_triples(path: Path, numbers: np.ndarray, base: int) -> tuple[scipy.sparse.csr_matrix, str]:
    """Return the matrix of lines row, column, value, and which triangles were stored."""
    places = whole_numbers(path, numbers[:, :2], "a row or column") - base
    n = int(places.max()) + 1
    in_range(path, places.ravel() + base, base, max(_FAR, 64 * len(numbers)), "a row or column")
    require_memory(path, "its entries", 2 * len(numbers) * PER_TRIPLE + n * PER_ROW)
    entries = scipy.sparse.coo_matrix((numbers[:, 2], (places[:, 0], places[:, 1])), (n, n))
    return symmetric_of(path, entries)
