"""How far the search for all eigenvalues of an interval has come, piece by piece, and its checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsehess.eigen.solvers.search_checkpoint import Search


@dataclass(frozen=True)
class Piece:
    """A subinterval, and how many eigenvalues lie below its ends.

    Attributes
    ----------
    fruitless
        How often halving has left all eigenvalues on one side.
    """

    low: float
    high: float
    below_low: int
    below_high: int
    fruitless: int = 0

    @property
    def inertia(self) -> int:
        return self.below_high - self.below_low

    def halves(self, middle: float, below: int) -> list[Piece]:
        """Return the parts below and above a point that has so many eigenvalues below it."""
        fruitless = self.fruitless + 1 if below in (self.below_low, self.below_high) else 0
        return [
            Piece(self.low, middle, self.below_low, below, fruitless),
            Piece(middle, self.high, below, self.below_high, fruitless),
        ]


class Found:
    """What is found and what is left, in a checkpoint if there is one.

    Attributes
    ----------
    vectors
        Of the pieces that are done; of a search without a count, all so far.
    whole
        The interval, counted; None until it is.
    waiting
        The pieces that are left, the next one last; None until the interval is cut up.
    unresolved
        Pieces in which some are missing, with the number found.
    repairs
        Solves beyond the first of a piece.
    expected, attempt
        Of a search without a count: how many the next attempt is prepared for, and which it is.
    """

    def __init__(self, search: Search | None = None):
        self._search = search
        facts, self.vectors = ({}, []) if search is None else search.load()
        self.whole = Piece(*facts["whole"]) if facts.get("whole") else None
        waiting = facts.get("waiting")
        self.waiting = None if waiting is None else [Piece(*one) for one in waiting]
        self.unresolved = [(Piece(*one), many) for one, many in facts.get("unresolved", [])]
        self.repairs = facts.get("repairs", 0)
        self.expected: int | None = facts.get("expected")
        self.attempt = facts.get("attempt", 0)

    @classmethod
    def of(cls, piece: Piece) -> Found:
        """Return the beginning of a search in a piece, which nothing saves. Not collective."""
        made = cls()
        made.whole, made.waiting = piece, [piece]
        return made

    @property
    def on_restart(self):
        """What a solver calls between restarts, or None: see `KrylovSchur`. What it has not ended is left out."""
        if self._search is None:
            return None
        return lambda basis: self._search.look(self._state)

    @property
    def wanted(self) -> bool:
        """Whether this rank would save now. Not collective."""
        return self._search is not None and self._search.checkpoint.wanted

    def pause(self) -> None:
        """Save where it is due; after a signal raise `Stopped`. Collective."""
        if self._search is not None:
            self._search.pause(self._state)

    def _state(self) -> tuple[dict, list, list]:
        facts = {
            "whole": None if self.whole is None else dataclasses.astuple(self.whole),
            "waiting": None if self.waiting is None else [dataclasses.astuple(one) for one in self.waiting],
            "unresolved": [(dataclasses.astuple(one), many) for one, many in self.unresolved],
            "repairs": self.repairs,
            "expected": self.expected,
            "attempt": self.attempt,
        }
        return facts, self.vectors, []
