"""Vectors that a caller gives to start from."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.matrix_inputs import as_vectors
from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc

# Vectors with entries beyond this, or all below one over it, are scaled: their squares must be numbers.
_LONG = 1e100


def starting_vectors(given: object, A: PETSc.Mat, layout: Layout, owned: list) -> list[PETSc.Vec]:
    """Return what a caller gave to start from as Vecs whose squares are numbers; see `as_vectors`.

    Collective. None may be zero.
    """
    vectors = as_vectors(given, A, layout, owned, "vectors to start from")
    for place, vector in enumerate(vectors):
        # PETSc 3.18 with complex scalars tells a second kind of norm of a vector as 0.
        largest = float(np.abs(vector.getArray(readonly=True)).max(initial=0.0))
        size = layout.comm.allreduce(largest, op=MPI.MAX)
        if not size >= np.finfo(float).tiny:
            raise InputError(f"vector {place + 1} of {len(vectors)} to start from is zero: leave it out")
        if not 1 / _LONG < size < _LONG:
            vectors[place] = vector.copy()
            vectors[place].scale(1 / size)
            owned.append(vectors[place])
    return vectors
