"""`Told`: a spectrum that a structure tells, by its counts: nothing in it is random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.eigen.estimates.spectral_measures import MOMENTS, Below, kernel_width, smoothed_by_kernel
from sparsehess.operators.structure import Structure

_EPS, _TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)

# A spectrum of so many different eigenvalues is kept as it is.
_KEPT = 20_000

# Of a larger one there are counts of so many cells: where eigenvalues are known, which is fast, and elsewhere.
_CELLS_KNOWN, _CELLS = 16_384, 1024

# Cells are split in so many parts, in so many rounds, where most eigenvalues are.
_PARTS, _ROUNDS = 4, 12

# Steps that would resolve a smooth spectrum as well.
_SMOOTH = 100

# So many roundings an eigenvalue may be off.
_SAFE = 10.0


@dataclass(frozen=True, eq=False)
class Told:
    """Where eigenvalues are, alike on every rank.

    Not collective to use.

    Attributes
    ----------
    low, high
        (m,) ends of cells, ascending: the same where they are eigenvalues.
    counts
        (m,) how many eigenvalues are in each.
    powers
        (MOMENTS,) means of powers of the eigenvalues, exact.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    powers: np.ndarray
    samples = 1

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest eigenvalue, or ends of their cells."""
        return float(self.low[0]), float(self.high[-1])

    @property
    def _middles(self) -> np.ndarray:
        return 0.5 * (self.low + self.high)

    @property
    def _shares(self) -> np.ndarray:
        return self.counts / self.counts.sum()

    def width(self) -> float:
        """Return a kernel width: typical distances of eigenvalues, or what many more would be smooth at."""
        return kernel_width([self._middles], [self._shares], self.range, _SMOOTH)

    def smoothed(self, edges: np.ndarray, width: float) -> np.ndarray:
        """Return (1, len(edges) - 1) means over cells of the spectrum, convolved with a Gaussian."""
        return smoothed_by_kernel([self._middles], [self._shares], edges, width)

    def below(self, points: np.ndarray, *, inclusive: bool = True) -> Below:
        """Return (1, m) fractions of eigenvalues up to each point; bounds differ within cells.

        At a point that is an eigenvalue to rounding they do, too.
        """
        points = np.asarray(points, np.float64)
        doubt = max(_SAFE * _EPS * max(map(abs, self.range)), _TINY)
        at = points + (doubt if inclusive else -doubt)
        running = np.concatenate([[0], np.cumsum(self.counts)]) / self.counts.sum()
        value, lower, upper = (
            running[np.searchsorted(ends, where, side="right")][None]
            for ends, where in ((self._middles, at), (self.high, points - doubt), (self.low, points + doubt))
        )
        return Below(value, np.minimum(lower, value), np.maximum(upper, value))

    def places(self) -> np.ndarray:
        """Return where eigenvalues are."""
        return self._middles

    def moments(self) -> np.ndarray:
        """Return (1, MOMENTS) means of powers of the eigenvalues."""
        return self.powers[None]


def told_spectrum(structure: Structure, n: int, grid: np.ndarray | None) -> Told:
    """Return the spectrum of a structure that counts: its eigenvalues where they are few, else counts of cells.

    Collective.

    Parameters
    ----------
    n
        How many eigenvalues there are.
    grid
        Ends that cells are to have, besides others.
    """
    powers, cells = structure.powers(MOMENTS - 1) / n, _CELLS
    if structure.knows_eigenvalues:
        every = structure.eigenvalues()
        if every.comm.allreduce(len(every.values)) <= _KEPT:
            parts = every.comm.allgather((every.values, every.counts))
            values, copies = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
            order = np.argsort(values, kind="stable")
            return Told(values[order], values[order], copies[order], powers)
        cells = _CELLS_KNOWN
    low, high = (float(structure.spectrum(1, which)[0]) for which in ("smallest", "largest"))
    beyond = _SAFE * _EPS * (max(abs(low), abs(high)) or 1.0)
    ends = np.array([low - beyond, high + beyond])
    given = np.empty(0) if grid is None else grid[(grid > ends[0]) & (grid < ends[1])]
    ends = np.unique(np.concatenate([ends, given]))
    counts = np.concatenate([[0], structure.counts(ends[1:-1]), [n]]).astype(np.int64)
    for _ in range(_ROUNDS):
        inside, widths = np.diff(counts), np.diff(ends)
        room = (cells - len(inside)) // (_PARTS - 1)
        open_ = np.flatnonzero((inside > max(1, n // cells)) & (widths > beyond))
        if room < 1 or not len(open_):
            break
        chosen = np.sort(open_[np.argsort(-inside[open_], kind="stable")[:room]])
        steps = np.arange(1, _PARTS) / _PARTS
        points = (ends[chosen, None] + steps * widths[chosen, None]).ravel()
        fresh = structure.counts(points)
        order = np.argsort(ends := np.concatenate([ends, points]), kind="stable")
        ends, counts = ends[order], np.maximum.accumulate(np.concatenate([counts, fresh])[order])
    inside = np.diff(counts)
    there = inside > 0
    return Told(ends[:-1][there], ends[1:][there], inside[there], powers)
