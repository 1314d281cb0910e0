"""What methods that find the eigenpairs of an interval have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sparsehess.eigen.problem.petsc_options import PREFIX, Options
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.solve_monitor import OnProgress, OnRestart, ignore_progress, ignore_restart
from sparsehess.runtime import PETSc


class Finder(Protocol):
    """Finds eigenpairs of intervals of one problem.

    Attributes
    ----------
    seconds
        Time in factorizations and in solves.
    iterations
        Of all solves.
    """

    seconds: dict[str, float]
    iterations: int

    def find(
        self,
        low: float,
        high: float,
        expected: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        seed: int = 0,
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return eigenvectors with eigenvalues in and about [low, high]; the caller destroys them. Collective."""

    def predict_products(self, low: float, high: float, expected: int) -> float:
        """Return about how many products all searches of an interval take; 0 where they are no measure."""

    def used_defaults(self) -> dict:
        """Return the PETSc options of the solves: the defaults, overridden by the caller's. Not collective."""

    def close(self) -> None:
        """Destroy what is kept between solves. Collective."""


@dataclass
class IntervalMethod(ABC):
    """A method for intervals, kept for several of them; `close()` destroys what it keeps.

    Attributes
    ----------
    problem
        What is solved.
    options
        PETSc options without a prefix; they override the method's defaults.
    tol
        Tolerance of the method.
    on_progress
        Called on every rank as on_progress(converged, expected).
    seconds
        Time in factorizations and in solves.
    iterations
        Of all solves.
    """

    problem: EigenProblem
    options: dict
    tol: float
    on_progress: OnProgress = field(default=ignore_progress, kw_only=True)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"factorization": 0.0, "solve": 0.0}, init=False, repr=False
    )
    iterations: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Prepare the caller's options."""
        self._given = Options(PREFIX, self.options)

    @property
    @abstractmethod
    def defaults(self) -> dict:
        """PETSc options of the solves, unless the caller overrides them."""

    def used_defaults(self) -> dict:
        """Return the PETSc options of the solves: the defaults, overridden by the caller's. Not collective."""
        return {**self.defaults, **self.options}

    @abstractmethod
    def find(
        self,
        low: float,
        high: float,
        expected: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        seed: int = 0,
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return eigenvectors with eigenvalues in and about [low, high]; the caller destroys them.

        Collective.

        Parameters
        ----------
        low, high
            Ends.
        expected
            How many there are beside those to deflate, about.
        deflate
            Vecs to stay away from, such as those found before; so are the problem's null vectors.
        seed
            Of the starting vectors.
        on_restart
            Called between iterations; what it returns ends the solve.
        """

    def predict_products(self, low: float, high: float, expected: int) -> float:
        """Return about how many products all searches of an interval take; 0 where they are no measure.

        Not collective.
        """
        return 0.0

    def close(self) -> None:  # noqa: B027  (some methods keep nothing)
        """Destroy what is kept between solves. Collective."""
