"""What an assembly has evaluated so far, in the order in which it asks for it.

An assembly asks for the same gradients again when it is begun anew: their order does not depend on their
values beyond the pattern and the steps that follow from them. So a run that resumes asks from the beginning,
and what was evaluated before is given without a call of the user's function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.coloring import Coloring, fingerprint
from sparsehess.derivatives.elements import Gathering
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime import log
from sparsehess.runtime.random_numbers import digest
from sparsehess.storage.checkpoint import Checkpoint

# Bytes on a rank that wait to be saved, at most; then they are saved before the interval is over.
_WAITING = 2**28

# What tells sweeps over elements, and the noise, from other requests.
_SWEEPS = {"kind": "elements"}
_MEASURED = {"kind": "noise"}

_COLORING = ("count", "kind", "order", "rule", "seed", "lower_bound", "seconds")


@dataclass(eq=False)
class Record:
    """What one request has brought so far.

    Attributes
    ----------
    number
        Of the request.
    asked
        What was asked for, as JSON.
    rows
        (count, n_local) sums of what was evaluated.
    done
        (count, parts) bool, the same on every rank: the evaluations that are in each row.
    """

    number: int
    asked: dict
    rows: np.ndarray
    done: np.ndarray


class Journal:
    """The evaluations of one assembly, its pattern, its colouring and its Hessian, in a checkpoint.

    Collective to use, except for `wanted`.

    Parameters
    ----------
    checkpoint
        Where they are saved.
    fingerprint
        Of the objective and of all that decides what is evaluated.
    layout
        Of the rows here.
    """

    def __init__(self, checkpoint: Checkpoint, fingerprint: dict, layout: Layout):
        self.checkpoint, self.fingerprint, self.layout = checkpoint, fingerprint, layout
        self._number = 0  # of the next request
        self._first = 0  # request that is not forgotten
        self._waiting: list[Record] = []
        self._measured: list[tuple[int, dict, dict[str, np.ndarray]]] = []  # not saved yet
        self._diverged = False
        self._sweeps: tuple[int, int, Gathering] | None = (
            None  # request, how many are done, and what they added to
        )

    @classmethod
    def of(cls, checkpoint: Checkpoint | Journal | None, objective, asked: dict) -> Journal | None:
        """Return the journal of an objective's assembly in a checkpoint; None for none, and a journal as it is.

        Collective.

        Parameters
        ----------
        asked
            What decides the evaluations beside the objective, as JSON.
        """
        if checkpoint is None or isinstance(checkpoint, Journal):
            return checkpoint
        layout = objective.layout
        functions = [
            name for name in ("gradient", "hvp", "hvps", "energy") if getattr(objective, name) is not None
        ]
        fingerprint = {
            "problem": objective.name,
            "n": objective.n,
            "x": digest(layout, objective.at(objective.x).x),
            "functions": functions,
            **asked,
        }
        return cls(checkpoint, fingerprint, layout)

    # --- evaluations ---

    @property
    def wanted(self) -> bool:
        """Whether this rank would save now. Not collective."""
        return self.checkpoint.wanted

    def begin(self, asked: dict, count: int, parts: int) -> Record:
        """Return the record of the next request: with what is known of it, or with nothing.

        Collective.

        Parameters
        ----------
        asked
            What tells it from others, as JSON.
        count
            Rows that it fills.
        parts
            Evaluations of which each row is the sum.
        """
        asked = {**asked, "count": count, "parts": parts}
        record = Record(
            self._number, asked, np.zeros((count, self.layout.n_local)), np.zeros((count, parts), bool)
        )
        self._number += 1
        saved = None if self._diverged else self.checkpoint.load(self._name(record.number), self.fingerprint)
        if saved is not None and saved.meta["asked"] != asked:
            # Noise may tip the balance where a decision hung on the last digits of a sum over ranks.
            if self.layout.comm.rank == 0:
                log.warning("%s: another request than now: evaluated anew from here on", saved.path)
            self._diverged, saved = True, None
        if saved is not None:
            kept = saved.meta["kept"]
            record.rows[kept] = saved.array("rows", self.layout.n_local).T
            record.done.flat[saved.meta["done"]] = True
        if not record.done.all():
            self._waiting.append(record)
        return record

    def handed_out(self, record: Record) -> np.ndarray:
        """Return the rows of a record for whoever asked, to do with them as they please. Not collective."""
        waits = any(record is other for other in self._waiting)  # then they are still to be saved
        return record.rows.copy() if waits else record.rows

    def look(self) -> None:
        """Save where it is due; after a signal raise `Stopped`. Collective."""
        waiting = sum(record.rows.nbytes for record in self._waiting)
        if self.checkpoint.due(waiting > _WAITING):
            self._save()
            self.checkpoint.saved()

    def measured(self, evaluations, make) -> tuple[np.ndarray, Noise | None]:
        """Return (typical lengths (n_local,), noise) as make() returns them, or as they were saved.

        Collective. Steps follow from them, and the noise of a clean gradient is that of rounding: measured anew on
        another number of ranks it would be another, and so would the steps of the columns that are left.
        """
        number, self._number = self._number, self._number + 1
        saved = None if self._diverged else self.checkpoint.load(self._name(number), self.fingerprint)
        if saved is not None and saved.meta["asked"] == _MEASURED:
            arrays = {name: saved.array(name, self.layout.n_local) for name in saved.meta["names"]}
            self._number = saved.meta["next"]
            for name, calls in saved.meta["calls"].items():
                evaluations.counts[name] += calls
            length, noise = arrays.pop("length"), saved.meta["noise"]
            return length, None if noise is None else Noise(**arrays, **noise)
        before = dict(evaluations.counts)
        length, noise = make()
        arrays, facts = {"length": length}, None
        if noise is not None:
            arrays |= {"level": noise.level, "relative": noise.relative}
            facts = {"bend": float(noise.bend), "measured": bool(noise.measured)}
        calls = {name: many - before[name] for name, many in evaluations.counts.items()}
        meta = {"asked": _MEASURED, "next": self._number, "names": list(arrays), "calls": calls, "noise": facts}
        self._measured.append((number, meta, arrays))
        return length, noise

    def _save(self) -> None:
        def save(number, meta, arrays):
            return self.checkpoint.save(self._name(number), self.fingerprint, meta, arrays)

        # Noise before the columns whose steps follow from it; what the disk has not taken waits for the next time.
        self._measured = [one for one in self._measured if not save(*one)]
        waiting = []
        for record in self._waiting:
            if not record.done.any():
                waiting.append(record)
                continue
            kept = np.flatnonzero(record.done.any(axis=1))
            done = np.flatnonzero(record.done)
            meta = {"asked": record.asked, "done": done.tolist(), "kept": kept.tolist()}
            if not save(record.number, meta, {"rows": record.rows[kept].T}) or not record.done.all():
                waiting.append(record)
        self._waiting = waiting
        if self._sweeps is not None:
            number, done, entries = self._sweeps
            meta = {"asked": _SWEEPS, "done": done}
            if save(number, meta, {"entries": entries()}):
                self._sweeps = None

    def begin_sweeps(self, gathering: Gathering) -> int:
        """Return how many sweeps over the elements were done before: the gathering has been given them.

        Collective.
        """
        number, self._number = self._number, self._number + 1
        saved = None if self._diverged else self.checkpoint.load(self._name(number), self.fingerprint)
        if saved is None or saved.meta["asked"] != _SWEEPS:
            return 0
        gathering.resume(saved.array("entries", gathering.pattern.nnz_local))
        return saved.meta["done"]

    def swept(self, done: int, last: bool, gathering: Gathering) -> None:
        """Save where it is due after so many sweeps; after a signal raise `Stopped`. Collective."""
        entries = gathering.partial
        if last:  # what comes next empties the gathering
            whole = gathering.partial()
            entries = lambda: whole  # noqa: E731
        self._sweeps = self._number - 1, done, entries
        self.look()

    def forget(self) -> None:
        """Remove the evaluations so far: what they were for is saved otherwise. Collective."""
        self._waiting.clear()
        self._measured.clear()
        self._sweeps = None
        self.checkpoint.drop(map(self._name, range(self._first, self._number)))
        self._first = self._number

    def _name(self, number: int) -> str:
        return f"evaluations-{number:05d}"

    # --- pattern and colouring ---

    def pattern(self, make) -> tuple[Pattern, dict[str, int]]:
        """Return (pattern, calls of the user's functions) as make() returns them, or as they were saved.

        Collective.
        """
        saved = self.checkpoint.load("pattern", self.fingerprint)
        if saved is not None:
            self._number = self._first = saved.meta["requests"]
            return load_pattern(saved, self.layout), saved.meta["calls"]
        found, calls = make()
        meta, arrays = stored_pattern(found)
        meta |= {"calls": calls, "requests": self._number}
        if self.checkpoint.save("pattern", self.fingerprint, meta, arrays):
            self.forget()
        return found, calls

    def coloring(self, pattern: Pattern, make) -> Coloring:
        """Return the colouring that make() returns, or the one that was saved for this pattern. Collective."""
        saved = self.checkpoint.load("coloring", self.fingerprint)
        structure = {"n": pattern.n, "nnz": pattern.nnz, "digest": fingerprint(pattern)}
        if saved is not None and saved.meta["pattern"] == structure:
            return load_coloring(saved, pattern)
        made = make()
        meta, arrays = stored_coloring(made)
        self.checkpoint.save("coloring", self.fingerprint, {**meta, "pattern": structure}, arrays)
        return made


def stored_pattern(pattern: Pattern) -> tuple[dict, dict[str, np.ndarray]]:
    """Return (facts, arrays) that a pattern without structural zeros on its diagonal can be made of again.

    Collective. Groups of variables are stored by their own pattern.
    """
    base = pattern if pattern.quotient is None else pattern.quotient
    size = pattern.n // max(base.n, 1)
    arrays = {"lengths": np.diff(base.indptr).astype(np.int64), "columns": base.indices.astype(np.int64)}
    return {"source": pattern.source, "size": size, "rows": base.n}, arrays


def load_pattern(saved, layout: Layout) -> Pattern:
    """Return the pattern of a saved stage in a layout whose groups stay together. Collective."""
    size = saved.meta["size"]
    rows = Layout(layout.comm, layout.starts // size)
    lengths = saved.array("lengths", rows.n_local)
    columns = saved.array("columns", int(lengths.sum()))
    own = np.repeat(np.arange(rows.start, rows.stop), lengths)
    base = Pattern.from_pairs(own, columns, rows.n, layout=rows, source=saved.meta["source"])
    return base.with_dofs(size)


def stored_coloring(coloring: Coloring) -> tuple[dict, dict[str, np.ndarray]]:
    """Return (facts, arrays) of a colouring. Not collective."""
    facts = {name: getattr(coloring, name) for name in _COLORING}
    return {"coloring": facts}, {"colors": coloring.colors.astype(np.int32)}


def load_coloring(saved, pattern: Pattern) -> Coloring:
    """Return the colouring of a saved stage. Collective."""
    colors = saved.array("colors", pattern.layout.n_local)
    ghosts = pattern.exchange.halo(colors)[pattern.layout.n_local :]
    return Coloring(pattern.layout, colors, ghosts, **saved.meta["coloring"])
