"""One job on all ranks of a communicator: those of the service, or those that were started for it alone."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

from sparsehess import errors, runtime
from sparsehess.commands.arguments import CommandLine
from sparsehess.commands.checkpoint_flags import open_checkpoint
from sparsehess.commands.resources import Resources
from sparsehess.errors import SparseHessError
from sparsehess.runtime import agreement, on_root
from sparsehess.service.resident.admission import Allowance, Task, admit
from sparsehess.service.resident.job_ending import Ending, as_error, one_line
from sparsehess.service.resident.limits import JobGuard
from sparsehess.service.resident.process_state import flush_output, record_output, work_in_folder
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.spool import Spool
from sparsehess.storage.checkpoint import Checkpoint

# Seconds in which a job with a checkpoint has to save once the service leaves.
SAVING = 10.0


class FolderGuard(runtime.JobEnd):
    """Ends the processes of a job where one rank has failed and the others wait for it.

    Parameters
    ----------
    folder
        Of the job.
    longest
        Seconds that a rank may be in a call of a function of the job; it ends the processes, so it is for ranks of
        one job alone.
    """

    def __init__(self, folder: Path, longest: float | None = None):
        super().__init__(longest=longest)
        self._folder = folder

    def end_stuck(self, comm: MPI.Comm, error: BaseException) -> None:
        """Write the reason into the folder, and end all ranks. Not collective."""
        with contextlib.suppress(OSError):
            (self._folder / "stuck").write_text(f"{one_line(error)} (the other ranks waited in another call)")
        flush_output()
        comm.Abort(errors.BUG)


def record_run(folder: Path, comm: MPI.Comm, work: Callable[[], Ending], *, anew: bool) -> Ending:
    """Return how a piece of work for the job of a folder has ended, its output recorded in `log`.

    Collective. Whatever is raised becomes an ending, told in the log.

    Parameters
    ----------
    anew
        Whether the log is begun, not gone on with.
    """
    error: Exception | None = None
    ending = Ending()
    with contextlib.ExitStack() as process:
        process.enter_context(runtime.use_guard(comm, FolderGuard(folder)))
        try:
            with agreement(comm):
                process.enter_context(record_output(folder / "log", anew and comm.rank == 0))
            ending = work()
        except BaseException as caught:
            error = as_error(caught)
        flush_output()  # before the first rank looks how long the log is
        try:
            runtime.raise_together(comm, error)
        except Exception as agreed:
            ending = Ending.from_error(agreed, folder)
            if comm.rank == 0:
                _complain(agreed, ending)
    return ending


def run_task(
    folder: Path,
    comm: MPI.Comm,
    line: CommandLine,
    task: Task,
    spool: Spool,
    resources: Resources,
    grace: float,
) -> Ending:
    """Run a job that was admitted, in its folder and within its limits.

    Collective. A job that was queued again resumes from its checkpoint, which is left for who writes the outcome:
    until then a job that is killed has not ended.
    """
    with work_in_folder(folder, comm):  # files that a problem writes without a path belong to the job
        checkpoint = open_checkpoint(task.arguments, comm, resume=True)
        leaves = _leaving(spool, checkpoint)
        guard = JobGuard(
            comm, task.limits, folder, leaves, lambda: spool.is_cancelled(folder), _telling(folder), grace
        )
        with guard:
            status = line.run(task.arguments, task.options, comm, checkpoint=checkpoint, resources=resources)
    return Ending(status)


def admit_together(folder: Path, comm: MPI.Comm, allowance: Allowance, line: CommandLine) -> Task:
    """Return what the job of a folder asks for. Collective: the first rank looks.

    Raises
    ------
    InputError
        It may not run; the message says why.
    """
    return on_root(comm, _admitted, folder, allowance, line)


def _admitted(folder: Path, allowance: Allowance, line: CommandLine) -> Task:
    try:
        return admit(folder, allowance, line)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SparseHessError):
            raise
        raise errors.InputError(f"job.toml: {' '.join(str(error).split())[:300]}") from error


def _leaving(spool: Spool, checkpoint: Checkpoint | None) -> Callable[[], bool]:
    """Return a function that says whether a job must end because the service leaves.

    A job with a checkpoint is asked to save first.
    """
    asked: list[float] = []

    def leaves() -> bool:
        if not spool.is_stopping:
            return False
        asked.append(time.monotonic())
        if checkpoint is None:
            return True
        checkpoint.interrupt(signal.SIGTERM)
        return asked[-1] - asked[0] > SAVING

    return leaves


def _telling(folder: Path) -> Callable[[str, int, int], None]:
    """Return a function that writes how far a job is."""
    began = time.time()

    def tell(stage: str, done: int, total: int) -> None:
        facts = {"stage": stage, "done": int(done), "total": int(total), "seconds": time.time() - began}
        with contextlib.suppress(OSError):
            job_outcomes.write_json(folder / "status.json", facts)

    return tell


def _complain(error: Exception, ending: Ending) -> None:
    """Say on standard error how a job has ended; with a traceback where that is a bug."""
    sys.stderr.write(f"sparsehess: {ending.error}\n")
    if not isinstance(error, SparseHessError) or error.status == errors.BUG:
        traceback.print_exception(error)
    sys.stderr.flush()
