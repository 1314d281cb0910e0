"""What stands after `--` on the command line, or in [petsc] of a job file."""

from __future__ import annotations

from sparsehess.errors import InputError

# Options of these families belong to the solver and are inserted under its own prefix.
_FAMILIES = ("eps_", "st_", "bv_", "ds_", "rg_")


def split_petsc(arguments: list[str]) -> tuple[dict[str, object], list[str], list[str]]:
    """Return (options of the solver, PETSc's own arguments, their names) of what stands after `--`."""
    solver: dict[str, object] = {}
    rest: list[str] = []
    names: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if not word.startswith("-") or is_number(word):
            raise InputError(f"after --, expected a PETSc option such as -eps_monitor, found {word!r}")
        key, value = word.lstrip("-"), None
        position += 1
        if position < len(arguments) and (
            not arguments[position].startswith("-") or is_number(arguments[position])
        ):
            value = arguments[position]
            position += 1
        if key.startswith("mat_mumps_"):
            key = "st_" + key
        if key.startswith(_FAMILIES):
            solver[key] = value
        else:
            rest += ["-" + key] + ([] if value is None else [value])
            names.append(key)
    return solver, rest, names


def is_number(word: str) -> bool:
    """Return whether a word is a number, infinite ones among them. Not collective."""
    try:
        float(word)
    except ValueError:
        return False
    return True
