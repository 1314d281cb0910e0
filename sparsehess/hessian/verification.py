"""Verification: whether a Hessian is what its gradient says, how large its error is, and what its pattern misses.

A fresh product along a random direction costs two gradients and sees every row. An error model says how far noise
and steps may take it from the product of the assembled matrix; what lies beyond a threshold is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import Steps, column, directional, truncation
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.errors import MissingEntries
from sparsehess.hessian import recovery_kernels
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.recovery import Plan, Recovered
from sparsehess.pattern import Pattern
from sparsehess.pattern.pattern_kernels import contains_pairs
from sparsehess.runtime import PETSc, destroy

# A Hessian passes if it agrees with a fresh product, row by row, and with its own transpose this well.
# Rounding and truncation leave 1e-9 to 1e-6; a missing entry or a kink leaves 1e-3 and more.
TOLERANCE = 1e-4

# Of what noise alone makes of a check, so many standard deviations are no failure.
_SIGMAS = 20.0

# Rows below this part of the largest (in units of energy) are judged against the largest.
_FLOOR = 1e-4

# A probe of a single column shows entries, and errors, above this part of the column's largest entry.
_VISIBLE = 1e-6

# Variables stepped alone to find out why a check failed.
PROBES = 32

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Verification:
    """What the checks of a Hessian found.

    Attributes
    ----------
    hvp_error
        Largest error of a random product H v, row by row, against the gradient's own change along
        v, relative to |H| |v| in that row.
    asymmetry
        Largest |H_ij - H_ji| where both were read, relative to the largest entry.
    passed
        Whether both are within `TOLERANCE`, or within what the noise of the gradient explains; a Hessian of which
        that is not so is an error.
    """

    hvp_error: float
    asymmetry: float
    passed: bool


@dataclass(frozen=True, eq=False)
class ErrorModel:
    """What noise and finite steps make of the entries; made once, since steps stay much the same.

    Attributes
    ----------
    noise
        Norm of what noise makes of the matrix.
    largest
        Largest standard deviation of an entry.
    truncation
        What finite steps leave out, relative to the matrix, as far as the bend tells that was measured.
    of_central
        The same for a central difference along a direction.
    of_product
        (n_local,) what noise makes of the difference of ours and a fresh product along the direction of the check.
    squares
        (n_local,) mean over a row's entries of the square of the direction.
    """

    noise: float
    largest: float
    truncation: float
    of_central: float
    of_product: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(
        cls,
        plan: Plan | ElementAssembly,
        steps: Steps,
        noise: Noise | None,
        length: np.ndarray,
        direction: np.ndarray,
    ) -> ErrorModel:
        """Return the model of a Hessian that is recovered by a plan, for a check along a direction.

        Collective.

        Parameters
        ----------
        length
            (n_local,) typical lengths of the variables.
        direction
            (n_local,) of the check.
        """
        pattern, comm = plan.pattern, plan.pattern.comm
        along = pattern.exchange.halo(direction**2)[pattern.columns]
        squares = _row_sums(pattern, along) / np.diff(pattern.indptr)
        if noise is None:
            return cls(0.0, 0.0, 0.0, 0.0, np.zeros(pattern.layout.n_local), squares)
        left = truncation(steps.taken, length, noise, steps.scheme)
        central = truncation(2 * steps.wanted, length, noise, "central")
        sums = np.array([np.dot(left, left), np.dot(central, central)])
        comm.Allreduce(MPI.IN_PLACE, sums)
        of_steps, of_central = np.sqrt(sums / pattern.n)
        level = noise.level * np.sqrt(sum(weight**2 for _, weight in steps.nodes))
        total, largest, rows = plan.variances(level**2, steps.taken**-2.0, direction)
        of_product = np.sqrt(0.5 * level**2 + rows)
        return cls(
            float(np.sqrt(total)),
            float(np.sqrt(largest)),
            float(of_steps),
            float(of_central),
            of_product,
            squares,
        )

    def relative(self, norm: float) -> float:
        """Return the error of a matrix of this norm, relative to it. Not collective."""
        return float(np.hypot(self.noise / norm, self.truncation))

    def expected(self, size: np.ndarray) -> np.ndarray:
        """Return (n_local,) what ours and a fresh product may differ by, `size` being |H| |d|. Not collective."""
        return self.of_product + (self.truncation + self.of_central) * size

    def frobenius(self, error: np.ndarray, comm: MPI.Comm) -> float:
        """Return the norm of the error of the matrix that shows as this error of a product. Collective.

        For an error E and random signs, the mean of (E v)_i² is Σ_j E_ij² v_j² (Hutchinson 1990).
        """
        part = np.divide(error**2, self.squares, out=np.zeros_like(error), where=self.squares > 0)
        return float(np.sqrt(comm.allreduce(float(part.sum()))))


@dataclass(frozen=True, eq=False)
class Assembled:
    """A Hessian as it was assembled, for those who judge it.

    Attributes
    ----------
    name
        Of the function.
    pattern, mat, values
        The matrix, and its entries (nnz_local,) in the pattern's order.
    steps, recovered, model
        What they were made with, what recovery saw, and what may be wrong with them.
    level
        (n_local,) standard deviation of the gradient's components.
    direction
        (n_local,) of the fresh product, itself the step.
    norm, error
        Frobenius norm, and the relative error of the matrix as far as noise and steps tell.
    """

    name: str
    pattern: Pattern
    mat: PETSc.Mat
    values: np.ndarray
    steps: Steps
    recovered: Recovered
    model: ErrorModel
    level: np.ndarray
    direction: np.ndarray
    norm: float
    error: float

    def products(self, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H d and |H| |d| (n_local,). Collective."""
        pattern = self.pattern
        x, y = self.mat.createVecs()
        x.setArray(direction)
        self.mat.mult(x, y)
        ours = y.getArray().copy()
        destroy(x, y)
        size = np.empty(pattern.layout.n_local)
        recovery_kernels.absolute_product(
            pattern.indptr, pattern.columns, self.values, pattern.exchange.halo(direction), size
        )
        return ours, size


@dataclass(frozen=True, eq=False)
class _ProductCheck:
    """The product of the assembled matrix beside a fresh one.

    Attributes
    ----------
    error, expected
        (n_local,) their difference, and what the error model allows for.
    raw, excess
        (n_local,) the difference relative to |H| |d|; the same, 0 where noise explains it.
    """

    error: np.ndarray
    expected: np.ndarray
    raw: np.ndarray
    excess: np.ndarray

    @classmethod
    def along(cls, hessian: Assembled, evaluations: Evaluations) -> _ProductCheck:
        """Compare the products along the direction of the check. Collective."""
        steps, comm = hessian.steps, hessian.pattern.comm
        product, direction = directional(evaluations, hessian.direction, steps.scheme)
        ours, size = hessian.products(direction)
        error, expected = np.abs(ours - product), hessian.model.expected(size)
        # Steps turn rows of different units into energies, which can be compared.
        energy = size * steps.wanted
        top = comm.allreduce(float(energy.max(initial=0.0)), op=MPI.MAX)
        scale = np.maximum(size, _FLOOR * top / steps.wanted)
        raw = np.divide(error, scale, out=np.where(error > 0, np.inf, 0.0), where=scale > 0)
        return cls(error, expected, raw, np.where(error > _SIGMAS * expected, raw, 0.0))


def verify(hessian: Assembled, evaluations: Evaluations) -> tuple[Verification, float]:
    """Return what the checks found, and the relative error of the matrix that they show.

    Collective. Costs two gradients or a product, and more only where a check fails.

    Raises
    ------
    MissingEntries
        The Hessian is not symmetric, or does not agree with the fresh product; with what misses in the pattern.
    """
    comm = hessian.pattern.comm
    check = _ProductCheck.along(hessian, evaluations)
    spoilt = int(comm.allreduce(int((check.excess > TOLERANCE).sum())))
    asymmetry = _check_symmetry(hessian, evaluations, spoilt)
    _check_product(hessian, evaluations, check, spoilt)
    largest = comm.allreduce(float(check.raw.max(initial=0.0)), op=MPI.MAX)
    return Verification(largest, asymmetry, True), _shown_error(hessian, check)


def _shown_error(hessian: Assembled, check: _ProductCheck) -> float:
    """Return the relative error of the matrix that the product check shows. Collective."""
    comm, model, norm, known = hessian.pattern.comm, hessian.model, hessian.norm, hessian.error
    if not norm > 0:
        return known
    # A product's own error hides that of a scheme of higher order, which is then no larger.
    higher = hessian.steps.scheme == "extrapolated"
    shown = np.maximum(check.error - 3 * check.expected, 0.0) if higher else check.error
    seen, most = model.frobenius(shown, comm) / norm, model.frobenius(check.error, comm) / norm
    return float(max(seen, min(known, most), known / 10, EPS))


def _check_symmetry(hessian: Assembled, evaluations: Evaluations, spoilt: int) -> float:
    """Return the relative asymmetry, which must be below the threshold. Collective."""
    recovered, model = hessian.recovered, hessian.model
    asymmetry = recovered.asymmetry / recovered.largest if recovered.largest > 0 else 0.0
    threshold = TOLERANCE + _SIGMAS * model.truncation
    threshold += _SIGMAS * model.largest / recovered.largest if recovered.largest > 0 else 0.0
    if recovered.where is not None and asymmetry > threshold:
        i, j = recovered.where
        missing = _missing_near(hessian, evaluations, [i, j])
        raise MissingEntries(
            f"the derivatives of {hessian.name} are not symmetric: entries ({i}, {j}) and ({j}, {i}) "
            f"differ by {asymmetry:.1e} of the largest entry: "
            + (_sentence(missing) or "the function is no gradient, or it has a kink near x"),
            *_entries(missing),
            spoilt,
        )
    return float(asymmetry)


def _check_product(hessian: Assembled, evaluations: Evaluations, check: _ProductCheck, spoilt: int) -> None:
    """Raise MissingEntries where a row of the product is beyond the threshold. Collective."""
    comm, layout = hessian.pattern.comm, hessian.pattern.layout
    worst = comm.allreduce(float(check.excess.max(initial=0.0)), op=MPI.MAX)
    if not worst > TOLERANCE:
        return
    # The worst rows of all ranks: what is missing spoils the rows it stands in.
    bad = np.flatnonzero(check.excess > TOLERANCE)
    bad = bad[np.argsort(-check.excess[bad], kind="stable")][:PROBES]
    listed = [(-float(check.excess[row]), layout.start + int(row)) for row in bad]
    listed = sorted(item for part in comm.allgather(listed) for item in part)[:PROBES]
    missing = _missing_near(hessian, evaluations, [row for _, row in listed])
    raise MissingEntries(
        f"the Hessian of {hessian.name} does not agree with the gradient at variable "
        f"{listed[0][1]} (a random product is off by {worst:.1e}): "
        + (
            _sentence(missing)
            or "the pattern misses nothing there, so either the gradient has a kink (a cut-off without "
            "smoothing), or it is not the gradient of a function"
        ),
        *_entries(missing),
        spoilt,
    )


def _missing_near(
    hessian: Assembled, evaluations: Evaluations, suspects: list[int]
) -> list[tuple[int, int, float]]:
    """Step suspects alone and return what the pattern misses of their columns: (row, column, value).

    A missing entry spoils what is recovered in its row, so the trail leads from a wrong product to
    the entry that was read wrongly, and from its row to the entry that is missing.
    """
    pattern, comm, steps = hessian.pattern, hessian.pattern.comm, hessian.steps
    layout = pattern.layout
    rows = np.arange(layout.n_local, dtype=np.int64)
    missing: list[tuple[int, int, float]] = []
    for probe in range(PROBES):
        if probe == len(suspects):
            break
        variable = suspects[probe]
        exact = column(evaluations, variable, steps)
        outside = contains_pairs(pattern.indptr, pattern.indices, rows, np.full(len(rows), variable)) == 0
        top = comm.allreduce(float(np.abs(exact).max(initial=0.0)), op=MPI.MAX)
        step = comm.allreduce(float(np.abs(steps.taken).min(initial=np.inf)), op=MPI.MIN)
        there = outside & (np.abs(exact) > _VISIBLE * top + _SIGMAS * hessian.level / step)
        found = [(layout.start + int(row), variable, float(exact[row])) for row in np.flatnonzero(there)]
        missing += [item for part in comm.allgather(found) for item in part]
        alone = np.zeros(len(rows))
        if layout.start <= variable < layout.stop:
            alone[variable - layout.start] = 1.0
        error = np.abs(exact - hessian.products(alone)[0])
        size, rank = comm.allreduce((float(error.max(initial=0.0)), comm.rank), op=MPI.MAXLOC)
        row = comm.bcast(layout.start + int(error.argmax()) if comm.rank == rank else None, root=rank)
        if size > _VISIBLE * top and row not in suspects:
            suspects.append(row)
    return missing


def _sentence(found: list[tuple[int, int, float]]) -> str:
    if not found:
        return ""
    variable = found[0][1]
    most = sorted((item for item in found if item[1] == variable), key=lambda item: -abs(item[2]))[:4]
    listed = ", ".join(f"{row} (H = {value:.3g})" for row, _, value in most)
    return f"the pattern is too small, variable {variable} is coupled with {listed}"


def _entries(found: list[tuple[int, int, float]]) -> tuple[list[int], list[int]]:
    return [row for row, _, _ in found], [column for _, column, _ in found]


def _row_sums(pattern: Pattern, values: np.ndarray) -> np.ndarray:
    """Return (n_local,) the sums of the values of each row's entries; no row is empty."""
    if not pattern.layout.n_local:
        return np.zeros(0)
    return np.add.reduceat(values, pattern.indptr[:-1])
