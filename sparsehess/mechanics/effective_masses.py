"""Participation factors and effective modal masses: how much of the mass each mode moves when supports shake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsehess.eigen.problem.matrix_inputs import as_mat
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.errors import InputError
from sparsehess.mechanics.rigid_vectors import (
    check_dofs,
    check_fixed,
    check_point,
    check_positions,
    free_dofs,
    rigid_rows,
)
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, communicator, destroy, require_real
from sparsehess.runtime.short_repr import ShortRepr, number_of

# Neighbours this near, relative to their size, are taken for one multiple eigenvalue: what separates their modes
# is then no more than the last digits of a model.
_NEAR = 1e-6

# So many times what the last digits of the entries move eigenvalues, they are too.
_ROUNDING = 1e3

# A sum of shares is known to this.
_LAST_DIGITS = 1e-9

# Modes must be normalised in the mass to this: else it is another one.
_NORMALISED = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class EffectiveMasses(ShortRepr):
    """Participation of modes in rigid motions of the supports.

    *Not collective.* Made by `effective_masses`; the same on every rank.

    Attributes
    ----------
    names
        Of the m directions: "translation x", "rotation z".
    participation
        (k, m) factors Γ = φᵀMr / φᵀMφ of modes φ and directions r.
    effective_mass
        (k, m) (φᵀMr)² / φᵀMφ; a moment of inertia for rotations. They do not change with the size of φ.
    mass_matrix
        (m, m) RᵀMR of the directions: the rigid body's mass, static moments and inertia.
    clusters
        (first, last) of the modes of each multiple or nearly multiple eigenvalue, last included. Their modes are
        any basis, and only the sum over all of one says something of the structure.
    unfinished
        Whether the count tells of eigenvalues too near to those at an end of the list to end between: one of them
        may be of the same multiple eigenvalue, whose sum then lacks it. Without a count nothing is known.
    about
        (3,) the point that rotations are about; None where directions were given.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> K = np.array([[2.0, -1.0], [-1.0, 1.0]])  # two equal floors
    >>> with sh.eigs(K, 2, mass=np.ones(2)) as modes:
    ...     found = sh.effective_masses(modes, np.ones(2), directions=np.ones((1, 2)))
    >>> print(found.effective_mass.ravel().round(4), found.whole, found.modes_needed(0.9))
    [1.8944 0.1056] [2.] [1]
    """

    names: tuple[str, ...]
    participation: np.ndarray
    effective_mass: np.ndarray
    mass_matrix: np.ndarray
    clusters: tuple[tuple[int, int], ...] = ()
    unfinished: bool = False
    about: np.ndarray | None = None

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.effective_mass), "mode")
        for name, share in zip(self.names, self.cumulative[-1] if len(self.cumulative) else [], strict=False):
            yield f"{share:.1%} of {name}"

    @property
    def whole(self) -> np.ndarray:
        """(m,) rᵀMr: the mass on the rows of M. That of supports which were taken out of M is not in it."""
        return np.diag(self.mass_matrix).copy()

    @property
    def shares(self) -> np.ndarray:
        """(k, m) effective masses over the whole; NaN where a direction has no mass."""
        whole = self.whole
        return np.divide(
            self.effective_mass, whole, out=np.full_like(self.effective_mass, np.nan), where=whole > 0
        )

    @property
    def cumulative(self) -> np.ndarray:
        """(k, m) shares of this mode and those before."""
        return np.cumsum(self.shares, axis=0)

    def modes_needed(self, share: float = 0.9) -> list[int | None]:
        """Return for each direction how many of the modes reach a share of the whole mass; None: all do not.

        Not collective. Modes of a multiple eigenvalue count together. The last digits of a sum are rounding, and
        a billionth of the mass may lack.

        Raises
        ------
        InputError
            The share is not above 0 and up to 1.
        """
        if not 0 < share <= 1:
            raise InputError(f"share={share} is no part of a mass: give one above 0 and up to 1, such as 0.9")
        found: list[int | None] = []
        last = {one: stop for start, stop in self.clusters for one in range(start, stop + 1)}
        for column in self.cumulative.T:
            reached = np.flatnonzero(column >= share - _LAST_DIGITS)
            ends = sorted({last.get(one, one) for one in reached.tolist()})
            found.append(ends[0] + 1 if ends else None)
        return found

    def facts(self) -> dict[str, Any]:
        """Return them as JSON. Not collective."""
        shares = self.cumulative[-1] if len(self.cumulative) else np.zeros(len(self.names))
        return {
            "directions": list(self.names),
            "about": None if self.about is None else self.about.tolist(),
            "factors": self.participation.tolist(),
            "whole": self.whole.tolist(),
            "mass_matrix": self.mass_matrix.tolist(),
            "reached": [float(one) if np.isfinite(one) else None for one in shares],
            "needed": self.modes_needed(0.9),
            "clusters": [list(one) for one in self.clusters],
            "unfinished": self.unfinished,
        }


def effective_masses(
    spectrum: Spectrum,
    mass: Any,
    coordinates: Any = None,
    dofs: str = "xyz",
    *,
    about: Sequence[float] = (0.0, 0.0, 0.0),
    fixed: Any = None,
    directions: Any = None,
    names: Sequence[str] | None = None,
) -> EffectiveMasses:
    """Return participation factors and effective modal masses of modes of (K, M).

    *Collective.* For supports that all move by r: M ü + K u = −M r a, whose mode φ takes part by Γ = φᵀMr / φᵀMφ
    and carries the effective mass (φᵀMr)² / φᵀMφ [1]_. Over all modes they add up to rᵀMr.

    Parameters
    ----------
    spectrum
        Of K x = λ M x.
    mass
        M: Mat, SciPy matrix, or (n,) diagonal.
    coordinates, dofs, about, fixed
        Of the nodes, which every rank holds; see `rigid_vectors`.
    directions
        In their place: (m, n) rows that every rank holds, or Vecs.
    names
        Of given directions; "direction 1" and so on by default.

    Returns
    -------
    EffectiveMasses

    Raises
    ------
    InputError
        The spectrum is closed or not of this mass, or sizes do not fit.

    References
    ----------
    .. [1] A. K. Chopra, Dynamics of Structures, 4th ed., Pearson, 2012, section 13.2.

    Examples
    --------
    A rod of ten elements, clamped at its left end:

    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> import sparsehess as sh
    >>> K = sp.diags([-np.ones(9), np.r_[np.full(9, 2.0), 1.0], -np.ones(9)], [-1, 0, 1]).tocsr()
    >>> lumped = np.r_[np.ones(9), 0.5]
    >>> with sh.eigs(K, 3, mass=lumped) as modes:
    ...     found = sh.effective_masses(modes, lumped, np.arange(11.0)[:, None], "x", fixed=[0])
    >>> print((100 * found.shares[:, 0]).round(1), found.modes_needed(0.9))
    [85.   9.1  3.1] [2]
    """
    require_real("effective masses")
    if not spectrum.vectors:
        raise InputError("the spectrum has no vectors: ask for them, and close it later")
    owned: list = []
    try:
        first = spectrum.vectors[0]
        layout = Layout.from_local(first.getLocalSize(), communicator(first.comm))
        M = as_mat(mass, None, layout, owned, "the mass matrix")
        point = None
        with agreement(layout.comm):
            if directions is not None:
                if coordinates is not None or fixed is not None or dofs != "xyz" or np.any(np.asarray(about)):
                    raise InputError("directions are given: leave out coordinates, dofs, about and fixed")
                rows, told = _given(directions, names, layout)
            else:
                if names is not None:
                    raise InputError("names are for directions, which are not given: leave them out")
                rows, told, point = _of_nodes(coordinates, dofs, about, fixed, layout)
        return participation_of(spectrum, M, rows, told, point)
    finally:
        destroy(*owned)


def _given(directions: Any, names: Sequence[str] | None, layout: Layout) -> tuple[np.ndarray, list[str]]:
    """Return rows (m, n_local) of directions that were given, and their names. Not collective."""
    vectors = [directions] if isinstance(directions, PETSc.Vec) else directions
    if isinstance(vectors, (list, tuple)) and vectors and all(isinstance(one, PETSc.Vec) for one in vectors):
        rows = np.array([np.array(one.getArray(readonly=True), np.float64) for one in vectors])
        if rows.shape[1:] != (layout.n_local,):
            raise InputError("directions have other rows on each rank than the modes: make them of such a Vec")
    else:
        whole = np.atleast_2d(np.asarray(vectors, np.float64))
        if whole.ndim != 2 or whole.shape[1] != layout.n:
            raise InputError(f"directions must be (m, {layout.n}), not {whole.shape}")
        rows = whole[:, layout.start : layout.stop]
    told = [f"direction {number + 1}" for number in range(len(rows))] if names is None else list(names)
    if len(told) != len(rows):
        raise InputError(f"{len(rows)} directions, and {len(told)} names")
    return rows, told


def _of_nodes(
    coordinates: Any, dofs: str, about: Sequence[float], fixed: Any, layout: Layout
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return rows (m, n_local) of the rigid motions of nodes, their names, and the point. Not collective."""
    if coordinates is None:
        raise InputError("effective masses are for directions: give coordinates of the nodes, or directions")
    check_dofs(dofs)
    positions, point = check_positions(coordinates), check_point(about)
    every = len(positions) * len(dofs)
    held = check_fixed(fixed, every)
    if every - len(held) != layout.n:
        raise InputError(
            f"{len(positions)} nodes with dofs {dofs} have {every}, of which {len(held)} are fixed: that leaves "
            f"{every - len(held)}, and the matrices have {layout.n} rows"
        )
    full = free_dofs(every, held, layout.start, layout.stop)
    node = int(full[0]) // len(dofs) if len(full) else 0  # the first that has rows here
    rows, names = rigid_rows(positions[node:], dofs, point, full - node * len(dofs))
    return rows, names, point


def participation_of(
    spectrum: Spectrum,
    M: PETSc.Mat | None,
    rows: np.ndarray,
    names: Sequence[str],
    about: np.ndarray | None,
    deflated: int = 0,
) -> EffectiveMasses:
    """Return the effective masses of modes for rows (m, n_local) of directions; without M it is the unit matrix.

    Collective. `deflated` null vectors are counted, and no modes. What goes over the ranks are (k, m), (m, m) and
    (k,) numbers.

    Raises
    ------
    InputError
        Directions that are not finite, or modes that are not normalised in this mass.
    """
    comm = communicator(spectrum.vectors[0].comm)
    if not comm.allreduce(int(not np.isfinite(rows).all())) == 0:
        raise InputError("directions must be finite numbers")
    modes = [vector.getArray(readonly=True) for vector in spectrum.vectors]
    vector, image = (spectrum.vectors[0].duplicate() for _ in range(2))

    def times_mass(values: np.ndarray) -> np.ndarray:
        if M is None:
            return values
        vector.setArray(values)
        M.mult(vector, image)
        return np.array(image.getArray(readonly=True))

    moved = np.array([times_mass(row) for row in rows]).reshape(rows.shape)
    sizes = comm.allreduce(np.array([mode @ times_mass(mode) for mode in modes]))
    excited = comm.allreduce(np.array([moved @ mode for mode in modes]))
    table = comm.allreduce(rows @ moved.T)
    destroy(vector, image)
    off = float(np.abs(sizes - 1.0).max(initial=0.0))
    if not off <= _NORMALISED:
        raise InputError(
            f"the modes are normalised in another mass: φᵀMφ differs from 1 by {off:.1e}; give that of the problem"
        )
    count, beyond = spectrum.count, 0
    if count is not None:
        beyond = count.found + count.group - len(modes) - (deflated if count.holds_zero else 0)
    return EffectiveMasses(
        tuple(names),
        excited / sizes[:, None],
        excited**2 / sizes[:, None],
        (table + table.T) / 2,
        find_clusters(spectrum),
        beyond > 0,
        about,
    )


def find_clusters(spectrum: Spectrum) -> tuple[tuple[int, int], ...]:
    """Return (first, last) modes of each group of eigenvalues that are too near to each other to tell modes apart.

    Not collective. Neighbours within a millionth of their size, within their error bars and what a solver has left
    of them, within a thousand times what the last digits of the entries move them, or zero both.
    """
    values, k = spectrum.eigenvalues, len(spectrum.eigenvalues)
    errors = np.nan_to_num(spectrum.total_errors, nan=np.inf)
    rounding = spectrum.roundings if len(spectrum.roundings) == k else np.zeros(k)
    zero = spectrum.zero if len(spectrum.zero) == k else np.zeros(k, bool)
    out: list[list[int]] = []
    for one in range(k - 1):
        size = max(abs(values[one]), abs(values[one + 1]))
        near = _NEAR * size + errors[one : one + 2].sum() + _ROUNDING * rounding[one : one + 2].sum()
        if not values[one + 1] - values[one] > near or (zero[one] and zero[one + 1]):
            if out and out[-1][1] == one:
                out[-1][1] = one + 1
            else:
                out.append([one, one + 1])
    return tuple((first, last) for first, last in out)
