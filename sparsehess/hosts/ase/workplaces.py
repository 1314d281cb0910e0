"""Where calculators work: those that write files get a folder on each rank, so that none writes over another's."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

from sparsehess.hosts.ase.couplings import is_of_ase
from sparsehess.runtime import log, on_root

if TYPE_CHECKING:
    from ase import Atoms

# Seconds after which a file that is written again has another time on any file system.
_TICK = 0.02

# What Python itself writes beside a module.
_OF_PYTHON = "__pycache__"


class Workplace:
    """Where a calculator works, a context manager around its calls; this one changes nothing.

    *Not collective.*
    """

    folder = ""

    def __enter__(self) -> None:
        """Go there."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Come back."""


class OwnFolder(Workplace):
    """A folder below the one where a calculator works.

    Parameters
    ----------
    calculator
        Whose calls are made within.
    folder
        Its name.
    moves
        Whether the process goes there, and not only the `directory` of the calculator.
    """

    def __init__(self, calculator: Any, folder: str, moves: bool) -> None:
        self._calculator, self.folder, self._moves = calculator, folder, moves
        self._before: tuple[str, Any] = ("", None)

    def __enter__(self) -> None:
        """See `Workplace`; the folder is made where it is missing."""
        here, directory = os.getcwd(), getattr(self._calculator, "directory", None)
        self._before = here, directory
        if self._moves:
            os.makedirs(self.folder, exist_ok=True)
            os.chdir(self.folder)
        if directory is None:
            return
        if self._moves and not os.path.isabs(str(directory)):
            os.makedirs(str(directory), exist_ok=True)
            return
        own = os.path.join(str(directory), self.folder)
        os.makedirs(own, exist_ok=True)
        self._calculator.directory = own

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """See `Workplace`."""
        here, directory = self._before
        os.chdir(here)
        if directory is not None:
            self._calculator.directory = directory


def works_in_files(calculator: Any) -> bool:
    """Return whether a calculator says that it works by files in its `directory`.

    Not collective.
    """
    from ase.calculators.calculator import FileIOCalculator
    from ase.calculators.genericfileio import GenericFileIOCalculator

    return isinstance(calculator, (FileIOCalculator, GenericFileIOCalculator))


def call_once(atoms: Atoms) -> None:
    """Call the calculator of some atoms for forces, or for the energy where it has none.

    Not collective.
    """
    from ase.calculators.calculator import PropertyNotImplementedError

    try:
        atoms.get_forces()
    except PropertyNotImplementedError:
        atoms.get_potential_energy()


def find_workplace(calculator: Any, evaluate: Callable[[], object], comm: MPI.Comm) -> Workplace:
    """Return where each rank is to call a calculator, so that no two write the same files.

    Collective. On one rank it works where it does. On several, one that says that it works in files has a folder
    for each, `rank_0` and so on, below its own. Others rank 0 calls once while the rest waits, and looks whether
    files have changed where it works: then the process goes to such a folder for each call.

    Parameters
    ----------
    evaluate
        Calls the calculator; what it raises is passed over here.
    """
    name = f"rank_{comm.rank}"
    if comm.size == 1 or comm.bcast(is_of_ase(calculator)):
        return Workplace()
    if comm.bcast(works_in_files(calculator)):
        return OwnFolder(calculator, name, False)
    moves = on_root(comm, moves_apart, calculator, evaluate)
    return OwnFolder(calculator, name, True) if moves else Workplace()


def moves_apart(calculator: Any, evaluate: Callable[[], object]) -> bool:
    """Return whether a calculator writes files where it works, and say so.

    Not collective; nobody else is to write there meanwhile.

    Parameters
    ----------
    evaluate
        Calls the calculator; what it raises is passed over here.
    """
    written = _written(calculator, evaluate)
    if written:
        log.warning(
            "%s writes files where it works (%s): each rank calls it in a folder of its own, rank_0 and so on, "
            "below that; give it absolute paths of what it reads",
            type(calculator).__name__,
            ", ".join(written),
        )
    return bool(written)


def _written(calculator: Any, evaluate: Callable[[], object]) -> list[str]:
    """Return which files change where a calculator works as it is called. Not collective."""
    directory = getattr(calculator, "directory", None)
    places = {Path.cwd(), Path.cwd() / str(directory or ".")}
    time.sleep(_TICK)
    before = _seen(places)
    with suppress(Exception):  # whatever a calculator raises, it raises again
        evaluate()
    after = _seen(places)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    names = sorted({os.path.basename(name) for name in changed if name not in map(str, places)})
    if names == [_OF_PYTHON]:
        return []
    return names[:3] or (["some that it removes"] if changed else [])


def _seen(places: set[Path]) -> dict[str, tuple[int, int, int]]:
    """Return marks of folders and of what is in them, without where this process prints to. Not collective."""
    found, printed = {}, set()
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            there = os.fstat(stream.fileno())  # type: ignore[union-attr]
            printed.add((there.st_dev, there.st_ino))
    for place in places:
        with suppress(OSError):
            for path in (str(place), *(entry.path for entry in os.scandir(place))):
                with suppress(OSError):
                    state = os.stat(path)
                    if (state.st_dev, state.st_ino) not in printed:
                        found[path] = (state.st_mtime_ns, state.st_size, state.st_ino)
    return found
