"""Build the shared library of the C ABI: `python -m sparsehess.capi.build OUTDIR`.

Beside `libsparsehess.so` it puts `sparsehess.h` and `sparsehess.f90`, the Fortran module, which the host
compiles with its own compiler. The library starts the interpreter that has built it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from sparsehess.errors import DONE, SparseHessError, StackError

HERE = Path(__file__).parent
LIBRARY = "libsparsehess.so"


def build(folder: str | Path, mpicc: str = "mpicc") -> Path:
    """Build the library in a folder, which is made; return its path.

    Not collective.

    Parameters
    ----------
    folder
        Where library, header and Fortran module go.
    mpicc
        The compiler wrapper of the MPI that mpi4py was built with.

    Raises
    ------
    StackError
        No compiler, no headers, or a Python without a shared library.
    """
    library, headers = sysconfig.get_config_var("LDLIBRARY") or "", sysconfig.get_path("include")
    wanting = _wanting(mpicc, library, Path(headers))
    if wanting:
        needed = " ".join(dict.fromkeys(package for _, package in wanting))
        raise StackError(
            f"the library cannot be built: {', '.join(what for what, _ in wanting)}. On Debian: "
            f"apt-get install {needed}; --mpicc names another compiler wrapper"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = sysconfig.get_config_var("LIBDIR")
    made = folder / LIBRARY
    unfinished = made.with_name(f".{LIBRARY}.{os.getpid()}")  # nobody ever links half a library
    python = sys.executable.replace("\\", "\\\\").replace('"', '\\"')
    command = [
        *(mpicc, "-O2", "-Wall", "-fPIC", "-shared", f"-I{headers}", f'-DSPARSEHESS_PYTHON="{python}"'),
        *(str(HERE / "embedding.c"), "-o", str(unfinished), f"-Wl,-soname,{LIBRARY}"),
        *(f"-L{place}", f"-Wl,-rpath,{place}", "-l" + library[3 : library.index(".so")], "-ldl"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"{mpicc} failed: {_explained(done.stderr)}")
        unfinished.replace(made)
    finally:
        unfinished.unlink(missing_ok=True)
    for name in ("sparsehess.h", "sparsehess.f90"):
        shutil.copyfile(HERE / name, folder / name)
    return made


# What a compiler says of something that is missing, and the package that has it.
_SIGNS = {
    "mpi.h": "libopenmpi-dev",
    "Python.h": "python3-dev",
    "-lpython": "libpython3-dev",
    "-lmpi": "libopenmpi-dev",
    "stdio.h": "libc6-dev",
    "specified compiler": "gcc",
}


def _wanting(mpicc: str, library: str, headers: Path) -> list[tuple[str, str]]:
    """Return (what is missing, its Debian package). Not collective."""
    found = []
    if shutil.which(mpicc) is None:
        found.append((f"there is no {mpicc}", "libopenmpi-dev"))
    if not (headers / "Python.h").exists():
        found.append((f"there is no Python.h in {headers}", "python3-dev"))
    if not library.startswith("libpython") or ".so" not in library:
        found.append((f"{sys.executable} has no shared library (--enable-shared)", "libpython3-dev"))
    return found


def _explained(said: str) -> str:
    """Return what a compiler has said, with the package that has what it lacks. Not collective."""
    packages = [package for sign, package in _SIGNS.items() if sign in said]
    return f"{said.strip()}; on Debian: apt-get install {packages[0]}" if packages else said.strip()


def fortran_advice(mpifort: str = "mpifort") -> str:
    """Return what is missing for a host in Fortran, which compiles `sparsehess.f90`; empty where nothing is.

    Not collective.
    """
    if shutil.which(mpifort) is None:
        return f"there is no {mpifort} for hosts in Fortran: apt-get install libopenmpi-dev gfortran"
    done = subprocess.run([mpifort, "--version"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{mpifort} has no compiler for hosts in Fortran: apt-get install gfortran"
    return ""


def main(words: Sequence[str] | None = None) -> int:
    """Build as the command line says; return the exit status.

    Not collective.
    """
    parser = argparse.ArgumentParser(prog="python -m sparsehess.capi.build", description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="OUTDIR")
    parser.add_argument("--mpicc", default=os.environ.get("MPICC", "mpicc"), help="compiler wrapper (%(default)s)")
    arguments = parser.parse_args(words)
    try:
        print(build(arguments.folder, arguments.mpicc))
        advice = fortran_advice()
        if advice:
            print(f"sparsehess: {advice}", file=sys.stderr)
    except (SparseHessError, OSError) as error:
        print(f"sparsehess: {error}", file=sys.stderr)
        return StackError.status
    return DONE


if __name__ == "__main__":
    sys.exit(main())
