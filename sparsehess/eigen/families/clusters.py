"""Clusters: eigenvalues that their errors do not tell apart, and how far all others are from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.families.residual_norms import PairErrors
from sparsehess.eigen.problem.spectrum import Spectrum

# Vectors belong to eigenvalues of their own where errors turn them by no more than this, in radians.
_TURN = 1e-2


class Cluster(NamedTuple):
    """Neighbouring eigenvalues that their errors do not tell apart; one alone where they do.

    Attributes
    ----------
    first, stop
        Which of the ascending eigenvalues: `first` to `stop` - 1.
    gap
        Distance to the nearest other eigenvalue; 0 where it is not known that the cluster is complete.
    turn
        By how much errors may have turned its space, in radians to first order; infinite where the gap is 0.
    proven
        Whether an inertia count stands behind the gap; else it is that to the pairs that were found.
    """

    first: int
    stop: int
    gap: float
    turn: float
    proven: bool

    @property
    def size(self) -> int:
        """How many eigenvalues."""
        return self.stop - self.first

    @property
    def rows(self) -> slice:
        """Their places."""
        return slice(self.first, self.stop)


def groups_of(values: np.ndarray, errors: np.ndarray, apart: float | np.ndarray = 0.0) -> list[tuple[int, int]]:
    """Return (first, stop) of the groups of ascending values that their errors do not tell apart.

    Not collective.

    Parameters
    ----------
    values, errors
        (k,) eigenvalues, and how far each may be off; a gap of a hundred errors tells vectors apart.
    apart
        Those that are no farther from each other are of one group in any case; a number, or one for each gap.
    """
    if not len(values):
        return []
    apart_enough = np.diff(values) * _TURN > errors[1:] + errors[:-1]
    apart_enough &= np.diff(values) > apart
    starts = [0, *(np.flatnonzero(apart_enough) + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


def find_clusters(
    values: np.ndarray, errors: PairErrors, distance: np.ndarray, counted: bool, apart: float = 0.0
) -> list[Cluster]:
    """Return the clusters of ascending eigenvalues.

    Not collective.

    Parameters
    ----------
    values, errors
        (k,) eigenvalues, and how far they may be off.
    distance
        (k,) what `distances_to_others` tells.
    counted
        Whether nothing was missed by a count, or as these are all eigenvalues.
    apart
        Eigenvalues that are no farther from each other are of one cluster in any case.
    """
    unsure = errors.unsure(distance)
    found = []
    for first, stop in groups_of(values, unsure, apart):
        inside, outside = np.inf, float(distance[first:stop].min())
        if first:
            inside = values[first] - values[first - 1]
        if stop < len(values):
            inside = min(inside, values[stop] - values[stop - 1])
        reach = errors.residual[first:stop].max() + errors.matrix[first:stop].max()
        if not outside * _TURN > reach:
            outside = 0.0
        turn = _over(unsure[first:stop].max(), inside) + _over(float(reach), outside)
        found.append(Cluster(first, stop, float(min(inside, outside)), turn, counted))
    return found


def _over(error: float, gap: float) -> float:
    """Return an error over a gap, infinite where there is none."""
    return float(error / gap) if gap > 0 else np.inf


def distances_to_others(spectrum: Spectrum, whole: bool, deflated: int) -> np.ndarray:
    """Return (k,) the distances of ascending eigenvalues to those that are not returned, or to where some may be.

    Not collective. Where nothing was counted they are those to the outermost ones that were found, as if none had
    been missed between these. Others that are counted, but not found, lie past the last one.

    Parameters
    ----------
    whole
        Whether these are all eigenvalues.
    deflated
        Known null vectors, which are counted, and not among the values.
    """
    values, count, others = spectrum.eigenvalues, spectrum.count, spectrum.others
    k = len(values)
    if whole or not k:
        return np.full(k, np.inf)
    if count is None or not count.certified:
        return np.minimum(values - values[0], values[-1] - values)
    low, high = count.interval
    known = k + int(np.count_nonzero(count.holds(others))) + (deflated if count.holds_zero else 0)
    more = count.found + count.group > known
    if low > high:  # all above low, and all below high
        above = values > low
        if more:
            low, high = values[above].min(initial=np.inf), values[~above].max(initial=-np.inf)
        distance = np.where(above, values - low, high - values)
    else:
        if more:
            low = values[0] if np.isfinite(low) else low
            high = values[-1] if np.isfinite(high) else high
        distance = np.minimum(values - low, high - values)
    if len(others):
        distance = np.minimum(distance, np.abs(values[:, None] - others).min(axis=1))
    return distance
