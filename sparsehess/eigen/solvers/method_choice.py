"""Which method: chosen from what is asked, what is there, and what would fit; with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.eigen.problem.factor_memory import factor_memory
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.spectrum import SolveSpec
from sparsehess.errors import InputError
from sparsehess.runtime import has_package
from sparsehess.runtime.memory import free_memory

# From this size on MUMPS's analysis is asked whether a factorization fits.
_LARGE = 100_000

# By name or by a preconditioner, for the ends of a spectrum.
PRECONDITIONED = ("lobpcg", "gd", "jd")

# By products, or krylovschur by shift-and-invert.
KRYLOV = ("krylovschur", "power", "lanczos")
ENDS = ("smallest", "largest", "magnitude")

# LAPACK serves where this part of all eigenpairs is wanted of so small a matrix.
_MANY, _SMALL = 0.25, 1000


@dataclass(frozen=True)
class Choice:
    """A method and why it is taken."""

    method: str
    reason: str


def choose_method(problem: EigenProblem, spec: SolveSpec) -> Choice:
    """Return the method for a problem: the one asked for, or the one that suits.

    Collective.

    Raises
    ------
    InputError
        The method asked for cannot do what is wanted.
    """
    _check(problem, spec)
    if spec.method != "auto":
        return Choice(spec.method, "asked for")
    if problem.preconditioner is not None:
        return Choice("gd", "a matrix near the Hessian is there to precondition Davidson's method")
    if not problem.assembled:
        if spec.takes_all:
            return Choice("filter", "a matrix-free Hessian: Krylov-Schur on a polynomial of it, products alone")
        return Choice("krylovschur", "a matrix-free Hessian: Krylov-Schur with products alone")
    if spec.takes_all and _factorizes_uncounted(problem):
        if not np.isfinite(spec.ends).all():
            return Choice("filter", "an end is infinite, and nothing counts: a polynomial, products alone")
        return Choice("feast", f"{problem.uncounted}: contour integrals until nothing new is found")
    if spec.takes_all:
        return Choice("slicing", "subintervals of known inertia, each by shift-and-invert in its middle")
    if spec.target is None and spec.which in ("largest", "magnitude"):
        return Choice("krylovschur", "the largest converge first in a Krylov space")
    if problem.n <= _SMALL and not problem.guess and spec.number > _MANY * problem.n:
        return Choice("dense", f"{spec.k} of {problem.n}: LAPACK takes no longer for all of them")
    if problem.n >= _LARGE and spec.target is None and spec.which == "smallest":
        wanted, there = _factor_of_this(problem)
        if wanted > there and problem.finite == problem.n:
            return Choice(
                "lobpcg",
                f"a factorization would take {wanted / 2**30:.1f} GiB on a rank that has {there / 2**30:.1f}: "
                "preconditioned by multigrid instead",
            )
    return Choice("krylovschur", "shift-and-invert: the wanted ones converge in few solves")


def _check(problem: EigenProblem, spec: SolveSpec) -> None:
    """Refuse what a method, or a matrix-free Hessian, cannot do."""
    method, nearest = spec.method, spec.target is not None
    smallest = not spec.takes_all and not nearest and spec.which == "smallest"
    if not problem.assembled:
        if spec.count == "yes" and (problem.structure is None or spec.takes_all):
            raise InputError("a matrix-free Hessian has no factorization to count with: assemble it")
        if spec.which == "negative" and not nearest and (problem.structure is None or spec.takes_all):
            raise InputError(
                "the negative eigenvalues of a matrix-free Hessian cannot be told without a factorization: "
                "ask for the smallest, or assemble it"
            )
        if method in ("slicing", "ciss") or (nearest and method != "dense"):
            raise InputError(
                "a matrix-free Hessian has no factorization, which a target and the methods slicing and ciss "
                "need: assemble it, or ask for an interval by filter"
            )
    needs = {
        "count='yes'": spec.count == "yes",
        "which='negative'": spec.which == "negative" and not nearest,
        "method='slicing'": method == "slicing",
    }
    if any(needs.values()) and _factorizes_uncounted(problem):
        asked = next(name for name, said in needs.items() if said)
        raise InputError(f"{asked} needs a count: {problem.uncounted}; nothing proves that none is missed")
    if problem.preconditioner is not None and method not in ("auto", *PRECONDITIONED):
        raise InputError(f"method {method!r} takes no preconditioner: those are for {', '.join(PRECONDITIONED)}")
    if problem.preconditioner is not None and method == "auto" and not smallest:
        raise InputError("a preconditioner is for the smallest: for others nothing would take it unless asked to")
    if spec.groups is not None and method == "auto" and not problem.assembled:
        raise InputError("groups each take a copy of an assembled matrix: a matrix-free Hessian has none")
    if problem.guess and (method == "dense" or (spec.takes_all and method != "feast")):
        raise InputError("a guess is for methods that start from vectors: of those for intervals feast, not dense")
    if method in KRYLOV[1:] and (nearest or spec.which not in (("magnitude",) if method == "power" else ENDS)):
        raise InputError(f"method {method!r} is for {'the magnitude' if method == 'power' else 'an end'} alone")
    if method in PRECONDITIONED and (nearest or spec.which not in ("smallest", "largest")):
        raise InputError(
            f"method {method!r} is for the smallest or the largest; for others there is 'krylovschur'"
        )


def _factorizes_uncounted(problem: EigenProblem) -> bool:
    """Return whether there are factorizations, but none that counts."""
    return problem.factorizes and bool(problem.uncounted)


def _factor_of_this(problem: EigenProblem) -> tuple[int, int]:
    """Return bytes that the factor takes on the fullest rank, and bytes that a rank has. Collective."""
    if not has_package("mumps"):
        return 0, 0
    return factor_memory(problem)[0], free_memory(problem.comm)
