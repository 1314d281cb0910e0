"""Advice before a run: what each way to an answer takes, which one a run takes, and which one is best."""

from __future__ import annotations

from dataclasses import dataclass

from sparsehess.commands.cost_model import Memory
from sparsehess.commands.planned_calls import Calls
from sparsehess.commands.planned_products import Products
from sparsehess.commands.reports.tables import format_columns
from sparsehess.commands.spectrum_probe import SpectrumProbe
from sparsehess.eigen.solvers.method_choice import Choice

# LAPACK is no slower than others for more than the part _MANY of all eigenpairs, up to _SMALL rows.
_MANY, _SMALL = 0.25, 1000

# Backward errors that products in single precision can reach.
_SINGLE = 1e-5

# So inexact products do not pass the check of an assembly, which knows no noise of products.
_CHECKED = 1e-5

# A pattern is dense that takes so many colours, as a part of the variables.
_DENSE = 0.5

_SHELL = "matrix-free"


@dataclass(frozen=True)
class SolveRequest:
    """The eigenpairs to be solved for: k of them (None: all of a range), at which end, to which tolerance."""

    k: int | None
    end: str | None
    tol: float


@dataclass(frozen=True)
class Costs:
    """What ways cost.

    Attributes
    ----------
    assembly
        Calls of an assembly; None for a matrix file.
    shell, products
        Calls, and products, of a Hessian that is never assembled; None where that cannot be.
    refused
        Why it cannot be; empty where it can.
    second
        Seconds of one call on one rank; None where nothing was measured.
    needed
        Memory with a factorization.
    ranks, free
        Ranks that share the memory, and bytes that one of them may take.
    detects
        Whether the pattern has to be found first.
    shelled
        Whether products alone are asked for.
    """

    assembly: Calls | None
    shell: Calls | None
    products: Products | None
    refused: str
    second: float | None
    needed: Memory
    ranks: int
    free: int
    detects: bool = False
    shelled: bool = False


@dataclass(frozen=True)
class Alternative:
    """A way to the answer.

    Attributes
    ----------
    name, flags
        Its name, and the flags that select it.
    calls
        (least, most) calls of the user's gradients or products, the most None where nothing bounds them; None for
        a matrix file.
    likely
        Calls that are to be reckoned with: the number that `evaluations` tells of the way that is asked for.
    seconds
        Of these on one rank; None where nothing was measured.
    memory
        Bytes on each rank.
    possible
        Whether it answers with this memory.
    why
        The reason for or against it.
    asked
        Whether the run that is planned takes this way.
    """

    name: str
    flags: str
    calls: tuple[int, int | None] | None
    likely: int | None
    seconds: float | None
    memory: int
    possible: bool
    why: str
    asked: bool = False


@dataclass(frozen=True)
class Advice:
    """The recommended way and precision, with reasons, and all alternatives."""

    method: str
    reason: str
    precision: str
    precision_reason: str
    alternatives: tuple[Alternative, ...]


def advise(wanted: SolveRequest, n: int, found: SpectrumProbe, costs: Costs, choice: Choice) -> Advice:
    """Recommend a way to eigenpairs, and a precision.

    Not collective.

    Parameters
    ----------
    found
        How the Hessian looks.
    choice
        The method that a run takes of an assembled matrix.
    """
    needed, ranks, free = costs.needed, costs.ranks, costs.free
    full = needed.per_rank(ranks)
    thin = needed.process + (needed.matrix + needed.vectors + needed.columns) // ranks
    dense = needed.process + 8 * n * n * 3
    noisy = _refuses_noise(found, costs)
    doubt = f"products err by {found.noise:.0e}, which the check of an assembly refuses; "
    inverts = wanted.end in ("smallest", None)
    once = choice.method == "oneshift"
    fits = (full if inverts else thin) <= free
    why = choice.reason if once and fits else _why_shifted(wanted, full if inverts else thin, free)
    shifted = _assembled(
        costs, "assembled, one factorization" if once else _name_of(wanted),
        "oneshift" if once else "slicing" if wanted.k is None else "krylovschur", full if inverts else thin,
        not noisy and fits, (doubt if noisy else "") + why,
    )  # fmt: skip
    bottom = wanted.end in ("smallest", "largest")
    preconditioned = _assembled(
        costs, "assembled, preconditioned (LOBPCG)", "lobpcg", thin, not noisy and bottom and thin <= free,
        "no factors" if bottom else "only for an end of the spectrum",
    )  # fmt: skip
    lapack = _assembled(
        costs, "assembled, dense (LAPACK)", "dense", dense, not noisy and dense <= free,
        "all eigenvalues at once" if dense <= free else f"{8 * n * n / 2**30:.3g} GiB for the matrix alone",
    )  # fmt: skip
    ways = [shifted, preconditioned, lapack]
    by_name = {choice.method: shifted} if once else {"krylovschur": shifted, "slicing": shifted}
    by_name |= {"lobpcg": preconditioned, "dense": lapack}
    run = by_name.get(choice.method)
    if run is None:
        run = _assembled(costs, f"assembled, {choice.method}", choice.method, full, not noisy, choice.reason)
        ways.append(run)
    return _advice(ways, run, wanted, n, found, costs)


def advise_on_estimate(command: str, n: int, found: SpectrumProbe, costs: Costs) -> Advice:
    """Recommend a way to an answer without eigenpairs: by a matrix, or by products. Not collective."""
    needed, noisy = costs.needed, _refuses_noise(found, costs)
    memory = needed.per_rank(costs.ranks)
    why = "products err too much for the check of an assembly" if noisy else "the matrix tells it"
    by_matrix = _assembled(costs, f"assembled, {command}", "auto", memory, not noisy and memory <= costs.free, why)
    return _advice([by_matrix], by_matrix, SolveRequest(None, None, 1e-8), n, found, costs)


def _advice(
    ways: list[Alternative], run: Alternative, wanted: SolveRequest, n: int, found: SpectrumProbe, costs: Costs
) -> Advice:
    """Return the advice on ways by a matrix, and on that by products."""
    shell = _by_products(costs)
    ways = [_marked(way, way is run and not costs.shelled) for way in ways]
    if shell is not None:
        ways.append(shell)
    chosen, reason = _chosen(ways, wanted, n)
    if shell is not None and costs.assembly is not None and chosen is not shell and _is_dense(costs.assembly, n):
        reason += f"; the pattern is dense: --shell takes {_told(shell)} calls and no pattern"
    return Advice(chosen.name, reason, *_precision(chosen, wanted, costs, found), tuple(ways))


def _assembled(costs: Costs, name: str, method: str, memory: int, possible: bool, why: str) -> Alternative:
    """Return a way by an assembled matrix."""
    calls = costs.assembly
    detect = "--pattern detect" if costs.detects else ""
    flags = detect if method == "auto" else f"{detect} --method {method}".strip()
    return Alternative(name, flags, *_calls(calls, costs.second), memory, possible, why)


def _by_products(costs: Costs) -> Alternative | None:
    """Return the way by products alone; None for a matrix file."""
    if costs.assembly is None:
        return None
    needed, products = costs.needed, costs.products
    memory = needed.process + needed.vectors // costs.ranks
    if products is None or costs.shell is None:
        return Alternative(_SHELL, "--shell", None, None, None, memory, False, costs.refused, costs.shelled)
    counted = f"{products.likely}" if products.least == products.most else f"about {products.likely}"
    why = f"{counted} products; {products.reason}"
    possible = not products.refused and memory <= costs.free
    return Alternative(
        f"{_SHELL}, {products.method}", products.flags, *_calls(costs.shell, costs.second), memory, possible,
        products.refused or why, costs.shelled,
    )  # fmt: skip


def _calls(
    calls: Calls | None, second: float | None
) -> tuple[tuple[int, int | None] | None, int | None, float | None]:
    """Return (least and most, likely, seconds) of calls."""
    if calls is None:
        return None, None, None
    return (calls.least, calls.most), calls.total, None if second is None else calls.total * second


def _marked(way: Alternative, asked: bool) -> Alternative:
    return Alternative(**{**way.__dict__, "asked": asked})


def _name_of(wanted: SolveRequest) -> str:
    if wanted.k is None:
        return "assembled, slices by shift-and-invert"
    return "assembled, shift-and-invert" if wanted.end in ("smallest", None) else "assembled, Krylov-Schur"


def _why_shifted(wanted: SolveRequest, memory: int, free: int) -> str:
    if memory > free:
        return f"it does not fit: {memory / 2**30:.1f} GiB on a rank that may take {free / 2**30:.1f}"
    if wanted.k is not None and wanted.end in ("largest", "magnitude"):
        return "the largest converge first"
    return "few solves, and counts that certify"


def _refuses_noise(found: SpectrumProbe, costs: Costs) -> bool:
    """Return whether an assembly would refuse products for their noise, of which it knows nothing."""
    calls = costs.assembly
    return calls is not None and calls.scheme == "product" and calls.verification > 0 and found.noise > _CHECKED


def _is_dense(calls: Calls, n: int) -> bool:
    return calls.colors is not None and n > 1 and calls.colors >= _DENSE * n


def _chosen(ways: list[Alternative], wanted: SolveRequest, n: int) -> tuple[Alternative, str]:
    """Return the recommended way, and the reason."""
    first = ways[0]
    by_name = {way.flags.rpartition("--method ")[2]: way for way in ways if not way.name.startswith(_SHELL)}
    preconditioned, dense = by_name.get("lobpcg"), by_name.get("dense")
    shell = next((way for way in ways if way.name.startswith(_SHELL) and way.possible), None)
    many = dense is not None and dense.possible and n <= _SMALL and (wanted.k or 0) > _MANY * n
    if many and dense is not None:
        return dense, f"{wanted.k} of {n}: LAPACK takes no longer for all of them"
    if shell is not None and shell.likely is not None and first.likely is not None and shell.likely < first.likely:
        return shell, f"{_told(shell)} calls for its products, where assembling takes {_told(first)}"
    if first.possible:
        saved = "" if shell is None else f"; products alone take {_told(shell)} calls"
        return first, f"{first.why}{saved}"
    if preconditioned is not None and preconditioned.possible:
        return preconditioned, f"{first.why}; the matrix itself does fit"
    if shell is not None:
        return shell, first.why
    return first, f"nothing else gives what is wanted, but {first.why}: take more ranks"


def _told(way: Alternative) -> str:
    """Return the calls of a way in words."""
    if way.calls is None or way.calls[0] == way.calls[1]:
        return str(way.likely)
    return f"about {way.likely}"


def _precision(chosen: Alternative, wanted: SolveRequest, costs: Costs, found: SpectrumProbe) -> tuple[str, str]:
    """Return the precision of products, and the reason."""
    if not chosen.name.startswith(_SHELL) or costs.shell is None:
        return "double", "an assembled matrix and its factors are double"
    if costs.shell.scheme != "product":
        return "double", "differences of gradients lose half of the digits already"
    if max(wanted.tol, found.tolerance) < _SINGLE:
        return "double", f"single precision reaches backward errors of about {_SINGLE:g}, not {wanted.tol:g}"
    return "single", f"a tolerance of {max(wanted.tol, found.tolerance):.2g} needs no more, and products move half"


def look_lines(found: SpectrumProbe, n: int, nnz: int | None, wanted: SolveRequest) -> list[str]:
    """Return how a Hessian looks as lines of text. Not collective."""
    row = found.row if found.row is not None else (nnz / n if nnz else None)
    sparse = "" if row is None else f"{row:.3g} entries a row ({row / n:.2g} of all), "
    low, high = found.effective_rank_bars
    spent = f", {found.calls} calls in all" if found.calls else ""
    told = [
        f"looks        {sparse}trace {found.trace:.4g} ± {found.trace_error:.1g}, "
        f"eigenvalues from {found.low:.3g} to {found.high:.3g} at least",
        f"             effective rank (Σ λ²)² / Σ λ⁴ = {found.effective_rank:.3g} of {n}, {low:.3g} to {high:.3g} "
        "with 90 %",
        f"             by {found.products} products of {found.seconds:.2g} s{spent}",
    ]
    if found.noise > 0 and found.tolerance > wanted.tol:
        told.append(
            f"noise        products err by {found.noise:.1e}: pairs found by them are held to "
            f"{found.tolerance:.1e}, not to {wanted.tol:g}"
        )
    return told


def advice_lines(advice: Advice) -> list[str]:
    """Return the advice as lines of text. Not collective."""
    rows = [("way", "calls", "seconds", "MiB a rank", "", "")]
    for way in advice.alternatives:
        calls = "-" if way.calls is None else _told(way)
        if way.calls is not None and way.calls[0] != way.calls[1]:
            most = " at least" if way.calls[1] is None else f"-{way.calls[1]}"
            calls = f"{way.likely} ({way.calls[0]}{most})"
        seconds = "-" if way.seconds is None else f"{way.seconds:.3g}"
        marks = [*(["asked"] if way.asked else []), *(["<- take"] if way.name == advice.method else [])]
        mark = ", ".join(marks) if way.possible else ", ".join([*marks, "no"])
        rows.append((way.name, calls, seconds, f"{way.memory / 2**20:.0f}", mark, way.why))
    flags = next(way.flags for way in advice.alternatives if way.name == advice.method)
    return [
        "",
        format_columns(rows),
        "",
        f"take         {advice.method}{f' ({flags})' if flags else ''}: {advice.reason}",
        f"precision    {advice.precision}: {advice.precision_reason}",
    ]
