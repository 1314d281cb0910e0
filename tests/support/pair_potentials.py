"""Points that all couple, with Hessians in closed form, block by block."""

import numpy as np


def lattice(side, dims=3, jitter=0.05, seed=0):
    """Return (side**dims, dims) points near those of a lattice, and their signs like those of rock salt."""
    grid = np.stack(np.meshgrid(*[np.arange(side)] * dims, indexing="ij"), axis=-1).reshape(-1, dims)
    drawn = np.random.default_rng(seed).normal(size=grid.shape)
    return grid + jitter * drawn, np.where(grid.sum(axis=1) % 2, -1.0, 1.0)


class PairPotential:
    """The sum of weights times v(r) over all pairs; v', v'' as functions of r (N, N) that may weigh pairs."""

    def __init__(self, points, slope, bend, box=None):
        self.points, self.slope, self.bend, self.box = np.asarray(points), slope, bend, box
        self.calls = 0

    @property
    def x(self):
        return self.points.ravel()

    def _apart(self, x):
        where = x.reshape(self.points.shape)
        d = where[:, None] - where[None]
        if self.box is not None:
            d -= self.box * np.round(d / self.box)
        r = np.sqrt((d**2).sum(axis=2))
        np.fill_diagonal(r, 1.0)
        return d, r

    def gradient(self, x):
        self.calls += 1
        d, r = self._apart(x)
        force = self.slope(r) / r
        np.fill_diagonal(force, 0.0)
        return (force[..., None] * d).sum(axis=1).ravel()

    def hessian(self):
        d, r = self._apart(self.x)
        along = self.slope(r) / r
        steep = (self.bend(r) - along) / r**2
        np.fill_diagonal(along, 0.0)
        np.fill_diagonal(steep, 0.0)
        dims, many = d.shape[2], len(d)
        blocks = (
            -along[..., None, None] * np.eye(dims) - steep[..., None, None] * d[..., :, None] * d[..., None, :]
        )
        blocks[np.arange(many), np.arange(many)] = -blocks.sum(axis=1)
        return blocks.transpose(0, 2, 1, 3).reshape(many * dims, many * dims)


def lennard_jones(points):
    return PairPotential(1.1 * points, lambda r: 24 * r**-7 - 48 * r**-13, lambda r: 624 * r**-14 - 168 * r**-8)


def ions(points, charges):
    product = np.multiply.outer(charges, charges)
    return PairPotential(
        points, lambda r: -product * r**-2 - 1.7 * r**-10, lambda r: 2 * product * r**-3 + 17 * r**-11
    )


def screened(points, length=2.0, box=None):
    return PairPotential(
        points,
        lambda r: -np.exp(-r / length) * (1 / r**2 + 1 / (length * r)),
        lambda r: np.exp(-r / length) * (2 / r**3 + 2 / (length * r**2) + 1 / (length**2 * r)),
        box,
    )
