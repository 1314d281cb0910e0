"""Output of commands: lines of text and facts as JSON, by the first rank."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparsehess import runtime
from sparsehess.errors import InputError
from sparsehess.runtime import agreement, memory
from sparsehess.runtime.printable import printable
from sparsehess.storage.json_files import SCHEMA as SCHEMA
from sparsehess.storage.json_files import write_json

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.call import Call


def answer(call: Call, facts: dict[str, Any], lines: str, *draw: Callable[[], None] | None) -> None:
    """Print the lines and write the facts, as far as the arguments ask for it.

    Collective; the first rank does it.

    Parameters
    ----------
    draw
        Called first, each to write a picture or a page; None for nothing.
    """
    with agreement(call.comm):
        if call.comm.rank == 0:
            for one in draw:
                if one is not None:
                    one()
            print_answer(call.arguments, facts, lines)


def print_answer(arguments: argparse.Namespace, facts: dict[str, Any], lines: str) -> None:
    """Print the lines and write the facts, as far as the arguments ask for it. Not collective: rank 0 calls it."""
    if not arguments.quiet and arguments.json != "-":
        print(printable(lines))
    if arguments.json is not None:
        write_json(arguments.json, facts)


def run_facts(call: Call, name: str) -> dict[str, Any]:
    """Return what was run, when, and with which versions. Not collective.

    Parameters
    ----------
    name
        Of the problem, or of the file.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "run": {"command": list(call.arguments.words), "name": name, "seed": call.arguments.seed, "date": now},
        "versions": runtime.versions(),
    }


def process_facts(comm: MPI.Comm) -> dict[str, Any]:
    """Return the facts of the processes: memory, ranks, threads. Collective."""
    return {
        "memory": comm.allreduce(memory.peak_memory()),
        "mpi": {"size": comm.size, "threads": runtime.threads()},
    }


def refuse_solver_options(options: dict[str, object]) -> None:
    """Refuse PETSc options of a solver in a command without one. Not collective."""
    if options:
        raise InputError(f"-{next(iter(options))}: this command solves no eigenproblem; leave it out")
