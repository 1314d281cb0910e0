"""The assembled Hessian in a checkpoint: a run that resumes goes straight on to what it is for."""

from __future__ import annotations

from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.hessian.evaluation_journal import (
    Journal,
    load_coloring,
    load_pattern,
    stored_coloring,
    stored_pattern,
)


def keep(journal: Journal, hessian) -> None:
    """Save a Hessian; the evaluations that it was made from are removed once it is on the disk.

    Collective.
    """
    facts, arrays = {"hessian": hessian.facts(), "grown": hessian.rebuilds > 0}, {}
    if hessian.rebuilds:
        pattern, structure = stored_pattern(hessian.pattern)
        facts, arrays = {**facts, **pattern}, {**arrays, **structure}
    if hessian.coloring is not None:
        coloring, colors = stored_coloring(hessian.coloring)
        facts, arrays = {**facts, **coloring}, {**arrays, **colors}
    if hessian.noise is not None:
        noise = hessian.noise
        facts["noise"] = {"bend": float(noise.bend), "measured": bool(noise.measured)}
        arrays |= {"level": noise.level, "relative": noise.relative}
    arrays["values"] = hessian.mat.getValuesCSR()[2]
    if journal.checkpoint.save("hessian", journal.fingerprint, facts, arrays):
        journal.forget()


def restored(journal: Journal, pattern, coloring, prepared):
    """Return the Hessian that was saved, or None.

    Collective.

    Parameters
    ----------
    pattern, coloring
        Of the objective, as far as they are given; those that were made are in the checkpoint.
    prepared
        prepared(pattern, coloring) makes an empty Hessian.
    """
    saved = journal.checkpoint.load("hessian", journal.fingerprint)
    if saved is None:
        return None
    rows = pattern.layout.n_local
    if saved.meta["grown"]:
        pattern = load_pattern(saved, pattern.layout)
    if "colors" in saved:
        coloring = load_coloring(saved, pattern)
    noise = None
    if "noise" in saved.meta:
        noise = Noise(saved.array("level", rows), saved.array("relative", rows), **saved.meta["noise"])
    hessian = prepared(pattern, coloring)
    hessian.restore(saved.array("values", pattern.nnz_local), noise, saved.meta["hessian"])
    return hessian
