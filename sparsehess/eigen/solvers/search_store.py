"""Where a search saves what it has found, or nothing does: the interface, and the store that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sparsehess.runtime import PETSc

# gather() returns (facts as JSON, vectors, further vectors that are destroyed after saving).
Gather = Callable[[], tuple[dict, list[PETSc.Vec], list[PETSc.Vec]]]


class SearchStore(Protocol):
    """Saves the state of one call of `solve`. Collective to use."""

    @property
    def wants_save(self) -> bool:
        """Whether this rank would save now. Not collective."""

    def load(self) -> tuple[dict, list[PETSc.Vec]]:
        """Return (facts, vectors) as they were saved, or ({}, []); the caller destroys the vectors. Collective."""

    def save_if_due(self, gather: Gather) -> BaseException | None:
        """Save where it is due; return the error that is to end the solve, after a signal `Stopped`.

        Collective.
        """

    def pause(self, gather: Gather) -> None:
        """Save where it is due; after a signal raise `Stopped`. Collective."""


class NoStore:
    """The store of a search that nothing saves."""

    wants_save = False

    def load(self) -> tuple[dict, list[PETSc.Vec]]:
        """Return ({}, []). Not collective."""
        return {}, []

    def save_if_due(self, gather: Gather) -> None:
        """Do nothing. Not collective."""

    def pause(self, gather: Gather) -> None:
        """Do nothing. Not collective."""
