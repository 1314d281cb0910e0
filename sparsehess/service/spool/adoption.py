"""Jobs of other users become jobs of the service: as copies, which nobody else can change."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.spool.foreign_drafts import NoRoomError, open_draft, remove_draft
from sparsehess.service.spool.job_outcomes import append_line, write_outcome
from sparsehess.service.spool.layout import COPY, TAKEN, job_id, working_name
from sparsehess.service.spool.states import SpoolStates
from sparsehess.storage.atomic_files import sync_folder


def adopt_job(spool: SpoolStates, name: str, folder: Path) -> bool:
    """Copy a job of another user from the queue to its place; return whether it is there.

    Not collective. The draft goes under another name first, so that one group alone takes it, and is removed last.
    One that cannot be copied has failed; one that its owner has taken away is passed over.

    Parameters
    ----------
    name
        In the queue.
    folder
        Where it runs.

    Raises
    ------
    NoRoomError
        The file system has no room for it; it waits in the queue again.
    OSError
        It cannot be moved, or the copy cannot be written; it waits in the queue again.
    """
    source, taken = spool.path / "queued" / name, spool.path / "queued" / f"{TAKEN}{name}"
    copy = spool.path / "new" / working_name(folder.name, COPY)
    try:
        os.rename(source, taken)
    except FileNotFoundError:  # another group, or its owner, was first
        return False
    try:
        copy.mkdir(mode=0o700)
        try:
            _copy(taken, copy)
        except InputError as error:
            shutil.rmtree(copy)
            copy.mkdir(mode=0o700)
            write_outcome(copy, {"id": job_id(folder), "state": "failed", "exit": 2, "error": str(error)})
            spool.settle(copy)
        else:
            os.rename(copy, folder)
            sync_folder(folder.parent)
    except FileNotFoundError:  # its owner has taken it away
        shutil.rmtree(copy, ignore_errors=True)
        return False
    except (NoRoomError, OSError, KeyboardInterrupt):
        shutil.rmtree(copy, ignore_errors=True)
        with suppress(OSError):
            os.rename(taken, source)
        raise
    remove_draft(taken)
    return folder.exists()


def _copy(taken: Path, copy: Path) -> None:
    with open_draft(taken) as draft:
        draft.copy(copy)
        append_line(copy / "submitter", f"{draft.owner}\n")
