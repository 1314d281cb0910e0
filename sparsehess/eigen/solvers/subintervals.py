"""Subintervals of known inertia, and how far the search for all eigenvalues of an interval has come."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.solvers.pairs_across import MOST
from sparsehess.eigen.solvers.search_store import NoStore, SearchStore
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.runtime import PETSc, destroy


@dataclass(frozen=True)
class Subinterval:
    """A subinterval, and how many eigenvalues lie below its ends.

    Attributes
    ----------
    low, high
        Its ends.
    below_low, below_high
        Numbers of eigenvalues below them.
    fruitless
        How often halving has left all eigenvalues on one side.
    margin
        How safe the counts at the ends are; see `KrylovSchur.margin`. Not known of parts.
    """

    low: float
    high: float
    below_low: int
    below_high: int
    fruitless: int = 0
    margin: float = math.inf

    @property
    def inertia(self) -> int:
        """Number of eigenvalues inside."""
        return self.below_high - self.below_low

    def count(
        self,
        null: int,
        found: int,
        across: float,
        repairs: int = 0,
        unresolved: tuple[tuple[float, float, int, int], ...] = (),
    ) -> Count:
        """Return what the counts say of those found; the zeros of so many known null vectors may be inside.

        Not collective. `across` is how much of the pairs may lie beyond the ends, see `share_across`.
        """
        return Count.beside(
            null if self.low < 0 < self.high else 0,
            (self.low, self.high),
            self.inertia,
            found,
            found == self.inertia and self.margin > SAFE and across < MOST,
            repairs=repairs,
            unresolved=unresolved,
            across=across if across < 1 else 1.0,
            margin=self.margin if math.isfinite(self.margin) else None,
        )

    def halves(self, middle: float, below: int) -> list[Subinterval]:
        """Return the parts below and above a point that has so many eigenvalues below it."""
        fruitless = self.fruitless + 1 if below in (self.below_low, self.below_high) else 0
        return [
            Subinterval(self.low, middle, self.below_low, below, fruitless),
            Subinterval(middle, self.high, below, self.below_high, fruitless),
        ]


class IntervalSearch(ABC):
    """The state of a search for all eigenpairs of an interval, and where it is saved.

    A context manager: an error that leaves it destroys what was found.

    Attributes
    ----------
    store
        Where the state is saved.
    vectors
        Eigenvectors found; of a search with counts those of the subintervals that are done.
    """

    def __init__(self, store: SearchStore, vectors: list[PETSc.Vec]):
        self.store, self.vectors = store, vectors

    @abstractmethod
    def facts(self) -> dict:
        """Return what is saved beside the vectors, as JSON. Not collective."""

    def save_if_due(self, basis: Callable[[], list[PETSc.Vec]]) -> BaseException | None:
        """Save between restarts of a solver, which calls this; see `SearchStore`.

        Collective. The basis is not saved: a subinterval is solved as a whole.
        """
        return self.store.save_if_due(self._state)

    def pause(self) -> None:
        """Save where it is due; after a signal raise `Stopped`. Collective."""
        self.store.pause(self._state)

    def _state(self) -> tuple[dict, list[PETSc.Vec], list[PETSc.Vec]]:
        return self.facts(), self.vectors, []

    def __enter__(self) -> Self:
        """Return the search itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *reason: object) -> None:
        """Destroy what was found if an error is raised. Collective."""
        if kind is not None and issubclass(kind, Exception):
            destroy(*self.vectors)


class CountedSearch(IntervalSearch):
    """A search in subintervals of known inertia.

    Parameters
    ----------
    count
        Returns the interval with the inertia at its ends; called unless that was saved.
    cut
        Returns the subintervals to search, the first one last; called unless they were saved.

    Attributes
    ----------
    whole
        The interval, counted.
    waiting
        Subintervals that are left, the next one last.
    unresolved
        Subintervals in which some are missing, with the number found.
    repairs
        Solves beyond the first of a subinterval.
    """

    def __init__(
        self,
        store: SearchStore,
        count: Callable[[], Subinterval],
        cut: Callable[[Subinterval], list[Subinterval]],
    ):
        facts, vectors = store.load()
        super().__init__(store, vectors)
        with self:
            saved, waiting = facts.get("whole"), facts.get("waiting")
            self.whole = Subinterval(*saved) if saved else count()
            self.waiting = cut(self.whole) if waiting is None else [Subinterval(*one) for one in waiting]
        self.unresolved = [(Subinterval(*one), found) for one, found in facts.get("unresolved", [])]
        self.repairs: int = facts.get("repairs", 0)

    @classmethod
    def of(cls, subinterval: Subinterval) -> CountedSearch:
        """Return the beginning of a search in one subinterval, which nothing saves. Not collective."""
        return cls(NoStore(), lambda: subinterval, lambda whole: [whole])

    def facts(self) -> dict:
        """Return the subintervals, as tuples. Not collective."""
        return {
            "whole": dataclasses.astuple(self.whole),
            "waiting": [dataclasses.astuple(one) for one in self.waiting],
            "unresolved": [(dataclasses.astuple(one), found) for one, found in self.unresolved],
            "repairs": self.repairs,
        }


class UncountedSearch(IntervalSearch):
    """A search that goes on until it finds nothing more.

    Parameters
    ----------
    estimate
        Returns how many the first attempt is prepared for; called unless that was saved.

    Attributes
    ----------
    expected, attempt
        How many the next attempt is prepared for, and which it is.
    """

    def __init__(self, store: SearchStore, estimate: Callable[[], int]):
        facts, vectors = store.load()
        super().__init__(store, vectors)
        saved = facts.get("expected")
        with self:
            self.expected = estimate() if saved is None else int(saved)
        self.attempt: int = facts.get("attempt", 0)

    def facts(self) -> dict:
        """Return how far the attempts have come. Not collective."""
        return {"expected": self.expected, "attempt": self.attempt}
