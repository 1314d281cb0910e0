"""The command line: a command is an entry in a table, and argparse parses what the table says."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from sparsehess import runtime
from sparsehess.commands.help_texts import NEXT, format_examples, usage
from sparsehess.commands.misspelt import refuse_unknown_flags, remedy, wrong_choice
from sparsehess.commands.petsc_words import is_number
from sparsehess.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.resources import Resources
    from sparsehess.storage.checkpoint import Checkpoint


# What the name of a job file ends with.
JOB_SUFFIX = ".toml"


class Help(Exception):
    """The text that -h or --version asked for."""


class CommandParser(argparse.ArgumentParser):
    """A parser that leaves printing and exiting to `cli.main`, which knows the rank."""

    def __init__(self, **keywords: Any):
        super().__init__(
            allow_abbrev=False,
            add_help=False,  # it stands in a group, as other flags do
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **keywords,
        )

    def error(self, message: str) -> NoReturn:
        """Raise InputError. Not collective."""
        raise InputError(f"{message}{remedy(message, self)} (see {self.prog} --help)")

    def refuse_more(self, words: list[str]) -> NoReturn:
        """Raise InputError for words beyond those that the command takes. Not collective."""
        self.error(f"unrecognized arguments: {' '.join(words)}; write {str(self.usage) % {'prog': self.prog}}")

    def print_help(self, file: object = None) -> NoReturn:
        """Raise Help. Not collective."""
        raise Help(self.format_help())

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is no choice, as argparse does, and name the one that may be meant."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, wrong_choice(value, [str(one) for one in action.choices]))


class _TopParser(CommandParser):
    """The parser of all commands, which its help shows in sections."""

    def __init__(self, **keywords: Any):
        super().__init__(**keywords)
        self.sections: dict[str, list[Command]] = {}

    def format_help(self) -> str:
        """Return the help. Not collective."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, commands in self.sections.items():
            formatter.start_section(title)
            for command in commands:
                formatter.add_argument(
                    argparse.Action([], command.name, metavar=command.name, help=command.summary)
                )
            formatter.end_section()
        formatter.start_section("help")
        formatter.add_arguments([action for action in self._actions if action.option_strings])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


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


class ShowSchema(argparse.Action):
    """Shows the JSON Schema of answers, as help is shown: nothing else is run."""

    def __call__(self, *_: object) -> NoReturn:
        """Raise Help. Not collective."""
        from sparsehess.commands.answer_schema import schema_text

        raise Help(schema_text())


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


class Group:
    """Flags that the help shows together.

    Parameters
    ----------
    title
        Of the group, in the words of the field.
    flags
        In the order of the help.
    """

    def __init__(self, title: str, *flags: Flag | OneOf):
        self.title, self.flags = title, flags

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags to a parser, as a group of their own. Not collective."""
        group = parser.add_argument_group(self.title)
        for flag in self.flags:
            flag.add_to(group)


HELP_FLAG = Flag("-h", "--help", action="help", help="show this help, and stop")


@dataclass(frozen=True)
class Example:
    """A command line that runs, and what it does.

    Attributes
    ----------
    says, command
        One line each.
    """

    says: str
    command: str


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes
    ----------
    name, summary, section
        What is typed, what the list of commands says of it, and in which section of the list.
    function
        `module:name` of a function that takes a `Call` and returns the exit status on every rank. The module is
        imported when the command is run.
    groups
        Its flags, in groups, in the order of the help.
    examples
        At the end of its help.
    needs_real
        Whether all of it needs real scalars; a command of which parts do refuses those itself.
    needs_mpi
        Whether it needs MPI and PETSc. One for login nodes does without, and is given no communicator.
    """

    name: str
    summary: str
    section: str
    function: str
    groups: tuple[Group, ...]
    examples: tuple[Example, ...] = ()
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
        # They need PETSc, as the command does.
        from sparsehess.commands.call import Call
        from sparsehess.commands.resources import Resources

        if comm is None:
            raise ValueError(f"{self.name} runs on a communicator")
        if self.needs_real:
            runtime.require_real(f"the command {self.name}")
        return self._function()(Call(arguments, options, comm, checkpoint, resources or Resources()))

    @property
    def takes_petsc(self) -> bool:
        """Whether options of PETSc may stand behind its own."""
        return self.needs_mpi

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add usage, flags and examples to the parser of the command. Not collective."""
        for group in self.groups:
            group.add_to(parser)
        parser.usage = usage(parser, self.takes_petsc)
        parser.description = f"{self.summary[0].upper()}{self.summary[1:]}."
        parser.epilog = format_examples((one.says, one.command) for one in self.examples)

    def _function(self) -> Callable[..., int]:
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


class LineCommand(Command):
    """A command on the command line itself, or on jobs that are checked against it.

    Its function takes (arguments, line, comm). It solves nothing, and refuses options of PETSc.
    """

    @property
    def takes_petsc(self) -> bool:
        """They would have no effect."""
        return False

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
        from sparsehess.commands.output import refuse_solver_options

        refuse_solver_options(options)
        if self.needs_real and comm is not None:
            runtime.require_real(f"the command {self.name}")
        return self._function()(arguments, line, comm)


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
        self.parser = _TopParser(
            prog="sparsehess",
            usage="%(prog)s COMMAND … [flags] [-- options of PETSc]",
            description="Sparse Hessians from gradients, and their certified eigenpairs.",
            epilog=NEXT,
        )
        HELP_FLAG.add_to(self.parser)
        self.parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and stop")
        subparsers = self.parser.add_subparsers(
            dest="command", metavar="COMMAND", required=True, prog="sparsehess", parser_class=CommandParser
        )
        for command in self.commands.values():
            self.parser.sections.setdefault(command.section, []).append(command)
            command.add_to(self._add_parser(subparsers, command))

    def _add_parser(self, subparsers: Any, command: Command) -> CommandParser:
        parser = self.parsers[command.name] = subparsers.add_parser(command.name, help=command.summary)
        return parser

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Return the parsed arguments of a command, and the words themselves as `words`.

        Not collective.

        Raises
        ------
        InputError
            The command does not take them.
        Help
            They ask for help.
        """
        if words[:1] == ["help"]:
            words = [*words[1:2], "--help"]
        # A blank before negative numbers: argparse takes -inf and -1e-3 for flags otherwise.
        blanked = [f" {word}" if word.startswith("-") and is_number(word) else word for word in words]
        refuse_unknown_flags(blanked, self.parser, self.parsers)
        parsed, rest = self.parser.parse_known_args(blanked)
        if rest:
            self.parsers[parsed.command].refuse_more(rest)
        parsed.words = list(words)
        return parsed

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
