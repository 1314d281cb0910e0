"""Vibrations of ASE's atoms: Hessians of their calculators' forces, normal modes, and back to ASE and sella.

>>> from ase.build import fcc111
>>> from ase.calculators.emt import EMT
>>> from ase.constraints import FixAtoms
>>> from sparsehess.hosts.ase import normal_modes
>>> slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
>>> slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
>>> slab.calc = EMT()
>>> with normal_modes(slab, 3) as modes:
...     print(modes.frequencies.round(1), int(modes.imaginary.sum()), modes.spectrum.count.certified)
[ 56.5  56.5 129.6] 0 True

Every rank has the atoms and evaluates its share of the forces alone: the calculator must not itself be parallel
over these ranks, and one that works in files needs a folder of its own on each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.units import Units
from sparsehess.eigen.problem.rigid_body_modes import rigid_body_modes
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers import eigs
from sparsehess.errors import EvaluationError, InputError
from sparsehess.hessian.hessian import Hessian, assemble
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime import PETSc, agreement, communicator, on_root, optional
from sparsehess.runtime.validation import reals

# How far a force reaches, in cut-offs: of a pair potential the force between two atoms depends on those alone; of
# others the energy of an atom depends on all its neighbours, which couples those two and two.
REACHES = {"pair": 1, "many-body": 2}

SKIN = 0.1  # Å: pairs that a step could bring within the cut-off belong to the pattern too

# Rotations are null vectors where they are to this part of the Hessian's norm: a third of what `eigs` lets pass.
_NULL = 3e-9

_STEP = 1e-3  # Å, of each coordinate, for the size of the Hessian

# Of the calculators that ASE brings: (cut-off in Å, reach), once they have evaluated forces.
_CALCULATORS: dict[str, Callable] = {
    "LennardJones": lambda calc: (calc.parameters["rc"], "pair"),
    "MorsePotential": lambda calc: (calc.parameters["rcut2"] * calc.parameters["r0"], "pair"),
    "EMT": lambda calc: (calc.rc_list, "many-body"),
    "EAM": lambda calc: (calc.cutoff, "many-body"),
    "Tersoff": lambda calc: (max(one.R + one.D for one in calc.parameters.values()), "many-body"),
}


def from_atoms(
    atoms,
    *,
    cutoff: float | None = None,
    reach: str | int | None = None,
    pattern: Pattern | str | None = None,
    comm=None,
    **more,
) -> Objective:
    """Return the objective of the potential energy of some atoms: x in Å, the Hessian in eV/Å², masses in amu.

    Collective on `comm`. The atoms stay where they are: a copy with the same calculator moves.

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
        Other arguments of `Objective`. Null vectors are, unless they are given, the translations of atoms of which
        none is held, and, where the atoms are at rest, the rotations that the cell allows: all of a free
        molecule, that about its axis of a wire, none of a slab or crystal.

    Raises
    ------
    InputError
        No calculator, a constraint of another kind, nothing left to move, or no cut-off that is known.
    StackError
        ASE is not installed.
    EvaluationError
        The calculator raised.
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
        if pattern is None:
            cutoff, hops = _range(atoms, cutoff, reach)
    host.x = comm.bcast(host.x)  # to the last bit the same on every rank, whatever its processor
    if pattern is None:
        pattern = _coupled(atoms, host.free, cutoff, hops, comm)
    rigid, names = ([], []) if "null_vectors" in more else on_root(comm, host.null_vectors)
    given = {
        "null_vectors": rigid if len(rigid) else None,
        "null_names": tuple(names),
        "units": Units.of("eV", "angstrom", "amu", "cm^-1"),
        "mass": np.repeat(atoms.get_masses(), 3)[host.free],
        "name": f"{atoms.get_chemical_formula()} by {type(atoms.calc).__name__}",
        **more,
    }
    return Objective(
        x=host.x,
        gradient=host.gradient,
        energy=host.energy,
        pattern=None if isinstance(pattern, str) else pattern,
        comm=comm,
        **given,
    )


class _Moving:
    """A copy of atoms whose free coordinates are variables.

    Attributes
    ----------
    free
        (3 atoms,) bool.
    x
        (n,) where they were.
    """

    def __init__(self, atoms):
        self.free = free_coordinates(atoms)
        if not self.free.any():
            raise InputError(f"all coordinates of {atoms.get_chemical_formula()} are held: nothing vibrates")
        self._atoms = atoms.copy()
        self._atoms.set_constraint()
        self._atoms.calc = atoms.calc
        self._start = atoms.get_positions()
        self.x = self._start.ravel()[self.free]

    def _place(self, x) -> None:
        positions = self._start.copy()
        positions.reshape(-1)[self.free] = x
        self._atoms.set_positions(positions)

    def gradient(self, x) -> np.ndarray:
        self._place(x)
        return -self._atoms.get_forces().ravel()[self.free]

    def energy(self, x) -> float:
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
        """Say whether forces are so small that rotations are null vectors.

        A turned body has turned forces, so that the Hessian times ω × r is ω × gradient, to be compared with
        the Hessian's norm: the root mean square of its products with vectors of random signs.
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


def free_coordinates(atoms) -> np.ndarray:
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


def rigid_motions(positions, cell, pbc) -> tuple[np.ndarray, list[str]]:
    """Return the rigid motions of free atoms in a cell, orthonormal rows, and their names.

    Not collective.

    Parameters
    ----------
    positions
        (atoms, 3).
    cell
        (3, 3) rows are the vectors of the cell.
    pbc
        (3,) bool: the directions in which it is repeated. None of them: all six motions, five for a line; one:
        translations and the rotation about it; more: translations.
    """
    modes, names = rigid_body_modes(positions)
    if not np.any(pbc):
        return modes, names
    modes, names = modes[:3], names[:3]
    if np.count_nonzero(pbc) == 1:
        axis = np.asarray(cell)[np.flatnonzero(pbc)[0]]
        positions = np.asarray(positions)
        turn = np.cross(axis / np.linalg.norm(axis), positions - positions.mean(axis=0)).ravel()
        size = np.linalg.norm(turn)
        if size > 1e-8 * np.linalg.norm(positions - positions.mean(axis=0)):  # not all atoms on the axis
            modes, names = np.vstack([modes, turn / size]), [*names, "rotation about the wire"]
    return modes, names


def _range(atoms, cutoff, reach) -> tuple[float, int]:
    """Return the cut-off in Å and how many times it reaches."""
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


def _coupled(atoms, free, cutoff: float, hops: int, comm) -> Pattern:
    """Return the pattern of the free coordinates of atoms within `hops` cut-offs, by steps from atom to atom."""
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


# --- answers --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NormalModes:
    """Normal modes of some atoms. A context manager; `close()` destroys Hessian and vectors, collectively.

    Attributes
    ----------
    atoms
        As they were given.
    hessian, spectrum
        What was assembled, and what was found beside the rigid motions that are deflated.
    frequencies
        (k,) in cm⁻¹, ascending; imaginary ones are given as negative.
    imaginary
        (k,) bool: modes along which the energy falls, to the accuracy of the forces.
    zero
        (k,) bool: modes that are zero to that accuracy beside those that are deflated.
    rigid
        Frequency in cm⁻¹ of each motion that was deflated, by its Rayleigh quotient: how nearly it is zero.
    """

    atoms: object
    hessian: Hessian
    spectrum: Spectrum
    frequencies: np.ndarray
    imaginary: np.ndarray
    zero: np.ndarray
    rigid: dict[str, float]

    def displacements(self, number: int) -> np.ndarray:
        """Return (atoms, 3) the displacements of a mode, of norm 1 in the masses (amu^-1/2).

        Collective.
        """
        if not (isinstance(number, (int, np.integer)) and 0 <= number < len(self.frequencies)):
            raise InputError(f"mode {number}: there are {len(self.frequencies)}, counted from 0")
        whole = np.zeros(3 * len(self.atoms))
        whole[free_coordinates(self.atoms)] = _everywhere(self.spectrum.vectors[number])
        return whole.reshape(-1, 3)

    def close(self) -> None:
        """Destroy the vectors and the Hessian.

        Collective.
        """
        self.spectrum.close()
        self.hessian.close()

    def __enter__(self) -> NormalModes:
        return self

    def __exit__(self, *reason) -> None:
        self.close()


def normal_modes(atoms, k: int | None = None, *, cutoff=None, reach=None, comm=None, **how) -> NormalModes:
    """Return the lowest normal modes of some atoms, certified, rigid motions apart.

    Collective on `comm`.

    Parameters
    ----------
    atoms, cutoff, reach, comm
        See `from_atoms`.
    k
        How many beside the rigid motions; default 6.
    how
        Other arguments of `eigs`, such as `which` or `interval` (in eV/Å²/amu).

    Raises
    ------
    InputError, EvaluationError, CheckError, NotConverged
        See `from_atoms`, `assemble` and `eigs`.
    """
    objective = from_atoms(atoms, cutoff=cutoff, reach=reach, comm=comm)
    hessian = assemble(objective)
    try:
        spectrum = eigs(hessian, k, **how)
    except BaseException:
        hessian.close()
        raise
    values = spectrum.eigenvalues
    zero = np.zeros(len(values), bool)
    zero[np.argsort(np.abs(values), kind="stable")[: spectrum.zeros]] = True
    return NormalModes(
        atoms=atoms,
        hessian=hessian,
        spectrum=spectrum,
        frequencies=objective.units.of_eigenvalues(values),
        imaginary=(values < 0) & ~zero,
        zero=zero,
        rigid=_quotients(hessian),
    )


def _quotients(hessian: Hessian) -> dict[str, float]:
    """Return the frequencies of the null vectors, by name. Collective."""
    objective = hessian.objective
    if objective.null_vectors is None:
        return {}
    v, image = hessian.mat.createVecs()
    mass, curvatures = objective.local(objective.mass), []
    for row in objective.null_vectors:
        v.setArray(objective.local(row))
        hessian.mat.mult(v, image)
        weight = objective.comm.allreduce(float(mass @ v.getArray(readonly=True) ** 2))
        curvatures.append(v.dot(image) / weight)
    v.destroy()
    image.destroy()
    frequencies = objective.units.of_eigenvalues(np.array(curvatures)).tolist()
    return dict(zip(objective.null_names, frequencies, strict=True))


def vibrations_data(hessian: Hessian, atoms):
    """Return ASE's `VibrationsData` of a Hessian.

    Collective. It has the whole Hessian, dense, on every rank: ASE takes no other.

    Parameters
    ----------
    hessian
        Of `from_atoms(atoms)`, assembled.
    atoms
        The atoms.

    Raises
    ------
    InputError
        Single coordinates of an atom are held, which ASE's data have no place for, or these are not the atoms.
    """
    optional("ase", "vibrations_data", "ase")
    from ase.vibrations import VibrationsData

    free = free_coordinates(atoms)
    if not np.array_equal(free, np.repeat(free[::3], 3)):
        raise InputError(
            "VibrationsData has whole atoms only: hold none of the coordinates of an atom, or all three"
        )
    if hessian.pattern.n != np.count_nonzero(free):
        raise InputError(
            f"the Hessian has {hessian.pattern.n} rows, the atoms {np.count_nonzero(free)} free coordinates"
        )
    indices = np.flatnonzero(free[::3]).tolist()
    return VibrationsData.from_2d(atoms.copy(), dense(hessian.mat), indices=indices)


def hessian_function(atoms, *, cutoff=None, reach=None, comm=None, **how) -> np.ndarray:
    """Return (3 atoms, 3 atoms) the dense Hessian in eV/Å² of all coordinates, for sella's `hessian_function=`.

    Collective on `comm`. Sella wants a dense one: what coloring saves are force calls, not memory. Coordinates
    that are held are there too, as sella projects its constraints out itself. With other arguments:
    `Sella(atoms, hessian_function=functools.partial(hessian_function, cutoff=5.0))`.

    Parameters
    ----------
    atoms, cutoff, reach, comm
        See `from_atoms`.
    how
        Other arguments of `assemble`.
    """
    whole = atoms.copy()
    whole.set_constraint()
    whole.calc = atoms.calc
    with assemble(from_atoms(whole, cutoff=cutoff, reach=reach, null_vectors=None, comm=comm), **how) as hessian:
        return dense(hessian.mat)


def dense(matrix: PETSc.Mat) -> np.ndarray:
    """Return the whole of a matrix as an array on every rank.

    Collective.
    """
    indptr, indices, data = matrix.getValuesCSR()
    own = scipy.sparse.csr_matrix((data, indices, indptr), (len(indptr) - 1, matrix.getSize()[1]))
    return scipy.sparse.vstack(communicator(matrix.comm).allgather(own)).toarray()


def _everywhere(vector: PETSc.Vec) -> np.ndarray:
    """Return the whole of a vector on every rank. Collective."""
    return np.concatenate(communicator(vector.comm).allgather(vector.getArray(readonly=True)))
