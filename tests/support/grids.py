"""Stencils on grids, and patterns of them."""

import itertools

import numpy as np
import scipy.sparse as sp


def box(d, radius):
    return np.array([o for o in itertools.product(range(-radius, radius + 1), repeat=d) if any(o)])


def ball(d, radius, squared=None):
    """Return the offsets of a box with |o|_1 <= radius, or with |o|_2^2 <= squared."""
    offsets = box(d, radius)
    return offsets[np.abs(offsets).sum(1) <= radius if squared is None else (offsets**2).sum(1) <= squared]


HEX = np.array([(1, 0), (0, 1), (1, 1), (-1, 0), (0, -1), (-1, -1)])

STENCILS = {
    "3": box(1, 1),
    "5": ball(2, 1),
    "9": box(2, 1),
    "13": ball(2, 2),
    "hex": HEX,
    "7": ball(3, 1),
    "19": ball(3, 1, 2),
    "27": box(3, 1),
    "25": box(2, 2),
    "125": box(3, 2),
    "9 in 4-d": ball(4, 1),
    "bcc": np.array(list(itertools.product((-1, 1), repeat=3))),
}


def stencil_pattern(shape, offsets, periodic=None):
    """Return the pattern, with its diagonal, of a stencil on a grid numbered with the first coordinate fastest."""
    shape = np.array(shape)
    periodic = np.zeros(len(shape), bool) if periodic is None else np.array(periodic)
    strides = np.concatenate([[1], np.cumprod(shape[:-1])])
    rows = np.arange(shape.prod())
    at = rows[:, None] // strides % shape
    i, j = [rows], [rows]
    for offset in offsets:
        to = np.where(periodic, (at + offset) % shape, at + offset)
        there = ((to >= 0) & (to < shape)).all(axis=1)
        i.append(rows[there])
        j.append(to[there] @ strides)
    i, j = np.concatenate(i), np.concatenate(j)
    matrix = sp.coo_matrix((np.ones(len(i)), (i, j))).tocsr()
    matrix.data[:] = 1
    return matrix, at
