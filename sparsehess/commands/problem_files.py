"""Problems by name: `file.py:name` or `package.module:name` to an `Objective`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsehess.errors import InputError, did_you_mean, no_such_file, raised, words_of
from sparsehess.runtime import Guard, agreement, child, guard_of, share_guard
from sparsehess.storage.matrix_address import is_named_matrix

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.derivatives.objective import Objective


def is_problem(text: str) -> bool:
    """Return whether a command-line argument names a problem rather than a file.

    Not collective.
    """
    place, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and bool(place) and not is_named_matrix(text)


def parse_settings(pairs: list[str]) -> dict[str, object]:
    """Return {key: value} of `key=value` texts; values are Python literals, else text.

    Not collective.
    """
    result = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (equals and key.isidentifier()):
            raise InputError(f"--set {pair}: write --set key=value")
        try:
            result[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            result[key] = value
    return result


def load_objective(text: str, given: dict[str, object], comm: MPI.Comm) -> Objective:
    """Return the objective that `place:name` stands for.

    Collective. The name is an `Objective`, or a callable that returns one; a callable gets the
    settings, and a communicator of its own if it has an argument `comm`.

    Raises
    ------
    InputError
        Nothing of that name, arguments that do not fit, or not an objective.
    """
    from sparsehess.derivatives.objective import (
        Objective,  # needs PETSc, which those who only ask for names do without
    )

    place, _, name = text.rpartition(":")
    theirs = child(comm, "problem", comm.Dup)  # what the user's code calls on it cannot meet what we call on ours
    with agreement(comm):
        found = find_named(place, name, guard_of(comm))
        if callable(found) and not isinstance(found, Objective):
            arguments = _arguments(found, text, given, theirs)
        elif given:
            raise InputError(f"{text} is not callable: --set {', '.join(given)} has nothing to set: leave it out")
    if isinstance(found, Objective):
        share_guard(comm, found.comm)
        return found
    if not callable(found):
        raise InputError(
            f"{text} is neither an Objective nor a callable, but {type(found).__name__}: a "
            f"problem is a function that returns one{_by_door(found)}"
        )
    with agreement(comm):
        try:
            with guard_of(comm).watch_call(text):
                objective = found(**arguments)
        except (InputError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the user's code may raise anything
            raise InputError(f"{raised(text, error)}; -v shows where") from error
        if not isinstance(objective, Objective):
            raise InputError(
                f"{text} must return an Objective, not {type(objective).__name__}: return sparsehess.Objective(…)"
                f"{_by_door(objective)}"
            )
    share_guard(comm, objective.comm)
    return objective


def _by_door(found: object) -> str:
    """Return what makes an objective of something that is none; empty where nothing is known of it."""
    if type(found).__name__ == "Atoms" and type(found).__module__.partition(".")[0] == "ase":
        return ", here return sparsehess.from_atoms(atoms)"
    return ""


def find_named(
    place: str, name: str, guard: Guard, wanted: str = "function of it that returns an Objective"
) -> Any:
    """Return what a file or module has under a name, importing it.

    Not collective.

    Parameters
    ----------
    wanted
        What should stand there, for messages.

    Raises
    ------
    InputError
        There is no such file, module or name, or its import fails.
    """
    try:
        if place.endswith(".py"):
            path = Path(place).resolve()
            if not path.is_file():
                raise no_such_file(place)
            if str(path.parent) not in sys.path:
                sys.path.insert(0, str(path.parent))  # so that it finds its neighbours, as a script does
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise InputError(f"{place}: not a module of Python: its name must end with .py")
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            with guard.watch_call(f"the import of {place}"):
                spec.loader.exec_module(module)
        else:
            with guard.watch_call(f"the import of {place}"):
                module = importlib.import_module(place)
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # importing runs the user's code
        why = f"{type(error).__name__}: {words_of(error)}".removesuffix(": ")
        raise InputError(f"{place} cannot be imported: {why}; -v shows where") from error
    if not hasattr(module, name):
        meant = did_you_mean(name, (one for one in vars(module) if not one.startswith("_")))
        raise InputError(f"{place} has nothing called {name!r}; {meant or f'name a {wanted}'}")
    return getattr(module, name)


def _arguments(
    found: Callable[..., object], text: str, given: dict[str, object], comm: MPI.Comm
) -> dict[str, object]:
    signature = inspect.signature(found)
    arguments = dict(given)
    if "comm" in signature.parameters:
        arguments["comm"] = comm
    try:
        signature.bind(**arguments)
    except TypeError as error:
        known = ", ".join(key for key in signature.parameters if key != "comm")
        raise InputError(f"{text}: {error}; it takes {known or 'nothing'}") from error
    return arguments
