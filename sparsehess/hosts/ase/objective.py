"""Objectives of ASE's atoms: forces of their calculators, patterns from neighbour lists, rigid motions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.geometry import Geometry
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.units import Units
from sparsehess.errors import EvaluationError, InputError, raised
from sparsehess.hosts.ase.boxes import HINT, is_alone, shifts_of_molecule
from sparsehess.hosts.ase.couplings import calculator_kind, extent_of, neighbor_pattern
from sparsehess.hosts.ase.own_hessians import MATRIX, OwnHessian, find_own
from sparsehess.hosts.ase.rigid_motions import RigidMotions, Surroundings, rigid_motions, turned
from sparsehess.hosts.ase.workplaces import Workplace, call_once, find_workplace
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement, communicator, on_root, optional

if TYPE_CHECKING:
    from ase import Atoms

UNITS = Units.of("eV", "angstrom", "amu", "cm^-1")

# Up to so many coordinates, all are taken for coupled where no cut-off is known.
ALL_COUPLED = 1000

_STEP = 1e-3  # Å, of each coordinate, where forces are differences of energies

_LENGTH = 0.3  # Å, over which forces change, in bonds and between rare gases: bars of rounded forces hold so
_SAME = 1e-3  # Å: atoms that are no farther apart are at one place


def from_atoms(
    atoms: Atoms,
    *,
    cutoff: float | None = None,
    reach: str | int | None = None,
    pattern: Pattern | str | None = None,
    project: bool = True,
    own: bool = True,
    molecule: bool = False,
    comm: MPI.Comm | None = None,
    **more: Any,
) -> Objective:
    """Return the objective of the potential energy of some atoms: x in Å, the Hessian in eV/Å², masses in amu.

    Collective on `comm`. The atoms stay where they are: a copy with the same calculator moves. Each rank evaluates
    its share of the forces by itself; of a calculator that has energies alone, differences of these are taken. One
    that has second derivatives itself, as `get_hessian(atoms)` (MACE, matscipy) or
    `hessian_vector_product(atoms, v)`, brings them as products: `assemble` compares them with differences of
    forces, along a direction of its own, and takes them.

    Parameters
    ----------
    atoms
        `ase.Atoms` with a calculator, the same on every rank. Coordinates held by `FixAtoms` and `FixCartesian`
        are removed; x has the others, atom by atom.
    cutoff
        Distance in Å past which no two atoms interact directly, numpy.inf if there is none. Default that of the
        calculator, where it is one of ASE's Lennard-Jones, Morse, EMT, EAM and Tersoff.
    reach
        `pair`; `many-body` where the energy of an atom depends on all within the cut-off of it, so that two of
        them are coupled; or a number of cut-offs: twice its layers for a network that passes messages. Default
        that of the calculator, and `many-body` beside a cut-off that is given. Of one with a `get_hessian`
        whose cut-off is not known, that matrix tells which coordinates are coupled.
    pattern
        Instead of these two a `Pattern` of the free coordinates, or `detect`: none is made here, for
        `assemble(..., pattern="detect")`.
    project
        Whether the rigid motions are projected out of eigenproblems, whatever forces are left: the translations,
        and the rotations that cell and constraints allow, see `rigid_motions`. Else the Hessian is left as it is.
    own
        Whether second derivatives are taken that the calculator has itself; else differences of its forces.
    molecule
        Whether atoms in a cell that repeats are a molecule in a box: its rotations are rigid motions too, and the
        calculator gets the atoms as they are. Refused where there is no vacuum around them.
    comm, more
        Other arguments of `Objective`; null vectors that are given stand in place of the rigid motions.

    Returns
    -------
    Objective
        Of the free coordinates, with pattern, masses, units and rigid motions. Its name says what forces are left.

    Raises
    ------
    InputError
        No atoms or two at one place, no calculator or one that only holds results, an atom without mass, a
        constraint of another kind, nothing left to move, no cut-off that is known, or forces that are not finite.
    StackError
        ASE is not installed.
    EvaluationError
        The calculator raised.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> import sparsehess as sh
    >>> objective = sh.from_atoms(molecule("N2", calculator=EMT()))
    >>> objective.n, objective.pattern.nnz, objective.null_names[:2]
    (6, 36, ('translation x', 'translation y'))
    >>> with sh.assemble(objective) as hessian:
    ...     print(hessian.mat.getSize(), hessian.mat.isSymmetric(1e-12))
    (6, 6) True
    """
    return describe(atoms, cutoff, reach, pattern, project, own, comm, more, molecule=molecule)[0]


class State(NamedTuple):
    """Where atoms are.

    Attributes
    ----------
    force_max, force_rms
        Of the free coordinates, in eV/Å: the largest force on an atom, and the root of the mean square.
    force_atom
        On which atom the largest is.
    shape
        What decides how many rigid motions there are.
    molecule
        Whether they were taken for a molecule in a box.
    hint
        That they seem to be one, and were not taken so; empty where not.
    """

    force_max: float
    force_rms: float
    force_atom: int
    shape: str
    molecule: bool
    hint: str


def describe(
    atoms: Atoms,
    cutoff: float | None,
    reach: str | int | None,
    pattern: Pattern | str | None,
    project: bool,
    own: bool,
    comm: MPI.Comm | None,
    more: dict[str, Any],
    whole_up_to: int = 0,
    molecule: bool = False,
) -> tuple[Objective, State, np.ndarray]:
    """Return the objective of some atoms, where they are, and `turned` of its rigid motions; see `from_atoms`.

    Collective.

    Parameters
    ----------
    whole_up_to
        Up to so many coordinates, all are taken for coupled where no cut-off is known.
    molecule
        See `from_atoms`.
    """
    optional("ase", "from_atoms", "ase")
    comm = communicator(comm)
    with agreement(comm):
        check_atoms(atoms)
        for name, value in (("project", project), ("own", own), ("molecule", molecule)):
            if not isinstance(value, (bool, np.bool_)):
                raise InputError(f"{name}={value!r} is neither True nor False")
        host = _Moving(atoms, bool(molecule))
        if pattern is not None and (cutoff is not None or reach is not None):
            raise InputError("a pattern is given: leave out cutoff and reach")
        if not (isinstance(pattern, Pattern | None) or (isinstance(pattern, str) and pattern == "detect")):
            raise InputError(f"pattern {pattern!r}: give a Pattern, or 'detect'")
    host.place = find_workplace(atoms.calc, lambda: call_once(host.moved_to(host.x)), comm)
    with agreement(comm):
        force = host.start(comm.rank)  # some calculators know their cut-off only then
    host.x, force = comm.bcast((host.x, force))  # to the last bit the same on every rank, whatever its processor
    with agreement(comm):
        found = host.own_hessian(comm.rank) if own else None
    if not comm.allreduce(found is not None, op=MPI.LAND):
        found = None
    with agreement(comm):
        extent = None
        known = cutoff is not None or reach is not None or calculator_kind(atoms) is not None
        by_matrix = pattern is None and not known and found is not None and found.method == MATRIX
        if pattern is None and not by_matrix:
            small = not known and len(host.x) <= whole_up_to
            extent = (np.inf, 1) if small else extent_of(atoms, cutoff, reach)
    rigid = on_root(comm, host.rigid, host.x)
    turned = on_root(comm, host.turned, rigid.vectors)
    turns = project and not molecule and host.free.all() and len(atoms) > 1
    hint = HINT if turns and on_root(comm, is_alone, atoms) else ""
    state = State(*_sizes(force, host.free), rigid.shape, bool(molecule), hint)
    if by_matrix and found is not None:
        with agreement(comm):
            rows, columns = host.within(found.coupled, host.x)
        source = f"entries of {found.name}"
        pattern = Pattern.from_pairs(rows, columns, len(host.x), comm=comm, source=source)
    elif extent is not None:
        pattern = neighbor_pattern(atoms, host.free, *extent, comm)
    defaults: dict[str, Any] = {
        "units": UNITS,
        "mass": np.repeat(atoms.get_masses(), 3)[host.free],
        "typical_x": _LENGTH,
        "name": f"{atoms.get_chemical_formula()} by {type(atoms.calc).__name__}, forces up to "
        f"{state.force_max:.2g} eV/Å are left (rms {state.force_rms:.2g})",
        "geometry": _geometry(atoms, host.free),
    }
    if project and "null_vectors" not in more:
        defaults["projected"] = lambda x: host.rigid(x)[:2]
    objective = Objective(
        x=host.x,
        gradient=host.gradient if host.has_forces else None,
        energy=host.energy,
        hvp=None if found is None else lambda x, v: host.within(found.product, x, v),
        pattern=None if isinstance(pattern, str) else pattern,
        comm=comm,
        **defaults | more,
    )
    return objective, state, turned


def snapshot(atoms: Atoms) -> Atoms:
    """Return a copy of atoms with the same calculator, which later changes of theirs do not reach.

    Not collective.
    """
    copy = atoms.copy()
    copy.calc = atoms.calc
    return copy


def check_atoms(atoms: Atoms) -> None:
    """Refuse what has no vibrations to compute.

    Not collective.

    Raises
    ------
    InputError
        No atoms, or two at one place; no calculator, or one that only holds results; an atom without mass; periods
        without a cell.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.neighborlist import neighbor_list

    if not hasattr(atoms, "get_chemical_formula"):
        raise InputError(f"from_atoms takes ase.Atoms, not {type(atoms).__name__}")
    if not len(atoms):
        raise InputError("there are no atoms")
    formula = atoms.get_chemical_formula()
    if atoms.calc is None:
        raise InputError(f"{formula} has no calculator: set atoms.calc")
    if isinstance(atoms.calc, SinglePointCalculator):
        raise InputError(
            f"{formula} comes with results for these positions alone ({type(atoms.calc).__name__}), and a Hessian "
            "takes forces at others: attach the calculator that made them, atoms.calc = ..."
        )
    if not np.isfinite(atoms.get_positions()).all():
        raise InputError(f"positions of {formula} are not finite")
    for number in np.flatnonzero(atoms.get_pbc() & ~(np.linalg.norm(atoms.get_cell().array, axis=1) > 0)):
        raise InputError(f"{formula} is periodic in direction {number}, where the vector of its cell is zero")
    first, second, apart = neighbor_list("ijd", atoms, _SAME)
    for i, j, distance in zip(first, second, apart, strict=True):
        raise InputError(
            f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]}) are at one place, {distance:.2g} Å apart"
        )
    masses, pushed = atoms.get_masses(), free_coordinates(atoms).reshape(-1, 3).any(axis=1)
    for number in np.flatnonzero(~(np.isfinite(masses) & (masses >= 0)) | (pushed & ~(masses > 0))):
        raise InputError(
            f"atom {number} ({atoms.symbols[number]}) has the mass {masses[number]:g}: give it one by "
            "atoms.set_masses, or hold it by FixAtoms"
        )


class _Moving:
    """A copy of atoms whose free coordinates are variables.

    Attributes
    ----------
    free
        (3 atoms,) bool.
    x
        (n,) the free coordinates at the start.
    has_forces
        Whether the calculator has forces, not energies alone; told by `start`.
    slope
        (atoms, 3) the gradient of all coordinates at the start, held ones too where there are forces.
    place
        Where the calculator is called.
    """

    def __init__(self, atoms: Atoms, molecule: bool):
        self.free = free_coordinates(atoms)
        if not self.free.any():
            raise InputError(f"all coordinates of {atoms.get_chemical_formula()} are held: nothing vibrates")
        self._atoms = atoms.copy()
        self._atoms.set_constraint()
        self._atoms.calc = atoms.calc
        self._start = atoms.get_positions()
        self._together = shifts_of_molecule(atoms) if molecule else np.zeros(self._start.shape)
        periods = atoms.get_pbc() & (not molecule)
        self._around = Surroundings(atoms.get_masses(), atoms.get_cell().array, periods, self.free)
        self.x = self._start.ravel()[self.free]
        self.has_forces = True
        self.slope = np.zeros(self._start.shape)
        self.place = Workplace()

    def _positions(self, x: np.ndarray) -> np.ndarray:
        positions = self._start.copy()
        positions.reshape(-1)[self.free] = x
        return positions

    def moved_to(self, x: np.ndarray) -> Atoms:
        """Return the atoms, moved to x."""
        self._atoms.set_positions(self._positions(x))
        return self._atoms

    def within(self, function: Callable[..., Any], x: np.ndarray, *more: Any) -> Any:
        """Return function(atoms at x, *more), called where the calculator works."""
        with self.place:
            return function(self.moved_to(x), *more)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self._whole_gradient(x)[self.free]

    def _whole_gradient(self, x: np.ndarray) -> np.ndarray:
        forces = np.asarray(self.within(lambda atoms: atoms.get_forces(), x))
        if forces.size != len(self.free) or forces.dtype.kind not in "fiu":
            told = f"an array {forces.shape}" if forces.shape else f"{forces}"
            raise InputError(
                f"the forces of {type(self._atoms.calc).__name__} are {told}, not ({len(self._atoms)}, 3) numbers"
            )
        return -forces.ravel()

    def energy(self, x: np.ndarray) -> float:
        return self.within(lambda atoms: atoms.get_potential_energy(), x)

    def own_hessian(self, rank: int) -> OwnHessian | None:
        """Return what the calculator knows of second derivatives itself, tried at the start; None if nothing."""
        from ase.calculators.calculator import PropertyNotImplementedError

        method = find_own(self._atoms.calc)
        if method is None:
            return None
        own = OwnHessian(self._atoms.calc, method, self.free)
        try:
            image = self.within(own.product, self.x, np.ones(len(self.x)))
        except (NotImplementedError, PropertyNotImplementedError):  # inherited, and not filled in
            return None
        except (InputError, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever a calculator raises
            told = raised(own.name, error, f" on rank {rank}")
            raise EvaluationError(f"{told}; own=False takes differences of forces instead") from error
        if not np.isfinite(image).all():
            raise InputError(f"{own.name} is not finite: own=False takes differences of forces instead")
        return own

    def rigid(self, x: np.ndarray) -> RigidMotions:
        """Return the rigid motions at x."""
        return rigid_motions(self._positions(x) + self._together, self._around)

    def turned(self, motions: np.ndarray) -> np.ndarray:
        """Return what the Hessian makes of rigid motions at the start, if only places of atoms count."""
        return turned(motions, self._start + self._together, self.free, self.slope)

    def start(self, rank: int) -> np.ndarray:
        """Return (n,) the forces at the start, and find out whether there are any."""
        from ase.calculators.calculator import PropertyNotImplementedError

        name = type(self._atoms.calc).__name__
        try:
            try:
                slope = self._whole_gradient(self.x)
                force = -slope[self.free]
            except PropertyNotImplementedError:
                self.has_forces = False
                steps = _STEP * np.eye(len(self.x))
                force = np.array([self.energy(self.x - step) - self.energy(self.x + step) for step in steps])
                force /= 2 * _STEP
                slope = np.zeros(len(self.free))
                slope[self.free] = -force
        except (InputError, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever a calculator raises
            told = raised(name, error, f" on rank {rank}")
            if self.place.folder and isinstance(error, OSError):
                told += f"; it is called in {self.place.folder}, as it writes files: give it absolute paths"
            raise EvaluationError(told) from error
        strange = np.flatnonzero(self.free)[~np.isfinite(force)]
        if len(strange):
            number = strange[0] // 3
            raise InputError(f"the force of {name} on atom {number} ({self._atoms.symbols[number]}) is not finite")
        self.slope = slope.reshape(-1, 3)
        return force


def _sizes(force: np.ndarray, free: np.ndarray) -> tuple[float, float, int]:
    """Return the largest force on an atom, the root of the mean square of free coordinates, and that atom."""
    whole = np.zeros(len(free))
    whole[free] = force
    sizes = np.linalg.norm(whole.reshape(-1, 3), axis=1)
    return float(sizes.max()), float(np.sqrt(np.mean(force**2))), int(sizes.argmax())


def free_coordinates(atoms: Atoms) -> np.ndarray:
    """Return (3 atoms,) bool: the coordinates that no constraint holds.

    Not collective.

    Raises
    ------
    InputError
        A constraint that is neither `FixAtoms` nor `FixCartesian`: it would make coordinates depend on each other.
    """
    from ase.constraints import FixAtoms, FixCartesian

    pushed = np.ones((len(atoms), 3))
    for constraint in atoms.constraints:
        if not isinstance(constraint, (FixAtoms, FixCartesian)):
            raise InputError(
                f"{type(constraint).__name__} is no constraint on single coordinates: only FixAtoms and "
                "FixCartesian can be taken out of a Hessian"
            )
        constraint.adjust_forces(atoms, pushed)
    return pushed.ravel() != 0


def _geometry(atoms: Atoms, free: np.ndarray) -> Geometry:
    """Return the atoms as nodes that the free coordinates move."""
    variables = np.where(free, np.cumsum(free) - 1, -1).reshape(-1, 3)
    periodic = atoms.get_pbc()
    cell = np.where(periodic[:, None], atoms.cell.array, 0.0) if periodic.any() else None
    charges = atoms.get_initial_charges() if atoms.has("initial_charges") else None
    return Geometry(atoms.get_positions(), variables, atoms.get_chemical_symbols(), cell=cell, charges=charges)
