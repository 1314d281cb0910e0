"""Files of modes for viewers of molecules.

`.xyz` and `.extxyz`: extended XYZ, a frame for each mode, with displacements as the last three columns, which ASE,
OVITO and Jmol read. `.nmd`: NMWiz of VMD, as ProDy's manual has it ("NMD file format"). `.molden`: the sections
[FREQ], [FR-COORD] and [FR-NORM-COORD] of the Molden format (Schaftenaar and Noordik, J. Comput.-Aided Mol. Des.
14, 123, 2000). `.traj`: ASE's trajectory of a swing, one file a mode, `FILE_01.traj`, `FILE_02.traj`, ….
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import agreement
from sparsehess.runtime.validation import reals
from sparsehess.storage.atomic_files import refuse_unwritable, write_file

if TYPE_CHECKING:
    from ase import Atoms

SUFFIXES = (".xyz", ".extxyz", ".nmd", ".molden", ".traj")

# Pictures of a swing in a trajectory, and the bohr of CODATA 2018 in Å.
_PICTURES, _BOHR = 30, 0.529177210903


@dataclass(frozen=True)
class Shape:
    """A mode as files have it.

    Attributes
    ----------
    number
        From 0.
    frequency, error
        In `unit`; imaginary ones are negative.
    unit
        As `Units` names it.
    along
        (atoms, 3) displacements, of norm 1 over all atoms.
    reduced_mass
        In amu: the mass that has the mode's energy where it moves by 1 Å along that.
    """

    number: int
    frequency: float
    error: float
    unit: str
    along: np.ndarray
    reduced_mass: float

    @property
    def told(self) -> str:
        """The mode's number, from 1, and its frequency."""
        mark = "i" if self.frequency < 0 else ""
        return f"mode {self.number + 1}: {abs(self.frequency):.4f}{mark} {self.unit}"


@dataclass(frozen=True)
class Frequencies:
    """What modes are named by.

    Attributes
    ----------
    values, errors
        (k,) in `unit`; imaginary ones are negative.
    wavenumbers
        (k,) the same in cm⁻¹.
    unit
        As `Units` names it.
    """

    values: np.ndarray
    errors: np.ndarray
    wavenumbers: np.ndarray
    unit: str


def check_mode_file(path: str | os.PathLike[str], amplitude: float = 0.3) -> None:
    """Refuse a file of modes that could not be written.

    Not collective.

    Raises
    ------
    InputError
        Another suffix, a folder that cannot be written to, or an amplitude that is no length above zero.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: its name must end with one of {', '.join(SUFFIXES)}")
    refuse_unwritable(path)
    if not reals(amplitude, "amplitude") > 0:
        raise InputError(f"amplitude={amplitude} must be a length above 0, in Å")


def write_mode_files(
    path: str | os.PathLike[str],
    atoms: Atoms,
    frequencies: Frequencies,
    displacements: Callable[[int], np.ndarray],
    comm: MPI.Comm,
    amplitude: float = 0.3,
) -> None:
    """Write all modes of some atoms in the format that the suffix names, see the module.

    Collective; rank 0 writes, and holds one mode at a time.

    Parameters
    ----------
    displacements
        Collective: (atoms, 3) the displacements of a mode by its number, of norm 1 in the masses.
    amplitude
        Of the atom that moves most, in Å, in a trajectory.

    Raises
    ------
    InputError
        See `check_mode_file`; nothing is left of a file that could not be written.
    """
    path, bare = Path(path), atoms.copy()
    bare.set_constraint()
    with agreement(comm):
        check_mode_file(path, amplitude)
    with ExitStack() as stack:
        stream: IO[str] | None = None
        with agreement(comm):
            if comm.rank == 0 and path.suffix != ".traj":
                beside = stack.enter_context(write_file(path))
                stream = stack.enter_context(open(beside, "w", encoding="utf-8"))
                stream.writelines(_HEADS.get(path.suffix, _no_head)(path, bare, frequencies))
        for number in range(len(frequencies.values)):
            shape = _shape(number, frequencies, displacements(number))
            with agreement(comm):
                if comm.rank == 0:
                    if stream is None:
                        _write_trajectory(_numbered(path, number, len(frequencies.values)), bare, shape, amplitude)
                    else:
                        _BODIES[path.suffix](stream, bare, shape)
        with agreement(comm):
            stack.close()


def _shape(number: int, frequencies: Frequencies, found: np.ndarray) -> Shape:
    norm = float(np.linalg.norm(found))
    value, error = float(frequencies.values[number]), float(frequencies.errors[number])
    return Shape(number, value, error, frequencies.unit, found / norm, norm**-2)


def _no_head(path: Path, atoms: Atoms, frequencies: Frequencies) -> Iterator[str]:
    yield from ()


def _nmd_head(path: Path, atoms: Atoms, frequencies: Frequencies) -> Iterator[str]:
    """Yield what stands before the modes: names, and coordinates in Å."""
    many = len(atoms)
    yield f"name {path.stem.replace(' ', '_')}\n"
    yield f"atomnames {' '.join(atoms.get_chemical_symbols())}\n"
    yield f"resnames {' '.join(['MOL'] * many)}\n"
    yield f"resids {' '.join(['1'] * many)}\n"
    yield f"coordinates {_row(atoms.get_positions())}\n"


def _write_nmd(stream: IO[str], atoms: Atoms, shape: Shape) -> None:
    """Write a line of a mode: its number from 1, the factor of its arrows, its displacements."""
    stream.write(f"mode {shape.number + 1} {math.sqrt(len(atoms)):.6f} {_row(shape.along)}\n")


def _molden_head(path: Path, atoms: Atoms, frequencies: Frequencies) -> Iterator[str]:
    """Yield what stands before the displacements: atoms, all frequencies in cm⁻¹, coordinates in bohr."""
    yield "[Molden Format]\n[Title]\n"
    yield f"{atoms.get_chemical_formula()}\n[Atoms] Angs\n"
    symbols, numbers, positions = atoms.get_chemical_symbols(), atoms.get_atomic_numbers(), atoms.get_positions()
    for index, (symbol, number, place) in enumerate(zip(symbols, numbers, positions, strict=True), 1):
        yield f"{symbol} {index} {number} {_row(place)}\n"
    yield "[FREQ]\n"
    yield from (f"{value:.6f}\n" for value in frequencies.wavenumbers)
    yield "[FR-COORD]\n"
    yield from (f"{symbol} {_row(place / _BOHR)}\n" for symbol, place in zip(symbols, positions, strict=True))
    yield "[FR-NORM-COORD]\n"


def _write_molden(stream: IO[str], atoms: Atoms, shape: Shape) -> None:
    stream.write(f"vibration {shape.number + 1}\n")
    stream.writelines(f"{_row(arrow)}\n" for arrow in shape.along)


def _write_xyz(stream: IO[str], atoms: Atoms, shape: Shape) -> None:
    """Write a frame of extended XYZ: what the mode is in its second line, displacements behind positions."""
    from ase.io import write

    frame = atoms.copy()
    frame.arrays = {name: frame.arrays[name] for name in ("numbers", "positions")}
    frame.new_array("mode", shape.along)
    frame.info = {
        "mode_number": shape.number + 1,
        "frequency": shape.frequency,
        "frequency_error": shape.error,
        "frequency_unit": shape.unit,
        "imaginary": shape.frequency < 0,
        "reduced_mass_amu": shape.reduced_mass,
    }
    columns = ["symbols", "positions", "mode"]
    write(stream, frame, format="extxyz", columns=columns, parallel=False)  # else all ranks must call it


def _numbered(path: Path, number: int, many: int) -> Path:
    """Return the file of one mode, numbered from 1 in as many digits as the last one needs, two at least."""
    return path.with_name(f"{path.stem}_{number + 1:0{max(2, len(str(many)))}d}{path.suffix}")


def _write_trajectory(path: Path, atoms: Atoms, shape: Shape, amplitude: float) -> None:
    """Write one swing, from where the atoms are, the farthest by `amplitude` Å."""
    from ase.io.trajectory import TrajectoryWriter

    arrow = shape.along * (amplitude / np.linalg.norm(shape.along, axis=1).max())
    with write_file(path) as beside, TrajectoryWriter(beside, master=True) as trajectory:
        for turn in 2 * np.pi * np.arange(_PICTURES) / _PICTURES:
            frame = atoms.copy()
            frame.positions += math.sin(turn) * arrow
            frame.info["mode"] = shape.told
            trajectory.write(frame)


def _row(numbers: np.ndarray) -> str:
    return " ".join(f"{number:.8f}" for number in np.ravel(numbers))


_HEADS: dict[str, Callable[[Path, Atoms, Frequencies], Iterator[str]]] = {
    ".nmd": _nmd_head,
    ".molden": _molden_head,
}
_BODIES: dict[str, Callable[[IO[str], Atoms, Shape], None]] = {
    ".xyz": _write_xyz,
    ".extxyz": _write_xyz,
    ".nmd": _write_nmd,
    ".molden": _write_molden,
}
