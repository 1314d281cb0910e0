"""Whether a matrix on the null space of constraints can be inverted, and what stands in the way."""

from __future__ import annotations

from typing import NamedTuple

from sparsehess.eigen.inverses.saddle_point import SaddlePoint
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.errors import InputError


class Signs(NamedTuple):
    """What a factorization says of ZᵀHZ.

    Attributes
    ----------
    negative, positive
        How many eigenvalues; what is not certain is in neither.
    margin
        How many times the error of the factors must grow to change that.
    sure
        Whether the margin is enough, and the errors of the entries too small to change it.
    """

    negative: int
    positive: int
    margin: float
    sure: bool


def signs_on_constraints(system: SaddlePoint) -> Signs:
    """Factorize, and return the signs of ZᵀHZ with their margin.

    Collective.
    """
    pivots = system.factors.factorize()
    made = system.factors.measured()
    m = system.multipliers.n
    margin = made.margin
    doubt = SAFE * made.error + system.factors.entry_error
    negative, positive = pivots.negative - m, pivots.positive - m - system.fixed_in_all
    whole = pivots.zero == 0 and negative >= 0 and positive >= 0 and negative + positive == system.freedom - m
    return Signs(negative, positive, margin, bool(whole and margin > SAFE and made.least > doubt))


def refuse_singular(system: SaddlePoint, signs: Signs, what: str) -> None:
    """Raise InputError where a matrix is singular to the accuracy of its factors, and say on which rows.

    Collective.
    """
    if signs.sure:
        return
    empty = system.empty_rows()
    if empty:
        why = f"{' and '.join(empty)} {'has' if len(empty) == 1 else 'have'} no entries"
    else:
        rows = [f"{system.name(row)} ({part:.2g})" for row, part in system.factors.nearly_null()]
        vector = "the vector that it takes nearest to zero lives on"
        why = f"{vector} {', '.join(rows)}" if rows else "no vector is told"
    raise InputError(
        f"{what} is singular to the accuracy of its factors and entries (margin {signs.margin:.2g}, at least "
        f"{SAFE:g} is needed): {why}; give the null vectors as nullspace, a shift, or hold variables"
    )
