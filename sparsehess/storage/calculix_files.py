"""Modes on meshes in result files of CalculiX (.frd), as text.

Format: CalculiX GraphiX manual, "Result format", long form; a mode is written as the solver writes one. Numbers
have six digits there.
"""

from __future__ import annotations

import math
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

# Numbers of elements by meshio's types of cells, and the nodes in their order: of bricks and wedges the middles of
# upright sides come before those above. Middles of faces and volumes are left out, pyramids are bricks whose upper
# corners are one.
_BRICK = [*range(12), *range(16, 20), *range(12, 16)]
_WEDGE = [*range(9), *range(12, 15), *range(9, 12)]
_PYRAMID = [0, 1, 2, 3, 4, 4, 4, 4]
TYPES: dict[str, tuple[int, list[int]]] = {
    "hexahedron": (1, list(range(8))),
    "pyramid": (1, _PYRAMID),
    "pyramid13": (1, _PYRAMID),
    "wedge": (2, list(range(6))),
    "tetra": (3, list(range(4))),
    "hexahedron20": (4, _BRICK),
    "hexahedron27": (4, _BRICK),
    "wedge15": (5, _WEDGE),
    "wedge18": (5, _WEDGE),
    "tetra10": (6, list(range(10))),
    "triangle": (7, list(range(3))),
    "triangle6": (8, list(range(6))),
    "triangle7": (8, list(range(6))),
    "quad": (9, list(range(4))),
    "quad8": (10, list(range(8))),
    "quad9": (10, list(range(8))),
    "line": (11, [0, 1]),
    "line3": (12, [0, 1, 2]),
}

_END = " -3\n"


class _FrdWriter:
    """Writes modes behind the mesh of an .frd file."""

    def __init__(self, stream: IO[str], path: Path, mesh: Mesh, record: ModeRecord):
        for kind, _ in mesh.cells:
            if kind not in TYPES and kind != "vertex":
                raise InputError(f"{path}: .frd has no cells of type {kind}: write .vtu")
        self._stream, self._record, self._number = stream, record, 0
        self._labels = mesh.labels
        count = sum(len(block) for kind, block in mesh.cells if kind != "vertex")
        stream.write(f"    1C\n    1UPGM               sparsehess\n    1U{record.told[:60]}\n")
        stream.write(f"    2C{'':18}{len(mesh.points):12}{1:38}\n")
        self._write_nodes(mesh.points)
        stream.write(f"    3C{'':18}{count:12}{1:38}\n")
        self._write_cells(mesh)
        stream.write(_END)

    def _write_nodes(self, values: np.ndarray) -> None:
        """Write a line for each node with three numbers."""
        write_rows(self._stream, " -1%10d%12.5E%12.5E%12.5E\n", self._labels, in_columns(values))
        self._stream.write(_END)

    def _write_cells(self, mesh: Mesh) -> None:
        label = 1
        for kind, block in mesh.cells:
            if kind == "vertex":
                continue
            number, order = TYPES[kind]
            line = f" -1%10d{number:5}{0:5}{1:5}\n"
            for first in range(0, len(order), 10):
                line += " -2" + "%10d" * len(order[first : first + 10]) + "\n"
            labels = np.arange(label, label + len(block))
            label += len(block)
            write_rows(self._stream, line, labels, mesh.labels[block[:, order]])

    def add(self, moved: np.ndarray, turned: np.ndarray | None, mass: float) -> None:
        """Write the next mode. Not collective."""
        for name, values in (("DISP", moved), ("ROT", turned)):
            if values is not None:
                self._head(name, mass)
                self._write_nodes(values)
        self._number += 1

    def _head(self, name: str, mass: float) -> None:
        """Write what stands before the numbers of a mode."""
        record, number = self._record, self._number + 1
        if record.buckling:
            value, kind, analysis = record.values[number - 1], 4, ""
        else:
            if record.hertz is None:
                raise InputError("modes of an .frd file have frequencies in Hz, and none are known")
            value, kind, analysis = record.hertz[number - 1], 2, "MODAL"
        lines = [f"    1PSTEP{'':14}{number:12}{number:12}{1:12}"]
        if not record.buckling:
            stiffness = mass * math.copysign((2 * math.pi * value) ** 2, value)
            lines += [
                f"    1PGM{'':16}{_in_twelve(mass)}",
                f"    1PGK{'':16}{_in_twelve(stiffness)}",
                f"    1PHID{'':15}{-1:12}",
                f"    1PSUBC{'':14}{0:12}",
                f"    1PMODE{'':14}{number:12}",
            ]
        lines.append(
            f"  100CL{100 + number:5}{_in_twelve(value)}{len(self._labels):12}{'':20}{kind:2}{number:5}"
            f"{analysis:<10}{1:2}"
        )
        letter = "D" if name == "DISP" else "R"
        lines.append(f" -4  {name:<8}{4:5}{1:5}")
        lines += [f" -5  {letter}{axis:<7}{1:5}{2:5}{axis:5}{0:5}" for axis in (1, 2, 3)]
        lines.append(f" -5  {'ALL':<8}{1:5}{2:5}{0:5}{0:5}{1:5}ALL")
        self._stream.write("\n".join(lines) + "\n")


def _in_twelve(value: float) -> str:
    """Return a number with as many digits as twelve columns have room for, the first of them blank.

    FreeCAD reads from the second one.
    """
    return next(text.rjust(12) for digits in range(10, 3, -1) if len(text := f"{value:#.{digits}g}") < 12)


@contextmanager
def open_frd(path: Path, mesh: Mesh, record: ModeRecord) -> Iterator[_FrdWriter]:
    """Yield the writer of an .frd file, which appears whole at the end. Not collective."""
    with write_file(path) as beside, open(beside, "w", encoding="ascii", errors="replace") as stream:
        yield _FrdWriter(stream, path, mesh, record)
        stream.write(" 9999\n")
