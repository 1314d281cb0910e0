"""Nearest images, pairs and widths of boxes of any vectors, against all images that are not far."""

import itertools

import numpy as np
import pytest

from sparsehess.errors import InputError
from sparsehess.long_range.boxes import RightBox, SkewBox, box_of

pytestmark = [pytest.mark.essential]

FCC = 3.0 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
CELLS = {
    "fcc": FCC,
    "bcc": 2.0 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
    "triclinic": np.array([[4.0, 0.3, -0.2], [1.9, 3.0, 0.4], [-1.0, 1.4, 5.0]]),
    "thin": np.array([[1.0, 0.0, 0.0], [0.4, 7.0, 0.0], [0.3, 3.0, 9.0]]),
    "turned": 4.0 * np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0],
    "far from reduced": np.array([[1, 0, 0], [7, 1, 0], [-5, 11, 1]]) @ FCC,
    "a layer": np.array([[3.0, 0, 0], [1.5, 2.6, 0.4], [0, 0, 0]]),
    "a chain": np.array([[0, 0, 0], [1.0, 2.0, 2.0], [0, 0, 0]]),
    "a plane": np.array([[3.0, 0.0], [1.5, 2.6]]),
}

# Images on either side that are looked at: these cells have no nearer ones, of points that are folded.
_FAR = 6


def folded(apart, vectors):
    """Return differences to some image, by short vectors of the same lattice."""
    there = vectors[np.abs(vectors).any(axis=1)]
    return apart - np.round(apart @ np.linalg.pinv(there)) @ there


def nearest(apart, vectors):
    turns = np.array(list(itertools.product(range(-_FAR, _FAR + 1), repeat=len(vectors))))
    every = apart[:, None] + turns @ vectors
    lengths = np.linalg.norm(every, axis=2)
    return every[np.arange(len(apart)), lengths.argmin(axis=1)], lengths.min(axis=1)


def short(name):
    """Return short vectors of a cell, by which all its near images can be looked at."""
    return FCC if name == "far from reduced" else CELLS[name]


@pytest.mark.parametrize("name", CELLS)
def test_images_are_the_nearest_of_all(name):
    vectors = CELLS[name]
    apart = np.random.default_rng(0).uniform(-20, 20, (400, vectors.shape[1]))
    box = box_of(vectors, vectors.shape[1])
    assert isinstance(box, SkewBox)
    found = box.nearest(apart.copy())
    _, lengths = nearest(folded(apart, short(name)), short(name))
    assert np.linalg.norm(found, axis=1) == pytest.approx(lengths, rel=1e-12)
    there = vectors[np.abs(vectors).any(axis=1)]
    steps = (found - apart) @ np.linalg.pinv(there)
    assert np.abs(steps - np.round(steps)).max() < 1e-9 and np.abs(steps @ there - found + apart).max() < 1e-9
    assert (box.nearest(-apart) == -found).all()  # to the last bit, on which symmetry rests


@pytest.mark.parametrize("name", CELLS)
def test_of_images_that_are_equally_near_the_same_one_is_taken_from_either_side(name):
    vectors = CELLS[name]
    halves = np.array(list(itertools.product((0.0, 0.5, -0.5), repeat=len(vectors)))) @ vectors
    box = box_of(vectors, vectors.shape[1])
    assert (box.nearest(-halves) == -box.nearest(halves.copy())).all()


@pytest.mark.parametrize("radius", [0.7, 2.0, 30.0])
@pytest.mark.parametrize("name", CELLS)
def test_pairs_are_those_whose_nearest_images_are_within(name, radius):
    vectors = CELLS[name]
    drawn = np.random.default_rng(1)
    left, right = (drawn.uniform(-10, 10, (many, vectors.shape[1])) for many in (23, 31))
    first, second = box_of(vectors, vectors.shape[1]).pairs(left, right, radius)
    apart = folded((left[:, None] - right[None]).reshape(-1, vectors.shape[1]), short(name))
    lengths = nearest(apart, short(name))[1].reshape(23, 31)
    expected = np.zeros((23, 31), bool)
    expected[first, second] = True
    assert len(first) == expected.sum() and (expected == (lengths <= radius)).all()


@pytest.mark.parametrize("name", CELLS)
def test_no_two_points_are_farther_than_the_widest_distance(name):
    vectors = CELLS[name]
    points = np.random.default_rng(2).uniform(-3, 3, (40, vectors.shape[1]))
    box = box_of(vectors, vectors.shape[1])
    sides, widest = box.sides(lambda ways: np.ptp(points @ ways, axis=0))
    apart = box.nearest((points[:, None] - points[None]).reshape(-1, vectors.shape[1]))
    assert np.linalg.norm(apart, axis=1).max() <= widest
    if np.abs(vectors).any(axis=1).all():
        assert sides.prod() == pytest.approx(abs(np.linalg.det(vectors)))


def test_right_angles_along_the_axes_are_known():
    for given in ((2.0, 0.0, 3.0), np.diag([2.0, 0.0, -3.0]), (2.0, np.inf, 3.0)):
        box = box_of(given, 3)
        assert isinstance(box, RightBox) and box.lengths.tolist() == [2.0, 0.0, 3.0]
    assert box_of(None, 2).lengths.tolist() == [0.0, 0.0]
    slightly = box_of([[2.0, 1e-3, 0], [0, 2, 0], [0, 0, 3.0]], 3)
    apart = np.random.default_rng(4).uniform(-9, 9, (200, 3))
    assert slightly.nearest(apart.copy()) == pytest.approx(nearest(apart, slightly.vectors)[0], abs=1e-9)


@pytest.mark.parametrize(
    "given, words",
    [
        ((1.0, 2.0), "box must be 3 lengths"),
        ((1.0, -2.0, 1.0), "box must be 3 lengths"),
        (np.ones((2, 3)), "3 vectors of 3 numbers"),
        ([[1, 1, 0], [2, 2, 0], [0, 0, 1]], "do not span 3 directions"),
        ([[1, 1, 0], [2, 2, 0], [0, 0, 0]], "the 2 vectors .* do not span 2"),
        ([[1, np.nan, 0], [0, 2, 0], [0, 0, 1]], "must be finite"),
        ("a box", "box must be real numbers"),
    ],
)
def test_boxes_that_are_none_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        box_of(given, 3)
