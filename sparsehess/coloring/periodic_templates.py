"""Periodic templates: colourings c(x) = a · x mod k of stencils on grids and lattices.

A variable has integer coordinates x in Z^d and is coupled with x + o for every offset o of a
stencil S, a finite symmetric set without 0. The residue r(o) = a · o mod k says how the colour of
x + o differs from that of x, wherever x lies; so a condition on residues decides for all of Z^d, and
for every part of it (Goldfarb and Toint, Math. Comp. 43, 1984, for grids of differences).

`distance2`, the same as `star` and `cpr`: the residues of S and 0 are distinct, k >= |S| + 1.
    A star colouring can do no better if it is a template: with r(p) = r(q) != 0, p != q, the vertices
    x, x + p, x + p - q, x + 2p - q are a path in two colours, the last not the first by its colour.

`acyclic`: no residue is 0, and none belongs to more than two offsets, k >= |S| / 2 + 1.
    Two classes that differ by r are joined by the edges x to x + o, x of the first class, o of
    S_r = {o: r(o) = r}. With one offset they are a matching. With two, o1 and o2, no vertex has more
    than two neighbours, and two steps lead from x to x ± (o1 - o2): as o1 != o2 nothing ever comes
    back, each component is an infinite path. With three there is a cycle through x, x + o1,
    x + o1 - o2, x + o1 - o2 + o3, x + o3 - o2, x + o3; its vertices are distinct, since those of one
    class differ by differences of two of the offsets. If 2r = 0 mod k, the edges that leave the
    second class are those of S_-r = S_r as well, nothing else in the argument changes: S_r is then
    symmetric, thus even, two offsets are o and -o and the paths the lines x + Z o.

`powell-toint` (triangular): the residues of 0 and of the earlier half of S are distinct,
    k >= |S| / 2 + 1. Earlier is a lower row number, the last coordinate the most significant, so
    that no two columns of a class meet in the lower triangle (Powell and Toint 1979, Coleman and
    Moré 1984). Each residue then belongs to one earlier and one later offset at most: also acyclic.

In a periodic direction of n points a_i n must be 0 mod k. There a path may close around the torus:
two offsets may share a residue only if their difference has a part in a direction that ends. And
which neighbours are earlier depends on the place: all that meet at some place must be told apart.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sparsehess.errors import InputError, none_of

KINDS = ("distance2", "star", "cpr", "acyclic", "powell-toint")
EFFORT = 20_000_000  # residues that a search evaluates at most, a few tenths of a second
CHUNK = 1 << 14  # candidates at a time


@dataclass(frozen=True, eq=False)
class Template:
    """The colouring c(x) = a · x mod k.

    Attributes
    ----------
    coefficients
        (d,) int64, the a.
    colors
        The k.
    """

    coefficients: np.ndarray
    colors: int

    def color(self, indices: np.ndarray) -> np.ndarray:
        """Return (m,) int32 colours of the variables at `indices` (m, d).

        Not collective.
        """
        return (indices @ self.coefficients % self.colors).astype(np.int32)


def find_template(
    offsets: ArrayLike,
    kind: str,
    *,
    shape: Sequence[int] | None = None,
    periodic: Sequence[bool] | None = None,
    effort: int = EFFORT,
) -> Template | None:
    """Return the template with the fewest colours that was found, or None.

    Not collective. The result depends on the arguments alone and is remembered.

    Parameters
    ----------
    offsets
        (m, d) the stencil: symmetric, without 0.
    kind
        One of `KINDS`.
    shape, periodic
        Points of the grid in each direction, and whether the direction closes. Without them the
        template holds on any grid that ends; with them it may have fewer colours on thin ones.
    effort
        Bound on the work.

    Notes
    -----
    From the bound of the module's docstring up to its double, a = (1, q, q^2, ...) and the radix of
    the stencil's bounding box; below the first such k all a, as far as the work allows. As a unit
    mod k times a is as good as a, the first coefficient need only be a divisor of k.
    """
    if kind not in KINDS:
        raise none_of(f"kind {kind!r}", kind, KINDS)
    offsets = np.asarray(offsets, np.int64)
    shape = None if shape is None else tuple(int(size) for size in shape)
    flags = (False,) * offsets.shape[1] if periodic is None else tuple(bool(flag) for flag in periodic)
    if any(flags) and shape is None:
        raise InputError("periodic directions need a shape")
    return _search(tuple(map(tuple, offsets.tolist())), offsets.shape[1], kind, shape, flags, effort)


@functools.lru_cache(maxsize=128)
def _search(
    stencil: tuple[tuple[int, ...], ...],
    d: int,
    kind: str,
    shape: tuple[int, ...] | None,
    periodic: tuple[bool, ...],
    effort: int,
) -> Template | None:
    offsets = np.unique(np.array(stencil, np.int64).reshape(-1, d), axis=0)
    radius = np.abs(offsets).max(axis=0, initial=0)
    size, closed = 2 * radius + 1 if shape is None else np.array(shape), np.array(periodic)
    if (closed & (size < 2 * radius + 1)).any():
        return None  # a neighbour would be met on both ways around
    sieve = _Sieve(offsets[(np.abs(offsets) < size).all(axis=1)], kind, size, closed, effort)
    best, end = None, 2 * sieve.bound + 1
    for k in range(sieve.bound, end):
        found = sieve.structured(k)
        if found is not None:
            best, end = (found, k), k
        if found is not None or sieve.left <= 0:
            break
    for k in range(sieve.bound, end):
        # An equal share for every k still to come: a hopeless one does not take all the work.
        found = sieve.exhaustive(k, sieve.left // (end - k))
        if found is not None:
            best = found, k
            break
    if best is None:
        return None
    coefficients = best[0].copy()
    coefficients.flags.writeable = False  # they are shared by all who ask
    return Template(coefficients, best[1])


class _Sieve:
    """The conditions of one kind on the residues of one stencil, and the work that is left."""

    def __init__(self, offsets: np.ndarray, kind: str, size: np.ndarray, periodic: np.ndarray, effort: int):
        self.size, self.periodic, self.left = size, periodic, effort
        self.widths = 2 * np.abs(offsets).max(axis=0, initial=0) + 1
        if kind == "acyclic":
            apart, self.bound = _acyclic(offsets, periodic)
        else:
            apart, self.bound = _distinct(offsets, size, periodic, kind == "powell-toint", effort)
        # Vectors whose residue must not be 0, and offsets no three of which may share one, by the
        # last coordinate that they need: each can sieve as soon as the coefficients up to it are known.
        d = len(size)
        self.apart = [apart[_last(apart) == level] for level in range(d)]
        shared = offsets if kind == "acyclic" else offsets[:0]
        self.shared = [shared[_last(shared) <= level] for level in range(d)]

    def choices(self, k: int) -> list[np.ndarray]:
        """Return the a_i that close around the periodic directions."""
        steps = np.where(self.periodic, k // np.gcd(k, self.size), 1)
        return [np.arange(0, k, step) for step in steps.tolist()]

    def keep(self, candidates: np.ndarray, k: int, level: int) -> np.ndarray:
        """Return those of the candidates (c, > level) that meet the conditions new at this coordinate."""
        vectors, shared = self.apart[level][:, : level + 1], self.shared[level][:, : level + 1]
        for begin in range(0, len(vectors), 16):  # few at a time: most candidates fail early
            block = vectors[begin : begin + 16]
            self.left -= len(candidates) * len(block)
            candidates = candidates[(candidates[:, : level + 1] @ block.T % k).all(axis=1)]
        if len(shared) == 0 or len(candidates) == 0:
            return candidates
        self.left -= len(candidates) * len(shared)
        slots = candidates[:, : level + 1] @ shared.T % k + k * np.arange(len(candidates))[:, None]
        taken = np.bincount(slots.ravel(), minlength=k * len(candidates)).reshape(-1, k)
        return candidates[taken.max(axis=1) <= 2]

    def structured(self, k: int) -> np.ndarray | None:
        """Return an a = (1, q, q^2, ...), or the radix of the bounding box, that fits; or None."""
        q, d = np.arange(k), len(self.size)
        candidates = np.empty((k + 1, d), np.int64)
        candidates[:, 0] = 1 % k
        for i in range(1, d):
            candidates[:k, i] = candidates[:k, i - 1] * q % k
            candidates[k, i] = candidates[k, i - 1] * self.widths[i - 1] % k
        for i, choices in enumerate(self.choices(k)):
            candidates = candidates[np.isin(candidates[:, i], choices)]
        for level in range(d):
            candidates = self.keep(candidates, k, level)
        return candidates[0] if len(candidates) else None

    def exhaustive(self, k: int, share: int) -> np.ndarray | None:
        """Return the first a that fits, or None: none does, or the share of the work is spent."""
        choices = self.choices(k)
        divisors = np.array([g % k for g in range(1, k + 1) if k % g == 0], np.int64)
        return self._deeper(divisors[np.isin(divisors, choices[0])][:, None], k, choices, self.left - share)

    def _deeper(self, candidates: np.ndarray, k: int, choices: list[np.ndarray], stop: int) -> np.ndarray | None:
        level = candidates.shape[1]
        candidates = self.keep(candidates, k, level - 1)
        if level == len(choices):
            return candidates[0] if len(candidates) else None
        more = choices[level]
        rows = max(1, CHUNK // len(more))
        for begin in range(0, len(candidates), rows):
            if self.left <= stop:
                return None
            block = candidates[begin : begin + rows]
            wider = np.column_stack([np.repeat(block, len(more), axis=0), np.tile(more, len(block))])
            found = self._deeper(wider, k, choices, stop)
            if found is not None:
                return found
        return None


def _last(vectors: np.ndarray) -> np.ndarray:
    """Return (m,) the last coordinate of each vector (m, d) that is not 0."""
    return vectors.shape[1] - 1 - (vectors[:, ::-1] != 0).argmax(axis=1)


def _acyclic(offsets: np.ndarray, periodic: np.ndarray) -> tuple[np.ndarray, int]:
    """Return (vectors whose residue must not be 0, lower bound of k)."""
    ending = offsets[:, ~periodic]
    around = (ending[:, None] == ending).all(axis=2)  # their path would close around the torus
    first, second = np.nonzero(np.triu(around, 1))
    most = max(len(offsets) // 2, int(around.sum(axis=1).max(initial=0)))
    return _one_of_each_pair(np.concatenate([offsets, offsets[first] - offsets[second]])), 1 + most


def _distinct(
    offsets: np.ndarray, size: np.ndarray, periodic: np.ndarray, earlier: bool, effort: int
) -> tuple[np.ndarray, int]:
    """Return (vectors whose residue must not be 0, lower bound of k)."""
    radii = np.abs(offsets).max(axis=0, initial=0)
    places: list[
        Sequence[int]
    ] = []  # those along each direction that differ in which neighbours are there, or earlier
    for n, radius, closed in zip(size.tolist(), radii.tolist(), periodic, strict=True):
        if closed:
            places.append(sorted({*range(radius + 1), *range(n - radius, n)}) if earlier else [0])
        else:
            places.append([radius] if n > 2 * radius else range(n))
    if np.prod([len(along) for along in places], dtype=float) * len(offsets) > max(effort, len(offsets)):
        met = np.ones((1, len(offsets)), bool)  # enough anyway
    else:
        at = np.array(list(itertools.product(*places)))[:, None]
        to = np.where(periodic, (at + offsets) % size, at + offsets)
        met = ((to >= 0) & (to < size)).all(axis=2)
        if earlier:
            met &= np.sign(to - at) @ 3 ** np.arange(len(size)) < 0  # as the last sign that is not 0
    met = np.column_stack([np.ones(len(met), np.float32), met])
    first, second = np.nonzero(np.triu(met.T @ met, 1))
    points = np.concatenate([np.zeros((1, len(size)), np.int64), offsets])
    return _one_of_each_pair(points[first] - points[second]), int(met.sum(axis=1).max())


def _one_of_each_pair(vectors: np.ndarray) -> np.ndarray:
    """Return the distinct vectors up to sign."""
    return vectors[np.unique(_code(vectors), return_index=True)[1]]


def _code(vectors: np.ndarray) -> np.ndarray:
    """Return (m,) numbers that are the same for v and -v alone."""
    spans = 2 * np.abs(vectors).max(axis=0, initial=0) + 1
    return np.abs(vectors @ np.concatenate([[1], np.cumprod(spans[:-1])]))
