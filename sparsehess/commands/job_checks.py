"""Whether what a job file names is there, told before the job waits in a queue: nothing of the user's is run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsehess.commands import job_files, problem_files
from sparsehess.commands.arguments import CommandLine
from sparsehess.commands.job_files import JobFile
from sparsehess.commands.petsc_words import split_petsc
from sparsehess.commands.python_source import Source, find_source, read_source
from sparsehess.errors import InputError, no_such_file
from sparsehess.storage.atomic_files import refuse_unwritable
from sparsehess.storage.matrix_address import split_name

# First words of options of PETSc and SLEPc that a solve may have, for those that are misspelt.
_FAMILIES = ("eps", "st", "bv", "ds", "rg", "ksp", "pc", "mat", "vec", "snes", "svd", "pep", "nep", "fn", "log")


def check_job(path: str | os.PathLike[str], line: CommandLine, *, outputs: bool = True) -> None:
    """Refuse a job file that names what is not there: inputs, functions, their arguments, folders for output.

    Not collective. Neither MPI nor PETSc is needed, and the user's code is read, not run: what its text does not
    tell passes.

    Parameters
    ----------
    path
        Of the job file.
    line
        The command line that it is checked against.
    outputs
        Whether outputs are written where the file says; those of a spooled job are not.

    Raises
    ------
    InputError
        The first thing that is not there, with its key and line.
    """
    job = job_files.read_job_file(path)
    words, petsc = job_files.job_command_line(path, line)
    parsed = line.parse(words)
    for name, value in job_files.path_arguments(words, parsed, line).items():
        with _told_of(job, job_files.job_file_key(name, words[0], line)):
            if name in job_files.OUTPUTS:
                if outputs:
                    _refuse_output(name, Path(value))
            elif problem_files.is_problem(value):
                _refuse_problem(value)
            else:
                _refuse_file(value)
    if problem_files.is_problem(parsed.input):
        with _told_of(job, "set"):
            _refuse_settings(parsed.input, parsed.settings)
    for word in split_petsc(petsc)[2]:
        with _told_of(job, word):
            _refuse_option(word)


def refuse_calculator(job: JobFile) -> None:
    """Refuse a job that names a calculator, which may start any program. Not collective.

    Raises
    ------
    InputError
        It does.
    """
    if "calculator" in job.choices:
        raise job.error_at(
            "calculator",
            "a service starts no calculators: run it yourself, or by a scheduler; or let it allow a problem, "
            "file.py:name, that returns sparsehess.from_atoms(atoms)",
        )


@contextmanager
def _told_of(job: JobFile, key: str) -> Iterator[None]:
    """Make an error of the block one of a key of the job file."""
    try:
        yield
    except InputError as error:
        raise job.error_at(key, f"{error} (--no-check leaves that to the job)") from error


def _refuse_problem(text: str) -> None:
    """Refuse a problem `place:name` of which there is no file, or in whose text there is no such name."""
    place, _, name = text.rpartition(":")
    source = _source_of(place)
    complaint = None if source is None else source.missing(name)
    if complaint is not None:
        raise InputError(f"{place}: {complaint}")


def _refuse_settings(text: str, settings: list[str]) -> None:
    """Refuse settings that a problem's function does not take, and a call without those that it needs."""
    place, _, name = text.rpartition(":")
    source = _source_of(place)
    complaint = None if source is None else source.misfit(name, problem_files.parse_settings(settings))
    if complaint is not None:
        raise InputError(complaint)


def _source_of(place: str) -> Source | None:
    """Return what the file or module of a problem defines, None where it is not written in Python."""
    if place.endswith(".py"):
        _refuse_missing(place)
        return read_source(Path(place))
    found = find_source(place)
    return None if found is None else read_source(found)


def _refuse_file(text: str) -> None:
    """Refuse an input that cannot be read, or is code without a name."""
    _refuse_missing(str(split_name(text)[0]))
    if text.endswith(".py"):
        names = sorted(name for name in read_source(Path(text)).functions if not name.startswith("_"))
        raise InputError(f"{text}: name a function in it that returns an Objective: {text}:{(*names, 'NAME')[0]}")


def _refuse_missing(text: str) -> None:
    """Refuse what is no file that can be read."""
    if not os.path.exists(text) or os.path.isdir(text):
        raise no_such_file(text)
    if not os.path.isfile(text):
        raise InputError(f"{text}: no regular file")
    if not os.access(text, os.R_OK):
        raise InputError(f"{text}: cannot be read: no permission")


def _refuse_output(name: str, path: Path) -> None:
    """Refuse an output that cannot be written; the folder of a checkpoint is made with those around it."""
    if name != "checkpoint":
        refuse_unwritable(path)
        return
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        told = f"no permission in {there}" if there.is_dir() else f"{there} is no folder"
        raise InputError(f"{path}: cannot be written: {told}; name another folder")


def _refuse_option(word: str) -> None:
    """Refuse an option of PETSc whose first word has the letters of a known one in another order."""
    first, under, rest = word.partition("_")
    meant = next((one for one in _FAMILIES if sorted(one) == sorted(first)), None)
    if under and meant not in (None, first):
        raise InputError(f"no option of PETSc begins so; did you mean {meant}_{rest}?")
