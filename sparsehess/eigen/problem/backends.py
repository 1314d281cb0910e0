"""Where products and vectors live: PETSc's types for CPUs and GPUs."""

from __future__ import annotations

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError, StackError
from sparsehess.runtime import PETSc, has_package

# Type of matrices (PETSc derives that of vectors from it), and the package that PETSc needs for it.
BACKENDS = {"cpu": (None, None), "cuda": ("aijcusparse", "cuda"), "hip": ("aijhipsparse", "hip"),
            "kokkos": ("aijkokkos", "kokkos_kernels")}  # fmt: skip


def check_backend(name: str) -> None:
    """Raise an error for a back end that is none, or that this PETSc has not.

    Not collective; the same on every rank.

    Raises
    ------
    InputError
        No such back end.
    StackError
        PETSc was built without it.
    """
    if name not in BACKENDS:
        raise InputError(f"backend={name!r} is none of {', '.join(BACKENDS)}")
    kind, package = BACKENDS[name]
    if kind is not None and not has_package(package):
        raise StackError(
            f"this PETSc was built without {package}, which the back end {name} needs: configure PETSc "
            f"--with-{package.split('_')[0]}, or take the back end cpu"
        )


def on_backend(problem: EigenProblem, name: str) -> EigenProblem:
    """Return the problem with matrices and vectors on a back end; itself for the CPU.

    Collective. What is returned owns the copies only; close it before the problem.

    Raises
    ------
    InputError
        A matrix-free Hessian, whose products are where its function makes them.
    """
    check_backend(name)
    kind, _ = BACKENDS[name]
    if kind is None:
        return problem
    if not problem.assembled:
        raise InputError(f"backend {name}: products of a matrix-free Hessian are where its function makes them")
    owned: list = []

    def moved(matrix: PETSc.Mat | None) -> PETSc.Mat | None:
        if matrix is not None:
            matrix = matrix.convert(kind, PETSc.Mat())
            owned.append(matrix)
        return matrix

    A = moved(problem.A)

    def placed(vectors: list) -> list:
        copies = [A.createVecRight() for _ in vectors]
        for copy, vector in zip(copies, vectors, strict=True):
            copy.setArray(vector.getArray(readonly=True))
        owned.extend(copies)
        return copies

    return EigenProblem(
        A=A,
        M=moved(problem.M),
        null=placed(problem.null),
        near_null=placed(problem.near_null),
        preconditioner=moved(problem.preconditioner),
        guess=placed(problem.guess),
        relative_error=problem.relative_error,
        units=problem.units,
        owned=owned,
    )
