"""Cells of crystals: atoms that repeat, which atom of a supercell is the image of which, and shortest ways."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import reals

# Å: atoms that are no farther apart are images of each other, and ways that differ by more are not equally long.
TOLERANCE = 1e-3

# Å: ways that differ by no more are equally long. Between the two ends of `_RANGE` the lengths tell: see
# `shortest_ways`.
SAME_LENGTH = 1e-5
_RANGE = 1e-2


@dataclass(frozen=True, eq=False, repr=False)
class Crystal(ShortRepr):
    """Atoms in a cell that repeats, in three directions or in fewer: a layer, a wire, a molecule.

    Not collective.

    Attributes
    ----------
    lattice
        (3, 3) vectors of the cell as rows, in Å. What those are along which nothing repeats does not matter.
    positions
        (atoms, 3) in Å, Cartesian.
    masses
        (atoms,) in amu.
    symbols
        Of the elements.
    periodic
        Along which of the vectors the crystal repeats, as `pbc` of ASE's atoms.

    Raises
    ------
    InputError
        Shapes that do not fit, numbers that are not finite, a flat cell, or a mass that is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.crystals import Crystal
    >>> Crystal(4.0 * np.eye(3), [[0, 0, 0]], [26.98], ["Al"]).volume
    64.0

    A layer:

    >>> Crystal(4.0 * np.eye(3), [[0, 0, 0]], [26.98], ["Al"], (True, True, False)).periods.tolist()
    [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]
    """

    lattice: np.ndarray
    positions: np.ndarray
    masses: np.ndarray
    symbols: tuple[str, ...]
    periodic: tuple[bool, ...] = (True, True, True)

    def __post_init__(self) -> None:
        """Check the arrays."""
        lattice, positions = reals(self.lattice, "lattice"), np.atleast_2d(reals(self.positions, "positions"))
        masses = np.atleast_1d(reals(self.masses, "masses"))
        if lattice.shape != (3, 3) or positions.shape[1:] != (3,) or masses.shape != (len(positions),):
            raise InputError(
                f"a crystal has a lattice (3, 3), positions (atoms, 3) and masses (atoms,), not {lattice.shape}, "
                f"{positions.shape} and {masses.shape}"
            )
        if len(self.symbols) != len(positions):
            raise InputError(f"{len(self.symbols)} symbols of {len(positions)} atoms")
        if not (np.isfinite(lattice).all() and np.isfinite(positions).all()):
            raise InputError("lattice and positions must be finite")
        periodic = tuple(bool(one) for one in self.periodic)
        if len(periodic) != 3:
            raise InputError(f"periodic={self.periodic!r}: say of each of the three vectors whether it repeats")
        object.__setattr__(self, "periodic", periodic)
        periods = lattice[list(periodic)]
        size = np.sqrt(max(np.linalg.det(periods @ periods.T), 0.0))
        if not size > 1e-6 * np.linalg.norm(periods, axis=1).prod():
            raise InputError(
                "the vectors of the cell along which it repeats lie in one plane or on one line: a layer repeats "
                "along two of them and a wire along one, say which: periodic=(True, True, False), or atoms.pbc"
            )
        for atom in np.flatnonzero(~(np.isfinite(masses) & (masses > 0))):
            raise InputError(f"atom {atom} ({self.symbols[atom]}) has the mass {masses[atom]:g}: give one above 0")
        for name, value in (("lattice", lattice), ("positions", positions), ("masses", masses)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "symbols", tuple(map(str, self.symbols)))

    def __len__(self) -> int:
        """Return the number of atoms."""
        return len(self.positions)

    @property
    def volume(self) -> float:
        """Of the cell, in Å³."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def periods(self) -> np.ndarray:
        """(r, 3) the vectors along which the crystal repeats, in Å."""
        return self.lattice[list(self.periodic)]

    @property
    def reciprocal(self) -> np.ndarray:
        """(3, 3) reciprocal vectors as rows, 2π included, in 1/Å; 0 along what does not repeat."""
        found = np.zeros((3, 3))
        found[list(self.periodic)] = 2 * np.pi * np.linalg.pinv(self.periods).T
        return found

    @property
    def formula(self) -> str:
        """What is in the cell."""
        names = dict.fromkeys(self.symbols)
        counts = {name: self.symbols.count(name) for name in names}
        return "".join(f"{name}{count if count > 1 else ''}" for name, count in counts.items())


@dataclass(frozen=True, eq=False, repr=False)
class Images(ShortRepr):
    """Which atom of a supercell is the image of which atom of a primitive cell, and in which cell.

    Not collective.

    Attributes
    ----------
    of
        (supercell atoms,) the atom of the primitive cell.
    cells
        (supercell atoms,) the number of the primitive cell that the atom is in.
    first
        (primitive atoms,) the atom of the supercell that is this one.
    count
        How many primitive cells there are.
    """

    of: np.ndarray
    cells: np.ndarray
    first: np.ndarray
    count: int
    _points: np.ndarray
    _matrix: np.ndarray
    _keys: np.ndarray
    _at: np.ndarray

    @classmethod
    def found(cls, primitive: Crystal, supercell: Crystal) -> Images:
        """Return the images in a supercell.

        Not collective.

        Raises
        ------
        InputError
            The supercell is no repetition of the primitive cell, atom by atom.
        """
        if supercell.periodic != primitive.periodic:
            raise InputError(
                f"the primitive cell repeats along {primitive.periodic} of its vectors, and the supercell along "
                f"{supercell.periodic}: give both alike"
            )
        along, periods = np.flatnonzero(primitive.periodic), primitive.periods
        inverse = np.linalg.pinv(periods)
        part = np.rint(supercell.periods @ inverse).astype(np.int64)
        if np.abs(supercell.periods - part @ periods).max(initial=0.0) > TOLERANCE:
            raise InputError(
                "the supercell is no repetition of the primitive cell: its vectors are no sums of those"
            )
        whole = np.eye(3, dtype=np.int64)
        whole[np.ix_(along, along)] = part
        count = round(abs(np.linalg.det(whole)))
        if len(supercell) != count * len(primitive):
            raise InputError(
                f"the supercell has {len(supercell)} atoms, {count} primitive cells of {len(primitive)} atoms "
                f"{count * len(primitive)}"
            )
        of = np.full(len(supercell), -1)
        points = np.zeros((len(supercell), 3), np.int64)
        for atom, place in enumerate(primitive.positions):
            away = supercell.positions - place
            near = np.rint(away @ inverse)
            here = (np.linalg.norm(away - near @ periods, axis=1) < TOLERANCE) & (of < 0)
            here &= np.array([symbol == primitive.symbols[atom] for symbol in supercell.symbols])
            of[here] = atom
            points[np.ix_(here, along)] = near[here].astype(np.int64)
        for atom in np.flatnonzero(of < 0):
            raise InputError(
                f"atom {atom} ({supercell.symbols[atom]}) of the supercell is at no image of an atom of the "
                f"primitive cell, to {TOLERANCE:g} Å"
            )
        keys = _keys(points, whole)
        cells, numbers = np.unique(keys, return_inverse=True)
        numbers = numbers.ravel()
        at = np.full((len(primitive), count), -1)
        at[of, numbers] = np.arange(len(supercell))
        if len(cells) != count or (at < 0).any():
            raise InputError("two atoms of the supercell are one: each cell needs all its atoms")
        home = np.searchsorted(cells, _keys(np.zeros((1, 3), np.int64), whole))[0]
        return cls(of, numbers, at[:, home], count, points, whole, cells, at)

    @property
    def points(self) -> np.ndarray:
        """(count, 3) a lattice point of each of the primitive cells, in vectors of the lattice."""
        return self._points[self._at[0]]

    @property
    def order(self) -> np.ndarray:
        """(supercell atoms,) the place of each in a list by atoms of the primitive cell, and then by cells."""
        return self.of * self.count + self.cells

    def fitting(self) -> np.ndarray:
        """Return (count, 3) the wave vectors that fit the supercell, in reciprocal vectors, from 0 to 1.

        Not collective. S f is whole, S the supercell's vectors: sums of the columns of the inverse of S.
        """
        determinant = round(np.linalg.det(self._matrix))
        columns = np.rint(determinant * np.linalg.inv(self._matrix)).astype(np.int64).T
        size = abs(determinant)
        found = np.zeros((1, 3), np.int64)
        for column in columns:
            times = np.arange(size // np.gcd.reduce([size, *column.tolist()]))
            sums = (found[:, None] + times[:, None] * column).reshape(-1, 3) % size
            found = np.unique(sums, axis=0)
        return found / size

    def moved_home(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the atoms that lie from `first`'s images in the home cell as `second` do from `first`.

        Not collective. Both (pairs,) are atoms of the supercell.
        """
        keys = _keys(self._points[second] - self._points[first], self._matrix)
        return self._at[self.of[second], np.searchsorted(self._keys, keys)]

    def partner(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pair (atom of the primitive cell, atom of the supercell) that is (second, first), moved home.

        Not collective.
        """
        return self.of[second], self.moved_home(second, self.first[first])


def _keys(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return (m,) a whole number for each lattice point, equal where a supercell vector lies between two."""
    determinant = round(np.linalg.det(matrix))
    adjugate = np.rint(determinant * np.linalg.inv(matrix)).astype(np.int64)
    size = abs(determinant)
    left = (points @ adjugate) % size
    return (left[:, 0] * size + left[:, 1]) * size + left[:, 2]


def reduced(lattice: np.ndarray) -> np.ndarray:
    """Return (r, 3) vectors of the same lattice as short as they can be (Minkowski), of three or fewer.

    Not collective. Each is replaced by the shortest of its sums with the others, until none is shorter.
    """
    vectors = np.array(lattice, float)
    while True:
        before = np.linalg.norm(vectors, axis=1)
        for number in range(len(vectors)):
            others = np.delete(vectors, number, axis=0)
            sums = vectors[number] + _steps(len(others)) @ others
            vectors[number] = sums[int(np.argmin(np.round(np.linalg.norm(sums, axis=1), 12)))]
        if not (np.linalg.norm(vectors, axis=1) < before * (1 - 1e-12)).any():
            return vectors


def _steps(vectors: int) -> np.ndarray:
    """Return (3^vectors, vectors) all sums of 0, 1 or -1 times each of some vectors, first those of none."""
    return np.array(list(itertools.product((0, -1, 1), repeat=vectors))).reshape(3**vectors, vectors)


def shortest_ways(
    lattice: np.ndarray, away: np.ndarray, same: float | None = SAME_LENGTH
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shortest ways that differ from given ones by vectors of a lattice, all that are equally short.

    Not collective.

    Parameters
    ----------
    lattice
        (r, 3) in Å, vectors as rows, of three directions or fewer.
    away
        (pairs, 3) in Å.
    same
        Ways that are longer than the shortest by no more, in Å, are as short. None: as the lengths themselves
        tell. Positions of a file are rounded, and so are differences of lengths that are equal in truth: they lie
        below a gap, and what differs in truth above it. The end is in the middle of the widest gap, by factors,
        between 1e-5 and 1e-2 Å, and is 1e-3 Å at most; 1e-4 Å where no difference lies there.

    Returns
    -------
    (ways,) the pair that each belongs to, ascending; (ways, 3) in Å; (ways,) one over how many the pair has.
    """
    basis = reduced(lattice)
    around, inverse = _steps(len(basis)) @ basis, np.linalg.pinv(basis)
    pairs, ways, beyond = [], [], []
    chunk = 20_000
    for begin in range(0, len(away), chunk):
        some = away[begin : begin + chunk]
        some = some - np.rint(some @ inverse) @ basis
        images = some[:, None, :] + around[None]
        lengths = np.linalg.norm(images, axis=2)
        longer = lengths - lengths.min(axis=1, keepdims=True)
        pair, image = np.nonzero(longer < (_RANGE if same is None else same))
        pairs.append(pair + begin)
        ways.append(images[pair, image])
        beyond.append(longer[pair, image])
    if not pairs:
        return np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0)
    pair, way, more = np.concatenate(pairs), np.concatenate(ways), np.concatenate(beyond)
    kept = more < (_told_by(more) if same is None else same)
    pair, way = pair[kept], way[kept]
    return pair, way, 1.0 / np.bincount(pair, minlength=len(away))[pair]


def in_first_zone(reciprocal: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return (m, 3) the shortest wave vectors that differ from q by reciprocal vectors, rows of (3, 3).

    Not collective. Of some that are equally short the first in the order of `shortest_ways`.
    """
    wave, ways, _ = shortest_ways(reciprocal, q)
    return ways[np.unique(wave, return_index=True)[1]]


def _told_by(more: np.ndarray) -> float:
    """Return the end of what is rounding among differences of lengths, in Å; see `shortest_ways`."""
    inside = np.sort(more[(more > SAME_LENGTH) & (more < _RANGE)])
    steps = np.log(np.concatenate([[SAME_LENGTH], inside, [_RANGE]]))
    widest = int(np.argmax(np.round(np.diff(steps), 6)))
    return float(min(np.exp(0.5 * (steps[widest] + steps[widest + 1])), TOLERANCE))
