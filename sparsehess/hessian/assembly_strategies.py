"""Where the entries of a Hessian come from: compressed columns, all together or some at a time, or elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.derivatives.compressed_products import CompressedProducts
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import Steps, compress
from sparsehess.derivatives.objective import Objective
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.recovery import Direct, Plan, Recovered
from sparsehess.runtime.citations import cite


@dataclass(frozen=True, eq=False)
class AllColumns:
    """All compressed columns are held together.

    Attributes
    ----------
    made
        Products that were made for the colouring; None where there are none.
    """

    plan: Plan
    made: CompressedProducts | None = None

    @classmethod
    def of(cls, objective: Objective, plan: Plan, scheme: str) -> AllColumns:
        """Return the source for a plan, with products made for its colouring where the objective has them.

        Collective.
        """
        coloring, one = plan.coloring, objective.comm.size == 1
        if objective.compressed is None or scheme != "product" or not one or coloring.count > objective.batch:
            return cls(plan)
        reads = plan.reads if isinstance(plan, Direct) else np.zeros(0, np.int32)
        return cls(plan, objective.compressed(coloring.colors, coloring.count, reads))

    def take(self, evaluations: Evaluations, steps: Steps, values: np.ndarray) -> Recovered:
        """Fill `values` (nnz_local,) with the Hessian's entries. Collective."""
        if self.made is not None and not evaluations.recorder.saves:
            changes = evaluations.compressed(self.made, self.plan.coloring.count)
            if not isinstance(self.plan, Direct):  # which leaves them as they are
                changes = changes.copy()
            return self.plan.recover(changes, steps.taken, values)
        compressed = compress(evaluations, self.plan.coloring, steps)
        return self.plan.recover(compressed.changes, compressed.taken, values)


@dataclass(frozen=True, eq=False)
class SomeColumns:
    """A few compressed columns are held at a time, for direct recovery."""

    plan: Direct
    columns: int

    def take(self, evaluations: Evaluations, steps: Steps, values: np.ndarray) -> Recovered:
        """Fill `values` (nnz_local,) with the Hessian's entries. Collective."""
        count = self.plan.coloring.count
        values[:] = 0.0
        for first in range(0, count, self.columns):
            last = min(first + self.columns, count)
            part = compress(evaluations, self.plan.coloring, steps, first, last)
            self.plan.collect(first, part.changes, part.taken, values)
        return self.plan.finish(values)


@dataclass(frozen=True, eq=False)
class ElementByElement:
    """One variable of every element is moved at a time."""

    plan: ElementAssembly

    def take(self, evaluations: Evaluations, steps: Steps, values: np.ndarray) -> Recovered:
        """Fill `values` (nnz_local,) with the Hessian's entries. Collective."""
        cite("elements")
        evaluations.by_element(steps.nodes, steps.taken, self.plan)
        return self.plan.finish(values)


# What fills in the entries of a pattern, again and again; `plan` tells where each entry is read.
Source = AllColumns | SomeColumns | ElementByElement


def replan(source: Source, objective: Objective, plan: Plan, scheme: str) -> Source:
    """Return a source of the same kind for another pattern. Collective.

    Raises
    ------
    TypeError
        A sum over elements has no columns, and its pattern is that of its elements.
    """
    if isinstance(source, SomeColumns) and isinstance(plan, Direct):
        return SomeColumns(plan, source.columns)
    if isinstance(source, AllColumns):
        return AllColumns.of(objective, plan, scheme)
    raise TypeError(f"{type(source).__name__} takes no {type(plan).__name__}")
