"""Crystals whose phonons are known in closed form: springs between neighbours, summed pair by pair."""

import itertools

import numpy as np

import sparsehess as sh
from sparsehess.crystals import Crystal


def chain(cells, springs=(1.0,), masses=(1.0,), across=0.0):
    """Return force constants of a chain along x, of one spring and mass or two of each, in turn."""
    per, step = len(masses), 2.0
    lattice = np.diag([per * step, 9.0, 9.0])
    places = np.arange(per)[:, None] * [step, 0, 0]
    cell = Crystal(lattice, places, np.array(masses), ("H", "He")[:per])
    whole = np.concatenate([places + np.array([number * per * step, 0, 0]) for number in range(cells)])
    large = Crystal(
        np.diag([cells * per * step, 9.0, 9.0]), whole, np.tile(masses, cells), ("H", "He")[:per] * cells
    )
    many, values = cells * per, np.zeros((per, cells * per, 3, 3))
    for atom in range(per):
        for neighbour, spring in ((atom + 1, springs[atom % len(springs)]), (atom - 1, springs[atom - 1])):
            block = np.diag([spring, across, across])
            values[atom, atom] += block
            values[atom, neighbour % many] -= block
    return sh.ForceConstants.of(values, cell, large)


def fcc(sizes, radial=1.0, tangential=0.0, a=4.0, mass=1.0):
    """Return force constants of an fcc crystal with springs to the twelve nearest neighbours, and the cell."""
    lattice = 0.5 * a * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    points = np.array(list(itertools.product(*map(range, sizes))))
    cell = Crystal(lattice, np.zeros((1, 3)), [mass], ["Ar"])
    large = Crystal(
        lattice * np.array(sizes)[:, None], points @ lattice, [mass] * len(points), ["Ar"] * len(points)
    )
    index = {tuple(point): number for number, point in enumerate(points)}
    values = np.zeros((1, len(points), 3, 3))
    for step in itertools.product((-1, 0, 1), repeat=3):
        way = step @ lattice
        if abs(np.linalg.norm(way) - a / np.sqrt(2)) > 1e-9:
            continue
        along = np.outer(way, way) / (way @ way)
        block = radial * along + tangential * (np.eye(3) - along)
        values[0, 0] += block
        values[0, index[tuple(np.mod(step, sizes))]] -= block
    return sh.ForceConstants.of(values, cell, large)
