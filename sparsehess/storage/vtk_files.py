"""Modes on meshes in the files of VTK: .vtu (XML), .vtk (legacy), and .pvd, a list of .vtu files.

meshio writes such files, but without what is told of a whole file, and with all modes in memory at once. Here one
mode is held at a time. Formats: VTK User's Guide, "VTK File Formats"; version 5.1 of the legacy one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from xml.sax.saxutils import quoteattr

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.atomic_files import explain_write_errors, write_file
from sparsehess.storage.meshes import Mesh
from sparsehess.storage.mode_records import ModeRecord

# Numbers of VTK's types of cells by meshio's names, whose order of nodes is VTK's.
TYPES = {
    "vertex": 1,
    "line": 3,
    "triangle": 5,
    "polygon": 7,
    "quad": 9,
    "tetra": 10,
    "hexahedron": 12,
    "wedge": 13,
    "pyramid": 14,
    "line3": 21,
    "triangle6": 22,
    "quad8": 23,
    "tetra10": 24,
    "hexahedron20": 25,
    "wedge15": 26,
    "pyramid13": 27,
    "quad9": 28,
    "hexahedron27": 29,
    "wedge18": 32,
    "triangle7": 34,
    "line4": 35,
}


@dataclass(frozen=True)
class _Topology:
    """Cells as VTK has them: all their nodes, where each cell ends among them, and types."""

    nodes: np.ndarray
    ends: np.ndarray
    types: np.ndarray


def _topology(path: Path, mesh: Mesh) -> _Topology:
    nodes, sizes, types = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    for kind, block in mesh.cells:
        name = "polygon" if kind.startswith("polygon") else kind
        if name not in TYPES:
            raise InputError(f"{path}: the mesh has cells of type {kind}, which are not written: give linear ones")
        nodes.append(block.ravel())
        sizes.append(np.full(len(block), block.shape[1]))
        types.append(np.full(len(block), TYPES[name], np.uint8))
    return _Topology(np.concatenate(nodes), np.cumsum(np.concatenate(sizes)), np.concatenate(types))


class _VtuWriter:
    """Writes modes behind the head of a .vtu file, which tells where each will be."""

    def __init__(self, stream: IO[bytes], path: Path, mesh: Mesh, record: ModeRecord):
        cells = _topology(path, mesh)
        self._stream, self._record, offset = stream, record, 0
        fixed = {"Points": mesh.points, "connectivity": cells.nodes, "offsets": cells.ends, "types": cells.types}
        tags = {}
        for name, array in fixed.items():
            tags[name] = _data_array(name, array.dtype, 3 if name == "Points" else 1, offset)
            offset += 8 + array.nbytes
        vectors = []
        for name in record.fields:
            vectors.append(_data_array(name, mesh.points.dtype, 3, offset))
            offset += 8 + mesh.points.nbytes
        order = "LittleEndian" if sys.byteorder == "little" else "BigEndian"
        first = f" Vectors={quoteattr(record.fields[0])}" if record.names else ""
        lines = [
            '<?xml version="1.0"?>',
            f"<!-- sparsehess: {record.told.replace('--', '- -')} -->",
            f'<VTKFile type="UnstructuredGrid" version="1.0" byte_order="{order}" header_type="UInt64">',
            "<UnstructuredGrid>",
            *_field_data(record),
            f'<Piece NumberOfPoints="{len(mesh.points)}" NumberOfCells="{len(cells.types)}">',
            f"<PointData{first}>",
            *vectors,
            "</PointData>",
            f"<Points>{tags['Points']}</Points>",
            "<Cells>",
            *(tags[name] for name in ("connectivity", "offsets", "types")),
            "</Cells>",
            "</Piece>",
            "</UnstructuredGrid>",
            '<AppendedData encoding="raw">',
        ]
        self._stream.write(("\n".join(lines) + "\n_").encode())
        for array in fixed.values():
            self._write(array)

    def add(self, moved: np.ndarray, turned: np.ndarray | None, mass: float) -> None:
        """Write the next mode. Not collective."""
        for values in self._record.arrays(moved, turned):
            self._write(values)

    def _write(self, array: np.ndarray) -> None:
        self._stream.write(np.uint64(array.nbytes).tobytes())
        self._stream.write(np.ascontiguousarray(array).data)

    def end(self) -> None:
        """Write what stands behind the last mode. Not collective."""
        self._stream.write(b"\n</AppendedData>\n</VTKFile>\n")


def _data_array(name: str, dtype: np.dtype, components: int, offset: int) -> str:
    kind = {"f": "Float", "i": "Int", "u": "UInt"}[dtype.kind] + str(8 * dtype.itemsize)
    return (
        f'<DataArray type="{kind}" Name={quoteattr(name)} NumberOfComponents="{components}" format="appended" '
        f'offset="{offset}"/>'
    )


def _field_data(record: ModeRecord) -> Iterator[str]:
    """Yield the lines of what is told of the whole file."""
    yield "<FieldData>"
    for name, values in record.numbers.items():
        numbers = " ".join(f"{value:.17g}" for value in values)
        yield (
            f'<DataArray type="Float64" Name={quoteattr(name)} NumberOfTuples="{len(values)}" format="ascii">'
            f"{numbers}</DataArray>"
        )
    yield "</FieldData>"


@contextmanager
def open_vtu(path: Path, mesh: Mesh, record: ModeRecord) -> Iterator[_VtuWriter]:
    """Yield the writer of a .vtu file, which appears whole at the end. Not collective."""
    with write_file(path) as beside, open(beside, "wb") as stream:
        writer = _VtuWriter(stream, path, mesh, record)
        yield writer
        writer.end()


class _PvdWriter:
    """Writes each mode into a .vtu file of its own, in a folder of the name of the list."""

    def __init__(self, path: Path, mesh: Mesh, record: ModeRecord):
        self._path, self._mesh, self._record, self._number = path, mesh, record, 0
        self._folder = path.with_suffix("")
        with explain_write_errors(self._folder):
            self._folder.mkdir(exist_ok=True)

    def names(self) -> list[str]:
        """Return the names of the files, seen from the list. Not collective."""
        digits = len(str(len(self._record.names)))
        stem = self._folder.name
        return [f"{stem}/{stem}_{number:0{digits}}.vtu" for number in range(1, len(self._record.names) + 1)]

    def add(self, moved: np.ndarray, turned: np.ndarray | None, mass: float) -> None:
        """Write the next mode. Not collective."""
        record = self._record.one(self._number)
        path = self._path.parent / self.names()[self._number]
        self._number += 1
        # One name for all: steps of time show one array.
        with open_vtu(path, self._mesh, _as_displacement(record)) as writer:
            writer.add(moved, turned, mass)


def _as_displacement(record: ModeRecord) -> ModeRecord:
    return replace(record, names=("displacement",) * len(record.names), told=f"{record.names[0]}: {record.told}")


@contextmanager
def open_pvd(path: Path, mesh: Mesh, record: ModeRecord) -> Iterator[_PvdWriter]:
    """Yield the writer of a .pvd file and its .vtu files: a mode is a step of time. Not collective."""
    _topology(path, mesh)
    writer = _PvdWriter(path, mesh, record)
    yield writer
    rows = [
        f'<DataSet timestep="{number}" group="" part="0" name={quoteattr(mode)} file={quoteattr(name)}/>'
        for number, (mode, name) in enumerate(zip(record.names, writer.names(), strict=True), 1)
    ]
    head = ['<?xml version="1.0"?>', '<VTKFile type="Collection" version="0.1">', "<Collection>"]
    with write_file(path) as beside:
        beside.write_text("\n".join([*head, *rows, "</Collection>", "</VTKFile>", ""]))


class _LegacyWriter:
    """Writes modes into a legacy file, whose numbers are big-endian."""

    def __init__(self, stream: IO[bytes], path: Path, mesh: Mesh, record: ModeRecord):
        cells = _topology(path, mesh)
        self._stream, self._points, self._names = stream, len(mesh.points), iter(record.fields)
        self._record = record
        title = f"{record.told}"[:250]
        stream.write(f"# vtk DataFile Version 5.1\n{title}\nBINARY\nDATASET UNSTRUCTURED_GRID\n".encode())
        self._line(f"FIELD FieldData {len(record.numbers)}")
        for name, values in record.numbers.items():
            self._block(f"{name} 1 {len(values)} double", values, ">f8")
        self._block(f"POINTS {len(mesh.points)} double", mesh.points, ">f8")
        self._line(f"CELLS {len(cells.types) + 1} {len(cells.nodes)}")
        self._block("OFFSETS vtktypeint64", np.concatenate([[0], cells.ends]), ">i8")
        self._block("CONNECTIVITY vtktypeint64", cells.nodes, ">i8")
        self._block(f"CELL_TYPES {len(cells.types)}", cells.types, ">i4")
        self._line(f"POINT_DATA {len(mesh.points)}\nFIELD FieldData {len(record.fields)}")

    def add(self, moved: np.ndarray, turned: np.ndarray | None, mass: float) -> None:
        """Write the next mode. Not collective."""
        for values in self._record.arrays(moved, turned):
            self._block(f"{next(self._names)} 3 {self._points} double", values, ">f8")

    def _line(self, text: str) -> None:
        self._stream.write(f"{text}\n".encode())

    def _block(self, head: str, values: np.ndarray, dtype: str) -> None:
        self._line(head)
        self._stream.write(np.ascontiguousarray(values, dtype).data)
        self._stream.write(b"\n")


@contextmanager
def open_legacy(path: Path, mesh: Mesh, record: ModeRecord) -> Iterator[_LegacyWriter]:
    """Yield the writer of a legacy .vtk file, which appears whole at the end. Not collective."""
    with write_file(path) as beside, open(beside, "wb") as stream:
        yield _LegacyWriter(stream, path, mesh, record)
