"""Why a check of a Hessian has failed: what its pattern misses, or what its gradient does."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import column, directional
from sparsehess.derivatives.gradient_noise import ROUNDING
from sparsehess.hessian.assembled import SIGMAS, TOLERANCE, Assembled
from sparsehess.pattern.pattern_kernels import contains_pairs

# A probe of a single column shows entries, and errors, above this part of the column's largest entry.
_VISIBLE = 1e-6

# An entry that comes again by these parts of the step is the same to this part, but for noise.
_AGAIN, _SAME = (0.5, 0.7), 0.01

# Steps that show whether a variable has any influence, in typical lengths.
_LONG = 0.1, 1.0

# Variables stepped alone to find out why a check failed.
PROBES = 32


def noise_sentence(hessian: Assembled) -> str:
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


def reason(hessian: Assembled, evaluations: Evaluations, rows: list[int]) -> str:
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
    noise = SIGMAS * hessian.model.of_product.max(axis=0)[own]
    size = hessian.model.absolute_product(hessian.values, direction)[own]
    size = np.maximum(np.maximum(np.abs(once), np.abs(longer)), size)
    random = ~(np.abs(once - again) <= noise)
    stuck = comm.allreduce(bool(hessian.stuck(hessian.fresh(evaluations))[own].any()), op=MPI.LOR)
    changes = np.maximum(np.abs(once - longer), np.abs(once - shorter) - 4 * noise)
    found = random.any(), (~(changes <= noise + TOLERANCE * size)).any()
    restless, stepwise = comm.allreduce(np.array(found, int)).tolist()
    level = 0.0 if hessian.noise is None else hessian.noise.level
    length = comm.allreduce(float(hessian.steps.wanted[own].max(initial=0.0)), op=MPI.MAX)
    shortest = comm.allreduce(float(hessian.steps.wanted[own].min(initial=np.inf)), op=MPI.MIN)
    said = noise_sentence(hessian)
    for variable in rows:
        alone, again = (_column_again(hessian, evaluations, variable, part) for part in (1.0, 0.25))
        off = np.abs(alone - again) - _SAME * np.abs(alone) - 4 * SIGMAS * level / shortest
        stepwise = stepwise or comm.allreduce(bool((off > 0).any()), op=MPI.LOR)
    unmoved = _unmoved(hessian, evaluations, rows)
    if unmoved is not None:
        return (
            f"steps of {length:.1e} of variable {unmoved} change nothing although longer ones do, so the gradient "
            "is rounded, or x before it is used" + (f"; {said}" if said else "")
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
    """Return which of some variables changes nothing by its step, but by a longer one; None if none.

    Collective.
    """
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


def missing_near(
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
        there = outside & (np.abs(exact) > _VISIBLE * top + SIGMAS * level / step)
        if comm.allreduce(bool(there.any()), op=MPI.LOR):
            for part in _AGAIN:
                off = np.abs(_column_again(hessian, evaluations, variable, part) - exact)
                there &= off <= _SAME * np.abs(exact) + 4 * level / step
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


def _column_again(hessian: Assembled, evaluations: Evaluations, variable: int, part: float) -> np.ndarray:
    """Return a column (n_local,) by a part of its step: an entry comes again, noise does not. Collective."""
    if hessian.steps.scheme == "product":
        return column(evaluations, variable, hessian.steps)
    layout = hessian.pattern.layout
    own = np.arange(layout.start, layout.stop) == variable
    change, taken = directional(evaluations, np.where(own, part * hessian.steps.wanted, 0.0), "central")
    return change / layout.comm.allreduce(float(np.abs(taken).max(initial=0.0)), op=MPI.MAX)


def pattern_sentence(found: list[tuple[int, int, float]]) -> str:
    """Return what is missing of the pattern, in words, "" where nothing is. Not collective."""
    if not found:
        return ""
    variable = found[0][1]
    most = sorted((item for item in found if item[1] == variable), key=lambda item: -abs(item[2]))[:4]
    listed = ", ".join(f"{row} (H = {value:.3g})" for row, _, value in most)
    return f"the pattern is too small, variable {variable} is coupled with {listed}"


def entries(found: list[tuple[int, int, float]]) -> tuple[list[int], list[int]]:
    """Return the rows and columns of what is missing. Not collective."""
    return [row for row, _, _ in found], [column for _, column, _ in found]
