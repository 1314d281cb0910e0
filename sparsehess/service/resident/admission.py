"""Whether a job of the spool may run: its job file, its paths, its options, the sizes that its files claim.

A path may lead into the job's own folder, or for reading into a folder that the service was started with
(`--allow-data`); a problem is a Python file in a folder of `--allow-code`. All are judged by their real paths,
symbolic links followed. What a job writes it writes into its own folder.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from sparsehess.commands import job_files, problem_files
from sparsehess.commands.arguments import CommandLine
from sparsehess.commands.job_checks import refuse_calculator
from sparsehess.commands.petsc_words import split_petsc
from sparsehess.commands.quantities import parse_time
from sparsehess.errors import InputError
from sparsehess.service.batch.choices import FOR_SCHEDULERS, PRIORITY_LIMIT
from sparsehess.service.resident.limits import Limits, parse_size
from sparsehess.service.spool.job_outcomes import OWN
from sparsehess.service.spool.layout import has_secret
from sparsehess.storage import matrix_formats
from sparsehess.storage.matrix_address import split_name

# What a job cannot bring, nor write.
_RESERVED = ("job.toml", *OWN)

# What [submit] may say in a spool.
SUBMIT = ("name", "priority", "time", "memory")

# Families of options that a job may set: those of its solver, under its own prefix.
_FAMILIES = ("eps_", "st_", "bv_", "ds_", "rg_", "mat_mumps_")

# Options that write or read files, run code, or print: no job needs them to be solved.
_REFUSED = re.compile(r"python|view|monitor|file|log|path|plot|save|dir|ooc|dump|info|debug|shell", re.ASCII)

# Bytes for each byte of a matrix while it is read, checked and dealt out.
_COPIES = 4


@dataclass(frozen=True)
class Allowance:
    """What jobs may reach and take.

    Attributes
    ----------
    code, data
        Real paths of folders whose problems may run, and whose files may be read.
    most
        No job gets more.
    """

    code: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    most: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Task:
    """A job that may run.

    Attributes
    ----------
    arguments, options
        For `CommandLine.run`.
    limits
        What it may take.
    """

    arguments: argparse.Namespace
    options: dict
    limits: Limits

    @property
    def runs_code(self) -> bool:
        """Whether it imports a problem, and with it whatever its file says."""
        return problem_files.is_problem(str(getattr(self.arguments, "input", "")))


def admit(folder: Path, allowance: Allowance, line: CommandLine) -> Task:
    """Return what the job of a folder asks for.

    Not collective: the first rank of a group does it.

    Raises
    ------
    InputError
        It may not run; the message says why.
    """
    path = folder / "job.toml"
    if path.is_symlink():
        raise InputError("job.toml: no regular file")
    _regular(path)
    job = job_files.read_job_file(path)
    refuse_calculator(job)
    limits = _limits(job).cap(allowance.most)
    words, petsc = job_files.job_command_line(path, line)
    arguments = line.parse(words)
    if arguments.json is not None:
        raise job.error_at("json", "the answer of a spooled job is its result.json: leave it out")
    options = _options(job, petsc)
    read = 0
    for name, value in job_files.path_arguments(words, arguments, line).items():
        key = job_files.job_file_key(name, words[0], line)
        if name in job_files.OUTPUTS:
            _check_output(job, key, value, folder)
        elif problem_files.is_problem(value) and name == "input":
            _check_code(job, key, value, allowance.code)
        else:
            real = os.path.realpath(split_name(value)[0])
            if not _may_read(real, folder, allowance):
                raise job.error_at(
                    key, f"{_shown(value, folder)} is outside the job and every --allow-data of the service"
                )
            _regular(Path(real))
            if _within(real, (os.path.realpath(folder),)) and os.stat(real).st_uid != os.stat(folder).st_uid:
                raise job.error_at(key, f"{_shown(value, folder)} belongs to another user than the job")
            read += matrix_formats.read_claimed_bytes(real)
    k = getattr(arguments, "k", None) or 0
    needed = _COPIES * read + 8 * 2 * k
    if limits.memory is not None and needed > limits.memory:
        raise InputError(
            f"needs about {needed / 2**20:.0f} MiB to read its files; its limit is {limits.memory / 2**20:.0f} MiB"
        )
    _forget_folder(arguments, folder, [*job_files.path_arguments(words, arguments, line)])
    arguments.json, arguments.quiet = str(folder / "result.json"), False
    return Task(arguments, options, limits)


def _forget_folder(arguments: argparse.Namespace, folder: Path, names: list[str]) -> None:
    """Name files of the job as seen from its folder, where it runs.

    Answers are passed on: they do not say where the job was, which may be the secret of who has submitted it.
    """
    before = f"{folder}{os.sep}"
    arguments.words = [word.replace(before, "") for word in arguments.words]
    for name in names:
        setattr(arguments, name, getattr(arguments, name).removeprefix(before))


def _limits(job: job_files.JobFile) -> Limits:
    """Return what [submit] asks for."""
    texts: dict[str, str] = {}
    for key, value in job.submit.items():
        if key in FOR_SCHEDULERS:
            continue
        if key not in SUBMIT:
            raise job.error_at(key, f"a spooled job has {', '.join(SUBMIT)} in [submit]")
        if key == "priority":
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > PRIORITY_LIMIT:
                raise job.error_at(
                    key, f"a whole number from {-PRIORITY_LIMIT} to {PRIORITY_LIMIT}, not {value!r}"
                )
        elif not isinstance(value, str):
            raise job.error_at(key, f"text, not {value!r}")
        else:
            texts[key] = value
    return Limits(
        parse_time(texts["time"]) if "time" in texts else None,
        parse_size(texts["memory"]) if "memory" in texts else None,
    )


def _options(job: job_files.JobFile, petsc: list[str]) -> dict:
    """Return options of the solver; refuse those that reach beyond it."""
    for key, value in job.petsc.items():
        if not key.startswith(_FAMILIES) or _REFUSED.search(key.lower()):
            raise job.error_at(key, "no option for a job of a service: those that choose how to solve are")
        if isinstance(value, str) and not re.fullmatch(r"[\w.,+-]{1,60}", value, re.ASCII):
            raise job.error_at(key, f"{value!r} is no number and no name")
        if isinstance(value, str) and _REFUSED.search(value.lower()):
            raise job.error_at(key, f"{value!r} is not for a job of a service")
    return split_petsc(petsc)[0]


def _check_output(job: job_files.JobFile, key: str, value: str, folder: Path) -> None:
    place = os.path.realpath(value)
    if os.path.dirname(place) != os.path.realpath(folder):
        raise job.error_at(
            key, f"{_shown(value, folder)}: a spooled job writes into its own folder: give a mere name"
        )
    name = os.path.basename(place)
    if name in _RESERVED or name.startswith("."):
        raise job.error_at(key, f"{name} is a name that the service takes for itself")


def _check_code(job: job_files.JobFile, key: str, value: str, allowed: tuple[str, ...]) -> None:
    place = value.rpartition(":")[0]
    if not place.endswith(".py"):
        raise job.error_at(key, f"{value}: a service runs problems of files, file.py:name, and not of modules")
    real = os.path.realpath(place)
    if not _within(real, allowed):
        raise job.error_at(
            key, f"{place} is in no folder whose code may run here; `serve --allow-code` names them"
        )
    _regular(Path(real))


def _may_read(real: str, folder: Path, allowance: Allowance) -> bool:
    """Return whether a job may read a file; jobs of others are no data, also where their spool lies among it."""
    if _within(real, (os.path.realpath(folder),)):
        return True
    others = (os.path.realpath(folder.parent.parent),) if has_secret(folder) else ()
    return _within(real, allowance.data) and not _within(real, others)


def _within(real: str, folders: tuple[str, ...]) -> bool:
    return any(real.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def _regular(path: Path) -> None:
    """Refuse what is no file: a pipe would be waited for without end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path.name}: no regular file")
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: cannot be read: {getattr(error, 'strerror', error)}") from error


def _shown(value: str, folder: Path) -> str:
    return os.path.relpath(value, folder) if value.startswith(str(folder)) else value
