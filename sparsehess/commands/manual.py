"""The manual page, written from the parser: every command with its flags in groups, and its examples.

A page holds the flags of a command under the command, its groups one step below, and the examples as they are
typed. What turns parsers into pages elsewhere puts the groups of all commands beside each other, and fills the
lines of examples.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.commands.arguments import Command, CommandLine
from sparsehess.runtime.version import __version__
from sparsehess.storage.atomic_files import write_file

if TYPE_CHECKING:
    from mpi4py import MPI

_STATUSES = (
    (errors.DONE, "done: all that was asked for converged, and every check passed"),
    (errors.BUG, "a bug in sparsehess"),
    (errors.UNUSABLE, "unusable arguments, file or problem; one line says which, and how to mend it"),
    (errors.TOO_FEW, "fewer eigenpairs converged than were asked for; what converged is written"),
    (errors.CHECK_FAILED, "a check failed; the report says at which entry or interval"),
    (errors.STOPPED, "stopped by a signal after a checkpoint: run it again with --resume"),
)

_PETSC = (
    "What stands behind -- goes to PETSc and SLEPc, and wins over what sparsehess has chosen: "
    "sparsehess eigs K.mtx -- -eps_monitor -log_view. An option that nothing uses is an error. "
    "Every command may be run by mpiexec on any number of ranks, and answers alike on each."
)


def run_manual(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """Print the manual page, or write it to a file. Not collective."""
    page = compose_manual(line)
    if arguments.out is None:
        sys.stdout.write(page)
        return errors.DONE
    with write_file(Path(arguments.out)) as path:
        path.write_text(page)
    return errors.DONE


def compose_manual(line: CommandLine) -> str:
    """Return the manual page of all commands, in the macros of man(7), in ASCII. Not collective."""
    parser = line.parser
    about = str(parser.description).rstrip(".")
    rows = [
        f'.TH SPARSEHESS 1 "" "sparsehess {__version__}" "User Commands"',
        ".SH NAME",
        f"sparsehess {chr(92)}- {_text(about[0].lower() + about[1:])}",
        ".SH SYNOPSIS",
        *(f".B sparsehess {name}\n{_text(_rest_of_usage(one))}\n.br" for name, one in line.parsers.items()),
        ".SH DESCRIPTION",
        _text(_PETSC),
    ]
    for section, commands in parser.sections.items():
        rows.append(f'.SH "COMMANDS: {_text(section.upper())}"')
        for command in commands:
            rows += _command(command, line.parsers[command.name])
    rows += [".SH EXIT STATUS", *(row for status, says in _STATUSES for row in (".TP", str(status), _text(says)))]
    return "\n".join(rows) + "\n"


def _command(command: Command, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines of a command: usage, flags in groups, examples."""
    yield f'.SS "sparsehess {command.name}"'
    yield _text(str(parser.description))
    for group in command.groups:
        yield f".PP\n.I {_text(group.title)}"
        for action in _actions_of(parser, group.title):
            yield f".TP\n{_heading(action)}\n{_text(str(action.help or ''))}"
    if command.examples:
        yield ".PP\n.I examples"
    for example in command.examples:
        yield f".PP\n{_text(example.says)}:\n.PP\n.RS 4\n.nf\n{_text(example.command)}\n.fi\n.RE"


def _actions_of(parser: argparse.ArgumentParser, title: str) -> Iterator[argparse.Action]:
    for group in parser._action_groups:
        if group.title == title:
            yield from group._group_actions


def _heading(action: argparse.Action) -> str:
    """Return a flag with its value, as the help shows them, flags in bold."""
    values = "" if action.nargs == 0 else argparse.HelpFormatter("")._format_args(action, _name(action))
    if not action.option_strings:
        return rf"\fI{_text(_name(action))}\fR"
    return ", ".join(rf"\fB{_text(name)}\fR" for name in action.option_strings) + (
        f" {_text(values)}" if values else ""
    )


def _name(action: argparse.Action) -> str:
    if action.metavar is None and action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest)


def _rest_of_usage(parser: argparse.ArgumentParser) -> str:
    """Return what the usage of a command shows behind its name."""
    return str(parser.usage).partition(" ")[2]


def _text(text: str) -> str:
    """Return a text in the letters of roff: no line is taken for a request, and all is ASCII."""
    text = text.replace("%%", "%").replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"[^\x00-\x7f]", lambda match: rf"\[u{ord(match[0]):04X}]", text)
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)
