"""Stages that are kept one after another, in files that grow: one file of each rank that writes.

A stage takes as much time to save as it is long, however many are there. A run that is killed may leave half a
stage at the end of a file: that is told, and cut off before the next one is written. A damaged one in the middle
is told too. All others are taken.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import agreement, log, on_root
from sparsehess.storage.atomic_files import sync_folder
from sparsehess.storage.checkpoint_format import Header, StoredStage, is_sound, list_stages
from sparsehess.storage.checkpoint_writing import append_stage
from sparsehess.storage.fingerprints import describe_difference
from sparsehess.storage.regular_files import open_regular
from sparsehess.storage.saving_clock import SavingClock


class StageLog:
    """The stages of one name in a folder.

    Collective to make. Files that are there are read where the run resumes.

    Parameters
    ----------
    folder, name
        Its files are NAME-RANK.ckpt there.
    comm
        Of all ranks.
    fingerprint
        Facts by which the problem is recognised.
    resume
        Whether to read what is there.
    interval
        Seconds between two synchronisations with the disk; None: as often as it is cheap, see `SavingClock`. What
        was written outlives the process, and what was synchronised the machine.

    Attributes
    ----------
    path
        Of this rank's file.
    stages
        Those that were there and are whole, the same on every rank; of each file as they were saved.

    Raises
    ------
    InputError
        A file cannot be read, is of another version, or belongs to another problem.
    """

    def __init__(
        self, folder: Path, name: str, comm: MPI.Comm, fingerprint: dict, resume: bool, interval: float | None
    ) -> None:
        self._folder, self._name, self._comm, self._fingerprint = folder, name, comm, fingerprint
        self.path = folder / f"{name}-{comm.rank:05d}.ckpt"
        self._disk = SavingClock(interval)
        self._end = 0  # of this rank's own file
        self._loose = False  # whether the disk may lack some of it
        self.stages: list[StoredStage] = []
        if resume:
            self._read()

    def append(self, group: MPI.Comm, meta: dict, arrays: dict[str, np.ndarray]) -> str:
        """Save a stage of the ranks of a group, in the file of its first; return why it could not be written.

        Collective on the group. Other groups may do the same at the same time. `settle` is to follow.

        Parameters
        ----------
        meta, arrays
            See `checkpoint_writing.write_stage`.
        """
        size, told = append_stage(self.path, self._end, group, self._fingerprint, meta, arrays)
        if not told and group.rank == 0:
            self._end += size
            self._loose = True
        return told

    def settle(self, now: bool = False) -> str:
        """Wait until the disk has what this rank has saved, where that is cheap; return why it failed.

        Not collective.

        Parameters
        ----------
        now
            Whatever it takes.
        """
        if not self._loose or not (now or self._disk.is_due):
            return ""
        self._disk.begin()
        try:
            descriptor = open_regular(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self._folder)
        except OSError as error:
            return f"{error.strerror or error}"
        except InputError as error:
            return str(error)
        self._disk.end()
        self._loose = False
        return ""

    def forget(self) -> list[Path]:
        """Begin anew with empty files; return those that are there, to be removed. Collective."""
        self._end, self._loose = 0, False
        self.stages.clear()
        return self._files()

    def _files(self) -> list[Path]:
        return on_root(self._comm, lambda: sorted(self._folder.glob(f"{self._name}-*.ckpt")))

    def _read(self) -> None:
        """Read the headers of all files, and check what they hold: each rank files and stages of its own."""
        comm, files = self._comm, self._files()
        found: list[tuple[Path, list[Header]]] = []
        wrong: list[str] = []
        with agreement(comm):
            for path in files[comm.rank :: comm.size]:
                headers, bad = list_stages(path)
                found.append((path, self._recognised(path, headers)))
                wrong += bad
        every = [(path, header) for some in comm.allgather(found) for path, headers in some for header in headers]
        every.sort(key=lambda one: (one[0], one[1].end))
        with agreement(comm):
            bad_ones = [
                number for number in range(comm.rank, len(every), comm.size) if not is_sound(*every[number])
            ]
        broken = {number for some in comm.allgather(bad_ones) for number in some}
        wrong = [line for some in comm.allgather(wrong) for line in some]
        wrong += [f"{every[number][0]}: what ends at byte {every[number][1].end} is damaged" for number in broken]
        if comm.rank == 0:
            for line in sorted(wrong):
                log.warning("%s: what it held is done again", line)
        self._end = max((header.end for path, header in every if path == self.path), default=0)
        self.stages = [
            StoredStage(path, self._fingerprint, header.meta, comm, header.blocks)
            for number, (path, header) in enumerate(every)
            if number not in broken
        ]

    def _recognised(self, path: Path, headers: list[Header]) -> list[Header]:
        """Return the headers without their fingerprints, which were compared."""
        for header in headers:
            other = describe_difference(header.fingerprint, self._fingerprint)
            if other:
                raise InputError(f"{path} is the checkpoint of another problem ({other}): give another folder")
        return [replace(header, fingerprint={}) for header in headers]
