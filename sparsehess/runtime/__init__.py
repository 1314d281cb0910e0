"""The one room that starts PETSc, and the manners of a parallel program.

`PETSc` and `SLEPc` are taken from here by every other module: the first to ask initialises them,
unless the host program has done so. Agreeing on failure stands here too: whatever can fail on
one rank goes through `agreement`, so that all ranks raise together or none does.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from contextlib import contextmanager

from sparsehess import errors
from sparsehess.runtime import citations

log = logging.getLogger("sparsehess")

# Seconds a failed rank waits for the others before it concludes that they are stuck in a
# collective call of the user's own, which only ending the whole job can resolve.
PATIENCE = 5.0

# Set by the command line to end the job; a host program keeps None and decides for itself.
on_stuck = None


def initialize(options=()) -> None:
    """Initialise PETSc and SLEPc with these command-line options, unless they are already.

    Collective on the world communicator the first time.

    Raises
    ------
    StackError
        petsc4py or slepc4py cannot be imported.
    """
    try:
        import petsc4py
        import slepc4py
    except ImportError as error:
        raise errors.StackError(
            f"{error}: sparsehess needs petsc4py and slepc4py; on Debian: "
            "apt-get install python3-slepc4py, elsewhere: pip install slepc4py"
        ) from error
    arguments = ["sparsehess", "-no_signal_handler", *options]
    try:
        petsc4py.init(arguments)
        slepc4py.init(arguments)
        from petsc4py import PETSc
        from slepc4py import SLEPc
    except (ImportError, ValueError) as error:
        import numpy

        other = "numpy<2" if int(numpy.__version__.split(".")[0]) > 1 else "numpy>=2"
        raise errors.StackError(
            f"petsc4py does not load beside numpy {numpy.__version__} ({error}): the usual reason is that it was "
            f"built for another major version; pip install '{other}'"
        ) from error
    globals().update(PETSc=PETSc, SLEPc=SLEPc)
    citations.tell()


def _petsc():
    return globals().get("PETSc") or __getattr__("PETSc")


def __getattr__(name: str):
    if name in ("PETSc", "SLEPc"):
        initialize()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- communicators and agreement -------------------------------------------------------


def communicator(comm=None):
    """Return our own duplicate of an mpi4py or petsc4py communicator; None is this process alone.

    Collective the first time for a communicator; afterwards the duplicate is found with it, and it is
    freed with it. What a host or a user's function calls on theirs can never be mistaken for what we call on ours.
    """
    from mpi4py import MPI

    if comm is None:
        comm = MPI.COMM_SELF
        if "PETSc" not in globals():  # nothing to hold, and not every rank need be here to start it
            return comm
    if not isinstance(comm, MPI.Comm):
        if not hasattr(comm, "tompi4py"):
            raise errors.InputError(f"comm must be an mpi4py or petsc4py communicator, not {type(comm).__name__}")
        comm = comm.tompi4py()
    for keyval in _keyvals.values():
        known = comm.Get_attr(keyval)
        if known is not None:
            return known[0]
    if not _keyvals:
        _keyvals["theirs"] = MPI.Comm.Create_keyval(delete_fn=_freed)
        _keyvals["ours"] = MPI.Comm.Create_keyval()
    ours = comm if comm == MPI.COMM_SELF else comm.Dup()
    # PETSc keeps a communicator of its own beside each: held, else it would come and go with our objects.
    inner = _petsc().Comm(ours).duplicate()
    pair = (ours, inner)
    inner.tompi4py().Set_attr(_keyvals["ours"], pair)
    ours.Set_attr(_keyvals["ours"], pair)
    if comm != ours:
        comm.Set_attr(_keyvals["theirs"], pair)
    return ours


_keyvals: dict[str, int] = {}  # made once, when MPI is up


def _freed(comm, keyval, pair) -> None:
    """Free our duplicate with the communicator that it was made for."""
    ours, inner = pair
    inner.destroy()
    ours.Free()


def child(comm, name, make):
    """Return a communicator that make() derives from one of ours: made once for each name, freed with ours.

    Collective the first time for a name. MPI has no more than some thousands: who needs another one again and
    again gets the same.

    Parameters
    ----------
    comm
        What `communicator` has returned.
    """
    from mpi4py import MPI

    if not _children:
        _children.append(MPI.Comm.Create_keyval(delete_fn=_free_children))
    known = comm.Get_attr(_children[0])
    if known is None:
        known = {}
        comm.Set_attr(_children[0], known)
    if known.get(name, MPI.COMM_NULL) == MPI.COMM_NULL:
        known[name] = make()
    return known[name]


_children: list[int] = []  # the key of the attribute, made once


def forget_children(comm) -> None:
    """Have new ones made from now on: on those so far somebody has failed, and messages may be under way.

    Not collective, but for all ranks or none.
    """
    if _children and (known := comm.Get_attr(_children[0])):
        known.clear()


def _free_children(comm, keyval, known) -> None:
    """Free what was derived from a communicator with it; when MPI ends PETSc has ended before."""
    from mpi4py import MPI

    for one in known.values() if comm != MPI.COMM_SELF else ():
        if one != MPI.COMM_NULL:
            one.Free()


def raise_together(comm, error: Exception | None) -> None:
    """Raise on every rank if any rank brings an error; return on every rank if none does.

    Collective. The error of the lowest failing rank wins; the others chain their own to it.
    """
    if comm.size == 1:
        if error is not None:
            raise error
        return
    from mpi4py import MPI

    import numpy as np

    mine = np.array([comm.size if error is None else comm.rank], np.int64)
    first = np.empty(1, np.int64)
    request = comm.Iallreduce(mine, first, op=MPI.MIN)
    if error is None:
        request.Wait()
    else:
        wait_for_the_others(comm, request.Test, error)
    if first[0] == comm.size:
        return
    told = comm.bcast(errors.describe(error, comm.rank) if comm.rank == first[0] else None, root=int(first[0]))
    if comm.rank == first[0]:
        raise error
    raise errors.rebuild(*told) from error


def wait_for_the_others(comm, done, error: Exception) -> None:
    """Wait on a rank that failed until done() is true; where the others are stuck, end the job if that is ours.

    Parameters
    ----------
    done
        Says whether they have come; called again and again.
    """
    deadline, told = time.monotonic() + PATIENCE, False
    while not done():
        if not told and time.monotonic() > deadline:
            if on_stuck is not None:
                on_stuck(comm, error)
            log.error("rank %d failed and waits for ranks that are in another call: %s", comm.rank, error)
            told = True
        time.sleep(0.001)


@contextmanager
def agreement(comm):
    """Run the block on every rank; if it fails on any rank, raise on all of them.

    Collective. The block itself must not call anything collective that a failure could skip.
    """
    error = None
    try:
        yield
    except Exception as caught:  # whatever it is, the other ranks must hear of it
        error = caught
    raise_together(comm, error)


def on_root(comm, function, *arguments):
    """Return function(*arguments), evaluated on rank 0, on every rank; its error on every rank too.

    Collective. Meant for small results: the value is pickled between our own ranks.
    """
    value = None
    with agreement(comm):
        if comm.rank == 0:
            value = function(*arguments)
    return comm.bcast(value, root=0)


# --- PETSc manners ---------------------------------------------------------------------


def destroy(*objects) -> None:
    """Destroy PETSc objects in this order, passing over None.

    Collective on the objects.
    """
    for item in objects:
        if item is not None:
            item.destroy()


@contextmanager
def inserted_options(prefix: str, options: dict):
    """Put options under a prefix into PETSc's database for the length of the block.

    Logically collective.
    """
    database = _petsc().Options()
    for key, value in options.items():
        database.setValue(prefix + key, _as_text(value))
    try:
        yield
    finally:
        for key in options:
            database.delValue(prefix + key)


# Options that PETSc asks for when it ends, and not before.
_AT_THE_END = ("citations", "get_total_flops", "mpidump", "options_left", "options_view")


def option_was_used(name: str) -> bool:
    """Return whether anything has asked for an option that is in PETSc's database now, or will when PETSc ends.

    Not collective.
    """
    if name in _AT_THE_END:
        return True
    petsc = _petsc()
    if hasattr(petsc.Options, "used"):
        return petsc.Options().used(name)
    import ctypes  # petsc4py before 3.19 does not expose PetscOptionsUsed

    answer = ctypes.c_int(0)
    ctypes.CDLL(petsc.__file__).PetscOptionsUsed(None, name.encode(), ctypes.byref(answer))
    return bool(answer.value)


def _as_text(value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(map(_as_text, value))
    return repr(float(value)) if isinstance(value, float) else str(value)  # numpy's floats name their type


def error_code(error: BaseException) -> int | None:
    """Return PETSc's code of an error that petsc4py or slepc4py raised, None for any other. Not collective."""
    cause = error.__cause__ if isinstance(error, SystemError) and error.__cause__ else error
    return getattr(cause, "ierr", None)


@contextmanager
def readable_errors(doing: str, advice: str = ""):
    """Turn a bare PETSc error code into a sentence.

    Not collective. PETSc raises on all ranks of a collective call alike.
    """
    try:
        yield
    except errors.SparseHessError:
        raise
    except (RuntimeError, SystemError) as error:
        code = error_code(error)
        if code is None:
            raise
        import petsc4py

        text = _ERROR_TEXT.get(code, "")
        detail = " ".join(str(error.__cause__ or error).split())
        raise errors.StackError(
            f"PETSc {petsc4py.__version__} stopped while {doing}: {text or detail}"
            + (f"; {advice}" if advice else "")
        ) from error


# PETSc's code where a library that it calls has failed: MUMPS, LAPACK.
FAILED = 76

# PETSc's codes where a matrix, or a shell in Python, has no such operation.
UNSUPPORTED = (56, 83)

_ERROR_TEXT = {
    55: "out of memory",
    56: "no support for this operation in this build",
    60: "nonconforming sizes",
    65: "the file cannot be opened",
    66: "the file cannot be read",
    67: "the file cannot be written",
    71: "zero pivot in the factorization",
    FAILED: "an external library (MUMPS) failed",
    92: "no factorization of this kind in this build; MUMPS is needed",
}


def aij(layout, indptr, indices, values):
    """Return the Hermitian AIJ matrix of local CSR rows with global columns. The caller destroys it.

    Collective.
    """
    petsc = _petsc()
    csr = (indptr.astype(petsc.IntType), indices.astype(petsc.IntType), values)
    matrix = petsc.Mat().createAIJ(((layout.n_local, layout.n),) * 2, csr=csr, comm=layout.comm)
    matrix.setOption(petsc.Mat.Option.HERMITIAN, True)  # of real scalars the same as symmetric
    return matrix


# --- the kind of scalars ---------------------------------------------------------------

# What Debian calls the packages of either build.
_DEBIAN = {True: "python3-slepc4py-complex", False: "python3-slepc4py-real"}


def complex_scalars() -> bool:
    """Return whether PETSc's scalars are complex. Not collective."""
    return issubclass(_petsc().ScalarType, complex)


def another_build(needs_complex: bool) -> str:
    """Return how to get a PETSc with complex scalars, or one with real ones. Not collective."""
    kind = "complex" if needs_complex else "real"
    return f"a PETSc with {kind} scalars (Debian's {_DEBIAN[needs_complex]}; set PETSC_DIR and SLEPC_DIR to it)"


def require_real(what: str) -> None:
    """Raise StackError where scalars are complex.

    Not collective; the same on every rank.

    Parameters
    ----------
    what
        What is asked for, the subject of the sentence.
    """
    if complex_scalars():
        raise errors.StackError(f"scalars of this PETSc are complex: {what} needs {another_build(False)}")


def optional(module: str, purpose: str, extra: str):
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
        raise errors.StackError(f"{purpose} needs {module}: pip install sparsehess[{extra}]") from error


def has_package(name: str) -> bool:
    """Return whether PETSc was built with an external package.

    Not collective.
    """
    has = _petsc().Sys.hasExternalPackage
    return bool(has(name) or (name in _PARTS and all(map(has, _PARTS[name]))))


# Packages that newer PETScs know by their parts alone.
_PARTS = {"suitesparse": ("cholmod", "umfpack")}


def without_gaps(basis, rows: int) -> None:
    """Have a SLEPc basis that has no size yet store each column right behind the one before.

    Not collective. Newer SLEPcs align columns; PETSc's solves of several right sides with MUMPS overlook the gaps.

    Parameters
    ----------
    rows
        Of this rank.
    """
    if hasattr(basis, "setLeadingDimension"):
        basis.setLeadingDimension(max(rows, 1))


def threads() -> int:
    """Return how many threads BLAS uses on each rank: as it says itself, else as it was told to.

    Not collective.
    """
    from sparsehess.runtime import blas

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

    import sparsehess

    petsc = _petsc()
    slepc = globals().get("SLEPc") or __getattr__("SLEPc")
    dotted = lambda version: ".".join(map(str, version))  # noqa: E731
    return {
        "sparsehess": sparsehess.__version__,
        "petsc": dotted(petsc.Sys.getVersion()),
        "slepc": dotted(slepc.Sys.getVersion()),
        "petsc4py": petsc4py.__version__,
        "slepc4py": slepc4py.__version__,
        "mpi4py": mpi4py.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
