"""The ranks that are started for one job that runs code, and end with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsehess.commands.resources import Resources
from sparsehess.runtime import agreement, on_root, use_guard
from sparsehess.service.resident.job_ending import write_ending
from sparsehess.service.resident.job_processes import Order
from sparsehess.service.resident.job_run import FolderGuard, admit_together, record_run, run_task
from sparsehess.service.spool.spool import Spool

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.arguments import CommandLine
    from sparsehess.service.resident.job_ending import Ending


def run_ordered_job(line: CommandLine, comm: MPI.Comm) -> None:
    """Run the job that the first rank is told on standard input, and leave its ending in its folder.

    Collective.

    Raises
    ------
    InputError
        There is no order.
    """
    order = on_root(comm, Order.read)
    spool, folder = Spool(Path(order.spool)), Path(order.folder)

    def work() -> Ending:
        task = admit_together(folder, comm, order.allowance, line)
        with use_guard(comm, FolderGuard(folder, getattr(task.arguments, "patience", None))):
            return run_task(folder, comm, line, task, spool, Resources(), order.grace)

    ending = record_run(folder, comm, work, anew=False)
    with agreement(comm):
        if comm.rank == 0:
            write_ending(folder, ending)
