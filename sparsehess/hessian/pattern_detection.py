"""From an objective to a pattern: probing its gradient or its products, at one point or at several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparsehess.coloring import color
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.gradient_noise import ROUNDING, estimate_noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import InputError
from sparsehess.hessian.evaluation_journal import NO_JOURNAL, NoJournal
from sparsehess.hessian.recovery import Direct
from sparsehess.pattern import Pattern
from sparsehess.pattern.group_testing import find_candidates, settle_candidates
from sparsehess.runtime import PETSc, log
from sparsehess.runtime.citations import cite
from sparsehess.runtime.random_numbers import draw_signed

# Steps in typical lengths: long, since what is not coupled does not respond at any length.
_STEP = 1e-2

# Distance of further points, in typical lengths.
_AROUND = 0.1

# A noisy component responds when it changes by so many standard deviations.
_SIGMAS = 8.0

_SOURCE = "probing at one point"

# Tests whose answers are held at a time.
_TOGETHER = 64


def detect_pattern(
    objective: Objective,
    *,
    x: np.ndarray | PETSc.Vec | None = None,
    points: int = 1,
    seed: int = 0,
    counts: dict[str, int] | None = None,
    journal: NoJournal = NO_JOURNAL,
) -> Pattern:
    """Return the pattern of an objective's Hessian, by tracing where the objective can, else by probing.

    Collective. For rows of at most d entries some 2 d log₂ n gradients (or products) and the colours of a
    star colouring. Every entry whose change shows in floating point is found: a test in which a
    component does not respond proves that none of the variables moved is coupled with it, so that only changes
    that cancel to the last bit are lost. Where the gradient is noisy, entries below the noise are lost as well.

    Parameters
    ----------
    objective
        Its pattern is not looked at.
    x
        Where to probe, of the kind of the objective's x; default that x. A traced pattern holds everywhere.
    points
        An entry may happen to be zero at x (a contact that is open, a coupling through a product with
        zero). The pattern is that of x and of `points` - 1 random points around it, which differ by a tenth of
        the typical length; differences between the points are logged and told in `source`.
    seed
        Of steps, drawings and points.
    counts
        If given, gets the calls added: `gradient`, `hvp` and `energy`.
    journal
        Where what is evaluated is saved, and looked up.

    Returns
    -------
    Pattern
        With `source` saying how it was found; free it where it is large and no longer needed.

    Raises
    ------
    InputError
        Fewer points than one, or several for an objective in groups.
    EvaluationError
        The user's function raised or returned something unusable.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> def gradient(x):  # of Σ x_i⁴ / 4 + Σ x_i x_{i+1}
    ...     g = x**3
    ...     g[1:] += x[:-1]
    ...     g[:-1] += x[1:]
    ...     return g
    >>> sh.detect_pattern(sh.Objective(x=np.ones(6), gradient=gradient)).nnz
    16
    """
    if points < 1:
        raise InputError(f"points={points}: at least 1")
    if points > 1 and objective.group is not None:
        raise InputError("points: an objective in groups is probed at one point at a time, x")
    layout, comm = objective.layout, objective.comm
    traced = objective.traced_pattern()
    if traced is not None:
        return traced
    here = Evaluations(objective, objective.x if x is None else x)
    scales = Scales.of(here)
    patterns = []
    for number in range(points):
        evaluations = here
        if number:
            away = here.x + _AROUND * scales.length * draw_signed(layout, seed + number)
            away = np.clip(away, scales.lower, scales.upper)
            evaluations = Evaluations(objective, _like(objective, away))
        evaluations.recorder = journal
        at_point = replace(scales, x=evaluations.x)
        patterns.append(_detect_at(evaluations, at_point, seed + number, journal))
        if counts is not None:
            for name, calls in evaluations.counts.items():
                counts[name] = counts.get(name, 0) + calls
    if points == 1:
        return patterns[0]
    rows = [np.repeat(np.arange(layout.start, layout.stop), np.diff(one.indptr)) for one in patterns]
    columns = [one.indices for one in patterns]
    union = Pattern.from_pairs(np.concatenate(rows), np.concatenate(columns), layout.n, layout=layout)
    changing = union.nnz - min(one.nnz for one in patterns)
    said = f"probing at {points} points, {changing} entries not at all of them"
    if changing and comm.rank == 0:
        log.warning("the pattern differs between points by %d of %d entries: more points may show more", changing,
                    union.nnz)  # fmt: skip
    for one in patterns:
        one.free()
    return Pattern(union.layout, union.indptr, union.indices, said)


def _detect_at(evaluations: Evaluations, scales: Scales, seed: int, journal: NoJournal) -> Pattern:
    """Return the pattern that probing finds at one point. Collective."""
    objective, layout = evaluations.objective, evaluations.layout
    lower, upper = scales.lower, scales.upper
    products = objective.hvp is not None or objective.hvps is not None

    steps = scales.length * draw_signed(layout, seed)
    threshold = np.zeros(layout.n_local)
    if not products:
        noise = journal.measure(evaluations, lambda: estimate_noise(evaluations, scales))
        steps = noise.length * draw_signed(layout, seed) * _STEP * np.minimum(noise.bend, 1.0)
        # One that returns the same bits for the same x, and has no more noise than rounding makes, does not change
        # at all where it is not coupled.
        again = evaluations.gradients([evaluations.x] * 2)
        changed = layout.comm.allreduce(int((again[0] != again[1]).sum()))
        mean = layout.comm.allreduce(float(noise.relative.sum())) / max(layout.n, 1)
        if changed or mean > ROUNDING:
            threshold = _SIGMAS * noise.level
        room = np.where(steps > 0, upper - evaluations.x, evaluations.x - lower)
        steps = np.where(np.abs(steps) <= room, steps, -steps)
        moved = np.clip(evaluations.x + steps, lower, upper)

    def respond(colors: np.ndarray, count: int) -> np.ndarray:
        out = np.empty((count, layout.n_local), bool)
        for first in range(0, count, _TOGETHER):
            last = min(first + _TOGETHER, count)
            some = np.where((colors >= first) & (colors < last), colors - first, -1)
            if products:
                changes = evaluations.products(some, last - first, steps)
            else:
                changes = evaluations.changes(some, last - first, ((moved, 1.0), (None, -1.0)))
            out[first:last] = np.abs(changes) > threshold
        return out

    cite("group testing")
    wide, exact = find_candidates(respond, layout, seed)
    if exact:
        return replace(wide, source=_SOURCE)
    direct = color(wide, kind="star", order="smallest-last")
    readable = (Direct.make(wide, direct).source & 1).astype(bool)
    found = settle_candidates(respond, wide, direct.with_ghosts, direct.count, readable, _SOURCE)
    wide.free()
    return found


def _like(objective: Objective, rows: np.ndarray) -> np.ndarray | PETSc.Vec:
    """Return rows of the layout as the kind of vector that the objective's functions take. Collective."""
    if objective.distributed:
        point: PETSc.Vec = objective.x
        vector = point.duplicate()
        vector.setArray(rows)
        return vector
    return np.concatenate(objective.comm.allgather(rows))
