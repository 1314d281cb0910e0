"""The spool of a resident service: a folder whose jobs are folders, and whose states are folders of them.

A job goes from one state to the next by one rename, which only one of several processes can win. It holds
`job.toml` and copies of its inputs; its answers (`result.json`, `log` and others) stand beside them.
`outcome.json` is written last: once that name is there the job counts as ended, whatever happens to the service,
and is never run again.

Who may write into the queue may have jobs run: the permissions of the folders are the access control. A job of
another user than the service's is copied when it is taken, so that nobody can change it any more.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool import lock as spool_lock
from sparsehess.service.spool.access import PRIVATE, Access
from sparsehess.service.spool.adoption import adopt_job
from sparsehess.service.spool.foreign_drafts import NoRoomError
from sparsehess.service.spool.layout import FOLDERS, TAKEN, has_secret, parse_name, parse_queued, show_queued
from sparsehess.service.spool.queue_turns import QueueTurns
from sparsehess.service.spool.states import SpoolStates

log = logging.getLogger("sparsehess")

# Errors that are of no single job: no room, no more inodes, a disk that fails or is read-only.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)

# Seconds that a list of the queue is used for, where it holds anything; after which a job that found no room is
# tried again; after which a mark of no job is removed.
_FRESH, _LATER, _OLD = 0.05, 60.0, 60.0

# Marks looked at in one go that are of no job in the queue.
_MARKS = 200


@dataclass
class Spool(SpoolStates):
    """A spool: what a service takes its jobs from. Not collective: one process acts."""

    _turns: QueueTurns = field(default_factory=QueueTurns, repr=False)
    _when: float = field(default=-math.inf, repr=False)
    _told: float = field(default=-math.inf, repr=False)  # that there is no room
    _passed: dict[str, float] = field(default_factory=dict, repr=False)  # what cannot be taken, and until when
    _marks: dict[str, float] = field(default_factory=dict, repr=False)  # those of no job, and since when

    @classmethod
    def open_or_create(cls, place: str | os.PathLike[str], access: Access = PRIVATE) -> Spool:
        """Return the spool of a folder, made if it is missing, open to those of an access and to nobody else.

        Raises
        ------
        InputError
            It cannot be made, or others can write where they may not.
        """
        path = Path(place)
        try:
            access.prepare(path)
        except OSError as error:
            raise InputError(f"{error.filename or path}: no spool: {error.strerror}") from error
        return cls(Path(os.path.realpath(path)))

    @classmethod
    def open_existing(cls, place: str | os.PathLike[str]) -> Spool:
        """Return the spool of a folder that is one.

        Raises
        ------
        InputError
            It is none, or one that does not let us in.
        """
        path = Path(place)
        try:
            whole = all((path / name).is_dir() for name in FOLDERS)
        except PermissionError:
            raise InputError(f"{path}: lets you not in: `serve --shared`, or --group, opens a spool") from None
        if not whole:
            raise InputError(f"{path}: no spool; `mpiexec -n P sparsehess serve {path}` makes one and serves it")
        return cls(Path(os.path.realpath(path)))

    # --- taking jobs ---

    def claim(self) -> Path | None:
        """Take the next job of the queue; return its folder, None where there is none.

        What is no job is put to those that failed, and what cannot be moved is left where it is.
        """
        if not self._turns or time.monotonic() - self._when > _FRESH:
            self._look()
        while (name := self._turns.take()) is not None:
            try:
                folder = self._taken(name)
            except OSError as error:
                if error.errno in FULL:
                    raise
                self._pass(name, math.inf, error.strerror or str(error))
                continue
            if folder is not None:
                return folder
        return None

    def _look(self) -> None:
        """List the queue, and end what is cancelled in it."""
        began = time.monotonic()
        names = [name for name in os.listdir(self.path / "queued") if not name.startswith(TAKEN)]
        known = self._passed
        self._passed = {name: known[name] for name in names if known.get(name, -math.inf) > began}
        self._heed_marks(names)
        self._turns.fill(self.path / "queued", [name for name in names if name not in self._passed])
        now = time.monotonic()
        self._when = now + 4 * (now - began)  # a queue of many thousands is not listed all the time

    def _pass(self, name: str, seconds: float, reason: str) -> None:
        """Leave a name in the queue where it is for some time."""
        self._passed[name] = time.monotonic() + seconds
        log.warning("%s stays in the queue, it cannot be taken: %s", show_queued(name), reason)

    def _taken(self, name: str) -> Path | None:
        """Take a job of this name; return its folder, None where there is none, or it was refused."""
        parsed, source = parse_queued(name), self.path / "queued" / name
        try:
            owner = os.lstat(source).st_uid
        except FileNotFoundError:
            return None
        except OSError as error:  # of something that its owner has mounted there, not of our disk
            self._pass(name, math.inf, error.strerror or str(error))
            return None
        if parsed is None:
            self._refuse_other(source, owner)
            return None
        order, job = parsed
        folder = self.path / "running" / job
        if self.is_cancelled(source):
            self.withdraw(name)
            return None
        if owner != os.geteuid():
            if not self._adopt(name, folder, owner):
                return None
        elif not _is_sound(source) or self.is_known(job):
            self.refuse(source)
            return None
        else:
            try:
                os.rename(source, folder)
            except FileNotFoundError:  # another group, or who cancels it, was first
                return None
        try:
            os.chmod(folder, 0o755 if has_secret(folder) else 0o700)
            saved = job_outcomes.count_saved_bytes(folder)
            job_outcomes.append_line(folder / "attempts", f"{order} {time.time():.3f} {os.getpid()} {saved}\n")
        except OSError:
            os.rename(folder, source)
            raise
        return folder

    def _adopt(self, name: str, folder: Path, owner: int) -> bool:
        """Take a job of another user, as a copy that is ours; return whether there is one."""
        if self.is_known(folder.name) or (self.is_shared and owner != 0 and not has_secret(folder)):
            self._refuse_other(self.path / "queued" / name, owner)
            return False
        try:
            return adopt_job(self, name, folder)
        except NoRoomError as error:
            self._passed[name] = time.monotonic() + _LATER
            if time.monotonic() > self._told + _LATER:  # once for all that wait for it
                self._told = time.monotonic()
                log.warning("%s and others stay in the queue, there is no room: %s", show_queued(name), error)
            return False

    def _refuse_other(self, source: Path, owner: int) -> None:
        """Put what is no job to those that failed; that of others is removed, for it may be without end."""
        if owner == os.geteuid():
            self.refuse(source)
            return
        try:
            if stat.S_ISDIR(os.lstat(source).st_mode):
                os.rmdir(source)
            else:
                os.unlink(source)
        except FileNotFoundError:
            return
        except OSError as error:
            self._passed[source.name] = math.inf
            log.debug("%r of user %d is no job, and stays: %s", source.name, owner, error.strerror)

    def _heed_marks(self, queue: list[str]) -> None:
        """End those of the queue that are cancelled, and remove marks that are of no use any more."""
        marks = os.listdir(self.path / "cancel")
        waiting = {parsed[1]: name for name in queue if marks and (parsed := parse_queued(name))}
        for mark in marks:
            if mark in waiting and self.is_cancelled(Path(waiting[mark])):
                try:
                    self.withdraw(waiting[mark])
                except OSError as error:
                    if error.errno in FULL:
                        raise
                    self._pass(waiting[mark], math.inf, error.strerror or str(error))
        now = time.monotonic()
        self._marks = {mark: self._marks.get(mark, now) for mark in marks if mark not in waiting}
        for mark, since in list(self._marks.items())[:_MARKS]:
            known = parse_name(mark) is not None
            ended = known and any(os.path.lexists(self.path / state / mark) for state in ("done", "failed"))
            if ended or (now - since > _OLD and not os.path.lexists(self.path / "running" / mark)):
                self.remove_mark(mark)

    # --- the service ---

    def lock(self, whom: str) -> int:
        """Return the descriptor of the spool's lock, held alone until `share`; for the first rank of a service.

        Raises
        ------
        InputError
            Another service has it.
        """
        return spool_lock.lock_spool(self.path, whom)

    def share(self, descriptor: int | None = None) -> int:
        """Return a descriptor of the lock, held together with the other ranks of the service.

        Raises
        ------
        InputError
            Another service was quicker.
        """
        return spool_lock.share_lock(self.path, descriptor)

    @property
    def is_served(self) -> bool:
        """Whether a service has the lock; for other users, whether one has said so and lives."""
        return spool_lock.is_locked(self.path)

    def count_jobs(self, state: str) -> int:
        """Return how many jobs are in a state, without those that cannot be taken from the queue."""
        names = os.listdir(self.path / state)
        if state != "queued":
            return sum(parse_name(name) is not None for name in names)
        return len({name for name in names if not name.startswith(TAKEN)} - {*self._passed})


def _is_sound(folder: Path) -> bool:
    """Return whether this is a folder in which the service can write its files without following anything."""
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)  # one that has just been taken is no garbage
    for name in (*job_outcomes.OWN, "job.toml"):
        with suppress(FileNotFoundError):
            facts = os.lstat(folder / name)
            if name == "job.toml":
                if facts.st_uid != os.geteuid():
                    return False
            # Another name of a file elsewhere would have that one written to.
            elif not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1 or name == "outcome.json":
                return False
    return True
