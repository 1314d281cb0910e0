"""`Eigenvalues`: all those of a structured Hessian, shared out over the ranks, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError, none_of
from sparsehess.runtime import agreement
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import positive_number, reals, whole_number

_EPS, _TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)

# An eigenvalue below this part of the largest is zero: what rounding leaves of one.
ZERO = float(1e3 * np.finfo(float).eps)

# An inertia is certain where no eigenvalue lies between the threshold and this multiple of it.
_WIDER = 4.0

# So many errors from none, some are there.
_SURE = 3.0

# So many errors from the end of a domain first order holds.
_FROM_END = 10.0

# In which order eigenvalues are wanted.
ORDERS = {
    "smallest": lambda values: values,
    "largest": lambda values: -values,
    "magnitude": lambda values: -np.abs(values),
    "negative": lambda values: np.where(values < 0, values, np.inf),
}


@dataclass(frozen=True, repr=False)
class Inertia(ShortRepr):
    """How many eigenvalues are negative, zero and positive; the same on every rank.

    *Not collective* to use.

    Attributes
    ----------
    negative, zero, positive, infinite
        How many; infinite ones belong to a singular mass matrix.
    threshold
        Up to this size an eigenvalue is zero.
    certified
        Whether two factorizations at either side of zero agree.
    doubt
        What they disagree about, or why there are none; empty where certified.
    stderr
        Standard errors of `negative`, `zero` and `positive` where they are estimates, else None.
    definite
        The verdict in words.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.inertia(np.diag([-2.0, 0.0, 3.0, 4.0]))
    >>> found.negative, found.zero, found.positive, found.definite, found.certified
    (1, 1, 2, 'indefinite', True)
    """

    negative: int
    zero: int
    positive: int
    infinite: int
    threshold: float
    certified: bool
    doubt: str
    stderr: tuple[float, float, float] | None = None

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        errors = ("", "", "") if self.stderr is None else tuple(f" ± {error:.2g}" for error in self.stderr)
        yield f"{self.negative}{errors[0]} negative"
        yield f"{self.zero}{errors[1]} zero"
        yield f"{self.positive}{errors[2]} positive"
        if self.infinite:
            yield f"{self.infinite} infinite"
        yield "certified" if self.certified else "not certified"

    @property
    def definite(self) -> str:
        """The verdict in words; of estimates `unresolved` where a side may be empty or not. Not collective."""
        negative, zero, positive = (
            _is_there(count, error)
            for count, error in zip(
                (self.negative, self.zero, self.positive), self.stderr or (0.0, 0.0, 0.0), strict=True
            )
        )
        if negative and positive:
            return "indefinite"
        if None in (negative, zero, positive):
            return "unresolved"
        if negative:
            return "negative semidefinite" if zero else "negative definite"
        if positive:
            return "positive semidefinite" if zero else "positive definite"
        return "zero"


def _is_there(count: int, error: float) -> bool | None:
    """Return whether there is any of what was counted to an error; None where that is open. Not collective."""
    if count > _SURE * error:
        return True
    return False if count + _SURE * error < 1 else None


def total_inertia(parts: Iterable[Inertia]) -> Inertia:
    """Return the inertia of a direct sum; `threshold` is the largest of the parts'. Not collective."""
    every = list(parts)
    doubt = "; ".join(one.doubt for one in every if one.doubt)
    return Inertia(
        sum(one.negative for one in every),
        sum(one.zero for one in every),
        sum(one.positive for one in every),
        0,
        max((one.threshold for one in every), default=0.0),
        not doubt,
        doubt,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Eigenvalues(ShortRepr):
    """All eigenvalues, each on one rank.

    Attributes
    ----------
    comm
        The ranks.
    values
        (m,) those of this rank, in no given order.
    counts
        (m,) how often each occurs.
    errors
        (m,) how far rounding may have moved them; None for the last digit of the largest.
    """

    comm: MPI.Comm
    values: np.ndarray
    counts: np.ndarray
    errors: np.ndarray | None = None

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(int(self.counts.sum()), 'eigenvalue')} of this rank"

    @classmethod
    def single(cls, comm: MPI.Comm, values: np.ndarray, errors: np.ndarray | None = None) -> Eigenvalues:
        """Return these local eigenvalues, each with the multiplicity with which it stands there.

        Not collective.
        """
        return cls(comm, values, np.ones(len(values), np.int64), errors)

    def rounding(self) -> np.ndarray:
        """Return (m,) how far rounding may have moved them.

        Collective.
        """
        largest = self.largest()
        return np.full(len(self.values), _EPS * largest) if self.errors is None else self.errors

    def total(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """Return the sum of a function over all eigenvalues.

        Collective.
        """
        with agreement(self.comm):  # a function may refuse values that one rank alone has
            own = float(np.dot(self.counts, function(self.values)))
        return self.comm.allreduce(own)

    def moved(self, call: Callable[[np.ndarray], np.ndarray], above: float) -> float:
        """Return how far rounding may have moved the sum of a function, to first order.

        Collective.

        Parameters
        ----------
        call, above
            As `moved_by`.
        """
        rounding = self.rounding()
        with agreement(self.comm):
            own = moved_by(call, above, self.values, rounding)
        return self.comm.allreduce(float(np.dot(self.counts, own)) if len(own) else 0.0)

    def number(self, chosen: Callable[[np.ndarray], np.ndarray]) -> int:
        """Return how many eigenvalues a condition holds for.

        Collective.
        """
        return self.comm.allreduce(int(self.counts[chosen(self.values)].sum()))

    def below(self, shift: float) -> int:
        """Return how many eigenvalues are below a number.

        Collective.
        """
        return self.number(lambda values: values < shift)

    def below_each(self, shifts: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers (k,).

        Collective.
        """
        order = np.argsort(self.values, kind="stable")
        running = np.concatenate([[0], np.cumsum(self.counts[order])])
        own = running[np.searchsorted(self.values[order], shifts, side="left")].astype(np.int64)
        return np.asarray(self.comm.allreduce(own))

    def powers(self, most: int) -> np.ndarray:
        """Return (most + 1,) sums of the powers of all eigenvalues from 0 on.

        Collective.
        """
        own = np.array([np.dot(self.counts, self.values**power) for power in range(most + 1)])
        return np.asarray(self.comm.allreduce(own))

    def largest(self) -> float:
        """Return the largest magnitude.

        Collective.
        """
        return self.comm.allreduce(float(np.abs(self.values).max(initial=0.0)), op=MPI.MAX)

    def least(self) -> float:
        """Return the least magnitude.

        Collective.
        """
        return self.comm.allreduce(float(np.abs(self.values).min(initial=np.inf)), op=MPI.MIN)

    def ends(self, k: int, which: str = "smallest") -> np.ndarray:
        """Return the k eigenvalues (k,) that are first in an order, ascending, the same on every rank.

        Collective. Fewer where there are fewer.

        Parameters
        ----------
        k
            How many, each as often as it occurs.
        which
            `smallest`, `largest`, `magnitude`, or `negative`, the smallest of those below zero.
        """
        check_which(k, which)
        order = np.argsort(ORDERS[which](self.values), kind="stable")[:k]
        own = np.repeat(self.values[order], np.minimum(self.counts[order], k))
        return select_first(np.concatenate(self.comm.allgather(own)), k, which)

    def whole(self) -> np.ndarray:
        """Return all eigenvalues, ascending, on every rank: for small matrices.

        Collective.
        """
        parts = self.comm.allgather((self.values, self.counts))
        return np.sort(np.concatenate([np.repeat(*part) for part in parts]))

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Eigenvalues:
        """Return a function of each eigenvalue.

        Not collective.
        """
        return Eigenvalues(self.comm, function(self.values), self.counts)

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|; -inf where it is singular to rounding.

        Collective.
        """
        if self.singular(shift):
            return -np.inf
        return self.total(lambda values: np.log(np.abs(values + shift)))

    def singular(self, shift: float = 0.0) -> bool:
        """Return whether H + shift I is singular to rounding: of each eigenvalue, or of the shift.

        Collective.
        """
        lost = np.abs(self.values + shift) <= np.maximum(self.rounding(), _EPS * abs(shift))
        return bool(self.comm.allreduce(int(lost.any())))

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia; `zero` is up to what size an eigenvalue is zero.

        Collective. Without it each is held to a thousand times its own rounding, and `threshold` is the largest of
        those sizes: small blocks have signs beside large ones.
        """
        size = self.rounding() / _EPS
        if zero is None:
            thresholds = np.maximum(ZERO * size, _TINY)
        else:
            thresholds = np.full(len(self.values), positive_number(zero, "zero"))
        sides = (
            self.values < -thresholds,
            self.values > thresholds,
            (np.abs(self.values) > thresholds) & (np.abs(self.values) <= _WIDER * thresholds),
        )
        own = np.array([*(self.counts[side].sum() for side in sides), self.counts.sum()], np.int64)
        negative, positive, near, every = (int(number) for number in np.asarray(self.comm.allreduce(own)))
        threshold = self.comm.allreduce(float(thresholds.max(initial=_TINY)), op=MPI.MAX)
        doubt = f"{near} between {threshold:.1e} and {_WIDER * threshold:.1e} in size" if near else ""
        return Inertia(negative, every - negative - positive, positive, 0, threshold, not near, doubt)


def moved_by(
    call: Callable[[np.ndarray], np.ndarray], above: float, values: np.ndarray, errors: np.ndarray
) -> np.ndarray:
    """Return (m,) how far a function moves where eigenvalues move by their errors either way.

    Not collective. Infinite where one of them is within ten errors of the end of the domain, which is `above`:
    there first order tells nothing. And where the function is finite on neither side.
    """
    if not len(values):
        return np.zeros(0)
    sides = []
    with np.errstate(all="ignore"):  # what is not finite is the answer
        here = np.asarray(call(values), np.float64)
        for there in (values - errors, values + errors):
            try:
                moved = np.abs(np.asarray(call(there), np.float64) - here)
            except Exception:  # the caller's function may refuse what is no eigenvalue
                moved = np.full(len(values), np.nan)
            sides.append(np.where(np.isfinite(moved), moved, np.nan))
    both = np.fmax(*sides)
    return np.where(np.isfinite(both) & (values - _FROM_END * errors > above), both, np.inf)


def apply_to_eigenvalues(f: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Return a function of eigenvalues (m,), which must be as many finite real numbers.

    Not collective.
    """
    with np.errstate(all="ignore"):  # what is not finite is refused, and where
        found = reals(f(values), "a function of eigenvalues")
    if found.shape != values.shape:
        raise InputError(f"a function of {values.shape} eigenvalues must return as many, not {found.shape}")
    if not np.isfinite(found).all():
        raise InputError(f"the function is not finite at the eigenvalue {values[~np.isfinite(found)][0]:.6g}")
    return found


def check_which(k: int, which: str) -> None:
    """Refuse a number or an order that is none.

    Not collective.
    """
    whole_number(k, "k", 0)
    if which not in ORDERS:
        raise none_of(f"which={which!r}", which, ORDERS)


def select_first(values: np.ndarray, k: int, which: str) -> np.ndarray:
    """Return those of some eigenvalues that are among the first k in an order, ascending.

    Not collective.
    """
    check_which(k, which)
    rank = ORDERS[which](values)
    order = np.argsort(rank, kind="stable")[:k]
    return np.sort(values[order[np.isfinite(rank[order])]])
