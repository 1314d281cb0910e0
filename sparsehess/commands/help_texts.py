"""What `--help` shows besides flags: how a command is called, and examples that run."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

# What a reader of the list of commands does next.
NEXT = """\
next:
  sparsehess COMMAND --help       its flags in groups, and three examples that run
  sparsehess info                 what of the stack is there, and what is missing
  sparsehess plan INPUT           what a run would cost, before it is run
  sparsehess manual | man -l -    all of this as one page
"""


def usage(parser: argparse.ArgumentParser, takes_petsc: bool) -> str:
    """Return the first line of a command's help: what it needs, and that flags may follow. Not collective."""
    words = ["%(prog)s"]
    for action in parser._actions:
        if not action.option_strings:
            name = str(action.metavar or action.dest)
            words.append({"*": f"[{name} …]", "+": f"{name} …"}.get(str(action.nargs), name))
        elif action.required:
            words.append(f"{action.option_strings[0]} {action.metavar}")
    return " ".join([*words, "[flags]", *(["[-- options of PETSc]"] if takes_petsc else [])])


def format_examples(examples: Iterable[tuple[str, str]]) -> str | None:
    """Return the end of a command's help: each example under what it does; None without any. Not collective."""
    lines = [line for says, command in examples for line in (f"  {says}", f"    {command}")]
    return "\n".join(["examples:", *lines]) if lines else None
