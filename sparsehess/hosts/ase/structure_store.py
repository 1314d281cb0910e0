"""The checkpoint of normal modes of many structures: each is saved by the rank that has computed it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np

from sparsehess.hosts.ase.structure_modes import StructureModes
from sparsehess.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ase import Atoms

    from sparsehess.storage.stage_log import StageLog

# The name of the log of structures.
_LOG = "structures"

Found = tuple[set[int], dict[int, StructureModes], dict[int, np.ndarray]]


class NoStructureStore:
    """Saves nothing."""

    told_to_stop = False

    def restored(self) -> Found:
        """Return which structures were saved, and modes and shapes of those that are this rank's. Collective."""
        return set(), {}, {}

    def keep(self, one: StructureModes, vectors: np.ndarray) -> None:
        """Save a structure where that is due. Not collective."""

    def save(self) -> None:
        """Save what waits. Not collective."""

    def finish(self) -> None:
        """After all work: end the run where a signal has come. Collective."""


class StructureStore(NoStructureStore):
    """Saves structures in a checkpoint, one after another.

    Parameters
    ----------
    checkpoint
        Where.
    alone
        This rank's own communicator.
    fingerprint
        Of the structures and of all that decides what is found of them.
    """

    def __init__(self, checkpoint: Checkpoint, alone: MPI.Comm, fingerprint: dict[str, Any]) -> None:
        self._checkpoint, self._alone, self._fingerprint = checkpoint, alone, fingerprint
        self._waiting: list[tuple[StructureModes, np.ndarray]] = []

    @cached_property
    def _log(self) -> StageLog:
        """What was and is found. Collective the first time."""
        return self._checkpoint.open_log(_LOG, self._fingerprint)

    @property
    def told_to_stop(self) -> bool:  # type: ignore[override]
        """Whether a signal has come to this rank. Not collective."""
        return self._checkpoint.told_to_stop

    def restored(self) -> Found:
        """See `NoStructureStore`. Collective."""
        comm = self._checkpoint.comm
        there: set[int] = set()
        found: dict[int, StructureModes] = {}
        shapes: dict[int, np.ndarray] = {}
        for stage in self._log.stages:
            facts = stage.meta["structure"]
            number, many = facts["number"], stage.meta["modes"]
            mine = number % comm.size == comm.rank
            columns = stage.read_rows("columns", many if mine else 0)
            vectors = stage.read_rows("vectors", many if mine else 0)
            there.add(number)
            if mine:
                found[number], shapes[number] = StructureModes.unpacked(facts, columns), vectors
        return there, found, shapes

    def keep(self, one: StructureModes, vectors: np.ndarray) -> None:
        """See `NoStructureStore`."""
        self._waiting.append((one, vectors))
        if self._checkpoint.wants_save:
            self.save()

    def save(self) -> None:
        """See `NoStructureStore`."""
        checkpoint = self._checkpoint
        checkpoint.clock.begin()
        while self._waiting:
            one, vectors = self._waiting[0]
            facts, columns = one.packed()
            arrays = {"columns": columns, "vectors": vectors}
            told = self._log.append(self._alone, {"structure": facts, "modes": len(columns)}, arrays)
            if not checkpoint.judge_save(self._log.path, told):
                break
            del self._waiting[0]
        checkpoint.clock.end()
        checkpoint.judge_save(self._log.path, self._log.settle())

    def finish(self) -> None:
        """See `NoStructureStore`."""
        checkpoint = self._checkpoint
        checkpoint.is_due()
        if checkpoint.stopping:
            told = self._log.settle(now=True)
            checkpoint.judge_save(self._log.path, next(filter(None, checkpoint.comm.allgather(told)), ""))
            checkpoint.finish_save()


def open_structure_store(
    checkpoint: Checkpoint | None,
    structures: Sequence[Atoms],
    calculator: Callable[[], Any] | None,
    alone: MPI.Comm,
    how: dict[str, Any],
) -> NoStructureStore:
    """Return where structures are saved; without a checkpoint one that saves nothing.

    Collective.

    Parameters
    ----------
    how
        What else decides what is found.
    """
    if checkpoint is None:
        return NoStructureStore()
    name = "own" if calculator is None else getattr(calculator, "__qualname__", type(calculator).__name__)
    facts = {name: repr(value) for name, value in sorted(how.items())}
    return StructureStore(
        checkpoint,
        alone,
        {"structures": len(structures), "digest": _digest(structures), "calculator": name, **facts},
    )


def _digest(structures: Sequence[Atoms]) -> str:
    """Return what tells structures apart: all of their arrays, cells and constraints. Not collective."""
    from ase.io.jsonio import encode

    told = hashlib.sha256()
    for atoms in structures:
        arrays = {**atoms.arrays, "cell": atoms.cell.array, "pbc": atoms.pbc, "masses": atoms.get_masses()}
        for name, array in sorted(arrays.items()):
            told.update(f"{name} {array.dtype} {array.shape} ".encode())
            told.update(np.ascontiguousarray(array).tobytes())
        for constraint in atoms.constraints:
            told.update(encode(constraint.todict()).encode())
    return told.hexdigest()[:32]
