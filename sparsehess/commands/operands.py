"""What a command works on: the INPUT of its arguments, read or differentiated."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sparsehess import matrices, problems, report, runtime
from sparsehess.assembly import Hessian, assemble, detected
from sparsehess.coloring import color, fingerprint, load
from sparsehess.commands import flags
from sparsehess.errors import InputError
from sparsehess.nullspace import rigid_body_modes
from sparsehess.operators import MatrixFree
from sparsehess.pattern import Pattern
from sparsehess.runtime import PETSc, on_root
from sparsehess.service.journal import Journal


@dataclass(frozen=True, eq=False)
class Operand:
    """A matrix, and where it comes from. `close()` destroys it, collectively.

    Attributes
    ----------
    matrix
        For `EigenProblem.of`.
    derived
        The Hessian, where the input is a problem; else None.
    pattern
        None where nothing is assembled.
    n, name
        Rows; of the problem, or the file.
    mass, preconditioner
        From a file, or None.
    relative_error
        By which a stored matrix was not symmetric.
    timings
        Seconds of the stages up to here.
    """

    matrix: Hessian | MatrixFree | PETSc.Mat
    derived: Hessian | MatrixFree | None
    pattern: Pattern | None
    n: int
    name: str
    mass: PETSc.Mat | None
    preconditioner: PETSc.Mat | None
    relative_error: float
    timings: dict[str, float]

    @property
    def nnz(self) -> int | None:
        return None if self.pattern is None else self.pattern.nnz

    def close(self) -> None:
        """Destroy matrices and pattern. Collective."""
        if self.derived is not None:
            self.derived.close()
        else:
            self.matrix.destroy()
        runtime.destroy(self.mass, self.preconditioner)
        if self.pattern is not None:
            self.pattern.free()


def operand(arguments, comm, shell: bool = False) -> Operand:
    """Return what INPUT and --mass stand for; with `shell` a problem is not assembled.

    Collective.
    """
    began = time.perf_counter()
    timings = dict.fromkeys(("pattern", "coloring", "derivatives", "assembly"), 0.0)
    derived, pattern, asymmetry, name = None, None, 0.0, arguments.input
    precision = getattr(arguments, "precision", "double")
    if not shell and precision != "double":
        raise InputError("--precision single is for the products of --shell")
    if problems.is_problem(arguments.input):
        derived = matrix = _products(arguments, precision, comm) if shell else assembled(arguments, comm)
        if not shell:
            timings.update(derived.timings)
            pattern = derived.pattern
        n, name = derived.objective.n, derived.objective.name
    else:
        if shell:
            raise InputError(f"{arguments.input} is a matrix file: --shell is for problems")
        every = flags.SETTINGS | flags.DERIVATIVES | flags.COLORING
        flags.refuse(arguments, every, f"{arguments.input} is a matrix file, which is not differentiated")
        stored = matrices.read_matrix(arguments.input, comm)
        matrix, pattern, n, asymmetry = stored.to_mat(), stored.pattern, stored.pattern.n, stored.asymmetry
        timings["assembly"] = time.perf_counter() - began
    mass = _stored(arguments.mass, comm)
    near = _stored(getattr(arguments, "preconditioner", None), comm)
    return Operand(matrix, derived, pattern, n, name, mass, near, asymmetry, timings)


def _stored(path, comm) -> PETSc.Mat | None:
    return None if path is None else matrices.read_matrix(path, comm).to_mat()


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a null space: (m, n) arrays, None for what a problem says itself.

    Attributes
    ----------
    null, near_null
        For `EigenProblem.of`.
    names
        Of the null vectors, where they have any.
    """

    null: np.ndarray | None
    near_null: np.ndarray | None
    names: tuple[str, ...]


def known_vectors(arguments, given: Operand, comm) -> Known:
    """Return what --nullspace and --coordinates stand for. Collective."""
    modes, names = None, ()
    if arguments.coordinates is not None:
        nodes = matrices.read_nodes(arguments.coordinates, given.n, comm)
        modes, names = rigid_body_modes(nodes, dims=given.n // len(nodes))
    if arguments.nullspace == "rigid":
        if modes is None:
            raise InputError("--nullspace rigid: give the positions of the nodes with --coordinates")
        return Known(modes, None, tuple(names))
    if arguments.nullspace == "constant":
        return Known(np.ones((1, given.n)), modes, ("constant",))
    if arguments.nullspace is not None:
        return Known(matrices.read_vectors(arguments.nullspace, given.n, comm), modes, ())
    return Known(None, modes, () if given.derived is None else tuple(given.derived.objective.null_names))


def _products(arguments, precision: str, comm) -> MatrixFree:
    flags.refuse(arguments, flags.DERIVATIVES | flags.COLORING, "--shell assembles nothing")
    objective = problems.load(arguments.input, problems.settings(arguments.settings), comm)
    return MatrixFree(objective, seed=arguments.seed, precision=precision)


def assembled(arguments, comm) -> Hessian:
    """Return the Hessian of the problem that is the INPUT. Collective."""
    began = time.perf_counter()
    objective = problems.load(arguments.input, problems.settings(arguments.settings), comm)
    pattern, calls, journal = objective.pattern, {}, None
    if arguments.pattern == "detect":
        flags.refuse(arguments, {"blocks": 1}, "a pattern that is detected comes without groups")
        journal = _journal(arguments, objective, None)
        pattern, calls = detected(objective, journal, seed=arguments.seed, points=arguments.points)
    else:
        flags.refuse(arguments, {"points": 1}, "only --pattern detect probes points")
        if arguments.pattern != "given":
            pattern = matrices.read_pattern(arguments.pattern, comm, block=arguments.blocks)
        elif pattern is not None:
            pattern = pattern.in_blocks(arguments.blocks)
    given = time.perf_counter() - began
    by_element = objective.elements is not None and arguments.coloring is None
    if by_element:
        flags.refuse(arguments, flags.COLORING, "the Hessians of the elements are summed; --coloring colours all")
    if journal is None:
        journal = _journal(arguments, objective, pattern)
    coloring = None
    if not by_element and pattern is not None:
        make = partial(asked_coloring, arguments, pattern)
        coloring = make() if journal is None else journal.coloring(pattern, make)
    progress = report.Progress("colours evaluated", comm, arguments.quiet)
    hessian = assemble(
        objective,
        pattern=pattern,
        derivative=arguments.derivative,
        coloring=coloring,
        verify=not arguments.no_verify,
        repair=not arguments.no_repair,
        budget=arguments.budget,
        seed=arguments.seed,
        progress=progress,
        checkpoint=journal,
    )
    progress.finish()
    hessian.timings["pattern"] += given
    hessian.evaluations["pattern"] += sum(calls.values())
    return hessian


def _journal(arguments, objective, pattern: Pattern | None) -> Journal | None:
    """Return the journal of an assembly in the checkpoint of the arguments, if there is one. Collective."""
    if arguments.checkpoint is None:
        return None
    asked = {name: getattr(arguments, name) for name in (*flags.DERIVATIVES, *flags.COLORING, "seed")}
    place = arguments.input.rpartition(":")[0]
    asked["input"] = arguments.input.replace(place, Path(place).name)
    asked["settings"] = sorted(arguments.settings)
    asked["structure"] = None if pattern is None else fingerprint(pattern)
    if place.endswith(".py"):
        asked["code"] = on_root(objective.comm, lambda: hashlib.sha256(Path(place).read_bytes()).hexdigest()[:16])
    return Journal.of(arguments.checkpoint, objective, asked)


def asked_coloring(arguments, pattern):
    """Return the colouring that is asked for, or the stored one. Collective."""
    if (arguments.coloring or "").endswith((".npz", ".h5")):
        searched = {name: flags.COLORING[name] for name in ("order", "rule", "budget")}
        flags.refuse(arguments, searched, f"{arguments.coloring} is a colouring already")
        return load(arguments.coloring, pattern)
    lattice = getattr(arguments, "lattice", None)
    if lattice is not None:
        groups = pattern if pattern.quotient is None else pattern.quotient
        lattice = matrices.read_coordinates(lattice, groups.layout)
    return color(
        pattern,
        kind=arguments.coloring or "star",
        order=arguments.order,
        rule=arguments.rule,
        seed=arguments.seed,
        budget=arguments.budget,
        lattice=lattice,
    )
