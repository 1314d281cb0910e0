"""The journal of an assembly: what it has evaluated so far, in the order in which it asks for it.

An assembly asks for the same gradients again when it is begun anew: their order does not depend on their
values beyond the pattern and the steps that follow from them. So a run that resumes asks from the beginning,
and what was evaluated before is given without a call of the user's function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.recorder import NoRecorder, Record
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.stored_structure import (
    load_coloring,
    load_pattern,
    pattern_identity,
    store_coloring,
    store_pattern,
)
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime import log
from sparsehess.runtime.random_numbers import hash_rows
from sparsehess.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from sparsehess.storage.checkpoint_format import StoredStage

# Bytes on a rank that wait to be saved, at most; then they are saved before the interval is over.
_WAITING = 2**28

# What tells sweeps over elements, and the noise, from other requests.
_SWEEPS = {"kind": "elements"}
_MEASURED = {"kind": "noise"}


class NoJournal(NoRecorder):
    """Saves nothing of an assembly: what it asks for is made."""

    def measure(self, evaluations: Evaluations, make: Callable[[], Noise]) -> Noise:
        """Return the noise as make() returns it. Collective."""
        return make()

    def pattern(self, make: Callable[[], tuple[Pattern, dict[str, int]]]) -> tuple[Pattern, dict[str, int]]:
        """Return (pattern, calls of the user's functions) as make() returns them. Collective."""
        return make()

    def coloring(self, pattern: Pattern, make: Callable[[], Coloring]) -> Coloring:
        """Return the colouring that make() returns. Collective."""
        return make()

    def load_hessian(self) -> StoredStage | None:
        """Return the stage of a Hessian that was saved: none. Collective."""
        return None

    def save_hessian(self, describe: Callable[[], tuple[dict, dict[str, np.ndarray]]]) -> None:
        """Save the (facts, arrays) that describe() returns, and forget the evaluations. Collective."""


NO_JOURNAL = NoJournal()


class Journal(NoJournal):
    """The evaluations of one assembly, its pattern, its colouring and its Hessian, in a checkpoint.

    Collective to use.

    Parameters
    ----------
    checkpoint
        Where they are saved.
    fingerprint
        Of the objective and of all that decides what is evaluated.
    layout
        Of the rows here.
    """

    def __init__(self, checkpoint: Checkpoint, fingerprint: dict, layout: Layout) -> None:
        self._checkpoint, self._fingerprint, self._layout = checkpoint, fingerprint, layout
        self._number = 0  # of the next request
        self._first = 0  # request that is not forgotten
        self._waiting: list[tuple[int, dict, Record]] = []
        self._measured: list[tuple[int, dict, dict[str, np.ndarray]]] = []  # not saved yet
        self._diverged = False
        # Request, how many sweeps are done, and what returns their sums.
        self._sweeps: tuple[int, int, Callable[[], np.ndarray]] | None = None

    # --- evaluations: see `Recorder` ---

    def parts(self, nodes: int) -> int:
        """See `Recorder`. Each gradient is a unit of its own: no finished one is lost with another."""
        return nodes

    def step(self, batch: int, missing: int) -> int:
        """See `Recorder`. All meet after each batch: nobody goes on alone."""
        return batch

    def describe(self, layout: Layout, kind: str, colors: np.ndarray | None, **more: Any) -> dict:
        """See `Recorder`."""
        return {"kind": kind, "colors": None if colors is None else hash_rows(layout, colors), **more}

    def begin(self, request: dict, count: int, parts: int, n_local: int) -> Record:
        """See `Recorder`."""
        request = {**request, "count": count, "parts": parts}
        record, number = Record(count, parts, n_local), self._next()
        saved = self._load(number)
        if saved is not None and saved.meta["asked"] != request:
            # Noise may tip the balance where a decision hung on the last digits of a sum over ranks.
            if self._layout.comm.rank == 0:
                log.warning("%s: another request than now: evaluated anew from here on", saved.path)
            self._diverged, saved = True, None
        if saved is not None:
            record.rows[saved.meta["kept"]] = saved.read_rows("rows", n_local).T
            record.done.flat[saved.meta["done"]] = True
        if not record.done.all():
            self._waiting.append((number, request, record))
        return record

    def must_stop(self, group: MPI.Comm) -> bool:
        """See `Recorder`."""
        return bool(group.allreduce(self._checkpoint.wants_save, op=MPI.LOR))

    def save_due(self) -> None:
        """See `Recorder`."""
        waiting = sum(record.rows.nbytes for _, _, record in self._waiting)
        if self._checkpoint.is_due(waiting > _WAITING):
            self._save()
            self._checkpoint.finish_save()

    def finish(self, record: Record) -> np.ndarray:
        """See `Recorder`."""
        waits = any(record is other for _, _, other in self._waiting)  # then its rows are still to be saved
        return record.rows.copy() if waits else record.rows

    def begin_sweeps(self, sums: ElementAssembly) -> int:
        """See `Recorder`."""
        saved = self._load(self._next())
        if saved is None or saved.meta["asked"] != _SWEEPS:
            return 0
        sums.resume(saved.read_rows("entries", sums.pattern.nnz_local))
        return int(saved.meta["done"])

    def end_sweep(self, done: int, last: bool, sums: ElementAssembly) -> None:
        """See `Recorder`."""
        entries = sums.partial
        if last:  # what comes next empties the sums
            whole = sums.partial()
            entries = lambda: whole  # noqa: E731
        self._sweeps = self._number - 1, done, entries
        self.save_due()

    # --- noise, pattern, colouring, Hessian ---

    def measure(self, evaluations: Evaluations, make: Callable[[], Noise]) -> Noise:
        """Return the noise as make() returns it, or as it was saved.

        Collective. Steps follow from it, and the noise of a clean gradient is that of rounding: measured anew on
        another number of ranks it would be another, and so would the steps of the columns that are left.
        """
        number = self._next()
        saved = self._load(number)
        if saved is not None and saved.meta["asked"] == _MEASURED:
            self._number = saved.meta["next"]
            for name, calls in saved.meta["calls"].items():
                evaluations.counts[name] += calls
            return Noise.restored(saved.meta["noise"], lambda name: saved.read_rows(name, self._layout.n_local))
        before = dict(evaluations.counts)
        noise = make()
        facts, arrays = noise.described()
        calls = {name: many - before[name] for name, many in evaluations.counts.items()}
        meta = {"asked": _MEASURED, "next": self._number, "calls": calls, "noise": facts}
        self._measured.append((number, meta, arrays))
        return noise

    def pattern(self, make: Callable[[], tuple[Pattern, dict[str, int]]]) -> tuple[Pattern, dict[str, int]]:
        """Return (pattern, calls of the user's functions) as make() returns them, or as they were saved.

        Collective.
        """
        saved = self._checkpoint.load("pattern", self._fingerprint)
        if saved is not None:
            self._number = self._first = saved.meta["requests"]
            return load_pattern(saved, self._layout), saved.meta["calls"]
        found, calls = make()
        meta, arrays = store_pattern(found)
        meta |= {"calls": calls, "requests": self._number}
        if self._checkpoint.save("pattern", self._fingerprint, meta, arrays):
            self._forget()
        return found, calls

    def coloring(self, pattern: Pattern, make: Callable[[], Coloring]) -> Coloring:
        """Return the colouring that make() returns, or the one that was saved for this pattern. Collective."""
        saved = self._checkpoint.load("coloring", self._fingerprint)
        identity = pattern_identity(pattern)
        if saved is not None and saved.meta["pattern"] == identity:
            return load_coloring(saved, pattern)
        made = make()
        meta, arrays = store_coloring(made)
        self._checkpoint.save("coloring", self._fingerprint, {**meta, "pattern": identity}, arrays)
        return made

    def load_hessian(self) -> StoredStage | None:
        """Return the stage of the Hessian that was saved, or None. Collective."""
        return self._checkpoint.load("hessian", self._fingerprint)

    def save_hessian(self, describe: Callable[[], tuple[dict, dict[str, np.ndarray]]]) -> None:
        """Save a Hessian; the evaluations that it was made from are removed once it is on the disk.

        Collective.
        """
        if self._checkpoint.save("hessian", self._fingerprint, *describe()):
            self._forget()

    # --- the checkpoint ---

    def _next(self) -> int:
        """Return the number of this request."""
        self._number += 1
        return self._number - 1

    def _load(self, number: int) -> StoredStage | None:
        return None if self._diverged else self._checkpoint.load(_name(number), self._fingerprint)

    def _save(self) -> None:
        def save(number: int, meta: dict, arrays: dict[str, np.ndarray]) -> bool:
            return self._checkpoint.save(_name(number), self._fingerprint, meta, arrays)

        # Noise before the columns whose steps follow from it; what the disk has not taken waits for the next time.
        self._measured = [one for one in self._measured if not save(*one)]
        waiting = []
        for number, request, record in self._waiting:
            if not record.done.any():
                waiting.append((number, request, record))
                continue
            kept = np.flatnonzero(record.done.any(axis=1))
            meta = {"asked": request, "done": np.flatnonzero(record.done).tolist(), "kept": kept.tolist()}
            if not save(number, meta, {"rows": record.rows[kept].T}) or not record.done.all():
                waiting.append((number, request, record))
        self._waiting = waiting
        if self._sweeps is not None:
            number, done, entries = self._sweeps
            if save(number, {"asked": _SWEEPS, "done": done}, {"entries": entries()}):
                self._sweeps = None

    def _forget(self) -> None:
        """Remove the evaluations so far: what they were for is saved otherwise. Collective."""
        self._waiting.clear()
        self._measured.clear()
        self._sweeps = None
        self._checkpoint.drop(map(_name, range(self._first, self._number)))
        self._first = self._number


def open_journal(
    checkpoint: Checkpoint | NoJournal | None, objective: Objective, decided: Callable[[], dict]
) -> NoJournal:
    """Return the journal of an objective's assembly in a checkpoint; a journal as it is.

    Collective.

    Parameters
    ----------
    checkpoint
        None for a journal that saves nothing.
    decided
        Returns what decides the evaluations beside the objective, as JSON; collective.
    """
    if checkpoint is None:
        return NO_JOURNAL
    if isinstance(checkpoint, NoJournal):
        return checkpoint
    layout = objective.layout
    fingerprint = {
        "problem": objective.name,
        "n": objective.n,
        "x": hash_rows(layout, Evaluations(objective, objective.x).x),
        "functions": [
            name for name in ("gradient", "hvp", "hvps", "energy") if getattr(objective, name) is not None
        ],
        **decided(),
    }
    return Journal(checkpoint, fingerprint, layout)


def _name(number: int) -> str:
    return f"evaluations-{number:05d}"
