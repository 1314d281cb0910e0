"""The command line: exit statuses, and who prints. What stands after `--` goes to PETSc."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sparsehess import errors, runtime
from sparsehess.commands.arguments import JOB_SUFFIX, CommandLine, Help
from sparsehess.commands.command_table import ANALYSES, INFO, SHELL_COMMANDS
from sparsehess.commands.petsc_words import split_petsc
from sparsehess.errors import InputError, SparseHessError
from sparsehess.runtime.launchers import is_first_process, is_launched, launched_together
from sparsehess.runtime.printable import printable
from sparsehess.runtime.process_watch import end_when_interrupted
from sparsehess.service.command_table import JOB_COMMANDS

if TYPE_CHECKING:
    from types import FrameType

    from mpi4py import MPI

    from sparsehess.storage.checkpoint import Checkpoint

_COMMANDS = (*ANALYSES, *JOB_COMMANDS, INFO, *SHELL_COMMANDS)

# Signals at which a run with a checkpoint saves, and stops.
_STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

# Seconds that ranks without PETSc leave the word to the first.
_OTHERS = 3.0

# Seconds that other ranks leave the word to the first where all are interrupted.
_AFTER_THE_FIRST = 0.7

# Seconds that what a problem has left running may keep a run that has failed.
_LEFT_RUNNING = 10.0

# Seconds after which a second SIGINT ends a run that is to save a checkpoint first.
_TWICE = 1.0


def command_line() -> CommandLine:
    """Return the command line, all commands in it. Not collective."""
    return CommandLine(_COMMANDS)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands, for pages made from it. Not collective.

    What ends each help is a literal block of reStructuredText: commands stand there as they are typed.
    """
    line = command_line()
    for one in (line.parser, *line.parsers.values()):
        one.epilog = re.sub(r"^(\w+):\n", r"\1::\n\n", one.epilog or "")
    return line.parser


def _keep_running(seconds: float, status: int, who: str) -> None:
    """Let a process go on that runs several commands."""


def main(argv: list[str] | None = None, end_within: Callable[[float, int, str], None] = _keep_running) -> None:
    """Run the command line and exit with its status.

    Collective on the world communicator.

    Parameters
    ----------
    argv
        Words of the command line; default those of the process.
    end_within
        What sees to it that the process ends, see `runtime.process_end.end_within`; default nothing.
    """
    end_when_interrupted(f"sparsehess: interrupted{_place()}", 0.0 if is_first_process() else _AFTER_THE_FIRST)
    try:
        status = _status_of(list(sys.argv[1:] if argv is None else argv), end_within)
    except KeyboardInterrupt:  # raised by what has a handler of its own
        status = errors.INTERRUPTED
    sys.exit(status)


def _place() -> str:
    """Return which of several processes this is, as a line of the first does not say it. Not collective."""
    return "" if is_first_process() else f" (process {os.getpid()} on {socket.gethostname()})"


def _status_of(words: list[str], end_within: Callable[[float, int, str], None]) -> int:
    """Run a command line; return its exit status. Collective on the world communicator."""
    if getattr(sys.stdout, "errors", None) == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without Greek is no reason to lose an answer
    ours, _, theirs = _partition(words)
    arguments: argparse.Namespace | None = None
    failed: BaseException | None = None
    options: dict[str, object] = {}
    rest: list[str] = []
    names: list[str] = []
    line = command_line()
    try:
        if any(word.endswith(JOB_SUFFIX) for word in ours):
            from sparsehess.commands.job_files import expand_job_file

            ours, first = expand_job_file(ours, line)
            theirs = first + theirs
        arguments = line.parse(ours)
        options, rest, names = split_petsc(theirs)
        arguments.words += ["--", *theirs] if theirs else []
    except Help as help_text:
        _print_help(str(help_text))
        return errors.DONE
    except InputError as error:
        failed = error
    verbose = "-v" in ours or "--verbose" in ours
    if not _needs_mpi(words):
        return _run_alone(line, arguments, failed, theirs, verbose) if is_first_process() else errors.DONE
    if failed is not None and not is_launched():
        return _report(failed, 0, verbose)  # of several processes one could end before the first has spoken
    try:
        runtime.initialize(rest)
    except SparseHessError as error:
        if not is_first_process():
            time.sleep(_OTHERS)  # the launcher ends all after the first has told it; one that is alone is heard
        sys.stderr.write(f"sparsehess: {error}\n")
        return error.status
    from mpi4py import MPI

    from sparsehess.service.batch.job_progress import tell_progress

    world = MPI.COMM_WORLD
    try:
        runtime.set_guard(world, runtime.JobEnd(longest=getattr(arguments, "patience", None)))
    except InputError as error:  # on all ranks
        failed = error
    tell_progress(world)
    if world.size == 1:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sparsehess … | head` ends as any filter does
    _log_to_stderr(verbose)
    _warn_of_singletons(world.size)
    status = errors.DONE
    if failed is None and arguments is not None:
        try:
            status = _run(line, arguments, options, names, world)
        except BaseException as caught:  # whatever it is, the other ranks hear of it
            failed = caught
    # Errors of the library are raised on all ranks; this agreement is for the others: our own bugs.
    try:
        runtime.raise_together(world, failed)
    except BaseException as agreed:
        status = _report(agreed, world.rank, verbose)
    sys.stdout.flush()
    if status == errors.STOPPED:
        # A scheduler and a launcher may both tell it: what has saved is not killed while it ends.
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)
    patience = getattr(arguments, "patience", None) or (_LEFT_RUNNING if status else 0.0)
    if patience:
        end_within(patience, status, f"rank {world.rank}, which is done,")
    return status


def _run_alone(
    line: CommandLine,
    arguments: argparse.Namespace | None,
    failed: BaseException | None,
    theirs: list[str],
    verbose: bool,
) -> int:
    """Run a command that needs neither MPI nor PETSc; return its exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _log_to_stderr(verbose)
    try:
        if arguments is None:
            raise failed or ValueError("a command line is parsed, or refused")
        if theirs:
            raise InputError(
                f"{theirs[0]}: {arguments.command} solves nothing, its job file has a [petsc]: leave it out here"
            )
        return line.run(arguments, {}, None)
    except BaseException as caught:
        return _report(caught, 0, verbose)


def _print_help(text: str) -> None:
    """Print what -h or --version asked for, where a launcher has started several on the first alone.

    Not collective: it needs no MPI, and each process ends by itself.
    """
    if is_first_process():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        sys.stdout.write(text)
        sys.stdout.flush()


def _log_to_stderr(verbose: bool) -> None:
    import logging

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Printable("sparsehess: %(message)s"))


def _warn_of_singletons(size: int) -> None:
    """Tell of a launcher whose processes are not ranks of one MPI: each would do all the work. Not collective."""
    started = launched_together()
    if size == 1 < started and is_first_process() and os.environ.get("SLURM_PROCID", "0") == "0":
        runtime.log.warning(
            "the launcher has started %d processes, and MPI has 1 rank in each: all do the same; it must be of "
            "the MPI that mpi4py has (`sparsehess info`), as with srun --mpi=pmix",
            started,
        )


def _needs_mpi(words: list[str]) -> bool:
    """Return whether a command line needs MPI and PETSc; `serve --ranks` starts them and looks after them."""
    supervises = words[:1] == ["serve"] and any(word.partition("=")[0] == "--ranks" for word in words)
    return not supervises and not any(words[:1] == [one.name] and not one.needs_mpi for one in _COMMANDS)


def _partition(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    if "--" not in words:
        return words, [], []
    at = words.index("--")
    return words[:at], ["--"], words[at + 1 :]


def _run(
    line: CommandLine,
    arguments: argparse.Namespace,
    options: dict[str, object],
    names: list[str],
    world: MPI.Comm,
) -> int:
    """Run a command on all ranks; return its exit status. Collective."""
    from sparsehess.commands.checkpoint_flags import clear_checkpoint
    from sparsehess.storage import writers

    comm = runtime.communicator(world)
    writers.check_writable(None if arguments.json == "-" else arguments.json, (), comm)
    _check_citations(comm)
    checkpoint = _open_checkpoint(arguments, comm)
    status = line.run(arguments, options, comm, checkpoint=checkpoint)
    clear_checkpoint(checkpoint, arguments)
    unused = [name for name in names if not runtime.option_was_used(name)]
    if unused:
        raise InputError(
            f"PETSc options that nothing has used: {', '.join('-' + name for name in unused)}; mend or leave out"
        )
    return status


def _check_citations(comm: MPI.Comm) -> None:
    """Refuse a file that PETSc could not write its citations to when it ends. Collective."""
    options = runtime.PETSc.Options()
    place = options.getString("citations", "")
    try:
        with runtime.agreement(comm):
            if place and comm.rank == 0:
                target = place if os.path.exists(place) else os.path.dirname(os.path.abspath(place))
                if os.path.isdir(place) or not os.access(target, os.W_OK):
                    raise InputError(f"-citations {place}: cannot be written; name another file")
    except InputError:
        options.delValue("citations")  # PETSc would try it all the same
        raise


def _open_checkpoint(arguments: argparse.Namespace, comm: MPI.Comm) -> Checkpoint | None:
    """Return the checkpoint that the arguments ask for, told of signals from now on; or None. Collective."""
    from sparsehess.commands.checkpoint_flags import open_checkpoint

    found = open_checkpoint(arguments, comm)
    if found is None:
        return None
    first: list[float] = []

    def told(number: int, frame: FrameType | None) -> None:
        found.interrupt(number)
        first.append(time.monotonic())
        # A launcher may say it twice; a person who does so later does not want to wait.
        if number == signal.SIGINT and first[-1] - first[0] > _TWICE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in _STOPPING:
        signal.signal(number, told)
    return found


def _report(error: BaseException, rank: int, verbose: bool) -> int:
    """Say what went wrong; return the exit status."""
    known = errors.rebuild(*errors.describe(error, rank))
    if rank == 0:
        advice = (
            "" if known.status != errors.BUG else " (a bug in sparsehess: please report it, with the output of -v)"
        )
        sys.stderr.write(f"sparsehess: {printable(' '.join(str(known).split()))}{advice}\n")
    if verbose:
        import traceback

        traceback.print_exception(error)
    sys.stderr.flush()
    return known.status


def _serve_one_job() -> None:
    """Run the job that a service tells of on standard input. Collective on the world communicator."""
    runtime.initialize()
    from mpi4py import MPI

    from sparsehess.service.resident.job_ranks import run_ordered_job

    _log_to_stderr(False)
    try:
        run_ordered_job(command_line(), runtime.communicator(MPI.COMM_WORLD))
    except SparseHessError as error:
        sys.exit(_report(error, MPI.COMM_WORLD.rank, False))


if __name__ == "__main__":
    _serve_one_job()
