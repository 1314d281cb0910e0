"""Stored results: what `eigs -o` has written, read again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsehess.eigen.problem.solve_spec import SolveSpec, read_spec
from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, destroy
from sparsehess.storage.result_files import read_pairs


@dataclass(frozen=True, eq=False)
class Result:
    """A stored spectrum.

    Attributes
    ----------
    spec
        What was asked for.
    facts
        The JSON of the run.
    eigenvalues, vectors
        (k,) numbers, and k Vecs in the layout asked for, the caller's to destroy.
    """

    spec: SolveSpec
    facts: dict[str, Any]
    eigenvalues: np.ndarray
    vectors: list[PETSc.Vec]


def read_result(path: str | os.PathLike[str], layout: Layout) -> Result:
    """Read a result file (.h5 or .npz) with what was asked for; see `read_pairs`.

    Collective.

    Raises
    ------
    InputError
        The file is none, or its vectors are not of this many rows.
    """
    stored = read_pairs(path, layout=layout)
    try:
        spec = read_spec(stored.facts, path)
    except InputError:
        destroy(*stored.vectors)
        raise
    return Result(spec, stored.facts, stored.arrays["eigenvalues"], stored.vectors)
