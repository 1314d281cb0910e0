"""Job files: a command line kept in TOML.

The parser of the command line is the only judge of what a choice may be: a job file is checked against its
flags, turned into words, and parsed like any others.

    command = "eigs"
    input = "lennard_jones.py:crystal"      # paths are relative to the folder of this file
    k = 10
    set = { cells = 4 }

    [petsc]                                 # what stands after --
    eps_ncv = 40

    [submit]                                # flags of `sparsehess submit`
    ranks = 64
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsehess.commands.arguments import JOB_SUFFIX, CommandLine, CommandParser
from sparsehess.commands.planned_commands import OTHERS, PLANNED
from sparsehess.errors import InputError, did_you_mean, no_such_file, none_of
from sparsehess.storage.matrix_address import is_named_matrix

# Bytes that a job file has at most: it is read by every rank, and nobody writes more by hand.
_LARGEST = 2**20

# Letters of a key that a message shows, and of a reason four times as many.
_SHOWN = 150

# Arguments of commands that name what is written.
OUTPUTS = ("out", "plot", "report", "modes", "direction", "json", "checkpoint")

# Commands that take a job file as what it is, and those that it cannot stand for.
_WHOLE = ("submit",)
_PLAN = "plan"

# What a plan heeds of [submit].
_PLANNED = ("ranks", "time", "memory")
_NOT_FOR_JOBS = (
    "submit",
    "status",
    "result",
    "cancel",
    "plan",
    "serve",
    "report",
    "info",
    "completion",
    "manual",
    "export",
)


@dataclass(frozen=True)
class JobFile:
    """The contents of a job file, not yet checked against its command.

    Attributes
    ----------
    path
        As it was given: paths in the file are taken relative to its folder.
    command
        That it is for.
    choices, petsc, submit
        Positional arguments and flags of the command by their long names; the two tables.
    text
        The whole file, for the numbers of lines.
    """

    path: Path
    command: str
    choices: dict[str, object]
    petsc: dict[str, object]
    submit: dict[str, object]
    text: str

    def error_at(self, key: str, reason: str) -> InputError:
        """Return the error that names a key and its line. Not collective."""
        pattern = re.compile(rf"^\s*(?:[\w-]+\.)*[\"']?{re.escape(key)}[\"']?\s*[=.]")
        lines = (number for number, line in enumerate(self.text.splitlines(), 1) if pattern.match(line))
        line = next(lines, None)
        name = (key if key.isprintable() else repr(key))[:_SHOWN]
        place = self.path if line is None else f"{self.path}, line {line}"
        return InputError(f"{place}: {name}: {reason[: 4 * _SHOWN]}")


def read_job_file(path: str | os.PathLike[str]) -> JobFile:
    """Read a job file.

    Not collective.

    Raises
    ------
    InputError
        It is missing, too large, no TOML, or names no command.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise no_such_file(path)
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: a job file has at most {_LARGEST} bytes")
        text = path.read_bytes()[: _LARGEST + 1].decode()
        table = tomllib.loads(text)
        _check_numbers(table)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, no TOML, or nested beyond reason
        raise InputError(
            f'{path}: no job file: {" ".join(str(error).split())}; it is TOML, such as command = "eigs"'
        ) from error
    parts: dict[str, dict] = {}
    for name in ("petsc", "submit"):
        parts[name] = table.pop(name, {})
        if not isinstance(parts[name], dict):
            raise InputError(f"{path}: {name} must be a table: [{name}]")
    command = table.pop("command", None)
    if not isinstance(command, str):
        raise InputError(f'{path}: says no command; write, for example, command = "eigs"')
    return JobFile(path, command, table, parts["petsc"], parts["submit"], text)


def _check_numbers(value: object) -> None:
    """Raise ValueError where a whole number has more than 64 bits, which TOML does not promise either."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a whole number of more than 64 bits")
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _check_numbers(one)


def expand_job_file(words: list[str], line: CommandLine) -> tuple[list[str], list[str]]:
    """Return words of a command line with the job file among them replaced by what it says, and those for PETSc.

    Not collective. Flags of the file come before those of the line, which therefore win.

    Parameters
    ----------
    words
        Up to `--`.
    line
        The command line that the file is checked against.

    Raises
    ------
    InputError
        The job file is none, is for another command, or has a key that the command does not know.
    """
    if not words or words[0] not in line.parsers:
        return words, []
    parser = line.parsers[words[0]]
    place = _place(words, parser)
    if place is None:
        return words, []
    command, job = words[0], read_job_file(words[place])
    before, after = words[1:place], words[place + 1 :]
    if command in _WHOLE:
        return [command, *submit_flags(job, line), *before, words[place], *after], []
    if command not in (job.command, _PLAN):
        raise InputError(
            f"{job.path} is a job of {job.command}, not of {command}: sparsehess {job.command} {job.path} runs it"
        )
    job_parser, kept = _parser_of(job, line.parsers), parser if command == _PLAN else None
    other = OTHERS.get(job.command, ()) if command == _PLAN else ()
    positional, flags = _words(job, job.choices, job_parser, kept, other)
    if command == _PLAN:
        flags = [*(["--of", job.command] if job.command in PLANNED[1:] else []), *flags]
        submit_flags(job, line)  # what is wrong there is told before it is submitted
        asked = {key: job.submit[key] for key in _PLANNED if key in job.submit}
        flags = [*_words(job, asked, line.parsers["submit"])[1], *flags]
    return [command, *flags, *before, *positional, *after], _petsc_words(job)


def job_command_line(path: str | os.PathLike[str], line: CommandLine) -> tuple[list[str], list[str]]:
    """Return the words of the command that a job file stands for, and those for PETSc.

    Not collective.

    Raises
    ------
    InputError
        As of `expanded`.
    """
    job = read_job_file(path)
    positional, flags = _words(job, job.choices, _parser_of(job, line.parsers))
    return [job.command, *positional, *flags], _petsc_words(job)


def submit_flags(job: JobFile, line: CommandLine) -> list[str]:
    """Return the words that the table [submit] of a job file stands for. Not collective."""
    return _words(job, job.submit, line.parsers["submit"])[1]


def command_flags(command: str, line: CommandLine) -> set[str]:
    """Return the flags that a command knows, such as `--seed`. Not collective."""
    return {name for action in _actions(line.parsers[command]) for name in action.option_strings}


def path_arguments(words: list[str], arguments: argparse.Namespace, line: CommandLine) -> dict[str, str]:
    """Return {name in the parsed arguments: path} of the files and folders that a command's arguments name.

    Not collective. A problem `file.py:name` is among them, as it was given.

    Parameters
    ----------
    words
        Of the command line; the first is the command.
    arguments
        As they were parsed.
    """
    found = {}
    for action in _actions(line.parsers[words[0]]):
        value = getattr(arguments, action.dest, None)
        if isinstance(value, str) and _is_path(action, value):
            found[action.dest] = value
    return found


def job_file_key(name: str, command: str, line: CommandLine) -> str:
    """Return what a job file calls an argument of a command. Not collective."""
    return next(keys_of(action)[0] for action in _actions(line.parsers[command]) if action.dest == name)


def compose_job_file(command: str, choices: dict, petsc: dict, submit: dict) -> str:
    """Return the text of a job file that says this.

    Not collective.

    Raises
    ------
    InputError
        A value is none that a job file may have.
    """
    lines = [f"command = {_toml(command)}", *(f"{_toml(key)} = {_toml(value)}" for key, value in choices.items())]
    for name, table in (("petsc", petsc), ("submit", submit)):
        if table:
            lines += ["", f"[{name}]", *(f"{_toml(key)} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise InputError(f"{value}: numbers, truth values, texts, lists and tables of them")


# --- what argparse knows of a command --------------------------------------------------------


def _parser_of(job: JobFile, commands: dict[str, CommandParser]) -> argparse.ArgumentParser:
    known = [name for name in commands if is_for_jobs(name)]
    if job.command not in known:
        raise job.error_at("command", str(none_of(repr(job.command[:_SHOWN]), job.command, known)))
    return commands[job.command]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def is_for_jobs(command: str) -> bool:
    """Return whether a job file may be for a command. Not collective."""
    return command not in _NOT_FOR_JOBS


def keys_of(action: argparse.Action) -> list[str]:
    """Return the names that a choice may have in a job file, the usual one first. Not collective."""
    if not action.option_strings:
        return [action.dest]
    names = [name for name in action.option_strings if name.startswith("--")] or action.option_strings
    return [name.lstrip("-") for name in names]


def _place(words: list[str], parser: argparse.ArgumentParser) -> int | None:
    """Return where INPUT is a job file, None where there is none."""
    positional = {action.dest for action in _actions(parser) if not action.option_strings}
    if not positional & {"input", "job"}:
        return None
    by_option = {name: action for action in _actions(parser) for name in action.option_strings}
    values = 0  # of the last option, still to come
    for place, word in enumerate(words[1:], 1):
        if values:
            values -= 1
        elif word in by_option:
            nargs = by_option[word].nargs
            values = nargs if isinstance(nargs, int) else 1
        elif not word.startswith("-") and word.endswith(JOB_SUFFIX):
            return place
    return None


# --- from values to words --------------------------------------------------------------------


def _words(
    job: JobFile,
    table: dict,
    parser: argparse.ArgumentParser,
    kept: argparse.ArgumentParser | None = None,
    other: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """Return (positional arguments, flags) of a table, checked against a command.

    Parameters
    ----------
    kept
        If given, another command: flags that it does not know are left out.
    other
        Keys that mean something else to that command, and are left out, too.
    """
    known = {key: action for action in _actions(parser) for key in keys_of(action)}
    if table is not job.choices:
        known = {key: action for key, action in known.items() if action.option_strings}
    passed = set(known) if kept is None else {key for action in _actions(kept) for key in keys_of(action)}
    passed -= set(other)
    positional, flags = {}, []
    for key, value in table.items():
        if key not in known:
            meant = did_you_mean(key, known) or f"it takes {', '.join(sorted(known))}"
            command = parser.prog.rsplit(" ", 1)[-1]
            raise job.error_at(key, f"nothing that {command} takes; {meant}")
        action = known[key]
        texts = _texts(job, key, value, action)
        if not action.option_strings:
            positional[key] = texts[0]
        elif key in passed:
            flags += texts
    return [positional[key] for key in known if key in positional], flags


def _texts(job: JobFile, key: str, value: object, action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise job.error_at(key, f"true or false, not {value!r}")
        return [max(action.option_strings, key=len)] if value else []
    if isinstance(action, argparse._AppendAction):
        return _repeated(job, key, value, action)
    if isinstance(action.nargs, int):
        if not isinstance(value, list) or len(value) != action.nargs:
            names = ", ".join("abcdefgh"[: action.nargs])
            raise job.error_at(key, f"{action.nargs} values are written [{names}], not {value!r}")
        return [action.option_strings[0], *(_text(job, key, one, action) for one in value)]
    text = _text(job, key, value, action)
    if not action.option_strings:
        return [text]
    return _flag(max(action.option_strings, key=len), text)


def _flag(option: str, text: str) -> list[str]:
    """Return the words of a flag with its value; one that begins as a flag does must not be taken for one."""
    flaglike = text.startswith("-") and text != "-"
    return [f"{option}={text}"] if flaglike and option.startswith("--") else [option, text]


def _repeated(job: JobFile, key: str, value: object, action: argparse.Action) -> list[str]:
    """Return the words of a flag that may be repeated: a table of settings, or a list of texts."""
    option = max(action.option_strings, key=len)
    if "KEY=VALUE" in str(action.metavar):
        if not isinstance(value, dict):
            raise job.error_at(key, f"a table is written {{ name = value }}, not {value!r}")
        for name in value:
            if not name.isidentifier():
                raise job.error_at(key, f"{name!r} is no name of an argument")
        pairs = [f"{name}={_literal(job, key, one)}" for name, one in value.items()]
    else:
        if not isinstance(value, list):
            raise job.error_at(key, f'a list is written ["…", "…"], not {value!r}')
        pairs = [_text(job, key, one, action) for one in value]
    return [word for pair in pairs for word in _flag(option, pair)]


def _text(job: JobFile, key: str, value: object, action: argparse.Action) -> str:
    """Return one value as the word that the parser expects."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = isinstance(value, int) and number
    if action.type is int and not whole:
        raise job.error_at(key, f"a whole number, not {value!r}")
    if action.type is float and not number:
        raise job.error_at(key, f"a number, not {value!r}")
    if number and not _is_path(action, str(value)) and not action.choices:
        return repr(value)
    if not isinstance(value, str):
        raise job.error_at(key, f"text, not {value!r}")
    if action.choices is not None and value not in action.choices:
        raise job.error_at(key, str(none_of(repr(value[:_SHOWN]), value, action.choices)))
    if any(ord(letter) < 32 for letter in value):
        raise job.error_at(key, f"no control characters in {value!r}")
    return _placed(job.path.parent, value) if _is_path(action, value) else value


def _literal(job: JobFile, key: str, value: object) -> str:
    """Return a setting as `problem_files.parse_settings` reads it back."""
    if isinstance(value, str):
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value  # nothing that could be taken for a number: easier to read without quotes
    if isinstance(value, datetime.date | datetime.time | dict):
        raise job.error_at(key, f"numbers, truth values, texts and lists of them, not {value}")
    if isinstance(value, list):
        items = (repr(one) if isinstance(one, str) else _literal(job, key, one) for one in value)
        return f"[{', '.join(items)}]"
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            raise job.error_at(key, "nan is no number")
        return "1e999" if value > 0 else "-1e999"  # what Python reads as infinite
    return repr(value)


def _is_path(action: argparse.Action, text: str) -> bool:
    name = str(action.metavar or "")
    if not action.option_strings:
        return True
    words = name.split("|")
    if words[0].startswith(("FILE", "DIR")) or "FILE" in words:
        numbers = "I[,J...]" in words and re.fullmatch(r"[+-]?\d+(,[+-]?\d+)*", text) is not None
        return text not in ("-", *words) and not numbers
    if action.dest == "calculator":
        return re.search(r"\.py:\w+$", text) is not None
    return action.dest == "coloring" and text.endswith((".npz", ".h5"))


def _placed(folder: Path, text: str) -> str:
    """Return a path of the file, or a problem `file.py:name`, as seen from here."""
    if folder == Path("."):
        return text
    place, colon, name = text.rpartition(":")
    if colon and name.isidentifier() and place and not is_named_matrix(text):
        return os.path.join(folder, place) + colon + name if place.endswith(".py") else text
    return os.path.join(folder, text)


def _petsc_words(job: JobFile) -> list[str]:
    words = []
    for key, value in job.petsc.items():
        if not re.fullmatch(r"\w+", key):
            raise job.error_at(key, "no option of PETSc: write eps_ncv = 40")
        if isinstance(value, bool):
            words += [f"-{key}"] if value else [f"-{key}", "false"]
        elif isinstance(value, int | float):
            words += [f"-{key}", repr(value)]
        elif isinstance(value, str) and value and not value.startswith("-") and value.isprintable():
            words += [f"-{key}", value]
        else:
            raise job.error_at(key, f"a number, a truth value or a text, not {value!r}")
    return words
