"""Assembly: from an objective to a distributed Hessian that was checked.

The composer of the road: pattern, colouring, differences and recovery meet only here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess import differences, recovery_kernels
from sparsehess.coloring import BUDGET, Coloring, color
from sparsehess.errors import CheckError, InputError
from sparsehess.objective import Evaluations, Objective
from sparsehess.pattern import Pattern
from sparsehess.pattern.kernels import contained
from sparsehess.recovery import Direct, Plan, Recovered, plan
from sparsehess.reproducible import signed
from sparsehess.runtime import PETSc, agreement, destroy

# A Hessian passes if it agrees with a fresh product, row by row, and with its own transpose this well.
# Rounding and truncation leave 1e-9 to 1e-6; a missing entry or a kink leaves 1e-3 and more.
TOLERANCE = 1e-4

# Rows below this part of the largest (in units of energy) are judged against the largest.
_FLOOR = 1e-4

# Variables stepped alone to find out why a check failed.
_PROBES = 5


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
        Whether both are within `TOLERANCE`.
    """

    hvp_error: float
    asymmetry: float
    passed: bool


class Hessian:
    """A distributed Hessian that owns its matrix and can follow x.

    Made by `assemble`. A context manager; `close()` destroys what it owns, collectively.

    Attributes
    ----------
    mat
        The PETSc AIJ matrix, symmetric, owned by this object.
    objective, pattern, coloring
        What it was made from; kept for updates.
    verification
        Of the last assembly, or None if it was not asked for.
    evaluations
        Calls of the user's functions so far, over all ranks: `gradient`, `hvp`, `energy` for the
        derivatives, and `verification` for those of the checks.
    amplification
        How many times the error of a compressed entry a recovered one may have: 1 for direct recovery.
    timings
        Seconds of the stages: `pattern`, `coloring`, `derivatives`, `assembly`, `verification`.
    """

    def __init__(
        self,
        objective: Objective,
        plan: Plan,
        scheme: str,
        timings: dict[str, float],
        *,
        seed: int = 0,
        columns: int | None = None,
    ):
        self.objective = objective
        self.pattern: Pattern = plan.pattern
        self.coloring: Coloring = plan.coloring
        self.scheme = scheme
        self.seed = seed  # of the directions of the checks
        self.evaluations = {"gradient": 0, "hvp": 0, "energy": 0, "verification": 0}
        self.verification: Verification | None = None
        self.timings = timings
        self.amplification = plan.amplification
        self.mat = None
        self._plan = plan
        self._columns = columns
        self._values = np.empty(self.pattern.nnz_local)

    def update(self, x=None, *, verify: bool = True, progress: Callable[[int, int], None] | None = None) -> None:
        """Take the Hessian at x; pattern, colouring, plan and matrix are reused.

        Collective. Costs the evaluations of the scheme, and two gradients (or a product) to verify.

        Parameters
        ----------
        x
            Of the kind of the objective's x; default that x.
        verify
            Whether to compare with a fresh random product and to check the symmetry.
        progress
            Called as progress(colours done, colours) on every rank.

        Raises
        ------
        CheckError
            Derivatives are not finite, not symmetric, or the pattern misses an entry.
        EvaluationError
            The user's function raised.
        """
        began = time.perf_counter()
        evaluations = self.objective.at(self.objective.x if x is None else x)
        if progress is not None:
            evaluations.on_color = progress
        typical = self.objective.typical_x
        with agreement(self.pattern.comm):
            typical = None if typical is None else self.objective.local(typical)
        wanted = differences.steps(evaluations.x, typical, self.scheme, self.pattern.layout)
        if self._columns is None:
            compressed = differences.compress(evaluations, self.coloring, wanted, self.scheme)
            spent = time.perf_counter()
            recovered = self._plan.recover(compressed.changes, compressed.taken, self._values)
            del compressed
        else:
            self._values[:] = 0.0
            for first in range(0, self.coloring.count, self._columns):
                last = min(first + self._columns, self.coloring.count)
                part = differences.some_colors(evaluations, self.coloring, wanted, self.scheme, first, last)
                self._plan.collect(first, part.changes, part.taken, self._values)
            spent = time.perf_counter()
            recovered = self._plan.finish(self._values)
        for name, calls in evaluations.counts.items():
            self.evaluations[name] += calls
        self.timings["derivatives"] = spent - began
        self._fill()
        assembled = time.perf_counter()
        self.timings["assembly"] = assembled - spent
        if verify:
            before = sum(evaluations.counts.values())
            evaluations.on_color = lambda done, total: None
            self._verify(evaluations, wanted, recovered)
            self.evaluations["verification"] += sum(evaluations.counts.values()) - before
            self.timings["verification"] = time.perf_counter() - assembled

    def _fill(self) -> None:
        """Put the values into the matrix, which is made the first time."""
        pattern = self.pattern
        index = PETSc.IntType
        csr = (
            pattern.indptr.astype(index, copy=False),
            pattern.indices.astype(index, copy=False),
            self._values,
        )
        if self.mat is None:
            # Our rows are the matrix's arrays where PETSc can use them as they are (one rank).
            size = ((pattern.layout.n_local, pattern.n),) * 2
            self.mat = PETSc.Mat().createAIJWithArrays(size, csr, comm=pattern.comm)
            self.mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
            self.mat.setOption(PETSc.Mat.Option.SYMMETRY_ETERNAL, True)
            self.mat.setOption(PETSc.Mat.Option.NEW_NONZERO_LOCATION_ERR, True)
            return
        self.mat.setValuesCSR(*csr)
        self.mat.assemble()

    def _verify(self, evaluations: Evaluations, wanted: np.ndarray, recovered: Recovered) -> None:
        comm, layout = self.pattern.comm, self.pattern.layout
        asymmetry = recovered.asymmetry / recovered.largest if recovered.largest > 0 else 0.0
        direction = wanted * signed(layout, self.seed)
        product = differences.directional(evaluations, direction, self.scheme)
        ours, size = self._products(direction)
        error = np.abs(ours - product)
        # Steps turn rows of different units into energies, which can be compared.
        energy = size * wanted
        top = comm.allreduce(float(energy.max(initial=0.0)), op=MPI.MAX)
        scale = np.maximum(size, _FLOOR * top / wanted)
        relative = np.divide(error, scale, out=np.where(error > 0, np.inf, 0.0), where=scale > 0)
        worst, rank = comm.allreduce((float(relative.max(initial=0.0)), comm.rank), op=MPI.MAXLOC)
        self.verification = Verification(worst, asymmetry, worst <= TOLERANCE and asymmetry <= TOLERANCE)
        if asymmetry > TOLERANCE:
            i, j = recovered.where
            missing = self._missing_near(evaluations, wanted, [i, j])
            raise CheckError(
                f"the derivatives of {self.objective.name} are not symmetric: entries ({i}, {j}) and ({j}, {i}) "
                f"differ by {asymmetry:.1e} of the largest entry: "
                + (missing or "the function is no gradient, or it has noise (set typical_x to take longer steps)")
            )
        if worst > TOLERANCE:
            variable = comm.bcast(layout.start + int(relative.argmax()) if comm.rank == rank else None, root=rank)
            missing = self._missing_near(evaluations, wanted, [variable])
            raise CheckError(
                f"the Hessian of {self.objective.name} does not agree with the gradient at variable {variable} "
                f"(a random product is off by {worst:.1e}): "
                + (
                    missing
                    or "the pattern misses nothing there, so either the gradient has a kink (a cut-off without "
                    "smoothing) or noise (set typical_x), or it is not the gradient of a function"
                )
            )

    def _products(self, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H d and |H| |d| (n_local,)."""
        pattern = self.pattern
        x, y = self.mat.createVecs()
        x.setArray(direction)
        self.mat.mult(x, y)
        ours = y.getArray().copy()
        destroy(x, y)
        size = np.empty(pattern.layout.n_local)
        recovery_kernels.absolute_product(
            pattern.indptr, pattern.columns, self._values, pattern.exchange.halo(direction), size
        )
        return ours, size

    def _missing_near(self, evaluations: Evaluations, wanted: np.ndarray, suspects: list[int]) -> str:
        """Step suspects alone and return what the pattern misses of their columns; empty if nothing.

        A missing entry spoils what is recovered in its row, so the trail leads from a wrong product to
        the entry that was read wrongly, and from its row to the entry that is missing.
        """
        pattern, comm = self.pattern, self.pattern.comm
        rows = np.arange(pattern.layout.n_local, dtype=np.int64)
        for probe in range(_PROBES):
            if probe == len(suspects):
                break
            variable = suspects[probe]
            exact = differences.column(evaluations, variable, wanted, self.scheme)
            outside = contained(pattern.indptr, pattern.indices, rows, np.full(len(rows), variable)) == 0
            top = comm.allreduce(float(np.abs(exact).max(initial=0.0)), op=MPI.MAX)
            missing = np.flatnonzero(outside & (np.abs(exact) > 1e-6 * top))
            missing = missing[np.argsort(-np.abs(exact[missing]), kind="stable")][:4]
            found = [(pattern.layout.start + int(row), float(exact[row])) for row in missing]
            found = [item for part in comm.allgather(found) for item in part]
            if found:
                found = sorted(found, key=lambda item: -abs(item[1]))[:4]
                listed = ", ".join(f"{row} (H = {value:.3g})" for row, value in found)
                return f"the pattern is too small, variable {variable} is coupled with {listed}"
            alone = np.zeros(len(rows))
            if pattern.layout.start <= variable < pattern.layout.stop:
                alone[variable - pattern.layout.start] = 1.0
            error = np.abs(exact - self._products(alone)[0])
            size, rank = comm.allreduce((float(error.max(initial=0.0)), comm.rank), op=MPI.MAXLOC)
            row = comm.bcast(pattern.layout.start + int(error.argmax()) if comm.rank == rank else None, root=rank)
            if size > 1e-6 * top and row not in suspects:
                suspects.append(row)
        return ""

    def close(self) -> None:
        """Destroy the matrix and the plan.

        Collective. Using the object afterwards is an error.
        """
        destroy(self.mat)
        self.mat = None

    def __enter__(self) -> Hessian:
        return self

    def __exit__(self, *reason) -> None:
        self.close()


def assemble(
    objective: Objective,
    *,
    pattern: Pattern | None = None,
    derivative: str = "auto",
    coloring: str | Coloring = "star",
    order: str = "best",
    budget: float = BUDGET,
    columns: int | None = None,
    verify: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Hessian:
    """Assemble the Hessian of an objective at its x.

    Collective on the objective's communicator.

    Parameters
    ----------
    objective
        What is differentiated.
    pattern
        Default the objective's own.
    derivative
        `central` (2 gradients a colour), `forward` (1, and the base), `ad` (1 product),
        `auto` (products where there are any, else central).
    coloring
        A kind (`star`, `acyclic`, `cpr`, `distance2`, `powell-toint`), or a colouring made before for
        this pattern.
    order, budget
        Of a colouring that is made here, see `color`.
    columns
        How many compressed columns are held in memory at a time, for direct recovery; 1 takes the least
        memory. Default all.
    verify
        Compare with a fresh random product, and check the symmetry: 2 gradients more (or 1 product).
    seed
        Of that product's direction.
    progress
        Called as progress(colours done, colours) on every rank.

    Returns
    -------
    Hessian
        The caller closes it.

    Raises
    ------
    InputError
        The objective has no pattern, or layouts differ.
    CheckError
        A check failed; the message says at which variables.
    EvaluationError
        The user's function raised or returned something unusable.
    """
    pattern = pattern or objective.pattern
    if pattern is None:
        raise InputError(f"{objective.name} has no pattern: give one with pattern= or in the objective")
    if pattern.n != objective.n or not pattern.layout.same(objective.layout):
        raise InputError(
            f"the pattern ({pattern.n} variables) and {objective.name} ({objective.n}) do not have the same "
            "rows on each rank"
        )
    if pattern.n == 0:
        raise InputError(f"{objective.name} has no variables")
    scheme = differences.scheme_of(derivative, objective)
    timings = {}
    began = time.perf_counter()
    pattern.exchange  # noqa: B018 - planned here, so that its time is the pattern's
    timings["pattern"] = time.perf_counter() - began
    if isinstance(coloring, str):
        coloring = color(pattern, kind=coloring, order=order, budget=budget)
    began = time.perf_counter()
    recovery = plan(pattern, coloring)
    timings["coloring"] = coloring.seconds + time.perf_counter() - began
    if columns is not None and (columns < 1 or not isinstance(recovery, Direct)):
        raise InputError(
            f"columns={columns}: at least 1, and only direct recovery (star, cpr, distance2) takes a few columns "
            f"at a time; {coloring.kind} needs them all together"
        )
    hessian = Hessian(objective, recovery, scheme, timings, seed=seed, columns=columns)
    try:
        hessian.update(verify=verify, progress=progress)
    except Exception:
        hessian.close()  # every rank is here: update raises on all or on none
        raise
    return hessian
