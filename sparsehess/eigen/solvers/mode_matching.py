"""Modes followed from one spectrum to the next, by their overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, communicator, destroy
from sparsehess.runtime.short_repr import ShortRepr, number_of

# With less than this of a mode in another they are not the same: no third mode can have as much of it.
_SAME = 0.5**0.5


@dataclass(frozen=True, eq=False, repr=False)
class ModeMatch(ShortRepr):
    """Which mode of a spectrum is which of another.

    *Not collective.* Made by `match_modes`; the same on every rank.

    Attributes
    ----------
    before
        (k,) for each new mode the number of the old one, -1 where none of the old ones is it.
    overlaps
        (k,) |xᵀMy| / (‖x‖ ‖y‖) in the norm of M with that old mode, or with the nearest one.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> old, new = (sh.eigs(np.diag(values), 2) for values in ([1.0, 2.0, 3.0], [2.5, 2.0, 3.0]))
    >>> match = sh.match_modes(old, new)
    >>> print(match.before, np.round(match.overlaps, 6))
    [1 0] [1. 1.]
    >>> old.close(), new.close()
    (None, None)
    """

    before: np.ndarray
    overlaps: np.ndarray

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        known = int(np.count_nonzero(self.before >= 0))
        yield f"{known} of {number_of(len(self.before), 'mode')} known before"
        yield f"least overlap {self.overlaps.min(initial=1.0):.3g}"


def match_modes(
    before: Spectrum | Iterable[PETSc.Vec], after: Spectrum, *, mass: PETSc.Mat | None = None
) -> ModeMatch:
    """Match the modes of a spectrum with earlier ones, each with one at most, so that the overlaps sum up highest.

    *Collective.* By the Hungarian method [1]_. Within a multiple eigenvalue modes are any basis, and overlaps low
    without anything having changed.

    Parameters
    ----------
    before
        A `Spectrum`, or Vecs.
    after
        The new one.
    mass
        M of the generalised problem.

    Returns
    -------
    ModeMatch
        The number of the old mode that each new one is, and their overlap.

    Raises
    ------
    InputError
        Vectors of another layout.

    References
    ----------
    .. [1] H. W. Kuhn, The Hungarian method for the assignment problem, Naval Research Logistics Quarterly 2
       (1955), 83-97.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> old, new = (sh.eigs(np.diag(values), 2) for values in ([1.0, 2.0, 3.0], [1.5, 1.4, 3.0]))
    >>> print(sh.match_modes(old, new).before)
    [1 0]
    >>> old.close(), new.close()
    (None, None)
    """
    old = before.vectors if isinstance(before, Spectrum) else list(before)
    if not old or not after.vectors:
        return ModeMatch(np.full(after.converged, -1), np.zeros(after.converged))
    if old[0].getSizes() != after.vectors[0].getSizes():
        raise InputError(
            f"modes to match have sizes {old[0].getSizes()} and {after.vectors[0].getSizes()}: the same is needed"
        )
    X, MX = _stacked(after.vectors, mass)
    Y, MY = _stacked(old, mass)
    comm = communicator(old[0].comm)
    table, new, known = (
        comm.allreduce(part)
        for part in (X.conj().T @ MY, np.sum(X.conj() * MX, axis=0).real, np.sum(Y.conj() * MY, axis=0).real)
    )
    table = np.abs(table) / np.sqrt(np.outer(new, known))
    from scipy.optimize import linear_sum_assignment  # 100 ms on every rank, and seldom needed

    rows, columns = linear_sum_assignment(-table)
    chosen = np.full(len(table), -1)
    overlaps = table.max(axis=1)
    sure = table[rows, columns] >= _SAME
    chosen[rows[sure]] = columns[sure]
    overlaps[rows[sure]] = table[rows[sure], columns[sure]]
    return ModeMatch(chosen, overlaps)


def _stacked(vectors: list[PETSc.Vec], mass: PETSc.Mat | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the local rows of vectors and of their images under the mass, as columns. Collective."""
    X = np.stack([vector.getArray(readonly=True) for vector in vectors], axis=1)
    if mass is None:
        return X, X
    image = vectors[0].duplicate()
    MX = np.empty_like(X)
    for column, vector in enumerate(vectors):
        mass.mult(vector, image)
        MX[:, column] = image.getArray(readonly=True)
    destroy(image)
    return X, MX
