"""MPI and PETSc, and the manners of a parallel program.

Always: PETSc starts when `PETSc` or `SLEPc` is first taken from here; the caller's communicator is duplicated;
what can fail on one rank goes through `agreement`, so that all ranks raise together or none does; results
do not depend on the number of ranks. Imports errors alone.
"""

from typing import TYPE_CHECKING

from sparsehess.runtime.lazy import attributes

if TYPE_CHECKING:
    from petsc4py import PETSc
    from slepc4py import SLEPc

    from sparsehess.runtime.communicators import child, communicator, forget_children
    from sparsehess.runtime.error_agreement import agreement, log, on_root, raise_together, wait_for_others
    from sparsehess.runtime.guards import Guard, JobEnd, guard_of, set_guard, share_guard, use_guard
    from sparsehess.runtime.kept_errors import forget_frames
    from sparsehess.runtime.petsc import (
        FAILED,
        UNSUPPORTED,
        another_build,
        collect_garbage,
        complex_scalars,
        destroy,
        error_code,
        has_package,
        initialize,
        inserted_options,
        option_was_used,
        readable_errors,
        require_real,
        without_gaps,
    )
    from sparsehess.runtime.petsc_callbacks import called_back, has_failed, held_errors, raises_together
    from sparsehess.runtime.petsc_matrices import aij, diagonal_of, is_assembled
    from sparsehess.runtime.stack import optional, threads, versions

_HOME = {
    **dict.fromkeys(("child", "communicator", "forget_children"), "sparsehess.runtime.communicators"),
    **dict.fromkeys(
        ("agreement", "log", "on_root", "raise_together", "wait_for_others"), "sparsehess.runtime.error_agreement"
    ),
    **dict.fromkeys(
        ("Guard", "JobEnd", "guard_of", "set_guard", "share_guard", "use_guard"), "sparsehess.runtime.guards"
    ),
    **dict.fromkeys(
        (
            "FAILED",
            "PETSc",
            "SLEPc",
            "UNSUPPORTED",
            "another_build",
            "complex_scalars",
            "collect_garbage",
            "destroy",
            "error_code",
            "has_package",
            "initialize",
            "inserted_options",
            "option_was_used",
            "readable_errors",
            "require_real",
            "without_gaps",
        ),
        "sparsehess.runtime.petsc",
    ),
    "forget_frames": "sparsehess.runtime.kept_errors",
    **dict.fromkeys(
        ("called_back", "has_failed", "held_errors", "raises_together"), "sparsehess.runtime.petsc_callbacks"
    ),
    **dict.fromkeys(("aij", "diagonal_of", "is_assembled"), "sparsehess.runtime.petsc_matrices"),
    **dict.fromkeys(("optional", "threads", "versions"), "sparsehess.runtime.stack"),
}

__all__ = [
    "raises_together",
    "held_errors",
    "has_failed",
    "forget_frames",
    "called_back",
    "FAILED",
    "Guard",
    "JobEnd",
    "PETSc",
    "SLEPc",
    "UNSUPPORTED",
    "agreement",
    "aij",
    "another_build",
    "child",
    "communicator",
    "complex_scalars",
    "collect_garbage",
    "destroy",
    "diagonal_of",
    "error_code",
    "forget_children",
    "guard_of",
    "has_package",
    "initialize",
    "inserted_options",
    "is_assembled",
    "log",
    "on_root",
    "option_was_used",
    "optional",
    "raise_together",
    "readable_errors",
    "require_real",
    "set_guard",
    "share_guard",
    "threads",
    "use_guard",
    "versions",
    "wait_for_others",
    "without_gaps",
]

__getattr__ = attributes(globals(), _HOME)
