"""PETSc and SLEPc: their start, options, errors and packages.

`PETSc` and `SLEPc` are attributes of this module, started when they are first asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparsehess import errors
from sparsehess.runtime import citations
from sparsehess.runtime.error_agreement import log

if TYPE_CHECKING:
    from slepc4py import SLEPc


def initialize(options: Iterable[str] = ()) -> None:
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
    citations.register_citations()


def is_started() -> bool:
    """Return whether PETSc has been started through this module. Not collective."""
    return "PETSc" in globals()


def _petsc() -> Any:
    return globals().get("PETSc") or __getattr__("PETSc")


def __getattr__(name: str) -> Any:
    if name in ("PETSc", "SLEPc"):
        initialize()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def destroy(*objects: Any) -> None:
    """Destroy PETSc objects in this order, passing over None.

    Collective on the objects. Never raises: what cannot be destroyed is left behind, and told by -v. An error
    within a call of PETSc leaves objects lent out and never given back, and it is the one to tell, whether it is
    still on its way or was taken before. Solvers are emptied first: a rank may hold a reference to a part of one,
    and what the part holds would be destroyed on the other ranks alone.
    """
    for item in objects:
        if item is None:
            continue
        try:
            if item and hasattr(item, "reset"):
                item.reset()
            item.destroy()
        except Exception as error:  # the others are destroyed all the same
            log.debug("left behind: %s", " ".join(str(error).split()))
            _leave_behind(item)


def collect_garbage(comm: Any) -> None:
    """Destroy what Python has forgotten on all ranks, such as what a traceback held. Collective.

    PETSc keeps such objects of several ranks until all are asked, for each rank forgets at its own time.
    """
    if hasattr(_petsc(), "garbage_cleanup"):
        _petsc().garbage_cleanup(comm)


def _leave_behind(item: Any) -> None:
    """Keep an object that is half destroyed from being destroyed again when Python forgets it. Not collective."""
    for _ in range(2):
        item.incRef()


@contextmanager
def inserted_options(prefix: str, options: Mapping[str, object]) -> Iterator[None]:
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
        return bool(petsc.Options().used(name))
    answer = ctypes.c_int(0)  # petsc4py before 3.19 does not expose PetscOptionsUsed
    ctypes.CDLL(petsc.__file__).PetscOptionsUsed(None, name.encode(), ctypes.byref(answer))
    return bool(answer.value)


def _as_text(value: object) -> str:
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
def readable_errors(doing: str, advice: str = "") -> Iterator[None]:
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


def has_package(name: str) -> bool:
    """Return whether PETSc was built with an external package.

    Not collective.
    """
    has = _petsc().Sys.hasExternalPackage
    return bool(has(name) or (name in _PARTS and all(map(has, _PARTS[name]))))


# Packages that newer PETScs know by their parts alone.
_PARTS = {"suitesparse": ("cholmod", "umfpack")}


def without_gaps(basis: SLEPc.BV, rows: int) -> None:
    """Have a SLEPc basis that has no size yet store each column right behind the one before.

    Not collective. Newer SLEPcs align columns; PETSc's solves of several right sides with MUMPS overlook the gaps.

    Parameters
    ----------
    rows
        Of this rank.
    """
    if hasattr(basis, "setLeadingDimension"):
        basis.setLeadingDimension(max(rows, 1))
