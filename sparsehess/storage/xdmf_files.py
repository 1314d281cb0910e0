"""Modes on meshes in XDMF: a list of steps in XML, their numbers in an HDF5 file beside it, NAME.xdmf.h5.

Not by meshio, whose steps refer to each other by XPointer, which not all readers follow, and whose file of numbers
would have the name of a result. Format: xdmf.org, "XDMF Model and Format"; numbers of cells of mixed topologies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.atomic_files import explain_write_errors, write_file
from sparsehess.storage.hdf5 import create_hdf5
from sparsehess.storage.meshes import Mesh
from sparsehess.storage.mode_records import ModeRecord

# Numbers of types of cells by meshio's names; behind that of a vertex or a line stands how many nodes follow.
TYPES = {
    "vertex": (1, 1),
    "line": (2, 2),
    "triangle": (4,),
    "quad": (5,),
    "tetra": (6,),
    "pyramid": (7,),
    "wedge": (8,),
    "hexahedron": (9,),
    "line3": (34,),
    "quad9": (35,),
    "triangle6": (36,),
    "quad8": (37,),
    "tetra10": (38,),
    "pyramid13": (39,),
    "wedge15": (40,),
    "wedge18": (41,),
    "hexahedron20": (48,),
    "hexahedron27": (50,),
}


class _XdmfWriter:
    """Writes modes into an HDF5 file, and keeps the lines that refer to them."""

    def __init__(self, file: Any, path: Path, mesh: Mesh, record: ModeRecord):
        self._file, self._path, self._record = file, path, record
        self._where = escape(f"{path.name}.h5")
        self._steps: list[str] = []
        parts = [np.empty(0, np.int64)]
        for kind, nodes in mesh.cells:
            if kind not in TYPES:
                raise InputError(f"{path}: .xdmf has no cells of type {kind}: write .vtu")
            heads = np.tile(np.array(TYPES[kind], np.int64), (len(nodes), 1))
            parts.append(np.hstack([heads, nodes]).ravel())
        count = sum(len(nodes) for _, nodes in mesh.cells)
        self._grid = [
            f'<Topology TopologyType="Mixed" NumberOfElements="{count}">',
            self._item("topology", np.concatenate(parts)),
            "</Topology>",
            '<Geometry GeometryType="XYZ">',
            self._item("points", mesh.points),
            "</Geometry>",
        ]

    def _item(self, name: str, array: np.ndarray) -> str:
        """Write an array, and return what refers to it."""
        with explain_write_errors(self._path):
            self._file[name] = array
        shape = " ".join(map(str, array.shape))
        kind = "Float" if array.dtype.kind == "f" else "Int"
        return (
            f'<DataItem Dimensions="{shape}" NumberType="{kind}" Precision="8" Format="HDF">'
            f"{self._where}:/{name}</DataItem>"
        )

    def add(self, moved: np.ndarray, turned: np.ndarray | None, mass: float) -> None:
        """Write the next mode. Not collective."""
        number = len(self._steps)
        name = self._record.names[number]
        lines = [f'<Grid Name={quoteattr(name)} GridType="Uniform">', f'<Time Value="{number + 1}"/>']
        for what, values in self._record.numbers.items():
            lines.append(f'<Information Name={quoteattr(what)} Value="{values[number]:.17g}"/>')
        lines += self._grid
        for what, array in (("displacement", moved), ("rotation", turned)):
            for part, values in () if array is None else self._record.parts_of(array):
                item = self._item(f"{what}{part}_{number + 1}", values)
                head = f'<Attribute Name="{what}{part}" AttributeType="Vector" Center="Node">'
                lines.append(f"{head}{item}</Attribute>")
        self._steps.append("\n".join([*lines, "</Grid>"]))

    def text(self) -> str:
        """Return the XML. Not collective."""
        told = quoteattr(self._record.told)
        return "\n".join(
            [
                '<?xml version="1.0"?>',
                '<Xdmf Version="3.0">',
                "<Domain>",
                f'<Information Name="sparsehess" Value={told}/>',
                '<Grid Name="modes" GridType="Collection" CollectionType="Temporal">',
                *self._steps,
                "</Grid>",
                "</Domain>",
                "</Xdmf>",
                "",
            ]
        )


@contextmanager
def open_xdmf(path: Path, mesh: Mesh, record: ModeRecord) -> Iterator[_XdmfWriter]:
    """Yield the writer of an .xdmf file: a mode is a step of time. Not collective.

    First the numbers appear, then the file that refers to them.
    """
    with write_file(path) as beside:
        with write_file(path.with_name(f"{path.name}.h5")) as numbers, create_hdf5(numbers) as file:
            writer = _XdmfWriter(file, path, mesh, record)
            yield writer
        beside.write_text(writer.text())
