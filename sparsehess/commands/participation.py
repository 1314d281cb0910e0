"""Effective modal masses on the command line: directions from files, the table, the facts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.commands import flag_groups
from sparsehess.commands.reports.tables import format_table
from sparsehess.errors import InputError
from sparsehess.mechanics.effective_masses import EffectiveMasses, participation_of
from sparsehess.mechanics.rigid_vectors import (
    LETTERS,
    check_dofs,
    check_fixed,
    check_point,
    check_positions,
    free_dofs,
    rigid_rows,
)
from sparsehess.runtime import agreement, require_real
from sparsehess.storage import array_files

if TYPE_CHECKING:
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.runtime.row_layout import Layout

_UNFINISHED = (
    "the count knows more eigenvalues just beyond those of the table: where one is the same as its last, that row "
    "lacks the mass of it; ask for more"
)

_OF_NODES = {"dofs": None, "fixed": None}
_ABOUT = {"about": None}


def check_participation(arguments: argparse.Namespace) -> None:
    """Refuse flags of effective masses that contradict each other. Not collective; alike on all ranks."""
    idle = _ABOUT if arguments.mesh is not None else _OF_NODES | _ABOUT
    if arguments.participation is None:
        flag_groups.refuse_flags(
            arguments, idle, "for effective masses, or a mesh; give --participation rigid or --mesh too"
        )
    elif arguments.participation != "rigid":
        flag_groups.refuse_flags(arguments, idle, "for --participation rigid; a file has its directions")
    elif arguments.coordinates is None:
        raise InputError("--participation rigid: give the positions of the nodes with --coordinates")
    if arguments.participation is not None:
        require_real("--participation")
    if arguments.dofs is not None:
        check_dofs(arguments.dofs)
    if arguments.about is not None:
        check_point(arguments.about)


def find_participation(
    arguments: argparse.Namespace, problem: EigenProblem, spectrum: Spectrum
) -> EffectiveMasses | None:
    """Return the effective masses that are asked for, None where none are. Collective.

    Raises
    ------
    InputError
        There is no mass, or files do not fit the matrices.
    """
    if arguments.participation is None or not spectrum.vectors:
        return None
    if problem.M is None:
        raise InputError("--participation: there is no mass to take part; give --mass FILE, or leave it out")
    if arguments.participation != "rigid":
        rows = array_files.read_vectors(arguments.participation, problem.layout)
        names = [f"direction {number + 1}" for number in range(len(rows))]
        return participation_of(spectrum, problem.M, rows, names, None, len(problem.null))
    about = check_point((0.0,) if arguments.about is None else arguments.about)
    rows, names = _read_motions(arguments, problem.layout, about)
    return participation_of(spectrum, problem.M, rows, names, about, len(problem.null))


def _read_motions(
    arguments: argparse.Namespace, layout: Layout, about: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Return this rank's rows (m, n_local) of the rigid motions, and their names. Collective."""
    path, comm = arguments.coordinates, layout.comm
    nodes, dims = array_files.shape_of_positions(path, comm)
    dofs = LETTERS[:dims] if arguments.dofs is None else arguments.dofs
    every = nodes * len(dofs)
    held = np.empty(0, np.int64)
    if arguments.fixed is not None:
        found = array_files.read_indices(arguments.fixed, comm)
        held = check_fixed(found, every)
    if every - len(held) != layout.n:
        raise InputError(
            f"{path}: {nodes} nodes with dofs {dofs} have {every}, of which {len(held)} are fixed: that leaves "
            f"{every - len(held)}, and the matrix has {layout.n} rows; see --dofs and --fixed"
        )
    parts = []
    for start, stop in zip(layout.starts[:-1].tolist(), layout.starts[1:].tolist(), strict=True):
        ends = free_dofs(every, held, start, stop)[[0, -1]] // len(dofs) if stop > start else np.array([0, -1])
        parts.append(slice(int(ends[0]), int(ends[1]) + 1))
    here = array_files.read_positions(path, comm, parts)
    full = free_dofs(every, held, layout.start, layout.stop) - parts[comm.rank].start * len(dofs)
    with agreement(comm):
        positions = check_positions(here) if len(here) else np.empty((0, 3))
    return rigid_rows(positions, dofs, about, full)


def participation_facts(found: EffectiveMasses | None) -> dict[str, Any]:
    """Return what JSON says of effective masses. Not collective."""
    if found is None:
        return {"participation": None, "effective_mass": None}
    return {"participation": found.facts(), "effective_mass": found.effective_mass.tolist()}


def participation_lines(found: EffectiveMasses | None) -> str:
    """Return effective masses for people: a line and a table; empty where there are none. Not collective."""
    if found is None:
        return ""
    heads = ["mode", *found.names, ""]
    rows, last = [], dict(found.clusters)
    one, k = 0, len(found.effective_mass)
    shares = found.shares
    while one < k:
        stop = last.get(one, one)
        name = str(one + 1) if stop == one else f"{one + 1}-{stop + 1}"
        more = "one multiple eigenvalue: the sum" if stop > one else ""
        rows.append([name, *map(_percent, shares[one : stop + 1].sum(axis=0)), more])
        one = stop + 1
    reached = found.cumulative[-1]
    needed = [
        "-" if not np.isfinite(share) else f"not with {k}" if number is None else str(number)
        for share, number in zip(reached, found.modes_needed(0.9), strict=True)
    ]
    rows += [
        ["all", *map(_percent, reached), ""],
        ["whole", *(f"{one:.6g}" for one in found.whole), ""],
        ["90 %", *needed, ""],
    ]
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    place = "" if found.about is None else f"; rotations about ({', '.join(f'{one:g}' for one in found.about)})"
    return (
        f"\n\neffective masses in percent of the whole{place}\n\n{format_table(heads, rows)}\n\n"
        "whole        r'Mr of the M that was given: what supports carry that were taken out of it is not in it\n"
        "90 %         modes needed for so much of the whole"
        + ("\nnote         " + _UNFINISHED if found.unfinished else "")
    )


def _percent(share: float) -> str:
    """Return a share in percent, a dash where there is no mass."""
    return f"{100 * share:.2f}" if np.isfinite(share) else "-"
