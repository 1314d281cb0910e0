"""The commands on matrices and problems: one entry for each. Their examples run in this order."""

from __future__ import annotations

from sparsehess.commands.arguments import (
    HELP_FLAG,
    Command,
    Example,
    Explain,
    Flag,
    Group,
    LineCommand,
    ShowSchema,
)
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
    CHECK_FLAGS,
    CHECKPOINT_FLAGS,
    COLORING_FLAGS,
    DERIVATIVE_FLAGS,
    DROPPING_FLAGS,
    INPUT_FLAGS,
    MASS_FLAG,
    OUT_FLAG,
    REPORT_FLAG,
    SAMPLE_FLAGS,
    SEED_FLAG,
    SETTINGS_FLAG,
    SHELL_FLAG,
    TRIANGLE_FLAG,
    VECTOR_FLAGS,
)

# Sections of the list of commands, in its order.
SPECTRA, PROOFS, HESSIANS, BEFORE, SHELL = "spectra", "checks", "Hessians and patterns", "before a run", "shell"

_INPUT = Group("input", *INPUT_FLAGS, SETTINGS_FLAG)
_INPUT_AND_VECTORS = Group("input", *INPUT_FLAGS, SETTINGS_FLAG, *VECTOR_FLAGS)
_DERIVATIVES = Group("derivatives and colouring (of problems)", SHELL_FLAG, *DERIVATIVE_FLAGS, *COLORING_FLAGS)
_SAMPLES = Group("random vectors", *SAMPLE_FLAGS, SEED_FLAG)
_CHECKS = Group("checks", *CHECK_FLAGS)
_LONG_RUNS = Group("long runs", *CHECKPOINT_FLAGS)
_OUTPUT = Group("output", *ANSWER_FLAGS)

_EIGS = (
    _INPUT_AND_VECTORS,
    Group(
        "what to compute",
        Flag(
            "-k",
            metavar="K",
            type=int,
            help="how many eigenpairs (default 6, or as many as there are; of negative ones all)",
        ),
        Flag(
            "--which",
            choices=["smallest", "largest", "magnitude", "negative"],
            default="smallest",
            help="algebraically smallest (default) or largest, largest in magnitude, or all that are negative",
        ),
        Flag("--target", type=float, metavar="S", help="the k eigenvalues nearest to S instead"),
        Flag("--interval", type=float, nargs=2, metavar=("A", "B"), help="all eigenvalues from A to B instead"),
    ),
    _DERIVATIVES,
    Group(
        "solver",
        Flag(
            "--method",
            metavar="METHOD",
            default="auto",
            help="solver: krylovschur, lobpcg, gd, jd, dense; for intervals slicing, feast, ciss, "
            "filter; for comparison "
            "power and lanczos (default: what suits, see --explain)",
        ),
        Flag("--explain", action="store_true", help="say which method would be taken and why, and stop"),
        Flag("--guess", metavar="FILE", help="vectors to start from: a stored result, or .npy, .npz, .h5"),
        Flag(
            "--preconditioner",
            metavar="FILE",
            help="a matrix near the Hessian, for lobpcg, gd and jd to factorize",
        ),
        Flag("--groups", type=int, metavar="G", help="groups of ranks that share out slices, or points of feast"),
        Flag(
            "--backend",
            choices=["cpu", "cuda", "hip", "kokkos"],
            default="cpu",
            help="where to compute (default cpu)",
        ),
        Flag(
            "--precision",
            choices=["double", "single"],
            default="double",
            help="precision of the products of --shell; all else is double (default double)",
        ),
        SEED_FLAG,
    ),
    Group(
        "accuracy and checks",
        Flag("--tol", type=float, metavar="TOL", default=1e-8, help="backward error of each pair (default 1e-8)"),
        Flag(
            "--count",
            choices=["auto", "yes", "no"],
            default="auto",
            help="inertia count that shows none was missed (default: wherever it is cheap)",
        ),
        *DROPPING_FLAGS,
        *CHECK_FLAGS,
    ),
    _LONG_RUNS,
    Group(
        "output",
        OUT_FLAG,
        Flag("--plot", metavar="FILE.png", help="draw spectrum and pattern"),
        REPORT_FLAG,
        *ANSWER_FLAGS,
    ),
)

ANALYSES = (
    Command(
        "eigs",
        "eigenpairs of a Hessian: a matrix file, or a problem that is differentiated first",
        SPECTRA,
        "sparsehess.commands.eigenpairs:run_eigs",
        _EIGS,
        (
            Example(
                "the ten smallest of K x = λ M x, to a file; a count shows that none was missed",
                "sparsehess eigs K.mtx --mass M.mtx -k 10 -o modes.h5",
            ),
            Example("all from 0 to 0.5, by slices of the spectrum", "sparsehess eigs K.mtx --interval 0 0.5"),
            Example(
                "of a problem in Python: the Hessian from differences of its gradient, on four ranks",
                "mpiexec -n 4 sparsehess eigs drivers/lennard_jones.py:crystal --set cells=4 -k 10",
            ),
        ),
    ),
    Command(
        "inertia",
        "how many eigenvalues are negative, zero and positive, from factorizations alone",
        SPECTRA,
        "sparsehess.commands.eigenpairs:run_inertia",
        (
            _INPUT,
            Group(
                "what to compute",
                Flag(
                    "--zero",
                    type=float,
                    metavar="Z",
                    help="eigenvalues up to this size are zero (default: the accuracy)",
                ),
                Flag(
                    "--condition",
                    action="store_true",
                    help="the condition number too: largest over least magnitude",
                ),
            ),
            Group(
                "derivatives and colouring (of problems)",
                Flag(
                    "--shell",
                    action="store_true",
                    help="never assemble the Hessian of the problem: an estimate by products",
                ),
                *DERIVATIVE_FLAGS,
                *COLORING_FLAGS,
            ),
            _CHECKS,
            Group(
                "output",
                Flag("--direction", metavar="FILE", help="write the direction of lowest curvature (.h5 or .npz)"),
                SEED_FLAG,
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example("whether a matrix is positive definite", "sparsehess inertia K.mtx"),
            Example("its condition number too", "sparsehess inertia K.mtx --condition"),
            Example(
                "whether atoms rest in a minimum, and where the energy falls if not",
                "sparsehess inertia drivers/lennard_jones.py:cluster --direction lowest.h5",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "check",
        "verify a stored result from nothing but the files",
        PROOFS,
        "sparsehess.commands.eigenpairs:run_check",
        (
            Group(
                "input",
                Flag("result", metavar="RESULT", help="what eigs -o has written (.h5 or .npz)"),
                Flag("input", metavar="INPUT", help="the matrix file or the problem that it is said to be of"),
                MASS_FLAG,
                TRIANGLE_FLAG,
                SETTINGS_FLAG,
                *VECTOR_FLAGS,
            ),
            Group("derivatives and colouring (of problems)", *DERIVATIVE_FLAGS, *COLORING_FLAGS),
            Group(
                "accuracy and checks",
                Flag(
                    "--tol",
                    type=float,
                    metavar="TOL",
                    default=1e-8,
                    help="backward error that passes (default 1e-8)",
                ),
                *CHECK_FLAGS,
                SEED_FLAG,
            ),
            Group(
                "output",
                Flag(
                    "--explain",
                    action=Explain,
                    nargs=0,
                    help="say what a certificate proves, under which assumptions and with which margin, and stop",
                ),
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example("what eigs has stored, with the mass", "sparsehess check modes.h5 K.mtx --mass M.mtx"),
            Example(
                "the facts for a script; the exit status is 4 if a check fails",
                "sparsehess check modes.h5 K.mtx --mass M.mtx --json check.json --quiet",
            ),
            Example("what is proven, and what is not", "sparsehess check --explain"),
        ),
    ),
    Command(
        "density",
        "spectral density by stochastic Lanczos quadrature, with error bars",
        SPECTRA,
        "sparsehess.commands.estimates:run_density",
        (
            _INPUT_AND_VECTORS,
            Group(
                "what to compute",
                Flag(
                    "--grid",
                    type=int,
                    metavar="N",
                    default=512,
                    help="how many places to tell the density at (default 512)",
                ),
                Flag("--width", type=float, metavar="W", help="width of the kernel (default: what is resolved)"),
                Flag(
                    "--outliers", type=int, metavar="K", default=0, help="compute the K largest in magnitude apart"
                ),
            ),
            _DERIVATIVES,
            Group(
                "method and random vectors",
                Flag(
                    "--method",
                    choices=["auto", "lanczos", "chebyshev", "dense"],
                    default="auto",
                    help="how it is computed (default: dense where variables are few, else lanczos)",
                ),
                *SAMPLE_FLAGS,
                SEED_FLAG,
                Flag(
                    "--groups",
                    type=int,
                    metavar="G",
                    default=1,
                    help="groups of ranks that share the random vectors out (default 1)",
                ),
            ),
            _CHECKS,
            Group(
                "output",
                OUT_FLAG,
                Flag("--plot", metavar="FILE.png", help="draw density and cumulative count"),
                REPORT_FLAG,
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example("of a matrix, with a picture", "sparsehess density K.mtx --plot density.png"),
            Example(
                "finer, with less noise: more steps, more random vectors",
                "sparsehess density K.mtx --method lanczos --steps 80 --samples 30",
            ),
            Example(
                "of a problem, by products alone, to a file",
                "sparsehess density drivers/lennard_jones.py:crystal --set cells=4 --shell -o density.npz",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "trace",
        "trace of the Hessian, or of a function of it, with its error",
        SPECTRA,
        "sparsehess.commands.estimates:run_trace",
        (
            _INPUT_AND_VECTORS,
            Group(
                "what to compute",
                Flag(
                    "--function",
                    choices=["identity", "logdet", "inverse", "heat", "effective-dimension"],
                    default="identity",
                    help="function whose values at the eigenvalues are summed up (default identity)",
                ),
                Flag(
                    "--gamma", type=float, metavar="GAMMA", help="γ of effective-dimension, the sum of λ/(λ + γ)"
                ),
                Flag("--time", type=float, metavar="T", help="t of heat, the sum of exp(-λ t)"),
            ),
            _DERIVATIVES,
            Group(
                "method and random vectors",
                Flag(
                    "--method",
                    choices=["auto", "exact", "hutchinson", "hutch++", "xtrace"],
                    default="auto",
                    help="how it is computed (default: exact where that can be)",
                ),
                Flag(
                    "--tol",
                    type=float,
                    metavar="TOL",
                    help="stop where the standard error is this part of the trace",
                ),
                *SAMPLE_FLAGS,
                SEED_FLAG,
            ),
            _CHECKS,
            _OUTPUT,
        ),
        (
            Example("the sum of the eigenvalues", "sparsehess trace K.mtx"),
            Example(
                "logarithm of the determinant, from products, to one percent",
                "sparsehess trace K.mtx --function logdet --method xtrace --tol 0.01",
            ),
            Example(
                "how many directions a ridge of 0.1 leaves free",
                "sparsehess trace K.mtx --function effective-dimension --gamma 0.1",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "rank",
        "how many eigenvalues are not zero",
        SPECTRA,
        "sparsehess.commands.estimates:run_rank",
        (
            _INPUT_AND_VECTORS,
            Group(
                "what to compute",
                Flag(
                    "--threshold",
                    metavar="X|gap",
                    help="eigenvalues up to this part of the largest are zero, or those below the widest gap",
                ),
                Flag("--absolute", type=float, metavar="X", help="eigenvalues up to this size are zero, instead"),
            ),
            _DERIVATIVES,
            Group(
                "method and random vectors",
                Flag(
                    "--method",
                    choices=["auto", "inertia", "density"],
                    default="auto",
                    help="how it is computed (default: inertia where it fits)",
                ),
                *SAMPLE_FLAGS,
                SEED_FLAG,
            ),
            _CHECKS,
            _OUTPUT,
        ),
        (
            Example("by the accuracy of the entries", "sparsehess rank K.mtx"),
            Example(
                "whatever is below a millionth of the largest is zero", "sparsehess rank K.mtx --threshold 1e-6"
            ),
            Example(
                "of a problem: what stands below the widest gap is zero",
                "sparsehess rank drivers/lennard_jones.py:cluster --threshold gap",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "assemble",
        "pattern, colouring, compressed derivatives, Hessian to a file",
        HESSIANS,
        "sparsehess.commands.hessians:run_assemble",
        (
            Group(
                "input",
                Flag("input", metavar="PROBLEM", help="file.py:name or package.module:name"),
                SETTINGS_FLAG,
            ),
            Group("derivatives and colouring", *DERIVATIVE_FLAGS, *COLORING_FLAGS, SEED_FLAG),
            Group("accuracy and checks", *DROPPING_FLAGS, *CHECK_FLAGS),
            _LONG_RUNS,
            Group(
                "output",
                Flag("-o", "--out", metavar="FILE", required=True, help=".mtx, .npz, .petsc or .h5"),
                REPORT_FLAG,
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example(
                "by central differences, the pattern found by probing",
                "sparsehess assemble drivers/lennard_jones.py:cluster --pattern detect -o hessian.npz",
            ),
            Example(
                "with another colouring, for PETSc",
                "sparsehess assemble drivers/lennard_jones.py:crystal --coloring acyclic -o hessian.petsc",
            ),
            Example(
                "a long one: saved on the way, and taken up again by the same command",
                "mpiexec -n 2 sparsehess assemble drivers/lennard_jones.py:crystal -o hessian.h5 "
                "--checkpoint saved --resume",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "color",
        "colour a sparsity pattern, verify the colouring, report it",
        HESSIANS,
        "sparsehess.commands.hessians:run_color",
        (
            Group(
                "input",
                Flag("input", metavar="PATTERN", help=".mtx, .mtx.gz, .npz, .petsc or .h5"),
                Flag(
                    "--diagonal",
                    choices=["full", "given"],
                    default="full",
                    help="whether a diagonal entry that is not stored may be non-zero all the same (default full)",
                ),
                Flag("--lattice", metavar="FILE", help="coordinates of the variables on a lattice (.npy)"),
            ),
            Group("colouring", *COLORING_FLAGS, SEED_FLAG),
            Group(
                "output",
                OUT_FLAG,
                Flag("--plot", metavar="FILE.png", help="draw the coloured matrix"),
                REPORT_FLAG,
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example("the fewest colours that a fifth of a second finds", "sparsehess color K.mtx"),
            Example(
                "for substitution, which needs fewer; stored for eigs and assemble",
                "sparsehess color K.mtx --coloring acyclic -o colors.npz",
            ),
            Example(
                "one order of the variables, with a picture",
                "sparsehess color K.mtx --order smallest-last --plot colors.png",
            ),
        ),
    ),
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
                Flag("--ranks", type=int, metavar="P", help="tell the memory of so many (default: as it is run)"),
                Flag("--measure", action="store_true", help="call the gradient once, and tell the seconds of all"),
                Flag(
                    "--row",
                    type=int,
                    metavar="D",
                    default=30,
                    help="entries of a row, reckoned with where the pattern is to be detected (default 30)",
                ),
                Flag(
                    "--products",
                    type=int,
                    metavar="N",
                    help="that advice is taken from: how it looks, what each way costs, which to take and why; 0 "
                    "for none (default 12)",
                ),
            ),
            *_EIGS,
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
            _OUTPUT.title,
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
