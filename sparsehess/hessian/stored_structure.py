"""Patterns and colourings as the stages of a checkpoint hold them: facts as JSON, and arrays by rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsehess.coloring import Coloring, fingerprint
from sparsehess.pattern import Layout, Pattern

if TYPE_CHECKING:
    from sparsehess.storage.checkpoint_format import StoredStage

_COLORING = ("count", "kind", "order", "rule", "seed", "lower_bound", "seconds")


def pattern_identity(pattern: Pattern) -> dict:
    """Return what tells a pattern from others, as JSON. Collective."""
    return {"n": pattern.n, "nnz": pattern.nnz, "digest": fingerprint(pattern)}


def store_pattern(pattern: Pattern) -> tuple[dict, dict[str, np.ndarray]]:
    """Return (facts, arrays) that a pattern without structural zeros on its diagonal can be made of again.

    Collective. Groups of variables are stored by their own pattern.
    """
    base = pattern if pattern.quotient is None else pattern.quotient
    size = pattern.n // max(base.n, 1)
    arrays = {"lengths": np.diff(base.indptr).astype(np.int64), "columns": base.indices.astype(np.int64)}
    return {"source": pattern.source, "size": size, "rows": base.n}, arrays


def load_pattern(saved: StoredStage, layout: Layout) -> Pattern:
    """Return the pattern of a saved stage in a layout whose groups stay together. Collective."""
    size = saved.meta["size"]
    rows = Layout(layout.comm, layout.starts // size)
    lengths = saved.read_rows("lengths", rows.n_local)
    columns = saved.read_rows("columns", int(lengths.sum()))
    own = np.repeat(np.arange(rows.start, rows.stop), lengths)
    base = Pattern.from_pairs(own, columns, rows.n, layout=rows, source=saved.meta["source"])
    return base.with_dofs(size)


def store_coloring(coloring: Coloring) -> tuple[dict, dict[str, np.ndarray]]:
    """Return (facts, arrays) of a colouring. Not collective."""
    facts = {name: getattr(coloring, name) for name in _COLORING}
    return {"coloring": facts}, {"colors": coloring.colors.astype(np.int32)}


def load_coloring(saved: StoredStage, pattern: Pattern) -> Coloring:
    """Return the colouring of a saved stage. Collective."""
    colors = saved.read_rows("colors", pattern.layout.n_local)
    ghosts = pattern.exchange.halo(colors)[pattern.layout.n_local :]
    return Coloring(pattern.layout, colors, ghosts, **saved.meta["coloring"])
