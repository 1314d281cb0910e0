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
from sparsehess import noise as noises
from sparsehess.coloring import BUDGET, Coloring, color
from sparsehess.detection import detect
from sparsehess.errors import InputError, MissingEntries
from sparsehess.evaluations import Evaluations
from sparsehess.objective import Objective
from sparsehess.pattern import Pattern
from sparsehess.pattern.kernels import contained
from sparsehess.recovery import Direct, Plan, Recovered, plan
from sparsehess.reproducible import signed
from sparsehess.runtime import PETSc, agreement, destroy

# A Hessian passes if it agrees with a fresh product, row by row, and with its own transpose this well.
# Rounding and truncation leave 1e-9 to 1e-6; a missing entry or a kink leaves 1e-3 and more.
TOLERANCE = 1e-4

# Of what noise alone makes of a check, so many standard deviations are no failure.
_SIGMAS = 20.0

# Rows below this part of the largest (in units of energy) are judged against the largest.
_FLOOR = 1e-4

_EPS = np.finfo(float).eps

# Variables stepped alone to find out why a check failed, and how often a pattern is repaired at most.
_PROBES = 32
_REPAIRS = 5


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
        Whether both are within `TOLERANCE`, or within what the noise of the gradient explains.
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
        The PETSc AIJ matrix, symmetric, owned by this object. A new one after a rebuild.
    objective, pattern, coloring
        What it was made from; kept for updates, until a rebuild.
    error
        Estimate of the relative error of the matrix, in the Frobenius norm: from the noise of the gradient,
        and from the difference to the fresh product where that was asked for.
    noise
        What was measured of the gradient's noise, or None for exact products.
    verification
        Of the last assembly, or None if it was not asked for.
    evaluations
        Calls of the user's functions so far, over all ranks: `gradient`, `hvp`, `energy` for the
        derivatives, `noise` for its estimate, `pattern` for probing it, and `verification` for the checks and
        what they found out.
    rebuilds
        How often pattern, colouring and matrix were made anew because the pattern had moved or was too small.
    repaired
        How many entries verification has found missing and added.
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
        budget: float = BUDGET,
        repair: bool = True,
    ):
        self.objective = objective
        self.scheme = scheme
        self.seed = seed  # of the directions of the checks
        self.evaluations = {"gradient": 0, "hvp": 0, "energy": 0, "noise": 0, "pattern": 0, "verification": 0}
        self.verification: Verification | None = None
        self.error = np.nan
        self.noise: noises.Noise | None = None
        self.rebuilds = 0
        self.repaired = 0
        self.timings = timings
        self.mat = None
        self._columns = columns
        self._budget = budget
        self._repair = repair
        follows = objective.following is not None and plan.pattern is objective.pattern
        self._followed = plan.pattern if follows else None
        self._take(plan)

    def _take(self, plan: Plan) -> None:
        """Work by this plan from now on."""
        self._plan = plan
        self.pattern: Pattern = plan.pattern
        self.coloring: Coloring = plan.coloring
        self.amplification = plan.amplification
        self._values = np.empty(self.pattern.nnz_local)
        self._doubt: _Doubt | None = None

    def update(self, x=None, *, verify: bool = True, progress: Callable[[int, int], None] | None = None) -> None:
        """Take the Hessian at x; pattern, colouring, plan, matrix and the noise measured are reused.

        Collective. Costs the evaluations of the scheme, and two gradients (or a product) to verify; the
        first time for differences also 7 gradients for their noise. Where verification finds that the
        pattern misses entries, and repair was not declined, they are added and all is made anew.

        Parameters
        ----------
        x
            Of the kind of the objective's x; default that x.
        verify
            Whether to compare with a fresh random product and to check the symmetry.
        progress
            Called as progress(colours begun, colours) on every rank.

        Raises
        ------
        CheckError
            Derivatives are not finite, not symmetric, or the pattern misses an entry and was not repaired.
        EvaluationError
            The user's function raised.
        """
        if self._followed is not None:
            self._follow(self.objective.x if x is None else x)
        for left in reversed(range(_REPAIRS)):
            try:
                self._update(x, verify, progress)
                return
            except MissingEntries as missing:
                if not (self._repair and left and len(missing.rows)):
                    raise
                if missing.spoilt > _PROBES:  # too many to step one by one
                    self._grow(*self._probed())
                else:
                    self._grow(missing.rows, missing.columns)

    def _follow(self, x) -> None:
        """Take the pattern that holds at x, if it is another than the last one."""
        began = time.perf_counter()
        pattern = self.objective.following.at(x)
        if pattern is not self._followed:
            self._followed = pattern
            self._rebuild(plan(pattern, self._colored(pattern)))
            self.timings["coloring"] += time.perf_counter() - began

    def _colored(self, pattern: Pattern) -> Coloring:
        last = self.coloring
        return color(pattern, kind=last.kind, order="best", seed=last.seed, budget=self._budget)

    def _probed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all entries that probing finds, on each rank those of its rows."""
        calls = {}
        found = detect(self.objective, seed=self.seed, counts=calls)
        self.evaluations["pattern"] += sum(calls.values())
        rows = np.repeat(np.arange(found.layout.start, found.layout.stop), np.diff(found.indptr))
        found.free()
        return rows, found.indices

    def _grow(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Add entries, of which each rank brings some, to the pattern, and colour and plan anew."""
        began = time.perf_counter()
        rows, columns = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
        old, quotient = self.pattern, self.pattern.quotient
        size = 1 if quotient is None else old.n // quotient.n
        if size > 1:  # whole blocks, so that groups stay groups
            rows, columns = rows // size, columns // size
        base = old if quotient is None else quotient
        own = np.repeat(np.arange(base.layout.start, base.layout.stop), np.diff(base.indptr))
        grown = Pattern.from_pairs(
            np.concatenate([own, rows]), np.concatenate([base.indices, columns]), base.n, layout=base.layout,
            source=f"{old.source}, repaired",
        )  # fmt: skip
        grown = grown.with_dofs(size)
        self.repaired += grown.nnz - old.nnz
        self._rebuild(plan(grown, self._colored(grown)))
        self.timings["coloring"] += time.perf_counter() - began

    def _rebuild(self, plan: Plan) -> None:
        destroy(self.mat)
        self.mat = None
        self._take(plan)
        self.rebuilds += 1

    def _update(self, x, verify: bool, progress) -> None:
        began = time.perf_counter()
        objective, layout = self.objective, self.pattern.layout
        evaluations = objective.at(objective.x if x is None else x)
        with agreement(layout.comm):
            typical = None if objective.typical_x is None else objective.local(objective.typical_x)
            limits = objective.limits
            _check_room(evaluations.x, *limits, layout)
        length = differences.lengths(evaluations.x, typical, layout)
        if self.noise is None and self.scheme in ("forward", "central", "extrapolated"):
            room = np.minimum(limits[1] - evaluations.x, evaluations.x - limits[0])
            self.noise = noises.estimate(evaluations, length, room)
            self.evaluations["noise"] += sum(evaluations.counts.values())
            evaluations.counts.update(gradient=0, energy=0)
        steps = differences.steps(evaluations.x, length, self.noise, self.scheme, limits, typical is not None)
        if progress is not None:
            evaluations.on_color = progress
        if self._columns is None:
            compressed = differences.compress(evaluations, self.coloring, steps)
            spent = time.perf_counter()
            recovered = self._plan.recover(compressed.changes, compressed.taken, self._values)
            del compressed
        else:
            self._values[:] = 0.0
            for first in range(0, self.coloring.count, self._columns):
                last = min(first + self._columns, self.coloring.count)
                part = differences.compress(evaluations, self.coloring, steps, first, last)
                self._plan.collect(first, part.changes, part.taken, self._values)
            spent = time.perf_counter()
            recovered = self._plan.finish(self._values)
        for name, calls in evaluations.counts.items():
            self.evaluations[name] += calls
        self.timings["derivatives"] = spent - began
        self._fill()
        assembled = time.perf_counter()
        self.timings["assembly"] = assembled - spent
        aim = steps.wanted * signed(layout, self.seed)  # of the check
        if self._doubt is None:
            self._doubt = _Doubt.of(self._plan, steps, self.noise, length, aim)
        doubt = self._doubt
        norm = np.sqrt(layout.comm.allreduce(float(np.dot(self._values, self._values))))
        self.error = max(float(np.hypot(doubt.noise / norm, doubt.truncation)), _EPS) if norm > 0 else 0.0
        if verify:
            before = sum(evaluations.counts.values())
            evaluations.on_color = lambda done, total: None
            try:
                self._verify(evaluations, steps, aim, recovered, norm)
            finally:
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
        if pattern.comm.size == 1:
            self.mat.stateIncrease()  # its values are ours, and have changed
            return
        self.mat.setValuesCSR(*csr)
        self.mat.assemble()

    def _verify(
        self,
        evaluations: Evaluations,
        steps: differences.Steps,
        aim: np.ndarray,
        recovered: Recovered,
        norm: float,
    ) -> None:
        doubt = self._doubt
        comm, layout = self.pattern.comm, self.pattern.layout
        asymmetry = recovered.asymmetry / recovered.largest if recovered.largest > 0 else 0.0
        allowed = TOLERANCE + _SIGMAS * doubt.truncation
        allowed += _SIGMAS * doubt.largest / recovered.largest if recovered.largest > 0 else 0.0
        product, direction = differences.directional(evaluations, aim, self.scheme)
        ours, size = self._products(direction)
        error = np.abs(ours - product)
        expected = doubt.expected(size)
        if norm > 0:
            # A product's own error hides that of a scheme of higher order, which is then no larger.
            shown = np.maximum(error - 3 * expected, 0.0) if self.scheme == "extrapolated" else error
            seen, most = doubt.frobenius(shown, comm) / norm, doubt.frobenius(error, comm) / norm
            self.error = float(max(seen, min(self.error, most), self.error / 10, _EPS))
        # Steps turn rows of different units into energies, which can be compared.
        energy = size * steps.wanted
        top = comm.allreduce(float(energy.max(initial=0.0)), op=MPI.MAX)
        scale = np.maximum(size, _FLOOR * top / steps.wanted)
        raw = np.divide(error, scale, out=np.where(error > 0, np.inf, 0.0), where=scale > 0)
        relative = np.where(error > _SIGMAS * expected, raw, 0.0)
        worst = comm.allreduce(float(relative.max(initial=0.0)), op=MPI.MAX)
        largest = comm.allreduce(float(raw.max(initial=0.0)), op=MPI.MAX)
        passed = bool(worst <= TOLERANCE and asymmetry <= allowed)
        self.verification = Verification(largest, float(asymmetry), passed)
        spoilt = int(comm.allreduce(int((relative > TOLERANCE).sum())))
        if asymmetry > allowed:
            i, j = recovered.where
            found = self._missing_near(evaluations, steps, [i, j])
            raise MissingEntries(
                f"the derivatives of {self.objective.name} are not symmetric: entries ({i}, {j}) and ({j}, {i}) "
                f"differ by {asymmetry:.1e} of the largest entry: "
                + (_told(found) or "the function is no gradient, or it has a kink near x"),
                *_entries(found),
                spoilt,
            )
        if worst > TOLERANCE:
            # The worst rows of all ranks: what is missing spoils the rows it stands in.
            bad = np.flatnonzero(relative > TOLERANCE)
            bad = bad[np.argsort(-relative[bad], kind="stable")][:_PROBES]
            listed = [(-float(relative[row]), layout.start + int(row)) for row in bad]
            listed = sorted(item for part in comm.allgather(listed) for item in part)[:_PROBES]
            found = self._missing_near(evaluations, steps, [row for _, row in listed])
            raise MissingEntries(
                f"the Hessian of {self.objective.name} does not agree with the gradient at variable "
                f"{listed[0][1]} (a random product is off by {worst:.1e}): "
                + (
                    _told(found)
                    or "the pattern misses nothing there, so either the gradient has a kink (a cut-off without "
                    "smoothing), or it is not the gradient of a function"
                ),
                *_entries(found),
                spoilt,
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

    def _missing_near(
        self, evaluations: Evaluations, steps: differences.Steps, suspects: list[int]
    ) -> list[tuple[int, int, float]]:
        """Step suspects alone and return what the pattern misses of their columns: (row, column, value).

        A missing entry spoils what is recovered in its row, so the trail leads from a wrong product to
        the entry that was read wrongly, and from its row to the entry that is missing.
        """
        pattern, comm = self.pattern, self.pattern.comm
        rows = np.arange(pattern.layout.n_local, dtype=np.int64)
        level = 0.0 if self.noise is None else _SIGMAS * self.noise.level
        missing = []
        for probe in range(_PROBES):
            if probe == len(suspects):
                break
            variable = suspects[probe]
            exact = differences.column(evaluations, variable, steps)
            outside = contained(pattern.indptr, pattern.indices, rows, np.full(len(rows), variable)) == 0
            top = comm.allreduce(float(np.abs(exact).max(initial=0.0)), op=MPI.MAX)
            step = comm.allreduce(float(np.abs(steps.taken).min(initial=np.inf)), op=MPI.MIN)
            there = outside & (np.abs(exact) > 1e-6 * top + level / step)
            found = [
                (pattern.layout.start + int(row), variable, float(exact[row])) for row in np.flatnonzero(there)
            ]
            missing += [item for part in comm.allgather(found) for item in part]
            alone = np.zeros(len(rows))
            if pattern.layout.start <= variable < pattern.layout.stop:
                alone[variable - pattern.layout.start] = 1.0
            error = np.abs(exact - self._products(alone)[0])
            size, rank = comm.allreduce((float(error.max(initial=0.0)), comm.rank), op=MPI.MAXLOC)
            row = comm.bcast(pattern.layout.start + int(error.argmax()) if comm.rank == rank else None, root=rank)
            if size > 1e-6 * top and row not in suspects:
                suspects.append(row)
        return missing

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


@dataclass(frozen=True, eq=False)
class _Doubt:
    """What noise and finite steps make of the entries; made once, since steps stay much the same.

    Attributes
    ----------
    noise
        Norm of what noise makes of the matrix.
    largest
        Largest standard deviation of an entry.
    truncation
        What finite steps leave out, relative to the matrix, as far as the bend tells that was measured.
    of_central
        The same for a central difference along a direction.
    of_product
        (n_local,) what noise makes of the difference of ours and a fresh product along the direction of the check.
    squares
        (n_local,) mean over a row's entries of the square of the direction.
    """

    noise: float
    largest: float
    truncation: float
    of_central: float
    of_product: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, plan: Plan, steps: differences.Steps, noise, length, direction: np.ndarray) -> _Doubt:
        """Collective."""
        pattern, comm = plan.pattern, plan.pattern.comm
        along = pattern.exchange.halo(direction**2)[pattern.columns]
        squares = _row_sums(pattern, along) / np.diff(pattern.indptr)
        if noise is None:
            return cls(0.0, 0.0, 0.0, 0.0, np.zeros(pattern.layout.n_local), squares)
        left = differences.truncation(steps.taken, length, noise, steps.scheme)
        central = differences.truncation(2 * steps.wanted, length, noise, "central")
        sums = np.array([np.dot(left, left), np.dot(central, central)])
        comm.Allreduce(MPI.IN_PLACE, sums)
        truncation, of_central = np.sqrt(sums / pattern.n)
        level = noise.level * np.sqrt(sum(weight**2 for _, weight in steps.nodes))
        total, largest, rows = plan.variances(level**2, steps.taken**-2.0, direction)
        of_product = np.sqrt(0.5 * level**2 + rows)
        return cls(
            float(np.sqrt(total)),
            float(np.sqrt(largest)),
            float(truncation),
            float(of_central),
            of_product,
            squares,
        )

    def expected(self, size: np.ndarray) -> np.ndarray:
        """Return (n_local,) what ours and a fresh product may differ by, `size` being |H| |d|."""
        return self.of_product + (self.truncation + self.of_central) * size

    def frobenius(self, error: np.ndarray, comm: MPI.Comm) -> float:
        """Return the norm of the error of the matrix that shows as this error of a product. Collective.

        For an error E and random signs, the mean of (E v)_i² is Σ_j E_ij² v_j² (Hutchinson 1990).
        """
        part = np.divide(error**2, self.squares, out=np.zeros_like(error), where=self.squares > 0)
        return float(np.sqrt(comm.allreduce(float(part.sum()))))


def _row_sums(pattern: Pattern, values: np.ndarray) -> np.ndarray:
    """Return (n_local,) the sums of the values of each row's entries; no row is empty."""
    if not pattern.layout.n_local:
        return np.zeros(0)
    return np.add.reduceat(values, pattern.indptr[:-1])


def _check_room(x: np.ndarray, lower: np.ndarray, upper: np.ndarray, layout) -> None:
    bad = np.flatnonzero(~((lower <= x) & (x <= upper) & (lower < upper)))
    if len(bad):
        i = bad[0]
        raise InputError(
            f"variable {layout.start + i} is {x[i]:g}, its bounds are {lower[i]:g} and {upper[i]:g}: x must lie "
            "between them, and a variable without room does not belong to the problem"
        )


def _told(found: list[tuple[int, int, float]]) -> str:
    if not found:
        return ""
    variable = found[0][1]
    most = sorted((item for item in found if item[1] == variable), key=lambda item: -abs(item[2]))[:4]
    listed = ", ".join(f"{row} (H = {value:.3g})" for row, _, value in most)
    return f"the pattern is too small, variable {variable} is coupled with {listed}"


def _entries(found: list[tuple[int, int, float]]) -> tuple[list[int], list[int]]:
    return [row for row, _, _ in found], [column for _, column, _ in found]


def assemble(
    objective: Objective,
    *,
    pattern: Pattern | str | None = None,
    derivative: str = "auto",
    coloring: str | Coloring = "star",
    order: str = "best",
    budget: float = BUDGET,
    columns: int | None = None,
    verify: bool = True,
    repair: bool = True,
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
        Default the objective's own; `detect`: probed, see `detect`.
    derivative
        `central` (2 gradients a colour), `forward` (1, and the base), `extrapolated` (4), `complex` (1, of
        complex arrays), `ad` (1 product), `auto` (products where there are any, else central). Steps of
        differences follow from the noise of the gradient, measured with 7 more.
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
    repair
        Whether entries that verification finds missing in the pattern are added.
    seed
        Of that product's direction.
    progress
        Called as progress(colours begun, colours) on every rank.

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
    probing, timings = {}, {}
    began = time.perf_counter()
    if isinstance(pattern, str):
        if pattern != "detect":
            raise InputError(f"pattern {pattern!r}: give a Pattern, or 'detect'")
        pattern = detect(objective, seed=seed, counts=probing)
    pattern = pattern or objective.pattern
    if pattern is None:
        raise InputError(f"{objective.name} has no pattern: give one, or ask for pattern='detect'")
    if pattern.n != objective.n or not pattern.layout.same(objective.layout):
        raise InputError(
            f"the pattern ({pattern.n} variables) and {objective.name} ({objective.n}) do not have the same "
            "rows on each rank"
        )
    if pattern.n == 0:
        raise InputError(f"{objective.name} has no variables")
    scheme = differences.scheme_of(derivative, objective)
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
    hessian = Hessian(
        objective, recovery, scheme, timings, seed=seed, columns=columns, budget=budget, repair=repair
    )
    hessian.evaluations["pattern"] = sum(probing.values())
    try:
        hessian.update(verify=verify, progress=progress)
    except Exception:
        hessian.close()  # every rank is here: update raises on all or on none
        raise
    return hessian
