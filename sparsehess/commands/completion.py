"""Completion of the command line by a shell, from the parser itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.commands.arguments import CommandLine
from sparsehess.errors import StackError

if TYPE_CHECKING:
    from mpi4py import MPI

# Values that may be others too, such as files, and are therefore no choices of the parser. They are written down
# here: a shell that starts on a login node is not to load MPI.
OFTEN: Mapping[str, tuple[str, ...]] = {
    "method": (
        *("auto", "krylovschur", "oneshift", "lobpcg", "gd", "jd", "slicing"),
        *("feast", "ciss", "filter", "dense", "structure", "power", "lanczos"),
    ),
    "coloring": ("star", "acyclic", "cpr", "distance2", "powell-toint"),
    "order": (
        *("best", "natural", "chunks", "largest-first", "smallest-last", "incidence-degree"),
        *("distance2-largest-first", "distance2-smallest-last", "distance2-incidence-degree"),
        *("hubs-first", "random"),
    ),
    "pattern": ("given", "detect", "near"),
    "nullspace": ("constant", "rigid", "none"),
    "participation": ("rigid",),
    "threshold": ("gap",),
    "calculator": ("emt", "lj", "morse", "eam", "tersoff", "tblite", "xtb", "mace_mp", "gpaw", "orca", "vasp"),
    "reach": ("pair", "many-body"),
}


def run_completion(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """Print what a shell reads to complete commands, flags, choices and names of files. Not collective."""
    try:
        import shtab
    except ImportError as error:
        raise StackError("completion is made by shtab: pip install shtab, or sparsehess[completion]") from error
    for parser in line.parsers.values():
        for action in parser._actions:
            _tell_values(action, shtab.FILE, shtab.DIRECTORY)
    sys.stdout.write(f"{shtab.complete(line.parser, arguments.shell)}\n")
    return errors.DONE


def _tell_values(action: argparse.Action, file: object, folder: object) -> None:
    """Write into an action what stands for it: choices, or a name of a file or a folder, in shtab's words."""
    name = str(action.metavar or "")
    if action.choices is None and action.dest in OFTEN:
        action.choices = OFTEN[action.dest]
    elif name.startswith(("DIR", "SPOOL")):
        action.complete = folder  # type: ignore[attr-defined]
    elif name.startswith(("FILE", "INPUT", "RESULT", "PATTERN", "PROBLEM", "JOB.")):
        action.complete = file  # type: ignore[attr-defined]
