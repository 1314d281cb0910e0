"""Which atoms a calculator couples: cut-offs, how far they reach, and the pattern of neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from ase import Atoms

# How far a coupling reaches, in cut-offs. A pair potential couples two atoms within the cut-off. In others the
# energy of an atom depends on all its neighbours, which couples these with each other.
REACHES = {"pair": 1, "many-body": 2}

SKIN = 0.1  # Å: a step may bring pairs within the cut-off that are beyond it by less

# (Cut-off in Å, reach) of ASE's own calculators. Some know their cut-off only after they have evaluated forces.
_CALCULATORS: dict[str, Callable[[Any], tuple[float, str]]] = {
    "LennardJones": lambda calc: (calc.parameters["rc"], "pair"),
    "MorsePotential": lambda calc: (calc.parameters["rcut2"] * calc.parameters["r0"], "pair"),
    "EMT": lambda calc: (calc.rc_list, "many-body"),
    "EAM": lambda calc: (calc.cutoff, "many-body"),
    "Tersoff": lambda calc: (max(one.R + one.D for one in calc.parameters.values()), "many-body"),
}


def calculator_kind(atoms: Atoms) -> str | None:
    """Return as which calculator of known cut-off that of the atoms counts; None if it is no such.

    Not collective.
    """
    return next((kind.__name__ for kind in type(atoms.calc).__mro__ if kind.__name__ in _CALCULATORS), None)


def is_of_ase(calculator: Any) -> bool:
    """Return whether a calculator is one of those of ASE's that have a known cut-off, and no subclass.

    Not collective. These work in memory alone.
    """
    kind = type(calculator)
    return kind.__name__ in _CALCULATORS and kind.__module__.startswith("ase.")


def extent_of(atoms: Atoms, cutoff: float | None, reach: str | int | None) -> tuple[float, int]:
    """Return the cut-off in Å, and the number of cut-offs that a coupling reaches.

    Not collective. Arguments are those of `from_atoms`.

    Raises
    ------
    InputError
        They are none, or the cut-off is not known.
    """
    kind = calculator_kind(atoms)
    if cutoff is None:
        if kind is None:
            raise InputError(
                f"the cut-off of {type(atoms.calc).__name__} is not known: give cutoff=… in Å (numpy.inf if all "
                "atoms interact) and reach='pair', 'many-body' or a number, or pattern='detect' to have it probed"
            )
        cutoff, own = _CALCULATORS[kind](atoms.calc)
        reach = own if reach is None else reach
    elif reach is None:
        reach = "many-body" if kind is None else _CALCULATORS[kind](atoms.calc)[1]
    hops = REACHES.get(reach, reach) if isinstance(reach, str) else reach
    if not isinstance(hops, (int, np.integer)) or hops < 1:
        raise InputError(f"reach={reach!r} is neither {' nor '.join(REACHES)} nor a whole number of cut-offs")
    if not reals(cutoff, "cutoff") > 0:
        raise InputError(f"cutoff={cutoff} must be a distance above 0, in Å")
    return float(cutoff), int(hops)


def knows_cutoff(atoms: Atoms) -> bool:
    """Return whether the cut-off of the calculator is known, if only after it has evaluated forces.

    Not collective.
    """
    return calculator_kind(atoms) is not None


def known_extent(atoms: Atoms, cutoff: float | None, reach: str | int | None) -> float:
    """Return the distance in Å past which no two atoms are coupled; infinite where nothing is known of it.

    Not collective. Arguments are those of `from_atoms`.
    """
    if cutoff is None and calculator_kind(atoms) is None:
        return np.inf
    extent, hops = extent_of(atoms, cutoff, reach)
    return hops * (extent + SKIN)


def neighbor_pattern(atoms: Atoms, free: np.ndarray, cutoff: float, hops: int, comm: MPI.Comm) -> Pattern:
    """Return the pattern of free coordinates, of atoms that a chain of `hops` neighbours joins.

    Collective.
    """
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
