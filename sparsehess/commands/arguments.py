"""The command line: a command is an entry in a table, and argparse parses what the table says."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from sparsehess import runtime
from sparsehess.commands.call import Call
from sparsehess.commands.petsc_words import is_number
from sparsehess.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.resources import Resources
    from sparsehess.storage.checkpoint import Checkpoint


class Help(Exception):
    """The text that -h or --version asked for."""


class CommandParser(argparse.ArgumentParser):
    """A parser that leaves printing and exiting to `cli.main`, which knows the rank."""

    def __init__(self, **keywords: Any):
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        """Raise InputError. Not collective."""
        raise InputError(f"{message} (see {self.prog} --help)")

    def print_help(self, file: object = None) -> NoReturn:
        """Raise Help. Not collective."""
        raise Help(self.format_help())


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        from sparsehess.runtime.version import __version__

        raise Help(f"sparsehess {__version__}\n")


class Explain(argparse.Action):
    """Shows what a certificate proves, as help is shown: nothing else is run."""

    def __call__(self, *_: object) -> NoReturn:
        """Raise Help. Not collective."""
        from sparsehess.eigen.certificates.statement import STATEMENT

        raise Help(STATEMENT)


class Flag:
    """An argument of commands, in the words of argparse's `add_argument`.

    Parameters
    ----------
    names
        With dashes for an option, without for a positional argument.
    keywords
        As argparse takes them.
    """

    def __init__(self, *names: str, **keywords: Any):
        self.names, self.keywords = names, keywords

    @property
    def destination(self) -> str:
        """Name of its value among the parsed arguments."""
        longest = max(self.names, key=len)
        return self.keywords.get("dest", longest.lstrip("-").replace("-", "_"))

    @property
    def default(self) -> Any:
        """Value where nothing is said."""
        return self.keywords.get("default", False if self.keywords.get("action") == "store_true" else None)

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Add the argument to a parser. Not collective."""
        parser.add_argument(*self.names, **self.keywords)


class OneOf:
    """Flags of which at most one may be given."""

    def __init__(self, *flags: Flag):
        self.flags = flags

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Add the flags to a parser. Not collective."""
        group = parser.add_mutually_exclusive_group()
        for flag in self.flags:
            flag.add_to(group)


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes
    ----------
    name, summary
        What is typed, and what the list of commands says of it.
    function
        `module:name` of a function that takes a `Call` and returns the exit status on every rank. The module is
        imported when the command is run.
    flags
        In the order of the help.
    needs_real
        Whether all of it needs real scalars; a command of which parts do refuses those itself.
    needs_mpi
        Whether it needs MPI and PETSc. One for login nodes does without, and is given no communicator.
    """

    name: str
    summary: str
    function: str
    flags: tuple[Flag | OneOf, ...]
    needs_real: bool = False
    needs_mpi: bool = True

    def run(
        self,
        line: CommandLine,
        arguments: argparse.Namespace,
        options: dict[str, object],
        comm: MPI.Comm | None,
        checkpoint: Checkpoint | None,
        resources: Resources | None,
    ) -> int:
        """Call the function of the command and return the exit status. Collective; see `CommandLine.run`."""
        from sparsehess.commands.resources import Resources  # it needs PETSc, as the command does

        if comm is None:
            raise ValueError(f"{self.name} runs on a communicator")
        if self.needs_real:
            runtime.require_real(f"the command {self.name}")
        return self._function()(Call(arguments, options, comm, checkpoint, resources or Resources()))

    def _function(self) -> Callable[..., int]:
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


class CommandLine:
    """The command line: its commands, and how their arguments are parsed.

    Parameters
    ----------
    commands
        In the order of the help.

    Attributes
    ----------
    parser
        Of all commands, as argparse knows it.
    commands, parsers
        By name.
    """

    def __init__(self, commands: Iterable[Command]):
        self.commands = {command.name: command for command in commands}
        self.parsers: dict[str, CommandParser] = {}
        self.parser = CommandParser(
            prog="sparsehess", description="Sparse Hessians from gradients, and their certified eigenpairs."
        )
        self.parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
        subparsers = self.parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
        for command in self.commands.values():
            parser = self.parsers[command.name] = subparsers.add_parser(command.name, help=command.summary)
            for flag in command.flags:
                flag.add_to(parser)

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Return the parsed arguments of a command.

        Not collective.

        Raises
        ------
        InputError
            The command does not take them.
        Help
            They ask for help.
        """
        # A blank before negative numbers: argparse takes -inf and -1e-3 for flags otherwise.
        return self.parser.parse_args(
            [f" {word}" if word.startswith("-") and is_number(word) else word for word in words]
        )

    def run(
        self,
        arguments: argparse.Namespace,
        options: dict[str, object],
        comm: MPI.Comm | None,
        *,
        checkpoint: Checkpoint | None = None,
        resources: Resources | None = None,
    ) -> int:
        """Run the command of parsed arguments and return its exit status.

        Collective.

        Parameters
        ----------
        options
            PETSc options of the solver.
        comm
            None for a command that is run without MPI.
        checkpoint
            Where to save what is there.
        resources
            Where matrices, colourings and solvers come from; default made anew.
        """
        return self.commands[arguments.command].run(self, arguments, options, comm, checkpoint, resources)
