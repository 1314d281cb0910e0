"""The commands that estimate a spectrum from products: one entry for each."""

from __future__ import annotations

from sparsehess.commands.arguments import (
    Command,
    Example,
    Flag,
    Group,
)
from sparsehess.commands.command_groups import (
    CHECKS_GROUP,
    DERIVATIVES_GROUP,
    INPUT_AND_VECTORS_GROUP,
    OUTPUT_GROUP,
    SPECTRA,
)
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
    OUT_FLAG,
    REPORT_FLAG,
    SAMPLE_FLAGS,
    SEED_FLAG,
)

ESTIMATES = (
    Command(
        "density",
        "spectral density by stochastic Lanczos quadrature, with error bars",
        SPECTRA,
        "sparsehess.commands.estimates:run_density",
        (
            INPUT_AND_VECTORS_GROUP,
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
            DERIVATIVES_GROUP,
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
            CHECKS_GROUP,
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
            INPUT_AND_VECTORS_GROUP,
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
            DERIVATIVES_GROUP,
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
            CHECKS_GROUP,
            OUTPUT_GROUP,
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
            INPUT_AND_VECTORS_GROUP,
            Group(
                "what to compute",
                Flag(
                    "--threshold",
                    metavar="X|gap",
                    help="eigenvalues up to this part of the largest are zero, or those below the widest gap",
                ),
                Flag("--absolute", type=float, metavar="X", help="eigenvalues up to this size are zero, instead"),
            ),
            DERIVATIVES_GROUP,
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
            CHECKS_GROUP,
            OUTPUT_GROUP,
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
)
