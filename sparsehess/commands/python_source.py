"""What a Python file defines, read from its text: nothing of it is run."""

from __future__ import annotations

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sparsehess.errors import InputError, did_you_mean

# What can make names that the text does not show.
_MAKERS = {"globals", "locals", "vars", "setattr", "exec", "eval"}
_MAKING_ATTRIBUTES = {"modules", "__dict__"}

# The argument that is given whether it is asked for or not.
_GIVEN = "comm"


@dataclass(frozen=True)
class Source:
    """What a Python file defines at its top level.

    Attributes
    ----------
    names
        That are bound.
    functions
        Those that are plain functions, bound once and not decorated, with their arguments.
    is_open
        Whether there may be more names than the text shows.
    """

    names: frozenset[str]
    functions: dict[str, ast.arguments]
    is_open: bool

    def missing(self, name: str) -> str | None:
        """Return what to say of a name that is not bound, None where it is or nobody knows. Not collective."""
        if self.is_open or name in self.names:
            return None
        shown = [one for one in sorted(self.names) if not one.startswith("_")]
        near = did_you_mean(name, shown)
        return f"nothing is called {name!r} there; {near or 'name a function of it that returns an Objective'}"

    def misfit(self, name: str, given: Collection[str]) -> str | None:
        """Return why a function cannot take arguments of these names, None where it can or nobody knows.

        Not collective.
        """
        taken = self.functions.get(name)
        if taken is None:
            return None
        plain = taken.args + taken.kwonlyargs
        known = [one.arg for one in plain if one.arg != _GIVEN]
        for key in given:
            if key not in known and key != _GIVEN and taken.kwarg is None:
                takes = f"it takes {', '.join(known) or 'nothing'}"
                return f"{name} has no argument {key!r}; {did_you_mean(key, known) or takes}"
        first = taken.posonlyargs + taken.args
        needed = [one.arg for one in first[: len(first) - len(taken.defaults)]]
        needed += [
            one.arg for one, value in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if value is None
        ]
        for key in needed:
            if key not in known and key != _GIVEN:
                return f"{name} takes {key!r} by its place alone, and arguments are given by name"
            if key in known and key not in given:
                return f"{name} needs {key!r} too: set = {{ {key} = … }}, or --set {key}=…"
        return None


def read_source(path: Path) -> Source:
    """Return what a Python file defines.

    Not collective. What imports with `*`, or makes names by calls, is open.

    Raises
    ------
    InputError
        It cannot be read, or is no Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file's own, told when it is run
            tree = ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except SyntaxError as error:
        place = "" if error.lineno is None else f", line {error.lineno}"
        raise InputError(f"{path}{place}: no Python: {error.msg}") from error
    except ValueError as error:
        raise InputError(f"{path}: no Python: {error}") from error
    except (RecursionError, MemoryError):
        return Source(frozenset(), {}, is_open=True)
    try:
        reader = _Reader()
        reader.visit(tree)
    except RecursionError:
        return Source(frozenset(), {}, is_open=True)
    bound = reader.bound
    functions = {name: node.args for name, node in reader.functions.items() if bound[name] == 1}
    return Source(frozenset(bound), functions, reader.is_open)


class _Reader(ast.NodeVisitor):
    """Counts what is bound at the top level of a module."""

    def __init__(self) -> None:
        self.bound: Counter[str] = Counter()
        self.functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.is_open = False
        self._scopes = self._loops = 0  # functions and classes, and comprehensions, around

    def visit(self, node: ast.AST) -> None:
        """Look at a node, and at those below. Not collective."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._bind(node.name)
            if not self._scopes and not node.decorator_list:
                self.functions[node.name] = node
            self.is_open = self.is_open or (not self._scopes and node.name == "__getattr__")
            self._below(node)
        elif isinstance(node, ast.ClassDef):
            self._bind(node.name)
            self._below(node)
        elif isinstance(node, ast.AnnAssign) and node.value is None:
            self.visit(node.annotation)  # a promise: nothing is bound
        elif isinstance(node, ast.Lambda):
            self._below(node)
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            self._loops += 1
            self.generic_visit(node)
            self._loops -= 1
        else:
            self._look(node)
            self.generic_visit(node)

    def _below(self, node: ast.AST) -> None:
        self._scopes += 1
        self.generic_visit(node)
        self._scopes -= 1

    def _bind(self, name: str | None) -> None:
        if name is not None and not self._scopes and not self._loops:
            self.bound[name] += 1

    def _look(self, node: ast.AST) -> None:
        """Bind what a statement or an expression binds."""
        if isinstance(node, ast.Import):
            for one in node.names:
                self._bind(one.asname or one.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            self.is_open = self.is_open or any(one.name == "*" for one in node.names)
            for one in node.names:
                self._bind(one.asname or one.name)
        elif isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                self._bind(node.id)
            self.is_open = self.is_open or node.id in _MAKERS
        elif isinstance(node, ast.Attribute):
            self.is_open = self.is_open or node.attr in _MAKING_ATTRIBUTES
        elif isinstance(node, ast.MatchAs | ast.MatchStar):
            self._bind(node.name)
        elif isinstance(node, ast.MatchMapping):
            self._bind(node.rest)
        elif isinstance(node, ast.Global):
            self.bound.update(node.names)
        elif isinstance(node, ast.NamedExpr) and not self._scopes:
            self.bound[node.target.id] += 1  # around a comprehension that it stands in


def find_source(module: str) -> Path | None:
    """Return the Python file of a module, None where it is built otherwise.

    Not collective. No package around it is imported.

    Raises
    ------
    InputError
        There is no such module.
    """
    place, found = None, None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        specs = (finder.find_spec(name, place) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        found = next(filter(None, specs), None)
        if found is None or (end < len(parts) and found.submodule_search_locations is None):
            raise InputError(f"{module}: no module {name!r} where Python looks from here")
        place = found.submodule_search_locations
    origin = None if found is None else found.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None
