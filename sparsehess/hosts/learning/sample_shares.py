"""What hosts of learning share: samples over ranks, layers as blocks, products put to the test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from sparsehess.errors import CheckError, InputError
from sparsehess.operators.block_diagonal import LIMIT, BlockDiagonal
from sparsehess.pattern import Layout
from sparsehess.runtime import communicator
from sparsehess.runtime.validation import evaluating, whole_number

# What a loss is over samples.
REDUCTIONS = ("mean", "sum")

# Up to what part of their size products, and values of the function, are the same: far above rounding in each
# precision, also where sums are taken in another order every time, and far below what chance or mistakes make.
SAME = {"float64": 1e-9, "float32": 1e-3}


# --- samples ---


def share(*arrays, comm=None) -> tuple:
    """Return this rank's samples of arrays that all ranks have: as many as others, in a row along the first axis.

    Collective on `comm`.

    Raises
    ------
    InputError
        The arrays have different numbers of samples.
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise InputError(f"arrays to share out must have one number of samples, not {sorted(lengths)}")
    layout = Layout.from_size(lengths.pop(), communicator(comm))
    return tuple(array[layout.start : layout.stop] for array in arrays)


def drawn(samples: int, size: int, *, seed: int = 0, comm=None) -> np.ndarray:
    """Return which of this rank's samples are in a mini-batch drawn from all ranks' without replacement.

    Collective. The same samples on any number of ranks, where their shares follow each other as in `share`.

    Parameters
    ----------
    samples
        How many this rank has.
    size
        Samples in the mini-batch, all ranks together.
    seed
        Of the draw.

    Returns
    -------
    indices
        (m,) ascending, from 0 to samples - 1.

    Raises
    ------
    InputError
        More are wanted than there are.
    """
    layout = Layout.from_local(samples, communicator(comm))
    if whole_number(size, "size", 1) > layout.n:
        raise InputError(f"a mini-batch of {size} from {layout.n} samples: at least 1, and no more than there are")
    chosen = np.sort(np.random.default_rng(seed).choice(layout.n, size, replace=False))
    return chosen[(chosen >= layout.start) & (chosen < layout.stop)] - layout.start


# --- parameters and layers ---


def selected(names: Iterable[str], parameters) -> list[str]:
    """Return the names that are chosen, in their order.

    Not collective.

    Parameters
    ----------
    names
        Of all parameters.
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
        with evaluating("parameters"):
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
    found = [name for name in names if any(re.fullmatch(expression, name) for expression in expressions)]
    if not found:
        raise InputError("no parameter is chosen: the list is empty")
    return found


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def layers(parts: Mapping[str, slice]) -> dict[str, np.ndarray]:
    """Return the variables of each layer: of the parameters that have the same name up to the last dot.

    Not collective. `layers(blocks(model))` of a PyTorch model has one entry for each module with parameters of its
    own.
    """
    found: dict[str, list[np.ndarray]] = {}
    for name, part in parts.items():
        found.setdefault(name.rpartition(".")[0], []).append(np.arange(part.start, part.stop))
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


def labels(groups: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    """Return (n,) to which of the groups each variable belongs, as `block_traces` wants it.

    Not collective.

    Raises
    ------
    InputError
        A variable is in no group, or in two.
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


def diagonal_blocks(free, groups: Mapping[str, np.ndarray]) -> BlockDiagonal:
    """Return the diagonal blocks of a Hessian that has products only, dense: one for each group of variables.

    Collective. A product for each variable; every rank has all blocks for a time.

    Parameters
    ----------
    free
        `MatrixFree`.
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


# --- products that can be trusted ---


def check_products(fresh: Callable[[], Callable], n: int, *, precision: str, name: str, reason: str = "") -> None:
    """Refuse products that change from call to call, or are not those of a symmetric matrix.

    Not collective: for what a rank computes alone.

    Parameters
    ----------
    fresh
        `fresh() -> product`, `product(V (m, n)) -> (m, n)`: the products at one place, prepared from the start.
    n
        Variables.
    precision
        Of the products.
    name
        Of the function, for messages.
    reason
        What is known about why they might.

    Raises
    ------
    CheckError
        They are not deterministic, not symmetric, or not finite.
    """
    directions = np.random.default_rng(n).standard_normal((2, n))
    once, again = fresh()(directions), fresh()(directions)
    if not np.isfinite(once).all():
        raise CheckError(f"products of {name} are not finite: is it twice differentiable at its parameters?")
    size = np.linalg.norm(once)
    apart = np.linalg.norm(once - again)
    if not apart <= SAME[precision] * size:
        raise CheckError(
            f"products of {name} are not deterministic: two with the same vector differ by {apart / size:.0e} of "
            f"their size{reason and ': ' + reason}"
        )
    lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(once, axis=1)[::-1]
    skew = abs(directions[0] @ once[1] - directions[1] @ once[0])
    if not skew <= SAME[precision] * lengths.max():
        raise CheckError(
            f"products of {name} are not symmetric: uᵀHv and vᵀHu differ by {skew / lengths.max():.0e} of their "
            f"size; a part of it has a derivative of its own that is wrong{reason and ', or ' + reason}"
        )


def check_parts(value: Callable, samples: int, *, mean: bool, name: str, reason: str = "") -> None:
    """Refuse a loss of many samples that is not the mean (or sum) of losses of fewer.

    Not collective.

    Parameters
    ----------
    value
        `value(first, last) -> float`, the loss of these samples together.
    samples
        How many there are.
    mean
        Whether the loss is to be a mean, else a sum.

    Raises
    ------
    CheckError
        It is neither, or the other one; or it changes from call to call.
    """
    half = min(samples // 2, 8)
    few = max(2 * half, min(samples, 1))
    if not few:
        return
    whole, again = value(0, few), value(0, few)
    if not np.isfinite(whole):
        raise CheckError(f"the loss of {name} is {whole}")
    if abs(whole - again) > SAME["float64"] * abs(whole):
        raise CheckError(
            f"the loss of {name} is not deterministic: {whole:.6g}, then {again:.6g}{reason and ': ' + reason}"
        )
    if not half:
        return
    parts = value(0, half) + value(half, few)
    size = max(abs(whole), abs(parts), 1e-300)
    expected = {"mean": parts / 2, "sum": parts}
    fits = {kind: abs(whole - one) <= SAME["float64"] * size for kind, one in expected.items()}
    wanted, other = ("mean", "sum") if mean else ("sum", "mean")
    if fits[wanted]:
        return
    if fits[other]:
        raise CheckError(f"the loss of {name} is a {other} over samples: say reduction={other!r}")
    raise CheckError(
        f"the loss of {few} samples of {name} is neither the mean nor the sum of that of its halves, "
        f"{whole:.6g} against {parts / 2:.6g} and {parts:.6g}: {reason or 'samples depend on each other'}"
    )
