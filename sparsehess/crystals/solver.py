"""Phonons of force constants: at wave vectors, along paths, on meshes, shared over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess.crystals.bands import Bands
from sparsehess.crystals.bloch_sums import GONZE, WANG, BlochSums
from sparsehess.crystals.densities import PhononDensity, density_of, mesh_points
from sparsehess.crystals.force_constants import ForceConstants
from sparsehess.crystals.hermitian_batches import eigenpairs
from sparsehess.crystals.modes import NO_SYMMETRY, PROVEN, TOGETHER, PhononModes, velocities
from sparsehess.crystals.paths import path_of, unit_directions
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers import eigs
from sparsehess.errors import InputError
from sparsehess.runtime import agreement, communicator
from sparsehess.runtime.memory import free_memory
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import reals, whole_number
from sparsehess.storage.memory_claims import bytes_of, shown

# Matrices of no more rows are solved by LAPACK, many at a time; larger ones are sparse, and solved one by one.
_DENSE = 1500

# Modes of each wave vector of these, where nobody says how many.
_FEW = 20

# Bytes of the matrices of a batch and of what they are made of.
_BATCH = 2**27


def phonons(
    constants: ForceConstants,
    *,
    sum_rule: bool = True,
    polar: bool = True,
    nac: str | None = None,
    comm: MPI.Comm | None = None,
) -> Phonons:
    """Return the phonons of force constants, to be asked for at wave vectors.

    Collective on `comm`.

    Parameters
    ----------
    constants
        The same on every rank.
    sum_rule
        Whether the force constants are made symmetric, and such that they resist no translation: see
        `ForceConstants.symmetrized`. By how much they were not, `drift` and `asymmetry` of the result tell.
    polar
        Whether the field of long waves is taken into account where Born charges are known.
    nac
        How: `gonze` has the dipoles of Born charges subtracted from the force constants, and added at each wave
        vector (Gonze and Lee); `wang` adds a constant for each pair of atoms, over all cells of the supercell,
        whose phases are summed (Wang et al.). Both agree at wave vectors that fit the supercell, q = 0 with its
        directions among them. Default `gonze`, as phonopy's.
    comm
        Whose ranks share the wave vectors.

    Returns
    -------
    Phonons
        To be asked.

    Raises
    ------
    InputError
        These are no force constants, or there are no Born charges that `nac` is for.

    References
    ----------
    .. [1] K. Parlinski, Z. Q. Li, Y. Kawazoe, First-principles determination of the soft mode in cubic ZrO2,
       Physical Review Letters 78 (1997), 4063-4066.
    .. [2] Y. Wang et al., A mixed-space approach to first-principles calculations of phonon frequencies for polar
       materials, Journal of Physics: Condensed Matter 22 (2010), 202201.
    .. [3] X. Gonze, C. Lee, Dynamical matrices, Born effective charges, dielectric permittivity tensors, and
       interatomic force constants from density-functional perturbation theory, Physical Review B 55 (1997),
       10355-10368.

    Examples
    --------
    Of a chain with springs K between atoms of mass m, ω = 2 sqrt(K/m) |sin qa/2|:

    >>> import numpy as np
    >>> import sparsehess as sh
    >>> from sparsehess.crystals import Crystal
    >>> cell = Crystal(np.diag([2.0, 9.0, 9.0]), [[0, 0, 0]], [1.0], ["H"])
    >>> three = Crystal(np.diag([6.0, 9.0, 9.0]), [[0, 0, 0], [2, 0, 0], [4, 0, 0]], [1.0] * 3, ["H"] * 3)
    >>> springs = np.diag([1.0, 0.0, 0.0])
    >>> chain = sh.phonons(sh.ForceConstants.of([[2 * springs, -springs, -springs]], cell, three))
    >>> modes = chain.at([[0.5, 0, 0]])
    >>> print(modes.eigenvalues[0, 2].round(12), modes.certified, modes.frequencies[0, 2].round(2))
    4.0 [ True] 31.27
    """
    return Phonons(constants, sum_rule, polar, nac, comm)


def _nac(nac: str | None, constants: ForceConstants) -> str | None:
    """Return how the field of Born charges is taken into account; None without such. Not collective."""
    if nac not in (None, GONZE, WANG):
        raise InputError(f"nac={nac!r} is neither {GONZE!r} nor {WANG!r}")
    if constants.polar is None:
        if nac is not None:
            raise InputError(
                f"nac={nac!r}: there are no Born charges, or polar=False leaves them out; leave it out"
            )
        return None
    return GONZE if nac is None else nac


class Phonons(ShortRepr):
    """Phonons of force constants, made by `phonons`.

    *Collective*: its methods are, on the communicator that it was made with.

    Attributes
    ----------
    constants
        As they are used.
    drift, asymmetry
        By how much those that were given violate the acoustic sum rule and the symmetry, in eV/Å².
    nac
        How the field of Born charges is taken into account, `gonze` or `wang`; None where it is not.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> from sparsehess.crystals import Crystal
    >>> cell = Crystal(np.diag([2.0, 9.0, 9.0]), [[0, 0, 0]], [1.0], ["H"])
    >>> two = Crystal(np.diag([4.0, 9.0, 9.0]), [[0, 0, 0], [2, 0, 0]], [1.0] * 2, ["H"] * 2)
    >>> springs = np.diag([2.0, 0.0, 0.0])
    >>> chain = sh.phonons(sh.ForceConstants.of([[springs, -springs]], cell, two))
    >>> chain
    <Phonons: H, 2 cells, 2 pairs>
    >>> bands = chain.bands([[0, 0, 0], [0.5, 0, 0]], 10)
    >>> bands.certified, round(float(bands.modes.frequencies.max()), 2)
    (True, 31.27)
    >>> chain.density((8, 1, 1)).below[-1].round(6)
    3.0
    """

    def __init__(
        self, constants: ForceConstants, sum_rule: bool, polar: bool, nac: str | None, comm: MPI.Comm | None
    ) -> None:
        self._comm = communicator(comm)
        with agreement(self._comm):
            if not isinstance(constants, ForceConstants):
                raise InputError(f"phonons takes ForceConstants, not {type(constants).__name__}")
            if polar and constants.polar is not None and not all(constants.primitive.periodic):
                raise InputError(
                    "the field of Born charges is that of a crystal that repeats in three directions, and this "
                    f"one does so along periodic={constants.primitive.periodic}: polar=False leaves it out"
                )
            self.drift, self.asymmetry = constants.drift, constants.asymmetry
            used = constants.symmetrized() if sum_rule else constants
            if used.polar is not None:
                charges = used.polar.neutral() if sum_rule else used.polar
                used = replace(used, polar=charges if polar else None)
            self.constants = used
            self.nac = _nac(nac, used)
            self._sums = BlochSums(used, self.nac or GONZE)
            # What solving for the sum rule has left of it.
            self._left = 3 * used.drift / float(used.primitive.masses.min()) if sum_rule else 0.0

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield from self.constants._repr_facts()

    def at(
        self,
        q: Sequence | np.ndarray,
        k: int | None = None,
        *,
        vectors: bool = False,
        group_velocities: bool = False,
        directions: Sequence | np.ndarray | None = None,
    ) -> PhononModes:
        """Return the phonons at wave vectors, in their order.

        Collective. Ranks share the wave vectors; of cells with more than 500 atoms they share each matrix, which
        stays sparse, and `eigs` counts the k lowest. All that is returned is on every rank.

        Parameters
        ----------
        q
            (m, 3) or (3,) in reciprocal vectors of the primitive cell; 0 along what does not repeat.
        k
            How many of the lowest; default all, of cells with more than 500 atoms 20.
        vectors, group_velocities
            Whether to return these too. Vectors take 16 bytes for each row, mode and wave vector; where three
            times as much is not free, that is told before anything is computed.
        directions
            (m, 3) or (3,) Cartesian: from where q = 0 is reached in a polar crystal, and along which degenerate
            modes are told apart for their velocities. Default none, and (1, 2, 3).

        Raises
        ------
        InputError
            No finite wave vectors, more modes than there are, no memory for vectors, or a polar crystal with more
            than 500 atoms in the cell.
        """
        with agreement(self._comm):
            points = np.atleast_2d(reals(q, "q"))
            if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
                raise InputError(f"q: give (m, 3) finite numbers in reciprocal vectors, not {points.shape}")
            self._check_open(points)
            ways = None if directions is None else unit_directions(directions, points.shape)
            rows = self._sums.rows
            if k is not None and whole_number(k, "k", 1) > rows:
                raise InputError(f"k={k} of {rows} modes at each wave vector")
            large = rows > _DENSE
            if large and self.constants.polar is not None:
                raise InputError(
                    f"{rows // 3} atoms in the primitive cell: the field of Born charges couples all of them, and "
                    f"is there for up to {_DENSE // 3} atoms; polar=False leaves it out"
                )
            if k is None:
                k = min(_FEW, rows) if large else rows
        if vectors:
            self._claim(len(points), k)
        if large:
            return self._one_by_one(points, ways, k, vectors, group_velocities)
        found = self._shared(points, ways, k, vectors, group_velocities)
        bounds = np.concatenate([one[1] for one in found])
        scale = self._sums.scale
        return PhononModes(
            q=points,
            eigenvalues=np.concatenate([one[0] for one in found]),
            bounds=bounds,
            certified=np.isfinite(bounds) & (bounds <= PROVEN * scale),
            resolution=bounds + self._uncertain(points @ self.constants.primitive.reciprocal),
            scale=scale,
            vectors=np.concatenate([one[2] for one in found]) if vectors else None,
            velocities=np.concatenate([one[3] for one in found]) if group_velocities else None,
            how="LAPACK, and a bound of all eigenvalues at once by residuals and orthogonality (Weyl)",
        )

    def _check_open(self, points: np.ndarray) -> None:
        """Refuse waves along what does not repeat. Not collective."""
        periodic = self.constants.primitive.periodic
        for number, along in enumerate(periodic):
            if not along and (points[:, number] != 0).any():
                raise InputError(
                    f"q: the crystal does not repeat along vector {number + 1} of its cell (periodic={periodic}), "
                    "and no wave goes there: give 0"
                )

    def _claim(self, points: int, k: int) -> None:
        """Refuse vectors that no rank has the memory for. Collective."""
        free, needed = free_memory(self._comm), 3 * bytes_of((points, self._sums.rows, k), 16)
        with agreement(self._comm):
            if needed > free:
                raise InputError(
                    f"vectors of {points} wave vectors, {k} modes of {self._sums.rows // 3} atoms each, would "
                    f"take {shown(needed)} of every rank, and {shown(free)} are free to each: ask for fewer wave "
                    "vectors at a time, for fewer modes by k, or take fewer ranks a node"
                )

    def _uncertain(self, q: np.ndarray) -> np.ndarray:
        """Return (m,) how far errors and rounding of matrices may move eigenvalues, of q (m, 3) Cartesian."""
        errors = (self.constants.error or 0.0) * self._sums.scale
        return errors + self._sums.rounding + self._left + self._sums.turning(q)

    def _shared(
        self, points: np.ndarray, ways: np.ndarray | None, k: int, vectors: bool, group_velocities: bool
    ) -> list[tuple]:
        """Return what each batch of wave vectors gives, batches dealt to ranks. Collective."""
        many = self._sums.batch(_BATCH)
        batches = [slice(first, first + many) for first in range(0, len(points), many)]
        own: dict[int, tuple] = {}
        with agreement(self._comm):
            for number in range(self._comm.rank, len(batches), self._comm.size):
                part = batches[number]
                some = None if ways is None else ways[part]
                own[number] = self._batch(points[part], some, k, vectors, group_velocities)
        every: dict[int, tuple] = {}
        for part in self._comm.allgather(own):
            every |= part
        return [every[number] for number in range(len(batches))]

    def _batch(
        self, points: np.ndarray, ways: np.ndarray | None, k: int, vectors: bool, group_velocities: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return k eigenvalues, bounds, and what else is asked for, at some wave vectors. Not collective."""
        q = points @ self.constants.primitive.reciprocal
        values, found, bounds = eigenpairs(self._sums.matrices(q, ways))
        speeds = None
        if group_velocities:
            along = np.broadcast_to(NO_SYMMETRY, q.shape) if ways is None else ways
            least = bounds + self._uncertain(q)
            speeds, found = velocities(values, found, self._sums.slopes(q), along, self._sums.scale, least)
            speeds = np.ascontiguousarray(speeds[:, :k])
        kept = np.ascontiguousarray(found[:, :, :k]) if vectors else None
        return np.ascontiguousarray(values[:, :k]), bounds, kept, speeds

    def _one_by_one(
        self, points: np.ndarray, ways: np.ndarray | None, k: int, vectors: bool, group_velocities: bool
    ) -> PhononModes:
        """Return the k lowest modes at wave vectors, each matrix shared by all ranks. Collective."""
        values, bounds, certified, kept, speeds = [], [], [], [], []
        # One more tells whether the last ones are alone.
        asked = min(k + 1, self._sums.rows) if group_velocities else k
        for number, point in enumerate(points):
            with self.spectrum(point, asked) as spectrum:
                some, found = spectrum.to_numpy()
                bounds.append(self._residual(point, some, found))
                certified.append(spectrum.count is not None and spectrum.count.certified)
            found = found / np.linalg.norm(found, axis=0)
            if group_velocities:
                along = NO_SYMMETRY if ways is None else ways[number]
                moving, found = self._speeds(point, some, found, along, bounds[-1])
                speeds.append(moving[:k])
            values.append(some[:k])
            if vectors:
                kept.append(found[:, :k])
        found = np.array(bounds)
        return PhononModes(
            q=points,
            eigenvalues=np.array(values),
            bounds=found,
            certified=np.array(certified) & np.isfinite(found) & (found <= PROVEN * self._sums.scale),
            resolution=found + self._uncertain(points @ self.constants.primitive.reciprocal),
            scale=self._sums.scale,
            vectors=np.array(kept) if vectors else None,
            velocities=np.array(speeds) if group_velocities else None,
            how="sparse matrices, one by one, counted by inertia",
        )

    def _speeds(
        self, point: np.ndarray, values: np.ndarray, vectors: np.ndarray, along: np.ndarray, bound: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (k, 3) velocities of sparse eigenpairs, and vectors turned to them. Not collective.

        NaN for the last ones, and all that are degenerate with them, where there are more than these.
        """
        q = point @ self.constants.primitive.reciprocal
        slopes = [vectors.conj().T @ (self._sums.sparse_slope(q, axis) @ vectors) for axis in range(3)]
        within = np.array([0.5 * (one + one.conj().T) for one in slopes])[:, None]
        scale, least = self._sums.scale, bound + self._uncertain(q[None])
        found, turned = velocities(values[None], np.eye(len(values))[None] + 0j, within, along[None], scale, least)
        speeds = found[0]
        if len(values) < self._sums.rows:
            apart = np.flatnonzero(np.diff(values) > TOGETHER * scale)
            speeds[apart[-1] + 1 if len(apart) else 0 :] = np.nan
        return speeds, vectors @ turned[0]

    def _residual(self, point: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> float:
        """Return the largest norm of Dx − λx over that of x, by the sparse matrix. Not collective."""
        matrix = self._sums.sparse(point @ self.constants.primitive.reciprocal)
        left = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
        rounded = 16 * np.finfo(float).eps * self._sums.scale
        return float((left / np.linalg.norm(vectors, axis=0)).max(initial=0.0) + rounded)

    def spectrum(self, q: Sequence | np.ndarray, k: int | None = None, **how: Any) -> Spectrum:
        """Return the lowest eigenpairs of the sparse matrix at one wave vector, by `eigs`.

        Collective. The caller closes it. For large cells; without what polar crystals add.

        Parameters
        ----------
        q
            (3,) in reciprocal vectors of the primitive cell.
        k, how
            Arguments of `eigs`.
        """
        with agreement(self._comm):
            point = reals(q, "q")
            if point.shape != (3,) or not np.isfinite(point).all():
                raise InputError("q: give three finite numbers, in reciprocal vectors")
            self._check_open(point[None])
            if self.constants.polar is not None:
                raise InputError("a polar crystal: `at` takes its field into account; polar=False leaves it out")
            matrix = self._sums.sparse(point @ self.constants.primitive.reciprocal)
        return eigs(matrix, k, comm=self._comm, **how)

    def bands(
        self,
        path: str | Sequence | None = None,
        points: int = 200,
        *,
        k: int | None = None,
        group_velocities: bool = True,
    ) -> Bands:
        """Return the phonons along a path.

        Collective.

        Parameters
        ----------
        path
            Names of special points as ASE knows them for the lattice, such as `GXWKGL`, or `GX,KL` where it jumps;
            or the points, (corners, 3) in reciprocal vectors, or a list of such arrays. Default ASE's own.
        points
            How many wave vectors, about; a corner stands twice.
        k
            As of `at`.
        group_velocities
            Whether to compute them; degenerate modes are told apart along the path.

        Raises
        ------
        InputError
            A point has no such name here.
        StackError
            Names are given, and ASE is not installed.
        """
        with agreement(self._comm):
            lines = path_of(self.constants.primitive, path, points)
        modes = self.at(lines.q, k, group_velocities=group_velocities, directions=lines.directions)
        return Bands(lines, modes)

    def density(
        self,
        mesh: int | Sequence[int] = 20,
        *,
        shift: Sequence[float] = (0, 0, 0),
        width: float | None = None,
        points: int = 401,
        span: tuple[float, float] | None = None,
    ) -> PhononDensity:
        """Return the density of states on a mesh of wave vectors.

        Collective. Of q and −q, which have the same frequencies, one is computed.

        Parameters
        ----------
        mesh
            Points along each reciprocal vector, or one number for all along which the crystal repeats.
        shift
            0 or 0.5 for each: 0.5 moves the mesh by half of its spacing.
        width
            Standard deviation of the Gaussian that smears each mode, in THz; default a hundredth of the range.
        points, span
            Of the frequencies: how many, and between which ends in THz; default all, and a little beyond.

        Raises
        ------
        InputError
            A mesh, width or span that is none.
        """
        with agreement(self._comm):
            sizes, q, weights = mesh_points(mesh, shift, self.constants.primitive.periodic)
            if self._sums.rows > _DENSE:
                raise InputError(
                    f"{self._sums.rows // 3} atoms in the primitive cell: a density takes all modes at each wave "
                    f"vector, up to {_DENSE // 3} atoms; sparsehess.density estimates that of one large matrix"
                )
        modes = self.at(q)
        return density_of(modes, weights, sizes, width, points, span)
