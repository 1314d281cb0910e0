"""Stored results: what `eigs -o` has written, read again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsehess.eigen.problem.spectrum import SolveSpec
from sparsehess.errors import InputError, StackError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, another_build, complex_scalars, destroy
from sparsehess.storage.hdf5 import open_hdf5
from sparsehess.storage.matrix_formats import read_member_shapes


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
    """Read a result file (.h5 or .npz); nothing is unpickled.

    Collective. Rank 0 reads one vector at a time of an .h5 file, all of a .npz.

    Raises
    ------
    InputError
        The file is none, or its vectors are not of this many rows.
    """
    path, comm = Path(path), layout.comm
    with ExitStack() as stack:
        source: _Source | None = None
        told: tuple[dict[str, Any], np.ndarray] | None = None
        with agreement(comm):
            if comm.rank == 0:
                source = stack.enter_context(_open(path, layout.n))
                told = source.facts, source.values
        facts, values = comm.bcast(told)
        spec = _spec(facts, path)
        vectors: list[PETSc.Vec] = []
        try:
            for number in range(len(values)):
                row = None
                with agreement(comm):
                    local = np.empty(layout.n_local, PETSc.ScalarType)
                    if source is not None:
                        row = source.row(number)
                comm.Scatterv([row, (layout.counts, layout.starts[:-1])] if comm.rank == 0 else None, local)
                vectors.append(PETSc.Vec().createMPI((layout.n_local, layout.n), comm=comm))
                vectors[-1].setArray(local)
        except Exception:
            destroy(*vectors)
            raise
    return Result(spec, facts, values, vectors)


@dataclass(frozen=True)
class _Source:
    """An open result file, on rank 0: its JSON, its eigenvalues, and the rows of its vectors."""

    path: Path
    facts: dict[str, Any]
    values: np.ndarray
    rows: Any

    def row(self, number: int) -> np.ndarray:
        try:
            return np.ascontiguousarray(self.rows[number], PETSc.ScalarType)
        except OSError as error:
            raise InputError(
                f"{self.path}: vector {number} cannot be read ({' '.join(str(error).split())})"
            ) from error


@contextmanager
def _open(path: Path, n: int) -> Iterator[_Source]:
    """Open a result of n variables."""
    with ExitStack() as stack:
        try:
            if path.suffix == ".h5":
                file = stack.enter_context(closing(open_hdf5(path)))
                text = str(file.attrs["json"])
            elif path.suffix == ".npz":
                read_member_shapes(path)
                file = stack.enter_context(closing(np.load(path, allow_pickle=False)))
                text = str(file["json"])
            else:
                raise InputError(f"{path}: a result is an .h5 or .npz file")
            rows = file["vectors"]
            values = _numbers(path, "eigenvalues", file["eigenvalues"])
            facts = json.loads(text)
        except (InputError, StackError):
            raise
        except Exception as error:  # whatever a damaged file makes a reader do
            raise InputError(
                f"{path}: no result of sparsehess eigs ({' '.join(str(error).split())[:200]})"
            ) from error
        if not isinstance(facts, dict):
            raise InputError(f"{path}: no result of sparsehess eigs (its JSON is no table)")
        k = len(values)
        shape = getattr(rows, "shape", "that are none")
        if shape != (k, n) and (k or shape != (0, 0)):
            told = f": its matrix has {shape[1]} rows" if len(shape) == 2 and shape[0] == k else ""
            raise InputError(f"{path}: {k} eigenvalues and vectors {shape} do not fit n = {n}{told}")
        if rows.dtype.kind == "c" and not complex_scalars():
            raise InputError(f"{path}: its vectors are complex: they take {another_build(True)}")
        if rows.dtype.kind not in "fiuc":
            raise InputError(f"{path}: vectors of {rows.dtype}, not of numbers")
        if not np.isfinite(values).all():
            raise InputError(f"{path}: eigenvalues that are not finite")
        yield _Source(path, facts, values, rows)


def _numbers(path: Path, name: str, stored: Any) -> np.ndarray:
    """Return a list of real numbers; its size is looked at before it is read."""
    kind = getattr(stored, "dtype", np.dtype(object)).kind
    if getattr(stored, "ndim", 0) != 1 or kind not in "fiu":
        raise InputError(f"{path}: {name} must be a list of numbers")
    return np.asarray(stored[()], np.float64)


def _spec(facts: dict[str, Any], path: Path) -> SolveSpec:
    """Return what a stored run was asked for."""
    try:
        which = facts["which"]
        if facts["interval"] is not None:  # of --which negative too, where all were asked for
            low, high = facts["interval"]
            return SolveSpec(interval=(-np.inf if low is None else low, np.inf if high is None else high))
        if which == "target":
            return SolveSpec(k=facts["k"], target=facts["target"])
        return SolveSpec(k=max(facts["k"], 1), which=which)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: what was asked for cannot be read from it ({error})") from error
