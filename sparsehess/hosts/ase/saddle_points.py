"""Minima and saddle points of ASE's atoms: the index proven, the direction, and how far from rest they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.inverses.stationary_point import StationaryPoint, stationary_point
from sparsehess.errors import InputError
from sparsehess.hessian.assembly import assemble
from sparsehess.hessian.hessian import Hessian
from sparsehess.hosts.ase.invariance import outside
from sparsehess.hosts.ase.objective import ALL_COUPLED, UNITS, describe, free_coordinates, snapshot
from sparsehess.hosts.ase.own_hessians import error_beside_forces
from sparsehess.runtime import communicator
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    from ase import Atoms

# Times what second derivatives of a calculator are apart from its forces: the least eigenvalue whose sign is told.
_SURE = 4.0


@dataclass(frozen=True, eq=False, repr=False)
class SaddlePoint(ShortRepr):
    """What Hessian and forces tell of where some atoms are; made by `saddle_point`.

    *Not collective*, but for `displacements` and `close()`, which destroys the vectors; a context manager.

    Attributes
    ----------
    atoms
        A copy of the atoms that were given, with their calculator.
    point
        What was found of their free coordinates, in eV and Å, rigid motions projected out.
    frequencies, errors
        (m,) of its lowest eigenvalues in cm⁻¹, imaginary ones negative; their error bars.
    rigid
        Names of the motions that were projected out.
    projected
        Whether those that are free were to be.
    hint
        That the atoms seem to be a molecule in a box, and were not taken so; empty where not.
    """

    atoms: Atoms
    point: StationaryPoint
    frequencies: np.ndarray
    errors: np.ndarray
    rigid: tuple[str, ...]
    projected: bool
    hint: str

    @property
    def index(self) -> int:
        """How many vibrations are imaginary. Not collective."""
        return self.point.index

    @property
    def certified(self) -> bool:
        """Whether the index is proven of the Hessian, see `StationaryPoint`. Not collective."""
        return self.point.certified

    @property
    def stationary(self) -> bool | None:
        """Whether the atoms are at rest to `step_tol`; None where none was given. Not collective."""
        return self.point.stationary

    def is_saddle(self, index: int = 1) -> bool:
        """Return whether this is proven to be a saddle point of an index, at rest to `step_tol`; 0 is a minimum.

        Not collective.
        """
        return self.point.is_saddle(index)

    def displacements(self, number: int = 0) -> np.ndarray:
        """Return (atoms, 3) a direction of negative curvature, of norm 1 in the masses (amu^-1/2).

        Collective.

        Parameters
        ----------
        number
            Which one, the lowest first.

        Raises
        ------
        InputError
            There is no such direction.
        """
        found = self.point.directions
        if not (isinstance(number, (int, np.integer)) and 0 <= number < len(found)):
            raise InputError(f"direction {number}: there are {len(found)} of negative curvature, counted from 0")
        whole = np.zeros(3 * len(self.atoms))
        own = found[number].getArray(readonly=True)
        whole[free_coordinates(self.atoms)] = np.concatenate(communicator(found[number].comm).allgather(own))
        return whole.reshape(-1, 3)

    def __str__(self) -> str:
        """Return what was found, for people."""
        modes = zip(self.frequencies, self.errors, strict=True)
        found = self.point
        return "\n".join(
            [
                f"index        {found.index_told}",
                f"lowest       {', '.join(_shown(value, error) for value, error in modes)} cm^-1",
                f"margin       {found.margin:.2g}: the eigenvalue nearest to zero over what may move it",
                f"forces left  {found.gradient_max:.2g} eV/Å at most, norm {found.gradient:.2g}",
                f"newton step  {self._step_told()}",
                f"projected    {', '.join(self.rigid) or self._nothing_told()}",
                f"verdict      {found.verdict}",
                *([f"note         {self.hint}"] if self.hint else []),
            ]
        )

    def _nothing_told(self) -> str:
        return "nothing: no rigid motion is free" if self.projected else "nothing, as it was asked"

    def _step_told(self) -> str:
        found = self.point
        if not found.certified:
            return "not taken: a sign is not told"
        return (
            f"{found.step_max:.2g} Å at most, norm {found.step:.2g}; it changes the energy by "
            f"{found.energy_change:+.2g} eV, and leaves forces of norm {found.left:.2g}"
        )

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.atoms), "atom")
        yield from self.point._repr_facts()

    def close(self) -> None:
        """Destroy the vectors.

        Collective.
        """
        self.point.close()

    def __enter__(self) -> SaddlePoint:
        """Return it."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close it."""
        self.close()


def _shown(frequency: float, error: float) -> str:
    return f"{abs(frequency):.2f}{'i' if frequency < 0 else ''} ± {error:.1g}"


def _beside_forces(hessian: Hessian, point: StationaryPoint) -> str:
    """Return why second derivatives that a calculator has itself prove nothing, "" where they may. Collective."""
    if hessian.objective.hvp is None or hessian.objective.gradient is None:
        return ""
    apart = error_beside_forces(hessian)
    if abs(point.nearest) > _SURE * apart:
        return ""
    return (
        f"second derivatives of the calculator are apart from differences of its forces by {apart:.1g}, and the "
        f"eigenvalue nearest to zero is {point.nearest:.2g} eV/Å²/amu"
    )


def saddle_point(
    atoms: Atoms,
    *,
    step_tol: float | None = None,
    cutoff: float | None = None,
    reach: str | int | None = None,
    project: bool = True,
    own: bool = True,
    molecule: bool = False,
    comm: MPI.Comm | None = None,
    progress: Callable[[int, int], None] | None = None,
    **how: Any,
) -> SaddlePoint:
    """Return of which index the point is where some atoms are, proven, and whether they are at rest there.

    Collective on `comm`. The index is the number of imaginary vibrations: 0 of a minimum, 1 of a transition state.
    It is proven by the inertia of the Hessian of their free coordinates with rigid motions projected out; not
    proven where something else than the forces that are left resists these: a field, a wall, a grid. Nothing is
    said to be at rest without a tolerance; see `stationary_point`.

    Parameters
    ----------
    atoms, cutoff, reach, own, molecule, comm
        See `from_atoms`, and `normal_modes` where a cut-off is not known.
    step_tol
        In Å: the atoms are at rest where no coordinate of the Newton step -H⁻¹g is larger.
    project
        Whether rigid motions are projected out. Else they are among the directions: of free atoms at rest the
        translations are then eigenvalues near zero, and no index is proven.
    progress, how
        See `assemble`.

    Returns
    -------
    SaddlePoint
        The caller closes it.

    Raises
    ------
    InputError, EvaluationError, CheckError, NotConverged, StackError
        See `from_atoms`, `assemble` and `stationary_point`; or nothing vibrates, as of a single atom.

    Examples
    --------
    A copper atom on the bridge between two others of a surface falls to either side:

    >>> from ase.build import add_adsorbate, fcc100
    >>> from ase.calculators.emt import EMT
    >>> from ase.constraints import FixAtoms
    >>> import sparsehess as sh
    >>> slab = fcc100("Cu", (2, 2, 2), vacuum=6.0)
    >>> add_adsorbate(slab, "Cu", 1.95, "bridge")
    >>> slab.set_constraint(FixAtoms(mask=slab.get_tags() > 0))
    >>> slab.calc = EMT()
    >>> with sh.saddle_point(slab, step_tol=0.05) as found:
    ...     print(found.index, found.certified, found.stationary, found.displacements().shape)
    1 True True (9, 3)
    """
    objective, state, turned = describe(atoms, cutoff, reach, None, project, own, comm, {}, ALL_COUPLED, molecule)
    if objective.n == len(objective.null_names):
        raise InputError(f"nothing vibrates, so no index is to be proven; {state.shape}")
    with assemble(objective, progress=progress, **how) as hessian:
        point = stationary_point(hessian, step_tol=step_tol)
        moved_by = abs(point.nearest) / point.margin if point.margin > 0 else np.inf
        doubt = outside(hessian, turned).doubt(moved_by) or _beside_forces(hessian, point)
    if doubt:
        point = replace(point, certified=False, doubt=point.doubt or doubt)
    return SaddlePoint(
        atoms=snapshot(atoms),
        point=point,
        frequencies=UNITS.of_eigenvalues(point.eigenvalues),
        errors=UNITS.of_errors(point.eigenvalues, point.errors),
        rigid=tuple(objective.null_names),
        projected=bool(project),
        hint=state.hint,
    )
