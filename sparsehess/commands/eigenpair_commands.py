"""The commands on eigenpairs: one entry for each. Their examples run in this order."""

from __future__ import annotations

from sparsehess.commands.arguments import (
    Command,
    Example,
    Explain,
    Flag,
    Group,
)
from sparsehess.commands.command_groups import (
    CHECKS_GROUP,
    DERIVATIVES_GROUP,
    INPUT_AND_VECTORS_GROUP,
    INPUT_GROUP,
    LONG_RUNS_GROUP,
    PROOFS,
    SPECTRA,
)
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
    CHECK_FLAGS,
    COLORING_FLAGS,
    DERIVATIVE_FLAGS,
    DROPPING_FLAGS,
    GRADIENTS_FLAG,
    MASS_FLAG,
    NODE_FLAGS,
    PATIENCE_FLAG,
    REPORT_FLAG,
    RESULT_OR_MODES_FLAG,
    SEED_FLAG,
    SETTINGS_FLAG,
    SHAPE_FLAGS,
    TRIANGLE_FLAG,
    VECTOR_FLAGS,
)

EIGENPAIR_GROUPS = (
    INPUT_AND_VECTORS_GROUP,
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
        Flag(
            "--units",
            choices=["Hz", "rad/s", "THz", "cm^-1", "meV"],
            help="frequencies, too, and S, A and B as frequencies, negative for imaginary ones; Hz and rad/s take "
            "the matrices' units for consistent where --matrix-units says nothing",
        ),
        Flag(
            "--matrix-units",
            nargs=2,
            metavar=("STIFFNESS", "MASS"),
            help="what entries of the matrices are in: N/m kg, N/mm t, lbf/in slinch, eV/A^2 u",
        ),
    ),
    Group(DERIVATIVES_GROUP.title, *DERIVATIVES_GROUP.flags, GRADIENTS_FLAG),
    Group(
        "solver",
        Flag(
            "--method",
            metavar="METHOD",
            default="auto",
            help="solver: krylovschur, oneshift, lobpcg, gd, jd, dense; for intervals slicing, feast, ciss, "
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
    Group(
        "effective modal masses",
        Flag(
            "--participation",
            metavar="FILE|rigid",
            help="how much of the mass each mode moves: for directions in a file (.npy, .npz, .h5), or the rigid "
            "motions of the nodes of --coordinates",
        ),
        Flag(
            "--about",
            type=float,
            nargs=3,
            metavar=("X", "Y", "Z"),
            help="the point that rotations are about (default the origin)",
        ),
    ),
    Group("nodes and their dofs", *NODE_FLAGS),
    LONG_RUNS_GROUP,
    Group(
        "output",
        RESULT_OR_MODES_FLAG,
        Flag(
            "--plot",
            metavar="FILE.png",
            help="draw spectrum and pattern; FILE.gif: a mode that moves, on the nodes of --mesh; so does "
            "FILE.png with --mode, as FILE_01.png, FILE_02.png, …",
        ),
        *SHAPE_FLAGS,
        REPORT_FLAG,
        *ANSWER_FLAGS,
    ),
)

EIGENPAIRS = (
    Command(
        "eigs",
        "eigenpairs of a Hessian: a matrix file, or a problem that is differentiated first",
        SPECTRA,
        "sparsehess.commands.eigenpairs:run_eigs",
        EIGENPAIR_GROUPS,
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
            INPUT_GROUP,
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
                Flag(
                    "--stationary",
                    type=float,
                    metavar="LENGTH",
                    help="of a problem: the gradient and the Newton step too, and whether no variable moves by "
                    "more than this to a stationary point: a minimum, or a saddle point of which index",
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
            CHECKS_GROUP,
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
                "whether atoms rest in a minimum, to a thousandth of x, and where the energy falls if not",
                "sparsehess inertia drivers/lennard_jones.py:cluster --stationary 1e-3 --direction lowest.h5",
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
                PATIENCE_FLAG,
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
)
