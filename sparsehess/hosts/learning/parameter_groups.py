"""Parameters of a model as variables: which are chosen, which variables they are, and groups of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.block_diagonal import LIMIT, BlockDiagonal
from sparsehess.runtime.validation import explain_evaluation_errors

if TYPE_CHECKING:
    from sparsehess.hessian.matrix_free import MatrixFree


# Which parameters are variables: None for all, a predicate of a name, a regular expression or several.
Selection = Callable[[str], bool] | str | Sequence[str] | None


def select_parameters(names: Iterable[str], parameters: Selection) -> list[str]:
    """Return the names that are chosen, in their order.

    Not collective.

    Parameters
    ----------
    names
        Names of all parameters.
    parameters
        None for all, a predicate of a name, or a regular expression or a list of them: one must match the whole
        name.

    Raises
    ------
    InputError
        Nothing is chosen, or an expression chooses nothing.
    """
    names = list(names)
    if parameters is None:
        return names
    if callable(parameters):
        with explain_evaluation_errors("parameters"):
            found = [name for name in names if parameters(name)]
        if not found:
            raise InputError(f"no parameter is chosen of {_some(names)}")
        return found
    expressions = [parameters] if isinstance(parameters, str) else parameters
    if not isinstance(expressions, (list, tuple)) or not all(isinstance(one, str) for one in expressions):
        raise InputError(f"parameters must be a predicate, an expression or a list of them, not {parameters!r}")
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise InputError(f"parameters: {expression!r} is no regular expression: {error}") from error
        if not any(re.fullmatch(expression, name) for name in names):
            raise InputError(f"no parameter matches {expression!r}: there are {_some(names)}")
    if not expressions:
        raise InputError("no parameter is chosen: the list is empty")
    return [name for name in names if any(re.fullmatch(expression, name) for expression in expressions)]


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def consecutive_slices(sizes: Iterable[tuple[str, int]]) -> dict[str, slice]:
    """Return which variables parameters are that follow each other: a slice for each name.

    Not collective.
    """
    slices, begin = {}, 0
    for name, size in sizes:
        slices[name] = slice(begin, begin + size)
        begin += size
    return slices


def layer_variables(slices: Mapping[str, slice]) -> dict[str, np.ndarray]:
    """Return the variables of each layer: of the parameters that have the same name up to the last dot.

    Not collective. Of the slices of a PyTorch model each module with parameters of its own is a layer.

    Examples
    --------
    >>> from sparsehess.hosts.learning.parameter_groups import layer_variables
    >>> layer_variables({"0.weight": slice(0, 4), "0.bias": slice(4, 6), "2.weight": slice(6, 8)})
    {'0': array([0, 1, 2, 3, 4, 5]), '2': array([6, 7])}
    """
    found: dict[str, list[np.ndarray]] = {}
    for name, part in slices.items():
        found.setdefault(name.rpartition(".")[0], []).append(np.arange(part.start, part.stop))
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


def group_labels(groups: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    """Return (n,) to which of the groups each variable belongs, as `block_traces` wants it.

    Not collective.

    Parameters
    ----------
    groups
        Variables (m,) of each group.
    n
        Number of all variables.

    Raises
    ------
    InputError
        A variable is in no group, or in two.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.learning.parameter_groups import group_labels
    >>> group_labels({"even": np.array([0, 2]), "odd": np.array([1, 3])}, 4)
    array([0, 1, 0, 1])
    """
    out = np.full(n, -1, np.int64)
    for number, (name, variables) in enumerate(groups.items()):
        if len(variables) and not 0 <= np.min(variables) <= np.max(variables) < n:
            raise InputError(f"group {name!r} has variables that are not from 0 to {n - 1}")
        if (out[variables] >= 0).any():
            raise InputError(f"group {name!r} has variables of another group")
        out[variables] = number
    if (out < 0).any():
        raise InputError(f"{np.count_nonzero(out < 0)} of {n} variables are in no group")
    return out


def diagonal_blocks(free: MatrixFree, groups: Mapping[str, np.ndarray]) -> BlockDiagonal:
    """Return the diagonal blocks of a Hessian that has products only, dense: one for each group of variables.

    Collective. A product for each variable; every rank has all blocks for a time.

    Parameters
    ----------
    free
        Products of the Hessian.
    groups
        Variables (m,) of each block, at most 8000; they follow each other from the first to the last variable.

    Raises
    ------
    InputError
        Groups that leave gaps, or are too large: `block_traces` and K-FAC need no block as a whole.
    """
    layout = free.objective.layout
    if not groups or not np.array_equal(np.concatenate([*groups.values()]), np.arange(layout.n)):
        raise InputError("the groups must be all variables, one group after the other")
    large = [f"{name} ({len(group)})" for name, group in groups.items() if len(group) > LIMIT]
    if large:
        raise InputError(f"blocks of more than {LIMIT} variables: {', '.join(large)}")
    blocks, batch = [], max(1, free.objective.batch)
    for group in groups.values():
        block = np.empty((len(group), len(group)))
        for begin in range(0, len(group), batch):
            ask = group[begin : begin + batch]
            X = np.zeros((layout.n_local, len(ask)))
            own = (ask >= layout.start) & (ask < layout.stop)
            X[ask[own] - layout.start, np.flatnonzero(own)] = 1.0
            image = free.products(X)
            here = group[(group >= layout.start) & (group < layout.stop)] - layout.start
            # Ranks have rows in ascending order, so that their pieces of a group follow each other.
            block[:, begin : begin + len(ask)] = np.concatenate(layout.comm.allgather(image[here]))
        blocks.append((block + block.T) / 2)
    return BlockDiagonal(blocks, comm=layout.comm)
