"""Names of a package, or of a class, that are loaded when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


class Elsewhere:
    """An attribute of a class that is a function of another module, loaded when it is first asked for.

    Parameters
    ----------
    home
        The module.
    """

    def __init__(self, home: str) -> None:
        self._home = home

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name that the attribute has in its class: that of the function. Not collective."""
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        """Return the function. Not collective."""
        return getattr(import_module(self._home), self._name)


def attributes(package: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Not collective.

    Parameters
    ----------
    package
        Its globals().
    homes
        The module that each name is in.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        value = package[name] = getattr(import_module(homes[name]), name)
        return value

    return load
