"""The assembled Hessian in a checkpoint: a run that resumes goes straight on to what it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.hessian.hessian import Hessian
from sparsehess.hessian.stored_structure import load_coloring, load_pattern, store_coloring, store_pattern
from sparsehess.pattern import Pattern

if TYPE_CHECKING:
    from sparsehess.storage.checkpoint_format import StoredStage


def describe_hessian(hessian: Hessian) -> tuple[dict, dict[str, np.ndarray]]:
    """Return (facts, arrays) that a Hessian can be made of again. Collective."""
    facts: dict = {"hessian": hessian.facts(), "grown": hessian.rebuilds > 0}
    arrays: dict[str, np.ndarray] = {}
    if hessian.rebuilds:
        pattern, structure = store_pattern(hessian.pattern)
        facts, arrays = {**facts, **pattern}, {**arrays, **structure}
    if hessian.coloring is not None:
        coloring, colors = store_coloring(hessian.coloring)
        facts, arrays = {**facts, **coloring}, {**arrays, **colors}
    if hessian.noise is not None:
        facts["noise"], levels = hessian.noise.described()
        arrays |= levels
    arrays["values"] = hessian.mat.getValuesCSR()[2]
    return facts, arrays


def restore_hessian(
    saved: StoredStage,
    pattern: Pattern,
    coloring: str | Coloring | None,
    prepare: Callable[[Pattern, str | Coloring | None], Hessian],
) -> Hessian:
    """Return the Hessian of a saved stage.

    Collective.

    Parameters
    ----------
    saved
        What `describe_hessian` has returned.
    pattern, coloring
        Of the objective, as far as they are given; those that were made are in the stage.
    prepare
        prepare(pattern, coloring) makes an empty Hessian.
    """
    rows = pattern.layout.n_local
    if saved.meta["grown"]:
        pattern = load_pattern(saved, pattern.layout)
    if "colors" in saved:
        coloring = load_coloring(saved, pattern)
    noise = None
    if "noise" in saved.meta:
        noise = Noise.restored(saved.meta["noise"], lambda name: saved.read_rows(name, rows))
    hessian = prepare(pattern, coloring)
    hessian.restore(saved.read_rows("values", pattern.nnz_local), noise, saved.meta["hessian"])
    return hessian
