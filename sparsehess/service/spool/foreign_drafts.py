"""Drafts of other users: copied before they run, and read as files of somebody who may be changing them.

Everything is opened relative to the folder that was opened first, without following links or waiting for pipes and
leases, and looked at once it is open. What its owner does meanwhile can only spoil his own job.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.spool.job_outcomes import OWN
from sparsehess.service.spool.layout import job_id
from sparsehess.storage.atomic_files import sync_folder

# Bytes of one file and of all of a job, and number of files, that are copied at most.
FILE_BYTES, JOB_BYTES, JOB_FILES = 64 * 2**20, 256 * 2**20, 1000

# Folder of inputs in that of a job.
INPUTS = "inputs"

# What stays free on the file system: this, or a twentieth of it where that is less.
_ROOM = 2**30

_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_PIECE = 2**20


class NoRoomError(Exception):
    """The file system has no room for a copy."""


class ForeignDraft:
    """The folder of a job that belongs to another user, opened.

    Attributes
    ----------
    owner
        Number of its user.
    """

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self.owner = os.fstat(folder).st_uid
        self._count = self._bytes = 0

    def copy(self, target: Path) -> None:
        """Copy the job file and inputs into a new folder, and on to the disk. Not collective.

        Raises
        ------
        InputError
            It is larger than a job may be, or holds what is no file of its owner's.
        NoRoomError
            There is no room for it.
        """
        self._copy_from(self._folder, "", target)
        written = [target]
        if INPUTS in os.listdir(self._folder):
            with _opened(INPUTS, self._folder, os.O_DIRECTORY) as inputs:
                if os.fstat(inputs).st_uid != self.owner:
                    raise InputError(f"{INPUTS}: belongs to another user than the job")
                written.insert(0, target / INPUTS)
                written[0].mkdir()
                self._copy_from(inputs, INPUTS, written[0])
        for folder in written:
            sync_folder(folder)

    def _copy_from(self, folder: int, called: str, target: Path) -> None:
        for name in self._names(folder, called):
            shown = repr(os.path.join(called, name))
            try:
                source = _open(name, folder)
            except FileNotFoundError as error:
                raise InputError(f"{shown}: was removed while the job was taken") from error
            try:
                self._copy_file(source, shown, target / name)
            finally:
                os.close(source)

    def _names(self, folder: int, called: str) -> list[str]:
        """Return the names of files in a folder; those that the service gives to its own are passed over."""
        names = []
        with _told(called or "its folder"), os.scandir(folder) as entries:
            for entry in entries:
                self._count += 1
                if self._count > JOB_FILES:
                    raise InputError(f"more than {JOB_FILES} files: name a folder of --allow-data for them")
                passed = entry.name in OWN or entry.name.startswith(".") or (called, entry.name) == ("", INPUTS)
                names += [] if passed else [entry.name]
        return sorted(names, key=os.fsencode)

    def _copy_file(self, source: int, shown: str, target: Path) -> None:
        facts = os.fstat(source)
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{shown}: no regular file")
        if facts.st_uid != self.owner:
            raise InputError(f"{shown}: belongs to another user than the job")
        if facts.st_nlink > 1:
            raise InputError(f"{shown}: has another name elsewhere (hard link): submit a copy")
        self._bytes += facts.st_size
        if facts.st_size > FILE_BYTES or self._bytes > JOB_BYTES:
            raise InputError(
                f"{shown}: a job brings files of at most {FILE_BYTES >> 20} MiB, {JOB_BYTES >> 20} MiB together: "
                "name larger ones by their path in a folder of --allow-data"
            )
        _check_room(target.parent, facts.st_size)
        left = facts.st_size
        written = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(written, "wb", buffering=0) as stream:
            while left > 0 and (piece := _read(source, min(left, _PIECE), shown)):
                _write(stream, piece)
                left -= len(piece)
            os.fsync(written)

    def remove_files(self) -> None:
        """Remove what a job has, as far as its owner lets us. Not collective."""
        self._count = 0
        with suppress(OSError, InputError):
            with _opened(INPUTS, self._folder, os.O_DIRECTORY) as inputs:
                self._remove_from(inputs, INPUTS)
            os.rmdir(INPUTS, dir_fd=self._folder)
        self._remove_from(self._folder, "")

    def _remove_from(self, folder: int, called: str) -> None:
        with suppress(OSError, InputError):
            for name in self._names(folder, called):
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)


@contextmanager
def open_draft(folder: Path) -> Iterator[ForeignDraft]:
    """Yield the draft of a folder. Not collective.

    Raises
    ------
    InputError
        Its owner does not let us read it.
    FileNotFoundError
        Its owner has removed it.
    """
    with _opened(os.fspath(folder), None, os.O_DIRECTORY) as opened:
        yield ForeignDraft(opened)


def remove_draft(folder: Path) -> bool:
    """Remove the draft of another user as far as he lets us; return whether it is gone. Not collective."""
    with suppress(OSError, InputError):
        with open_draft(folder) as draft:
            draft.remove_files()
        os.rmdir(folder)
    return not os.path.lexists(folder)


@contextmanager
def _opened(name: str, folder: int | None, kind: int = 0) -> Iterator[int]:
    """Yield a descriptor of a file that is looked at, not followed nor waited for."""
    descriptor = _open(name, folder, kind)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str, folder: int | None, kind: int = 0) -> int:
    try:
        return os.open(name, _LOOK | kind, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise InputError(f"{job_id(name) if folder is None else repr(name)}: {reason}") from error


@contextmanager
def _told(shown: str) -> Iterator[None]:
    """Turn an OSError of the block, which reads files of the draft, into an error of the job."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error


def _read(source: int, size: int, shown: str) -> bytes:
    with _told(shown):
        return os.read(source, size)


def _write(stream: io.RawIOBase, piece: bytes) -> None:
    left = memoryview(piece)
    try:
        while left:
            left = left[stream.write(left) or 0 :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(error.strerror) from error
        raise


def _check_room(folder: Path, size: int) -> None:
    facts = os.statvfs(folder)
    free, whole = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    if free - size < min(_ROOM, whole // 20):
        raise NoRoomError(f"{free >> 20} MiB are free")


def read_small_file(path: Path, limit: int) -> bytes:
    """Return a small file of somebody else, nothing where it is none: it is not followed nor waited for.

    Not collective.
    """
    try:
        with _opened(os.fspath(path), None) as source:
            facts = os.fstat(source)
            return os.read(source, limit) if stat.S_ISREG(facts.st_mode) and facts.st_size <= limit else b""
    except (OSError, InputError):
        return b""
