"""What a Hessian of near and far would take, told before anything of it is evaluated."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.long_range.assembly import PROBES, chosen_scheme
from sparsehess.long_range.cutoff import NearField, largest_near_field
from sparsehess.long_range.kernel_fit import functions_at_most
from sparsehess.long_range.points import Points
from sparsehess.long_range.radial_kernel import RadialKernel, Shape, weights_of

# Gradients that are taken to be spent on noise, where there are differences.
_NOISE = 8

# Bytes of an entry of the near part, with its column, its pattern, and what reads it; numbers for each colour and
# variable: what was read, and that without what is far.
_ENTRY, _OF_COLOR = 40, 2 * 8

# Times that a block of pairs is timed, of which the least counts.
_TIMES = 3


@dataclass(frozen=True)
class Forecast:
    """What is expected of the first attempt, the same on every rank.

    Attributes
    ----------
    cutoff
        Points no farther apart would be near.
    colors, nnz
        Colours of the near part, and its entries.
    gradients
        Gradients or products of the first attempt, about.
    pairs
        Pairs of points of a product with what is far; 0 where nothing is.
    seconds
        What such a product takes on these ranks, about, as a block of pairs took just now.
    bytes
        Memory of the rank with the most, about: near part and readings, without factors and eigenvectors.
    """

    cutoff: float
    colors: int
    nnz: int
    gradients: int
    pairs: int
    seconds: float
    bytes: int


def forecast(objective: Objective, *, gradients: int, derivative: str = "auto", seed: int = 0) -> Forecast:
    """Return what `near_far` of an objective with a geometry would take.

    Collective. No function of the objective is called: that of noise is taken to be what it mostly is.

    Raises
    ------
    InputError
        As of `near_far`.
    """
    scheme, where = chosen_scheme(objective, derivative), Points.of(objective)
    product, color = (1 if scheme == "product" else 2), (2 if scheme == "central" else 1)
    beside = PROBES * product + (scheme == "forward") + _NOISE * (scheme != "product")
    field = largest_near_field(where, np.zeros((0, 2), np.int64), (gradients - beside) // color, seed)
    pattern, n_local = field.pattern, field.pattern.layout.n_local
    held = _ENTRY * pattern.nnz_local + _OF_COLOR * field.coloring.count * n_local
    pairs = 0 if field.complete else where.layout.n**2
    comm, widest = where.layout.comm, where.extent()[1]
    seconds = _seconds_of_product(where, field, widest) if pairs else 0.0
    return Forecast(
        cutoff=field.radius,
        colors=field.coloring.count,
        nnz=pattern.nnz,
        gradients=beside + color * field.coloring.count,
        pairs=pairs,
        seconds=comm.allreduce(seconds, op=MPI.MAX),
        bytes=comm.allreduce(held, op=MPI.MAX),
    )


def _seconds_of_product(points: Points, field: NearField, widest: float) -> float:
    """Return about what this rank's part of a product with what is far takes. Not collective."""
    assert field.pattern.quotient is not None  # it is of points
    weights = weights_of(points)
    coefficients = np.ones((functions_at_most(weights), weights, 2))
    shape = Shape(max(field.radius, 1e-3 * widest), widest)
    kernel = RadialKernel(points, field.pattern.quotient, shape, coefficients, np.nan)
    least = np.inf
    for _ in range(_TIMES):
        began = time.perf_counter()
        pairs = kernel.one_block()
        least = min(least, (time.perf_counter() - began) / max(pairs, 1))
    return least * points.layout.n_local * points.layout.n
