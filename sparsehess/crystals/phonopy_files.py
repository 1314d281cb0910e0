"""Force constants, cells and Born charges from phonopy's files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess.crystals.cells import Crystal, Images
from sparsehess.crystals.force_constants import ForceConstants
from sparsehess.crystals.polar import COULOMB, Polar
from sparsehess.derivatives.units import Units
from sparsehess.errors import InputError, no_such_file, words_of
from sparsehess.runtime import communicator, on_root, optional
from sparsehess.runtime.validation import positive_number
from sparsehess.storage.hdf5 import open_hdf5, read_array
from sparsehess.storage.memory_claims import require_memory

# Words of phonopy for units, in ours.
_WORDS = {"angstrom": "angstrom", "au": "bohr", "bohr": "bohr", "ry": "Ry", "hartree": "hartree", "ev": "eV"}

# Force constants and lengths by what made the forces (manual of phonopy, "Interfaces to calculators"), where the
# file names no unit of force constants: phonopy does so beside force constants alone.
_MADE_BY = {
    "eV/angstrom^2 angstrom": ("", "vasp", "aims", "lammps", "pwmat", "crystal", "castep"),
    "eV/angstrom.au au": ("abinit", "siesta", "abacus"),
    "Ry/au^2 au": ("qe", "qlm"),
    "mRy/au^2 au": ("wien2k",),
    "hartree/au^2 au": ("elk", "dftbp", "turbomole", "fleur", "exciting", "octopus"),
    "hartree/angstrom.au angstrom": ("cp2k",),
}
_UNITS_OF = {name: units.split() for units, names in _MADE_BY.items() for name in names}

# Numbers of each pair, the bytes that they take at least, and those that a first line takes at most.
_NUMBERS, _LEAST, _LINE = 11, 22, 1000

# Units of length to which phonopy seeks symmetry where its file names none.
_SYMMETRIC = 1e-5

_WRITE = "write force constants by `phonopy --writefc`, or by Phonopy.save(settings={'force_constants': True})"


def read_force_constants(
    path: str | os.PathLike[str],
    cell: str | os.PathLike[str] | None = None,
    *,
    born: str | os.PathLike[str] | None = None,
    comm: MPI.Comm | None = None,
) -> ForceConstants:
    """Return force constants from files of phonopy's.

    Collective on `comm`; the first rank reads.

    Parameters
    ----------
    path
        `FORCE_CONSTANTS` (of all atoms of the supercell or of those of the primitive cell),
        `force_constants.hdf5`, a `phonopy_params.yaml` that has force constants itself, or `FORCE_SETS`: of these
        forces phonopy, which must be installed, makes force constants by the symmetry of the crystal, sought to
        the `symmetry_tolerance` that the file of the cells names.
    cell
        `phonopy_params.yaml`, `phonopy_disp.yaml` or `phonopy.yaml`, for the cells, their units, and Born charges;
        default `path` itself.
    born
        `BORN`, for Born charges and dielectric constant instead. Where it names fewer atoms than the primitive
        cell has, phonopy must be installed to find the others by symmetry.
    comm
        Of all ranks that get them.

    Returns
    -------
    ForceConstants
        In eV/Å², with cells in Å, the same on every rank.

    Raises
    ------
    InputError
        No such file, or not what it should be; it says what to write.
    StackError
        PyYAML, h5py or phonopy is needed, and not installed.

    Examples
    --------
    A chain of two atoms in the supercell, with springs along x between them:

    >>> import json, os, tempfile  # of which YAML is more
    >>> import sparsehess as sh
    >>> atom = {"symbol": "H", "mass": 1.0, "coordinates": [0, 0, 0], "reduced_to": 1}
    >>> other = {**atom, "coordinates": [0.5, 0, 0]}
    >>> still = [[0, 0, 0], [0, 0, 0]]
    >>> cells = {
    ...     "primitive_cell": {"lattice": [[2, 0, 0], [0, 9, 0], [0, 0, 9]], "points": [atom]},
    ...     "supercell": {"lattice": [[4, 0, 0], [0, 9, 0], [0, 0, 9]], "points": [atom, other]},
    ...     "force_constants": {"shape": [1, 2], "elements": [[[2, 0, 0], *still], [[-2, 0, 0], *still]]},
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "phonopy_params.yaml")
    ...     with open(path, "w") as file:
    ...         json.dump(cells, file)
    ...     constants = sh.read_force_constants(path)
    >>> constants
    <ForceConstants: H, 2 cells, 2 pairs>
    """
    return on_root(communicator(comm), _read, os.fspath(path), cell, born)


def _read(path: str, cell: str | os.PathLike[str] | None, born: str | os.PathLike[str] | None) -> ForceConstants:
    beside = path if cell is None else os.fspath(cell)
    for one in (path, beside, born):
        if one is not None and not os.path.isfile(one):
            raise no_such_file(one)
    if cell is None and not path.endswith((".yaml", ".yml")):
        raise InputError(
            f"{path}: the cells are in another file: give phonopy_params.yaml too, or phonopy_disp.yaml"
        )
    facts = _yaml(beside)
    primitive, supercell, reduced = _cells(facts, beside)
    given, rows = _values(path, beside, facts, len(primitive), len(supercell))
    whole = Images.found(primitive, supercell)
    if rows is None and len(given) == len(primitive) < len(supercell):
        if len(set(whole.of[reduced].tolist())) < len(primitive) or len(reduced) != len(primitive):
            raise InputError(
                f"{beside}: `reduced_to` of the atoms of the supercell names {len(reduced)} atoms, the primitive "
                f"cell has {len(primitive)}: it tells which rows a compact file has"
            )
        rows = reduced[np.argsort(whole.of[reduced], kind="stable")]
    if rows is not None and len(rows) == len(primitive):
        if rows.min() < 0 or rows.max() >= len(supercell) or len(set(whole.of[rows])) < len(rows):
            raise InputError(f"{path}: its rows are not those of the atoms of one primitive cell of {beside}")
        masses, symbols = primitive.masses[whole.of[rows]], tuple(primitive.symbols[one] for one in whole.of[rows])
        order = whole.of[rows]
        primitive = Crystal(primitive.lattice, supercell.positions[rows], masses, symbols)
    else:
        order = np.arange(len(primitive))
    factor, length = _units(facts, beside, path)
    primitive, supercell = _in_angstrom(primitive, length), _in_angstrom(supercell, length)
    polar = _polar(facts, beside, len(order), factor * length**3)
    if born is not None:
        tolerance = _symmetry_tolerance(facts, beside)
        polar = _born(os.fspath(born), beside, len(order), factor * length**3, tolerance)
    if polar is not None:
        polar = replace(polar, charges=polar.charges[order])
    return ForceConstants.of(factor * given, primitive, supercell, polar=polar, name=os.path.basename(path))


def _yaml(path: str) -> dict[str, Any]:
    """Return what a file of phonopy's says."""
    yaml: Any = optional("yaml", "phonopy's .yaml", "phonons")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = Path(path).read_text(encoding="utf-8")
        # A few of them stand for more than any memory holds.
        if "&" in text and any(getattr(event, "anchor", None) for event in yaml.parse(text, loader)):
            raise InputError(f"{path} repeats parts by anchors, as phonopy does not: write it out")
        facts = yaml.load(text, loader)  # of plain values alone
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no YAML: {words_of(error)}") from error
    if not isinstance(facts, dict):
        raise InputError(f"{path} is none of phonopy's .yaml files: give phonopy_params.yaml or phonopy_disp.yaml")
    return facts


def _cells(facts: dict[str, Any], path: str) -> tuple[Crystal, Crystal, np.ndarray]:
    """Return the primitive cell, the supercell, and atoms of the supercell that stand for those of the former."""
    found = []
    for name in ("primitive_cell", "supercell"):
        if name not in facts:
            raise InputError(
                f"{path} has no {name}: give the phonopy_params.yaml or phonopy_disp.yaml of the supercell"
            )
        try:
            cell, points = facts[name], facts[name]["points"]
            lattice = np.array(cell["lattice"], float)
            places = np.array([one["coordinates"] for one in points], float) @ lattice
            masses = np.array([one["mass"] for one in points], float)
            found.append(Crystal(lattice, places, masses, tuple(one["symbol"] for one in points)))
        except InputError as error:
            raise InputError(f"{path}: {name}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: {name} has no lattice and points as phonopy writes them: {words_of(error)}"
            ) from error
    reduced = [one.get("reduced_to") for one in facts["supercell"]["points"]]
    named = {one - 1 for one in reduced if isinstance(one, int) and 0 < one <= len(reduced)}
    return found[0], found[1], np.array(sorted(named), np.int64)


def _values(
    path: str, beside: str, facts: dict[str, Any], primitive: int, supercell: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (rows, supercell, 3, 3) in the file's units, and the atoms of the rows, where it says."""
    readers: dict[str, Callable[[str], tuple[np.ndarray, np.ndarray | None]]] = {
        ".hdf5": _from_hdf5,
        ".h5": _from_hdf5,
        ".yaml": lambda name: _from_yaml(name, facts if name == beside else _yaml(name)),
        ".yml": lambda name: _from_yaml(name, facts if name == beside else _yaml(name)),
    }
    reader = readers.get(os.path.splitext(path)[1])
    if reader is not None:
        values, rows = reader(path)
    elif "FORCE_SETS" in os.path.basename(path):
        values, rows = _from_sets(path, beside, _symmetry_tolerance(facts, beside))
    else:
        values, rows = _from_text(path)
    if values.shape not in ((primitive, supercell, 3, 3), (supercell, supercell, 3, 3)):
        raise InputError(
            f"{path} has force constants {values.shape}; the cells of {beside} have {primitive} and {supercell} "
            "atoms"
        )
    return values, rows if len(values) < supercell else None


def _from_text(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks of a FORCE_CONSTANTS, and the atoms of its rows."""
    form = "is no FORCE_CONSTANTS: first two numbers of atoms, then of each pair a line `i j` and three of entries"
    with open(path, encoding="utf-8", errors="replace") as file:
        try:
            sizes = [int(one) for one in file.readline(_LINE).split()]
            if len(sizes) not in (1, 2) or min(sizes) < 1:
                raise InputError(f"{path} {form}")
            rows, columns = sizes[0], sizes[-1]
            if rows * columns * _LEAST > os.path.getsize(path):
                raise InputError(f"{path} is cut off: {rows} x {columns} pairs of atoms need more bytes")
            require_memory(path, "its force constants", 16 * rows * columns * _NUMBERS)
            table = np.empty((rows, columns, _NUMBERS))
            for row in range(rows):  # a row of text at a time
                words = "".join(itertools.islice(file, 4 * columns)).split()
                if len(words) != columns * _NUMBERS:
                    raise InputError(f"{path} is cut off in row {row + 1}, or {form}")
                table[row] = np.array(words, dtype=np.float64).reshape(columns, _NUMBERS)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{path} {form}: {words_of(error)}") from error
    if (table[:, :, 0] != table[:, :1, 0]).any() or (table[:, :, 1] != np.arange(1, columns + 1)).any():
        raise InputError(f"{path}: pairs of atoms are not in order, row by row, from 1")
    return table[:, :, 2:].reshape(rows, columns, 3, 3), table[:, 0, 0].astype(np.int64) - 1


def _from_hdf5(path: str) -> tuple[np.ndarray, np.ndarray | None]:
    with open_hdf5(path) as file:
        name = next((one for one in ("force_constants", "fc2") if one in file), None)
        if name is None:
            raise InputError(f"{path} has no force_constants: {_WRITE}")
        values = read_array(Path(path), file[name])
        rows = read_array(Path(path), file["p2s_map"]).astype(np.int64) if "p2s_map" in file else None
    return values, rows


def _from_yaml(path: str, facts: dict[str, Any]) -> tuple[np.ndarray, None]:
    if "force_constants" not in facts:
        raise InputError(
            f"{path} has no force constants: {_WRITE}; or give FORCE_SETS or FORCE_CONSTANTS beside it"
        )
    try:
        told = facts["force_constants"]
        shape = [int(one) for one in told["shape"]]
        return np.array(told["elements"], float).reshape(*shape, 3, 3), None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: force_constants are not as phonopy writes them: {words_of(error)}") from error


def _symmetry_tolerance(facts: dict[str, Any], beside: str) -> float:
    """Return to how many units of length the symmetry of a crystal is sought: as when displacements were made."""
    told = _table(facts, "phonopy", beside).get("symmetry_tolerance", _SYMMETRIC)
    try:
        return positive_number(float(told), "symmetry_tolerance")
    except (TypeError, ValueError, InputError) as error:
        raise InputError(f"{beside}: symmetry_tolerance {told!r} is no length above 0") from error


def _from_sets(path: str, beside: str, tolerance: float) -> tuple[np.ndarray, None]:
    """Return what phonopy makes of forces and the symmetry of the crystal."""
    try:
        phonopy: Any = optional("phonopy", "FORCE_SETS", "phonons")
    except Exception as error:
        raise type(error)(f"{error}; or {_WRITE}") from error
    try:
        made = phonopy.load(
            beside,
            force_sets_filename=path,
            is_nac=False,
            symmetrize_fc=False,
            is_compact_fc=False,
            symprec=tolerance,
            log_level=0,
        )
        return np.array(made.force_constants, float), None
    except Exception as error:  # whatever phonopy meets in files of another kind
        raise InputError(f"{path}: phonopy makes no force constants of it: {words_of(error)}") from error


def _units(facts: dict[str, Any], beside: str, path: str) -> tuple[float, float]:
    """Return what force constants are in eV/Å², and lengths in Å."""
    told = _table(facts, "physical_unit", beside)
    made = _table(facts, "phonopy", beside) or _table(facts, "phono3py", beside)
    made_by = str(made.get("calculator") or "").lower()
    stored, known = _stored_unit(path), _UNITS_OF.get(made_by, ["", ""])
    length = str(told.get("length") or known[1])
    constants = str(told.get("force_constants") or (known[0] if length == known[1] else stored))
    if not length or not constants:
        raise InputError(
            f"{beside} names no unit of force constants, and none is known of lengths in {length!r} and forces by "
            f"{made_by!r}: write force_constants under physical_unit, as 'Ry/au^2'"
        )
    factor, scale = _conversion(constants, length, beside)
    if stored and not np.isclose(_conversion(stored, length, path)[0], factor, rtol=1e-6):
        raise InputError(f"{path} has force constants in {stored}, and {beside} is of such in {constants}")
    return factor, scale


def _stored_unit(path: str) -> str:
    """Return the unit that an HDF5 file names itself, if any."""
    if not path.endswith((".hdf5", ".h5")):
        return ""
    with open_hdf5(path) as file:
        unit = np.ravel(file["physical_unit"][()])[0] if "physical_unit" in file else b""
    return (unit.decode() if isinstance(unit, bytes) else str(unit)).replace("Angstrom", "angstrom")


def _conversion(constants: str, length: str, path: str) -> tuple[float, float]:
    """Return what these units are in eV/Å² and in Å."""
    try:
        energy, _, areas = constants.lower().replace("^2", "").partition("/")
        each = [_angstroms(_WORDS[one]) for one in (areas.split(".") * 2)[:2]]  # as in eV/angstrom.au
        part, energy = (1e-3, energy[1:]) if energy.startswith("m") else (1.0, energy)
        volts = part * _electronvolts(_WORDS[energy])
        return volts / (each[0] * each[1]), _angstroms(_WORDS[length.lower()])
    except KeyError as error:
        raise InputError(
            f"{path}: force constants in {constants!r} and lengths in {length!r} are not known"
        ) from error


def _electronvolts(unit: str) -> float:
    """Return how many eV a unit of energy is."""
    return (Units.of(unit, "angstrom", "amu").factor / Units.of("eV", "angstrom", "amu").factor) ** 2


def _angstroms(unit: str) -> float:
    """Return how many Å a unit of length is."""
    return Units.of("eV", "angstrom", "amu").factor / Units.of("eV", unit, "amu").factor


def _in_angstrom(cell: Crystal, length: float) -> Crystal:
    return replace(cell, lattice=length * cell.lattice, positions=length * cell.positions)


def _polar(facts: dict[str, Any], path: str, atoms: int, unit: float) -> Polar | None:
    """Return the Born charges of a phonopy_params.yaml, if it has any."""
    told = _table(facts, "nac", path) or facts
    if "born_effective_charge" not in told or "dielectric_constant" not in told:
        return None
    coulomb = told.get("unit_conversion_factor", facts.get("nac_unit_conversion_factor"))
    try:
        charges = np.array(told["born_effective_charge"], float)
        dielectric = np.array(told["dielectric_constant"], float)
        own = COULOMB if coulomb is None else float(coulomb) * unit
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: charges are not as phonopy writes them: {words_of(error)}") from error
    if charges.shape != (atoms, 3, 3):
        raise InputError(f"{path}: Born charges {charges.shape} of {atoms} atoms in the primitive cell")
    return Polar(charges, dielectric, own)


def _table(facts: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    """Return a part of a file; empty where it is not there."""
    told = facts.get(name) or {}
    if not isinstance(told, dict):
        raise InputError(f"{path}: {name} is not as phonopy writes it")
    return told


def _born(path: str, beside: str, atoms: int, unit: float, tolerance: float) -> Polar:
    """Return the charges of a BORN, those of all atoms of the primitive cell."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in file if line.strip()]
    try:
        coulomb = unit * float(lines[0][0]) if lines and _is_number(lines[0][0]) else COULOMB
        table = np.array([[float(one) for one in line[:9]] for line in lines[1:]])
    except ValueError as error:
        raise InputError(f"{path} is no BORN of phonopy's: {words_of(error)}") from error
    if table.ndim != 2 or table.shape[1] != 9 or len(table) < 2:
        raise InputError(
            f"{path} is no BORN: after the first line, nine numbers of the dielectric constant, then of each atom"
        )
    if len(table) - 1 == atoms:
        return Polar(table[1:].reshape(-1, 3, 3), table[0].reshape(3, 3), coulomb)
    try:
        phonopy: Any = optional("phonopy", f"a BORN with {len(table) - 1} of {atoms} atoms", "phonons")
    except Exception as error:
        raise type(error)(f"{error}; or write the charges of all {atoms} atoms into it") from error
    try:
        made = phonopy.load(beside, born_filename=path, produce_fc=False, symprec=tolerance, log_level=0)
        made = made.nac_params
        return Polar(np.array(made["born"], float), np.array(made["dielectric"], float), coulomb)
    except Exception as error:  # whatever phonopy meets
        raise InputError(f"{path}: phonopy finds no charges of all atoms by it: {words_of(error)}") from error


def _is_number(word: str) -> bool:
    try:
        return float(word) > 0
    except ValueError:
        return False
