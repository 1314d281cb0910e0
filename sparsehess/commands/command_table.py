"""The commands on matrices and problems: one entry for each."""

from __future__ import annotations

from sparsehess.commands.arguments import Command, Explain, Flag
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
    CHECKPOINT_FLAGS,
    COLORING_FLAGS,
    DERIVATIVE_FLAGS,
    DROPPING_FLAGS,
    INPUT_FLAGS,
    MASS_FLAG,
    OUT_FLAG,
    SAMPLE_FLAGS,
    SEED_FLAG,
    SETTINGS_FLAG,
    TRIANGLE_FLAG,
    VECTOR_FLAGS,
)

_PROBLEM_FLAGS = (*COLORING_FLAGS, *DERIVATIVE_FLAGS, SETTINGS_FLAG)

_EIGS_FLAGS = (
    *ANSWER_FLAGS,
    OUT_FLAG,
    SEED_FLAG,
    *_PROBLEM_FLAGS,
    *INPUT_FLAGS,
    *VECTOR_FLAGS,
    *DROPPING_FLAGS,
    *CHECKPOINT_FLAGS,
    Flag("-k", type=int, help="how many (default 6, or as many as there are; of the negative ones all)"),
    Flag(
        "--which",
        choices=["smallest", "largest", "magnitude", "negative"],
        default="smallest",
        help="algebraic, by default the smallest",
    ),
    Flag("--interval", type=float, nargs=2, metavar=("A", "B"), help="all eigenvalues from A to B instead"),
    Flag("--target", type=float, metavar="S", help="the k nearest to S instead"),
    Flag(
        "--method",
        metavar="METHOD",
        default="auto",
        help="krylovschur, lobpcg, gd, jd, dense; for intervals slicing, feast, ciss, filter; for comparison "
        "power and lanczos (default: what suits, see --explain)",
    ),
    Flag("--groups", type=int, metavar="G", help="of ranks that share out slices, or points of feast"),
    Flag("--explain", action="store_true", help="say which method would be taken and why, and stop"),
    Flag("--shell", action="store_true", help="never assemble the Hessian of the problem: products alone"),
    Flag(
        "--backend", choices=["cpu", "cuda", "hip", "kokkos"], default="cpu", help="where to compute (default cpu)"
    ),
    Flag("--guess", metavar="FILE", help="vectors to start from: a stored result, or .npy, .npz, .h5"),
    Flag("--preconditioner", metavar="FILE", help="a matrix near the Hessian, for lobpcg, gd and jd to factorize"),
    Flag(
        "--precision",
        choices=["double", "single"],
        default="double",
        help="of the products of --shell; all else is double (default double)",
    ),
    Flag("--tol", type=float, default=1e-8, help="backward error of each pair (default 1e-8)"),
    Flag(
        "--count",
        choices=["auto", "yes", "no"],
        default="auto",
        help="inertia count that shows none was missed (default: wherever it is cheap)",
    ),
    Flag("--plot", metavar="FILE.png", help="draw spectrum and pattern"),
)

ANALYSES = (
    Command(
        "eigs",
        "eigenpairs of a Hessian: a matrix file, or a problem that is differentiated first",
        "sparsehess.commands.eigenpairs:run_eigs",
        _EIGS_FLAGS,
    ),
    Command(
        "inertia",
        "how many eigenvalues are negative, zero and positive, from factorizations alone",
        "sparsehess.commands.eigenpairs:run_inertia",
        (
            *ANSWER_FLAGS,
            SEED_FLAG,
            *_PROBLEM_FLAGS,
            *INPUT_FLAGS,
            Flag(
                "--shell",
                action="store_true",
                help="never assemble the Hessian of the problem: an estimate by products",
            ),
            Flag(
                "--zero",
                type=float,
                metavar="Z",
                help="eigenvalues up to this size are zero (default: the accuracy)",
            ),
            Flag(
                "--condition", action="store_true", help="the condition number too: largest over least magnitude"
            ),
            Flag("--direction", metavar="FILE", help="write the direction of lowest curvature (.h5 or .npz)"),
        ),
        needs_real=True,
    ),
    Command(
        "check",
        "verify a stored result from nothing but the files",
        "sparsehess.commands.eigenpairs:run_check",
        (
            *ANSWER_FLAGS,
            SEED_FLAG,
            *_PROBLEM_FLAGS,
            *VECTOR_FLAGS,
            Flag("result", metavar="RESULT", help="what eigs -o has written (.h5 or .npz)"),
            Flag("input", metavar="INPUT", help="the matrix file or the problem that it is said to be of"),
            MASS_FLAG,
            TRIANGLE_FLAG,
            Flag("--tol", type=float, default=1e-8, help="backward error that passes (default 1e-8)"),
            Flag(
                "--explain",
                action=Explain,
                nargs=0,
                help="say what a certificate proves, under which assumptions and with which margin, and stop",
            ),
        ),
    ),
    Command(
        "density",
        "spectral density by stochastic Lanczos quadrature, with error bars",
        "sparsehess.commands.estimates:run_density",
        (
            *ANSWER_FLAGS,
            OUT_FLAG,
            SEED_FLAG,
            *_PROBLEM_FLAGS,
            *INPUT_FLAGS,
            *VECTOR_FLAGS,
            *SAMPLE_FLAGS,
            Flag(
                "--method",
                choices=["auto", "lanczos", "chebyshev", "dense"],
                default="auto",
                help="(default: dense where variables are few, else lanczos)",
            ),
            Flag("--grid", type=int, metavar="N", default=512, help="places to tell it at (default 512)"),
            Flag("--width", type=float, metavar="W", help="of the kernel (default: what is resolved)"),
            Flag("--outliers", type=int, metavar="K", default=0, help="compute the K largest in magnitude apart"),
            Flag(
                "--groups",
                type=int,
                metavar="G",
                default=1,
                help="of ranks that share the samples out (default 1)",
            ),
            Flag("--plot", metavar="FILE.png", help="draw density and cumulative count"),
        ),
        needs_real=True,
    ),
    Command(
        "trace",
        "trace of the Hessian, or of a function of it, with its error",
        "sparsehess.commands.estimates:run_trace",
        (
            *ANSWER_FLAGS,
            SEED_FLAG,
            *_PROBLEM_FLAGS,
            *INPUT_FLAGS,
            *VECTOR_FLAGS,
            *SAMPLE_FLAGS,
            Flag(
                "--function",
                choices=["identity", "logdet", "inverse", "heat", "effective-dimension"],
                default="identity",
                help="whose values at the eigenvalues are summed up (default identity)",
            ),
            Flag("--gamma", type=float, help="of the effective dimension, the sum of λ/(λ + γ)"),
            Flag("--time", type=float, help="of heat, the sum of exp(-λ t)"),
            Flag(
                "--method",
                choices=["auto", "exact", "hutchinson", "hutch++", "xtrace"],
                default="auto",
                help="(default: exact where that can be)",
            ),
            Flag("--tol", type=float, help="stop where the standard error is this part of the trace"),
        ),
        needs_real=True,
    ),
    Command(
        "rank",
        "how many eigenvalues are not zero",
        "sparsehess.commands.estimates:run_rank",
        (
            *ANSWER_FLAGS,
            SEED_FLAG,
            *_PROBLEM_FLAGS,
            *INPUT_FLAGS,
            *VECTOR_FLAGS,
            *SAMPLE_FLAGS,
            Flag(
                "--threshold",
                metavar="X|gap",
                help="part of the largest up to which one is zero, or the widest gap",
            ),
            Flag("--absolute", type=float, metavar="X", help="size up to which one is zero, instead"),
            Flag(
                "--method",
                choices=["auto", "inertia", "density"],
                default="auto",
                help="(default: inertia where it fits)",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "assemble",
        "pattern, colouring, compressed derivatives, Hessian to a file",
        "sparsehess.commands.hessians:run_assemble",
        (
            *ANSWER_FLAGS,
            SEED_FLAG,
            *_PROBLEM_FLAGS,
            *DROPPING_FLAGS,
            *CHECKPOINT_FLAGS,
            Flag("input", metavar="PROBLEM", help="file.py:name or package.module:name"),
            Flag("-o", "--out", metavar="FILE", required=True, help=".mtx, .npz, .petsc or .h5"),
        ),
        needs_real=True,
    ),
    Command(
        "color",
        "colour a sparsity pattern, verify the colouring, report it",
        "sparsehess.commands.hessians:run_color",
        (
            *ANSWER_FLAGS,
            OUT_FLAG,
            SEED_FLAG,
            *COLORING_FLAGS,
            Flag("input", metavar="PATTERN", help=".mtx, .mtx.gz, .npz, .petsc or .h5"),
            Flag(
                "--diagonal",
                choices=["full", "given"],
                default="full",
                help="whether a diagonal entry that is not stored may be non-zero all the same (default full)",
            ),
            Flag("--lattice", metavar="FILE", help="coordinates of the variables on a lattice (.npy)"),
            Flag("--plot", metavar="FILE.png", help="draw the coloured matrix"),
        ),
    ),
    Command(
        "plan",
        "what a run would cost: evaluations, memory per rank, ranks worth having",
        "sparsehess.commands.plan:run_plan",
        (
            *_EIGS_FLAGS,
            Flag("--ranks", type=int, metavar="P", help="tell the memory of so many (default: as it is run)"),
            Flag("--measure", action="store_true", help="call the gradient once, and tell the seconds of all"),
            Flag(
                "--row",
                type=int,
                metavar="D",
                default=30,
                help="entries of a row that are reckoned with where the pattern has to be detected (default 30)",
            ),
            Flag(
                "--products",
                type=int,
                metavar="N",
                help="that advice is taken from: how it looks, what each way costs, which to take and why; 0 for "
                "none (default 12)",
            ),
        ),
        needs_real=True,
    ),
)

INFO = Command(
    "info",
    "the stack: what is there, what is missing, what that costs",
    "sparsehess.commands.stack:run_info",
    ANSWER_FLAGS,
)
