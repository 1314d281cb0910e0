"""Boxes by which points repeat: nearest images, pairs within a radius, and how wide all is.

An image is nearest in a skew box if it is the nearest of all that can be: with a* the orthogonal parts of the
vectors one after another, every point has a lattice point within R = √(Σ |a*|²) / 2 of where it is in the space of
the vectors (Babai 1986, theorem 3.1); and n steps along a vector whose opposite faces are h apart lead at least
(n − 1/2) h away from a point of the cell around 0. So n is no more than R / h + 1/2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

# Vectors that leave the axes by more than this part of the longest are skew.
_SKEW = 1e-12

# Vectors lie in a plane, or a line, if they span less than this part of what their lengths do.
_FLAT = 1e-9

# Rounding of what is compared with a bound.
_ROUNDING = 1e-9

# Rounds of the reduction of vectors, each of which shortens one.
_ROUNDS = 1000


class Box(Protocol):
    """By what points repeat."""

    def nearest(self, apart: np.ndarray) -> np.ndarray:
        """Return differences (..., d) to nearest images, which may be those given, changed. Not collective."""
        ...

    def pairs(self, left: np.ndarray, right: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (of left, of right) numbers of points no farther apart than a radius. Not collective."""
        ...

    def sides(self, between: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, float]:
        """Return (d lengths whose product is the volume of all, a distance that no two points exceed).

        Collective, as `between` is.

        Parameters
        ----------
        between
            Returns how far all points reach along some directions (d, m), as (m,).
        """
        ...


class RightBox:
    """A box with right angles along the axes, or open space.

    Attributes
    ----------
    lengths
        (d,), 0 along axes that are open.
    """

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths

    def nearest(self, apart: np.ndarray) -> np.ndarray:
        """See `Box`."""
        for axis in np.flatnonzero(self.lengths):
            apart[..., axis] -= self.lengths[axis] * np.round(apart[..., axis] / self.lengths[axis])
        return apart

    def pairs(self, left: np.ndarray, right: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Box`."""
        found = self._tree(left).sparse_distance_matrix(self._tree(right), radius, output_type="ndarray")
        return found["i"], found["j"]

    def _tree(self, positions: np.ndarray) -> cKDTree:
        folded = positions.copy()
        for axis in np.flatnonzero(self.lengths):
            folded[:, axis] = np.mod(folded[:, axis], self.lengths[axis])
            folded[folded[:, axis] >= self.lengths[axis], axis] = 0.0  # what rounding makes of the least below 0
        return _tree(folded, self.lengths if self.lengths.any() else None)

    def sides(self, between: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, float]:
        """See `Box`."""
        open_sides = between(np.eye(len(self.lengths)))
        sides = np.where(self.lengths > 0, self.lengths, open_sides)
        return sides, float(np.linalg.norm(np.where(self.lengths > 0, self.lengths / 2, open_sides)))


class SkewBox:
    """A box of any vectors, as many as there are directions in which points repeat.

    Attributes
    ----------
    vectors
        (p, d), reduced: short ones of the same lattice.
    """

    def __init__(self, vectors: np.ndarray):
        self.vectors = _reduced(vectors)
        self._inverse = np.linalg.pinv(self.vectors)
        self._heights = 1 / np.linalg.norm(self._inverse, axis=0)
        basis, triangle = np.linalg.qr(self.vectors.T, mode="complete")
        self._across = basis[:, len(self.vectors) :]
        self._orthogonal = np.abs(np.diag(triangle))
        self._farthest = float(np.linalg.norm(self._orthogonal)) / 2
        # No lattice vector is shorter than the least height: what is within half of it has no nearer image.
        self._sure = float(self._heights.min()) / 2
        self._turns = self._steps(self._farthest, 0.5)

    def _steps(self, reach: float, beside: float) -> np.ndarray:
        """Return (m, p) steps along the vectors that may lead to a point within reach, 0 0 0 not among them.

        One after another with its opposite: which of two images equally near is taken is then the same, seen from
        either point.
        """
        most = np.floor(reach / self._heights * (1 + _ROUNDING) + beside).astype(int)
        whole = itertools.product(*[range(-m, m + 1) for m in most])
        half = [turn for turn in whole if turn > (0,) * len(most)]
        pairs = [(turn, tuple(-n for n in turn)) for turn in half]
        return np.array([turn for pair in pairs for turn in pair]).reshape(-1, len(most))

    def _parts(self, where: np.ndarray) -> np.ndarray:
        """Return (..., p) what part of each vector leads there, alike to the last bit however many there are."""
        terms = [where[..., axis, None] * self._inverse[axis] for axis in range(where.shape[-1])]
        return np.sum(terms, axis=0)

    def _along(self, steps: np.ndarray) -> np.ndarray:
        """Return (..., d) where steps (..., p) along the vectors lead."""
        return np.sum([steps[..., one, None] * vector for one, vector in enumerate(self.vectors)], axis=0)

    def nearest(self, apart: np.ndarray) -> np.ndarray:
        """See `Box`."""
        apart = apart - self._along(np.round(self._parts(apart)))
        squares = np.sum(apart**2, axis=-1)
        doubtful = np.nonzero(squares > (self._sure * (1 - _ROUNDING)) ** 2)
        base = apart[doubtful]
        best, least = base.copy(), squares[doubtful]
        for way in self._along(self._turns):
            other = base + way
            found = np.sum(other**2, axis=-1)
            nearer = found < least
            best[nearer], least[nearer] = other[nearer], found[nearer]
        apart[doubtful] = best
        return apart

    def pairs(self, left: np.ndarray, right: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Box`."""
        reach = min(radius, self._farthest)
        beside = reach / self._heights + _ROUNDING
        left, right = (
            left - self._along(np.floor(self._parts(left))),
            right - self._along(np.floor(self._parts(right))),
        )
        parts, number = self._parts(right), np.arange(len(right))
        images, numbers = [right], [number]
        for turn, way in zip(steps := self._steps(reach, 1.0), self._along(steps), strict=True):
            near = ((parts + turn >= -beside) & (parts + turn <= 1 + beside)).all(axis=1)
            images.append(right[near] + way)
            numbers.append(number[near])
        found = _tree(left, None).sparse_distance_matrix(
            _tree(np.concatenate(images), None), radius, output_type="ndarray"
        )
        pairs = np.unique(found["i"] * len(right) + np.concatenate(numbers)[found["j"]])
        return pairs // len(right), pairs % len(right)

    def sides(self, between: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, float]:
        """See `Box`."""
        across = between(self._across)
        return np.concatenate([self._orthogonal, across]), float(np.hypot(self._farthest, np.linalg.norm(across)))


def box_of(given: Any, dims: int) -> Box:
    """Return the box that a caller gives: lengths (d,), or vectors (d, d) as rows, 0 where the space is open.

    Not collective.

    Raises
    ------
    InputError
        It is none.
    """
    box = np.zeros(dims) if given is None else reals(given, "box")
    if box.shape == (dims, dims):
        return _of_vectors(np.where(np.isinf(box), 0.0, box))
    if box.shape != (dims,) or not (box >= 0).all():
        raise InputError(
            f"box must be {dims} lengths, 0 along open axes, or {dims} vectors of {dims} numbers, as rows, all 0 "
            f"where the space is open; not {given}"
        )
    return RightBox(np.where(np.isfinite(box), box, 0.0))


def _of_vectors(vectors: np.ndarray) -> Box:
    if not np.isfinite(vectors).all():
        raise InputError("the vectors by which points repeat must be finite")
    along = np.diag(np.diag(vectors))
    if (np.abs(vectors - along) <= _SKEW * np.abs(vectors).max(initial=0.0)).all():
        return RightBox(np.abs(np.diag(vectors)))
    there = vectors[(vectors != 0).any(axis=1)]
    lengths = np.linalg.norm(there, axis=1)
    spanned = np.linalg.svd(there / lengths[:, None], compute_uv=False).prod()
    if not spanned > _FLAT:
        raise InputError(
            f"the {len(there)} vectors by which points repeat do not span {len(there)} directions: leave out, as "
            "zeros, those along which nothing repeats"
        )
    return SkewBox(there)


def _reduced(vectors: np.ndarray) -> np.ndarray:
    """Return short vectors of the same lattice: none is made shorter by any small steps along the others."""
    vectors = vectors.copy()
    signs = np.array(list(itertools.product((-1, 0, 1), repeat=len(vectors) - 1)))
    for _ in range(_ROUNDS):
        vectors = vectors[np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")]
        for one in reversed(range(1, len(vectors))):
            others = np.delete(vectors, one, axis=0)
            steps = np.round(np.linalg.lstsq(others.T, vectors[one], rcond=None)[0]) + signs
            tried = vectors[one] - steps @ others
            best = tried[np.argmin(np.linalg.norm(tried, axis=1))]
            if np.linalg.norm(best) < (1 - _ROUNDING) * np.linalg.norm(vectors[one]):
                vectors[one] = best
                break
        else:
            return vectors
    return vectors


def _tree(positions: np.ndarray, lengths: np.ndarray | None) -> cKDTree:
    from scipy.spatial import cKDTree  # every solve imports this module, and few make a tree

    return cKDTree(positions, boxsize=lengths)
