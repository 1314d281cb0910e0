"""Force constants of crystals by ASE's calculators: the atoms of one primitive cell move, in a supercell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.crystals.cells import Crystal, Images
from sparsehess.crystals.force_constants import ForceConstants
from sparsehess.derivatives.consistency import check_consistency
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import DIFFERENCES, Steps, along, plan_check, plan_steps, scheme_of
from sparsehess.derivatives.gradient_noise import Noise, estimate_noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import CheckError, InputError
from sparsehess.hessian.assembly import assemble
from sparsehess.hosts.ase.couplings import known_extent, knows_cutoff
from sparsehess.hosts.ase.moved_atoms import Moved, moved_atoms
from sparsehess.hosts.ase.objective import check_atoms, from_atoms
from sparsehess.runtime import agreement, communicator, optional
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from ase import Atoms

# By this part of a fresh product the force constants may miss it.
_AGREES = 1e-2

# Atoms of a supercell: force constants are held by every rank.
_MOST = 1e7


def force_constants(
    atoms: Atoms,
    supercell: int | Sequence[int] | np.ndarray = 2,
    *,
    cutoff: float | None = None,
    reach: str | int | None = None,
    derivative: str = "auto",
    seed: int = 0,
    comm: MPI.Comm | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ForceConstants:
    """Return the force constants of a crystal, by forces of a supercell.

    Collective on `comm`. By the translations of the crystal the atoms of one primitive cell alone need to move,
    one coordinate at a time: 6 gradients of the supercell for each atom by central differences, and about a dozen
    for their steps and the checks. Where the supercell is so large that no atom feels two of them, those of
    several cells move at once. Ranks share the gradients. Of one cell, not repeated, `assemble` takes the whole
    Hessian by colours.

    Parameters
    ----------
    atoms
        The primitive cell, `ase.Atoms` with a calculator, the same on every rank. The calculator gets supercells.
    supercell
        How often the cell is repeated: a number, three numbers, or a (3, 3) matrix of whole numbers whose rows are
        the vectors of the supercell.
    cutoff, reach
        How far couplings reach, see `from_atoms`; default those of the calculator, where it is known to have any.
    derivative
        As of `assemble`.
    seed
        Of the direction of the check.
    progress
        Called as progress(coordinates begun, coordinates) on every rank.

    Returns
    -------
    ForceConstants
        With `error`, by a fresh product along a random direction, by steps that are none of the columns'.

    Raises
    ------
    InputError
        No cell, no calculator, a constraint, a supercell that is none, or one that repeats atoms along an axis
        along which they do not (`atoms.pbc`).
    CheckError
        The fresh product is missed: by noise, or since couplings reach farther. Or force constants are not
        symmetric: forces do not follow the translations of the crystal.
    StackError, EvaluationError
        ASE is not installed, or the calculator raised.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import sparsehess as sh
    >>> copper = bulk("Cu", a=3.6)
    >>> copper.calc = EMT()
    >>> constants = sh.force_constants(copper, 3)
    >>> constants
    <ForceConstants: Cu, 27 cells, 27 pairs>
    >>> constants.error < 1e-5, constants.drift < 1e-5
    (True, True)
    >>> bands = sh.phonons(constants).bands("GXWKGL", 60)
    >>> bands.certified, bool(bands.modes.imaginary.any()), round(float(bands.modes.frequencies.max()), 1)
    (True, False, 8.0)
    """
    comm = communicator(comm)
    optional("ase", "force_constants", "ase")
    with agreement(comm):
        check_atoms(atoms)
        if atoms.constraints:
            raise InputError("phonons are those of all atoms: take the constraints away, atoms.set_constraint()")
        primitive = _crystal(atoms)
        large = _repeated(atoms, supercell)
        _check_periods(atoms, large)
        cells = primitive, _crystal(large)
        images = Images.found(*cells)
    if images.count == 1:
        return _assembled(large, cells, cutoff, reach, derivative, seed, comm, progress)
    objective = from_atoms(large, pattern="detect", project=False, comm=comm)
    with agreement(comm):
        far = known_extent(large, cutoff, reach)
        moved = moved_atoms(cells[1], images, far)
    return _by_columns(objective, cells, images, moved, derivative, seed, progress)


def _repeated(atoms: Atoms, supercell: int | Sequence[int] | np.ndarray) -> Atoms:
    """Return the supercell, with the same calculator."""
    from ase.build import make_supercell

    given = reals(supercell, "supercell")
    matrix = np.diag(np.broadcast_to(given, 3)) if given.ndim < 2 and given.size in (1, 3) else given
    whole = np.rint(np.where(np.abs(matrix) < _MOST, matrix, 0)).astype(np.int64)  # NaN is none
    times = np.linalg.det(whole) if whole.shape == (3, 3) else 0.0
    if (whole != matrix).any() or times < 0.5:
        raise InputError(
            f"supercell={supercell!r}: give a number, three numbers, or a (3, 3) matrix of whole numbers with a "
            "determinant above 0"
        )
    if times * len(atoms) > _MOST:
        raise InputError(f"supercell={supercell!r} has {times * len(atoms):.3g} atoms: give a smaller one")
    if times * len(atoms) < 1.5:
        raise InputError(f"supercell={supercell!r} of one atom: it feels its own images alone, which move with it")
    large = make_supercell(atoms, whole)
    large.calc = atoms.calc
    large.info = dict(atoms.info)  # by which some calculators choose what they compute
    return large


def _check_periods(atoms: Atoms, large: Atoms) -> None:
    """Refuse copies that no translation makes alike: one beyond another where the crystal has an end."""
    whole = atoms.get_cell().complete().array  # a layer may have no third vector
    times = np.rint(large.get_cell().complete().array @ np.linalg.inv(whole)).astype(np.int64)
    for axis in np.flatnonzero(~atoms.pbc):
        others = np.delete(np.arange(3), axis)
        if times[axis, axis] != 1 or times[axis, others].any() or times[others, axis].any():
            raise InputError(
                f"the atoms do not repeat along axis {axis} of the cell (pbc={atoms.pbc.tolist()}), and the "
                f"supercell repeats them along it: set atoms.pbc, or give 1 there, as supercell="
                f"{tuple(2 if one else 1 for one in atoms.pbc)}"
            )


def _crystal(atoms: Atoms) -> Crystal:
    return Crystal(
        atoms.get_cell().array,
        atoms.get_positions(),
        atoms.get_masses(),
        tuple(atoms.get_chemical_symbols()),
        tuple(atoms.pbc.tolist()),
    )


def _assembled(
    atoms: Atoms,
    cells: tuple[Crystal, Crystal],
    cutoff: float | None,
    reach: str | int | None,
    derivative: str,
    seed: int,
    comm: MPI.Comm,
    progress: Callable[[int, int], None] | None,
) -> ForceConstants:
    """Return those of a cell that is not repeated: its Hessian. Collective."""
    with agreement(comm):
        if cutoff is None and not knows_cutoff(atoms):
            cutoff, reach = np.inf, "pair"
    objective = from_atoms(atoms, cutoff=cutoff, reach=reach, project=False, comm=comm)
    with assemble(objective, derivative=derivative, seed=seed, progress=progress) as hessian:
        indptr, columns, values = hessian.mat.getValuesCSR()
        start = hessian.mat.getOwnershipRange()[0]
        rows = np.repeat(np.arange(start, start + len(indptr) - 1), np.diff(indptr))
        size = float(hessian.mat.norm())
        error = None if hessian.error is None or not size > 0 else float(hessian.error / size)
        spent = sum(hessian.evaluations.get(name, 0) for name in ("gradient", "hvp"))
        hessian.pattern.free()
    parts = comm.allgather((rows, columns, values))
    rows, columns, values = (np.concatenate([part[number] for part in parts]) for number in range(3))
    blocks = np.zeros((len(values), 3, 3))
    blocks[np.arange(len(values)), rows % 3, columns % 3] = values
    return ForceConstants.of_pairs(
        rows // 3, columns // 3, blocks, *cells, error=error, name=objective.name, evaluations=spent
    )


def _by_columns(
    objective: Objective,
    cells: tuple[Crystal, Crystal],
    images: Images,
    moved: Moved,
    derivative: str,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> ForceConstants:
    """Return those of the columns of the atoms that move, checked by a fresh product. Collective."""
    compared = check_consistency(objective, seed=seed)  # forces, energies, and products where there are any
    evaluations = Evaluations(objective, objective.x)
    if progress is not None:
        evaluations.on_color = progress
    scheme = scheme_of(derivative, objective)
    scales = Scales.of(evaluations)
    noise = estimate_noise(evaluations, scales) if scheme in DIFFERENCES else None
    if noise is not None:
        scales = replace(scales, length=noise.length)
    steps = plan_steps(scales, noise, scheme)
    layout = objective.layout
    colors = np.full(layout.n, -1)
    colors[(3 * moved.atoms[:, None] + np.arange(3)).ravel()] = (3 * moved.colors[:, None] + np.arange(3)).ravel()
    changes = along(evaluations, steps, colors[layout.start : layout.stop], 3 * moved.colored)
    whole = _gathered(objective.comm, changes)
    taken = _gathered(objective.comm, steps.taken[None])[0]
    first, atoms = moved.pairs()
    # Of a row the change by the step of coordinate a of the atom that it feels.
    axes = np.arange(3)
    rows = whole.reshape(moved.colored, 3, -1, 3)[moved.colors[first], :, atoms]
    blocks = rows / taken[3 * moved.atoms[first][:, None] + axes][:, :, None]
    error = _missed(evaluations, scales, noise, steps, moved, blocks, first, atoms, seed)
    if not error <= _AGREES:
        raise CheckError(
            f"force constants of {objective.name} miss a fresh product by {error:.1e} of it: forces are noisy, or "
            "couplings reach farther than the cut-off says: give cutoff=numpy.inf, or forces of more digits"
        )
    there = (blocks != 0).any(axis=(1, 2))
    home = images.moved_home(moved.atoms[first], atoms)
    constants = ForceConstants.of_pairs(
        images.of[moved.atoms[first]][there],
        home[there],
        blocks[there],
        *cells,
        error=error,
        name=objective.name,
        evaluations=compared + evaluations.counts["gradient"] + evaluations.counts["hvp"],
    )
    size = float(np.abs(constants.blocks).max(initial=0.0))
    if not constants.asymmetry <= max(_AGREES, 10 * error) * size:
        raise CheckError(
            f"force constants of {objective.name} differ from their mirror images by {constants.asymmetry:.1e} of "
            f"{size:.1e} eV/Å²: forces do not follow the translations of the crystal, so that columns of one cell "
            "are not those of the others: give the whole as one cell, with supercell=1"
        )
    return constants


def _missed(
    evaluations: Evaluations,
    scales: Scales,
    noise: Noise | None,
    steps: Steps,
    moved: Moved,
    blocks: np.ndarray,
    first: np.ndarray,
    atoms: np.ndarray,
    seed: int,
) -> float:
    """Return by which part of it a fresh product along all that move misses that of the blocks. Collective."""
    layout, comm = evaluations.layout, evaluations.comm
    mine = np.zeros(layout.n)
    mine[(3 * moved.atoms[:, None] + np.arange(3)).ravel()] = 1.0
    shape = draw_signed(layout, seed) * mine[layout.start : layout.stop]
    check = plan_check(scales, noise, steps.scheme, shape)
    fresh = _gathered(comm, along(evaluations, check, np.zeros(layout.n_local, np.int64), 1))[0]
    step = _gathered(comm, check.taken[None])[0].reshape(-1, 3)
    ours = np.zeros((layout.n // 3, 3))
    np.add.at(ours, atoms, np.einsum("pab,pa->pb", blocks, step[moved.atoms[first]]))
    return float(np.linalg.norm(fresh - ours.ravel()) / max(np.linalg.norm(fresh), np.finfo(float).tiny))


def _gathered(comm: MPI.Comm, rows: np.ndarray) -> np.ndarray:
    """Return (m, n) of own rows (m, n_local) of all ranks. Collective."""
    return np.concatenate(comm.allgather(rows), axis=1)
