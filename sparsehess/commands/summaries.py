"""What commands tell: facts for JSON, and lines for people."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.coloring import Coloring, verify_coloring
from sparsehess.commands.frequency_units import count_place, frequency_facts, place_lines
from sparsehess.commands.input_facts import digits_lines, input_facts, rounding_facts
from sparsehess.commands.inputs import Input
from sparsehess.commands.near_pairs import near_facts, near_lines
from sparsehess.commands.output import SCHEMA, process_facts
from sparsehess.commands.reports.error_words import error_words
from sparsehess.commands.reports.tables import count_line, reading_notes, spectrum_table
from sparsehess.eigen.certificates.sparsification import Sparsified
from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.search import Search
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.hessian.hessian import Hessian
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.long_range import NearFar
from sparsehess.operators.eigenvalues import Inertia

if TYPE_CHECKING:
    from sparsehess.derivatives.units import Units
    from sparsehess.eigen.certificates.numerical_rank import Rank
    from sparsehess.eigen.estimates import Density, Trace
    from sparsehess.eigen.estimates.spectral_density import Quantile


# Calls of the user's functions where there are none, by purpose.
_NO_CALLS = dict.fromkeys(("gradient", "hvp", "energy", "noise", "pattern", "verification"), 0)

# Errors of products that are smaller are those of rounding.
_EXACT = 1e-12


def coloring_facts(coloring: Coloring, valid: bool) -> dict[str, Any]:
    """Return what JSON says of a colouring. Not collective."""
    return {
        "kind": coloring.kind,
        "order": coloring.order,
        "rule": coloring.rule,
        "colors": coloring.count,
        "lower_bound": coloring.lower_bound,
        "optimal": coloring.optimal,
        "valid": valid,
    }


def _gap(facts: dict[str, Any]) -> str:
    return "proven least" if facts["optimal"] else f"no fewer than {facts['lower_bound']}"


def color_lines(facts: dict[str, Any], broken: tuple[int, int] | None, verbose: bool) -> str:
    """Return the answer of `color` for people. Not collective."""
    lines = [
        f"pattern      {facts['n']} variables, {facts['nnz']} entries",
        f"coloring     {facts['colors']} colors ({facts['kind']}, {facts['order']}; {_gap(facts)}), "
        f"{facts['seconds']:.3f} s",
        f"made by      {facts['rule']}",
        f"definition   {'holds' if broken is None else f'broken at entry {broken}'}",
    ]
    if (facts["amplification"] or 1) > 1:
        lines.append(
            f"recovery     by substitution, errors up to {facts['amplification']:.0f} times those of differences"
        )
    attempts = facts["attempts"]
    if len(attempts) > 1:
        lines.append(f"attempts     {len(attempts)}")
        shown = attempts if verbose else [one for one in attempts if "restart" not in one["name"]][:12]
        lines += [
            f"  {one['count']:6d}  {one['name']}, {one['seconds']:.3f} s{_mark(one, facts['colors'])}"
            for one in shown
        ]
        if len(shown) < len(attempts):
            lines.append(f"          {len(attempts) - len(shown)} more, shown with -v")
    traffic = facts["traffic"]
    if traffic["rounds"]:
        lines.append(
            f"ranks        agreed in {traffic['rounds']} rounds, {traffic['messages']} messages, "
            f"{traffic['bytes']} bytes"
        )
    if facts["colors"] == facts["n"] > 1:
        lines.append("note         as many colors as variables: no gain over one step per variable")
    return "\n".join(lines)


def _mark(attempt: dict[str, Any], colors: int) -> str:
    """Return a star for an attempt that has reached the number of colours that was taken."""
    return "  *" if attempt["count"] == colors and "given up" not in attempt["name"] else ""


def _coloring_told(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return "none: the Hessians of the elements are summed"
    return f"{facts['colors']} colors ({facts['kind']}, {facts['order']}; {_gap(facts)})"


def derivative_facts(derived: Hessian | MatrixFree | NearFar) -> dict[str, Any]:
    """Return what JSON says of how a Hessian was taken.

    Collective.
    """
    if isinstance(derived, MatrixFree):
        return {"coloring": None, "evaluations": {**_NO_CALLS, **derived.evaluations}, "verification": None}
    if isinstance(derived, NearFar):
        told = coloring_facts(derived.coloring, verify_coloring(derived.pattern, derived.coloring) is None)
        return {
            "coloring": {**told, "amplification": 1.0},
            "evaluations": {**_NO_CALLS, **derived.evaluations},
            "verification": None,
            "near_far": near_facts(derived),
        }
    coloring, found = derived.coloring, derived.verification
    return {
        "coloring": None
        if coloring is None
        else {
            **coloring_facts(coloring, verify_coloring(derived.pattern, coloring) is None),
            "amplification": derived.amplification,
        },
        "evaluations": derived.evaluations,
        "verification": None if found is None else dataclasses.asdict(found),
    }


def held_rows(problem: EigenProblem) -> list[int]:
    """Return the rows that are empty in both matrices, of a complex matrix its own. Not collective."""
    return np.unique(problem.scales.empty // problem.copies).tolist()


def held_lines(variables: list[int]) -> list[str]:
    """Return a line that names variables which nothing resists and nothing moves. Not collective."""
    if not variables:
        return []
    named = ", ".join(map(str, variables[:8])) + (", ..." if len(variables) > 8 else "")
    rows = f"row {named} is" if len(variables) == 1 else f"{len(variables)} rows ({named}) are"
    return [f"held         {rows} empty in both matrices, counted from 0: neither stiffness nor mass, left out"]


def projected_lines(number: int) -> list[str]:
    """Return a line on directions that are projected out whatever the matrix says of them. Not collective."""
    if not number:
        return []
    return [f"projected    {number} of the zeros are directions that are projected out, whatever H says of them"]


def inertia_lines(signs: Inertia, more: dict[str, Any]) -> str:
    """Return the answer of `inertia` for people. Not collective."""
    errors = ("", "", "") if signs.stderr is None else tuple(f" ± {error:.2g}" for error in signs.stderr)
    lines = [
        f"inertia      {signs.negative}{errors[0]} negative, {signs.zero}{errors[1]} zero, "
        f"{signs.positive}{errors[2]} positive" + (f", {signs.infinite} infinite" if signs.infinite else ""),
        *projected_lines(more.get("projected", 0)),
        f"verdict      {signs.definite}",
        *held_lines(more.get("held", [])),
        f"zero         |λ| <= {signs.threshold:.1e}",
        f"certified    {'two factorizations agree at either side' if signs.certified else 'no: ' + signs.doubt}",
    ]
    if "condition" in more:
        lines.append(f"condition    {more['condition']:.4g}")
    if "lowest" in more:
        lowest = more["lowest"]
        lines.append(f"lowest       {lowest['value']:.12g} ± {lowest['error']:.1g}, its direction is written")
    return "\n".join(lines)


def count_facts(count: Count | None) -> dict[str, Any] | None:
    """Return what JSON says of an inertia count. Not collective."""
    return None if count is None else count.facts()


def check_lines(facts: dict[str, Any], uncounted: str) -> str:
    """Return the answer of `check` for people. Not collective.

    Parameters
    ----------
    uncounted
        Why nothing can be counted; empty where it can.
    """
    count = facts["count"]
    told = f"not made: {uncounted or 'nothing to count'}" if count is None else (
        f"inertia {count['inertia']}, stored {count['found']}: {'agree' if count['certified'] else 'DO NOT AGREE'}"
        + ("" if count["margin"] is None else f", margin {count['margin']:.1g}")
    )  # fmt: skip
    return "\n".join(
        [
            f"result       {facts['result']}: {facts['k']} pairs of {facts['wanted']}, n = {facts['n']}",
            f"residual     {facts['residual']:.1e} at most (allowed {facts['tol']:.0e})",
            f"rayleigh     quotients differ by {facts['rayleigh']:.1e} at most",
            f"orthogonal   to {facts['orthogonality']:.1e}",
            f"count        {told}",
            *held_lines(facts["held"]),
            *digits_lines(facts["rounding"], facts["inputs"]["mass"] is not None),
            *(f"differs      {difference}" for difference in facts["differs"]),
            f"verdict      {'holds' if facts['passed'] else 'DOES NOT HOLD'}",
        ]
    )


def eigs_facts(
    given: Input, spec: SolveSpec, spectrum: Spectrum, problem: EigenProblem, timings: dict
) -> dict[str, Any]:
    """Return the JSON of `eigs`.

    Collective.
    """
    count, derived, units, comm = spectrum.count, given.hessian, problem.units, problem.comm
    nothing = {"coloring": None, "evaluations": _NO_CALLS, "verification": None}
    digits, rounding = rounding_facts(given, problem, spectrum.eigenvalues, spectrum.vectors, count)
    return {
        "schema": SCHEMA,
        "task": "eigs",
        "n": given.n,
        "nnz": given.nnz,
        **spectrum.facts(),
        "tol": spec.tol,
        "held": held_rows(problem),
        **(nothing if derived is None else derivative_facts(derived)),
        "timings": timings,
        **process_facts(comm),
        "backend": spec.backend,
        "deflated": len(problem.null) // problem.copies,
        "projected": None if spectrum.projection is None else projection_facts(spectrum, units),
        "inputs": input_facts(given, problem),
        "digits": digits,
        "rounding": rounding,
        "notes": reading_notes(given.origins),
        "frequencies": frequency_facts(spectrum, units),
    }


def projection_facts(spectrum: Spectrum, units: Units | None) -> dict[str, Any] | None:
    """Return what JSON says of directions that were projected out whatever the Hessian says. Not collective.

    `frequencies` has what the eigenvalues would be without, in the units of a frequency.
    """
    found = spectrum.projection
    if found is None:
        return None
    values = spectrum.eigenvalues
    return {
        "resisted": found.resisted.tolist(),
        "coupled": found.coupled.tolist(),
        "moved": found.moved.tolist(),
        "exact": found.whole,
        "frequencies": None
        if units is None
        else {
            "resisted": units.of_eigenvalues(found.resisted).tolist(),
            "moved": (units.of_eigenvalues(values + found.moved) - units.of_eigenvalues(values)).tolist(),
        },
    }


def projection_lines(spectrum: Spectrum, units: Units | None, names: tuple[str, ...]) -> list[str]:
    """Return what projecting directions out has changed, for people. Not collective."""
    facts = projection_facts(spectrum, units)
    if facts is None:
        return []
    shown, unit = (facts, "") if units is None else (facts["frequencies"], f" {units.frequency}")
    most = max(shown["resisted"], key=abs)
    moved = max(map(abs, shown["moved"]), default=0.0)
    size = f"{abs(most):.3g}i" if units and most < 0 else f"{most:.3g}"
    return [
        f"projected    {len(facts['resisted'])} directions, whatever the Hessian says of them"
        + (f": {', '.join(names)}" if names else ""),
        f"changed      without that they have up to {size}{unit}, and the others move by up to {moved:.2g}{unit}"
        + ("" if facts["exact"] else ", to second order"),
    ]


def sparsified_line(left: Sparsified) -> str:
    """Return what was dropped of a matrix, for people. Not collective."""
    told = f"thinned      {left.dropped} entries dropped, {left.kept} left"
    if left.bound is None:
        return f"{told}; no bound on the eigenvalues: the mass matrix is too far from diagonal"
    return f"{told}; no eigenvalue moves by more than {left.bound:.3g} (Weyl)"


def _products_lines(shell: MatrixFree, facts: dict[str, Any]) -> str:
    calls = facts["evaluations"]
    made = "differences" if shell.by_differences else "the function's own products"
    return "\n".join(
        [
            f"problem      {shell.objective.name}, {facts['n']} variables",
            f"Hessian      never assembled, {made}: {calls['gradient']} gradients, {calls['hvp']} products, "
            f"{calls['noise']} for their noise, {calls['verification']} to verify",
        ]
    )


def hessian_lines(hessian: Hessian | MatrixFree | NearFar, facts: dict[str, Any]) -> str:
    """Return how a Hessian was taken, for people. Not collective."""
    if isinstance(hessian, NearFar):
        return near_lines(hessian, facts, _coloring_told(facts["coloring"]))
    if isinstance(hessian, MatrixFree):
        return _products_lines(hessian, facts)
    coloring, calls = hessian.coloring, facts["evaluations"]
    lines = [
        f"problem      {hessian.objective.name}",
        f"pattern      {facts['n']} variables, {facts['nnz']} entries ({hessian.pattern.source})",
        f"coloring     {_coloring_told(facts['coloring'])}",
        f"derivatives  {hessian.scheme}: {calls['gradient']} gradients, {calls['hvp']} products, "
        f"{calls['noise']} for their noise, {calls['verification']} to verify",
    ]
    if calls["pattern"]:
        lines[-1] += f", {calls['pattern']} to find the pattern"
    if hessian.repaired:
        lines.append(f"repaired     the pattern missed {hessian.repaired} entries: they were found and added")
    if coloring is not None and coloring.count == facts["n"] > 1:
        lines.append("note         as many colors as variables: no gain over one step per variable")
    if hessian.verification is not None:
        found = hessian.verification
        lines.append(f"verified     random product to {found.hvp_error:.1e}, symmetric to {found.asymmetry:.1e}")
    else:
        lines.append("verified     no: --no-verify")
    lines.append(f"error        about {hessian.error:.1e} of the matrix")
    return "\n".join(lines)


def eigs_lines(
    given: Input,
    facts: dict[str, Any],
    spec: SolveSpec,
    spectrum: Spectrum,
    problem: EigenProblem,
    names: tuple[str, ...],
) -> str:
    """Return the answer of `eigs` for people. Not collective.

    Parameters
    ----------
    names
        Of the null vectors, none where they have none.
    """
    derived = given.hessian
    if derived is not None:
        lines = [hessian_lines(derived, facts)]
    else:
        kind = ", complex Hermitian" if given.copies == 2 else ""
        lines = [f"matrix       {given.name}: {facts['n']} rows, {facts['nnz']} entries{kind}"]
    lines += [f"solver       {spectrum.method} ({spectrum.reason})", *place_lines(facts)]
    if spectrum.projection is not None:
        lines += projection_lines(spectrum, problem.units, names)
    elif facts["deflated"]:
        lines.append(f"deflated     {facts['deflated']} null vectors" + (f": {', '.join(names)}" if names else ""))
    lines += [*held_lines(facts["held"]), "", spectrum_table(spectrum, problem.units), ""]
    if spectrum.zeros:
        lines.append(f"zero modes   {spectrum.zeros}, to the accuracy of the matrix")
    of_hessian = ""
    if spectrum.error_bound is not None:
        of_hessian = "two standard deviations of what the error of the Hessian does, to first order; at most "
        of_hessian += f"{spectrum.error_bound:.2g} (Weyl)"
    elif isinstance(derived, NearFar):
        of_hessian = "a bound, from residuals of true products and their noise"
    elif problem.relative_error > _EXACT and len(spectrum.eigenvalues):
        of_hessian = (
            f"what the error of products, at least {problem.relative_error:.0e} of the Hessian, may do, to "
        )
        of_hessian += "first order"
    lines += [f"errors       {sentence}" for sentence in error_words(facts, of_hessian)]
    loose = int(np.count_nonzero(~(spectrum.residuals <= spec.tol)))
    if loose:
        lines.append(f"accuracy     {loose} pairs reach the error of products, {spectrum.held_to:.0e}, not the "
                     f"tolerance {spec.tol:.0e}")  # fmt: skip
    spent = ", ".join(f"{name} {seconds:.2f}" for name, seconds in facts["timings"].items() if seconds >= 0.005)
    count, listed, units = spectrum.count, len(spectrum.eigenvalues), problem.units
    unit, factor = (None, 1.0) if units is None else (units.frequency, units.factor)
    place = None if count is None else count_place(count, unit, factor)
    lines += [
        f"count        not counted: {spectrum.uncounted}"
        if count is None
        else f"count        {count_line(count, facts['deflated'], names, spectrum.zeros, listed, place)}",
        *search_lines(spectrum.search),
        *digits_lines(facts["rounding"], facts["inputs"]["mass"] is not None),
        f"orthogonal   to {spectrum.orthogonality:.1e}",
        f"seconds      {spent}",
        f"ranks        {facts['mpi']['size']}, {facts['memory'] / 2**20:.0f} MiB in all",
    ]
    return "\n".join(lines)


def search_lines(search: Search | None) -> list[str]:
    """Return what was searched for beyond the pairs, as a line, or nothing. Not collective."""
    if search is None:
        return []
    return [f"search       {search.products} products beside what was found: {search.in_words}"]


def _quantile(share: float, found: Quantile) -> str:
    """Return where a share is reached, with its bar where there is one."""
    if not found.resolved:
        return f"{share:.0%} unresolved"
    bar = "" if found.low == found.high else f" ({found.low:.3g} to {found.high:.3g})"
    return f"{share:.0%} up to {found.place:.4g}{bar}"


def density_lines(found: Density) -> str:
    """Return the answer of `density` for people. Not collective."""
    low, high = found.range
    shares = (0.01, 0.1, 0.5, 0.9, 0.99)
    quantiles = (_quantile(share, place) for share, place in zip(shares, found.quantiles(shares), strict=True))
    exact = found.method == "dense"
    made = (
        f"dense: all eigenvalues, exact; {found.products} products"
        if exact
        else f"{found.method}: {found.samples} samples of {found.steps} steps, {found.products} products"
    )
    mean = "" if exact else f" ± {found.moments_stderr[1]:.1g}"
    lines = [
        f"spectrum     from {'' if exact else 'about '}{low:.6g} to {high:.6g}",
        f"made by      {made}",
        f"quantiles    {', '.join(quantiles)}",
        f"mean         {found.moments[1]:.6g}{mean}",
        f"resolution   {found.width:.2g}",
    ]
    lines += [f"known        {times} at {place:.6g}" for place, times in found.atoms]
    return "\n".join(lines)


def trace_lines(found: Trace) -> str:
    """Return the answer of `trace` for people. Not collective."""
    exact = "exact" if found.stderr == 0 else f"± {found.stderr:.2g}, 90 % within ± {found.bars(0.9):.2g}"
    if not math.isfinite(found.stderr):
        exact = (
            f"unresolved: up to {found.beyond:.0f} eigenvalues may be nearer to the end of its domain than "
            "products tell, or beyond: give more --steps, or deflate null vectors"
        )
    return "\n".join(
        [
            f"trace        {found.trace:.12g}, {exact}",
            f"of           {found.function}",
            f"made by      {found.method}: {found.samples} vectors, {found.products} products",
        ]
    )


def rank_lines(found: Rank) -> str:
    """Return the answer of `rank` for people. Not collective."""
    error = f" ± {found.stderr:.2g}" if found.stderr else ""
    sure = "each count confirmed by a second shift" if found.certified else f"no: {found.doubt or found.method}"
    return "\n".join(
        [
            f"rank         {found.rank}{error} of {found.n}: {found.above} above, {found.below} below, "
            f"{found.between} between the thresholds",
            f"zero         |λ| <= {found.threshold:.2e}, {found.relative:.1e} of the largest ({found.why})",
            f"near zero    {found.share:.1%}",
            f"certified    {sure}",
        ]
    )
