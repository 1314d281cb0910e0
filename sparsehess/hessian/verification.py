"""Verification: whether a Hessian is what its gradient says, how large its error is, and what its pattern misses.

A fresh product along a random direction costs two gradients and sees every row. Neither its direction nor the
length of its step is one of the assembly's. An error model says how far noise and steps may take it from the
product of the assembled matrix; what lies beyond a threshold, row by row, is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import Steps, along, column, directional
from sparsehess.derivatives.gradient_noise import ROUNDING, Noise
from sparsehess.errors import CheckError, MissingEntries
from sparsehess.hessian.error_model import ErrorModel
from sparsehess.hessian.recovery import Recovered
from sparsehess.pattern import Pattern
from sparsehess.pattern.pattern_kernels import contains_pairs
from sparsehess.runtime import PETSc, destroy

# A Hessian passes if it agrees with a fresh product, row by row, and with its own transpose this well.
# Rounding and truncation leave 1e-9 to 1e-6; a missing entry or a kink leaves 1e-3 and more.
TOLERANCE = 1e-4

# Of what noise alone makes of a check, so many standard deviations are no failure.
_SIGMAS = 20.0

# Of what finite steps leave out so many times is no failure, up to this part of a row.
_STEPS, _MOST = 20.0, 0.1

# Rows are judged against no less than this part of what they change within a typical length; of products, the noise of
# which is not known, of the largest (in units of energy).
_LOCAL_FLOOR, _FLOOR = 0.01, 1e-10

# A single difference may be small by chance, and is taken to be so many times larger; the root of the mean square
# of so many is what it is.
_FEW, _MANY = 3.0, 10.0

# Errors of this part of the matrix, and of what the gradient changes within typical lengths, leave nothing of it;
# nor do entries whose standard deviation is this part of the largest.
_HOPELESS = 0.3
_TELLING = 0.1
_SPOILT = 0.1

# A probe of a single column shows entries, and errors, above this part of the column's largest entry.
_VISIBLE = 1e-6

# An entry that comes again by another step is the same to this part.
_SAME = 0.3

# Steps that show whether a variable has any influence, in typical lengths.
_LONG = 0.1, 1.0

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
class Assembled:
    """A Hessian as it was assembled, for those who judge it.

    Attributes
    ----------
    name
        Of the function.
    pattern, mat, values
        The matrix, and its entries (nnz_local,) in the pattern's order.
    steps, recovered, model, noise
        What they were made with, what recovery saw, what may be wrong with them, and the noise that was measured.
    check, groups, directions
        Steps of the fresh products, (n_local,) which variables take them together, and (groups, n_local) what those
        of each group take.
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
    noise: Noise | None
    check: Steps
    groups: np.ndarray
    directions: np.ndarray
    norm: float
    error: float

    def stuck(self, fresh: np.ndarray) -> np.ndarray:
        """Return (n_local,) bool: rows in which nothing has changed, neither here nor in fresh products.

        Not collective. Where the gradient is known to change, what is equal there is its rounding.
        """
        if self.noise is None:
            return np.zeros(fresh.shape[1], bool)
        expected = self.model.slope * np.abs(self.check.taken) / self.model.length
        own = np.maximum.reduceat(np.abs(self.values), self.pattern.indptr[:-1]) if fresh.size else fresh[0]
        moves = (self.noise.moves > 0) & (self.check.taken != 0)
        noise = _SIGMAS * self.model.of_product.max(axis=0)
        return moves & (fresh == 0).all(axis=0) & (own == 0) & (expected > noise)

    def fresh(self, evaluations: Evaluations) -> np.ndarray:
        """Return (groups, n_local) products along the directions of the check. Collective."""
        return along(evaluations, self.check, self.groups, len(self.directions))

    def product(self, direction: np.ndarray) -> np.ndarray:
        """Return H d (n_local,). Collective."""
        x, y = self.mat.createVecs()
        x.setArray(direction)
        self.mat.mult(x, y)
        ours = y.getArray().copy()
        destroy(x, y)
        return ours


@dataclass(frozen=True, eq=False)
class _ProductCheck:
    """Products of the assembled matrix beside fresh ones.

    Attributes
    ----------
    error, noise, size
        (groups, n_local) their difference, the standard deviation of what noise makes of it, and |H| |d|.
    scale
        (groups, n_local) what errors of a row are compared with.
    excess
        (groups, n_local) the error over what is allowed, above 1 where it is too large.
    """

    error: np.ndarray
    noise: np.ndarray
    size: np.ndarray
    scale: np.ndarray
    excess: np.ndarray

    @classmethod
    def along(cls, hessian: Assembled, evaluations: Evaluations) -> _ProductCheck:
        """Compare the products along the direction of the check. Collective."""
        model, comm = hessian.model, hessian.pattern.comm
        fresh, directions = hessian.fresh(evaluations), hessian.directions
        error = np.abs(np.stack([hessian.product(direction) for direction in directions]) - fresh)
        size = np.stack([model.absolute_product(hessian.values, direction) for direction in directions])
        # Lengths turn rows of different units into energies, which can be compared.
        top = comm.allreduce(float((size * model.length).max(initial=0.0)), op=MPI.MAX)
        local = _LOCAL_FLOOR * model.slope * np.abs(directions) / model.length
        least = _FLOOR * top / model.length if hessian.noise is None else 0.0
        scale = np.maximum(np.maximum(size, local), least)
        left = np.stack([model.left_out(hessian.values, direction) for direction in directions])
        left = np.minimum(_STEPS * left, _MOST * scale)
        allowed = np.maximum(TOLERANCE * scale, _SIGMAS * model.of_product + left)
        excess = np.divide(error, allowed, out=np.where(error > 0, np.inf, 0.0), where=allowed > 0)
        excess[~np.isfinite(error)] = np.inf
        excess[:, hessian.stuck(fresh)] = np.inf
        return cls(error, model.of_product, size, scale, excess)

    @property
    def relative(self) -> np.ndarray:
        """(groups, n_local) errors relative to the scale."""
        none = np.where(self.error > 0, np.inf, 0.0)
        return np.divide(self.error, self.scale, out=none, where=self.scale > 0)


def verify(hessian: Assembled, evaluations: Evaluations) -> tuple[Verification, float, np.ndarray]:
    """Return what the checks found, the relative error of the matrix that they show, and by rows.

    The last (n_local,) is how many times larger than noise the differences of rows were, 1 where they were not.

    Collective. Costs two gradients or a product, and more only where a check fails.

    Raises
    ------
    MissingEntries
        The Hessian is not symmetric, or does not agree with the fresh product; with what misses in the pattern.
    CheckError
        Noise leaves nothing of the Hessian.
    """
    comm = hessian.pattern.comm
    check = _ProductCheck.along(hessian, evaluations)
    spoilt = int(comm.allreduce(int((~(check.excess <= 1.0)).any(axis=0).sum())))
    asymmetry = _check_symmetry(hessian, evaluations, spoilt)
    _check_product(hessian, evaluations, check, spoilt)
    error = _shown_error(hessian, check)
    _check_hope(hessian, check)
    largest = comm.allreduce(float(check.relative.max(initial=0.0)), op=MPI.MAX)
    rows = np.divide(check.error, check.noise, out=np.ones(check.error.shape), where=check.noise > 0)
    return Verification(largest, asymmetry, True), error, np.maximum(rows.max(axis=0), 1.0)


def _shown_error(hessian: Assembled, check: _ProductCheck) -> float:
    """Return the relative error of the matrix that the product check shows. Collective."""
    comm, model, norm, known = hessian.pattern.comm, hessian.model, hessian.norm, hessian.error
    rows = model.independent(check.error)
    sure = 1.0 + _FEW / np.sqrt(rows)
    if not norm > 0:
        return float(comm.allreduce(bool(check.error.any()), op=MPI.LOR))
    seen = sure * model.frobenius(check.error) / norm
    return float(max(seen, sure * known if rows < _MANY else 0.0, EPS))


def _check_hope(hessian: Assembled, check: _ProductCheck) -> None:
    """Raise CheckError where the error is as large as the Hessian, or as a row of it. Collective."""
    model, noise, comm, layout = hessian.model, hessian.noise, hessian.pattern.comm, hessian.pattern.layout
    if noise is None:
        return
    moves = noise.moves > 0
    error = model.frobenius(np.where(moves, check.error, 0.0))
    error = max(error, model.noise) / hessian.norm if hessian.norm > 0 else float(error > 0)
    flat = ~moves & (
        check.error.max(axis=0) > _HOPELESS * model.slope * np.abs(hessian.check.taken) / model.length
    )
    noisy = (check.noise > check.size) & (check.error > _TELLING * check.size)
    lost = np.flatnonzero(flat | (moves & noisy.any(axis=0) & ~(check.noise <= check.size).any(axis=0)))
    first = comm.allreduce(layout.start + int(lost[0]) if len(lost) else layout.n, op=MPI.MIN)
    steepest = comm.allreduce(float((model.slope / model.length).max(initial=0.0)), op=MPI.MAX)
    sound = model.largest <= _SPOILT * max(hessian.recovered.largest, steepest)
    if error <= _HOPELESS and sound and first == layout.n:
        return
    if error <= _HOPELESS and first < layout.n:
        said = _noise_sentence(hessian)
        raise CheckError(
            f"the row of variable {first} in the Hessian of {hessian.name} is lost in the noise of the gradient, "
            "whatever the step; tell typical_x, if it changes over longer distances, or leave it out"
            + (f"; {said}" if said else "")
        )
    how = f"{error:.0%}" if error < 10 else "far more than they are"
    said = _noise_sentence(hessian)
    raise CheckError(
        f"the Hessian of {hessian.name} is lost in the noise of its gradient: entries err by {how}, whatever the step"
        + (f"; {said}" if said else "")
    )


def _noise_sentence(hessian: Assembled) -> str:
    """Return what is known of the noise, and what to do about it. Collective."""
    noise, comm, n = hessian.noise, hessian.pattern.comm, hessian.pattern.n
    if noise is None:
        return ""
    mean = comm.allreduce(float(noise.relative.sum())) / n
    if not mean > ROUNDING:
        return ""
    said = f" ({noise.grain})" if noise.grain else ""
    return (
        f"the noise or rounding of the gradient{said} is {mean:.0e} of its change over a typical length: "
        "compute it with more digits, or tell typical_x if the function changes over longer distances"
    )


def _check_symmetry(hessian: Assembled, evaluations: Evaluations, spoilt: int) -> float:
    """Return the relative asymmetry, which must be below the threshold. Collective."""
    recovered, model = hessian.recovered, hessian.model
    asymmetry = recovered.asymmetry / recovered.largest if recovered.largest > 0 else 0.0
    left = model.truncation(hessian.values) / hessian.norm if hessian.norm > 0 else 0.0
    threshold = TOLERANCE + min(_STEPS * left, _MOST)
    threshold += _SIGMAS * model.largest / recovered.largest if recovered.largest > 0 else 0.0
    if recovered.where is not None and not asymmetry <= threshold:
        i, j = recovered.where
        missing = _missing_near(hessian, evaluations, [i, j])
        raise MissingEntries(
            f"the derivatives of {hessian.name} are not symmetric: entries ({i}, {j}) and ({j}, {i}) "
            f"differ by {asymmetry:.1e} of the largest entry: "
            + (_sentence(missing) or _reason(hessian, evaluations, [i, j])),
            *_entries(missing),
            spoilt,
        )
    return float(asymmetry)


def _check_product(hessian: Assembled, evaluations: Evaluations, check: _ProductCheck, spoilt: int) -> None:
    """Raise MissingEntries where a row of the product is beyond the threshold. Collective."""
    if not spoilt:
        return
    comm, layout = hessian.pattern.comm, hessian.pattern.layout
    # The worst rows of all ranks: what is missing spoils the rows it stands in.
    excess, relative = check.excess.max(axis=0), check.relative.max(axis=0)
    bad = np.flatnonzero(~(excess <= 1.0))
    bad = bad[np.argsort(-excess[bad], kind="stable")][:PROBES]
    listed = [(-float(excess[row]), layout.start + int(row), float(relative[row])) for row in bad]
    listed = sorted(item for part in comm.allgather(listed) for item in part)[:PROBES]
    _, worst, off = listed[0]
    missing = _missing_near(hessian, evaluations, [row for _, row, _ in listed])
    raise MissingEntries(
        f"the Hessian of {hessian.name} does not agree with the gradient at variable "
        f"{worst} (a random product is off by {off:.1e}): "
        + (_sentence(missing) or _reason(hessian, evaluations, [worst])),
        *_entries(missing),
        spoilt,
    )


def _reason(hessian: Assembled, evaluations: Evaluations, rows: list[int]) -> str:
    """Return why rows are wrong although the pattern misses nothing there. Collective.

    Fresh products by the same step twice, and by others, tell noise from what depends on the step.
    """
    comm, scheme = hessian.pattern.comm, hessian.steps.scheme
    if scheme == "product":
        return "the pattern misses nothing there, so the products are none of a symmetric matrix"
    own = np.array([row - hessian.pattern.layout.start for row in rows])
    own = own[(own >= 0) & (own < hessian.pattern.layout.n_local)]

    direction = 0.5 * hessian.check.taken  # to either side

    def fresh(part: float) -> np.ndarray:
        return directional(evaluations, part * direction, scheme)[0][own] / part

    once, again, longer, shorter = fresh(1.0), fresh(1.0), fresh(2.5), fresh(0.25)
    noise = _SIGMAS * hessian.model.of_product.max(axis=0)[own]
    size = hessian.model.absolute_product(hessian.values, direction)[own]
    size = np.maximum(np.maximum(np.abs(once), np.abs(longer)), size)
    random = ~(np.abs(once - again) <= noise)
    stuck = comm.allreduce(bool(hessian.stuck(hessian.fresh(evaluations))[own].any()), op=MPI.LOR)
    changes = np.maximum(np.abs(once - longer), np.abs(once - shorter) - 4 * noise)
    found = random.any(), (~(changes <= noise + TOLERANCE * size)).any()
    restless, stepwise = comm.allreduce(np.array(found, int)).tolist()
    length = comm.allreduce(float(hessian.steps.wanted[own].max(initial=0.0)), op=MPI.MAX)
    said = _noise_sentence(hessian)
    unmoved = _unmoved(hessian, evaluations, rows)
    if unmoved is not None:
        return (
            f"steps of {length:.1e} of variable {unmoved} change nothing although longer ones do, so x is rounded "
            "there before it is used"
        )
    if stuck:
        return (
            f"steps of {length:.1e} change nothing there although longer ones do, so the gradient is rounded, "
            "or x before it is used" + (f"; {said}" if said else "")
        )
    if restless:
        return (
            "the gradient returns other values for the same x, by more than the noise that was measured: "
            "fix what is random in it, or make it converge further"
        )
    if stepwise:
        return (
            f"differences over shorter steps than {length:.1e} are others there, so the gradient changes over a "
            "shorter length (tell typical_x, an array of lengths, or bounds), or it has a kink (a cut-off without "
            "smoothing)" + (f"; {said}" if said else "")
        )
    return said or (
        "the pattern misses nothing there and the step does not matter, so it is not the gradient of a function"
    )


def _unmoved(hessian: Assembled, evaluations: Evaluations, variables: list[int]) -> int | None:
    """Return which of some variables changes nothing by its step, but by a longer one; None if none. Collective."""
    layout, comm = hessian.pattern.layout, hessian.pattern.comm
    for variable in variables:
        own = np.arange(layout.start, layout.stop) == variable
        moved = []
        for steps in (hessian.steps.wanted, *(part * hessian.model.length for part in _LONG)):
            change = directional(evaluations, np.where(own, steps, 0.0), hessian.steps.scheme)[0]
            moved.append(comm.allreduce(bool(change.any()), op=MPI.LOR))
            if moved[0]:
                break
        if any(moved) and not moved[0]:
            return variable
    return None


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
        level = 0.0 if hessian.noise is None else hessian.noise.level
        there = outside & (np.abs(exact) > _VISIBLE * top + _SIGMAS * level / step)
        if comm.allreduce(bool(there.any()), op=MPI.LOR):
            there &= np.abs(_column_again(hessian, evaluations, variable) - exact) <= _SAME * np.abs(exact)
        found = [(layout.start + int(row), variable, float(exact[row])) for row in np.flatnonzero(there)]
        missing += [item for part in comm.allgather(found) for item in part]
        alone = np.zeros(len(rows))
        if layout.start <= variable < layout.stop:
            alone[variable - layout.start] = 1.0
        error = np.abs(exact - hessian.product(alone))
        size, rank = comm.allreduce((float(error.max(initial=0.0)), comm.rank), op=MPI.MAXLOC)
        row = comm.bcast(layout.start + int(error.argmax()) if comm.rank == rank else None, root=rank)
        if size > _VISIBLE * top and row not in suspects:
            suspects.append(row)
    return missing


def _column_again(hessian: Assembled, evaluations: Evaluations, variable: int) -> np.ndarray:
    """Return a column (n_local,) by another step: an entry comes again, noise does not. Collective."""
    if hessian.steps.scheme == "product":
        return column(evaluations, variable, hessian.steps)
    layout = hessian.pattern.layout
    own = np.arange(layout.start, layout.stop) == variable
    change, taken = directional(evaluations, np.where(own, 0.5 * hessian.steps.wanted, 0.0), "central")
    return change / layout.comm.allreduce(float(np.abs(taken).max(initial=0.0)), op=MPI.MAX)


def _sentence(found: list[tuple[int, int, float]]) -> str:
    if not found:
        return ""
    variable = found[0][1]
    most = sorted((item for item in found if item[1] == variable), key=lambda item: -abs(item[2]))[:4]
    listed = ", ".join(f"{row} (H = {value:.3g})" for row, _, value in most)
    return f"the pattern is too small, variable {variable} is coupled with {listed}"


def _entries(found: list[tuple[int, int, float]]) -> tuple[list[int], list[int]]:
    return [row for row, _, _ in found], [column for _, column, _ in found]
