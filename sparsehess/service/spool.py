"""The spool of a resident service: a folder whose jobs are folders, and whose states are folders of them.

    new/       being written; nobody else looks at it
    queued/    <order>.<id>, so that the names sort by priority, then by time of submission
    running/   <id>, with `attempts` (a line for each, which ends with the bytes that were saved when it began),
               `status.json`, and `cancel` where that is asked for
    done/      <id>, ended with status 0
    failed/    <id>, ended with another status, cancelled, or refused

A job goes from one to the next by one rename, which only one of several processes can win. It holds `job.toml`
and copies of its inputs; its answers (`result.json`, `log` and others) stand beside them. `outcome.json` is
written last: once that name is there the job counts as ended, whatever happens to the service, and is never run
again.
Who may write into the folder may have jobs run: its permissions are the access control.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import time
import tomllib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service import job_outcomes
from sparsehess.service.choices import PRIORITY_LIMIT
from sparsehess.service.job_outcomes import count_attempts, read_json, read_outcome, write_outcome
from sparsehess.storage.atomic_files import replace_file, sync_file_system, sync_folder

log = logging.getLogger("sparsehess")

STATES = ("queued", "running", "done", "failed")

# Arguments that name what a command writes.
OUTPUTS = ("out", "plot", "report", "direction", "checkpoint")

# Runs of a job at a stretch that the service did not outlive, that nothing explains and that saved nothing more;
# then it is taken for the cause. So it is after many that did.
ATTEMPTS, MANY = 5, 50

_ID = r"\d{8}-\d{6}-\d{6}-[0-9a-f]{6}"
_QUEUED = re.compile(rf"(\d{{4}})\.({_ID})", re.ASCII)

# Bytes that a job file has at most.
_LARGEST = 2**20

# What the name of a job ends with while it is being cancelled.
_CANCELLED = ".cancelled"

# Errors that are of no single job: no room, no more inodes, a disk that fails or is read-only.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)

# Seconds that a list of the queue is used for, where it holds anything, and that a service which ends may take.
_FRESH, _PATIENCE = 0.05, 3.0


@dataclass
class Spool:
    """A spool folder. Not collective: one process acts.

    Attributes
    ----------
    path
        Its real path.
    """

    path: Path
    _listed: deque = field(default_factory=deque, repr=False)
    _when: float = field(default=0.0, repr=False)
    _passed: set[str] = field(default_factory=set, repr=False)  # what nobody can take: of others, or unreadable

    @classmethod
    def open_or_create(cls, place: str | os.PathLike[str], *, shared: bool = False) -> Spool:
        """Return the spool of a folder, made if it is missing, with nobody's access but one's own.

        Parameters
        ----------
        shared
            Whether others may be able to write into it; what they submit runs in the name of the service.

        Raises
        ------
        InputError
            It cannot be made, or others can write into it.
        """
        path = Path(place)
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            for name in ("", "new", *STATES):
                (path / name).mkdir(mode=0o777 if shared else 0o700, exist_ok=True)
                _check(path / name, shared)
        except OSError as error:
            raise InputError(f"{error.filename or path}: no spool: {error.strerror}") from error
        return cls(Path(os.path.realpath(path)))

    @classmethod
    def open_existing(cls, place: str | os.PathLike[str]) -> Spool:
        """Return the spool of a folder that is one.

        Raises
        ------
        InputError
            It is none.
        """
        path = Path(place)
        if not all((path / name).is_dir() for name in ("new", *STATES)):
            raise InputError(f"{path}: no spool; `mpiexec -n P sparsehess serve {path}` makes one and serves it")
        return cls(Path(os.path.realpath(path)))

    # --- submitting ---

    def make_draft(self) -> Path:
        """Return a new folder for the files of a job; its name will be the job's id."""
        now = time.time_ns()
        when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 10**9))
        folder = self.path / "new" / f"{when}-{now // 1000 % 10**6:06d}-{secrets.token_hex(3)}"
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
        return folder

    def enqueue(self, drafts: list[Path], priority: int = 0) -> list[str]:
        """Queue jobs that are written; return their ids. They are on the disk by then.

        Raises
        ------
        InputError
            The priority is out of range.
        """
        if not -PRIORITY_LIMIT <= priority <= PRIORITY_LIMIT:
            raise InputError(
                f"--priority {priority}: from {-PRIORITY_LIMIT} to {PRIORITY_LIMIT}, the larger the sooner"
            )
        sync_file_system(self.path)
        for folder in drafts:
            os.rename(folder, self.path / "queued" / f"{PRIORITY_LIMIT - priority:04d}.{folder.name}")
        sync_folder(self.path / "queued")
        return [folder.name for folder in drafts]

    # --- for the service ---

    def claim(self) -> Path | None:
        """Take the first job of the queue; return its folder, None where there is none.

        What is no job is put to those that failed, and what cannot be moved is left where it is.
        """
        if not self._listed or time.monotonic() - self._when > _FRESH:
            self._listed = deque(sorted(os.listdir(self.path / "queued")))
            self._when = time.monotonic()
        while self._listed:
            name = self._listed.popleft()
            if name in self._passed:
                continue
            try:
                folder = self._taken(name)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                self._passed.add(name)
                log.warning("%s stays in the queue, it cannot be taken: %s", name, error.strerror or error)
                continue
            if folder is not None:
                return folder
        return None

    def _taken(self, name: str) -> Path | None:
        """Take a job of this name; return its folder, None where there is none, or it was refused."""
        match = _QUEUED.fullmatch(name)
        source = self.path / "queued" / name
        folder = self.path / "running" / (match[2] if match else self.make_name())
        if not (match and _is_sound(source)) or folder.exists():
            self._refuse(source)
            return None
        try:
            os.rename(source, folder)
        except FileNotFoundError:  # another group, or who cancels it, was first
            return None
        try:
            _append(
                folder / "attempts",
                f"{match[1]} {time.time():.3f} {os.getpid()} {job_outcomes.count_saved_bytes(folder)}\n",
            )
        except OSError:
            os.rename(folder, source)
            raise
        return folder

    @staticmethod
    def make_name() -> str:
        """Return a name that no other job has."""
        return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-000000-{secrets.token_hex(3)}"

    def _refuse(self, source: Path) -> None:
        """Put what is no job to those that failed, with the reason."""
        identity = self.make_name()
        folder = self.path / "new" / identity
        folder.mkdir(mode=0o700)
        try:
            os.rename(source, folder / "refused")
        except OSError as error:
            folder.rmdir()
            if isinstance(error, FileNotFoundError):
                return
            raise
        reason = f"{source.name!r} is no job: `sparsehess submit JOB.toml --spool {self.path}` makes one"
        write_outcome(folder, {"id": identity, "state": "failed", "exit": 2, "error": reason})
        self.settle(folder)

    def settle(self, folder: Path) -> None:
        """Put a job that has its outcome where it belongs."""
        outcome = read_outcome(folder)
        state = "done" if outcome is not None and outcome.get("state") == "done" else "failed"
        self._put(folder, self.path / state / folder.name.removesuffix(_CANCELLED))

    def _put(self, folder: Path, target: Path) -> None:
        """Put an ended job to others."""
        try:
            os.rename(folder, target)
        except FileNotFoundError:
            raise
        except OSError:  # the name is taken: somebody has copied an old job into the queue
            os.rename(folder, target.with_name(self.make_name()))

    def requeue(self, folder: Path, *, counted: bool) -> None:
        """Put a running job back to its place in the queue.

        Parameters
        ----------
        counted
            Whether the attempt counts.
        """
        attempts = job_outcomes.read_beginning(folder / "attempts").splitlines(keepends=True)
        told = bool(attempts) and re.match(r"\d{4} ", attempts[-1], re.ASCII) is not None
        order = attempts[-1][:4] if told else f"{PRIORITY_LIMIT - _priority(folder):04d}"
        for name in ("status.json", "stuck", "watchdog", "log", "result.json", "outcome.json"):
            (folder / name).unlink(missing_ok=True)
        if not counted:
            with replace_file(folder / "attempts") as beside:
                beside.write_text("".join(attempts[:-1]))
        os.rename(folder, self.path / "queued" / f"{order}.{folder.name}")

    def recover(self) -> list[str]:
        """Settle or queue again what a service has left that ended; return a line for each."""
        told = []
        for name in os.listdir(self.path / "new"):
            folder = self.path / "new" / name
            try:
                if read_outcome(folder) is not None:  # refused or cancelled, and not settled any more
                    self.settle(folder)
                elif name.endswith(_CANCELLED):
                    self._cancelled(folder)
            except OSError as error:
                told.append(f"{folder} stays where it is: {error.strerror or error}")
        left = [self.path / "running" / name for name in sorted(os.listdir(self.path / "running"))]
        # Each rank that hears a signal leaves a byte: all of them where the service was told to end, not all where
        # one has crashed and mpiexec ends the others.
        ranks = read_json(self.path / "service.json").get("ranks", 1)
        asked = job_outcomes.file_size(self.path / "signals") >= (ranks if isinstance(ranks, int) else 1)
        known = asked or any(
            job_outcomes.file_size(folder / name) for folder in left for name in ("watchdog", "stuck")
        )
        for folder in left:
            try:
                if folder.is_symlink() or not folder.is_dir():
                    self._refuse(folder)
                    continue
                if read_outcome(folder) is None:
                    told.append(self._recovered(folder, known))
                if read_outcome(folder) is not None:
                    self.settle(folder)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                told.append(f"{folder} stays where it is: {error.strerror or error}")
        return told

    def _recovered(self, folder: Path, known: bool) -> str:
        """Queue a job again that was not through, or end it; return what was done.

        Parameters
        ----------
        known
            Whether something other than the job explains the end of the service.
        """
        tried = count_attempts(folder)
        reason = None
        if self.is_cancelled(folder):
            reason = "cancelled"
        elif job_outcomes.file_size(folder / "stuck"):
            reason = job_outcomes.read_beginning(folder / "stuck").strip()
        elif job_outcomes.file_size(folder / "watchdog"):
            reason = "killed: over its time limit, in a call that nothing interrupts (see `watchdog`)"
        elif not known and (
            tried >= MANY
            or job_outcomes.count_fruitless_runs(folder, job_outcomes.count_saved_bytes(folder)) >= ATTEMPTS
        ):
            reason = f"given up: the service has ended {tried} times while it ran"
        if reason is None:
            self.requeue(folder, counted=not known)
            return f"{folder.name} is queued again"
        state = "cancelled" if reason == "cancelled" else "failed"
        exit_status = None if state == "cancelled" else 2
        facts = {"id": folder.name, "state": state, "exit": exit_status, "error": reason}
        write_outcome(folder, {**facts, "attempts": tried})
        return f"{folder.name}: {reason}"

    def lock(self, whom: str) -> int:
        """Return the descriptor of the spool's lock, held alone until `share`; for the first rank of a service.

        Raises
        ------
        InputError
            Another service has it.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                held = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise InputError(f"{self.path} is served already, by {held or 'another'}") from None
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, whom.encode(), 0)
        return descriptor

    def share(self, descriptor: int | None = None) -> int:
        """Return a descriptor of the lock, held together with the other ranks of the service.

        While one of them lives, nobody else serves the spool.

        Raises
        ------
        InputError
            Another service was quicker: between holding it alone and together nobody holds it.
        """
        if descriptor is None:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.pread(descriptor, 200, 0)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            now = os.pread(descriptor, 200, 0)
            if now != before:
                raise InputError(f"{self.path} is served already, by {now.decode(errors='replace').strip()}")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @property
    def is_served(self) -> bool:
        """Whether a service has the lock."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:  # of another user, in a spool that is shared: it may not have left in order
            return (self.path / "service.json").exists()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def is_stopping(self) -> bool:
        """Whether the service has been asked to leave."""
        return (self.path / "stop").exists()

    def is_cancelled(self, folder: Path) -> bool:
        """Return whether the end of a job is asked for.

        Parameters
        ----------
        folder
            The job's, wherever it stands.
        """
        return os.path.lexists(folder / "cancel")

    def stop(self) -> None:
        """Ask the service to leave: running jobs are stopped at their next iteration and stay queued."""
        (self.path / "stop").touch()

    def count_jobs(self, state: str) -> int:
        """Return how many jobs are in a state, without those that cannot be taken from the queue."""
        names = os.listdir(self.path / state)
        return len(names) if state != "queued" else len(set(names) - self._passed)

    # --- for clients ---

    def find_job(self, identity: str) -> tuple[str, Path]:
        """Return (state, folder) of a job by its id, or the end of it.

        Raises
        ------
        InputError
            There is none, or there are several.
        """
        if re.fullmatch(r"[\w-]{4,40}", identity, re.ASCII):
            for _ in range(3):  # one may move while it is looked for
                found = [one for one in self.list_jobs() if one[0].endswith(identity)]
                if len(found) == 1:
                    return found[0][1:]
                if len(found) > 1:
                    raise InputError(f"{identity} is the end of {len(found)} jobs: give the whole id")
        raise InputError(f"no job {identity!r} in {self.path}: `sparsehess status --spool {self.path}` shows all")

    def list_jobs(self) -> list[tuple[str, str, Path]]:
        """Return (id, state, folder) of all jobs, by time of submission."""
        found = {}
        for state in STATES:  # the way that jobs go, so that none is missed; where it was seen last counts
            for name in os.listdir(self.path / state):
                match = _QUEUED.fullmatch(name) if state == "queued" else re.fullmatch(f"()({_ID})", name)
                if match:
                    found[match[2]] = (match[2], state, self.path / state / name)
        return [found[identity] for identity in sorted(found)]

    def cancel(self, identity: str) -> str:
        """Cancel a job: a queued one at once, a running one at its next iteration; return its state before.

        Raises
        ------
        InputError
            There is no such job.
        """
        while True:
            state, folder = self.find_job(identity)
            try:
                if state == "queued":
                    mine = self.path / "new" / f"{folder.name[5:]}{_CANCELLED}"
                    os.rename(folder, mine)  # from now on nobody runs it
                    self._cancelled(mine)
                elif state == "running":
                    os.close(os.open(folder / "cancel", os.O_CREAT | os.O_WRONLY, 0o600))
                return state
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has moved: look again

    def _cancelled(self, folder: Path) -> None:
        """Settle a job that was taken from the queue to be cancelled."""
        identity = folder.name.removesuffix(_CANCELLED)
        write_outcome(folder, {"id": identity, "state": "cancelled", "exit": None, "error": "cancelled"})
        self._put(folder, self.path / "failed" / identity)


def discard_draft(folder: Path) -> None:
    """Remove a draft. Not collective."""
    shutil.rmtree(folder, ignore_errors=True)


def _check(path: Path, shared: bool) -> None:
    """Refuse a folder that others could submit to."""
    facts = os.stat(path)
    if shared:
        return
    if facts.st_uid != os.geteuid():
        raise InputError(f"{path} is another user's, who could have jobs run in your name; --shared allows it")
    if stat.S_IMODE(facts.st_mode) & 0o022:
        raise InputError(
            f"{path}: others can write into it, and would have jobs run in your name: chmod go-w, or --shared"
        )


def _is_sound(folder: Path) -> bool:
    """Return whether this is a folder in which the service can write its files without following anything."""
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)  # one that has just been taken is no garbage
    for name in job_outcomes.OWN:
        with suppress(FileNotFoundError):
            facts = os.lstat(folder / name)
            # Another name of a file elsewhere would have that one written to.
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1 or name == "outcome.json":
                return False
    return True


def _priority(folder: Path) -> int:
    """Return the priority that a job file asks for, 0 where it says none that is one."""
    path = folder / "job.toml"
    try:
        text = path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST else b""
        asked = tomllib.loads(text.decode())["submit"]["priority"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return asked if isinstance(asked, int) and abs(asked) <= PRIORITY_LIMIT else 0


def _append(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
