"""Where products and vectors live: PETSc's types for CPUs and GPUs."""

from __future__ import annotations

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError, StackError, none_of
from sparsehess.runtime import PETSc, has_package

# Type of matrices (PETSc derives that of vectors from it), and the package that PETSc needs for it.
_DEVICES = {
    "cuda": ("aijcusparse", "cuda"),
    "hip": ("aijhipsparse", "hip"),
    "kokkos": ("aijkokkos", "kokkos_kernels"),
}
BACKENDS = ("cpu", *_DEVICES)


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
        raise none_of(f"backend={name!r}", name, BACKENDS)
    if name == "cpu":
        return
    _, package = _DEVICES[name]
    if not has_package(package):
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
    if name == "cpu":
        return problem
    kind, _ = _DEVICES[name]
    if not problem.assembled:
        raise InputError(f"backend {name}: products of a matrix-free Hessian are where its function makes them")
    owned: list = []

    def convert(matrix: PETSc.Mat) -> PETSc.Mat:
        owned.append(matrix.convert(kind, PETSc.Mat()))
        return owned[-1]

    A, near = convert(problem.A), problem.preconditioner

    def copy(vectors: list[PETSc.Vec]) -> list[PETSc.Vec]:
        copies = [A.createVecRight() for _ in vectors]
        for one, vector in zip(copies, vectors, strict=True):
            one.setArray(vector.getArray(readonly=True))
        owned.extend(copies)
        return copies

    placed = EigenProblem(
        A=A,
        M=None if problem.M is None else convert(problem.M),
        null=copy(problem.null),
        projected=problem.projected,
        near_null=copy(problem.near_null),
        preconditioner=convert(near) if isinstance(near, PETSc.Mat) else near,
        guess=copy(problem.guess),
        relative_error=problem.relative_error,
        units=problem.units,
        owned=owned,
    )
    return problem.share_facts(placed)
