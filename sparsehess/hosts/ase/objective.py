"""Objectives of ASE's atoms: forces of their calculators, patterns from neighbour lists, rigid motions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.units import Units
from sparsehess.eigen.problem.rigid_body_modes import rigid_body_modes
from sparsehess.errors import EvaluationError, InputError
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime import agreement, communicator, on_root, optional
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from ase import Atoms

UNITS = Units.of("eV", "angstrom", "amu", "cm^-1")

# How far a coupling reaches, in cut-offs. A pair potential couples two atoms within the cut-off. In others the
# energy of an atom depends on all its neighbours, which couples these with each other.
REACHES = {"pair": 1, "many-body": 2}

SKIN = 0.1  # Å: a step may bring pairs within the cut-off that are beyond it by less

# A rotation is a null vector if the Hessian times it is less than this part of the Hessian's norm: a third of what
# `eigs` lets pass.
_NULL = 3e-9

_STEP = 1e-3  # Å, of each coordinate, to estimate the Hessian's norm

# (Cut-off in Å, reach) of ASE's own calculators. Some know their cut-off only after they have evaluated forces.
_CALCULATORS: dict[str, Callable[[Any], tuple[float, str]]] = {
    "LennardJones": lambda calc: (calc.parameters["rc"], "pair"),
    "MorsePotential": lambda calc: (calc.parameters["rcut2"] * calc.parameters["r0"], "pair"),
    "EMT": lambda calc: (calc.rc_list, "many-body"),
    "EAM": lambda calc: (calc.cutoff, "many-body"),
    "Tersoff": lambda calc: (max(one.R + one.D for one in calc.parameters.values()), "many-body"),
}


def from_atoms(
    atoms: Atoms,
    *,
    cutoff: float | None = None,
    reach: str | int | None = None,
    pattern: Pattern | str | None = None,
    comm: MPI.Comm | None = None,
    **more: Any,
) -> Objective:
    """Return the objective of the potential energy of some atoms: x in Å, the Hessian in eV/Å², masses in amu.

    Collective on `comm`. The atoms stay where they are: a copy with the same calculator moves. Each rank evaluates
    its share of the forces by itself.

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
        that of the calculator, and `many-body` beside a cut-off that is given.
    pattern
        Instead of these two a `Pattern` of the free coordinates, or `detect`: none is made here, for
        `assemble(..., pattern="detect")`.
    comm, more
        Other arguments of `Objective`. If no atom is held, the default null vectors are the translations and,
        where the forces vanish, the rotations that the cell allows: all of a free molecule, the one about its
        axis of a wire, none of a slab or crystal.

    Returns
    -------
    Objective
        Of the free coordinates, with pattern, masses, units and null vectors.

    Raises
    ------
    InputError
        No calculator, a constraint of another kind, nothing left to move, or no cut-off that is known.
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
    optional("ase", "from_atoms", "ase")
    comm = communicator(comm)
    with agreement(comm):
        if not hasattr(atoms, "get_chemical_formula"):
            raise InputError(f"from_atoms takes ase.Atoms, not {type(atoms).__name__}")
        if atoms.calc is None:
            raise InputError(f"{atoms.get_chemical_formula()} has no calculator: set atoms.calc")
        host = _Moving(atoms)
        if pattern is not None and (cutoff is not None or reach is not None):
            raise InputError("a pattern is given: leave out cutoff and reach")
        if not (isinstance(pattern, Pattern | None) or (isinstance(pattern, str) and pattern == "detect")):
            raise InputError(f"pattern {pattern!r}: give a Pattern, or 'detect'")
        try:
            host.gradient(host.x)  # some calculators know their cut-off only then
        except Exception as error:  # whatever a calculator raises
            raise EvaluationError(
                f"{type(atoms.calc).__name__} raised {type(error).__name__} on rank {comm.rank}: "
                f"{' '.join(str(error).split())}"
            ) from error
        extent = _extent(atoms, cutoff, reach) if pattern is None else None
    host.x = comm.bcast(host.x)  # to the last bit the same on every rank, whatever its processor
    if extent is not None:
        pattern = _neighbor_pattern(atoms, host.free, *extent, comm)
    defaults: dict[str, Any] = {
        "units": UNITS,
        "mass": np.repeat(atoms.get_masses(), 3)[host.free],
        "name": f"{atoms.get_chemical_formula()} by {type(atoms.calc).__name__}",
    }
    if "null_vectors" not in more:
        rigid, names = on_root(comm, host.null_vectors)
        defaults |= {"null_vectors": rigid if len(rigid) else None, "null_names": tuple(names)}
    return Objective(
        x=host.x,
        gradient=host.gradient,
        energy=host.energy,
        pattern=None if isinstance(pattern, str) else pattern,
        comm=comm,
        **defaults | more,
    )


class _Moving:
    """A copy of atoms whose free coordinates are variables.

    Attributes
    ----------
    free
        (3 atoms,) bool.
    x
        (n,) the free coordinates at the start.
    """

    def __init__(self, atoms: Atoms):
        self.free = free_coordinates(atoms)
        if not self.free.any():
            raise InputError(f"all coordinates of {atoms.get_chemical_formula()} are held: nothing vibrates")
        self._atoms = atoms.copy()
        self._atoms.set_constraint()
        self._atoms.calc = atoms.calc
        self._start = atoms.get_positions()
        self.x = self._start.ravel()[self.free]

    def _place(self, x: np.ndarray) -> None:
        positions = self._start.copy()
        positions.reshape(-1)[self.free] = x
        self._atoms.set_positions(positions)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        self._place(x)
        return -self._atoms.get_forces().ravel()[self.free]

    def energy(self, x: np.ndarray) -> float:
        self._place(x)
        return self._atoms.get_potential_energy()

    def null_vectors(self) -> tuple[np.ndarray, list[str]]:
        """Return the rigid motions that the Hessian at the start does not resist, and their names."""
        if not self.free.all():
            return np.empty((0, len(self.x))), []
        modes, names = rigid_motions(self._start, self._atoms.get_cell(), self._atoms.get_pbc())
        turns = np.array([name.startswith("rotation") for name in names])
        if turns.any() and not self._at_rest():
            modes, names = modes[~turns], [name for name in names if not name.startswith("rotation")]
        return modes, names

    def _at_rest(self) -> bool:
        """Return whether the forces are so small that rotations are null vectors.

        The forces turn with the body: the Hessian times ω × r is ω × gradient. This is compared with the Hessian's
        Frobenius norm, estimated from the product with a vector of random signs.
        """
        slope = self.gradient(self.x).reshape(-1, 3)
        away = self._start - self._start.mean(axis=0)
        way = np.random.default_rng(0).choice([-_STEP, _STEP], len(self.x))
        norm = np.linalg.norm(self.gradient(self.x + way) - self.gradient(self.x - way)) / (2 * _STEP)
        for axis in np.eye(3):
            arm = np.linalg.norm(np.cross(axis, away))
            if np.linalg.norm(np.cross(axis, slope)) > _NULL * norm * arm:
                return False
        return True


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


def rigid_motions(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> tuple[np.ndarray, list[str]]:
    """Return the rigid motions of free atoms in a cell, orthonormal rows, and their names.

    Not collective.

    Parameters
    ----------
    positions
        (atoms, 3).
    cell
        (3, 3) rows are the vectors of the cell.
    pbc
        (3,) bool: the directions in which it is repeated. Without any there are six motions, five if all atoms
        are on a line; with one, the translations and the rotation about it; with more, the translations.
    """
    positions = np.asarray(positions)
    modes, names = rigid_body_modes(positions)
    if not np.any(pbc):
        return modes, names
    modes, names = modes[:3], names[:3]
    if np.count_nonzero(pbc) == 1:
        axis = np.asarray(cell)[np.flatnonzero(pbc)[0]]
        turn = np.cross(axis / np.linalg.norm(axis), positions - positions.mean(axis=0)).ravel()
        size = np.linalg.norm(turn)
        if size > 1e-8 * np.linalg.norm(positions - positions.mean(axis=0)):  # not all atoms on the axis
            modes, names = np.vstack([modes, turn / size]), [*names, "rotation about the wire"]
    return modes, names


def _extent(atoms: Atoms, cutoff: float | None, reach: str | int | None) -> tuple[float, int]:
    """Return the cut-off in Å, and the number of cut-offs that a coupling reaches."""
    kinds = [kind.__name__ for kind in type(atoms.calc).__mro__ if kind.__name__ in _CALCULATORS]
    if cutoff is None:
        if not kinds:
            raise InputError(
                f"the cut-off of {type(atoms.calc).__name__} is not known: give cutoff=… in Å (numpy.inf if all "
                "atoms interact) and reach='pair', 'many-body' or a number, or pattern='detect' to have it probed"
            )
        cutoff, own = _CALCULATORS[kinds[0]](atoms.calc)
        reach = own if reach is None else reach
    elif reach is None:
        reach = _CALCULATORS[kinds[0]](atoms.calc)[1] if kinds else "many-body"
    hops = REACHES.get(reach, reach) if isinstance(reach, str) else reach
    if not isinstance(hops, (int, np.integer)) or hops < 1:
        raise InputError(f"reach={reach!r} is neither {' nor '.join(REACHES)} nor a whole number of cut-offs")
    if not reals(cutoff, "cutoff") > 0:
        raise InputError(f"cutoff={cutoff} must be a distance above 0, in Å")
    return float(cutoff), int(hops)


def _neighbor_pattern(atoms: Atoms, free: np.ndarray, cutoff: float, hops: int, comm: MPI.Comm) -> Pattern:
    """Return the pattern of free coordinates, of atoms that a chain of `hops` neighbours joins. Collective."""
    from ase.neighborlist import neighbor_list

    many = len(atoms)
    layout = Layout.from_size(many, comm)
    if np.isinf(cutoff):
        rows = scipy.sparse.csr_matrix(np.ones((layout.n_local, many), bool))
    else:
        i, j = neighbor_list("ij", atoms, cutoff + SKIN)
        near = scipy.sparse.coo_matrix((np.ones(len(i), bool), (i, j)), (many, many)).tocsr()
        near = (near + scipy.sparse.identity(many, bool, "csr")).astype(bool)
        rows = near[layout.start : layout.stop]
        for _ in range(hops - 1):
            rows = rows @ near
    rows = rows.tocoo()
    first, second = rows.row + layout.start, rows.col.astype(np.int64)
    if np.array_equal(free, np.repeat(free[::3], 3)):  # whole atoms: coloured as such
        number = np.where(free[::3], np.cumsum(free[::3]) - 1, -1)
        pairs = np.stack([number[first], number[second]], axis=1)
        pairs = pairs[(pairs >= 0).all(axis=1)]
        return Pattern.from_edges(pairs, int(free[::3].sum()), dofs=3, comm=comm, source="neighbour list")
    number = np.where(free, np.cumsum(free) - 1, -1)
    axes = np.stack(np.meshgrid(range(3), range(3), indexing="ij"), axis=-1).reshape(-1, 2)
    left = number[3 * first[:, None] + axes[:, 0]].ravel()
    right = number[3 * second[:, None] + axes[:, 1]].ravel()
    both = (left >= 0) & (right >= 0)
    return Pattern.from_pairs(left[both], right[both], int(free.sum()), comm=comm, source="neighbour list")
