"""The commands on the inverse of a Hessian: one entry for each."""

from __future__ import annotations

from sparsehess.commands.arguments import Command, Example, Flag, Group
from sparsehess.commands.command_groups import (
    CHECKS_GROUP,
    DERIVATIVES_GROUP,
    INPUT_AND_VECTORS_GROUP,
    INPUT_GROUP,
    SPECTRA,
)
from sparsehess.commands.flag_groups import ANSWER_FLAGS, OUT_FLAG, SEED_FLAG

_SHIFT_FLAG = Flag("--shift", type=float, metavar="S", default=0.0, help="added to the diagonal of H (default 0)")

INVERSES = (
    Command(
        "inverse",
        "entries of the inverse of a Hessian: its diagonal, its pattern, or given ones",
        SPECTRA,
        "sparsehess.commands.inverses:run_inverse",
        (
            INPUT_AND_VECTORS_GROUP,
            Group(
                "what to compute",
                Flag(
                    "--at",
                    metavar="diagonal|pattern|FILE",
                    default="diagonal",
                    help="which entries (default diagonal); a file: an .npy array (m, 2) of numbers from 0",
                ),
                _SHIFT_FLAG,
            ),
            DERIVATIVES_GROUP,
            CHECKS_GROUP,
            Group("output", OUT_FLAG, SEED_FLAG, *ANSWER_FLAGS),
        ),
        (
            Example(
                "the variances that a precision matrix gives, to a file",
                "sparsehess inverse K.mtx -o variances.npz",
            ),
            Example(
                "entries on the pattern, with 0.1 on the diagonal",
                "sparsehess inverse K.mtx --at pattern --shift 0.1",
            ),
            Example(
                "of a problem, on the complement of the rigid motions of its atoms",
                "sparsehess inverse drivers/lennard_jones.py:cluster -o variances.npz",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "samples",
        "samples of the normal law whose precision is a Hessian",
        SPECTRA,
        "sparsehess.commands.inverses:run_samples",
        (
            INPUT_AND_VECTORS_GROUP,
            Group(
                "what to compute",
                Flag("--count", type=int, metavar="N", default=1, help="how many samples (default 1)"),
                Flag(
                    "--error",
                    type=float,
                    metavar="E",
                    default=1e-10,
                    help="how far roots of variances may be off, relatively, along any direction (default 1e-10)",
                ),
                SEED_FLAG,
                _SHIFT_FLAG,
            ),
            DERIVATIVES_GROUP,
            CHECKS_GROUP,
            Group("output", OUT_FLAG, *ANSWER_FLAGS),
        ),
        (
            Example(
                "a hundred samples, to a file", "sparsehess samples K.mtx --count 100 --seed 7 -o samples.npz"
            ),
            Example("of a matrix and one on its diagonal", "sparsehess samples K.mtx --shift 1 -o samples.npz"),
            Example(
                "of a problem, as exact as six digits",
                "sparsehess samples drivers/lennard_jones.py:crystal --set cells=4 --error 1e-6 -o samples.h5",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "reduced",
        "the Hessian on the null space of constraints: whether a KKT point is a minimum, and covariances",
        SPECTRA,
        "sparsehess.commands.inverses:run_reduced",
        (
            INPUT_GROUP,
            Group(
                "constraints",
                Flag(
                    "--jacobian",
                    metavar="FILE",
                    help="gradients of the constraints, one a row: .mtx, .mtx.gz, .npz or .npy (m, n)",
                ),
                Flag(
                    "--fixed",
                    metavar="I[,J...]|FILE",
                    help="variables that are held, as those at active bounds: numbers from 0, or an .npy array",
                ),
            ),
            Group(
                "what to compute",
                Flag(
                    "-k", type=int, metavar="K", default=6, help="how many of the lowest eigenvalues (default 6)"
                ),
                Flag(
                    "--covariance",
                    metavar="I[,J...]|FILE",
                    help="covariance of these variables: numbers from 0, or an .npy array",
                ),
            ),
            DERIVATIVES_GROUP,
            CHECKS_GROUP,
            Group("output", OUT_FLAG, SEED_FLAG, *ANSWER_FLAGS),
        ),
        (
            Example("with the first two variables held", "sparsehess reduced K.mtx --fixed 0,1 -k 3"),
            Example("the covariance of two variables too", "sparsehess reduced K.mtx --fixed 0 --covariance 2,3"),
            Example(
                "of a problem: the lowest directions with an atom held, to a file",
                "sparsehess reduced drivers/lennard_jones.py:crystal --set cells=4 --fixed 0,1,2 -k 2 -o low.h5",
            ),
        ),
        needs_real=True,
    ),
)
