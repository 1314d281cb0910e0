"""Build the shared library of the C ABI: `python -m sparsehess.hosts.capi.build OUTDIR`.

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
    if not library.startswith("libpython") or ".so" not in library:
        raise StackError(
            f"{sys.executable} has no shared library: take one built with --enable-shared (Debian: libpython3-dev)"
        )
    if not Path(headers, "Python.h").exists():
        raise StackError(f"no Python.h in {headers}: apt-get install python3-dev")
    if shutil.which(mpicc) is None:
        raise StackError(f"there is no {mpicc}: apt-get install libopenmpi-dev, or name another with --mpicc")
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
            raise StackError(f"{mpicc} failed: {done.stderr.strip()}")
        unfinished.replace(made)
    finally:
        unfinished.unlink(missing_ok=True)
    for name in ("sparsehess.h", "sparsehess.f90"):
        shutil.copyfile(HERE / name, folder / name)
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Build as the command line says; return the exit status.

    Not collective.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sparsehess.hosts.capi.build", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", metavar="OUTDIR")
    parser.add_argument("--mpicc", default=os.environ.get("MPICC", "mpicc"), help="compiler wrapper (%(default)s)")
    arguments = parser.parse_args(words)
    try:
        print(build(arguments.folder, arguments.mpicc))
    except (SparseHessError, OSError) as error:
        print(f"sparsehess: {error}", file=sys.stderr)
        return StackError.status
    return DONE


if __name__ == "__main__":
    sys.exit(main())
