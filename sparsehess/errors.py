"""What can go wrong, as types: each carries the exit status that the command line ends with."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence

DONE = 0
BUG = 1
UNUSABLE = 2
TOO_FEW = 3
CHECK_FAILED = 4
STOPPED = 75  # told to stop before all was done
INTERRUPTED = 130  # by SIGINT, as of a process that it ends


class SparseHessError(Exception):
    """Base of all errors of the package that are raised on purpose.

    `status` is the exit status of a command that ends with the error.
    """

    status = BUG


class InputError(SparseHessError, ValueError):
    """Arguments, a file or a problem cannot be used; the message says which and how to mend it.

    Raised on all ranks before anything is computed with them. Exit status 2.
    """

    status = UNUSABLE


class Damaged(InputError):
    """A stored file is not what was written."""


class StackError(SparseHessError, RuntimeError):
    """A build of PETSc or SLEPc, or a missing package, cannot do what was asked.

    Raised on all ranks; the message says which build or package can. Exit status 2.
    """

    status = UNUSABLE


class EvaluationError(SparseHessError, RuntimeError):
    """The user's function raised an exception or returned something of the wrong shape.

    Raised on all ranks, though it may have happened on one, which the message names. Exit status 2.
    """

    status = UNUSABLE


class CheckError(SparseHessError, RuntimeError):
    """A check failed: wrong pattern, asymmetric or non-finite derivatives, eigenvalues missed.

    Raised on all ranks after the check. Exit status 4.
    """

    status = CHECK_FAILED


class MissingEntries(CheckError):
    """The pattern is too small.

    Attributes
    ----------
    rows, columns
        (m,) what was found to be missing, the same on every rank.
    spoilt
        How many rows are wrong because of it, 0 if that is not known.
    """

    def __init__(
        self, message: str, rows: Sequence[int] = (), columns: Sequence[int] = (), spoilt: int = 0
    ) -> None:
        super().__init__(message)
        self.rows, self.columns, self.spoilt = rows, columns, spoilt


class NotConverged(SparseHessError, RuntimeError):
    """Fewer eigenpairs converged than were asked for.

    Raised on all ranks, unless a solve was asked not to be strict. Exit status 3.
    """

    status = TOO_FEW


class OverLimit(SparseHessError, RuntimeError):
    """A job of a service has taken more time or memory than it may."""

    status = UNUSABLE


class Cancelled(SparseHessError, RuntimeError):
    """Somebody has cancelled a job of a service."""

    status = UNUSABLE


class Leaving(SparseHessError, RuntimeError):
    """A service leaves, and its job goes back into the queue."""

    status = STOPPED


class Stopped(SparseHessError, RuntimeError):
    """A signal ended the run after it had saved a checkpoint; it can go on from there."""

    status = STOPPED


class Interrupted(SparseHessError, RuntimeError):
    """Another rank was interrupted, as by Ctrl-C; there it is a KeyboardInterrupt. Exit status 130."""

    status = INTERRUPTED


_KINDS = {
    kind.__name__: kind
    for kind in (
        InputError,
        Damaged,
        StackError,
        EvaluationError,
        CheckError,
        MissingEntries,
        NotConverged,
        OverLimit,
        Cancelled,
        Leaving,
        Stopped,
        Interrupted,
        SparseHessError,
    )
}


# No bugs of ours: a disk or a memory that is full, an interrupt, and what is no Exception (an end that somebody
# has asked for, tasks that are cancelled, panics of libraries in Rust).
_FOREIGN = (
    (OSError, "InputError"),
    (MemoryError, "StackError"),
    (KeyboardInterrupt, "Interrupted"),
    (Exception, "SparseHessError"),
    (BaseException, "EvaluationError"),
)


def words_of(error: BaseException) -> str:
    """Return what another's exception says, in one line; what cannot say it says nothing. Not collective."""
    try:
        return " ".join(str(error).split())
    except Exception as second:  # its own code
        return f"({type(second).__name__} where it was to say why)"


def raised(what: str, error: BaseException, where: str = "") -> str:
    """Return that a function has raised an exception, and what that says. Not collective."""
    return f"{what} raised {type(error).__name__}{where}: {words_of(error)}".removesuffix(": ")


def describe(error: BaseException, rank: int) -> tuple[str, str]:
    """Return (kind, message) of an error, to be told to the other ranks.

    Not collective.
    """
    name = type(error).__name__
    if isinstance(error, SparseHessError):
        return name, str(error)
    kind = next(kind for types, kind in _FOREIGN if isinstance(error, types))
    said = f"rank {rank}: {name}: {words_of(error)}".removesuffix(": ")
    return kind, "interrupted" if kind == "Interrupted" else said


def rebuild(kind: str, message: str) -> SparseHessError:
    """Return the error that another rank described.

    Not collective.
    """
    return _KINDS.get(kind, SparseHessError)(message)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that is nearest to a word, None if none is near.

    Not collective. A flag is as near as its letters are, whatever its dashes.
    """
    import difflib

    bare = {name.lstrip("-").lower(): name for name in known}
    text = word.lstrip("-").lower()[:150]  # so many letters tell enough
    begun = [name for name in bare if text and name.startswith(text)]
    near = (
        [text] if text in bare else begun if len(begun) == 1 else difflib.get_close_matches(text, bare, 1) or begun
    )
    return bare[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean NAME?` with the known name that is nearest to a word, or nothing. Not collective."""
    near = nearest(word, known)
    return "" if near is None else f"did you mean {near}?"


def none_of(what: str, value: object, known: Iterable[str], rest: str = "") -> InputError:
    """Return the error of a value that is none of those known; it names them, and the one that may be meant.

    Not collective.

    Parameters
    ----------
    what
        How the message begins: what the value is of, and the value.
    rest
        What is told behind the names.
    """
    names = list(known)
    meant = did_you_mean(str(value), names)
    return InputError(f"{what} is none of {', '.join(names)}{rest}{meant and '; '}{meant}")


# Names of a folder that are looked at for the one that is meant.
_NAMES = 5000


def no_such_file(path: str | os.PathLike[str]) -> InputError:
    """Return the error of a file that is not there; it names the one that may be meant, or where was looked.

    Not collective.
    """
    folder, name = os.path.split(path)
    place = folder or os.curdir
    if os.path.isdir(path):
        return InputError(f"{path}: no such file, but a folder: give the path of a file in it")
    if os.path.lexists(path):
        what = "a pipe, a device or a socket" if os.path.exists(path) else "a link to what is not there"
        return InputError(f"{path}: no file, but {what}: give the path of a file")
    if not os.path.isdir(place):
        return InputError(f"{path}: no such file: there is no folder {place} either")
    try:
        with os.scandir(place) as entries:
            # By what stands before their suffixes, which many names of a folder have in common.
            stems = {entry.name.partition(".")[0]: entry.name for entry in itertools.islice(entries, _NAMES)}
        near = nearest(name.partition(".")[0], filter(None, stems))
    except OSError:
        near = None
    if near is not None:
        return InputError(f"{path}: no such file; did you mean {os.path.join(folder, stems[near])}?")
    where = "the folder that the command runs in" if not folder else f"the folder {folder}"
    return InputError(f"{path}: no such file in {where}: mend the name, or give the path")
