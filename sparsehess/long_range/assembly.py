"""`near_far`: a Hessian in which everything couples, from a budget of gradients."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import DIFFERENCES, Steps, compress, plan_steps, scheme_of
from sparsehess.derivatives.gradient_noise import Noise, estimate_noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import InputError, none_of
from sparsehess.hessian.recovery import Direct, plan
from sparsehess.long_range.cutoff import NearField, largest_near_field
from sparsehess.long_range.kernel_fit import Readings, far_readings, fit_kernel, is_borne_out, unevenness
from sparsehess.long_range.near_far_hessian import NearFar
from sparsehess.long_range.points import Points
from sparsehess.long_range.radial_kernel import RadialKernel, Shape
from sparsehess.long_range.steps import FreshProduct, TrueProducts, with_random_signs
from sparsehess.long_range.symmetry import check_symmetry
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement, aij
from sparsehess.runtime.citations import cite
from sparsehess.runtime.validation import positive_number, whole_number

# Gaussian products that tell the error.
PROBES = 4

# Colours of an attempt after one that was not good enough, over its own.
_MORE = 1.5

# What is timed of an attempt, in turn.
_STAGES = ("coloring", "derivatives", "assembly", "verification")

_CHOICES = ("auto", "forward", "central", "ad")


def near_far(
    objective: Objective,
    *,
    points: Any = None,
    box: Any = None,
    labels: Sequence[Any] | None = None,
    charges: Any = None,
    bonds: Any = None,
    gradients: int = 200,
    most: int | None = None,
    tolerance: float = 1e-4,
    derivative: str = "auto",
    seed: int = 0,
) -> NearFar:
    """Return about the Hessian of a function of points of which every two may couple, and how far it is off.

    Collective on the objective's communicator. Points within a cut-off, the largest whose star colouring the
    gradients suffice for, are read of compressed columns as those of a sparse Hessian are [1]_. What the
    others add, whose sum every compressed entry holds, is fitted: blocks f(r) I + g(r) r̂ r̂ᵀ for every two points,
    f and g sums of radial functions, of their own for every two labels, and again times the product of charges. It
    is taken off the readings, and applied on the fly; where no kernel fits, it is left out. Products along four
    random directions, used for nothing else, then tell ‖H − Ĥ‖ [2]_: where it is above the tolerance, a larger
    cut-off is read by half as many colours again, up to n gradients altogether. What was paid for by then is used:
    the same products tell the error, and the compressed columns of all attempts are fitted.

    Parameters
    ----------
    objective
        With a gradient or products. A pattern of its own plays no part.
    points
        (N, d) positions, the variables being their coordinates, point by point. Default those of the objective's
        geometry, with the box, labels and charges that it tells. Of an objective on PETSc vectors this rank's; so
        are labels and charges.
    box
        (d,) lengths of a periodic box with right angles, or (d, d) vectors of any, as rows; 0 along axes, and for
        vectors, where the space is open. Distances are those to the nearest image.
    labels
        N names, such as chemical symbols, at most 8 different ones.
    charges
        (N,) numbers; far pairs then have a kernel that is weighted by the products of these, too.
    bonds
        (m, 2) numbers of points that are near at whatever distance, the same on every rank.
    gradients
        Budget of gradients, or products, of the first attempt, noise and error among them.
    most
        Gradients, or products, of all attempts together; default n. No fewer than `gradients`.
    tolerance
        Of the error, relative to ‖H‖ in the Frobenius norm.
    derivative
        `forward` (1 gradient a colour), `central` (2), `ad` (1 product), or `auto`: products where there are any,
        else forward.
    seed
        Of signs and directions.

    Returns
    -------
    NearFar
        An `Operator`; the caller closes it. It is `approximate` where the tolerance was not reached.

    Raises
    ------
    InputError
        Points do not fit the variables, or the gradients do not suffice for bonded pairs.
    CheckError, EvaluationError
        As of `assemble`.

    Notes
    -----
    With a standard normal z, E ‖(H − Ĥ) z‖² = ‖H − Ĥ‖² (Frobenius). Four of them tell the norm to a tenth or so
    where the error is spread over many entries, and less well where it is a single one. What an answer omits
    is told by this number alone: neither is the pattern mended, nor is a row held to a tolerance, as `assemble`
    does.

    References
    ----------
    .. [1] T. F. Coleman, J. J. Moré, Estimation of sparse Hessian matrices and graph coloring problems,
       Mathematical Programming 28 (1984), 243-270.
    .. [2] M. F. Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
       splines, Communications in Statistics - Simulation and Computation 19 (1990), 433-450.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> points = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3)
    >>> points += 0.05 * np.sin(np.arange(points.size)).reshape(points.shape)
    >>> def gradient(x):  # of the sum of 1 / r over all pairs of points
    ...     apart = x.reshape(-1, 1, 3) - x.reshape(1, -1, 3)
    ...     r = np.sqrt((apart**2).sum(axis=2) + np.eye(len(apart)))
    ...     return -(apart / r[..., None] ** 3).sum(axis=1).ravel()
    >>> objective = sh.Objective(x=points.ravel(), gradient=gradient)
    >>> with sh.near_far(objective, points=points, gradients=100) as H:
    ...     print(H.kernel is not None, H.approximate, H.error < 1e-4, sum(H.evaluations.values()) <= 100)
    True False True True
    """
    whole_number(gradients, "gradients", 1)
    tolerance = positive_number(tolerance, "tolerance")
    scheme = chosen_scheme(objective, derivative)
    where = Points.of(objective, points, box, labels, charges)
    with agreement(objective.comm):
        pairs = _pairs(bonds, where.layout.n)
    road = _Road.of(objective, where, pairs, scheme, seed)
    most = objective.n if most is None else whole_number(most, "most", 1)
    field: NearField | None = road.first_field(gradients)
    while True:
        assert field is not None
        made = road.attempt(field)
        made.approximate = not made.error <= tolerance
        if not made.approximate or (made.kernel is None and field.complete):
            return made
        field = road.larger_field(field, max(gradients, most))
        if field is None:
            return made
        made.close()


@dataclass(eq=False)
class _Road:
    """From the points to a Hessian and its error, as often as it takes."""

    objective: Objective
    points: Points
    bonds: np.ndarray
    seed: int
    evaluations: Evaluations
    scales: Scales
    noise: Noise | None
    steps: Steps
    true: TrueProducts
    noise_calls: int
    readings: list[Readings] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    checked: int = 0

    @classmethod
    def of(cls, objective: Objective, points: Points, bonds: np.ndarray, scheme: str, seed: int) -> _Road:
        """Measure the noise of the gradient where there are differences. Collective."""
        evaluations = Evaluations(_of_points(objective, points), objective.x)
        scales, noise = Scales.of(evaluations), None
        if scheme in DIFFERENCES:
            noise = estimate_noise(evaluations, scales)
            scales = replace(scales, length=noise.length)
        calls = sum(evaluations.counts.values())
        steps = plan_steps(scales, noise, scheme)
        true = TrueProducts(evaluations, steps, noise)
        return cls(objective, points, bonds, seed, evaluations, scales, noise, steps, true, calls)

    @property
    def spent(self) -> int:
        """Calls of the user's functions so far. Not collective."""
        return sum(self.evaluations.counts.values())

    @property
    def calls_a_color(self) -> int:
        """Calls of the user's functions for each colour. Not collective."""
        return 2 if self.steps.scheme == "central" else 1

    def first_field(self, budget: int) -> NearField:
        """Return what is near for so many gradients altogether. Collective."""
        beside = self.spent + PROBES * self.true.calls_each + (self.steps.scheme == "forward")
        return self._field((budget - beside) // self.calls_a_color)

    def larger_field(self, field: NearField, most: int) -> NearField | None:
        """Return the least of more colours that has more that is near; None where they are too many.

        Collective. Products and the gradient at x are there already: colours alone are to be paid for.
        """
        colors = field.coloring.count
        while True:
            colors = int(_MORE * colors) + 1
            if self.spent + colors * self.calls_a_color > most:
                return None
            larger = self._field(colors)
            if larger.pattern.nnz > field.pattern.nnz:
                return larger

    def _field(self, colors: int) -> NearField:
        began = time.perf_counter()
        field = largest_near_field(self.points, self.bonds, colors, self.seed)
        self.seconds = time.perf_counter() - began
        return field

    def attempt(self, field: NearField) -> NearFar:
        """Return a Hessian with that near field, and its error. Collective."""
        evaluations, before = self.evaluations, dict(self.evaluations.counts)
        watch = [time.perf_counter()]
        signed = with_random_signs(evaluations, self.scales, self.steps, self.seed + len(self.readings))
        changes = compress(evaluations, field.coloring, signed).changes
        self.readings.append(Readings(field.coloring, signed.taken, changes))
        watch.append(time.perf_counter())
        kernel = None if field.complete else self._kernel(field)
        recovery = plan(field.pattern, field.coloring)
        assert isinstance(recovery, Direct)  # star colourings are read so
        if kernel is not None:
            without = changes - far_readings(kernel, field.coloring, signed.taken)
            uneven = [unevenness(recovery, readings, signed.taken) for readings in (changes, without)]
            changes, kernel = (without, kernel) if is_borne_out(*uneven) else (changes, None)
        made = self._made(field, kernel, recovery, changes, signed.taken)
        read = {name: calls - before[name] for name, calls in evaluations.counts.items()}
        so_far = self.spent
        watch.append(time.perf_counter())
        try:
            fresh = self.true.fresh(PROBES, self.seed)
            check_symmetry(made.comm, self.objective.name, fresh)
            made.error, made.error_norm = _error(made, fresh)
        except BaseException:
            made.close()
            raise
        watch.append(time.perf_counter())
        made.timings = dict(zip(_STAGES, [self.seconds, *np.diff(watch).tolist()], strict=True))
        self.checked += self.spent - so_far
        made.evaluations = {"noise": self.noise_calls, **read, "verification": self.checked}
        made.evaluations["earlier"] = self.spent - sum(made.evaluations.values())
        return made

    def _kernel(self, field: NearField) -> RadialKernel | None:
        shape = Shape(max(field.radius, 1e-3 * self.points.extent()[0]), self.points.extent()[1])
        return fit_kernel(self.points, field.pattern, self.readings, shape, self.seed)

    def _made(
        self,
        field: NearField,
        kernel: RadialKernel | None,
        recovery: Direct,
        changes: np.ndarray,
        taken: np.ndarray,
    ) -> NearFar:
        """Return the Hessian whose near part is read of compressed columns. Collective."""
        pattern = field.pattern
        values = np.empty(pattern.nnz_local)
        recovery.recover(np.ascontiguousarray(changes), taken, values)
        near = aij(pattern.layout, pattern.indptr, pattern.indices, values)
        point = self.evaluations.x
        return NearFar(self.objective, point, near, kernel, field.radius, pattern, field.coloring, self.true)


def _error(made: NearFar, products: Sequence[FreshProduct]) -> tuple[float, float]:
    """Return ‖H − Ĥ‖ over ‖H‖ and itself, from products along normal directions. Collective."""
    cite("hutchinson")
    squares = np.zeros(2)
    for image, along, _ in products:
        apart = image - made.product(along)
        squares += made.comm.allreduce(np.array([apart @ apart, image @ image]))
    off, norm = np.sqrt(squares / len(products)).tolist()
    return (off / norm if norm > 0 else float(off > 0)), off


def chosen_scheme(objective: Objective, derivative: str) -> str:
    """Return the scheme of what was asked for. Not collective."""
    if derivative not in _CHOICES:
        raise none_of(f"derivative {derivative!r}", derivative, _CHOICES)
    scheme = scheme_of(derivative, objective)
    return "forward" if derivative == "auto" and scheme in DIFFERENCES else scheme


def _of_points(objective: Objective, points: Points) -> Objective:
    """Return the objective with the rows of whole points on each rank. Collective."""
    if objective.distributed:
        return objective
    none = np.zeros(0, np.int64)
    pattern = Pattern.from_pairs(none, none, points.layout.n, layout=points.layout).with_dofs(points.dims)
    return replace(objective, pattern=pattern, following=None, elements=None)


def _pairs(bonds: Any, many: int) -> np.ndarray:
    """Return bonds as (m, 2) numbers of points. Not collective."""
    pairs = np.zeros((0, 2), np.int64) if bonds is None else np.asarray(bonds)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise InputError(f"bonds must be pairs (m, 2) of numbers of points, not {pairs.shape} of {pairs.dtype}")
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < many):
        raise InputError(f"bonds name points {pairs.min()} to {pairs.max()}, and there are 0 to {many - 1}")
    return pairs.astype(np.int64)
