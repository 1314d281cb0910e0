"""What is asked of a solver, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np

from sparsehess.eigen.problem.projection import Projection
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.html_fragments import fragment, note, table, ticks
from sparsehess.runtime.short_repr import ShortRepr, in_short, number_of

METHODS = (
    "auto", "krylovschur", "lobpcg", "gd", "jd", "slicing", "feast", "ciss", "filter", "dense", "power", "lanczos",
)  # fmt: skip
WHOLE = ("slicing", "feast", "ciss", "filter")  # for all eigenvalues of an interval
WHICH = ("smallest", "largest", "magnitude", "negative")

# Rows of a table in a notebook.
_ROWS = 12


@dataclass(frozen=True, kw_only=True, repr=False)
class SolveSpec(ShortRepr):
    """Which eigenpairs, how well, and how.

    *Not collective*; the same on every rank.

    Attributes
    ----------
    k
        How many; None for 6 (or as many as there are), or for all where `interval` or `negative` says which.
    which
        `smallest` or `largest` (algebraic), `magnitude` (largest in magnitude), `negative`
        (the k lowest of those below zero, or all).
    interval
        If given, (low, high): all eigenvalues from low to high are wanted; either may be infinite.
    target
        If given, the k nearest to it are wanted, and `which` does not matter.
    tol
        Backward error that every pair must reach.
    options
        PETSc options without a prefix, `{"eps_ncv": 60}`; they override what sparsehess chooses.
    count
        Whether an inertia count must confirm the answer: `auto` counts where a factorization is
        made anyway or is cheap, `yes` always, `no` never.
    seed
        Of the starting vectors.
    method
        `auto`, which chooses (see `choose_method`); `krylovschur`, with shift-and-invert where that is of use;
        `lobpcg`, `gd` and `jd`, preconditioned, for the smallest or largest; for intervals `slicing`, `feast`,
        `ciss` and, by products alone, `filter`; `dense` for all; for comparison SLEPc's `power` iteration with
        deflation (`magnitude`) and its `lanczos`.
    groups
        Of ranks, among which slicing shares out slices (default one group) and FEAST its contour points (default
        as many as there are ranks or points); each has the whole matrix.
    backend
        Where matrices and vectors are: `cpu`, or `cuda`, `hip`, `kokkos` where this PETSc has them.

    Examples
    --------
    >>> import sparsehess as sh
    >>> sh.SolveSpec(interval=(0.0, 1.0)).takes_all
    True
    >>> sh.SolveSpec(k=3, interval=(0.0, 1.0))
    Traceback (most recent call last):
    ...
    sparsehess.errors.InputError: an interval is wanted with all its eigenvalues: leave out k and target
    """

    k: int | None = None
    which: str = "smallest"
    interval: tuple[float, float] | None = None
    target: float | None = None
    tol: float = 1e-8
    options: dict = field(default_factory=dict)
    count: str = "auto"
    seed: int = 0
    method: str = "auto"
    groups: int | None = None
    backend: str = "cpu"

    def __post_init__(self) -> None:
        """Raise InputError for what contradicts itself. Not collective; the same on every rank."""
        if self.which not in WHICH:
            raise InputError(f"which={self.which!r} is none of {', '.join(WHICH)}")
        if self.method not in METHODS:
            raise InputError(f"method={self.method!r} is none of {', '.join(METHODS)}")
        if self.count not in ("auto", "yes", "no"):
            raise InputError(f"count={self.count!r} is none of auto, yes, no")
        if self.k is not None and not (isinstance(self.k, (int, np.integer)) and self.k >= 1):
            raise InputError(f"k={self.k} must be a whole number of at least 1")
        if self.interval is not None:
            low, high = self.interval
            if not low <= high:
                raise InputError(f"interval {low} to {high}: the first end must not be above the second")
            if self.k is not None or self.target is not None:
                raise InputError("an interval is wanted with all its eigenvalues: leave out k and target")
            if self.count == "no":
                raise InputError("an interval is solved by its counts: leave out count='no'")
        if self.groups is not None and not (self.takes_all and self.method in ("auto", "slicing", "feast")):
            raise InputError("groups are for slicing, which shares out slices, and feast, its contour points")
        if self.groups is not None and self.groups < 1:
            raise InputError(f"groups={self.groups} must be at least 1")
        whole = self.method in WHOLE
        if self.method not in ("auto", "dense") and whole != self.takes_all:
            says = "is" if whole else "is not"
            raise InputError(f"method {self.method!r} {says} for an interval, or for all negative eigenvalues")
        if self.options.get("eps_type") == "feast":
            raise InputError(
                "-eps_type feast: SLEPc's FEAST passes only the real parts of contour points and solutions where "
                "scalars are real, so that it cannot converge; --method feast has one that does"
            )
        if not 0 < self.tol < 1:
            raise InputError(f"tol={self.tol} must be between 0 and 1")
        if self.target is not None and not np.isfinite(self.target):
            raise InputError(f"target={self.target} must be a finite number")

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says: what is not by default. Not collective."""
        for one in fields(self):
            value = getattr(self, one.name)
            if value != (one.default if one.default is not MISSING else {}):
                yield f"{one.name}={in_short(value)}"

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval."""
        if self.interval is None:
            raise InputError("no interval is asked for")
        return self.interval

    @property
    def number(self) -> int:
        """How many pairs are wanted."""
        if self.k is None:
            raise InputError("no number of eigenpairs is asked for")
        return self.k

    def scaled(self, power: int) -> SolveSpec:
        """Return the spec with its eigenvalues times two to a power. Not collective."""
        interval = None if self.interval is None else tuple(np.ldexp(self.interval, power).tolist())
        target = None if self.target is None else float(np.ldexp(self.target, power))
        return replace(self, interval=interval, target=target)

    @property
    def takes_all(self) -> bool:
        """Whether all eigenvalues of an interval are wanted, not so many of them."""
        negative = self.which == "negative" and self.target is None
        return self.interval is not None or (negative and self.k is None)


def place_in_words(low: float, high: float) -> str:
    """Return where a count counts, in words. Not collective."""
    if low > high:
        return f"below {high:.6g} and above {low:.6g}"
    if np.isfinite(low) and np.isfinite(high):
        return f"in ({low:.6g}, {high:.6g})"
    if np.isfinite(high):
        return f"below {high:.6g}"
    return f"above {low:.6g}" if np.isfinite(low) else "in all"


@dataclass(frozen=True, repr=False)
class Count(ShortRepr):
    """An inertia count of an interval against the eigenvalues found in it.

    Attributes
    ----------
    interval
        (low, high); an end is infinite where nothing lies beyond. Where low > high, what lies above low and what
        lies below high: the largest in magnitude.
    inertia
        Eigenvalues in it by Sylvester's law, from LDLᵀ factorizations at its ends.
    found
        Those that the solver has, deflated null vectors included.
    certified
        Whether the two agree.
    repairs
        Further solves it took until they did.
    unresolved
        (low, high, inertia, found) of the subintervals in which they do not, where there are subintervals.
    margin
        Distance of the ends to the nearest eigenvalue, over how far the measured backward error of the
        factorization there can move it; None where it was not measured.
    group
        Eigenvalues inside that were not asked for: no count tells them from the last ones found.
    """

    interval: tuple[float, float]
    inertia: int
    found: int
    certified: bool
    repairs: int = 0
    unresolved: tuple[tuple[float, float, int, int], ...] = ()
    margin: float | None = None
    group: int = 0

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield self.in_short
        if self.margin is not None:
            yield f"margin {self.margin:.2g}"

    @property
    def in_short(self) -> str:
        """The verdict in words."""
        if self.certified:
            return f"certified {self.place}"
        return f"NOT certified: {self.found} of {self.inertia} {self.place}"

    @property
    def place(self) -> str:
        """The interval in words."""
        return place_in_words(*self.interval)

    @property
    def places_unresolved(self) -> list[str]:
        """What was found of each subinterval in which the two do not agree, in words."""
        return [f"{found} of {many} {place_in_words(low, high)}" for low, high, many, found in self.unresolved]

    @property
    def holds_zero(self) -> bool:
        """Whether zero is in the interval."""
        return bool(self.holds(np.zeros(1))[0])

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) whether values are in the interval. Not collective."""
        low, high = self.interval
        return (values > low) & (values < high) if low <= high else (values > low) | (values < high)

    def scaled(self, power: int) -> Count:
        """Return the count with its eigenvalues times two to a power. Not collective."""
        low, high = np.ldexp(self.interval, power).tolist()
        pieces = tuple((*np.ldexp(piece[:2], power).tolist(), *piece[2:]) for piece in self.unresolved)
        return replace(self, interval=(low, high), unresolved=pieces)

    @classmethod
    def beside(
        cls,
        known: int,
        interval: tuple[float, float],
        inertia: int,
        found: int,
        certified: bool,
        **facts: Any,
    ) -> Count:
        """Return the count of an interval that holds so many known eigenvalues beside those counted and found.

        Not collective. Factorizations count on what is orthogonal to known null vectors: their zeros are neither
        in `inertia` nor in `found` as given, and in both as told.
        """
        return cls(interval, inertia + known, found + known, certified, **facts)


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(ShortRepr):
    """Eigenpairs of a problem.

    *Collective* to make, by `eigs`, and to close. A context manager; `close()` destroys the vectors.

    Attributes
    ----------
    eigenvalues
        (k,) ascending, the same on every rank.
    vectors
        k Vecs, M-orthonormal.
    residuals
        (k,) backward errors ‖Hx − λMx‖ / ((‖H‖ + |λ|‖M‖) ‖x‖) in Frobenius norms, from the vectors.
    orthogonality
        Largest |XᵀMX − I|.
    count
        The inertia count, or None where none was made; `uncounted` says why.
    zeros
        How many of the eigenvalues are zero to the accuracy of the matrix.
    asked
        How many pairs were asked for (fewer than the k of the request where no more exist).
    advice
        What to do if fewer converged than were asked for; else empty.
    iterations, method, reason
        Of the solver; `reason` says why this method.
    timings
        Seconds of `factorization`, `solve`, `certificate`.
    options
        PETSc options of the solve: defaults, overridden by the caller's.
    held_to
        Backward error that the pairs were held to: the error of products of the Hessian, where that is larger than
        the tolerance.
    errors, error_bound, zero, roundings, lost
        Error bars of the eigenvalues, see `ErrorBars`.
    projection
        What it has changed that directions were projected out whatever the Hessian says of them; None where none
        were.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.eigs(np.diag([1.0, 2.0, 3.0]), which="largest", k=2) as found:
    ...     print(np.round(found.eigenvalues, 8), found.converged, bool(found.residuals.max() < 1e-8))
    [2. 3.] 2 True
    """

    eigenvalues: np.ndarray
    vectors: list[PETSc.Vec]
    residuals: np.ndarray
    orthogonality: float
    count: Count | None
    uncounted: str
    zeros: int
    asked: int
    advice: str
    iterations: int
    method: str
    reason: str
    timings: dict[str, float]
    options: dict[str, object]
    held_to: float
    errors: np.ndarray | None = None
    error_bound: float | None = None
    zero: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    roundings: np.ndarray = field(default_factory=lambda: np.zeros(0))
    lost: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    projection: Projection | None = None

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        values = self.eigenvalues
        if len(values):
            many = (
                number_of(len(values), "pair")
                if len(values) == self.asked
                else f"{len(values)} of {self.asked} pairs"
            )
            yield f"{many} from {values[0]:.6g} to {values[-1]:.6g}"
        else:
            yield "no pairs"
        yield "not counted" if self.count is None else self.count.in_short
        yield f"by {self.method}"
        if len(self.vectors) < len(values):
            yield "closed"

    @property
    def converged(self) -> int:
        """How many pairs reached the tolerance."""
        return len(self.eigenvalues)

    def _repr_html_(self) -> str:
        """Return a small table and a picture for notebooks. Not collective."""
        many = len(self.eigenvalues)
        shown = np.arange(many) if many <= _ROWS else np.r_[: _ROWS // 2, many - _ROWS // 2 : many]
        heads = ["", "eigenvalue", "residual"]
        rows = [[i + 1, f"{self.eigenvalues[i]:.12g}", f"{self.residuals[i]:.1e}"] for i in shown]
        if self.errors is not None:
            heads.insert(2, "±")
            for row, i in zip(rows, shown, strict=True):
                row.insert(2, f"{self.errors[i]:.1g}")
        if many > _ROWS:
            rows.insert(_ROWS // 2, ["...", f"{many - _ROWS} more"])
        told = f"not counted: {self.uncounted}" if self.count is None else self.count.in_short
        picture = ticks(self.eigenvalues, "eigenvalues")
        return fragment(repr(self)[1:-1], table(rows, heads), picture, note(told))

    def close(self) -> None:
        """Destroy the vectors.

        Collective.
        """
        destroy(*self.vectors)
        self.vectors.clear()

    def __enter__(self) -> Spectrum:
        """Return the spectrum itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy the vectors. Collective."""
        self.close()
