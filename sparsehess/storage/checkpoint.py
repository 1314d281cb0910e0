"""Checkpoints: the state of a long run, saved at intervals and on signals, from which another run resumes.

A folder holds one file a stage (`checkpoint_format`), and the previous one under `.1`. A file is written under
another name, synchronised with the disk, and renamed. A run that is killed at any moment leaves a whole file.
What is evaluated is added to files that grow (`stage_log`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from mpi4py import MPI

import numpy as np

from sparsehess.errors import Damaged, InputError, Stopped
from sparsehess.runtime import agreement, communicator, log, on_root
from sparsehess.storage import checkpoint_format, checkpoint_writing
from sparsehess.storage.atomic_files import sync_folder
from sparsehess.storage.checkpoint_format import StoredStage
from sparsehess.storage.fingerprints import describe_difference
from sparsehess.storage.folder_lock import LOCK, FolderLock
from sparsehess.storage.regular_files import refuse_irregular
from sparsehess.storage.saving_clock import SavingClock
from sparsehess.storage.stage_log import StageLog

_SUFFIX, _BEFORE, _BESIDE = ".ckpt", ".ckpt.1", ".ckpt.new"


def remove_checkpoint(directory: Path) -> None:
    """Remove the files of a checkpoint that no run uses any more, as far as that can be done.

    Not collective. A link in the place of the folder is not followed.
    """
    with contextlib.suppress(OSError):
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in os.listdir(folder):
                if name == LOCK or name.endswith((_SUFFIX, _BEFORE, _BESIDE)):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)


class Checkpoint:
    """A folder in which a run saves its stages, and the clock that says when.

    Collective to make.

    Parameters
    ----------
    directory
        A folder of this run alone, on a file system that all ranks share. It is made if it is missing.
    comm
        Communicator of the ranks that save together.
    interval
        Seconds between saves; 0 saves after every gradient. None saves as often as it is cheap: once a hundred
        times as long has passed as a save has lately cost, and after a minute at the latest.
    resume
        Whether the run resumes from the files in the folder. It starts anew where there are none.

    Raises
    ------
    InputError
        The folder cannot be written, another run saves in it, or it holds a checkpoint though `resume` was not
        asked for.

    Notes
    -----
    The caller installs the signal handlers; they call `interrupt`. The run then saves and raises `Stopped` after
    its present gradient or iteration of the solver. A factorization and a colouring end first.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        comm: MPI.Comm | None = None,
        *,
        interval: float | None = None,
        resume: bool = False,
    ) -> None:
        self.directory, self.comm = Path(directory).absolute(), communicator(comm)
        self.interval, self.resume = None if interval is None else float(interval), bool(resume)
        self.stopping = False  # whether all ranks have agreed that a signal came
        self._signal = 0
        self._told = ""
        self._lock: FolderLock | None = None  # of rank 0
        self._damaged: set[str] = set()  # stages whose latest file is damaged: the one before it is worth more
        with agreement(self.comm):
            if self.interval is not None and not self.interval >= 0:
                raise InputError(f"a checkpoint every {interval} seconds: the interval must not be negative")
            if self.comm.rank == 0:
                self._prepare()
        self.clock = SavingClock(self.interval)  # of this rank

    def _prepare(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.directory}: no folder for checkpoints: {error.strerror or error}") from error
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise InputError(f"{self.directory}: checkpoints cannot be written there")
        try:
            self._lock = FolderLock(self.directory)
        except OSError as error:
            raise InputError(f"{self.directory}: checkpoints cannot be written there: {error.strerror}") from error
        for path in self._files():
            refuse_irregular(path)
        if not self.resume and any(not path.name.endswith(_BESIDE) for path in self._files()):
            raise InputError(
                f"{self.directory} holds the checkpoint of a run that has not ended: go on with it (--resume), or "
                f"remove its *{_SUFFIX}* files"
            )

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        """Ask the run to save and stop as soon as it can.

        Not collective: one rank is enough; `is_due` tells the others.
        """
        self._signal = int(number)

    @property
    def told_to_stop(self) -> bool:
        """Whether a signal has come to this rank.

        Not collective.
        """
        return bool(self._signal)

    @property
    def wants_save(self) -> bool:
        """Whether this rank would save now.

        Not collective.
        """
        return bool(self._signal) or self.clock.is_due

    def is_due(self, also: bool = False) -> bool:
        """Return whether any rank would save now.

        Collective: a small allreduce. It also sets `stopping`: whether a signal has come to any rank.

        Parameters
        ----------
        also
            Another reason of this rank to save.
        """
        mine = np.array([self._signal, self.wants_save or also], np.int32)
        self.comm.Allreduce(MPI.IN_PLACE, mine, op=MPI.MAX)
        self.stopping = bool(mine[0])
        self._signal = int(mine[0])
        self.clock.begin()
        return bool(mine[1])

    def finish_save(self) -> None:
        """After all stages are saved: end the run if a signal has come.

        Not collective; the same on every rank after `is_due`.

        Raises
        ------
        Stopped
            A signal had come.
        """
        if self.stopping:
            name = signal.Signals(self._signal).name
            raise Stopped(
                f"stopped by {name}, the checkpoint is in {self.directory}: run again with --checkpoint "
                f"{self.directory} --resume"
            )

    def save(self, stage: str, fingerprint: dict, meta: dict, arrays: dict[str, np.ndarray]) -> bool:
        """Save a stage beside the one saved before; return whether it was written.

        Collective. Where the disk refuses the file, rank 0 warns and the run goes on, unless a signal stops it.

        Parameters
        ----------
        stage
            Its name.
        fingerprint
            Facts by which the problem is recognised: JSON.
        meta, arrays
            See `checkpoint_writing.write_stage`.

        Raises
        ------
        InputError
            The file cannot be written, and a signal stops the run.
        """
        path, beside = self._path(stage, _SUFFIX), self._path(stage, _BESIDE)
        _, told = checkpoint_writing.write_stage(beside, self.comm, fingerprint, meta, arrays)
        if self.comm.rank == 0:
            told = told or self._put_in_place(stage)
            if told:
                with contextlib.suppress(OSError):
                    beside.unlink(missing_ok=True)  # half a file takes room that is short
        return self.judge_save(path, self.comm.bcast(told))

    def _put_in_place(self, stage: str) -> str:
        """Give the new file of a stage its name; return why that failed."""
        path = self._path(stage, _SUFFIX)
        try:
            if stage not in self._damaged:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path, self._path(stage, _BEFORE))
            os.replace(self._path(stage, _BESIDE), path)
            self._damaged.discard(stage)
            sync_folder(self.directory)
        except OSError as error:
            return f"{error.strerror or error}"
        return ""

    def judge_save(self, path: Path, told: str) -> bool:
        """Return whether a save went well: `told` is empty. Say once why it did not.

        Not collective; the same on the ranks that have saved together.

        Raises
        ------
        InputError
            It did not, and a signal stops the run.
        """
        before, self._told = self._told, told
        if not told:
            return True
        if self.stopping:
            raise InputError(f"{path}: the checkpoint could not be written: {told}")
        if self.comm.rank == 0 and told != before:  # said once, though it is tried again and again
            log.warning("%s: the checkpoint could not be written: %s; the run goes on", path, told)
        return False

    def open_log(self, name: str, fingerprint: dict) -> StageLog:
        """Return the stages of a name that are kept one after another, with those that are there. Collective."""
        synchronised = None if self.interval is None else 0.0  # each stage, where somebody has said how often
        return StageLog(self.directory, name, self.comm, fingerprint, self.resume, synchronised)

    def load(self, stage: str, fingerprint: dict) -> StoredStage | None:
        """Return the saved stage; None where there is none, or where `resume` is false.

        Collective. A damaged file is replaced by the one before it, with a warning.

        Raises
        ------
        InputError
            The files are damaged, or belong to another problem.
        """
        if not self.resume:
            return None
        there = on_root(self.comm, lambda: [self._path(stage, s).exists() for s in (_SUFFIX, _BEFORE)])
        found, damage = None, None
        for suffix, exists in zip((_SUFFIX, _BEFORE), there, strict=True):
            if not exists:
                continue
            try:
                found = checkpoint_format.read_stage(self._path(stage, suffix), self.comm)
                break
            except Damaged as error:
                damage = damage or error
        if found is None and damage is not None:
            raise InputError(f"{damage}, and none before it is whole: remove it, and what it held is done again")
        if found is None:
            return None
        if damage is not None:
            self._damaged.add(stage)
            if self.comm.rank == 0:
                log.warning("%s; the one before it is used", damage)
        other = describe_difference(found.fingerprint, fingerprint)
        if other:
            raise InputError(f"{found.path} is the checkpoint of another problem ({other}): give another folder")
        return found

    def drop(self, stages: Iterable[str]) -> None:
        """Remove the files of these stages. Collective; rank 0 does it."""
        self.remove([self._path(stage, suffix) for stage in stages for suffix in (_BEFORE, _SUFFIX, _BESIDE)])

    def clear(self) -> None:
        """Remove all files, and unlock the folder: the run is complete.

        Collective; rank 0 does it.
        """
        self.remove(on_root(self.comm, self._files))
        if self._lock is not None:
            self._lock.remove()
            self._lock = None

    def remove(self, paths: list[Path]) -> None:
        """Remove obsolete files; rank 0 warns of one that cannot be removed, and the run goes on. Collective."""
        self.comm.Barrier()  # nobody reads any more
        if self.comm.rank == 0:
            try:
                for path in paths:
                    path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s stays: it cannot be removed: %s", path, error.strerror or error)
        self.comm.Barrier()

    def _files(self) -> list[Path]:
        return [path for suffix in (_SUFFIX, _BEFORE, _BESIDE) for path in self.directory.glob(f"*{suffix}")]

    def _path(self, stage: str, suffix: str) -> Path:
        return self.directory / (stage + suffix)
