"""The INPUT of a command: a matrix file that is read, or a problem that is differentiated."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess import runtime
from sparsehess.commands import flag_groups, problem_files
from sparsehess.commands.differentiation import assemble_problem, matrix_free_problem, near_far_problem
from sparsehess.commands.frequency_units import find_units
from sparsehess.eigen.certificates.sparsification import Sparsified, sparsify
from sparsehess.eigen.problem.hermitian_problem import HermitianProblem, doubled_vectors
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rigid_body_modes import rigid_body_rows
from sparsehess.errors import InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.long_range import NearFar
from sparsehess.pattern.dropping_rules import Above, Largest
from sparsehess.runtime import PETSc
from sparsehess.runtime.row_layout import Layout
from sparsehess.storage import array_files, matrix_files

if TYPE_CHECKING:
    import argparse
    import os

    from sparsehess.coloring import Coloring
    from sparsehess.commands.call import Call
    from sparsehess.commands.resources import Resources
    from sparsehess.derivatives.units import Units
    from sparsehess.pattern import Pattern
    from sparsehess.storage.dof_labels import Labels
    from sparsehess.storage.matrix_files import Origin, StoredMatrix

_STAGES = ("pattern", "coloring", "derivatives", "assembly")


@dataclass(frozen=True, eq=False)
class Input:
    """A matrix and its origin. `close()` destroys it, collectively.

    Attributes
    ----------
    matrix
        For `EigenProblem.of`.
    hessian
        The Hessian, where the input is a problem; else None.
    pattern
        Of what is assembled: the matrix, or what is near; None where nothing is.
    n, name
        Rows; of the problem, or the file.
    timings
        Seconds of the stages up to here.
    resources
        Source of matrices and solvers.
    stored
        The matrix file, where the input is one; else None.
    relative_error
        By which a stored matrix was not symmetric.
    mass, preconditioner
        From a file, or None.
    mass_origin, preconditioner_origin
        What was found in these files.
    copies
        2 where matrices are real forms of complex Hermitian ones, of 2n rows; else 1.
    """

    matrix: Hessian | MatrixFree | NearFar | PETSc.Mat
    hessian: Hessian | MatrixFree | NearFar | None
    pattern: Pattern | None
    n: int
    name: str
    timings: dict[str, float]
    resources: Resources
    stored: StoredMatrix | None = None
    relative_error: float = 0.0
    mass: PETSc.Mat | None = None
    preconditioner: PETSc.Mat | None = None
    mass_origin: Origin | None = None
    preconditioner_origin: Origin | None = None
    copies: int = 1

    @property
    def layout(self) -> Layout:
        """Rows over ranks, of a complex matrix its own; collective."""
        if isinstance(self.hessian, NearFar):
            return self.hessian.layout
        if self.hessian is not None:
            return self.hessian.objective.layout
        if self.copies == 2 and self.pattern is not None:
            return self.pattern.layout
        matrix: PETSc.Mat = self.matrix
        return Layout.from_local(matrix.getLocalSize()[0], runtime.communicator(matrix.comm))

    @property
    def nnz(self) -> int | None:
        """Entries of the matrix, None where it is not assembled."""
        return None if self.pattern is None else self.pattern.nnz

    @property
    def title(self) -> str:
        """Name of the problem, or of the file without its folder."""
        return Path(self.name).name if self.hessian is None else self.name

    @property
    def coloring(self) -> Coloring | None:
        """The colouring that the matrix was taken with, None where there is none."""
        return self.hessian.coloring if isinstance(self.hessian, (Hessian, NearFar)) else None

    @property
    def origins(self) -> list[Origin]:
        """The files that were read."""
        own = None if self.stored is None else self.stored.origin
        return [one for one in (own, self.mass_origin, self.preconditioner_origin) if one is not None]

    @property
    def labels(self) -> Labels | None:
        """Nodes and components of this rank's rows, where the matrix file tells them."""
        return None if self.stored is None else self.stored.labels

    def units(self, arguments: argparse.Namespace) -> Units | None:
        """Return what an eigenvalue means by the flags, or by the problem. Not collective."""
        return find_units(arguments, None if self.hessian is None else self.hessian.objective)

    @property
    def problem_type(self) -> type[EigenProblem]:
        """Whose `of` takes `problem_arguments`."""
        return HermitianProblem if self.copies == 2 else EigenProblem

    def refuse_complex(self, flags: dict[str, object]) -> None:
        """Refuse flags, by name, that are for real matrices, where they are given. Not collective."""
        given = [flag for flag, value in flags.items() if value is not None]
        if self.copies == 2 and given:
            raise InputError(f"{given[0]} is for real matrices, and {self.name} is complex: leave it out")

    def problem_arguments(self, left: Sparsified | None = None) -> dict[str, Any]:
        """Return the arguments of `EigenProblem.of` for the matrix, or for its sparsified form `left`.

        Not collective.
        """
        found = {
            "matrix": self.matrix if left is None else left.mat,
            "mass": self.mass,
            "relative_error": self.relative_error,
            "solver_pool": self.resources.solver_pool(),
        }
        if left is None or self.hessian is None:
            return found
        # A bare matrix brings nothing of its objective.
        objective = self.hessian.objective
        found["units"] = objective.units
        found["mass"] = objective.mass if self.mass is None else self.mass
        if self.hessian.error > 0:
            found["relative_error"] = self.hessian.error
        return found

    def close(self) -> None:
        """Destroy matrices and pattern. Collective."""
        if self.hessian is not None:
            self.hessian.close()
        else:
            runtime.destroy(self.matrix)
        runtime.destroy(self.mass, self.preconditioner)
        if self.stored is not None:
            self.resources.free_matrix(self.stored)
        elif self.pattern is not None:
            self.pattern.free()


def open_input(call: Call, *, shell: bool = False, hermitian: bool = False, near: bool = False) -> Input:
    """Open INPUT, --mass and --preconditioner; with `shell` a problem is not assembled.

    Collective.

    Parameters
    ----------
    hermitian
        Whether matrix files may be complex where PETSc's scalars are real: `Input.copies` says whether one is.
    near
        Whether a problem may be taken as what is near and far, where --pattern says so.
    """
    arguments = call.arguments
    precision = getattr(arguments, "precision", "double")
    if not shell and precision != "double":
        raise InputError("--precision single is for the products of --shell; give that too, or leave it out")
    if not problem_files.is_problem(arguments.input):
        if shell:
            raise InputError(f"{arguments.input} is a matrix file: --shell is for problems; leave it out")
        return _read_input(call, hermitian)
    if shell:
        found = _input_of(matrix_free_problem(call, precision), call)
    elif near and arguments.pattern == "near":
        found = _input_of(near_far_problem(call), call)
    else:
        found = _input_of(assemble_problem(call), call)
    return _with_those_beside(found, _read_beside(call, None, False))


def _input_of(hessian: Hessian | MatrixFree | NearFar, call: Call) -> Input:
    """Return the input of a problem."""
    objective, timings, pattern = hessian.objective, dict.fromkeys(_STAGES, 0.0), None
    if isinstance(hessian, (Hessian, NearFar)):
        timings.update(hessian.timings)
        pattern = hessian.pattern
    return Input(hessian, hessian, pattern, objective.n, objective.name, timings, call.resources)


def _read_input(call: Call, hermitian: bool) -> Input:
    """Return the input of matrix files. Collective."""
    began = time.perf_counter()
    path = call.arguments.input
    every = flag_groups.SETTINGS | flag_groups.DERIVATIVES | flag_groups.COLORING | flag_groups.GRADIENTS
    flag_groups.refuse_flags(call.arguments, every, f"{path} is a matrix file, which is not differentiated")
    one = call.arguments.one_triangle
    stored = call.resources.read_matrix(path, call.comm, one_triangle=one, hermitian=hermitian)
    beside = _read_beside(call, stored, hermitian)
    copies = 2 if any(read is not None and read.is_complex for read in (stored, *beside.values())) else 1
    pattern, matrix = stored.pattern, stored.to_mat(doubled=copies == 2)
    timings = dict.fromkeys(_STAGES, 0.0) | {"assembly": time.perf_counter() - began}
    found = Input(matrix, None, pattern, pattern.n, path, timings, call.resources, stored, copies=copies)
    return _with_those_beside(replace(found, relative_error=stored.origin.asymmetry), beside)


def _read_beside(call: Call, first: StoredMatrix | None, hermitian: bool) -> dict[str, StoredMatrix | None]:
    """Return what --mass and --preconditioner name, by these words. Collective."""
    found: dict[str, StoredMatrix | None] = {}
    for name in ("mass", "preconditioner"):
        path: str | os.PathLike[str] | None = getattr(call.arguments, name, None)
        found[name] = (
            None
            if path is None
            else matrix_files.read_matrix(
                path, call.comm, one_triangle=call.arguments.one_triangle, beside=first, hermitian=hermitian
            )
        )
    return found


def _with_those_beside(given: Input, read: dict[str, StoredMatrix | None]) -> Input:
    """Return the input with the matrices that stand beside it. Collective."""
    found: dict[str, Any] = {}
    for name, stored in read.items():
        if stored is not None:
            found |= {name: stored.to_mat(doubled=given.copies == 2), f"{name}_origin": stored.origin}
            stored.pattern.free()
    return replace(given, **found)


@contextmanager
def drop_entries(
    arguments: argparse.Namespace, matrix: Hessian | MatrixFree | PETSc.Mat, mass: PETSc.Mat | None = None
) -> Iterator[Sparsified | None]:
    """Yield the matrix sparsified by --drop or --keep, None where neither is given.

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


@dataclass(frozen=True, eq=False)
class KnownVectors:
    """Known null vectors, near-null vectors and guesses. `close()` destroys them, collectively.

    None stands for the vectors of the problem itself.

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


def open_known_vectors(arguments: argparse.Namespace, given: Input) -> KnownVectors:
    """Read the vectors of --nullspace, --coordinates and --guess. Collective."""
    layout = given.layout
    doubled = given.copies == 2
    null: np.ndarray | None = None
    modes: np.ndarray | None = None
    names: Sequence[str] = ()
    # Nodes of which dofs are fixed or turn are for effective masses alone.
    uneven = any(getattr(arguments, name, None) is not None for name in ("dofs", "fixed"))
    if arguments.coordinates is not None and (arguments.nullspace == "rigid" or not uneven):
        nodes, dims = array_files.read_nodes(arguments.coordinates, layout)
        modes, names = rigid_body_rows(nodes, layout, dims)
    path = getattr(arguments, "guess", None)
    guess = None if path is None else array_files.read_vectors(path, layout, complex_ones=doubled)
    if arguments.nullspace == "rigid":
        if modes is None:
            raise InputError("--nullspace rigid: give the positions of the nodes with --coordinates")
        null, modes = modes, None
    elif arguments.nullspace == "constant":
        null, names = np.ones((1, layout.n_local)), ("constant",)
    elif arguments.nullspace == "none":
        null = np.empty((0, layout.n_local))
    elif arguments.nullspace is not None:
        null, names = array_files.read_vectors(arguments.nullspace, layout, complex_ones=doubled), ()
    else:
        names = () if given.hessian is None else given.hessian.objective.null_names
    made = [_vectors(rows, layout, doubled) for rows in (null, modes, guess)]
    return KnownVectors(made[0], made[1], made[2], tuple(names))


def _vectors(rows: np.ndarray | None, layout: Layout, doubled: bool) -> list[PETSc.Vec] | None:
    """Return (m, n_local) rows as Vecs, x and ix of each for the real form of a complex matrix. Collective."""
    if rows is None:
        return None
    if doubled:
        return doubled_vectors(rows, layout)
    size = (layout.n_local, layout.n)
    return [PETSc.Vec().createWithArray(np.array(row, np.float64), size=size, comm=layout.comm) for row in rows]
