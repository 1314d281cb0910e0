"""What answers say of their inputs: which files, and what the digits of their entries leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.commands.inputs import Input
from sparsehess.eigen.certificates.rounded_entries import bound_by_digits
from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.mechanics.fixed_dofs import FixedDofs, find_fixed_dofs, row_sizes
from sparsehess.runtime.short_repr import number_of
from sparsehess.storage.decimal_digits import FULL

# Part of an eigenvalue by which it may differ from the ratio of two diagonal entries that it is.
_SAME = 1e-8

if TYPE_CHECKING:
    from sparsehess.runtime import PETSc
    from sparsehess.storage.matrix_files import Origin


def input_facts(given: Input, problem: EigenProblem) -> dict[str, Any]:
    """Return which matrices a problem is of: paths and digests of files, nulls for what is from no file.

    Not collective.
    """
    own = None if given.stored is None else given.stored.origin
    return {"matrix": _origin_facts(own), "mass": None if problem.M is None else _origin_facts(given.mass_origin)}


def _origin_facts(origin: Origin | None) -> dict[str, Any]:
    return {"path": getattr(origin, "path", None), "digest": getattr(origin, "digest", None)}


def input_differences(made_of: Any, now: dict[str, Any]) -> list[str]:
    """Return in what the matrices of a stored result differ from those given now, a sentence each.

    Not collective.

    Parameters
    ----------
    made_of
        The `inputs` that the result was stored with; None of an older version, which says nothing.
    """
    if not isinstance(made_of, dict) or "mass" not in made_of:
        return []
    then, mass = made_of["mass"], now["mass"]
    told = []
    if then is None and mass is not None:
        told.append("the result was made without a mass matrix, and one is given here")
    if isinstance(then, dict) and mass is None:
        path = then.get("path")
        flag = f" ({path}), and none is given here: --mass {path}" if path else ", and none is given here: --mass"
        told.append(f"the result was made with a mass matrix{flag}")
    for name, old, new in (("matrix", made_of.get("matrix"), now["matrix"]), ("mass matrix", then, mass)):
        if not (isinstance(old, dict) and isinstance(new, dict) and old.get("digest") and new["digest"]):
            continue
        if old["digest"] != new["digest"]:
            told.append(f"the {name} is not the one that the result was made with ({old.get('path')})")
    return told


def rounding_facts(
    given: Input, problem: EigenProblem, values: np.ndarray, vectors: list[PETSc.Vec], count: Count | None
) -> tuple[int | None, dict[str, Any] | None]:
    """Return (the fewest digits that entries were written with, how far that can move eigenvalues), or nulls.

    Collective.
    """
    own = FULL if given.stored is None else given.stored.origin.rounding
    mass = FULL if given.mass_origin is None else given.mass_origin.rounding
    if not (own or mass):
        return None, None
    errors = bound_by_digits(problem, values, vectors, own, mass)
    crossing = np.zeros(len(errors), bool)
    if count is not None:
        crossing = ~(count.holds(values - errors) & count.holds(values + errors))
    names = {"matrix": own, "mass": mass}
    return min(one.digits for one in names.values() if one.digits is not None), {
        **{name: one.digits and one.told for name, one in names.items()},
        "errors": errors.tolist(),
        "relative": [float(e / abs(v)) if e < abs(v) else None for e, v in zip(errors, values, strict=True)],
        "crossing": [int(i) for i in np.flatnonzero(crossing)],
    }


def digits_lines(rounding: dict[str, Any] | None, mass: bool) -> list[str]:
    """Return what few digits of entries leave of the eigenvalues, for people.

    Not collective.

    Parameters
    ----------
    rounding
        What `rounding_facts` returned.
    mass
        Whether there is a mass matrix beside the matrix.
    """
    if rounding is None:
        return []
    told = {name: rounding[name] for name in ("matrix", "mass") if rounding[name]}
    if len(told) == 1 + mass and len(set(told.values())) == 1:
        text = f"entries have {next(iter(told.values()))}"
    else:
        text = ", ".join(f"entries of the {name} have {digits}" for name, digits in told.items())
    errors, relative = rounding["errors"], rounding["relative"]
    if not errors:
        return [f"digits       {text}"]
    sizes = [np.inf if part is None else part for part in relative]
    worst = int(np.argmax(sizes))
    one = f"λ{worst + 1}"
    if relative[worst] is None:
        text += f": {one} is not known but to ± {errors[worst]:.1g}"
    else:
        text += f": {one} is known to about {_part(sizes[worst])}"
    others = [size for i, size in enumerate(sizes) if i != worst]
    if others and max(others) < np.inf:
        text += f", the other{'s' if len(others) > 1 else ''} to {_part(max(others))} or better"
    elif others:
        lost = sum(size == np.inf for size in others)
        text += f", and {lost} other{'s' if lost > 1 else ''} no better than to their size"
    lines = [f"digits       {text}"]
    if rounding["crossing"]:
        which = ", ".join(f"λ{i + 1}" for i in rounding["crossing"][:6])
        lines.append(f"             they can move {which} across an end of the count")
    return lines


def _part(share: float) -> str:
    """Return a relative error in words."""
    return f"{float(f'{100 * share:.1g}'):g} %" if share >= 1e-4 else f"{share:.0e} of it"


def find_fixed(given: Input) -> FixedDofs | None:
    """Return which dofs of a matrix file are fixed by penalties, stand alone, or have no mass.

    Collective. None of a problem, and of a complex matrix.
    """
    if given.stored is None or given.copies == 2:
        return None
    return find_fixed_dofs(given.matrix, given.mass, given.stored.labels)


def fixed_facts(found: FixedDofs | None) -> dict[str, Any] | None:
    """Return what JSON says of fixed dofs. Not collective."""
    if found is None:
        return None
    return {name: getattr(found, name).facts() for name in ("penalties", "uncoupled", "massless")}


def fixed_lines(found: FixedDofs | None) -> str:
    """Return lines on dofs that penalties fix, and on those without mass; empty if there are none.

    Not collective.
    """
    if found is None:
        return ""
    text, some = "", found.penalties
    if some.count:
        text += (
            f"\nfixed        {number_of(some.count, 'row')} by penalties of up to {found.largest:.0e} times the "
            f"other diagonals ({some.told()}): their own eigenvalues are far above the rest, or infinite"
        )
    some = found.massless
    if some.count:
        text += (
            f"\nmassless     {number_of(some.count, 'row')} of M without an entry ({some.told()}): as many "
            "eigenvalues are infinite, and left out"
        )
    return text


def uncoupled_lines(given: Input, values: np.ndarray, found: FixedDofs | None) -> str:
    """Return a line on eigenvalues that single rows have by themselves, such as fixed ones; empty if none has.

    Collective. Of a matrix file with a mass: codes that hold a variable by a one on both diagonals have them.
    """
    if found is None or given.mass is None:
        return ""
    (beside, stiffness), (apart, mass) = row_sizes(given.matrix), row_sizes(given.mass)
    alone = (beside == 0) & (apart == 0) & (mass > 0)
    ratios = np.r_[-np.inf, np.unique(stiffness[alone] / mass[alone]), np.inf]
    place = np.searchsorted(ratios, values)
    near = np.minimum(ratios[place] - values, values - ratios[place - 1]) <= _SAME * np.abs(values)
    comm = given.layout.comm
    many, shown = comm.allreduce(np.count_nonzero(alone)), np.count_nonzero(comm.allreduce(near.astype(int)))
    if not shown or many == given.n:
        return ""
    which = f" ({found.uncoupled.told()})" if found.uncoupled.count == many else ""
    return (
        f"\nuncoupled    {number_of(many, 'row')} with nothing beside the diagonals{which}: each has an "
        f"eigenvalue of its own, as {shown} of these are; if they are fixed, leave them out, "
        "or take out their mass"
    )
