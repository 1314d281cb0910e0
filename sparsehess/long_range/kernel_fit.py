"""The fit of a far kernel to readings of compressed columns at places where nothing is near.

In row i, colour c reads the sum of the entries of all variables of the colour, times their steps. Where none
of them is near, all of it is far, and linear in the coefficients of the radial functions. Signs drawn at random
make the sums of one colour those of independent terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.coloring import Coloring
from sparsehess.hessian.recovery import Direct
from sparsehess.long_range.points import Points
from sparsehess.long_range.radial_kernel import Pairs, RadialKernel, Shape, weights_of
from sparsehess.operators.tall_skinny_qr import tall_qr
from sparsehess.pattern import Pattern
from sparsehess.runtime import on_root
from sparsehess.runtime.random_numbers import hash_numbers

# Radial functions for f and for g of each weight, and of all together at most.
_FUNCTIONS, _COLUMNS = 16, 120

# Readings for each unknown that are aimed at, and that there must be.
_AIM, _LEAST = 1000, 5

# Part of the points whose readings are held out of the fit.
_HELD_OUT = 0.2

# More functions must better the misfit by this factor; a kernel that leaves this part of what was held out is not
# taken.
_BETTER, _NO_FIT = 0.95, 0.5

# Singular values of the fit, relative to the largest, below which nothing is told.
_RESOLVED = 1e-12

# Numbers of a piece of the design matrix.
_PIECE = 4_000_000


@dataclass(frozen=True, eq=False)
class Readings:
    """Compressed columns that were measured.

    Attributes
    ----------
    coloring
        Of whichever pattern.
    taken
        (n_local,) signed step of each variable.
    changes
        (colors, n_local) the compressed columns times steps.
    """

    coloring: Coloring
    taken: np.ndarray
    changes: np.ndarray


@dataclass(frozen=True)
class _Fit:
    """What a fit has told, the same on every rank."""

    coefficients: np.ndarray
    misfit: float


def functions_at_most(weights: int) -> int:
    """Return how many radial functions a kernel of so many weights has for each at most. Not collective."""
    return max(1, min(_FUNCTIONS, _COLUMNS // (2 * weights)))


def fit_kernel(
    points: Points, pattern: Pattern, readings: Sequence[Readings], shape: Shape, seed: int
) -> RadialKernel | None:
    """Return the far kernel that readings tell, or None where none fits.

    Collective. By a tall QR factorization of the readings of some points. As many radial functions are taken as
    better the misfit of other points' readings, which the fit has not seen.

    Parameters
    ----------
    pattern
        Of variables, with the pattern of points as its quotient.
    readings
        By one or more colourings, of this pattern and of others: all of their places at which nothing of this one
        is near are far data.
    """
    comm, dims, weights = points.layout.comm, points.dims, weights_of(points)
    near = pattern.quotient
    empty = [_empty_places(pattern, one.coloring) for one in readings]
    total = comm.allreduce(sum(int(one.sum()) for one in empty))
    many = min(_FUNCTIONS, min(_COLUMNS, int((1 - _HELD_OUT) * total) // _LEAST) // (2 * weights))
    columns = 2 * weights * many
    if near is None or not many:
        return None
    draws = hash_numbers(np.arange(points.layout.start, points.layout.stop), seed + 1).astype(np.float64) / 2.0**64
    share = min(1.0, _AIM * columns / total)
    chosen = np.flatnonzero(draws < share)
    held = draws[chosen] < _HELD_OUT * share
    fitted, other = np.zeros((0, columns + 1)), np.zeros((0, columns + 1))
    widest = max(one.coloring.count for one in readings)
    piece = max(1, _PIECE // (columns * max(points.layout.counts.max(), dims * widest)))
    rounds = comm.allreduce(-(-len(chosen) // piece), op=MPI.MAX)
    for turn in range(rounds):
        some = slice(turn * piece, (turn + 1) * piece)
        rows = chosen[some]
        at, out = (rows[:, None] * dims + np.arange(dims)).ravel(), np.repeat(held[some], dims)
        for one, places in zip(readings, empty, strict=True):
            design = _design(points, near, rows, one, shape, many)
            table, used = np.concatenate([design, one.changes[:, at].T[..., None]], axis=2), places[at]
            fitted = _triangle(fitted, table[~out][used[~out]])
            other = _triangle(other, table[out][used[out]])
    R, kept = tall_qr(comm, fitted)[1], tall_qr(comm, other)[1]
    found = on_root(comm, _solve, R, kept, many, weights)
    if found is None:
        return None
    return RadialKernel(points, near, shape, found.coefficients, found.misfit)


def far_readings(kernel: RadialKernel, coloring: Coloring, taken: np.ndarray, some: int = 64) -> np.ndarray:
    """Return (colors, n_local) what a kernel adds to the compressed columns, times steps.

    Collective.
    """
    out = np.empty((coloring.count, len(taken)))
    for begin in range(0, coloring.count, some):
        end = min(begin + some, coloring.count)
        steps = (coloring.colors[:, None] == np.arange(begin, end)) * taken[:, None]
        out[begin:end] = kernel.products(steps).T
    return out


def unevenness(recovery: Direct, changes: np.ndarray, taken: np.ndarray) -> float:
    """Return the root of the sum of squares of what the two readings of near entries differ by.

    Collective. Those differ by far entries alone, of pairs that the fit has seen nowhere as they are. 0 where no
    entry is read both ways.

    Parameters
    ----------
    changes
        (colors, n_local) the compressed columns times steps.
    taken
        (n_local,) signed step of each variable.
    """
    pattern = recovery.pattern
    own = np.zeros(pattern.nnz_local)
    recovery.collect(0, np.ascontiguousarray(changes), taken, own)
    apart = (own - pattern.transposed(own))[recovery.source == 3]
    return float(np.sqrt(pattern.comm.allreduce(float(apart @ apart))))


def is_borne_out(before: float, after: float) -> bool:
    """Return whether near entries are read more evenly without what a kernel adds to readings. Not collective.

    Parameters
    ----------
    before, after
        Unevenness of the readings as they are, and without it.
    """
    return before == 0 or after < _BETTER * before


def _empty_places(pattern: Pattern, coloring: Coloring) -> np.ndarray:
    """Return (n_local, colors) bool: where row and colour have no near entry.

    Collective. The colouring may be that of another pattern.
    """
    empty = np.ones((pattern.layout.n_local, coloring.count), bool)
    rows = np.repeat(np.arange(pattern.layout.n_local), np.diff(pattern.indptr))
    colors = pattern.exchange.halo(np.ascontiguousarray(coloring.colors))[pattern.columns]
    empty[rows[colors >= 0], colors[colors >= 0]] = False
    return empty


def _design(
    points: Points,
    near: Pattern,
    rows: np.ndarray,
    readings: Readings,
    shape: Shape,
    many: int,
) -> np.ndarray:
    """Return (rows * d, colors, columns) what each radial function adds to the readings of some own points.

    Collective. Columns are in the order of the functions, then of the weights, f before g.
    """
    dims, weights, count = points.dims, weights_of(points), readings.coloring.count
    out = np.zeros((many, weights, 2, len(rows), dims, count))
    for share, steps, colors in points.shares(readings.taken, readings.coloring.colors):
        if not len(rows) or not len(steps):
            continue
        stepped = scipy.sparse.csr_array(
            (steps, (np.arange(len(steps)), np.maximum(colors, 0))), (len(steps), count)
        )
        axes = [stepped[b::dims].T.tocsr() for b in range(dims)]
        for at, row in enumerate(rows):
            pairs = Pairs(points, near, points.own.part(row, row + 1), share)
            functions = shape.functions(pairs.r[0], many)[:, None] * pairs.weights[None, :, 0]
            flat, unit = functions.reshape(many * weights, -1).T, pairs.unit[:, 0]
            for b in range(dims):
                out[:, :, 0, at, b] += (axes[b] @ flat).T.reshape(many, weights, count)
                for a in range(dims):
                    steep = flat * (unit[a] * unit[b])[:, None]
                    out[:, :, 1, at, a] += (axes[b] @ steep).T.reshape(many, weights, count)
    return np.moveaxis(out.reshape(2 * many * weights, len(rows) * dims, count), 0, 2)


def _triangle(above: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the triangular factor of rows under those of a factor. Not collective."""
    made: np.ndarray = np.linalg.qr(np.concatenate([above, rows]), mode="r")  # type: ignore[assignment]
    return made


def _solve(fitted: np.ndarray, held: np.ndarray, many: int, weights: int) -> _Fit | None:
    """Return the fit of as many functions as what was held out bears, None where none fits. Not collective."""
    size = np.linalg.norm(held[:, -1])
    units = np.sqrt((fitted[:, :-1].reshape(-1, many, weights, 2) ** 2).sum(axis=(0, 1, 3)))
    units = np.where(units > 0, units / units.max(initial=0.0), 1.0)  # of charges: coulombs have small products
    units = np.tile(np.repeat(units, 2), many)
    best, found = _NO_FIT / _BETTER, None
    for k in range(1, many + 1):
        some = 2 * weights * k
        scaled = fitted[:some, :some] / units[:some]
        c = np.linalg.lstsq(scaled, fitted[:some, -1], rcond=_RESOLVED)[0] / units[:some]
        misfit = float(np.linalg.norm(held[:, -1] - held[:, :some] @ c) / size) if size > 0 else np.inf
        if misfit < _BETTER * best:
            best, found = misfit, _Fit(c.reshape(k, weights, 2), misfit)
    return found
