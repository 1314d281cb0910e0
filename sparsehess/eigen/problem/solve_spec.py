"""What is asked of a solver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np

from sparsehess.errors import InputError, none_of
from sparsehess.runtime.short_repr import ShortRepr, in_short

METHODS = (
    "auto", "krylovschur", "oneshift", "lobpcg", "gd", "jd", "slicing", "feast", "ciss", "filter", "dense",
    "structure", "power", "lanczos",
)  # fmt: skip
WHOLE = ("slicing", "feast", "ciss", "filter")  # for all eigenvalues of an interval
WHICH = ("smallest", "largest", "magnitude", "negative")


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
        `oneshift`, for the smallest with one factorization past them, found by bounds of a multigrid;
        `lobpcg`, `gd` and `jd`, preconditioned, for the smallest or largest; for intervals `slicing`, `feast`,
        `ciss` and, by products alone, `filter`; `dense` for all; `structure`, by what a structured Hessian tells;
        for comparison SLEPc's `power` iteration with
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
            raise none_of(f"which={self.which!r}", self.which, WHICH)
        if self.method not in METHODS:
            raise none_of(f"method={self.method!r}", self.method, METHODS)
        if self.count not in ("auto", "yes", "no"):
            raise InputError(f"count={self.count!r} is none of auto, yes, no")
        if self.k is not None and not (isinstance(self.k, (int, np.integer)) and self.k >= 1):
            raise InputError(f"k={self.k} must be a whole number of at least 1")
        if self.interval is not None:
            low, high = self.interval
            if not low <= high:
                raise InputError(
                    f"interval {low} to {high}: the first end must not be above the second; exchange them"
                )
            if self.k is not None or self.target is not None:
                raise InputError("an interval is wanted with all its eigenvalues: leave out k and target")
            if self.count == "no":
                raise InputError("an interval is solved by its counts: leave out count='no'")
        if self.groups is not None and not (self.takes_all and self.method in ("auto", "slicing", "feast")):
            raise InputError("groups are for slicing, which shares out slices, and feast, its contour points")
        if self.groups is not None and self.groups < 1:
            raise InputError(f"groups={self.groups} must be at least 1")
        whole = self.method in WHOLE
        if self.method not in ("auto", "dense", "structure") and whole != self.takes_all:
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


def read_spec(facts: dict[str, Any], path: str | os.PathLike[str]) -> SolveSpec:
    """Return what a stored run was asked for.

    Not collective.

    Raises
    ------
    InputError
        The facts do not tell it.
    """
    try:
        which = facts["which"]
        if facts["interval"] is not None:  # of --which negative too, where all were asked for
            low, high = facts["interval"]
            return SolveSpec(interval=(-np.inf if low is None else low, np.inf if high is None else high))
        if which == "target":
            return SolveSpec(k=facts["k"], target=facts["target"])
        return SolveSpec(k=max(facts["k"], 1), which=which)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{os.fspath(path)}: what was asked for cannot be read from it ({error})") from error
