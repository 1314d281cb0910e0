"""Which method: chosen from what is asked, what is there, and what would fit; with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.whole_matrix import is_cheaper_whole
from sparsehess.eigen.solvers.lobpcg import guarded
from sparsehess.eigen.solvers.one_shift import MOST
from sparsehess.eigen.solvers.predicted_seconds import predict_seconds
from sparsehess.errors import InputError
from sparsehess.operators.operator import Operator
from sparsehess.runtime import has_package
from sparsehess.runtime.memory import free_memory

# From this size on a solve that has a guess of all pairs saves a factorization.
_WARM = 2000

# From this size on what a factorization is predicted to take decides.
LARGE = 30_000

# By name or by a preconditioner, for the ends of a spectrum.
PRECONDITIONED = ("lobpcg", "gd", "jd")

# By products, or krylovschur by shift-and-invert.
KRYLOV = ("krylovschur", "power", "lanczos")
ENDS = ("smallest", "largest", "magnitude")

# LAPACK serves where this part of all eigenpairs is wanted of so small a matrix.
_MANY, _SMALL = 0.25, 1000


# Products with a smaller error than this are those of a matrix.
_EXACT = 1e-12

# Restarts of Krylov-Schur by products until six pairs have converged, in the middle of what was measured: spectra
# that are even, those of chains, power laws and networks, n from 300 to 2000. Half a subspace is kept at each.
_RESTARTS = {"smallest": 100, "largest": 40, "magnitude": 40}

# Where most eigenvalues crowd at the lower end they grow with n: in the middle one for so many rows.
_ROWS = 8


@dataclass(frozen=True)
class Choice:
    """A method and why it is taken.

    Attributes
    ----------
    method, reason
        One of `METHODS`, and why.
    whole
        Whether a matrix-free Hessian is to be made whole first, see `whole_problem`.
    """

    method: str
    reason: str
    whole: bool = False


_SHIFT_AND_INVERT = Choice("krylovschur", "shift-and-invert: the wanted ones converge in few solves")
_ASKED = "asked for"

# Reasons that say no more than those of the part of the spectrum.
GENERAL = (_ASKED, _SHIFT_AND_INVERT.reason)


def choose_method(problem: EigenProblem, spec: SolveSpec) -> Choice:
    """Return the method for a problem: the one asked for, or the one that suits.

    Collective.

    Raises
    ------
    InputError
        The method asked for cannot do what is wanted.
    """
    if _is_told(problem, spec):
        return Choice("structure", "the structure of the Hessian tells its eigenpairs")
    whole = _is_made_whole(problem, spec)
    _check(problem, spec, whole)
    if spec.method != "auto":
        return Choice(spec.method, _ASKED, whole)
    if problem.preconditioner is not None:
        return Choice("gd", "a matrix near the Hessian is there to precondition Davidson's method")
    if whole:
        rest = "to their accuracy" if problem.relative_error > _EXACT else "all else is exact"
        reason = f"a matrix-free Hessian of {problem.n} variables: as many products give it whole, {rest}"
        return Choice("dense", reason, whole)
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
    alike = problem.scaled_by is None  # else LAPACK's rounding is that of the largest eigenvalue
    if alike and problem.n <= _SMALL and not problem.guess and spec.number > _MANY * problem.n:
        return Choice("dense", f"{spec.k} of {problem.n}: LAPACK takes no longer for all of them")
    if problem.n >= _WARM and len(problem.guess) >= spec.number and not _asks_how(problem, spec):
        return Choice(
            "oneshift", "a guess tells where the wanted end: one factorization past them finds and counts"
        )
    if problem.n >= LARGE and spec.target is None and spec.which == "smallest":
        return _of_a_large_matrix(problem, spec)
    return _SHIFT_AND_INVERT


def _of_a_large_matrix(problem: EigenProblem, spec: SolveSpec) -> Choice:
    """Return the method for the smallest where what a factorization takes decides. Collective."""
    if not has_package("mumps"):
        return _SHIFT_AND_INVERT
    cost, there = problem.factor_cost, free_memory(problem.comm)
    if cost.most > there:
        short = f"a factorization would take {cost.most / 2**30:.1f} GiB on a rank that has {there / 2**30:.1f}: "
        if spec.count == "yes" or problem.finite < problem.n:
            return Choice("krylovschur", short + "its factors go to disk")
        return Choice("lobpcg", short + "preconditioned by multigrid instead")
    if _asks_how(problem, spec):
        return _SHIFT_AND_INVERT
    once, below = predict_seconds(problem, cost, spec.number)
    if once < below:
        return Choice(
            "oneshift",
            f"one factorization, past the wanted ones, finds and counts them: {once:.0f} s predicted, and "
            f"{below:.0f} from below",
        )
    return Choice(
        "krylovschur",
        f"shift-and-invert: the wanted ones converge in few solves; {below:.0f} s predicted, and {once:.0f} with "
        "one factorization",
    )


def _is_told(problem: EigenProblem, spec: SolveSpec) -> bool:
    """Return whether the structure tells the pairs, and nobody says how else they are to be found. Collective."""
    if spec.method not in ("auto", "structure") or _asks_otherwise(problem, spec):
        return False
    return problem.told.knows_pairs


def _asks_otherwise(problem: EigenProblem, spec: SolveSpec) -> bool:
    """Return whether a caller says what methods are to start from, or how they are to be set up."""
    return bool(problem.guess or problem.preconditioner or spec.options or spec.groups or spec.backend != "cpu")


def _is_made_whole(problem: EigenProblem, spec: SolveSpec) -> bool:
    """Return whether a matrix-free Hessian is so small that its products with all unit vectors are the cheapest.

    Not where a caller says what other methods are to start from, or how they are to be set up.
    """
    if problem.assembled or spec.method not in ("auto", "dense") or _asks_otherwise(problem, spec):
        return False
    counts_itself = problem.structure.knows_counts and not (spec.takes_all or spec.target is not None)
    return not counts_itself and is_cheaper_whole(problem.n, products_spent(problem.n, spec))


def products_spent(n: int, spec: SolveSpec) -> float:
    """Return how many products a method that takes nothing else is likely to spend; infinite where none will do.

    Not collective.
    """
    if spec.takes_all or spec.target is not None or spec.count == "yes" or spec.method == "dense":
        return np.inf
    if spec.which not in _RESTARTS:
        return np.inf
    subspace = max(2 * spec.number, spec.number + 15)  # SLEPc's own
    restarts = _RESTARTS[spec.which] if spec.which != "smallest" else max(_RESTARTS["smallest"], n / _ROWS)
    return subspace + restarts * subspace / 2


def _check(problem: EigenProblem, spec: SolveSpec, whole: bool) -> None:
    """Refuse what a method, or a matrix-free Hessian that is not made whole, cannot do."""
    method, nearest = spec.method, spec.target is not None
    if method == "structure":
        raise InputError(
            "method 'structure' is for a structured Hessian that tells its eigenpairs, without a mass, null "
            "vectors, a guess or options: take another method"
        )
    smallest = not spec.takes_all and not nearest and spec.which == "smallest"
    if not (problem.assembled or whole):
        counts_itself = problem.structure.knows_counts and not spec.takes_all
        if spec.count == "yes" and not counts_itself:
            raise InputError("a matrix-free Hessian has no factorization to count with: assemble it")
        if spec.which == "negative" and not nearest and not counts_itself:
            raise InputError(
                "the negative eigenvalues of a matrix-free Hessian cannot be told without a factorization: "
                "ask for the smallest, or assemble it"
            )
        if method in ("slicing", "ciss") or (nearest and method != "dense"):
            raise InputError(
                "a matrix-free Hessian has no factorization, which a target and the methods slicing and ciss "
                "need: assemble it, or ask for an interval by filter"
            )
    if method == "oneshift":
        why_not = why_no_one_shift(problem, spec)
        if why_not:
            raise InputError(f"method oneshift: {why_not}; take 'krylovschur'")
    needs = {
        "count='yes'": spec.count == "yes",
        "which='negative'": spec.which == "negative" and not nearest,
        "method='slicing'": method == "slicing",
    }
    if any(needs.values()) and _factorizes_uncounted(problem):
        asked = next(name for name, said in needs.items() if said)
        raise InputError(f"{asked} needs a count: {problem.uncounted}; nothing proves that none is missed")
    structured = isinstance(problem.preconditioner, Operator)
    if problem.preconditioner is not None and method == "feast" and (problem.assembled or not structured):
        raise InputError(
            "feast takes a structured preconditioner of a matrix-free Hessian, and factorizes any other: leave it "
            "out, or give the Hessian matrix-free and the preconditioner by its structure"
        )
    if problem.preconditioner is not None and method not in ("auto", "feast", *PRECONDITIONED):
        raise InputError(
            f"method {method!r} takes no preconditioner: those are for {', '.join(PRECONDITIONED)}, and "
            "structured ones of matrix-free Hessians for feast"
        )
    if problem.preconditioner is not None and method == "auto" and not smallest:
        raise InputError(
            "a preconditioner is for the smallest: for others nothing would take it unless asked to; leave it out"
        )
    if spec.groups is not None and method == "auto" and not problem.assembled:
        raise InputError(
            "groups each take a copy of an assembled matrix: a matrix-free Hessian has none; leave them out"
        )
    if problem.guess and (method == "dense" or (spec.takes_all and method != "feast")):
        raise InputError("a guess is for methods that start from vectors: of those for intervals feast, not dense")
    if method in KRYLOV[1:] and (nearest or spec.which not in (("magnitude",) if method == "power" else ENDS)):
        raise InputError(f"method {method!r} is for {'the magnitude' if method == 'power' else 'an end'} alone")
    if method in PRECONDITIONED and (nearest or spec.which not in ("smallest", "largest")):
        raise InputError(
            f"method {method!r} is for the smallest or the largest; for others there is 'krylovschur'"
        )


def _asks_how(problem: EigenProblem, spec: SolveSpec) -> bool:
    """Return whether one factorization cannot serve, or the caller says how to solve. Collective."""
    return bool(spec.options) or spec.backend != "cpu" or bool(why_no_one_shift(problem, spec))


def why_no_one_shift(problem: EigenProblem, spec: SolveSpec) -> str:
    """Return why one factorization past the wanted eigenvalues cannot serve, or empty. Collective."""
    if spec.takes_all or spec.target is not None or spec.which != "smallest":
        return "it is for the smallest"
    if not problem.assembled or problem.uncounted:
        return "it needs a factorization that counts"
    if problem.massless or problem.finite < problem.n:
        return "some eigenvalues are infinite"
    if spec.number > MOST or 2 * guarded(spec.number) > problem.sought:
        return f"it is for at most {MOST} pairs, and fewer than a third of all"
    return ""


def _factorizes_uncounted(problem: EigenProblem) -> bool:
    """Return whether there are factorizations, but none that counts."""
    return problem.factorizes and bool(problem.uncounted)
