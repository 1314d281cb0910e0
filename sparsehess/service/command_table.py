"""Commands on jobs: of a scheduler's queue, and of the resident service. One entry for each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sparsehess.commands.arguments import Command, CommandLine, Flag
from sparsehess.commands.flag_groups import ANSWER_FLAGS
from sparsehess.commands.output import refuse_solver_options
from sparsehess.runtime import require_real
from sparsehess.service import spool
from sparsehess.service.schedulers import SCHEDULERS

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.resources import Resources
    from sparsehess.storage.checkpoint import Checkpoint


class JobCommand(Command):
    """A command on jobs: its function takes (arguments, line, comm), to check job files against the command line.

    It solves nothing, and refuses options of PETSc.
    """

    def run(
        self,
        line: CommandLine,
        arguments: argparse.Namespace,
        options: dict[str, object],
        comm: MPI.Comm | None,
        checkpoint: Checkpoint | None,
        resources: Resources | None,
    ) -> int:
        """Call the function of the command and return the exit status. Collective; see `CommandLine.run`."""
        refuse_solver_options(options)
        if self.needs_real and comm is not None:
            require_real(f"the command {self.name}")
        return self._function()(arguments, line, comm)


_SPOOL_FLAG = Flag("--spool", metavar="DIR", help="of a resident service, see serve")

JOB_COMMANDS = (
    JobCommand(
        "submit",
        "queue a job file, and remember it",
        "sparsehess.service.batch_commands:run_submit",
        (
            *ANSWER_FLAGS,
            Flag("job", metavar="JOB.toml", help="what to run; its table [submit] holds these flags"),
            Flag(
                "--scheduler",
                choices=["auto", *SCHEDULERS],
                default="auto",
                help="(default: the one that is installed)",
            ),
            Flag("--ranks", type=int, metavar="N", default=1, help="MPI processes (default 1)"),
            Flag("--time", metavar="HH:MM:SS", help="limit; the last part of it is for saving"),
            Flag("--memory", metavar="SIZE", help="of each rank, such as 4G"),
            Flag("--account", metavar="NAME", help="that pays"),
            Flag("--queue", "--partition", metavar="NAME", help="of the scheduler"),
            Flag("--name", metavar="NAME", help="(default: that of the job file)"),
            Flag(
                "--launcher",
                metavar="COMMAND",
                default="mpiexec",
                help='such as "srun --mpi=pmix" (default mpiexec)',
            ),
            Flag(
                "--setup",
                metavar="LINE",
                action="append",
                default=[],
                help='a line of the script before the command, such as "module load openmpi"; may be repeated',
            ),
            Flag("--dry-run", action="store_true", help="print the script, and queue nothing"),
            _SPOOL_FLAG,
            Flag(
                "--priority",
                type=int,
                metavar="N",
                default=0,
                help=f"in a spool, up to {spool.LIMIT}: the larger the sooner",
            ),
            Flag("--wait", action="store_true", help="in a spool: wait for the end, then do as result does"),
        ),
        needs_mpi=False,
    ),
    JobCommand(
        "status",
        "how jobs stand",
        "sparsehess.service.batch_commands:run_status",
        (
            *ANSWER_FLAGS,
            Flag("jobs", metavar="JOB", nargs="*", help="numbers or names (default: all)"),
            _SPOOL_FLAG,
        ),
        needs_mpi=False,
    ),
    JobCommand(
        "result",
        "what a job has answered; ends with the status that the job has ended with",
        "sparsehess.service.batch_commands:run_result",
        (
            *ANSWER_FLAGS,
            Flag("id", metavar="JOB", help="number or name"),
            _SPOOL_FLAG,
        ),
        needs_mpi=False,
    ),
    JobCommand(
        "cancel",
        "end jobs",
        "sparsehess.service.batch_commands:run_cancel",
        (
            *ANSWER_FLAGS,
            Flag("jobs", metavar="JOB", nargs="+", help="numbers or names"),
            _SPOOL_FLAG,
        ),
        needs_mpi=False,
    ),
    JobCommand(
        "serve",
        "stay up, and take jobs from a spool directory",
        "sparsehess.service.spool_commands:run_serve",
        (
            *ANSWER_FLAGS,
            Flag("spool", metavar="SPOOL", help="made if it is missing; who may write there may submit"),
            Flag("--groups", type=int, metavar="G", default=1, help="of ranks, each with a job of its own"),
            Flag(
                "--allow-code",
                metavar="DIR",
                action="append",
                default=[],
                help="whose Python files jobs may run; repeatable",
            ),
            Flag(
                "--allow-data",
                metavar="DIR",
                action="append",
                default=[],
                help="whose files jobs may read; repeatable",
            ),
            Flag("--time", metavar="HH:MM:SS", help="that a job gets at most (default: no limit)"),
            Flag(
                "--memory",
                metavar="SIZE",
                help="of each rank that a job gets at most (default: most of what is free)",
            ),
            Flag(
                "--grace",
                type=float,
                metavar="S",
                default=30.0,
                help="from a job's limit to the end of its processes",
            ),
            Flag(
                "--cache", metavar="SIZE", default="256M", help="kept between jobs, 0 for nothing (default 256M)"
            ),
            Flag("--idle", type=float, metavar="S", help="leave after so many seconds without a job"),
            Flag("--once", action="store_true", help="leave when no job is left"),
            Flag("--shared", action="store_true", help="take a spool that others can write into"),
            Flag(
                "--ranks",
                type=int,
                metavar="P",
                help="start mpiexec with P ranks, and again where a job has ended them",
            ),
            Flag("--launcher", metavar="COMMAND", default="mpiexec", help="of --ranks (default mpiexec)"),
        ),
        needs_real=True,
    ),
)
