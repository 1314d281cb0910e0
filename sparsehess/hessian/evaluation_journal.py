"""The journal of an assembly: what it has evaluated so far, in the order in which it asks for it.

An assembly asks for the same gradients again when it is begun anew: their order does not depend on their
values beyond the pattern and the steps that follow from them. So a run that resumes asks from the beginning,
and what was evaluated before is given without a call of the user's function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
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
    from sparsehess.storage.stage_log import StageLog

# Bytes on a rank that wait to be saved, at most; then they are saved before the time has come.
_WAITING = 2**28

# The name of the log of what was evaluated.
_LOG = "evaluations"

# What tells sweeps over elements, and the noise, from other requests.
_SWEEPS = {"kind": "elements"}
_MEASURED = {"kind": "noise"}


Keep = Callable[["JournalRecord", np.ndarray, np.ndarray, MPI.Comm], bool]


class JournalRecord(Record):
    """What one request has brought so far, and what of it is not saved yet.

    Parameters
    ----------
    keep
        keep(record, units, rows, group) saves what a group has evaluated; see `Record.keep`.

    Attributes
    ----------
    number, request
        Of the request.
    waiting
        Units, and their rows here (m, n_local): the same units on every rank.
    kept
        Units that this rank's group has saved of those that it has evaluated.
    """

    def __init__(self, number: int, request: dict, n_local: int, keep: Keep) -> None:
        super().__init__(request["count"], request["parts"], n_local)
        self.number, self.request, self._keep = number, request, keep
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self.kept: list[int] = []

    def add(self, units: np.ndarray, rows: np.ndarray) -> None:
        """See `Record`."""
        super().add(units, rows)
        self.waiting.append((units, rows))

    def keep(self, units: np.ndarray, rows: np.ndarray, group: MPI.Comm) -> bool:
        """See `Record`."""
        return self._keep(self, units, rows, group)

    def restore(self, units: np.ndarray, rows: np.ndarray) -> None:
        """Add what was saved, as far as it is not there yet. Not collective; the same on every rank."""
        fresh = ~self.done.flat[units]
        super().add(units[fresh], rows[fresh])

    @property
    def bytes(self) -> int:
        """How much waits."""
        return sum(rows.nbytes for _, rows in self.waiting)


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

    saves = True

    def __init__(self, checkpoint: Checkpoint, fingerprint: dict, layout: Layout) -> None:
        self._checkpoint, self._fingerprint, self._layout = checkpoint, fingerprint, layout
        self._number = 0  # of the next request
        self._first = 0  # request that is not forgotten
        # How often the requests have become others than those that were saved, and the first one of the last time.
        self._era = [0, 0]
        self._waiting: list[JournalRecord] = []
        # What this rank's group has evaluated and not saved: since the ranks last met, and whether any before.
        self._fresh: list[tuple[np.ndarray, np.ndarray]] = []
        self._loose = False
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
        request, number = {**request, "count": count, "parts": parts}, self._next()
        record = JournalRecord(number, request, n_local, self._keep)
        for stage in self._saved(number):
            if stage.meta["asked"] != request:
                # Noise may tip the balance where a decision hung on the last digits of a sum over ranks.
                if self._layout.comm.rank == 0:
                    log.warning("%s: another request than now: evaluated anew from here on", stage.path)
                self._diverged, self._era = True, [self._era[0] + 1, number]
                break
            record.restore(np.array(stage.meta["units"], np.int64), stage.read_rows("rows", n_local).T)
        if not record.done.all():
            self._waiting.append(record)
        return record

    def save_due(self) -> None:
        """See `Recorder`."""
        self._loose, self._fresh = self._loose or bool(self._fresh), []
        checkpoint, waiting = self._checkpoint, sum(record.bytes for record in self._waiting)
        if checkpoint.is_due(waiting > _WAITING):
            self._save()
            checkpoint.clock.end()
            told = self._log.settle(now=checkpoint.stopping)
            if checkpoint.stopping:
                told = next(filter(None, self._layout.comm.allgather(told)), "")
            checkpoint.judge_save(self._log.path, told)
            checkpoint.finish_save()

    def finish(self, record: Record) -> np.ndarray:
        """See `Recorder`."""
        waits = any(record is other for other in self._waiting)  # then its rows are still to be saved
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
        if not self._save_stage(number, meta, arrays):
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

    @cached_property
    def _log(self) -> StageLog:
        """What was and is evaluated. Collective the first time."""
        found = self._checkpoint.open_log(_LOG, self._fingerprint)
        self._era = max([self._era, *(stage.meta["era"] for stage in found.stages)])
        return found

    def _saved(self, number: int) -> list[StoredStage]:
        """Return what was saved of a request; nothing where an earlier one has become another since."""
        if self._diverged:
            return []
        begun = dict(stage.meta["era"] for stage in self._log.stages)  # era: its first request
        return [
            stage
            for stage in self._log.stages
            if stage.meta["number"] == number
            and not any(era > stage.meta["era"][0] and first <= number for era, first in begun.items())
        ]

    def _keep(self, record: JournalRecord, units: np.ndarray, rows: np.ndarray, group: MPI.Comm) -> bool:
        """Save what a group has evaluated since the ranks last met, where that is due; see `Record.keep`.

        What was left unsaved before, or has to be on the disk first, all ranks save together: then they are to
        meet.
        """
        self._fresh.append((units, rows))
        checkpoint = self._checkpoint
        wants = np.array([checkpoint.wants_save, self._loose or bool(self._measured), checkpoint.told_to_stop])
        if group.size > 1:
            group.Allreduce(MPI.IN_PLACE, wants, op=MPI.LOR)
        due, meet, stop = wants.tolist()
        if not due or meet:
            return due
        checkpoint.clock.begin()
        if self._append(record, self._fresh, group):
            record.kept += np.concatenate([some for some, _ in self._fresh]).tolist()
            self._fresh.clear()
        checkpoint.clock.end()
        checkpoint.judge_save(self._log.path, self._log.settle())
        return stop

    def _append(self, record: JournalRecord, rows: list[tuple[np.ndarray, np.ndarray]], group: MPI.Comm) -> bool:
        """Save rows of a record; return whether they were. Collective on the group."""
        units = np.concatenate([some for some, _ in rows]).tolist()
        meta = {"number": record.number, "asked": record.request, "era": self._era, "units": units}
        told = self._log.append(group, meta, {"rows": np.concatenate([some for _, some in rows]).T})
        return self._checkpoint.judge_save(self._log.path, told)

    def _save(self) -> None:
        """Save what waits, together. Collective."""
        # Noise before the columns whose steps follow from it; what the disk has not taken waits for the next time.
        self._measured = [one for one in self._measured if not self._save_stage(*one)]
        if self._measured:
            return
        kept = self._layout.comm.allgather([record.kept for record in self._waiting])
        for number, record in enumerate(self._waiting):
            saved = np.concatenate([some[number] for some in kept]).astype(np.int64)
            left = [(units, ~np.isin(units, saved), rows) for units, rows in record.waiting]
            left_rows = [(units[fresh], rows[fresh]) for units, fresh, rows in left if fresh.any()]
            if left_rows and not self._append(record, left_rows, self._layout.comm):
                return
            record.waiting.clear()
            record.kept.clear()
        self._waiting = [record for record in self._waiting if not record.done.all()]
        self._loose = False
        if self._sweeps is not None:
            number, done, entries = self._sweeps
            if self._save_stage(number, {"asked": _SWEEPS, "done": done}, {"entries": entries()}):
                self._sweeps = None

    def _save_stage(self, number: int, meta: dict, arrays: dict[str, np.ndarray]) -> bool:
        return self._checkpoint.save(_name(number), self._fingerprint, meta, arrays)

    def _forget(self) -> None:
        """Remove the evaluations so far: what they were for is saved otherwise. Collective."""
        self._waiting.clear()
        self._measured.clear()
        self._sweeps = None
        self._fresh.clear()
        self._loose = False
        self._checkpoint.drop(map(_name, range(self._first, self._number)))
        self._checkpoint.remove(self._log.forget())
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
    return f"step-{number:05d}"
