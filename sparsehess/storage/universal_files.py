"""Modes on meshes in universal files (.unv): data sets 2411 (nodes), 2412 (elements) and 55 (data at nodes).

Formats: SDRC, universal file data sets, as the Structural Dynamics Research Laboratory of the University of
Cincinnati has published them. Data at nodes have six digits there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.atomic_files import write_file
from sparsehess.storage.meshes import Mesh
from sparsehess.storage.mode_records import ModeRecord
from sparsehess.storage.text_blocks import in_columns, write_rows

# Descriptors of elements by meshio's types of cells, and the nodes in their order: around the base, corners and
# middles of sides in turn, then upwards. Middles of faces and volumes are left out, pyramids are bricks whose
# upper corners are one.
_BRICK = [0, 8, 1, 9, 2, 10, 3, 11, 16, 17, 18, 19, 4, 12, 5, 13, 6, 14, 7, 15]
_QUAD = [0, 4, 1, 5, 2, 6, 3, 7]
_WEDGE = [0, 6, 1, 7, 2, 8, 12, 13, 14, 3, 9, 4, 10, 5, 11]
TYPES: dict[str, tuple[int, list[int]]] = {
    "line": (21, [0, 1]),
    "line3": (24, [0, 2, 1]),
    "triangle": (91, [0, 1, 2]),
    "triangle6": (92, [0, 3, 1, 4, 2, 5]),
    "triangle7": (92, [0, 3, 1, 4, 2, 5]),
    "quad": (94, [0, 1, 2, 3]),
    "quad8": (95, _QUAD),
    "quad9": (95, _QUAD),
    "tetra": (111, [0, 1, 2, 3]),
    "tetra10": (118, [0, 4, 1, 5, 2, 6, 7, 8, 9, 3]),
    "wedge": (112, [0, 1, 2, 3, 4, 5]),
    "wedge15": (113, _WEDGE),
    "wedge18": (113, _WEDGE),
    "pyramid": (115, [0, 1, 2, 3, 4, 4, 4, 4]),
    "pyramid13": (115, [0, 1, 2, 3, 4, 4, 4, 4]),
    "hexahedron": (115, [0, 1, 2, 3, 4, 5, 6, 7]),
    "hexahedron20": (116, _BRICK),
    "hexahedron27": (116, _BRICK),
}

# Elements with a line on orientation and sections before that of the nodes.
_BEAMS = (21, 24)


class _UniversalWriter:
    """Writes modes behind the mesh of a universal file."""

    def __init__(self, stream: IO[str], path: Path, mesh: Mesh, record: ModeRecord):
        for kind, _ in mesh.cells:
            if kind not in TYPES and kind != "vertex":
                raise InputError(f"{path}: .unv has no cells of type {kind}: write .vtu")
        self._stream, self._record, self._number = stream, record, 0
        self._labels = mesh.labels
        with self._data_set(2411):
            rows = f"%10d{1:10}{1:10}{11:10}\n" + 3 * "%25.16E" + "\n"
            write_rows(stream, rows, self._labels, in_columns(mesh.points))
        with self._data_set(2412):
            self._write_cells(mesh)

    @contextmanager
    def _data_set(self, number: int) -> Iterator[None]:
        self._stream.write(f"{-1:6}\n{number:6}\n")
        yield
        self._stream.write(f"{-1:6}\n")

    def _write_cells(self, mesh: Mesh) -> None:
        label = 1
        for kind, block in mesh.cells:
            if kind == "vertex":
                continue
            descriptor, order = TYPES[kind]
            line = f"%10d{descriptor:10}{1:10}{1:10}{7:10}{len(order):10}\n"
            line += f"{0:10}{1:10}{1:10}\n" if descriptor in _BEAMS else ""
            for first in range(0, len(order), 8):
                line += "%10d" * len(order[first : first + 8]) + "\n"
            labels = np.arange(label, label + len(block))
            label += len(block)
            write_rows(self._stream, line, labels, mesh.labels[block[:, order]])

    def add(self, moved: np.ndarray, turned: np.ndarray | None, mass: float) -> None:
        """Write the next mode. Not collective."""
        number, record = self._number, self._record
        self._number += 1
        wide = 3 if turned is None else 6
        residual = f"backward error {record.numbers['residual'][number]:.1e}"
        ids = [record.names[number], record.told, residual, "NONE", "NONE"]
        if record.hertz is None and not record.buckling:
            raise InputError("modes of a universal file have frequencies in Hz, and none are known")
        if record.buckling:
            kind, words, numbers = 6, [1, 1, 1], [record.values[number]]
        elif record.complex:
            value = record.values[number]
            ids[3] = "complex modes: modal A and B are not computed, and zero here"
            kind, words, numbers = 3, [2, 6, 1, number + 1], [value.real, value.imag, 0.0, 0.0, 0.0, 0.0]
        else:
            assert record.hertz is not None
            kind, words, numbers = 2, [2, 4, 1, number + 1], [record.hertz[number], mass, 0.0, 0.0]
        head = (1, kind, 2 if wide == 3 else 3, 8, 5 if record.complex else 2, wide)
        with self._data_set(55):
            self._stream.write("".join(f"{line[:80]}\n" for line in ids))
            for row in (head, words):
                self._stream.write("".join(f"{word:10}" for word in row) + "\n")
            self._stream.write("".join(f"{value:13.5E}" for value in in_columns(np.array(numbers))) + "\n")
            values = moved if turned is None else np.hstack([moved, turned])
            lines = wide * "%13.5E" + "\n"
            if record.complex:  # real and imaginary part of each value in turn, six numbers a line
                values = np.ascontiguousarray(values).view(np.float64)
                lines = wide // 3 * (6 * "%13.5E" + "\n")
            write_rows(self._stream, "%10d\n" + lines, self._labels, in_columns(values))


@contextmanager
def open_universal(path: Path, mesh: Mesh, record: ModeRecord) -> Iterator[_UniversalWriter]:
    """Yield the writer of a .unv file, which appears whole at the end. Not collective."""
    with write_file(path) as beside, open(beside, "w", encoding="ascii", errors="replace") as stream:
        yield _UniversalWriter(stream, path, mesh, record)
