"""Where the entries of a Hessian come from: compressed columns, all together or some at a time, or elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import Steps, compress
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.recovery import Direct, Plan, Recovered
from sparsehess.runtime.citations import cite


@dataclass(frozen=True, eq=False)
class AllColumns:
    """All compressed columns are held together."""

    plan: Plan

    def take(self, evaluations: Evaluations, steps: Steps, values: np.ndarray) -> Recovered:
        """Fill `values` (nnz_local,) with the Hessian's entries. Collective."""
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


def replan(source: Source, plan: Plan) -> Source:
    """Return a source of the same kind for another pattern. Not collective.

    Raises
    ------
    TypeError
        A sum over elements has no columns, and its pattern is that of its elements.
    """
    if isinstance(source, SomeColumns) and isinstance(plan, Direct):
        return SomeColumns(plan, source.columns)
    if isinstance(source, AllColumns):
        return AllColumns(plan)
    raise TypeError(f"{type(source).__name__} takes no {type(plan).__name__}")
