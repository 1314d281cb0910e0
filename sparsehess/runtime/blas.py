"""The BLAS and LAPACK that PETSc runs on, by where their routines stand in this process."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_PETSC = re.compile(r"/(libpetsc|PETSc\.)[^/]*\.so[^/]*$")  # the library, or the extension that it is part of

# Of each library a word in the names of its files or their folder, and what tells its version and kernels.
_LIBRARIES = {
    "OpenBLAS": ("openblas", "openblas_get_config", "openblas_get_corename"),
    "BLIS": ("blis", "bli_info_get_version_str", None),
    "FlexiBLAS": ("flexiblas", None, None),
    "MKL": ("mkl", None, None),
    "ATLAS": ("atlas", None, None),
    "ArmPL": ("armpl", None, None),
    "NVPL": ("nvpl", None, None),
    "ESSL": ("essl", None, None),
}
REFERENCE = "reference BLAS"
_OF_REFERENCE = re.compile(r"lib(ref|f77)?blas\.")


class _Place(ctypes.Structure):
    """What dladdr(3) tells of an address."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def loaded_blas() -> dict:
    """Tell which BLAS PETSc has loaded.

    Not collective. Alternatives of the distribution, LD_LIBRARY_PATH and LD_PRELOAD all show in it: it goes by
    addresses in the process, not by names of packages. What NumPy and SciPy bring for themselves does not count.

    Returns
    -------
    dict
        `name` (OpenBLAS, BLIS, MKL, …, `reference BLAS`, or the file's name); `version` and `kernels` (the
        processor that they are for), each None where the library does not tell; the paths `library` and `lapack`.
        All are None where the process does not show its libraries.
    """
    library, lapack = _library_of("dgemm_"), _library_of("dsyevr_")
    facts = {"name": None, "version": None, "kernels": None, "library": library, "lapack": lapack}
    if library is None:
        return facts
    near = "/".join(Path(library).parts[-2:]).lower()  # file and folder: what is above may be called anything
    for name, (word, version, kernels) in _LIBRARIES.items():
        if word in near:
            number = re.search(r"\d+(\.\d+)+", _told(library, version))
            return {
                **facts,
                "name": name,
                "version": number and number.group(),
                "kernels": _told(library, kernels) or None,
            }
    file = Path(library).name
    return {**facts, "name": REFERENCE if _OF_REFERENCE.match(file) else file}


def threads() -> int | None:
    """Return how many threads the BLAS of PETSc uses.

    Not collective. OpenBLAS tells: it heeds OPENBLAS_NUM_THREADS before OMP_NUM_THREADS, its serial build neither.

    Returns
    -------
    int or None
        None where the library does not tell.
    """
    library = _library_of("dgemm_")
    if library is None:
        return None
    try:
        return int(ctypes.CDLL(library).openblas_get_num_threads())
    except (AttributeError, OSError):  # OSError: an upgrade has taken the file from under this process
        return None


def _library_of(routine: str) -> str | None:
    """Return the path of the library from which PETSc takes a routine."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return None
    paths = {line[line.index("/") :] for line in mapped.splitlines() if "/" in line}
    # As the loader looks: what all may use first (LD_PRELOAD among it), then what the library itself asks for.
    for path in [None, *sorted(filter(_PETSC.search, paths), key=lambda path: "/libpetsc" not in path)]:
        try:
            address = ctypes.cast(getattr(ctypes.CDLL(path), routine), ctypes.c_void_p)
        except (AttributeError, OSError):
            continue
        place, find = _Place(), ctypes.CDLL(None).dladdr
        find.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Place)]
        if find(address, ctypes.byref(place)) and place.file:
            return str(Path(place.file.decode(errors="surrogateescape")).resolve())
    return None


def _told(library: str, function: str | None) -> str:
    """Return the text that a function of a library returns; empty where there is none."""
    call = getattr(ctypes.CDLL(library), function, None) if function else None
    if call is None:
        return ""
    call.restype, call.argtypes = ctypes.c_char_p, []
    return (call() or b"").decode(errors="replace")
