"""The stack: optional packages, versions, threads of the BLAS."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from types import ModuleType

from sparsehess import errors
from sparsehess.runtime import blas, petsc
from sparsehess.runtime.version import __version__


def optional(module: str, purpose: str, extra: str) -> ModuleType:
    """Return an optional package, imported now.

    Not collective.

    Raises
    ------
    StackError
        It is missing; the message says what it is for and how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise errors.StackError(f"{purpose} needs {module}: pip install 'sparsehess[{extra}]'") from error


def threads() -> int:
    """Return how many threads BLAS uses on each rank: as it says itself, else as it was told to.

    Not collective.
    """
    said = blas.threads()
    if said is not None:
        return said
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(value) if value.isdigit() else (os.cpu_count() or 1)


def versions() -> dict[str, str]:
    """Return the versions of the stack.

    Not collective.
    """
    import mpi4py
    import petsc4py
    import slepc4py

    import numpy
    import scipy

    return {
        "sparsehess": __version__,
        "petsc": _dotted(petsc.PETSc.Sys.getVersion()),
        "slepc": _dotted(petsc.SLEPc.Sys.getVersion()),
        "petsc4py": petsc4py.__version__,
        "slepc4py": slepc4py.__version__,
        "mpi4py": mpi4py.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "python": _dotted(sys.version_info[:3]),
    }


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))
