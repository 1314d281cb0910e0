"""Packages that factorize for shift-and-invert: MUMPS, and CHOLMOD for what is definite on one rank."""

from __future__ import annotations

import os
import shutil

from mpi4py import MPI

from sparsehess.eigen.problem.factorization import TRANSFORMED
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import StackError
from sparsehess.runtime import PETSc, agreement, complex_scalars, destroy, has_package, log
from sparsehess.runtime.memory import free_memory

DEFAULTS = {
    "eps_type": "krylovschur",
    "st_ksp_type": "preonly",
    **TRANSFORMED,
}

# Below the spectrum, on one rank: CHOLMOD factorizes as fast as MUMPS, and solves two to eight times as fast.
# By supernodes alone, which end at a pivot that is not positive: its LDLᵀ goes through with those, and so may its
# "LLᵀ" by columns.
DEFINITE = {
    **{key: value for key, value in DEFAULTS.items() if "mumps" not in key},
    "st_pc_factor_mat_solver_type": "cholmod",
    "st_mat_cholmod_factor": "supernodal",
    "st_mat_cholmod_print": 0,
}


# MUMPS's INFOG(1) where it cannot write factors, or read them: users' guide, section 8.
ON_DISK = -90

# From this size on MUMPS's analysis is asked whether a factorization fits.
LARGE = 100_000


def fits(problem: EigenProblem) -> bool:
    """Return whether a factorization fits into what ranks have left; nobody asks of a small one. Collective."""
    if problem.n < LARGE or not has_package("mumps"):
        return True
    return problem.factor_cost.most <= free_memory(problem.comm)


def options_on_disk(problem: EigenProblem) -> dict:
    """Return the options by which factors that do not fit into memory go to disk; none where they do.

    Collective. Into the folder MUMPS_OOC_TMPDIR, or /tmp: MUMPS's own.

    Raises
    ------
    StackError
        That folder has no room for them.
    """
    if fits(problem):
        return {}
    cost = problem.factor_cost
    _require_room(problem.comm, cost.entries * PETSc.ScalarType().itemsize)
    if problem.comm.rank == 0:
        log.warning(
            "factors of %.1f GiB on a rank do not fit into memory: they go to disk (MUMPS_OOC_TMPDIR says where)",
            cost.most / 2**30,
        )
    return {"st_mat_mumps_icntl_22": 1}


def folder_of_factors(comm: MPI.Comm) -> str:
    """Return what to do where MUMPS cannot write factors to disk, with what is left there. Collective."""
    folder = _folder()
    try:
        there = f"has {shutil.disk_usage(folder).free / 2**30:.2g} GiB left"
    except OSError as error:
        there = f"cannot be used ({error.strerror})"
    places = sorted(set(comm.allgather(f"{folder} {there}")))
    return (
        f"it cannot write factors to disk: {'; '.join(places)}; set MUMPS_OOC_TMPDIR to a folder with room, and "
        "remove files mumps_* that are left"
    )


def _folder() -> str:
    return os.environ.get("MUMPS_OOC_TMPDIR") or "/tmp"


def _require_room(comm: MPI.Comm, size: int) -> None:
    """Refuse factors of so many bytes on all ranks together that the disks of their nodes have no room for.

    Collective. MUMPS must not find out: what writes for it may end then, and it waits for ever.
    """
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    needed, folder = size / comm.size * node.size, _folder()
    node.Free()
    with agreement(comm):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise StackError(
                f"factors that do not fit into memory go to disk, but {folder} cannot be used "
                f"({error.strerror}): set MUMPS_OOC_TMPDIR to another folder, or take method lobpcg"
            ) from error
        if needed > free:
            raise StackError(
                f"factors do not fit into memory, and {folder} has {free / 2**30:.2g} of the "
                f"{needed / 2**30:.2g} GiB that they take: set MUMPS_OOC_TMPDIR to a folder with room, "
                "or take method lobpcg"
            )


def has_cholmod(comm: MPI.Comm) -> bool:
    """Say whether CHOLMOD can factorize real matrices for these ranks. Not collective."""
    return comm.size == 1 and has_package("suitesparse") and not complex_scalars()


def upper_half(problem: EigenProblem, shift: float, out: PETSc.Mat) -> PETSc.Mat:
    """Return the upper half of A - shift M, on one rank, as CHOLMOD stores it; in `out` unless that is empty.

    PETSc would extract it from the whole for each factorization, and never free it where that fails.
    """
    A, M = problem.A, problem.M
    plain = A.getType() in ("seqaij", "seqsbaij") and A.getBlockSize() == 1
    if M is None and plain and A.isSymmetricKnown() == (True, True):
        half = A.convert("sbaij", out)
        half.shift(-shift)
        return half
    csr = A.getValuesCSR()  # without the blocks that a matrix may be stored in, or have the size of
    whole = PETSc.Mat().createAIJ(A.getSizes(), csr=csr, comm=A.comm)
    if M is None:
        whole.shift(-shift)
    else:
        whole.axpy(-shift, M)
    whole.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    half = whole.convert("sbaij", out)
    destroy(whole)
    return half
