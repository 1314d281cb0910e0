"""All commands on matrices and problems, and those that need neither. Examples run in this order."""

from __future__ import annotations

from sparsehess.commands.arguments import (
    HELP_FLAG,
    Command,
    Example,
    Flag,
    Group,
    LineCommand,
    ShowSchema,
)
from sparsehess.commands.atom_commands import ATOMS
from sparsehess.commands.command_groups import (
    BEFORE,
    OUTPUT_GROUP,
    SHELL,
    SPECTRA,
)
from sparsehess.commands.eigenpair_commands import EIGENPAIR_GROUPS, EIGENPAIRS
from sparsehess.commands.estimate_commands import ESTIMATES
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
)
from sparsehess.commands.hessian_commands import DERIVED
from sparsehess.commands.inverse_commands import INVERSES
from sparsehess.commands.mechanics_commands import MECHANICS
from sparsehess.commands.planned_commands import PLANNED

ANALYSES = (
    *EIGENPAIRS,
    *ESTIMATES,
    *INVERSES,
    *MECHANICS,
    *ATOMS,
    *DERIVED,
    Command(
        "report",
        "a page of a stored result that shows it to others: spectrum, certificate, modes that move",
        SPECTRA,
        "sparsehess.commands.report:run_report",
        (
            Group(
                "input",
                Flag("result", metavar="RESULT", help="what -o of eigs, density or color has written"),
            ),
            Group(
                "output",
                Flag("-o", "--out", metavar="FILE.html", required=True, help="the page; it needs no other file"),
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example(
                "eigenpairs, their certificate, and modes that move", "sparsehess report modes.h5 -o modes.html"
            ),
            Example("a density of states", "sparsehess report density.npz -o density.html"),
            Example("a colouring", "sparsehess report colors.npz -o colors.html"),
        ),
    ),
    Command(
        "plan",
        "what a run would cost: evaluations, memory per rank, ranks worth having",
        BEFORE,
        "sparsehess.commands.plan:run_plan",
        (
            Group(
                "what to tell",
                Flag(
                    "--of",
                    choices=list(PLANNED),
                    default="eigs",
                    help="the command that will be run (default eigs, or that of a job file)",
                ),
                Flag(
                    "--ranks",
                    type=int,
                    metavar="P",
                    help="plan for so many (default: what [submit] of a job file says, or those it is run on)",
                ),
                Flag(
                    "--memory",
                    metavar="SIZE",
                    help="memory that each rank may take, such as 4G: does it fit?",
                ),
                Flag("--time", metavar="HH:MM:SS", help="time limit of the run: is it kept?"),
                Flag("--measure", action="store_true", help="call the gradient once, and tell the seconds of all"),
                Flag(
                    "--row",
                    type=int,
                    metavar="D",
                    help="entries of a row, reckoned with where the pattern is to be detected (default: what "
                    "products tell, else 30)",
                ),
                Flag(
                    "--products",
                    type=int,
                    metavar="N",
                    help="that advice is taken from: how it looks, how noisy it is, what each way costs, which to "
                    "take and why; 0 for none (default 12)",
                ),
                Flag(
                    "--function",
                    choices=["identity", "logdet", "inverse", "heat", "effective-dimension"],
                    help="of --of trace (default identity)",
                ),
                Flag("--samples", type=int, metavar="N", help="of --of trace, density and rank"),
                Flag("--steps", type=int, metavar="N", help="of --of trace, density and rank"),
            ),
            *EIGENPAIR_GROUPS,
        ),
        (
            Example("of a matrix, on 64 ranks", "sparsehess plan K.mtx -k 10 --ranks 64"),
            Example(
                "of a problem, its gradient timed once",
                "sparsehess plan drivers/lennard_jones.py:crystal --set cells=4 -k 10 --measure",
            ),
            Example("of a job file, before it is submitted", "sparsehess plan drivers/job.toml"),
        ),
        needs_real=True,
    ),
)

INFO = Command(
    "info",
    "the stack: what is there, what is missing, what that costs",
    BEFORE,
    "sparsehess.commands.stack:run_info",
    (
        Group(
            OUTPUT_GROUP.title,
            *ANSWER_FLAGS,
            Flag(
                "--schema",
                action=ShowSchema,
                nargs=0,
                help="print the JSON Schema of what --json writes, of all commands, and stop",
            ),
        ),
    ),
    (
        Example("what is there", "sparsehess info"),
        Example("for a script, or a report of a bug", "sparsehess info --json stack.json --quiet"),
        Example("as mpiexec starts it: ranks, threads, the MPI that answers", "mpiexec -n 2 sparsehess info"),
    ),
)

SHELL_COMMANDS = (
    LineCommand(
        "completion",
        "what a shell reads to complete commands, flags, their values and names of files",
        SHELL,
        "sparsehess.commands.completion:run_completion",
        (
            Group(
                "input", Flag("shell", metavar="SHELL", choices=["bash", "zsh", "tcsh"], help="bash, zsh or tcsh")
            ),
            Group("output", HELP_FLAG),
        ),
        (
            Example("in this shell, until it ends", 'eval "$(sparsehess completion bash)"'),
            Example(
                "in each bash from now on",
                "sparsehess completion bash > ~/.local/share/bash-completion/completions/sparsehess",
            ),
            Example(
                "in zsh, for a folder of $fpath", "sparsehess completion zsh > ~/.zsh/completions/_sparsehess"
            ),
        ),
        needs_mpi=False,
    ),
    LineCommand(
        "manual",
        "the manual page: all commands, their flags and examples, and what exit statuses mean",
        SHELL,
        "sparsehess.commands.manual:run_manual",
        (
            Group(
                "output",
                Flag("-o", "--out", metavar="FILE", help="file to write it to (default: standard output)"),
                HELP_FLAG,
            ),
        ),
        (
            Example("read it", "sparsehess manual | man -l -"),
            Example("for man sparsehess", "sparsehess manual -o ~/.local/share/man/man1/sparsehess.1"),
            Example("as plain text", "sparsehess manual | man -l - | col -b > sparsehess.txt"),
        ),
        needs_mpi=False,
    ),
)
