"""What a command works on: the INPUT of its arguments, read or differentiated."""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sparsehess import runtime
from sparsehess.coloring import BEST, fingerprint, load
from sparsehess.commands import flag_groups, problem_files
from sparsehess.commands.resources import Provision, provision_of
from sparsehess.eigen.certificates.sparsification import sparsify
from sparsehess.eigen.problem.rigid_body_modes import rigid_body_rows
from sparsehess.errors import InputError
from sparsehess.hessian.evaluation_journal import Journal
from sparsehess.hessian.hessian import Hessian, assemble, detected
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.pattern import Layout, Pattern
from sparsehess.pattern.dropping_rules import Above, Largest
from sparsehess.runtime import PETSc, on_root
from sparsehess.runtime import progress as report
from sparsehess.storage import array_files, matrix_files


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
    stored
        The matrix file, where the input is one; else None.
    provision
        Where all this came from.
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
    stored: matrix_files.StoredMatrix | None
    provision: Provision

    @property
    def layout(self) -> Layout:
        """Rows of the matrix over ranks; collective."""
        if self.derived is not None:
            return self.derived.objective.layout
        return Layout.from_local(self.matrix.getLocalSize()[0], runtime.communicator(self.matrix.comm))

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
        if self.stored is not None:
            self.provision.release(self.stored)
        elif self.pattern is not None:
            self.pattern.free()


def operand(arguments, comm, shell: bool = False) -> Operand:
    """Return what INPUT and --mass stand for; with `shell` a problem is not assembled.

    Collective.
    """
    began = time.perf_counter()
    timings = dict.fromkeys(("pattern", "coloring", "derivatives", "assembly"), 0.0)
    derived, pattern, asymmetry, name, stored = None, None, 0.0, arguments.input, None
    provision = provision_of(arguments)
    precision = getattr(arguments, "precision", "double")
    if not shell and precision != "double":
        raise InputError("--precision single is for the products of --shell")
    if problem_files.is_problem(arguments.input):
        derived = matrix = _products(arguments, precision, comm) if shell else assembled(arguments, comm)
        if not shell:
            timings.update(derived.timings)
            pattern = derived.pattern
        n, name = derived.objective.n, derived.objective.name
    else:
        if shell:
            raise InputError(f"{arguments.input} is a matrix file: --shell is for problems")
        every = flag_groups.SETTINGS | flag_groups.DERIVATIVES | flag_groups.COLORING
        flag_groups.refuse(arguments, every, f"{arguments.input} is a matrix file, which is not differentiated")
        stored = provision.matrix(arguments.input, comm)
        matrix, pattern, n, asymmetry = stored.to_mat(), stored.pattern, stored.pattern.n, stored.asymmetry
        timings["assembly"] = time.perf_counter() - began
    mass = _stored(arguments.mass, comm)
    near = _stored(getattr(arguments, "preconditioner", None), comm)
    return Operand(matrix, derived, pattern, n, name, mass, near, asymmetry, timings, stored, provision)


@contextmanager
def thinned(arguments, matrix, mass=None):
    """Yield what --drop or --keep leaves of a matrix, None where neither is given.

    Collective.
    """
    if arguments.drop is None and arguments.keep is None:
        yield None
        return
    rule = Above(arguments.drop) if arguments.keep is None else Largest(arguments.keep)
    with sparsify(matrix, rule, mass=mass) as left:
        try:
            yield left
        finally:
            left.pattern.free()


def _stored(path, comm) -> PETSc.Mat | None:
    return None if path is None else matrix_files.read_matrix(path, comm).to_mat()


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of eigenvectors; None for what a problem says itself. `close()` destroys them, collectively.

    Attributes
    ----------
    null, near_null, guess
        Vecs for `EigenProblem.of`.
    names
        Of the null vectors, where they have any.
    """

    null: list[PETSc.Vec] | None
    near_null: list[PETSc.Vec] | None
    guess: list[PETSc.Vec] | None
    names: tuple[str, ...]

    def close(self) -> None:
        """Destroy the vectors. Collective."""
        runtime.destroy(*(self.null or []), *(self.near_null or []), *(self.guess or []))


def known_vectors(arguments, given: Operand) -> Known:
    """Return what --nullspace, --coordinates and --guess stand for. Collective."""
    layout, modes, names = given.layout, None, ()
    if arguments.coordinates is not None:
        nodes, dims = array_files.read_nodes(arguments.coordinates, layout)
        modes, names = rigid_body_rows(nodes, layout, dims)
    guess = getattr(arguments, "guess", None)
    guess = None if guess is None else array_files.read_vectors(guess, layout)
    if arguments.nullspace == "rigid":
        if modes is None:
            raise InputError("--nullspace rigid: give the positions of the nodes with --coordinates")
        null, modes = modes, None
    elif arguments.nullspace == "constant":
        null, names = np.ones((1, layout.n_local)), ["constant"]
    elif arguments.nullspace is not None:
        null, names = array_files.read_vectors(arguments.nullspace, layout), []
    else:
        null, names = None, [] if given.derived is None else given.derived.objective.null_names
    return Known(*(_vectors(rows, layout) for rows in (null, modes, guess)), tuple(names))


def _vectors(rows: np.ndarray | None, layout: Layout) -> list[PETSc.Vec] | None:
    """Return (m, n_local) rows as Vecs. Collective."""
    if rows is None:
        return None
    size = (layout.n_local, layout.n)
    return [PETSc.Vec().createWithArray(np.array(row, np.float64), size=size, comm=layout.comm) for row in rows]


def _products(arguments, precision: str, comm) -> MatrixFree:
    flag_groups.refuse(arguments, flag_groups.DERIVATIVES | flag_groups.COLORING, "--shell assembles nothing")
    objective = problem_files.load(arguments.input, problem_files.settings(arguments.settings), comm)
    return MatrixFree(objective, seed=arguments.seed, precision=precision)


def assembled(arguments, comm) -> Hessian:
    """Return the Hessian of the problem that is the INPUT. Collective."""
    began = time.perf_counter()
    objective = problem_files.load(arguments.input, problem_files.settings(arguments.settings), comm)
    pattern, calls, journal = objective.pattern, {}, None
    if arguments.pattern == "detect":
        flag_groups.refuse(arguments, {"blocks": 1}, "a pattern that is detected comes without groups")
        journal = _journal(arguments, objective, None)
        pattern, calls = detected(objective, journal, seed=arguments.seed, points=arguments.points)
    else:
        flag_groups.refuse(arguments, {"points": 1}, "only --pattern detect probes points")
        if arguments.pattern != "given":
            pattern = matrix_files.read_pattern(arguments.pattern, comm, block=arguments.blocks)
        elif pattern is not None:
            pattern = pattern.in_blocks(arguments.blocks)
    given = time.perf_counter() - began
    by_element = objective.elements is not None and arguments.coloring is None
    if by_element:
        flag_groups.refuse(
            arguments, flag_groups.COLORING, "the Hessians of the elements are summed; --coloring colours all"
        )
    if journal is None:
        journal = _journal(arguments, objective, pattern)
    coloring = None
    if not by_element and pattern is not None:
        make = partial(asked_coloring, arguments, pattern)
        coloring = make() if journal is None else journal.coloring(pattern, make)
    progress = report.SharedProgress("colours evaluated", comm, arguments.quiet)
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
    asked = {name: getattr(arguments, name) for name in (*flag_groups.DERIVATIVES, *flag_groups.COLORING, "seed")}
    place = arguments.input.rpartition(":")[0]
    asked["input"] = arguments.input.replace(place, Path(place).name)
    asked["settings"] = sorted(arguments.settings)
    asked["structure"] = None if pattern is None else fingerprint(pattern)
    asked["code"] = on_root(objective.comm, _code, place)
    return Journal.of(arguments.checkpoint, objective, asked)


def _code(place: str) -> str | None:
    """Return a digest of the file that a problem comes from; what that imports is not looked at."""
    origin = place if place.endswith(".py") else getattr(sys.modules.get(place), "__file__", None)
    return None if origin is None else hashlib.sha256(Path(origin).read_bytes()).hexdigest()[:16]


def asked_coloring(arguments, pattern):
    """Return the colouring that is asked for, or the stored one. Collective."""
    if (arguments.coloring or "").endswith((".npz", ".h5")):
        flag_groups.refuse(
            arguments, flag_groups.SEARCH | flag_groups.TEMPLATES, f"{arguments.coloring} is a colouring already"
        )
        return load(arguments.coloring, pattern)
    if arguments.order != BEST:
        flag_groups.refuse(
            arguments, flag_groups.TEMPLATES, f"only --order {BEST} searches; {arguments.order} is one order"
        )
    lattice = getattr(arguments, "lattice", None)
    if lattice is not None:
        groups = pattern if pattern.quotient is None else pattern.quotient
        lattice = array_files.read_coordinates(lattice, groups.layout)
    return provision_of(arguments).coloring(
        pattern,
        kind=arguments.coloring or "star",
        order=arguments.order,
        rule=arguments.rule,
        seed=arguments.seed,
        budget=arguments.budget,
        lattice=lattice,
    )
