"""The command line: arguments, exit statuses, and who prints. What stands after `--` goes to PETSc."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import traceback

from sparsehess import errors, flags, runtime
from sparsehess.errors import InputError, SparseHessError


class _Help(Exception):
    """The text that -h or --version asked for."""


class _Parser(argparse.ArgumentParser):
    """argparse that leaves printing and exiting to `main`, which knows the rank."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, allow_abbrev=False, **keywords)

    def error(self, message):
        raise InputError(f"{message} (see {self.prog} --help)")

    def print_help(self, file=None):
        raise _Help(self.format_help())


class _Version(argparse.Action):
    def __call__(self, parser, *rest):
        from sparsehess import __version__

        raise _Help(f"sparsehess {__version__}\n")


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
    coloring.set_defaults(**flags.COLORING)

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
    derivatives.set_defaults(**flags.DERIVATIVES)

    operand = argparse.ArgumentParser(add_help=False)
    operand.add_argument("input", metavar="INPUT", help=".mtx, .mtx.gz, .npz, .petsc, .h5, or file.py:name")
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

    eigs = commands.add_parser(
        "eigs",
        parents=[shared, out, seeded, coloring, derivatives, operand, known],
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
        choices=["auto", "krylovschur", "lobpcg", "gd", "jd", "slicing", "feast", "ciss", "filter", "dense"],
        default="auto",
        help="solver; slicing, feast, ciss and filter are for intervals (default: what suits, see --explain)",
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
        "--zero", type=float, metavar="Z", help="eigenvalues up to this size are zero (default: the accuracy)"
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

    assemble = commands.add_parser(
        "assemble",
        parents=[shared, seeded, coloring, derivatives],
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

    commands.add_parser(
        "info", parents=[shared], help="the stack: what is there, what is missing, what that costs"
    )
    return top


# Options of these families belong to the solver and are inserted under its own prefix.
_FAMILIES = ("eps_", "st_", "bv_", "ds_", "rg_")


def split_petsc(arguments: list[str]) -> tuple[dict[str, object], list[str], list[str]]:
    """Return (options of the solver, PETSc's own arguments, their names) of what stands after `--`."""
    solver, rest, names = {}, [], []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if not word.startswith("-") or _is_number(word):
            raise InputError(f"after --, expected a PETSc option such as -eps_monitor, found {word!r}")
        key, value = word.lstrip("-"), None
        position += 1
        if position < len(arguments) and (
            not arguments[position].startswith("-") or _is_number(arguments[position])
        ):
            value = arguments[position]
            position += 1
        if key.startswith("mat_mumps_"):
            key = "st_" + key
        if key.startswith(_FAMILIES):
            solver[key] = value
        else:
            rest += ["-" + key] + ([] if value is None else [value])
            names.append(key)
    return solver, rest, names


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its status. Collective on the world communicator."""
    words = list(sys.argv[1:] if argv is None else argv)
    ours, _, theirs = _partition(words)
    arguments, early, text = None, None, None
    options: dict[str, object] = {}
    rest: list[str] = []
    names: list[str] = []
    try:
        # argparse takes -inf and -1e-3 for options, but nothing with a blank.
        arguments = parser().parse_args([" " + word if _is_number(word) else word for word in ours])
        options, rest, names = split_petsc(theirs)
    except _Help as help_text:
        text = str(help_text)
    except InputError as error:
        early = error
    verbose = "-v" in ours or "--verbose" in ours
    try:
        runtime.initialize(rest)
    except SparseHessError as error:
        sys.stderr.write(f"sparsehess: {error}\n")
        sys.exit(error.status)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    runtime.on_stuck = _abort
    if world.size == 1:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sparsehess … | head` ends as any filter does
    if text is not None:
        if world.rank == 0:
            sys.stdout.write(text)
        sys.exit(errors.DONE)
    logging.basicConfig(format="sparsehess: %(message)s", level=logging.DEBUG if verbose else logging.WARNING)
    status, error = errors.DONE, early
    if error is None:
        try:
            status = _run(arguments, options, names, world)
        except Exception as caught:
            error = caught
    # Errors of the library are raised on all ranks; this agreement is for the others: our own bugs.
    try:
        runtime.raise_together(world, error)
    except Exception as agreed:
        _report(agreed, world.rank, verbose)
        status = agreed.status if isinstance(agreed, SparseHessError) else errors.BUG
    sys.stdout.flush()
    sys.exit(status)


def _partition(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    if "--" not in words:
        return words, [], []
    at = words.index("--")
    return words[:at], ["--"], words[at + 1 :]


def _run(arguments, options: dict[str, object], names: list[str], world) -> int:
    from sparsehess import commands

    comm = runtime.communicator(world)
    status = commands.COMMANDS[arguments.command](arguments, options, comm)
    unused = [name for name in names if not runtime.option_was_used(name)]
    if unused:
        raise InputError(f"PETSc options that nothing has used: {', '.join('-' + name for name in unused)}")
    return status


def _report(error: Exception, rank: int, verbose: bool) -> None:
    if rank == 0:
        known = isinstance(error, SparseHessError) and error.status != errors.BUG
        text = str(error) if isinstance(error, SparseHessError) else f"{type(error).__name__}: {error}"
        advice = "" if known else " (a bug in sparsehess: please report it, with the output of -v)"
        sys.stderr.write(f"sparsehess: {text}{advice}\n")
    if verbose:
        traceback.print_exception(error)
    sys.stderr.flush()


def _abort(comm, error: Exception) -> None:
    """End a job whose other ranks wait in a call that this rank will never make."""
    text = str(error) if isinstance(error, SparseHessError) else f"{type(error).__name__}: {error}"
    sys.stderr.write(f"sparsehess: {text} (the other ranks wait in another call: ending all)\n")
    sys.stderr.flush()
    comm.Abort(error.status if isinstance(error, SparseHessError) else errors.BUG)
