"""Commands on jobs: of a scheduler's queue, and of the resident service. One entry for each."""

from __future__ import annotations

from sparsehess.commands.arguments import Example, Flag, Group, LineCommand
from sparsehess.commands.flag_groups import ANSWER_FLAGS
from sparsehess.service.batch.choices import PRIORITY_LIMIT, SCHEDULER_NAMES

SECTION = "jobs"

_SPOOL_FLAG = Flag("--spool", metavar="DIR", help="folder of a resident service, see serve")
_OUTPUT = Group("output", *ANSWER_FLAGS)

JOB_COMMANDS = (
    LineCommand(
        "submit",
        "queue a job file, and remember it",
        SECTION,
        "sparsehess.service.batch_commands:run_submit",
        (
            Group(
                "input",
                Flag("job", metavar="JOB.toml", help="what to run; its table [submit] holds these flags"),
                Flag("--name", metavar="NAME", help="name of the job (default: that of the job file)"),
                Flag(
                    "--no-check",
                    action="store_true",
                    help="queue it though inputs, functions, arguments or folders are not there yet, or not here",
                ),
            ),
            Group(
                "resources",
                Flag("--ranks", type=int, metavar="N", default=1, help="MPI processes (default 1)"),
                Flag("--time", metavar="HH:MM:SS", help="time limit; the last part of it is for saving"),
                Flag("--memory", metavar="SIZE", help="memory of each rank, such as 4G"),
            ),
            Group(
                "scheduler",
                Flag(
                    "--scheduler",
                    choices=["auto", *SCHEDULER_NAMES],
                    default="auto",
                    help="what runs the job (default: the scheduler that is installed, else local)",
                ),
                Flag("--account", metavar="NAME", help="account that pays"),
                Flag("--queue", "--partition", metavar="NAME", help="queue, or partition, of the scheduler"),
                Flag(
                    "--launcher",
                    metavar="COMMAND",
                    help='what starts the ranks, such as "srun --mpi=pmix" (default mpiexec; flux run by flux)',
                ),
                Flag(
                    "--setup",
                    metavar="LINE",
                    action="append",
                    default=[],
                    help='a line of the script before the command, such as "module load openmpi"; may be repeated',
                ),
                Flag(
                    "--directive",
                    metavar="OPTION",
                    action="append",
                    default=[],
                    help="an option of the scheduler for which there is no flag, written with =, such as "
                    '"--directive=--constraint=cpu"; may be repeated',
                ),
            ),
            Group(
                "resident service",
                _SPOOL_FLAG,
                Flag(
                    "--priority",
                    type=int,
                    metavar="N",
                    default=0,
                    help=f"priority in a spool, up to {PRIORITY_LIMIT}: the larger the sooner",
                ),
                Flag("--wait", action="store_true", help="wait for the end in the spool, then do as result does"),
            ),
            Group(
                "output",
                Flag("--dry-run", action="store_true", help="print the script, and queue nothing"),
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example(
                "the script for Slurm, to look at; nothing is queued",
                "sparsehess submit drivers/job.toml --scheduler slurm --ranks 64 --time 4:00:00 --dry-run",
            ),
            Example(
                "queue it here, without a scheduler",
                "sparsehess submit drivers/job.toml --scheduler local --name argon",
            ),
            Example("hand it to a resident service", "sparsehess submit job.toml --spool spool"),
        ),
        needs_mpi=False,
    ),
    LineCommand(
        "status",
        "how jobs stand",
        SECTION,
        "sparsehess.service.batch_commands:run_status",
        (
            Group(
                "input",
                Flag("jobs", metavar="JOB", nargs="*", help="numbers or names of jobs (default: all)"),
                _SPOOL_FLAG,
            ),
            _OUTPUT,
        ),
        (
            Example("all jobs", "sparsehess status"),
            Example("one, by its name", "sparsehess status argon"),
            Example("those of a resident service", "sparsehess status --spool spool"),
        ),
        needs_mpi=False,
    ),
    LineCommand(
        "result",
        "what a job has answered; ends with the status that the job has ended with",
        SECTION,
        "sparsehess.service.batch_commands:run_result",
        (Group("input", Flag("id", metavar="JOB", help="number or name of a job"), _SPOOL_FLAG), _OUTPUT),
        (
            Example("of a job, by its name", "sparsehess result argon"),
            Example("its facts, for a script", "sparsehess result argon --json argon.json --quiet"),
            Example(
                "of a job of a resident service, by the end of its id", "sparsehess result 4f2a9c --spool spool"
            ),
        ),
        needs_mpi=False,
    ),
    LineCommand(
        "cancel",
        "end jobs",
        SECTION,
        "sparsehess.service.batch_commands:run_cancel",
        (
            Group("input", Flag("jobs", metavar="JOB", nargs="+", help="numbers or names of jobs"), _SPOOL_FLAG),
            _OUTPUT,
        ),
        (
            Example("one, by its name", "sparsehess cancel argon"),
            Example("by its number, with facts for a script", "sparsehess cancel 1 --json -"),
            Example("one of a resident service", "sparsehess cancel 4f2a9c --spool spool"),
        ),
        needs_mpi=False,
    ),
    LineCommand(
        "serve",
        "stay up, and take jobs from a spool directory",
        SECTION,
        "sparsehess.service.serve_command:run_serve",
        (
            Group(
                "input",
                Flag("spool", metavar="SPOOL", help="made if it is missing; who may write there may submit"),
                Flag("--shared", action="store_true", help="let everybody on this machine submit"),
                Flag("--group", metavar="NAME", help="let the members of a Unix group submit, yours among them"),
                Flag(
                    "--allow-code",
                    metavar="DIR",
                    action="append",
                    default=[],
                    help="folder whose Python files jobs may run; may be repeated",
                ),
                Flag(
                    "--allow-data",
                    metavar="DIR",
                    action="append",
                    default=[],
                    help="folder whose files jobs may read; may be repeated",
                ),
            ),
            Group(
                "ranks",
                Flag(
                    "--groups",
                    type=int,
                    metavar="G",
                    default=1,
                    help="groups of ranks, each with a job of its own (default 1)",
                ),
                Flag(
                    "--ranks",
                    type=int,
                    metavar="P",
                    help="start mpiexec with P ranks, and again where a job has ended them",
                ),
                Flag(
                    "--launcher",
                    metavar="COMMAND",
                    default="mpiexec",
                    help='what starts the ranks of --ranks, and those of jobs that run code, such as "srun '
                    '--overlap --mpi=pmix" (default mpiexec)',
                ),
            ),
            Group(
                "limits",
                Flag("--time", metavar="HH:MM:SS", help="time that a job gets at most (default: no limit)"),
                Flag(
                    "--memory",
                    metavar="SIZE",
                    help="memory of each rank that a job gets at most (default: most of what is free)",
                ),
                Flag(
                    "--grace",
                    type=float,
                    metavar="S",
                    default=30.0,
                    help="seconds from a job's limit to the end of its processes (default 30)",
                ),
                Flag(
                    "--cache",
                    metavar="SIZE",
                    default="256M",
                    help="memory for what is kept between jobs, 0 for nothing (default 256M)",
                ),
            ),
            Group(
                "end",
                Flag("--idle", type=float, metavar="S", help="leave after so many seconds without a job"),
                Flag("--once", action="store_true", help="leave when no job is left"),
            ),
            _OUTPUT,
        ),
        (
            Example(
                "what waits in the spool, with files of one folder, then leave",
                "sparsehess serve spool --allow-code drivers --allow-data . --once",
            ),
            Example(
                "on four ranks, two jobs at a time, until an hour has brought none",
                "mpiexec -n 4 sparsehess serve spool --groups 2 --idle 3600",
            ),
            Example(
                "looked after: started again where a job has ended the ranks; half an hour for each job",
                "sparsehess serve spool --ranks 4 --time 00:30:00 --idle 3600",
            ),
        ),
        needs_real=True,
    ),
)
