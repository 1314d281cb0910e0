"""Compressed differences: one gradient change per colour, with steps from scale and rounding."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.errors import InputError
from sparsehess.objective import Evaluations
from sparsehess.pattern import Layout

SCHEMES = ("forward", "central", "product")

_EPS = np.finfo(float).eps


@dataclass(frozen=True, eq=False)
class Compressed:
    """The compressed Hessian times steps.

    Attributes
    ----------
    changes
        (colors, n_local) gradient change when the variables of a colour take their steps together.
    taken
        (n_local,) step of each variable, from one evaluation to the other.
    scheme
        One of `SCHEMES`.
    """

    changes: np.ndarray
    taken: np.ndarray
    scheme: str


def scheme_of(derivative: str, objective) -> str:
    """Return the scheme for `auto`, `forward`, `central` or `ad`.

    Not collective. `auto` takes products where the objective has them, else central differences.

    Raises
    ------
    InputError
        Unknown choice, or `ad` without a Hessian-vector product.
    """
    match derivative:
        case "auto":
            return "product" if objective.hvp is not None else "central"
        case "forward" | "central":
            return derivative
        case "ad":
            if objective.hvp is None:
                raise InputError(f"derivative 'ad' needs a Hessian-vector product: {objective.name} has no hvp")
            return "product"
    raise InputError(f"derivative {derivative!r} is none of auto, forward, central, ad")


def steps(x: np.ndarray, typical, scheme: str, layout: Layout) -> np.ndarray:
    """Return the step (n_local,) of each variable.

    Collective.

    Parameters
    ----------
    x
        (n_local,) the point.
    typical
        (n_local,) scale L of the variables, or None: then 1, or the root mean square of x where
        that is smaller (x in metres of nanometre things).

    Notes
    -----
    Rounding disturbs the gradient by eps in itself and through x by eps |x| / L; a central
    difference errs by (h / L)² besides, a forward one by h / L. The balance is
    h = L (eps max(1, |x| / L))^(1/3), and ^(1/2) (Nocedal and Wright 2006, section 8.1).
    """
    if scheme == "product":
        return np.ones(len(x))
    if typical is None:
        total = layout.comm.allreduce(float(np.dot(x, x)))
        rms = np.sqrt(total / max(layout.n, 1))
        scale = rms if 0 < rms < 1 else 1.0
        typical = np.full(len(x), scale)
    root = np.cbrt if scheme == "central" else np.sqrt
    step = typical * root(_EPS)
    far = np.flatnonzero(np.abs(x) > typical)
    step[far] *= root(np.abs(x[far]) / typical[far])
    return step


def compress(evaluations: Evaluations, coloring: Coloring, wanted: np.ndarray, scheme: str) -> Compressed:
    """Evaluate one gradient change (or product) per colour.

    Collective. Costs 2 gradients a colour (`central`), 1 and the base (`forward`), or 1 product.
    """
    changes, taken = evaluations.changes(coloring.colors, wanted, coloring.count, scheme)
    return Compressed(changes, taken, scheme)


def some_colors(
    evaluations: Evaluations, coloring: Coloring, wanted: np.ndarray, scheme: str, first: int, last: int
) -> Compressed:
    """Evaluate the gradient changes (or products) of the colours first to last - 1.

    Collective. Together the parts cost what `compress` costs.
    """
    here = (coloring.colors >= first) & (coloring.colors < last)
    tell = evaluations.on_color
    evaluations.on_color = lambda done, total: tell(first + done, coloring.count)
    try:
        changes, taken = evaluations.changes(
            np.where(here, coloring.colors - first, -1), wanted, last - first, scheme
        )
    finally:
        evaluations.on_color = tell
    return Compressed(changes, taken, scheme)


def directional(evaluations: Evaluations, direction: np.ndarray, scheme: str) -> np.ndarray:
    """Return H d (n_local,) from central differences along d, or from a product.

    Collective. Costs two gradients or one product. `direction` (n_local,) is itself the step.
    """
    together = np.zeros(len(direction), np.int64)
    scheme = "product" if scheme == "product" else "central"
    change, _ = evaluations.changes(together, direction, 1, scheme)
    return change[0] if scheme == "product" else 0.5 * change[0]


def column(evaluations: Evaluations, variable: int, wanted: np.ndarray, scheme: str) -> np.ndarray:
    """Return column `variable` of the Hessian (n_local,), by stepping that variable alone.

    Collective. Costs two gradients or one product.
    """
    layout = evaluations.layout
    colors = np.full(layout.n_local, -1, np.int64)
    if layout.start <= variable < layout.stop:
        colors[variable - layout.start] = 0
    scheme = "product" if scheme == "product" else "central"
    change, taken = evaluations.changes(colors, wanted, 1, scheme)
    own = taken[colors == 0]
    step = layout.comm.allreduce(float(own[0]) if len(own) else -np.inf, op=MPI.MAX)
    return change[0] / step
