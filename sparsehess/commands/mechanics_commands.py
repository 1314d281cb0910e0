"""The commands of structural engineers: one entry for each."""

from __future__ import annotations

from sparsehess.commands.arguments import Command, Example, Flag, Group, OneOf
from sparsehess.commands.command_groups import CHECKS_GROUP, SPECTRA
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
    COLORING_FLAGS,
    DERIVATIVE_FLAGS,
    NODE_FLAGS,
    PATIENCE_FLAG,
    PICTURE_FLAG,
    RESULT_OR_MODES_FLAG,
    SEED_FLAG,
    SETTINGS_FLAG,
    SHAPE_FLAGS,
    TRIANGLE_FLAG,
)

MECHANICS = (
    Command(
        "buckling",
        "load factors of (K + λ Kg) φ = 0 nearest to zero, and proof that none was missed, in both directions",
        SPECTRA,
        "sparsehess.commands.buckling:run_buckling",
        (
            Group(
                "input",
                Flag("input", metavar="INPUT", help="K, the stiffness: a matrix file, or a problem"),
                Flag(
                    "geometric",
                    metavar="FILE",
                    help="Kg, the geometric stiffness of the load, negative where that compresses: a matrix file",
                ),
                TRIANGLE_FLAG,
                SETTINGS_FLAG,
                PATIENCE_FLAG,
            ),
            Group(
                "what to compute",
                Flag("-k", metavar="K", type=int, help="how many load factors (default 6; all with --max-factor)"),
                Flag(
                    "--which",
                    choices=["both", "positive", "negative"],
                    default="both",
                    help="nearest to zero of either sign (default), those that multiply the load, or those of the "
                    "reversed load; the other direction is counted all the same",
                ),
                Flag("--max-factor", type=float, metavar="L", help="load factors up to this size alone"),
                Flag(
                    "--tol",
                    type=float,
                    metavar="TOL",
                    default=1e-8,
                    help="backward error that each pair must reach (default 1e-8)",
                ),
            ),
            Group("derivatives and colouring (of problems)", *DERIVATIVE_FLAGS, *COLORING_FLAGS),
            CHECKS_GROUP,
            Group("nodes and their dofs", *NODE_FLAGS),
            Group("output", RESULT_OR_MODES_FLAG, PICTURE_FLAG, *SHAPE_FLAGS, SEED_FLAG, *ANSWER_FLAGS),
        ),
        (
            Example("the load factors nearest to zero, of either sign", "sparsehess buckling K.mtx KG.mtx -k 5"),
            Example(
                "is this load safe with a factor of 1.5?", "sparsehess buckling K.mtx KG.mtx --max-factor 1.5"
            ),
            Example(
                "the smallest that multiply the load, with their modes",
                "sparsehess buckling K.mtx KG.mtx -k 3 --which positive -o buckled.h5",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "damped",
        "modes of (λ²M + λ(C + G) + K) x = 0: complex frequencies, damping ratios, what grows, what whirls",
        SPECTRA,
        "sparsehess.commands.damped:run_damped",
        (
            Group(
                "input",
                Flag("input", metavar="INPUT", help="K, the stiffness: a matrix file, or a problem"),
                Flag("--mass", metavar="FILE", help="M, the mass (default: the problem's, or the identity)"),
                Flag("--damping", metavar="FILE", help="C, symmetric: a matrix file"),
                Flag("--gyroscopic", metavar="FILE", help="G, skew-symmetric, at the speed that is meant"),
                Flag(
                    "--circulatory",
                    metavar="FILE",
                    help="N, skew-symmetric: what is skew in a stiffness, as of damping that rotates, fluid films "
                    "and follower loads",
                ),
                TRIANGLE_FLAG,
                SETTINGS_FLAG,
                PATIENCE_FLAG,
            ),
            Group(
                "what to compute",
                Flag("-k", metavar="K", type=int, help="how many modes (default 6; all with --interval)"),
                OneOf(
                    Flag(
                        "--target",
                        type=float,
                        metavar="F",
                        help="the modes nearest to this frequency, Im λ (default 0: those of smallest size)",
                    ),
                    Flag(
                        "--interval",
                        type=float,
                        nargs=2,
                        metavar=("A", "B"),
                        help="all modes with λ in the disc over the band of frequencies from A to B",
                    ),
                ),
                Flag(
                    "--units",
                    choices=["Hz", "rad/s", "THz", "cm^-1", "meV"],
                    help="frequencies, too, and F, A and B in this unit; Hz and rad/s take the matrices' units "
                    "for consistent where --matrix-units says nothing",
                ),
                Flag(
                    "--matrix-units",
                    nargs=2,
                    metavar=("STIFFNESS", "MASS"),
                    help="what entries of K and M are in; those of C and G in the root of both",
                ),
                Flag(
                    "--tol",
                    type=float,
                    metavar="TOL",
                    default=1e-8,
                    help="backward error that each pair must reach (default 1e-8)",
                ),
            ),
            Group("derivatives and colouring (of problems)", *DERIVATIVE_FLAGS, *COLORING_FLAGS),
            CHECKS_GROUP,
            Group("nodes and their dofs", *NODE_FLAGS),
            Group("output", RESULT_OR_MODES_FLAG, PICTURE_FLAG, *SHAPE_FLAGS, SEED_FLAG, *ANSWER_FLAGS),
        ),
        (
            Example(
                "the lowest modes of a damped structure, in Hz",
                "sparsehess damped K.mtx --mass M.mtx --damping C.mtx -k 5 --units Hz",
            ),
            Example(
                "a rotor at one speed, its modes nearest to 0.2 Hz",
                "sparsehess damped K.mtx --mass M.mtx --gyroscopic G.mtx -k 4 --units Hz --target 0.2",
            ),
            Example(
                "all modes of a band, with their shapes",
                "sparsehess damped K.mtx --mass M.mtx --damping C.mtx --interval 1 3 -o damped.h5",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "export",
        "modes of a stored result on a mesh, for ParaView and other viewers, or as a picture that moves",
        SPECTRA,
        "sparsehess.commands.mode_outputs:run_export",
        (
            Group(
                "input",
                Flag(
                    "result", metavar="RESULT", help="what -o of eigs, buckling or damped has written (.h5, .npz)"
                ),
            ),
            Group("nodes and their dofs", *NODE_FLAGS),
            Group(
                "output",
                Flag(
                    "-o",
                    "--out",
                    metavar="FILE",
                    help="write modes: .vtu, .vtk, .pvd or .xdmf for ParaView, .unv, .frd",
                ),
                PICTURE_FLAG,
                *SHAPE_FLAGS,
                Flag(
                    "--units",
                    choices=["Hz", "rad/s", "THz", "cm^-1", "meV"],
                    help="frequencies that modes are named by (default: as the result tells them)",
                ),
                Flag(
                    "--matrix-units",
                    nargs=2,
                    metavar=("STIFFNESS", "MASS"),
                    help="what entries of the matrices were in, where the result does not tell: N/m kg, N/mm t",
                ),
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example(
                "for ParaView; nodes of the set BASE are held",
                "sparsehess export modes.h5 -o modes.vtu --mesh bars.inp --dofs x --fixed-set BASE",
            ),
            Example(
                "the second mode as a picture that moves",
                "sparsehess export modes.h5 --plot mode2.gif --mode 2 --mesh bars.inp --dofs x --fixed-set BASE",
            ),
            Example(
                "a universal file, modes named by frequencies",
                "sparsehess export modes.h5 -o modes.unv --units Hz --mesh bars.inp --dofs x --fixed-set BASE",
            ),
        ),
    ),
)
