"""Atoms of a structure file, and calculators by name: what `modes` reads."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsehess.commands.problem_files import find_named, is_problem, parse_settings
from sparsehess.errors import InputError, StackError, did_you_mean, no_such_file, raised, words_of
from sparsehess.runtime import agreement, guard_of, on_root, optional

if TYPE_CHECKING:
    from mpi4py import MPI

    from ase import Atoms

    from sparsehess.runtime.guards import Guard

# Calculators that live outside ASE, by the names that people call them.
_OUTSIDE = {
    "tblite": "tblite.ase:TBLite",
    "xtb": "xtb.ase.calculator:XTB",
    "mace": "mace.calculators:MACECalculator",
    "mace_mp": "mace.calculators:mace_mp",
    "mace_off": "mace.calculators:mace_off",
}


def is_slice(frames: str) -> bool:
    """Return whether frames are several, as `:` or `0:100:10`, or a single one.

    Not collective.

    Raises
    ------
    InputError
        They are neither.
    """
    if re.fullmatch(r"-?\d+", frames):
        return False
    parts = re.fullmatch(r"(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?", frames)
    if parts is not None and int(parts[3] or 1):
        return True
    raise InputError(f"--frames {frames}: a number, from 0, or a slice as of Python: 0:, 10:20, ::5")


def load_atoms(path: str, frame: int, comm: MPI.Comm) -> Atoms:
    """Return the atoms of a file in any format that ASE reads, the same on every rank.

    Collective; rank 0 reads.

    Parameters
    ----------
    frame
        Of several, from 0, or from the end where it is negative.

    Raises
    ------
    StackError
        ASE is not installed.
    InputError
        No such file, or ASE does not read it.
    """
    _refuse_problem(path)
    atoms: Atoms = on_root(comm, _read, path, frame)
    return atoms


def load_frames(path: str, frames: str, comm: MPI.Comm) -> tuple[list[int], list[Atoms]]:
    """Return structures of a file, and which of its frames they are, the same on every rank.

    Collective; rank 0 reads.

    Parameters
    ----------
    frames
        In the notation of ASE, as of Python: `:` or `0:` for all, `0:100:10`, `-20:`.

    Raises
    ------
    StackError, InputError
        As `load_atoms`; or there are none.
    """
    _refuse_problem(path)
    numbers, structures = on_root(comm, _read_frames, path, frames)
    return numbers, structures


def _refuse_problem(path: str) -> None:
    if is_problem(path):
        raise InputError(f"{path}: a file of atoms and --calculator are wanted here; eigs takes a problem")
    optional("ase", "a file of atoms", "ase")


def _read_frames(path: str, frames: str) -> tuple[list[int], list[Atoms]]:
    structures: list[Atoms] = _read(path, ":")
    chosen = slice(*(int(end) if end else None for end in frames.split(":")))
    numbers = list(range(len(structures)))[chosen]
    if not numbers:
        raise InputError(f"{path}: of its {len(structures)} frames none is in {frames}: give other --frames")
    return numbers, structures[chosen]


def _read(path: str, frame: int | str) -> Any:
    from ase.io import read

    if not os.path.isfile(path):
        raise no_such_file(path)
    try:
        return read(path, index=frame, parallel=False)  # one rank calls it
    except (IndexError, StopIteration) as error:
        raise InputError(f"{path}: there is no frame {frame}: give another --frames") from error
    except Exception as error:  # whatever a reader meets in a file of another kind
        why = f"{type(error).__name__}: {words_of(error)}".removesuffix(": ")
        raise InputError(f"{path}: ASE does not read it as atoms: {why}") from error


def load_calculator(text: str, settings: list[str], comm: MPI.Comm) -> Any:
    """Return a calculator by its name, one on every rank.

    Collective.

    Parameters
    ----------
    text
        A name of ASE's, `name:key=value,key=value`, or `file.py:name` or `package.module:name` of a calculator, or
        of a class or function that returns one.
    settings
        `key=value` texts: more arguments.

    Raises
    ------
    InputError
        Nothing of that name, arguments that do not fit, or what is no calculator.
    StackError
        A package that the calculator needs is missing.
    """
    with agreement(comm):
        return _maker(text, settings, guard_of(comm))()


def calculator_maker(text: str, settings: list[str], comm: MPI.Comm) -> Callable[[], Any]:
    """Return what makes calculators by a name, each time a new one; see `load_calculator`.

    Collective. What is an object of a file is that object each time. `__qualname__` of what is returned has name,
    settings, and a digest of the file where there is one.

    Raises
    ------
    InputError, StackError
        None can be made.
    """
    with agreement(comm):
        make = _maker(text, settings, guard_of(comm))
        make()
        make.__qualname__ = " ".join([text, *settings, *_digest_of(text)])
    return make


def _digest_of(text: str) -> list[str]:
    """Return a digest of the file that a calculator is of, if it is of one. Not collective."""
    place = Path(text.rpartition(":")[0])
    return [hashlib.sha256(place.read_bytes()).hexdigest()[:16]] if place.suffix == ".py" else []


def _maker(text: str, settings: list[str], guard: Guard) -> Callable[[], Any]:
    """Return what makes calculators of a name. Not collective."""
    from ase.calculators.calculator import names

    given = parse_settings(settings)
    place, _, name = text.rpartition(":")
    if is_problem(text) and place not in (*names, *_OUTSIDE):
        found, called = find_named(place, name, guard, "calculator"), text
    else:
        called, _, inline = text.partition(":")
        given = _inline(inline, text) | given
        found = _by_name(called)
    if given and not callable(found):
        raise InputError(f"{text} is not callable: --set {', '.join(given)} has nothing to set: leave it out")

    def make() -> Any:
        made = _called(found, called, given) if callable(found) else found
        if not callable(getattr(made, "get_potential_energy", None)):
            raise InputError(f"{text} is no calculator of ASE, but {type(made).__name__}")
        return made

    return make


def _inline(text: str, whole: str) -> dict[str, object]:
    """Return the arguments that stand behind a name."""
    pairs = [pair for pair in text.split(",") if pair]
    if any("=" not in pair for pair in pairs):
        raise InputError(f"--calculator {whole}: write name:key=value,key=value, or file.py:name")
    return parse_settings(pairs)


def _by_name(name: str) -> Any:
    """Return the class of a calculator, or a function that makes one."""
    from ase.calculators.calculator import external_calculators, get_calculator_class, names

    try:
        if name in _OUTSIDE and name not in external_calculators:
            module, _, attribute = _OUTSIDE[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name.lower() in names:
            name = name.lower()
        return get_calculator_class(name)
    except ImportError as error:
        missing = getattr(error, "name", None) or ""
        if missing != f"ase.calculators.{name}" and (name in names or name in _OUTSIDE):
            raise StackError(f"--calculator {name}: {words_of(error)}: install it with pip or conda") from error
        raise _unknown(name, names) from error
    except AttributeError as error:
        raise _unknown(name, names) from error


def _unknown(name: str, names: list[str]) -> InputError:
    meant = did_you_mean(name, [*names, *_OUTSIDE])
    return InputError(
        f"--calculator {name}: ASE has none of that name; {meant or 'such as emt, lj, tblite or gpaw'}; any other "
        "is file.py:name or package.module:name"
    )


def _called(found: Any, text: str, given: dict[str, object]) -> Any:
    try:
        return found(**given)
    except (InputError, KeyboardInterrupt):
        raise
    except ImportError as error:
        raise StackError(f"--calculator {text}: {words_of(error)}: install it with pip or conda") from error
    except BaseException as error:  # a calculator's code may raise anything
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        told = raised(f"--calculator {text}, called with {arguments or 'no argument'},", error)
        raise InputError(f"{told}; give its arguments by --set key=value") from error
