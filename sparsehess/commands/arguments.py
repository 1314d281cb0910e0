"""The arguments of the command line."""

from __future__ import annotations

import argparse

from sparsehess.commands import flag_groups
from sparsehess.errors import InputError
from sparsehess.service import batch_commands, spool_commands


class Help(Exception):
    """The text that -h or --version asked for."""


class _Parser(argparse.ArgumentParser):
    """argparse that leaves printing and exiting to `main`, which knows the rank."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, allow_abbrev=False, **keywords)

    def error(self, message):
        raise InputError(f"{message} (see {self.prog} --help)")

    def print_help(self, file=None):
        raise Help(self.format_help())


class _Version(argparse.Action):
    def __call__(self, parser, *rest):
        from sparsehess import __version__

        raise Help(f"sparsehess {__version__}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = _Parser(prog="sparsehess", description="Sparse Hessians from gradients, and their certified eigenpairs.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", metavar="FILE", help="write the facts as JSON; - is standard output")
    shared.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    shared.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")

    out = argparse.ArgumentParser(add_help=False)
    out.add_argument("-o", "--out", metavar="FILE", help="write the result")

    seeded = argparse.ArgumentParser(add_help=False)
    seeded.add_argument("--seed", type=int, default=0, help="of random vectors (default 0)")

    coloring = argparse.ArgumentParser(add_help=False)
    coloring.add_argument(
        "--coloring",
        metavar="KIND",
        help="star (default), acyclic, cpr, powell-toint, distance2, or the .npz file of a stored colouring; "
        "sums over elements need none",
    )
    coloring.add_argument(
        "--order",
        metavar="ORDER",
        help="natural, chunks, largest-first, smallest-last, incidence-degree, the last three with distance2- "
        "before them, hubs-first, random, or best of all (default)",
    )
    coloring.add_argument("--rule", help="of the kind: 2007 or conservative; local, triangular or trees")
    coloring.add_argument(
        "--budget", type=float, metavar="S", help="nominal seconds for the order best (default 0.2)"
    )
    coloring.add_argument(
        "--blocks", type=int, metavar="B", help="variables come in consecutive groups of B (default 1)"
    )
    coloring.set_defaults(**flag_groups.COLORING)

    derivatives = argparse.ArgumentParser(add_help=False)
    derivatives.add_argument(
        "--derivative",
        choices=["auto", "forward", "central", "extrapolated", "complex", "ad"],
        help="differences of gradients (1, 2 or 4 a colour), complex steps, or products (default: products if "
        "there are any, else central)",
    )
    derivatives.add_argument(
        "--pattern",
        metavar="FILE|given|detect",
        help="a matrix file, the problem's own, or found by probing",
    )
    derivatives.add_argument(
        "--points", type=int, metavar="N", help="probe x and N - 1 points around it (default 1)"
    )
    derivatives.add_argument(
        "--no-verify", action="store_true", help="skip the fresh product and the symmetry check"
    )
    derivatives.add_argument(
        "--no-repair", action="store_true", help="do not add what the checks find missing in the pattern: status 4"
    )
    derivatives.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="an argument of the problem; may be repeated",
    )
    derivatives.set_defaults(**flag_groups.DERIVATIVES)

    operand = argparse.ArgumentParser(add_help=False)
    operand.add_argument(
        "input", metavar="INPUT", help=".mtx, .mtx.gz, .npz, .petsc, .h5, file.py:name, or job.toml"
    )
    operand.add_argument("--mass", metavar="FILE", help="mass matrix M of H x = λ M x")

    known = argparse.ArgumentParser(add_help=False)
    known.add_argument(
        "--nullspace",
        metavar="FILE|constant|rigid",
        help="known null vectors to deflate: .npy, .npz or .h5, the constant one, or rigid-body modes",
    )
    known.add_argument(
        "--coordinates",
        metavar="FILE",
        help="positions (nodes, 2 or 3) of the nodes (.npy), for their rigid-body modes: --nullspace rigid, and "
        "what multigrid should know",
    )

    thinning = argparse.ArgumentParser(add_help=False)
    rule = thinning.add_mutually_exclusive_group()
    rule.add_argument(
        "--drop", type=float, metavar="T", help="drop entries smaller than T, and say how far eigenvalues may move"
    )
    rule.add_argument(
        "--keep", type=int, metavar="N", help="keep the diagonal and the largest others, N entries in all"
    )

    kept = argparse.ArgumentParser(add_help=False)
    kept.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="save what is there in this folder, at intervals and on SIGTERM, SIGUSR1 and SIGINT (then status 75; "
        "mpiexec passes SIGUSR1 on)",
    )
    kept.add_argument("--resume", action="store_true", help="go on from what that folder holds, if anything")
    kept.add_argument(
        "--checkpoint-interval",
        type=float,
        metavar="SECONDS",
        help="between two saves (default 600; 0: after every gradient)",
    )
    kept.set_defaults(**flag_groups.CHECKPOINT)

    eigs = commands.add_parser(
        "eigs",
        parents=[shared, out, seeded, coloring, derivatives, operand, known, thinning, kept],
        help="eigenpairs of a Hessian: a matrix file, or a problem that is differentiated first",
    )
    eigs.add_argument("-k", type=int, help="how many (default 6; of the negative ones all)")
    eigs.add_argument(
        "--which",
        choices=["smallest", "largest", "magnitude", "negative"],
        default="smallest",
        help="algebraic, by default the smallest",
    )
    eigs.add_argument(
        "--interval", type=float, nargs=2, metavar=("A", "B"), help="all eigenvalues from A to B instead"
    )
    eigs.add_argument("--target", type=float, metavar="S", help="the k nearest to S instead")
    eigs.add_argument(
        "--method",
        metavar="METHOD",
        default="auto",
        help="krylovschur, lobpcg, gd, jd, dense; for intervals slicing, feast, ciss, filter; for comparison "
        "power and lanczos (default: what suits, see --explain)",
    )
    eigs.add_argument("--groups", type=int, metavar="G", help="of ranks that share out slices, or points of feast")
    eigs.add_argument("--explain", action="store_true", help="say which method would be taken and why, and stop")
    eigs.add_argument(
        "--shell", action="store_true", help="never assemble the Hessian of the problem: products alone"
    )
    eigs.add_argument(
        "--backend", choices=["cpu", "cuda", "hip", "kokkos"], default="cpu", help="where to compute (default cpu)"
    )
    eigs.add_argument("--guess", metavar="FILE", help="vectors to start from: a stored result, or .npy, .npz, .h5")
    eigs.add_argument(
        "--preconditioner", metavar="FILE", help="a matrix near the Hessian, for lobpcg, gd and jd to factorize"
    )
    eigs.add_argument(
        "--precision",
        choices=["double", "single"],
        default="double",
        help="of the products of --shell; all else is double (default double)",
    )
    eigs.add_argument("--tol", type=float, default=1e-8, help="backward error of each pair (default 1e-8)")
    eigs.add_argument(
        "--count",
        choices=["auto", "yes", "no"],
        default="auto",
        help="inertia count that shows none was missed (default: wherever it is cheap)",
    )
    eigs.add_argument("--plot", metavar="FILE.png", help="draw spectrum and pattern")

    inertia = commands.add_parser(
        "inertia",
        parents=[shared, seeded, coloring, derivatives, operand],
        help="how many eigenvalues are negative, zero and positive, from factorizations alone",
    )
    inertia.add_argument(
        "--shell", action="store_true", help="never assemble the Hessian of the problem: an estimate by products"
    )
    inertia.add_argument(
        "--zero", type=float, metavar="Z", help="eigenvalues up to this size are zero (default: the accuracy)"
    )

    inertia.add_argument(
        "--condition", action="store_true", help="the condition number too: largest over least magnitude"
    )
    inertia.add_argument(
        "--direction", metavar="FILE", help="write the direction of lowest curvature (.h5 or .npz)"
    )

    check = commands.add_parser(
        "check",
        parents=[shared, seeded, coloring, derivatives, known],
        help="verify a stored result from nothing but the files",
    )
    check.add_argument("result", metavar="RESULT", help="what eigs -o has written (.h5 or .npz)")
    check.add_argument("input", metavar="INPUT", help="the matrix file or the problem that it is said to be of")
    check.add_argument("--mass", metavar="FILE", help="mass matrix M of H x = λ M x")
    check.add_argument("--tol", type=float, default=1e-8, help="backward error that passes (default 1e-8)")

    estimate = argparse.ArgumentParser(add_help=False)
    estimate.add_argument(
        "--shell", action="store_true", help="never assemble the Hessian of the problem: products alone"
    )
    estimate.add_argument("--samples", type=int, metavar="N", help="random vectors")
    estimate.add_argument("--steps", type=int, metavar="N", help="products, or Lanczos steps, for each of them")

    density = commands.add_parser(
        "density",
        parents=[shared, out, seeded, coloring, derivatives, operand, known, estimate],
        help="spectral density by stochastic Lanczos quadrature, with error bars",
    )
    density.add_argument("--method", choices=["lanczos", "chebyshev"], default="lanczos", help="(default lanczos)")
    density.add_argument("--grid", type=int, metavar="N", default=512, help="places to tell it at (default 512)")
    density.add_argument("--width", type=float, metavar="W", help="of the kernel (default: what is resolved)")
    density.add_argument(
        "--outliers", type=int, metavar="K", default=0, help="compute the K largest in magnitude apart"
    )
    density.add_argument(
        "--groups", type=int, metavar="G", default=1, help="of ranks that share the samples out (default 1)"
    )
    density.add_argument("--plot", metavar="FILE.png", help="draw density and cumulative count")

    trace = commands.add_parser(
        "trace",
        parents=[shared, seeded, coloring, derivatives, operand, known, estimate],
        help="trace of the Hessian, or of a function of it, with its error",
    )
    trace.add_argument(
        "--function",
        choices=["identity", "logdet", "inverse", "heat", "effective-dimension"],
        default="identity",
        help="whose values at the eigenvalues are summed up (default identity)",
    )
    trace.add_argument("--gamma", type=float, help="of the effective dimension, the sum of λ/(λ + γ)")
    trace.add_argument("--time", type=float, help="of heat, the sum of exp(-λ t)")
    trace.add_argument(
        "--method",
        choices=["auto", "exact", "hutchinson", "hutch++", "xtrace"],
        default="auto",
        help="(default: exact where that can be)",
    )
    trace.add_argument("--tol", type=float, help="stop where the standard error is this part of the trace")

    rank = commands.add_parser(
        "rank",
        parents=[shared, seeded, coloring, derivatives, operand, known, estimate],
        help="how many eigenvalues are not zero",
    )
    rank.add_argument(
        "--threshold", metavar="X|gap", help="part of the largest up to which one is zero, or the widest gap"
    )
    rank.add_argument("--absolute", type=float, metavar="X", help="size up to which one is zero, instead")
    rank.add_argument(
        "--method", choices=["auto", "inertia", "density"], default="auto", help="(default: inertia where it fits)"
    )

    assemble = commands.add_parser(
        "assemble",
        parents=[shared, seeded, coloring, derivatives, thinning, kept],
        help="pattern, colouring, compressed derivatives, Hessian to a file",
    )
    assemble.add_argument("input", metavar="PROBLEM", help="file.py:name or package.module:name")
    assemble.add_argument("-o", "--out", metavar="FILE", required=True, help=".mtx, .npz, .petsc or .h5")

    color = commands.add_parser(
        "color",
        parents=[shared, out, seeded, coloring],
        help="colour a sparsity pattern, verify the colouring, report it",
    )
    color.add_argument("input", metavar="PATTERN", help=".mtx, .mtx.gz, .npz, .petsc or .h5")
    color.add_argument(
        "--diagonal",
        choices=["full", "given"],
        default="full",
        help="whether a diagonal entry that is not stored may be non-zero all the same (default full)",
    )
    color.add_argument("--lattice", metavar="FILE", help="coordinates of the variables on a lattice (.npy)")
    color.add_argument("--plot", metavar="FILE.png", help="draw the coloured matrix")

    batch_commands.add_parsers(commands, shared)
    spool_commands.add_parsers(commands, shared)

    commands.add_parser(
        "info", parents=[shared], help="the stack: what is there, what is missing, what that costs"
    )
    return top
