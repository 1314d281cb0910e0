"""Compressed differences: for every colour a weighted sum of gradients, with steps from scale and noise."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.derivatives.evaluations import Evaluations, Nodes
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import InputError, none_of
from sparsehess.runtime.citations import cite
from sparsehess.runtime.short_repr import ShortRepr

# Those that lose digits to the noise of the gradient, and all.
DIFFERENCES = ("forward", "central", "extrapolated")
SCHEMES = (*DIFFERENCES, "complex", "product")

# Steps within this factor are of one size.
_ONE_SIZE = 100.0

# The step of a check, of the best one: shorter, so that it stays where the function is known to be.
_CHECK = 0.4

# A complex step has no difference to lose digits in.
_IMAGINARY = 1e-30

# No step is longer than this part of the length over which the Hessian changes, nor shorter than so many spacings
# of floating-point numbers, and none goes farther towards a bound than this part of the way.
_LONGEST = 0.1
_SPACINGS = 8.0
_TOWARDS_BOUND = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Steps(ShortRepr):
    """Where the variables of a colour stand, one node of the scheme after another.

    Attributes
    ----------
    scheme
        One of `SCHEMES`.
    nodes
        Pairs (values, weight): (n_local,) values, or None for x itself. Weights are those of the gradients.
    taken
        (n_local,) by what the weighted sum of gradients is divided: H times this step.
    wanted
        (n_local,) step of each variable in a central difference along a direction.
    one_sided
        (n_local,) bool: variables that step to one side of x alone.
    """

    scheme: str
    nodes: Nodes
    taken: np.ndarray
    wanted: np.ndarray
    one_sided: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Compressed(ShortRepr):
    """The compressed Hessian times steps.

    Attributes
    ----------
    changes
        (colors, n_local) gradient change when the variables of a colour take their steps together.
    taken
        (n_local,) step of each variable, from one evaluation to the other.
    """

    changes: np.ndarray
    taken: np.ndarray


def scheme_of(derivative: str, objective: Objective) -> str:
    """Return the scheme for `auto`, `forward`, `central`, `extrapolated`, `complex` or `ad`.

    Not collective. `auto` takes products where the objective has them, else central differences. Where there is
    no gradient but an energy, the gradient is that of its differences.

    Raises
    ------
    InputError
        Unknown choice, or the objective lacks the function it needs.
    """
    products = objective.hvp is not None or objective.hvps is not None
    slopes = objective.gradient is not None or objective.energy is not None
    if derivative == "auto":
        derivative = "ad" if products else "central"
    if derivative not in (*SCHEMES[:-1], "ad"):
        raise none_of(f"derivative {derivative!r}", derivative, ("auto", *SCHEMES[:-1], "ad"))
    if derivative == "ad" and not products:
        raise InputError(
            f"derivative 'ad' needs a Hessian-vector product: {objective.name} has none; give it hvp, or "
            "take central"
        )
    if (derivative != "ad" and not slopes) or (derivative == "complex" and objective.gradient is None):
        raise InputError(f"derivative {derivative!r} needs a gradient: {objective.name} has none")
    return "product" if derivative == "ad" else derivative


def plan_steps(scales: Scales, noise: Noise | None, scheme: str) -> Steps:
    """Return the steps of a scheme from a point.

    Not collective.

    Parameters
    ----------
    scales
        Typical lengths and bounds around the point.
    noise
        Of the gradient; None for products and complex steps, which need none.
    scheme
        One of `SCHEMES`.

    Notes
    -----
    In typical lengths: with relative noise e, and a Hessian that changes by its own size over b and has
    higher derivatives of the length l = min(b, 1), a step h errs by e / h, and by h / 2 b, h² / 6 b l or
    h⁴ / 4 b l³ for forward, central and extrapolated differences; the balance is 2 (e b)^(1/2),
    (3 e b l)^(1/3) and (e b l³)^(1/5) (after Nocedal and Wright 2006, section 8.1).
    A variable without room on both sides steps to one side: in a central scheme by a forward difference,
    in an extrapolated one by (8 g(h) - 8 g(0) - g(3 h) + g(h)) / 6, of second order with the same weights.
    """
    x, length = scales.x, scales.length
    nowhere = np.zeros(len(x), bool)
    if scheme == "product":
        return Steps(scheme, (), np.ones(len(x)), length, nowhere)
    if scheme == "complex":
        step = np.full(len(x), _IMAGINARY)
        return Steps(scheme, ((x + 1j * step, 1.0),), step, 1e-5 * length, nowhere)
    if noise is None:
        raise ValueError(f"steps of scheme {scheme} follow from the noise of the gradient")
    return _steps(scales, scheme, *_all_balanced(scales, noise, scheme), np.ones(len(x)))


def plan_check(scales: Scales, noise: Noise | None, scheme: str, shape: np.ndarray) -> Steps:
    """Return steps of all variables together, to compare the columns of a scheme with: none of its own.

    Not collective. `shape` (n_local,) are signs and sizes of the order of 1. A product is taken along lengths.
    """
    length = scales.length
    if scheme == "product":
        return Steps(scheme, (), length * shape, length, np.zeros(len(length), bool))
    if noise is None:  # as of complex steps: twice as many digits as differences have
        central = 1e-5 * length
        return _steps(scales, "central", central, central, central, _CHECK * shape)
    kind = "extrapolated" if scheme == "extrapolated" else "central"
    return _steps(scales, kind, *_all_balanced(scales, noise, kind), _CHECK * shape)


def _all_balanced(scales: Scales, noise: Noise, scheme: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the balanced steps of orders 1, 2 and 4, the last ones only for the scheme that takes them."""
    central = _balanced(scales, noise, 2)
    higher = _balanced(scales, noise, 4) if scheme == "extrapolated" else central
    return _balanced(scales, noise, 1), central, higher


def _balanced(scales: Scales, noise: Noise, order: int) -> np.ndarray:
    """Return (n_local,) the steps that balance noise and what differences of an order leave out."""
    bend = np.minimum(noise.bend, 1.0) if scales.given else noise.bend
    shorter, error = np.minimum(bend, 1.0), noise.relative
    if order == 1:
        best = 2 * np.sqrt(error * bend)
    elif order == 2:
        best = np.cbrt(3 * error * bend * shorter)
    else:
        best = (error * bend * shorter**3) ** 0.2
    step = scales.length * np.minimum(best, _LONGEST * shorter)
    return np.maximum(step, _SPACINGS * np.spacing(np.abs(scales.x)))


def _steps(
    scales: Scales, scheme: str, forward: np.ndarray, central: np.ndarray, higher: np.ndarray, shape: np.ndarray
) -> Steps:
    """Return the steps of a scheme from those of each order, times a shape; only their size if to one side."""
    x = scales.x
    wanted = {"forward": forward, "central": central, "extrapolated": higher}[scheme]
    up, down = _TOWARDS_BOUND * (scales.upper - x), _TOWARDS_BOUND * (x - scales.lower)
    span = 2 if scheme == "extrapolated" else 1
    both = (scheme != "forward") & (np.minimum(up, down) >= span * wanted)
    side = np.where(up >= down, 1.0, -1.0)
    one_sided_span = 3 if scheme == "extrapolated" else 1
    alone = central if scheme == "extrapolated" else forward
    alone = side * np.minimum(alone, np.maximum(up, down) / one_sided_span)
    step = np.where(both, shape * wanted, np.abs(shape) * alone)
    if scheme == "forward":
        plus = x + step
        return Steps(scheme, ((plus, 1.0), (None, -1.0)), plus - x, central, ~both)
    plus, minus = x + step, np.where(both, x - step, x)
    taken = plus - minus
    if scheme == "central":
        return Steps(scheme, ((plus, 1.0), (minus, -1.0)), taken, central, ~both)
    far, near = np.where(both, x + 2 * step, x + 3 * step), np.where(both, x - 2 * step, plus)
    nodes = ((plus, 4 / 3), (minus, -4 / 3), (far, -1 / 6), (near, 1 / 6))
    return Steps(scheme, nodes, taken, central, ~both)


def truncation(steps: Steps, length: np.ndarray, noise: Noise) -> np.ndarray:
    """Return (n_local,) what steps leave out of a column, relative to its size.

    Not collective.
    """
    bend, near = noise.bend, np.minimum(noise.bend, 1.0)
    step = np.abs(steps.taken) / length
    forward, central = step / (2 * bend), (step / 2) ** 2 / (6 * bend * near)
    if steps.scheme == "extrapolated":
        return np.where(steps.one_sided, step**2 / (2 * bend * near), (step / 2) ** 4 / (4 * bend * near**3))
    return np.where(steps.one_sided, forward, central)


def compress(
    evaluations: Evaluations, coloring: Coloring, steps: Steps, first: int = 0, last: int | None = None
) -> Compressed:
    """Evaluate the gradient changes (or products) of the colours first to last - 1; default all.

    Collective. Costs the gradients of the scheme for each colour (and one at x for `forward`), or a product.
    """
    last = coloring.count if last is None else last
    colors, count = coloring.colors, coloring.count
    if (first, last) != (0, count):
        colors = np.where((colors >= first) & (colors < last), colors - first, -1)
    tell = evaluations.on_color
    evaluations.on_color = lambda done, total: tell(first + done, count)
    try:
        if steps.scheme == "product":
            changes = evaluations.products(colors, last - first, steps.taken)
        else:
            cite("differences")
            changes = evaluations.changes(colors, last - first, steps.nodes)
    finally:
        evaluations.on_color = tell
    return Compressed(changes, steps.taken)


def directional(evaluations: Evaluations, direction: np.ndarray, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (H d, d), each (n_local,), from a central difference along d, or from a product.

    Collective. Costs two gradients or one product. `direction` (n_local,) is itself the step to either side;
    it is cut half of the way to a bound, and the d returned is what was taken.
    """
    together = np.zeros(len(direction), np.int64)
    if scheme == "product":
        return evaluations.products(together, 1, direction)[0], direction
    x, (lower, upper) = evaluations.x, evaluations.objective.limits
    down, up = _TOWARDS_BOUND * (lower - x), _TOWARDS_BOUND * (upper - x)
    plus, minus = x + np.clip(direction, down, up), x + np.clip(-direction, down, up)
    change = evaluations.changes(together, 1, ((plus, 1.0), (minus, -1.0)))
    return 0.5 * change[0], 0.5 * (plus - minus)


def along(evaluations: Evaluations, steps: Steps, groups: np.ndarray, count: int) -> np.ndarray:
    """Return (count, n_local) H d for the d that the variables of each group take together.

    Collective. Costs the gradients of the scheme for each group, or a product.

    Parameters
    ----------
    groups
        (n_local,) from 0 to count - 1.
    """
    if steps.scheme == "product":
        return evaluations.products(groups, count, steps.taken)
    return evaluations.changes(groups, count, steps.nodes)


def group_by_size(steps: np.ndarray, comm: MPI.Comm) -> tuple[np.ndarray, int]:
    """Return (groups, count): variables whose steps are of about one size, from the longest to the shortest.

    Collective. A step beside one that is much longer is not felt in what they change together.
    """
    size = np.abs(steps)
    top = comm.allreduce(float(size.max(initial=0.0)), op=MPI.MAX)
    with np.errstate(divide="ignore"):
        number = np.floor(np.log(np.maximum(top, np.finfo(float).tiny) / size) / np.log(_ONE_SIZE))
    number = np.where(size > 0, number, 0.0).astype(np.int64)
    used = np.array(sorted(set().union(*comm.allgather(np.unique(number).tolist()))))
    return np.searchsorted(used, number), max(len(used), 1)


def column(evaluations: Evaluations, variable: int, steps: Steps) -> np.ndarray:
    """Return column `variable` of the Hessian (n_local,), by stepping that variable alone.

    Collective. Costs the gradients of the scheme, or one product.
    """
    layout = evaluations.layout
    colors = np.full(layout.n_local, -1, np.int64)
    if layout.start <= variable < layout.stop:
        colors[variable - layout.start] = 0
    if steps.scheme == "product":
        change = evaluations.products(colors, 1, steps.taken)
    else:
        change = evaluations.changes(colors, 1, steps.nodes)
    own = steps.taken[colors == 0]
    step = layout.comm.allreduce(float(own[0]) if len(own) else -np.inf, op=MPI.MAX)
    return change[0] / step
