"""Words of the command line that nothing takes, and what may be meant by them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence

from sparsehess.errors import InputError, did_you_mean

# Letters of a word that a message shows.
_SHOWN = 150


def wrong_choice(value: object, known: Sequence[str]) -> str:
    """Return what is told of a value that is none of those known. Not collective."""
    meant = did_you_mean(str(value), known)
    return f"invalid choice: {str(value)[:_SHOWN]!r} (choose from {', '.join(known)}){meant and '; '}{meant}"


def refuse_unknown_flags(
    words: Sequence[str], top: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]
) -> None:
    """Raise InputError at the first flag that a command does not know.

    Not collective. It is refused before argparse looks for what is missing: a flag that is required may be there,
    misspelt.

    Parameters
    ----------
    words
        Of the command line; the first is the command.
    top, commands
        The parser of the whole line, and that of each command.
    """
    if {"-h", "--help"} & set(words):
        return
    command = words[0] if words and words[0] in commands else None
    if words and command is None and re.search(r"[./]", words[0]) and not words[0].startswith("-"):
        raise InputError(
            f"{words[0]}: a command stands before it, such as sparsehess eigs {words[0]} (see {top.prog} --help)"
        )
    parser = top if command is None else commands[command]
    known = flags_of(parser)
    for word in words if command is None else words[1:]:
        if not word.startswith("-") and command is None:
            return  # argparse says of it that it is no command
        if _is_flag(word) and _name(word) not in known:
            advice = _advice(
                word, known, {name: flags_of(one) for name, one in commands.items() if one is not parser}
            )
            raise InputError(f"unrecognized arguments: {word[:_SHOWN]}; {advice} (see {parser.prog} --help)")


def remedy(message: str, parser: argparse.ArgumentParser) -> str:
    """Return what to write instead, told behind what argparse says is wrong; nothing where it says so itself.

    Not collective.
    """
    if message.startswith("the following arguments are required"):
        return f"; write {str(parser.usage).replace('%(prog)s', parser.prog).partition(' [')[0]}"
    if "invalid int value" in message:
        return "; write a whole number, such as 6"
    if "invalid float value" in message:
        return "; write a number, such as 1e-3"
    told = re.match(r"argument (\S+?)(?:/\S+)?: expected", message)
    action = next((one for one in parser._actions if told and told[1] in one.option_strings), None)
    if action is None:
        return ""
    values = (
        action.metavar
        if isinstance(action.metavar, tuple)
        else (str(action.metavar or "|".join(action.choices or ())),)
    )
    return f"; write {' '.join((max(action.option_strings, key=len), *values))}"


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the flags that a parser knows, such as `--seed`. Not collective."""
    return [name for action in parser._actions for name in action.option_strings]


def _is_flag(word: str) -> bool:
    """Return whether argparse takes a word for a flag, wherever it stands."""
    return len(word) > 1 and word.startswith("-") and " " not in word


def _name(word: str) -> str:
    """Return the flag of a word that may hold a value too: `--seed=3`, `-k3`."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _advice(word: str, known: Sequence[str], others: Mapping[str, Sequence[str]]) -> str:
    """Return what to write instead of a flag that is not known; `others` has the flags of the other commands."""
    name = word.partition("=")[0]
    owners = [command for command, flags in others.items() if name in flags]
    if owners:
        return f"it is a flag of {', '.join(owners)}"
    meant = did_you_mean(name, known)
    if not meant and re.fullmatch(r"-\w+_\w+", word):
        return f"options of PETSc stand behind the others: … -- {word[:_SHOWN]}"
    return meant or "there is no such flag"
