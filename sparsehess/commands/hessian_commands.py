"""The commands on Hessians and their patterns: one entry for each."""

from __future__ import annotations

from sparsehess.commands.arguments import (
    Command,
    Example,
    Flag,
    Group,
)
from sparsehess.commands.command_groups import (
    HESSIANS,
    LONG_RUNS_GROUP,
)
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
    CHECK_FLAGS,
    COLORING_FLAGS,
    DERIVATIVE_FLAGS,
    DROPPING_FLAGS,
    OUT_FLAG,
    PATIENCE_FLAG,
    REPORT_FLAG,
    SEED_FLAG,
    SETTINGS_FLAG,
)

DERIVED = (
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
                PATIENCE_FLAG,
            ),
            Group("derivatives and colouring", *DERIVATIVE_FLAGS, *COLORING_FLAGS, SEED_FLAG),
            Group("accuracy and checks", *DROPPING_FLAGS, *CHECK_FLAGS),
            LONG_RUNS_GROUP,
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
)
