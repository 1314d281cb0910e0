"""Vibrations of ASE's atoms: normal modes, and Hessians in the forms that ASE and sella take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.derivatives.objective import Objective
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers import eigs
from sparsehess.errors import CheckError, InputError
from sparsehess.hessian.assembly import assemble
from sparsehess.hessian.hessian import Hessian
from sparsehess.hosts.ase.invariance import outside
from sparsehess.hosts.ase.mode_files import Frequencies, write_mode_files
from sparsehess.hosts.ase.objective import (
    ALL_COUPLED,
    UNITS,
    State,
    describe,
    free_coordinates,
    from_atoms,
    snapshot,
)
from sparsehess.hosts.ase.own_hessians import error_beside_forces
from sparsehess.runtime import communicator, optional
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from petsc4py import PETSc

    from ase import Atoms
    from ase.vibrations import VibrationsData


# So many of the lowest vibrations where there are more coordinates than `ALL_COUPLED`; else all.
_LOWEST = 100


@dataclass(frozen=True, eq=False, repr=False)
class NormalModes(ShortRepr):
    """Normal modes of some atoms, made by `normal_modes`.

    A context manager; `close()` destroys Hessian and vectors, collectively.

    Attributes
    ----------
    atoms
        A copy of the atoms that were given, with their calculator: what is done to those later changes nothing.
    hessian
        Of their free coordinates.
    spectrum
        Its eigenpairs beside the rigid motions, which are projected out.
    frequencies
        (k,) in cm⁻¹, ascending; imaginary ones are given as negative.
    errors
        (k,) error bars of the frequencies: of the Hessian, see `ErrorBars`, and of what the solver has left.
    imaginary
        (k,) bool: modes along which the energy falls, to the accuracy of the forces.
    zero
        (k,) bool: modes that are zero to that accuracy, or within their bars, beside those projected out.
    rigid
        Frequency in cm⁻¹ of each motion that was projected out, by its Rayleigh quotient: of atoms at rest it is
        zero but for errors.
    resisted
        The frequency in cm⁻¹, of those that the Hessian itself gives rigid motions, that is farthest from zero.
    moved
        (k,) by how many cm⁻¹ the frequencies of the Hessian itself differ from these; to second order where not
        all vibrations are here.
    shape
        What has decided how many rigid motions there are.
    force_max, force_rms
        What forces are left, in eV/Å: the largest on an atom, and the root of the mean square.
    force_atom
        On which atom the largest is, from 0.
    molecule
        Whether atoms in a cell that repeats were taken for a molecule in a box.
    hint
        That they seem to be one, and were not taken so; empty where not.
    outside
        Why rigid motions are in doubt: something else than the forces that are left resists them; empty where not.
    """

    atoms: Atoms
    hessian: Hessian
    spectrum: Spectrum
    frequencies: np.ndarray
    errors: np.ndarray
    imaginary: np.ndarray
    zero: np.ndarray
    rigid: dict[str, float]
    resisted: float
    moved: np.ndarray
    shape: str
    force_max: float
    force_rms: float
    force_atom: int
    molecule: bool
    hint: str
    outside: str

    def __str__(self) -> str:
        """Return the frequencies and what was projected out, for people."""
        lines = [
            f"{number:6d} {abs(value):12.2f}{'i' if imaginary else ' '} ± {error:.2g} cm^-1"
            for number, (value, imaginary, error) in enumerate(
                zip(self.frequencies, self.imaginary, self.errors, strict=True)
            )
        ]
        notes = [f"note         {self.hint}"] if self.hint else []
        return "\n".join([*lines, *self.state_lines(), *notes])

    def state_lines(self, unit: str = UNITS.frequency) -> list[str]:
        """Return what the modes say of the structure and of its rigid motions, for people, in lines.

        Not collective.

        Parameters
        ----------
        unit
            Of frequencies, as `Units` names them.
        """
        per, lines = UNITS.to(unit).factor / UNITS.factor, []
        if len(self.frequencies):
            lines.append(f"minimum      {self._verdict()}")
        lines.append(f"forces left  {self.force_max:.2g} eV/Å at most, rms {self.force_rms:.2g}")
        if self.rigid:
            moved = per * np.abs(self.moved).max(initial=0.0)
            named = ", ".join(f"{name} ({_shown(per * value)})" for name, value in self.rigid.items())
            lines += [
                f"projected    {named}",
                f"shape        {self.shape}",
                f"changed      without that rigid motions have up to {_shown(per * self.resisted)} {unit}, and "
                f"vibrations move by up to {moved:.2g}",
            ]
        if self.outside:
            lines.append(f"outside      {self.outside}")
        elif abs(self.resisted) > np.abs(self.frequencies[~self.zero]).min(initial=np.inf):
            lines.append("at rest      no: forces give a rigid motion more than the lowest vibration has: relax")
        return lines

    @property
    def minimum(self) -> bool | None:
        """Whether no mode is imaginary, by a certified count; None where that is not known.

        Not collective. Of atoms that are not at rest it says what the Hessian is, and not that they are at one.
        Nothing is known either where something outside resists the rigid motions that were projected out.
        """
        if self.imaginary.any():
            return False
        told = self._all_negative_are_here() and not self.zero.any() and not self.outside
        return True if told else None

    def _all_negative_are_here(self) -> bool:
        """Return whether a count has shown that no imaginary mode is missing. Not collective."""
        count = self.spectrum.count
        if count is None or not count.certified or count.interval[0] != -np.inf:
            return False
        last_is_positive = len(self.frequencies) > 0 and not (self.imaginary[-1] or self.zero[-1])
        return last_is_positive or count.interval[1] == np.inf

    def _verdict(self) -> str:
        """Return whether this is a minimum, for people. Not collective."""
        negative, complete = np.count_nonzero(self.imaginary), self._all_negative_are_here()
        if negative:
            sure = complete and not self.zero.any() and not self.outside
            order = ": a saddle point if at rest" if negative == 1 and sure else ""
            return f"no: {'' if complete else 'at least '}{number_of(negative, 'imaginary mode')}{order}"
        if self.zero.any():
            flat = number_of(np.count_nonzero(self.zero), "mode is", "modes are")
            return f"not told: {flat} zero to their accuracy"
        if self.outside:
            return "not told: rigid motions are resisted from outside"
        return "yes if at rest: no imaginary mode" if complete else "not told: the lowest modes are not counted"

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.atoms), "atom")
        found = self.frequencies
        if len(found):
            yield f"{number_of(len(found), 'mode')} from {found[0]:.6g} to {found[-1]:.6g} cm^-1"
        yield f"{np.count_nonzero(self.imaginary)} imaginary"
        yield f"{len(self.rigid)} rigid"

    def displacements(self, number: int) -> np.ndarray:
        """Return (atoms, 3) the displacements of a mode, of norm 1 in the masses (amu^-1/2).

        Collective.

        Parameters
        ----------
        number
            Of the mode, from 0.

        Raises
        ------
        InputError
            There is no such mode.
        """
        if not (isinstance(number, (int, np.integer)) and 0 <= number < len(self.frequencies)):
            raise InputError(f"mode {number}: there are {len(self.frequencies)}, counted from 0")
        whole = np.zeros(3 * len(self.atoms))
        whole[free_coordinates(self.atoms)] = _gathered(self.spectrum.vectors[number])
        return whole.reshape(-1, 3)

    def write(self, path: str | os.PathLike[str], *, unit: str = UNITS.frequency, amplitude: float = 0.3) -> None:
        """Write all modes for a viewer of molecules: .xyz or .extxyz, .nmd, .molden, or .traj.

        Collective; rank 0 writes.

        Parameters
        ----------
        path
            Of a .traj, each mode has a file of its own, `FILE_01.traj` and so on, in which it swings.
        unit
            Of frequencies, as `Units` names them; Molden's are in cm⁻¹ always.
        amplitude
            Of the atom that moves most, in Å, in a trajectory. Else displacements have norm 1 over all atoms.

        Raises
        ------
        InputError
            Another suffix, or a file that cannot be written.
        """
        per = UNITS.to(unit).factor / UNITS.factor
        names = Frequencies(per * self.frequencies, per * self.errors, self.frequencies, unit)
        comm = self.hessian.objective.comm
        write_mode_files(path, self.atoms, names, self.displacements, comm, amplitude)

    def close(self) -> None:
        """Destroy the vectors and the Hessian.

        Collective.
        """
        self.spectrum.close()
        self.hessian.close()

    def __enter__(self) -> NormalModes:
        """Return the modes themselves."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close them."""
        self.close()


def _shown(frequency: float) -> str:
    return f"{abs(frequency):.2g}{'i' if frequency < 0 else ''}"


def normal_modes(
    atoms: Atoms,
    k: int | None = None,
    *,
    cutoff: float | None = None,
    reach: str | int | None = None,
    project: bool = True,
    own: bool = True,
    molecule: bool = False,
    checkpoint: Checkpoint | None = None,
    comm: MPI.Comm | None = None,
    progress: Callable[[int, int], None] | None = None,
    **how: Any,
) -> NormalModes:
    """Return the lowest normal modes of some atoms, certified, rigid motions apart.

    Collective on `comm`. Rigid motions are projected out, whatever forces are left, and the result tells what that
    has changed: only at rest are they null vectors of the Hessian.

    Parameters
    ----------
    atoms, cutoff, reach, own, molecule, comm
        See `from_atoms`. Where the cut-off of a calculator is not known, all coordinates are taken for coupled as
        long as they are no more than 1,000.
    k
        How many vibrations, rigid motions apart; default all of them up to 1,000 coordinates, else the 100 lowest.
    project
        Whether to do so; else what the Hessian gives rigid motions is among the modes, and k counts them.
    checkpoint
        See `assemble` and `eigs`.
    progress
        Called as progress(colours begun, colours) on every rank, such as a `sparsehess.Progress`.
    how
        Other arguments of `eigs`, such as `which` or `interval` (in eV/Å²/amu).

    Returns
    -------
    NormalModes
        The caller closes them.

    Raises
    ------
    InputError, EvaluationError, CheckError, NotConverged
        See `from_atoms`, `assemble` and `eigs`.

    Examples
    --------
    Two bonds of a copper trimer in a line, held at one end:

    >>> from ase import Atoms
    >>> from ase.calculators.emt import EMT
    >>> from ase.constraints import FixAtoms
    >>> from sparsehess.hosts.ase import normal_modes
    >>> wire = Atoms("Cu3", [[0, 0, 2.3 * i] for i in range(3)], constraint=FixAtoms([0]), calculator=EMT())
    >>> with normal_modes(wire) as modes:
    ...     print(len(modes.frequencies), modes.spectrum.count.certified, modes.displacements(0).shape)
    4 True (3, 3)

    It turns about the atom that is held in two ways: four of six coordinates vibrate.
    """
    objective, state, turned = describe(atoms, cutoff, reach, None, project, own, comm, {}, ALL_COUPLED, molecule)
    k = _how_many(k, objective, state, how)
    try:
        hessian = assemble(objective, progress=progress, checkpoint=checkpoint)
    except CheckError as error:
        if objective.hvp is None or type(error) is not CheckError:
            raise
        name = type(atoms.calc).__name__
        raise CheckError(
            f"{error}. The products are those of {name} itself: own=False, on a command line --differences, takes "
            "differences of its forces"
        ) from error
    try:
        spectrum = eigs(hessian, k, checkpoint=checkpoint, **how)
    except BaseException:
        hessian.close()
        raise
    values, zero, projection = spectrum.eigenvalues, spectrum.zero, spectrum.projection
    raw, resisted = values, 0.0
    if projection is not None:
        raw = values + projection.moved
        resisted = float(UNITS.of_eigenvalues(projection.resisted)[projection.farthest])
    errors = np.zeros(len(values)) if spectrum.errors is None else spectrum.errors
    if objective.hvp is not None and objective.gradient is not None and len(values):
        errors = errors + error_beside_forces(hessian)
        spectrum = replace(spectrum, errors=errors)  # `total_errors` has them, too
    zero = zero | spectrum.unsure
    total = spectrum.total_errors
    told = max(spectrum.error_bound or 0.0, *total, *spectrum.roundings, 0.0)
    return NormalModes(
        atoms=snapshot(atoms),
        hessian=hessian,
        spectrum=spectrum,
        frequencies=UNITS.of_eigenvalues(values),
        errors=UNITS.of_errors(values, total),
        imaginary=(values < 0) & ~zero,
        zero=zero,
        rigid=_rigid_frequencies(hessian),
        resisted=resisted,
        moved=UNITS.of_eigenvalues(raw) - UNITS.of_eigenvalues(values),
        outside=outside(hessian, turned).doubt(told) if len(values) else "",
        **state._asdict(),
    )


def _how_many(k: int | None, objective: Objective, state: State, how: dict[str, Any]) -> int | None:
    """Return how many modes to ask for; None where what else is asked says it, or there are none. Not collective.

    Raises
    ------
    InputError
        More vibrations are asked for than there are.
    """
    there = objective.n - len(objective.null_names)
    if isinstance(k, (int, np.integer)) and k > there:
        raise InputError(f"k={k}, but of {objective.n} coordinates {there} vibrate; {state.shape}")
    if k is not None or how.get("interval") is not None or how.get("which") == "negative":
        return k
    return (there if objective.n <= ALL_COUPLED else min(there, _LOWEST)) or None


def _rigid_frequencies(hessian: Hessian) -> dict[str, float]:
    """Return the frequencies in cm⁻¹ of the null vectors, by name. Collective."""
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
    frequencies = UNITS.of_eigenvalues(np.array(curvatures)).tolist()
    return dict(zip(objective.null_names, frequencies, strict=True))


def vibrations_data(hessian: Hessian, atoms: Atoms) -> VibrationsData:
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

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> import sparsehess as sh
    >>> from sparsehess.hosts.ase import vibrations_data
    >>> atoms = molecule("H2O", calculator=EMT())
    >>> with sh.assemble(sh.from_atoms(atoms)) as hessian:
    ...     data = vibrations_data(hessian, atoms)
    >>> data.get_hessian_2d().shape
    (9, 9)
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


def hessian_function(
    atoms: Atoms,
    *,
    cutoff: float | None = None,
    reach: str | int | None = None,
    comm: MPI.Comm | None = None,
    **how: Any,
) -> np.ndarray:
    """Return (3 atoms, 3 atoms) the dense Hessian in eV/Å² of all coordinates, for sella's `hessian_function=`.

    Collective on `comm`. Sella wants a dense matrix: colouring saves force calls, not memory. Coordinates that
    are held belong to it too, as sella projects its constraints out itself. With other arguments:
    `Sella(atoms, hessian_function=functools.partial(hessian_function, cutoff=5.0))`.

    Parameters
    ----------
    atoms, cutoff, reach, comm
        See `from_atoms`.
    how
        Other arguments of `assemble`.

    Raises
    ------
    InputError, EvaluationError, CheckError
        See `from_atoms` and `assemble`.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> from sparsehess.hosts.ase import hessian_function
    >>> hessian_function(molecule("H2O", calculator=EMT())).shape
    (9, 9)
    """
    whole = atoms.copy()
    whole.set_constraint()
    whole.calc = atoms.calc
    with assemble(from_atoms(whole, cutoff=cutoff, reach=reach, project=False, comm=comm), **how) as hessian:
        return dense(hessian.mat)


def dense(matrix: PETSc.Mat) -> np.ndarray:
    """Return the whole of a matrix as an array on every rank.

    Collective.
    """
    indptr, indices, data = matrix.getValuesCSR()
    own = scipy.sparse.csr_matrix((data, indices, indptr), (len(indptr) - 1, matrix.getSize()[1]))
    return scipy.sparse.vstack(communicator(matrix.comm).allgather(own)).toarray()


def _gathered(vector: PETSc.Vec) -> np.ndarray:
    """Return the whole of a vector on every rank. Collective."""
    return np.concatenate(communicator(vector.comm).allgather(vector.getArray(readonly=True)))
