"""Normal modes of many structures, shared out over ranks: each is the work of one; what fails is told of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.errors import (
    Cancelled,
    EvaluationError,
    InputError,
    Interrupted,
    Leaving,
    OverLimit,
    SparseHessError,
    Stopped,
    raised,
)
from sparsehess.hosts.ase.couplings import is_of_ase
from sparsehess.hosts.ase.objective import UNITS, free_coordinates
from sparsehess.hosts.ase.structure_modes import StructureModes
from sparsehess.hosts.ase.structure_store import open_structure_store
from sparsehess.hosts.ase.thermodynamics import check_conditions, thermochemistry
from sparsehess.hosts.ase.vibrations import NormalModes, normal_modes
from sparsehess.hosts.ase.workplaces import OwnFolder, Workplace, call_once, moves_apart, works_in_files
from sparsehess.runtime import agreement, communicator, on_root, optional, raise_together
from sparsehess.runtime.communicators import child
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.work_stealing import Work
from sparsehess.storage.checkpoint import Checkpoint
from sparsehess.storage.group_files import GroupFile

if TYPE_CHECKING:
    from ase import Atoms

# So many structures are tried for whether their calculators write files.
_TRIED = 2

# Errors that end all of the work, whatever structure they meet.
_END_ALL = (Stopped, Interrupted, Cancelled, Leaving, OverLimit)


class ModesOfEach(ShortRepr):
    """Normal modes of many structures, in their order, made by `normal_modes_of_each`.

    Shapes stay on the rank that has computed them; `displacements` brings those of one structure to all, and
    `write` those of all into a file.
    """

    def __init__(
        self,
        structures: Sequence[Atoms],
        found: list[StructureModes],
        shapes: dict[int, np.ndarray],
        comm: MPI.Comm,
    ):
        self._structures, self._found, self._shapes, self._comm = structures, found, shapes, comm
        mine = np.full(len(found), -1)
        mine[list(shapes)] = comm.rank
        self._owners = np.empty_like(mine)
        comm.Allreduce(mine, self._owners, MPI.MAX)

    def __len__(self) -> int:
        """Return how many structures there are."""
        return len(self._found)

    def __getitem__(self, number: Any) -> Any:
        """Return what was found of a structure."""
        return self._found[number]

    def __iter__(self) -> Iterator[StructureModes]:
        """Yield what was found of each structure."""
        return iter(self._found)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self), "structure")
        yield f"{len(self.failed)} failed"

    def __str__(self) -> str:
        """Return a line for each structure, for people."""
        return "\n".join(f"{one.number:6d} {one.formula:12s} {one.told()}" for one in self)

    @property
    def failed(self) -> list[StructureModes]:
        """Those without modes."""
        return [one for one in self._found if one.failure]

    def displacements(self, number: int) -> np.ndarray:
        """Return (k, atoms, 3) the displacements of all modes of a structure, of norm 1 in the masses (amu^-1/2).

        Collective.

        Raises
        ------
        InputError
            There is no such structure, or it has no modes.
        """
        if not (isinstance(number, (int, np.integer)) and 0 <= number < len(self)):
            raise InputError(f"structure {number}: there are {len(self)}, counted from 0")
        if self._owners[number] < 0:
            raise InputError(f"structure {number} has no modes: {self._found[number].failure}")
        shapes = self._comm.bcast(self._shapes.get(number), root=int(self._owners[number]))
        atoms = self._structures[number]
        whole = np.zeros((len(shapes), 3 * len(atoms)))
        whole[:, free_coordinates(atoms)] = shapes
        return whole.reshape(len(shapes), -1, 3)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        unit: str = UNITS.frequency,
        names: Sequence[str] | None = None,
        facts: dict[str, Any] | None = None,
        facts_of: Callable[[StructureModes], dict[str, Any]] | None = None,
    ) -> None:
        """Write everything into an HDF5 file, a group for each structure.

        Collective; rank 0 writes, and holds the modes of one structure at a time beside its own.

        Parameters
        ----------
        path
            Its name ends with .h5.
        unit
            Of frequencies, as `Units` names them.
        names
            Of the groups, default the numbers.
        facts, facts_of
            JSON of the file, and of each group; default what `StructureModes` has but for arrays.

        Raises
        ------
        InputError
            A file that cannot be written; nothing is left of it then.
        """
        path, comm = Path(path), self._comm
        per = UNITS.to(unit).factor / UNITS.factor
        with GroupFile(path, facts or {"frequency_unit": unit}, comm) as file:
            for one, owner in zip(self._found, self._owners.tolist(), strict=True):
                shapes = self._brought(one.number, owner)
                name = str(one.number) if names is None else names[one.number]
                told = _facts_of(one) if facts_of is None else facts_of(one)
                file.add(name, told, partial(self._arrays, one, shapes, per))

    def _brought(self, number: int, owner: int) -> np.ndarray:
        """Return the shapes of a structure on rank 0. Collective."""
        comm, none = self._comm, np.zeros((0, 0))
        if owner < 0 or comm.rank not in (0, owner):
            return none
        if owner == 0:
            return self._shapes[number]
        if comm.rank == 0:
            return comm.recv(source=owner)
        comm.send(self._shapes[number], 0)
        return none

    def _arrays(self, one: StructureModes, shapes: np.ndarray, per: float) -> dict[str, np.ndarray]:
        """Return what a group has. Not collective."""
        atoms = self._structures[one.number]
        there = {
            "numbers": atoms.get_atomic_numbers(),
            "positions": atoms.get_positions(),
            "masses": atoms.get_masses(),
            "cell": atoms.get_cell().array,
            "pbc": atoms.get_pbc(),
        }
        if one.failure:
            return there
        return there | {
            "eigenvalues": one.eigenvalues,
            "residuals": one.residuals,
            "frequencies": per * one.frequencies,
            "frequency_errors": per * one.errors,
            "imaginary": one.imaginary,
            "vectors": shapes,
            "free": free_coordinates(atoms),
        }


def normal_modes_of_each(
    structures: Sequence[Atoms],
    k: int | None = None,
    *,
    calculator: Callable[[], Any] | None = None,
    conditions: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    comm: MPI.Comm | None = None,
    progress: Callable[[int, int], None] | None = None,
    **how: Any,
) -> ModesOfEach:
    """Return normal modes of many structures: molecules, clusters, frames of a trajectory.

    Collective on `comm`. Each structure is the work of one rank, and a rank that is through takes over structures
    that others have not begun: they may be of very different sizes. What is found does not depend on the number of
    ranks. A structure that fails is told of, and the others go on.

    Parameters
    ----------
    structures
        `ase.Atoms`, the same on every rank.
    k
        How many vibrations of each, see `normal_modes`.
    calculator
        Called for each structure for a calculator of its own, such as the class `EMT`: one that had another
        structure before may begin where that has ended, and its last digits with it. Default those that the
        structures have.
    conditions
        Of energies and entropies of each: arguments of `thermochemistry`, such as `{"temperature": 298.15}`. Where
        one has none, as with imaginary modes, it is told why, and its modes are an answer all the same.
    checkpoint
        Where structures are saved as they are found, and from which the run resumes: it gives the same to the last
        bit. Those that fail are not saved, and tried again. The caller clears it.
    progress
        Called as progress(structures begun, structures) by the rank that is through with one.
    how
        Other arguments of `normal_modes`, such as `cutoff` or `tol`.

    Returns
    -------
    ModesOfEach
        The same on every rank, in the order of the structures.

    Raises
    ------
    InputError
        What is given are no structures, conditions that no modes can be taken with, or a checkpoint of others.
    Stopped
        A signal came, and the checkpoint is saved.
    StackError
        ASE is not installed.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> import sparsehess as sh
    >>> found = sh.normal_modes_of_each([molecule(name) for name in ("N2", "H2O", "SiH4")], calculator=EMT)
    >>> [(one.formula, len(one.frequencies), one.certified) for one in found]
    [('N2', 1, True), ('H2O', 3, True), ('H4Si', 0, None)]
    >>> found[2].failure
    'EMT raised NotImplementedError: No EMT-potential for Si'
    """
    optional("ase", "normal_modes_of_each", "ase")
    comm = communicator(comm)
    with agreement(comm):
        structures = list(structures)
        for number, atoms in enumerate(structures):
            if not hasattr(atoms, "get_chemical_formula"):
                raise InputError(f"structure {number}: an ase.Atoms is wanted, not {type(atoms).__name__}")
        if conditions is not None:
            check_conditions(**conditions)
            if conditions.get("energy") is not None:
                raise InputError("conditions: the energy of one structure is not that of another: leave it out")
    alone = child(comm, "structures alone", lambda: comm.Split(comm.rank))
    shared = child(comm, "structures shared", comm.Dup)
    how = {"k": k, **how}
    moves = comm.size > 1 and on_root(comm, _moves_apart, structures, calculator)
    places = _Places(f"rank_{comm.rank}", moves, comm.size > 1 or calculator is not None)
    store = open_structure_store(checkpoint, structures, calculator, alone, {**how, "conditions": conditions})
    there, found, shapes = store.restored()
    left = [number for number in range(len(structures)) if number not in there]
    begun = len(there)
    error: BaseException | None = None
    work = Work(shared, alone, len(left), False)
    try:
        for task in work:
            number = left[task]
            one, vectors = _modes_of(number, structures[number], calculator, alone, how, conditions, places)
            found[number] = one
            begun += comm.size
            if vectors is not None:
                shapes[number] = vectors
                store.keep(one, vectors)
            if progress is not None:
                progress(min(begun, len(structures)), len(structures))
            if store.told_to_stop:
                work.stop()
        store.save()
    except BaseException as caught:  # the others must hear of it, and stop
        error = caught
        with suppress(SparseHessError):
            store.save()
    work.finish(error)
    raise_together(comm, error)
    store.finish()
    for theirs in comm.allgather(found):
        found |= theirs
    return ModesOfEach(structures, [found[number] for number in range(len(structures))], shapes, comm)


class _Places(NamedTuple):
    """Where calculators of structures are called on this rank: in folders of its own where they would collide."""

    rank: str
    moves: bool
    apart: bool

    def of(self, calculator: Any, number: int) -> Workplace:
        """Return where that of a structure is called. Not collective."""
        if calculator is None:
            return Workplace()
        if works_in_files(calculator):
            return OwnFolder(calculator, f"structure_{number}", False) if self.apart else Workplace()
        return OwnFolder(calculator, self.rank, True) if self.moves else Workplace()


def _moves_apart(structures: Sequence[Atoms], calculator: Callable[[], Any] | None) -> bool:
    """Return whether calculators write files where they work, by the first one that tells. Not collective."""
    for given in structures[:_TRIED]:
        atoms = given.copy()
        with suppress(Exception):  # whatever it is, its structure is told to fail
            atoms.calc = given.calc if calculator is None else calculator()
            if atoms.calc is None or works_in_files(atoms.calc) or is_of_ase(atoms.calc):
                continue
            if moves_apart(atoms.calc, partial(call_once, atoms)):
                return True
    return False


def _modes_of(
    number: int,
    atoms: Atoms,
    calculator: Callable[[], Any] | None,
    comm: MPI.Comm,
    how: dict[str, Any],
    conditions: dict[str, Any] | None,
    places: _Places,
) -> tuple[StructureModes, np.ndarray | None]:
    """Return the modes of a structure, or why there are none, and (k, n) their vectors. Collective."""
    told = StructureModes(number, atoms.get_chemical_formula(), len(atoms))
    try:
        if calculator is not None:
            atoms = atoms.copy()
            atoms.calc = _made(calculator)
        with places.of(atoms.calc, number):
            return _numbers_of(told, normal_modes(atoms, comm=comm, **how), conditions)
    except _END_ALL:
        raise
    except SparseHessError as failure:
        words = str(failure).replace(" on rank 0", "")  # which is the only one that has it
        return replace(told, failure=words, status=failure.status), None


def _numbers_of(
    told: StructureModes, modes: NormalModes, conditions: dict[str, Any] | None
) -> tuple[StructureModes, np.ndarray]:
    """Return modes as numbers, and (k, n) their vectors; close them. Collective."""
    with modes:
        spectrum = modes.spectrum
        vectors = np.array([vector.getArray(readonly=True).copy() for vector in spectrum.vectors])
        told = replace(
            told,
            n=modes.hessian.pattern.n,
            frequencies=modes.frequencies,
            errors=modes.errors,
            eigenvalues=spectrum.eigenvalues,
            residuals=spectrum.residuals,
            imaginary=modes.imaginary,
            zero=modes.zero,
            minimum=modes.minimum,
            certified=None if spectrum.count is None else spectrum.count.certified,
            rigid=tuple(modes.rigid),
            force_max=modes.force_max,
            force_atom=modes.force_atom,
            evaluations=sum(modes.hessian.evaluations.values()),
            hint=modes.hint,
            **_thermal(modes, conditions),
        )
        modes.hessian.pattern.free()
    return told, vectors.reshape(len(told.frequencies), told.n)


def _thermal(modes: NormalModes, conditions: dict[str, Any] | None) -> dict[str, Any]:
    """Return energies and entropies, or why there are none, as `StructureModes` has them. Collective."""
    if conditions is None:
        return {}
    try:
        return {"thermal": thermochemistry(modes, **conditions)}
    except (InputError, EvaluationError) as failure:
        return {"thermal_failure": str(failure).replace(" on rank 0", "")}


def _made(calculator: Callable[[], Any]) -> Any:
    """Return a new calculator. Not collective."""
    try:
        return calculator()
    except SparseHessError:
        raise
    except Exception as error:  # a calculator's code may raise anything
        raise EvaluationError(raised("calculator()", error)) from error


def _facts_of(one: StructureModes) -> dict[str, Any]:
    """Return what is no array. Not collective."""
    told = {**one.facts(), "rigid": list(one.rigid)}
    return told | {"force_max": one.force_max if np.isfinite(one.force_max) else None}
