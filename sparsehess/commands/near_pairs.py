"""`eigs --pattern near`: the lowest pairs of a Hessian in which everything couples, by products with it itself."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sparsehess.commands.differentiation import near_far_forecast, number_of_gradients
from sparsehess.commands.flag_groups import refuse_flags
from sparsehess.errors import InputError
from sparsehess.long_range import NearFar
from sparsehess.runtime.short_repr import number_of

if TYPE_CHECKING:
    from sparsehess.commands.call import Call
    from sparsehess.eigen.problem.solve_spec import SolveSpec
    from sparsehess.eigen.problem.spectrum import Spectrum

# Flags of `eigs` that nothing heeds there, with their defaults.
_UNHEEDED: dict[str, Any] = {
    **{"which": "smallest", "interval": None, "target": None, "method": "auto", "count": "auto", "backend": "cpu"},
    **{"groups": None, "guess": None, "preconditioner": None, "mass": None, "nullspace": None},
    **{"drop": None, "keep": None, "participation": None, "coordinates": None, "checkpoint": None},
}


def refuse_beside_near(call: Call) -> None:
    """Refuse what `eigs --pattern near` would not heed. Not collective."""
    refuse_flags(
        call.arguments,
        _UNHEEDED,
        "--pattern near finds the lowest pairs by true products, with mass and null vectors of the problem; "
        "in Python sh.eigs takes sh.near_far",
    )
    if call.options:
        raise InputError(f"-{next(iter(call.options))}: --pattern near takes no options of PETSc; leave it out")


def explain_near(call: Call) -> tuple[dict[str, Any], str]:
    """Return what `--explain` says of a run: facts, and lines for people. Collective.

    Nothing is evaluated.
    """
    refuse_beside_near(call)
    objective, found = near_far_forecast(call)
    budget, n, ranks = number_of_gradients(call.arguments), objective.n, call.comm.size
    reason = "products with the Hessian itself, solves with what is near and far"
    facts = {"n": n, "method": "davidson", "reason": reason, "whole": False, "near_far": asdict(found)}
    far = "nothing: all points are near each other"
    if found.pairs:
        far = (
            f"each product takes {found.pairs:,} pairs of points, about {found.seconds:.2g} s on "
            f"{number_of(ranks, 'rank')}; a run makes hundreds, and stores none of the pairs"
        )
    return facts, "\n".join(
        [
            "method       davidson",
            f"because      {reason}",
            f"near         points within {found.cutoff:.4g}: {found.nnz:,} entries, {found.colors} colours",
            f"derivatives  about {found.gradients} gradients or products, up to {max(budget, n)} where the error "
            f"asks for it; up to {budget} for the pairs",
            f"far          {far}",
            f"memory       about {found.bytes / 2**20:.3g} MiB on a rank, without factors of what is near",
        ]
    )


def solve_near(arguments: argparse.Namespace, hessian: NearFar, spec: SolveSpec) -> Spectrum:
    """Return the lowest pairs. Collective; the caller closes them."""
    from sparsehess.eigen.solvers.lowest_pairs import lowest_pairs

    assert spec.k is not None  # it is complete
    return lowest_pairs(
        hessian,
        spec.k,
        gradients=number_of_gradients(arguments),
        tol=spec.tol,
        seed=spec.seed,
        strict=False,
    )


def near_facts(hessian: NearFar) -> dict[str, Any]:
    """Return what JSON says of what is near and far. Not collective."""
    kernel = hessian.kernel
    return {
        "cutoff": hessian.cutoff,
        "functions": 0 if kernel is None else kernel.coefficients.size,
        "error": hessian.error,
        "approximate": hessian.approximate,
    }


def near_lines(hessian: NearFar, facts: dict[str, Any], coloring: str) -> str:
    """Return how what is near and far was found, for people. Not collective.

    Parameters
    ----------
    coloring
        What is told of it.
    """
    calls, functions = facts["evaluations"], facts["near_far"]["functions"]
    far = f"{functions} radial functions, fitted" if functions else "left out: no kernel fits, or nothing is far"
    told = ", more than was asked for: approximate" if hessian.approximate else ""
    return "\n".join(
        [
            f"problem      {hessian.objective.name}, {facts['n']} variables",
            f"near         {facts['nnz']} entries, between points within {hessian.cutoff:.4g}",
            f"coloring     {coloring}",
            f"far          {far}",
            f"derivatives  {calls['gradient']} gradients, {calls['hvp']} products, {calls['noise']} for noise, "
            f"{calls['verification']} for the error, {calls['earlier']} in attempts before, "
            f"{calls['refinement']} for the pairs",
            f"error        about {hessian.error:.1e} of the matrix of near and far, by fresh products{told}",
        ]
    )
