"""How the run of a job has ended, and the file in its folder by which its processes tell the service."""

from __future__ import annotations

import json
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sparsehess import errors
from sparsehess.errors import EvaluationError, SparseHessError
from sparsehess.service.spool.job_outcomes import OWN, write_json
from sparsehess.storage.atomic_files import make_unfinished_name

FILE = "ending.json"

# The kind of an ending of processes that were killed from outside: nobody knows why.
LOST = "Lost"

REMOVED = "its folder was removed while it ran"

# Bytes that an ending has at most, letters of an error that is told.
_LARGEST, _TOLD = 2**16, 2000


@dataclass(frozen=True)
class Ending:
    """How the run of a job has ended.

    Attributes
    ----------
    status
        Exit status of the command.
    kind
        Name of the error's type, empty where there was none.
    error
        The error as one line.
    """

    status: int = errors.DONE
    kind: str = ""
    error: str | None = None

    @classmethod
    def from_error(cls, error: Exception, folder: Path) -> Ending:
        """Return the ending of a job that has raised an error. Not collective."""
        status = error.status if isinstance(error, SparseHessError) else errors.BUG
        if isinstance(error, MemoryError):
            status = errors.UNUSABLE
        return cls(status, type(error).__name__, one_line(error).replace(f"{folder}{os.sep}", ""))

    @classmethod
    def failed(cls, reason: str) -> Ending:
        """Return the ending of a job that cannot be used, for this reason. Not collective."""
        return cls(errors.UNUSABLE, "EvaluationError", reason)


def as_error(caught: BaseException) -> Exception:
    """Return what a job has raised as an error, also where it was to end the process. Not collective."""
    if isinstance(caught, Exception):
        return caught
    if isinstance(caught, SystemExit):
        return EvaluationError(f"the problem has called sys.exit({caught.code!r})")
    return EvaluationError(f"the problem has raised {type(caught).__name__}")


def one_line(error: BaseException) -> str:
    """Return an error as one line. Not collective."""
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    text = str(error) if isinstance(error, SparseHessError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_TOLD]


def write_ending(folder: Path, ending: Ending) -> None:
    """Tell the service how the job of a folder has ended. Not collective."""
    write_json(folder / FILE, asdict(ending))


def read_ending(folder: Path) -> Ending | None:
    """Return what the processes of a job have told, None where nothing there can be it. Not collective."""
    try:
        # Whatever the job has put there: a link is not followed, a pipe not waited for.
        descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            facts = json.loads(stream.read(_LARGEST)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else {}
        ending = Ending(**facts)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    sound = (
        type(ending.status) is int
        and 0 <= ending.status < 256
        and isinstance(ending.kind, str)
        and (isinstance(ending.error, str) if ending.kind else ending.error is None)
    )
    if not sound:
        return None
    return Ending(ending.status, ending.kind, ending.error and " ".join(ending.error.split())[:_TOLD])


def clear_folder(folder: Path) -> bool:
    """Remove what a job that runs code may have put under names of the service; make its folder if it is gone.

    Not collective. What is left under these names are regular files that have no other name. Returns whether the
    folder was there.
    """
    there = folder.is_dir() and not folder.is_symlink()
    if not there:
        with suppress(FileNotFoundError):
            os.unlink(folder)
        folder.mkdir(mode=0o700)
    mode = stat.S_IMODE(os.stat(folder).st_mode)
    if mode & 0o700 != 0o700:
        os.chmod(folder, mode | 0o700)
    for name in OWN:
        path = folder / name
        with suppress(FileNotFoundError):
            facts = os.lstat(path)
            if stat.S_ISDIR(facts.st_mode):
                beside = make_unfinished_name(path)
                os.rename(path, beside)
                shutil.rmtree(beside, ignore_errors=True)
            elif not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1 or name in (FILE, "outcome.json"):
                path.unlink()
            elif not facts.st_mode & 0o400:
                os.chmod(path, 0o600)
    return there
