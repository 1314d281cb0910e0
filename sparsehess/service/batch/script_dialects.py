"""What differs between schedulers in a batch script: its head, its signals, and how a job begins again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sparsehess.commands.quantities import format_time
from sparsehess.errors import InputError
from sparsehess.service.batch.choices import SCHEDULER_NAMES
from sparsehess.service.batch.jobs import Job

# Exit status of a command that was stopped after it had saved what it has.
RESUMABLE = 75

# Seconds before the time limit at which ranks are asked to save, and at most this part of the time.
_LEAD = 120
_PART = 0.25

# The script, and where its new number is kept.
_NUMBERED = '"$job/script" > "$job/number.new" && mv "$job/number.new" "$job/number"'


@dataclass(frozen=True)
class Dialect:
    """How one scheduler is spoken to in a script.

    Attributes
    ----------
    directive
        How a line of the head begins; empty where there is no head.
    options
        Returns (name, value) of the head for a job, a value of None for none of it.
    number
        Variable of the job's number.
    joint
        What stands between name and value.
    signals
        Whether the scheduler itself asks ranks to save before the limit; else the script does.
    end
        Signals after which the script ends; by SIGUSR1 it is told to save.
    again
        Words that queue a stopped job again; empty where exit status 75 does it, None where nothing does.
    launcher
        What starts ranks where nothing is said.
    lacks
        Choices of `submit` that it has nothing for.
    arrays
        Options that make several jobs of one, which nobody here would know of.
    """

    directive: str
    options: Callable[[Job], Iterable[tuple[str, object]]]
    number: str = ""
    joint: str = " "
    signals: bool = False
    end: str = "TERM"
    again: str | None = None
    launcher: str = "mpiexec"
    lacks: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()

    def head(self, job: Job) -> list[str]:
        """Return the lines that tell the scheduler what a job is. Not collective."""
        if not self.directive:
            return []
        told = ((name, value) for name, value in self.options(job) if value is not None)
        lines = [f"{name}{self.joint if value != '' else ''}{value}" for name, value in told]
        return [f"{self.directive} {line}" for line in (*lines, *job.directives)]

    def check_directive(self, text: str) -> None:
        """Raise InputError for a line that the head cannot have. Not collective."""
        shown = f"--directive {text!r}"
        if not text.isprintable():
            raise InputError(f"{shown}: one line, without control characters")
        if not text.startswith("-"):
            raise InputError(f"{shown}: an option, such as --exclusive; {self.directive} is put before it")
        if any(text == one or text.startswith((f"{one} ", f"{one}=")) for one in self.arrays):
            raise InputError(f"{shown}: a job is one, and an array is many: submit as many job files")


def lead_time(seconds: int) -> int:
    """Return the seconds before a time limit at which ranks are asked to save. Not collective."""
    return max(1, min(_LEAD, int(_PART * seconds)))


def _warning(job: Job) -> int | None:
    """Return the seconds of the warning before the limit, None where nothing can be saved."""
    return lead_time(job.time) if job.resumable and job.time is not None else None


def _slurm(job: Job) -> Iterable[tuple[str, object]]:
    warning = _warning(job)
    return (
        ("--job-name", job.name),
        ("--ntasks", job.ranks),
        ("--cpus-per-task", 1),
        ("--time", None if job.time is None else format_time(job.time)),
        ("--mem-per-cpu", job.memory),
        ("--account", job.account),
        ("--partition", job.queue),
        ("--output", job.file("scheduler")),
        ("--open-mode", "append"),
        ("--signal", None if warning is None else f"B:USR1@{warning}"),
        ("--requeue" if job.resumable else "--no-requeue", ""),
    )


def _pbs(job: Job) -> Iterable[tuple[str, object]]:
    chunk = f"select={job.ranks}:ncpus=1:mpiprocs=1" + (f":mem={job.memory.lower()}b" if job.memory else "")
    return (
        ("-N", job.name),
        ("-l", chunk),
        ("-l", None if job.time is None else f"walltime={format_time(job.time)}"),
        ("-A", job.account),
        ("-q", job.queue),
        ("-j", "oe"),
        ("-o", job.file("scheduler")),
        ("-r", "y" if job.resumable else "n"),
    )


def _flux(job: Job) -> Iterable[tuple[str, object]]:
    warning = _warning(job)
    return (
        ("--job-name", job.name),
        ("--nslots", job.ranks),
        ("--cores-per-slot", 1),
        ("--time-limit", None if job.time is None else f"{job.time}s"),
        ("--bank", job.account),
        ("--queue", job.queue),
        ("--output", job.file("scheduler")),
        ("--signal", None if warning is None else f"USR1@{warning}s"),
    )


def _lsf(job: Job) -> Iterable[tuple[str, object]]:
    warning = _warning(job)
    # Limits are whole minutes: the limit is rounded up, and the warning comes no later.
    limit = None if job.time is None else -(-job.time // 60)
    early = None if warning is None or limit is None or limit < 2 else -(-warning // 60)
    return (
        ("-J", job.name),
        ("-n", job.ranks),
        ("-W", None if limit is None else f"{limit // 60}:{limit % 60:02d}"),
        ("-R", None if job.memory is None else f'"rusage[mem={job.memory}B/task]"'),
        ("-P", job.account),
        ("-q", job.queue),
        ("-o", job.file("scheduler")),
        ("-wa", None if early is None else "USR1"),
        ("-wt", early),
        ("-Q", RESUMABLE if job.resumable else None),
        ("-r" if job.resumable else "-rn", ""),
    )


def _local(job: Job) -> Iterable[tuple[str, object]]:
    return ()


DIALECTS = dict(
    zip(
        SCHEDULER_NAMES,
        (
            Dialect(
                "#SBATCH",
                _slurm,
                "SLURM_JOB_ID",
                joint="=",
                signals=True,
                # It ends all processes of the job, and is not to be ended itself before it can say so.
                again='(trap "" TERM; exec scontrol requeue "$SLURM_JOB_ID")',
                arrays=("--array", "-a"),
            ),
            Dialect(
                "#PBS",
                _pbs,
                "PBS_JOBID",
                again=f"qsub {_NUMBERED}",
                arrays=("-J", "-t"),
            ),
            Dialect(
                "# flux:",
                _flux,
                "FLUX_JOB_ID",
                joint="=",
                signals=True,
                # The script runs in an instance of its own: the queue is that of the one around it.
                again=f"flux --parent batch {_NUMBERED}",
                launcher="flux run",
                lacks=("memory",),
            ),
            Dialect(
                "#BSUB",
                _lsf,
                "LSB_JOBID",
                signals=True,
                end="INT TERM",  # in this order, ten seconds apart
                again="",
                arrays=("-J",),
            ),
            Dialect("", _local, lacks=("memory", "account", "queue", "directive")),
        ),
        strict=True,
    )
)
