"""The lines of a plan for people; what they say is in the JSON, number by number."""

from __future__ import annotations

from typing import Any

from sparsehess.commands.planned_calls import Calls

_PARTS = (
    ("derivatives", "the entries"),
    ("noise", "their noise"),
    ("verification", "the check"),
    ("pattern", "the pattern"),
)


def plan_lines(facts: dict[str, Any], calls: Calls | None) -> str:
    """Return a plan as text. Not collective."""
    about = "about " if facts["estimated"] else ""
    shell = calls is not None and calls.products is not None
    entries = "nothing assembled" if shell else f"{about}{facts['nnz']} entries"
    told = [f"input        {facts['name']}: {facts['n']} variables, {entries}"]
    if calls is not None:
        told += _calls_lines(facts["of"], calls, about)
    if facts["seconds"] is not None:
        each = facts["seconds"]
        told.append(f"measured     {each['one']:.3g} s each on one rank, {each['all']:.3g} s for all")
    memory = facts["memory"]
    source = "by MUMPS's analysis" if memory["analysed"] else "by a rule of thumb"
    told.append(
        f"memory       {_size(memory['per_rank'])} on each of {memory['ranks']} rank(s): matrix "
        f"{_size(memory['matrix'])}, factor {_size(memory['factor'])} ({source}), "
        f"vectors {_size(memory['vectors'])}, columns {_size(memory['columns'])} in all, "
        f"{_size(memory['process'])} for each process"
    )
    worth = facts["ranks"]
    reasons = [f"{worth['solve']} for the solver"]
    if worth["derivatives"]:
        reasons.append(f"up to {worth['derivatives']} share out derivatives")
    elif worth["derivatives"] is None:
        reasons.append("gradients are computed by all ranks together")
    if worth["memory"] > 1:
        reasons.append(f"at least {worth['memory']} for memory")
    told.append(f"ranks        {worth['best']} worth having: {', '.join(reasons)}")
    return "\n".join(told)


def _calls_lines(of: str, calls: Calls, about: str) -> list[str]:
    """Return how many calls of which function a run takes, and for what."""
    kind = {"product": "products", "gradient": "gradients", "energy": "energies"}[calls.function]
    if calls.products is None:
        colors = "element by element" if calls.colors is None else f"{about}{calls.colors} colors"
        parts = [f"{getattr(calls, part)} for {name}" for part, name in _PARTS if getattr(calls, part)]
        head = f"derivatives  {calls.scheme}, {colors}: {calls.bar} {kind}"
    else:
        parts = [f"{calls.derivatives} for {calls.products} products of {of}"]
        parts += [f"{getattr(calls, part)} for {name}" for part, name in _PARTS[1:] if getattr(calls, part)]
        head = f"derivatives  never assembled: {calls.bar} {kind}"
    return [head, f"             {', '.join(parts)}"]


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
