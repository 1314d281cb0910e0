"""Flags that commands share, their defaults, and their refusal where they have no effect."""

from __future__ import annotations

import argparse
from typing import Any

from sparsehess.commands.arguments import HELP_FLAG, Flag, OneOf
from sparsehess.errors import InputError

ANSWER_FLAGS = (
    Flag("--json", metavar="FILE", help="write the facts as JSON; - is standard output"),
    Flag("-q", "--quiet", action="store_true", help="print nothing but errors"),
    Flag("-v", "--verbose", action="store_true", help="show tracebacks"),
    HELP_FLAG,
)

OUT_FLAG = Flag("-o", "--out", metavar="FILE", help="write the result")

RESULT_OR_MODES_FLAG = Flag(
    "-o",
    "--out",
    metavar="FILE",
    help="write the result, .h5 or .npz; or modes on the nodes of --mesh: .vtu, .vtk, .pvd or .xdmf for ParaView, "
    ".unv, .frd",
)

REPORT_FLAG = Flag("--report", metavar="FILE.html", help="write a page that shows it to others, in one file")

SEED_FLAG = Flag("--seed", type=int, metavar="N", default=0, help="seed of random vectors (default 0)")

COLORING_FLAGS = (
    Flag(
        "--coloring",
        metavar="KIND",
        help="kind of colouring: star (default), acyclic, cpr, powell-toint, distance2, or the .npz "
        "file of a stored colouring; "
        "sums over elements need none",
    ),
    Flag(
        "--order",
        metavar="ORDER",
        default="best",
        help="order of the variables: natural, chunks, largest-first, smallest-last, "
        "incidence-degree, the last three with distance2- "
        "before them, hubs-first, random, or best of all (default)",
    ),
    Flag(
        "--rule",
        metavar="RULE",
        help="rule of the kind of colouring: 2007 or conservative; local, triangular or trees",
    ),
    Flag(
        "--budget",
        type=float,
        metavar="S",
        default=0.2,
        help="nominal seconds of the search of the order best, of larger patterns a million entries (default 0.2)",
    ),
    Flag(
        "--blocks", type=int, metavar="B", default=1, help="variables come in consecutive groups of B (default 1)"
    ),
)

DERIVATIVE_FLAGS = (
    Flag(
        "--derivative",
        choices=["auto", "forward", "central", "extrapolated", "complex", "ad"],
        default="auto",
        help="how second derivatives are taken: differences of gradients (1, 2 or 4 a colour), "
        "complex steps, or products (default: products if "
        "there are any, else central)",
    ),
    Flag(
        "--pattern",
        metavar="FILE|given|detect|near",
        default="given",
        help="where the pattern comes from: a matrix file, the problem itself (default), or probing; near: of "
        "eigs, where everything couples, and what is far is fitted",
    ),
    Flag("--points", type=int, metavar="N", default=1, help="probe x and N - 1 points around it (default 1)"),
)

GRADIENTS_FLAG = Flag(
    "--budget-gradients",
    type=int,
    metavar="N",
    help="of --pattern near: gradients for what is near and far, half as many again where they do not suffice, "
    "up to n altogether, and N at most for the pairs (default 200)",
)

CHECK_FLAGS = (
    Flag(
        "--no-verify",
        action="store_true",
        help="skip the fresh product, the symmetry check, and whether gradient, products and energy agree",
    ),
    Flag(
        "--no-repair", action="store_true", help="do not add what the checks find missing in the pattern: status 4"
    ),
)

SETTINGS_FLAG = Flag(
    "--set",
    metavar="KEY=VALUE",
    action="append",
    default=[],
    dest="settings",
    help="an argument of the problem; may be repeated",
)

PATIENCE_FLAG = Flag(
    "--patience",
    type=float,
    metavar="SECONDS",
    help="end all ranks, and tell where each is, once a rank is so long in one call of a function of the "
    "problem, or waits so long for the others (default: never)",
)

MASS_FLAG = Flag("--mass", metavar="FILE", help="mass matrix M of H x = λ M x")

TRIANGLE_FLAG = Flag(
    "--one-triangle",
    action="store_true",
    help="take a file that stores one triangle alone for one triangle of a symmetric matrix",
)

INPUT_FLAGS = (
    Flag(
        "input",
        metavar="INPUT",
        help=".mtx, .mtx.gz, .npz, .npy, .petsc, .h5, a matrix of Abaqus, CalculiX, Nastran, OpenSees or MATLAB "
        "(model.mat:K), file.py:name, or job.toml",
    ),
    MASS_FLAG,
    TRIANGLE_FLAG,
)

VECTOR_FLAGS = (
    Flag(
        "--nullspace",
        metavar="FILE|constant|rigid|none",
        help="known null vectors to deflate: .npy, .npz or .h5, the constant one, or rigid-body modes; none: not "
        "even those that a problem brings, such as rigid motions of atoms",
    ),
    Flag(
        "--coordinates",
        metavar="FILE",
        help="positions (nodes, 2 or 3) of the nodes (.npy), for their rigid-body modes: --nullspace rigid, and "
        "what multigrid should know",
    ),
)

DROPPING_FLAGS = (
    OneOf(
        Flag(
            "--drop",
            type=float,
            metavar="T",
            help="drop entries smaller than T, and say how far eigenvalues may move",
        ),
        Flag("--keep", type=int, metavar="N", help="keep the diagonal and the largest others, N entries in all"),
    ),
)

CHECKPOINT_FLAGS = (
    Flag(
        "--checkpoint",
        metavar="DIR",
        help="save what is there in this folder, at intervals and on SIGTERM, SIGUSR1 and SIGINT (then status 75; "
        "mpiexec passes SIGUSR1 on)",
    ),
    Flag("--resume", action="store_true", help="go on from what that folder holds, if anything"),
    Flag(
        "--checkpoint-interval",
        type=float,
        metavar="SECONDS",
        help="seconds between two saves (default: as often as that takes a hundredth of the time, and every "
        "minute; 0: after every gradient)",
    ),
)

SHELL_FLAG = Flag("--shell", action="store_true", help="never assemble the Hessian of the problem: products alone")

# Where the variables are: nodes of a mesh, and their dofs.
NODE_FLAGS = (
    Flag(
        "--mesh",
        metavar="FILE",
        help="the mesh that modes are written or drawn on: .inp, .bdf, .msh, .vtu and whatever else meshio reads; "
        "nodes number the dofs, one node's after another's",
    ),
    Flag(
        "--dofs",
        metavar="LETTERS",
        help="dofs of each node in their order, translations x y z and rotations a b c about them: xyz, "
        "xyzabc, xyc (default as many of xyz as there are coordinates)",
    ),
    Flag("--fixed", metavar="FILE", help="dofs, from 0, that the matrices are without (.npy)"),
    Flag(
        "--fixed-set",
        metavar="NAME[:LETTERS]",
        action="append",
        default=[],
        help="a set of nodes of the mesh that the matrices are without, or these dofs of it; may be repeated",
    ),
    Flag(
        "--free",
        metavar="FILE",
        help="instead: the dof, from 0, of each row of the matrices, in their order (.npy)",
    ),
)

SHAPE_FLAGS = (
    Flag("--mode", type=int, metavar="N", help="the mode that --plot draws moving, from 1 (default 1)"),
    Flag(
        "--scale",
        type=float,
        metavar="S",
        help="largest translation of a node in each mode on a mesh (default: as modes are found; in pictures a "
        "tenth of the structure)",
    ),
)

PICTURE_FLAG = Flag(
    "--plot",
    metavar="FILE.gif",
    help="draw a mode that moves, on the nodes of --mesh; .png: pictures FILE_01.png, FILE_02.png, …",
)

SAMPLE_FLAGS = (
    Flag("--samples", type=int, metavar="N", help="how many random vectors"),
    Flag("--steps", type=int, metavar="N", help="products, or Lanczos steps, for each random vector"),
)


def flag_defaults(*flags: Flag) -> dict[str, Any]:
    """Return {name in the parsed arguments: default} of flags. Not collective."""
    return {flag.destination: flag.default for flag in flags}


COLORING = flag_defaults(*COLORING_FLAGS)
DERIVATIVES = flag_defaults(*DERIVATIVE_FLAGS, *CHECK_FLAGS)
GRADIENTS = flag_defaults(GRADIENTS_FLAG)
SETTINGS = flag_defaults(SETTINGS_FLAG)
CHECKPOINT = flag_defaults(*CHECKPOINT_FLAGS)
SEARCH = {name: COLORING[name] for name in ("order", "rule", "budget")}
TEMPLATES = {"budget": COLORING["budget"], "lattice": None}
WHICH = {"which": "smallest"}
ANSWERS = {"out": None, "plot": None, "report": None}
POSITIONS = {"coordinates": None}
ON_MESH = flag_defaults(*NODE_FLAGS, *SHAPE_FLAGS)
SAMPLES = {"samples": None, "steps": None}


def refuse_flags(arguments: argparse.Namespace, flags: dict[str, Any], reason: str) -> None:
    """Raise InputError with a reason where one of these flags differs from its default.

    Not collective; the same on every rank. Flags that the command does not have are passed over.
    """
    for name, default in flags.items():
        if getattr(arguments, name, default) != default:
            flag = "--set" if name == "settings" else "--" + name.replace("_", "-")
            raise InputError(f"{flag}: {reason}; leave it out")
