"""Objects in a line: what this rank knows of them already, and never the arrays they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

# A line holds so many characters, and a value among generic ones so many.
_LINE, _VALUE = 100, 24


class ShortRepr:
    """Has a `repr` of one line, also when it is closed or half made.

    Not collective. A debugger on one rank alone asks for it: `_repr_facts` must look at nothing that is computed
    or gathered when it is first asked for, nor at PETSc's objects, which may be destroyed.
    """

    __slots__ = ()

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says after the name of the type. Not collective."""
        if is_dataclass(self):
            for one in fields(self):
                if one.repr and not one.name.startswith("_"):
                    yield f"{one.name}={in_short(getattr(self, one.name))}"

    def __repr__(self) -> str:
        """Return the line. Not collective."""
        try:
            told = ", ".join(self._repr_facts())
        except Exception:  # half made, by a constructor that has raised; a debugger is to show it all the same
            told = "half made"
        told = f"{type(self).__name__}: {told}" if told else type(self).__name__
        told = " ".join(told.split())
        return f"<{told}>" if len(told) <= _LINE - 2 else f"<{told[: _LINE - 5]}...>"


def in_short(value: Any) -> str:
    """Return a value in a few characters: an array by its shape, a list by its length.

    Not collective.
    """
    if isinstance(value, np.ndarray):
        return f"{'x'.join(map(str, value.shape)) or 'scalar'} array"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, (list, dict, set)) or (isinstance(value, tuple) and len(value) > 2):
        return f"{len(value)} in a {type(value).__name__}"
    if isinstance(value, tuple):
        return f"({', '.join(map(in_short, value))})"
    if value is None or isinstance(value, (bool, int, str, np.generic)):
        told = repr(value)
        return told if len(told) <= _VALUE else f"{told[: _VALUE - 3]}..."
    return type(value).__name__


def number_of(many: int, one: str, more: str = "") -> str:
    """Return `1 rank` or `1,234 ranks`.

    Not collective.
    """
    return f"{many:,} {one if many == 1 else more or one + 's'}"
