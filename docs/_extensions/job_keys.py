"""The tables of reference/job-file: made of the parser of the command line, when the pages are built."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sparsehess.cli import command_line
from sparsehess.commands import job_files

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PAGE, _KEYS, _SUBMIT, _COMMANDS = "reference/job-file", "<!-- keys -->", "<!-- submit -->", "<!-- commands -->"

# So many commands that do not have a key are named in place of those that do.
_FEW = 2

# What no job file has.
_LEFT_OUT = (argparse._HelpAction,)


def commands() -> list[str]:
    """Return the commands that a job file may be for."""
    line = command_line()
    return [name for name in line.parsers if job_files.is_for_jobs(name)]


def keys(command: str) -> dict[str, argparse.Action]:
    """Return the keys of a command, as job files have them."""
    actions = command_line().parsers[command]._actions
    known = [action for action in actions if not isinstance(action, _LEFT_OUT)]
    return {key: action for action in known for key in job_files.keys_of(action)}


def value(action: argparse.Action) -> str:
    """Return what may stand behind a key, in words."""
    if action.nargs == 0:
        return "`true`, `false`"
    kind = {int: "whole number", float: "number"}.get(action.type, "text")  # type: ignore[call-overload]
    name = str(action.metavar or "")
    if action.choices is not None:
        return ", ".join(f'`"{one}"`' for one in action.choices)
    if "KEY=VALUE" in name:
        return "table `{ name = value }`"
    if isinstance(action, argparse._AppendAction):
        return "list of texts"
    if isinstance(action.nargs, int):
        return f"list of {action.nargs} {kind}s"
    if name.startswith(("FILE", "DIR")):
        words = name.split("|")[1:]
        return "path" + "".join(f', `"{word}"`' for word in words)
    return kind


def tables(mark: str) -> str:
    """Return a table as Markdown: the keys of all commands, or those of [submit]."""
    if mark == _SUBMIT:
        found = {key: action for key, action in keys("submit").items() if action.option_strings}
        head = ["| Key | Value | Meaning |", "|---|---|---|"]
        return "\n".join([*head, *(_row(key, action, ()) for key, action in found.items())])
    every: dict[tuple[str, str, str], tuple[argparse.Action, list[str]]] = {}
    for command in commands():
        for key, action in keys(command).items():
            same = key, value(action), str(action.help)  # a key may mean another thing of another command
            every.setdefault(same, (action, []))[1].append(command)
    rows = [
        _row(key, action, (_of(names),))
        for (key, _, _), (action, names) in sorted(every.items(), key=lambda one: one[0][0])
    ]
    return "\n".join(["| Key | Value | Of | Meaning |", "|---|---|---|---|", *rows])


def _of(names: list[str]) -> str:
    """Return which commands have a key, or which have not where these are few."""
    others = [name for name in commands() if name not in names]
    if not others:
        return "all"
    few = len(others) <= _FEW
    told = ", ".join(f"`{name}`" for name in (others if few else names))
    return f"all but {told}" if few else told


def _row(key: str, action: argparse.Action, more: tuple[str, ...]) -> str:
    cells = (f"`{key}`", value(action), *more, (action.help or "").replace("%%", "%"))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    if page == _PAGE:
        source[0] = source[0].replace(_COMMANDS, ", ".join(f"`{name}`" for name in commands()))
        for mark in (_KEYS, _SUBMIT):
            source[0] = source[0].replace(mark, tables(mark))


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx what is put in the place of the marks."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
