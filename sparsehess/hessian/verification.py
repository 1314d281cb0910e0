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
from sparsehess.errors import CheckError, MissingEntries
from sparsehess.hessian.assembled import EPS, SIGMAS, TOLERANCE, Assembled
from sparsehess.hessian.error_model import unsure
from sparsehess.hessian.failed_checks import (
    PROBES,
    entries,
    missing_near,
    noise_sentence,
    pattern_sentence,
    reason,
)

# Of what finite steps leave out so many times is no failure, up to this part of a row.
_STEPS, _MOST = 20.0, 0.1

# Differences of so many standard deviations are of more than the noise that was measured.
_BEYOND = 4.0

# Rows are judged against no less than this part of what they change within a typical length; of products, whose
# noise is not known, of the largest (in units of energy).
_LOCAL_FLOOR, _FLOOR = 0.01, 1e-10

# Errors of this part of the matrix leave nothing of it; nor do entries whose standard deviation is this part of
# the largest. A row is lost in noise of so many times its size, if the errors that are seen are this part of it.
_HOPELESS, _SPOILT, _TELLING, _DROWNED = 0.3, 0.1, 0.1, 3.0


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

    Notes
    -----
    A fresh product is taken by steps that are none of the assembly's, along a direction that is none of a
    colour's; variables whose steps are of another size move apart. A row passes if the difference is no more
    than 1e-4 of |H| |v| in it, or twenty standard deviations of the noise that was measured, and what finite
    steps leave out, up to a tenth of the row. The Hessian passes if the error that is told is below 0.3 of it,
    and no row is lost in noise. Nothing is seen of what the gradient does over less than 1e-8 of a variable's
    length, of what changes farther than a thousandth of it only, or of a kink between x and the shortest step.
    """

    hvp_error: float
    asymmetry: float
    passed: bool


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
        allowed = np.maximum(TOLERANCE * scale, SIGMAS * model.of_product)
        if comm.allreduce(bool((~(error <= allowed)).any()), op=MPI.LOR):  # else what steps leave out says nothing
            left = np.stack([model.left_out(hessian.values, direction) for direction in directions])
            left = np.minimum(_STEPS * left, _MOST * scale)
            allowed = np.maximum(TOLERANCE * scale, SIGMAS * model.of_product + left)
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

    The last (n_local,) is how many times larger than noise the differences of rows are, 1 where they are like it.

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
    _check_hope(hessian, check, error)
    largest = comm.allreduce(float(check.relative.max(initial=0.0)), op=MPI.MAX)
    rows = np.divide(check.error, check.noise, out=np.ones(check.error.shape), where=check.noise > 0).max(axis=0)
    return Verification(largest, asymmetry, True), error, np.where(rows > _BEYOND, rows, 1.0)


def _shown_error(hessian: Assembled, check: _ProductCheck) -> float:
    """Return the relative error of the matrix that the product check shows. Collective."""
    comm, model, norm, known = hessian.pattern.comm, hessian.model, hessian.norm, hessian.error
    rows = model.independent(check.error)
    times = unsure(rows)
    if not norm > 0:
        return float(comm.allreduce(bool(check.error.any()), op=MPI.LOR))
    seen = times * model.frobenius(check.error) / norm
    return float(max(seen, times * known if times > 1 else model.noise / norm, EPS))


def _check_hope(hessian: Assembled, check: _ProductCheck, told: float) -> None:
    """Raise CheckError where the error is as large as the Hessian, or as a row of it. Collective."""
    model, noise, comm, layout = hessian.model, hessian.noise, hessian.pattern.comm, hessian.pattern.layout
    if noise is None:
        return
    # Rows that do not change at x are small beside what they change farther away.
    largest = max(hessian.norm, model.scale_of(noise.moves == 0))
    error = told * hessian.norm / largest if largest > 0 else 0.0
    steepest = comm.allreduce(float((model.slope / model.length).max(initial=0.0)), op=MPI.MAX)
    if not (error <= _HOPELESS and model.largest <= _SPOILT * max(hessian.recovered.largest, steepest)):
        how = f"{error:.0%}" if error < 10 else "far more than they are"
        raise CheckError(
            f"the Hessian of {hessian.name} is lost in the noise of its gradient: entries err by {how}, "
            f"whatever the step{_beside(hessian)}"
        )
    rows = np.flatnonzero(_lost_rows(hessian, check, noise.moves > 0))
    first = comm.allreduce(layout.start + int(rows[0]) if len(rows) else layout.n, op=MPI.MIN)
    if first < layout.n:
        raise CheckError(
            f"the row of variable {first} in the Hessian of {hessian.name} is lost in the noise of the gradient, "
            "whatever the step; tell typical_x, if it changes over longer distances, or leave it out"
            + _beside(hessian)
        )


def _lost_rows(hessian: Assembled, check: _ProductCheck, moves: np.ndarray) -> np.ndarray:
    """Return (n_local,) bool: rows that are nothing but error; `moves` are those that change. Not collective."""
    model = hessian.model
    change = model.slope * np.abs(hessian.check.taken) / model.length
    drowned = check.noise > _DROWNED * check.size
    telling = (drowned & (check.error > _TELLING * check.size)).any(axis=0)
    return np.where(moves, drowned.all(axis=0) & telling, check.error.max(axis=0) > _HOPELESS * change)


def _beside(hessian: Assembled) -> str:
    """Return what is known of the noise, after a semicolon, "" if nothing. Collective."""
    said = noise_sentence(hessian)
    return f"; {said}" if said else ""


def _check_symmetry(hessian: Assembled, evaluations: Evaluations, spoilt: int) -> float:
    """Return the relative asymmetry, which must be below the threshold. Collective."""
    recovered, model = hessian.recovered, hessian.model
    asymmetry = recovered.asymmetry / recovered.largest if recovered.largest > 0 else 0.0
    threshold = TOLERANCE
    threshold += SIGMAS * model.largest / recovered.largest if recovered.largest > 0 else 0.0
    if not asymmetry <= threshold and hessian.norm > 0:
        threshold += min(_STEPS * model.truncation(hessian.values) / hessian.norm, _MOST)
    if recovered.where is not None and not asymmetry <= threshold:
        i, j = recovered.where
        missing = missing_near(hessian, evaluations, [i, j])
        raise MissingEntries(
            f"the derivatives of {hessian.name} are not symmetric: entries ({i}, {j}) and ({j}, {i}) "
            f"differ by {asymmetry:.1e} of the largest entry: "
            + (pattern_sentence(missing) or reason(hessian, evaluations, [i, j])),
            *entries(missing),
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
    missing = missing_near(hessian, evaluations, [row for _, row, _ in listed])
    raise MissingEntries(
        f"the Hessian of {hessian.name} does not agree with the gradient at variable "
        f"{worst} (a random product is off by {off:.1e}): "
        + (pattern_sentence(missing) or reason(hessian, evaluations, [worst])),
        *entries(missing),
        spoilt,
    )
