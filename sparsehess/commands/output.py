"""How commands answer: lines for people, facts as JSON, by the first rank."""

from __future__ import annotations

from collections.abc import Callable

from sparsehess import runtime
from sparsehess.errors import InputError
from sparsehess.runtime import agreement, memory
from sparsehess.storage import writers

SCHEMA = 1


def answer(arguments, comm, facts: dict, lines: str, draw: Callable[[], None] | None = None) -> None:
    """Print the lines and write the facts, as far as the arguments ask for it.

    Collective; the first rank does it.

    Parameters
    ----------
    draw
        Called first, to write a picture.
    """
    with agreement(comm):
        if comm.rank == 0:
            if draw is not None:
                draw()
            if not arguments.quiet and arguments.json != "-":
                print(lines)
            if arguments.json is not None:
                writers.write_json(arguments.json, facts)


def ranks(comm) -> dict:
    """Return what JSON says of the processes. Collective."""
    return {
        "memory": comm.allreduce(memory.peak_memory()),
        "mpi": {"size": comm.size, "threads": runtime.threads()},
    }


def no_solver(options: dict) -> None:
    """Refuse PETSc options of a solver where there is none. Not collective."""
    if options:
        raise InputError(f"-{next(iter(options))}: this command solves no eigenproblem")
