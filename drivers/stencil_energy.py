"""Domain walls of a φ⁴ field
==========================
A φ⁴ field on a periodic cubic grid, by planes on the ranks, for as many unknowns as their memory holds.

E(u) = Σ (u_i − u_j)² / 2 over neighbours + Σ c_i (u_i² − 1)² / 4, at a field with two domain walls. The hardness
c_i is 1 but for a few inclusions, each harder than the one before, whose modes stand above the band of all others.

Gradient and products go through the grid plane by plane and exchange one plane with each neighbouring rank. Kept
here are two vectors, the field and the hardness. Peaks seen below at n = 10⁷, all told, in vectors of n numbers:
63 for the density (2 samples of 20 steps are 40 of them), 36 for the trace, 85 for the eigenvalues. The unknowns
are in the same order on any number of ranks, of which there are at most as many as planes.

::

    mpiexec -n 2 sparsehess eigs drivers/stencil_energy.py:field --set side=16 -k 6
    mpiexec -n 2 sparsehess density drivers/stencil_energy.py:field --set side=216 --set coupled=0 --shell \\
        --samples 2 --steps 20
    mpiexec -n 2 sparsehess trace drivers/stencil_energy.py:field --set side=216 --set coupled=0 --shell \\
        --method hutchinson --samples 10
    mpiexec -n 2 sparsehess eigs drivers/stencil_energy.py:field --set side=216 --set coupled=0 --shell \\
        --which largest -k 5
"""

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np

import sparsehess as sh

# %%
# Planes on the ranks
# -------------------

# Inclusions: where they are in parts of the edge, and by how much they are harder.
CENTRES = np.array(
    [[0.21, 0.31, 0.13], [0.71, 0.23, 0.37], [0.33, 0.77, 0.63], [0.83, 0.61, 0.17], [0.13, 0.53, 0.87]]
)
HARDER = np.array([12.0, 15.0, 18.0, 21.0, 24.0])
WIDTH = 0.5  # of an inclusion, in grid spacings: it has one mode above the band


class Slab:
    """The planes of one rank, and energies on them."""

    def __init__(self, comm, side):
        if side < max(3, comm.size):
            raise ValueError(f"{side} planes on {comm.size} ranks: at least 3, and one for each rank")
        self.comm, self.side = comm, side
        self.first, self.last = side * comm.rank // comm.size, side * (comm.rank + 1) // comm.size
        self.hardness = np.ones((self.last - self.first, side, side))
        for centre, height in zip(np.floor(CENTRES * side), HARDER, strict=True):
            self.hardness += height * self._bump(centre)

    def _bump(self, centre):
        """Return a Gaussian around a centre on this rank's planes."""
        along = np.arange(self.side)
        x, y, z = (
            np.exp(-(((along - middle + self.side / 2) % self.side - self.side / 2) ** 2) / (2 * WIDTH**2))
            for middle in centre
        )
        return z[self.first : self.last, None, None] * (y[:, None] * x)

    def walls(self):
        """Return a field of ±1 with walls across the last axis at a quarter and three quarters."""
        x = np.empty(self.hardness.shape)
        angle = 2 * np.pi * np.arange(self.side) / self.side
        x[:] = np.tanh(self.side / (2 * np.pi * np.sqrt(2)) * np.cos(angle))
        return x

    def vector(self, values):
        x = PETSc.Vec().createMPI((values.size, self.side**3), comm=self.comm)
        x.setArray(values.ravel())
        return x

    def planes(self, vector, readonly=True):
        return vector.getArray(readonly=readonly).reshape(-1, self.side, self.side)

    def gradient(self, x, g):
        field = self.planes(x)
        self._spread(field, self.planes(g, False), lambda k: self.hardness[k] * (field[k] ** 2 - 1))

    def hvp(self, x, v, y):
        field = self.planes(x)
        self._spread(self.planes(v), self.planes(y, False), lambda k: self.hardness[k] * (3 * field[k] ** 2 - 1))

    def _spread(self, v, y, factor):
        """Set y to (6 + factor) v less the six neighbours of v, where factor(k) is that of plane k."""
        before, after = self._halo(v)
        for k, here in enumerate(v):
            np.multiply(6 + factor(k), here, out=y[k])
            y[k] -= v[k - 1] if k else before
            y[k] -= v[k + 1] if k + 1 < len(v) else after
            for target, source in ((y[k], here), (y[k].T, here.T)):
                target[1:] -= source[:-1]
                target[0] -= source[-1]
                target[:-1] -= source[1:]
                target[-1] -= source[0]

    def _halo(self, v):
        """Return the plane before the first of this rank, and that after its last."""
        comm, planes = self.comm, np.empty((2, self.side, self.side))
        before, after = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
        comm.Sendrecv(np.ascontiguousarray(v[-1]), after, recvbuf=planes[0], source=before)
        comm.Sendrecv(np.ascontiguousarray(v[0]), before, recvbuf=planes[1], source=after)
        return planes

    def pattern(self):
        own = np.arange(self.first * self.side**2, self.last * self.side**2)
        z, y, x = np.unravel_index(own, (self.side,) * 3)
        ahead = [
            np.ravel_multi_index(place, (self.side,) * 3, mode="wrap")
            for place in ((z + 1, y, x), (z, y + 1, x), (z, y, x + 1))
        ]
        layout = sh.Layout.from_local(len(own), self.comm)
        return sh.Pattern.from_pairs(
            np.tile(own, 3), np.concatenate(ahead), self.side**3, layout=layout, source="grid"
        )


# %%
# The problem
# -----------


def field(comm=None, side=32, coupled=True):
    """Return the objective of side³ variables; `coupled` tells which of them are, as products alone need not."""
    slab = Slab(MPI.COMM_WORLD if comm is None else comm, side)
    return sh.Objective(
        x=slab.vector(slab.walls()),
        gradient=slab.gradient,
        hvp=slab.hvp,
        pattern=slab.pattern() if coupled else None,
        typical_x=1.0,
        name=f"φ⁴ field of {side}³ variables",
    )


# %%
# A density without a matrix
# --------------------------
# Products with random vectors give the density of all 64,000 eigenvalues at once. The five modes of the
# inclusions are nothing beside them: on a linear scale nobody would see them.


def draw(section, found, highest):
    """Draw the field in a plane across the walls, and the density with the modes of the inclusions."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=(2, 3))
    shown = left.imshow(section, cmap="RdBu", vmin=-1, vmax=1)
    figure.colorbar(shown, ax=left, label="field u")
    left.set(xlabel="across the walls", ylabel="along them", title="Two domain walls")
    bars = found.bars(0.9)
    low = 1e-6
    right.fill_between(
        found.grid,
        np.maximum(found.density - bars, low),
        np.maximum(found.density + bars, low),
        alpha=0.3,
        label="90 %",
    )
    right.semilogy(found.grid, np.maximum(found.density, low), label=f"density, {found.products} products")
    right.plot(highest, np.full(len(highest), 3 * low), "|", color="C3", ms=14, mew=2, label="largest eigenvalues")
    right.set(xlabel="eigenvalue", ylabel="share of all per unit", title="Spectrum", ylim=(low, None))
    right.legend(fontsize="small")
    plt.show()


if __name__ == "__main__":
    problem = field(side=40, coupled=False)
    with sh.MatrixFree(problem) as free, sh.eigs(free, 5, which="largest", count="no") as modes:
        found = sh.density(free, samples=8, steps=100, seed=1)
        number, error = found.count(-np.inf, 1.0)
        if MPI.COMM_WORLD.rank == 0:
            print("largest eigenvalues:", modes.eigenvalues.round(3), "residuals below", modes.residuals.max())
            print(f"below 1: {number:.0f} ± {error:.0f} of {found.n}")
            draw(problem.x.getArray().reshape(-1, 40, 40)[0], found, modes.eigenvalues)
