"""Independent samples dealt out to groups of ranks, each of which has the whole of the matrices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import numpy as np

from sparsehess.eigen.estimates.reduced_operator import ReducedOperator
from sparsehess.eigen.problem.group_copies import copy_on_group, copy_vectors_on_group
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.errors import InputError
from sparsehess.runtime import destroy, raise_together
from sparsehess.runtime.process_groups import Teams

T = TypeVar("T")


def check_groups(operator: ReducedOperator, groups: int, samples: int) -> None:
    """Raise InputError where samples cannot be dealt out to so many groups. Not collective."""
    most = min(operator.comm.size, samples)
    if not 1 <= groups <= most:
        raise InputError(
            f"groups={groups} must be from 1 to {most}: no more than ranks ({operator.comm.size}) "
            f"or samples ({samples})"
        )
    if groups > 1 and not operator.problem.assembled:
        raise InputError(
            "groups are for assembled matrices, of which each group takes a copy: assemble the Hessian"
        )


def run_in_groups(
    operator: ReducedOperator,
    deflate: Spectrum | None,
    groups: int,
    samples: int,
    run: Callable[[ReducedOperator, range], list[T]],
) -> list[T]:
    """Return what `run` makes of samples 0 to samples - 1, one entry each, the same on every rank.

    Collective. The samples depend on their numbers alone, so that groups change nothing but rounding.

    Parameters
    ----------
    deflate
        What the operator deflates, as it was given.
    run
        Called as run(operator, numbers) on the ranks of each group, with their copy of the operator.
    """
    if groups == 1:
        return run(operator, range(samples))
    comm, problem = operator.comm, operator.problem
    teams = Teams(problem.layout, groups)
    results: list[T] = []
    products = 0
    error: BaseException | None = None
    try:
        with closing(copy_on_group(problem, teams)) as inner:
            copies = [] if deflate is None else copy_vectors_on_group(deflate.vectors, inner.A, teams)
            known = deflate and replace(deflate, vectors=copies)
            try:
                ends = np.arange(groups + 1) * samples // groups
                with closing(ReducedOperator(inner, known)) as copy:
                    results = run(copy, range(ends[teams.index], ends[teams.index + 1]))
                    products = copy.products
            except BaseException as caught:  # the other groups must hear of it
                error = caught
            finally:
                destroy(*copies)
            raise_together(comm, error)
        told = comm.allgather((results, products) if teams.comm.rank == 0 else ([], 0))
    finally:
        teams.close()
    operator.products += sum(count for _, count in told)
    return [result for part, _ in told for result in part]
