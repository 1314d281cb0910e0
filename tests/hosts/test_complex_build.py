"""A host whose PETSc has complex scalars: Hermitian problems there, and what is said of them here.

The checks are in `hermitian.py`, which other processes run: this one's PETSc has real scalars.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.storage import array_files, matrix_files
from support import ROOT, hermitian

# Where Debian has the builds that are not the default, for this version of Python.
PLACES = {"petsc": "PETSc", "slepc": "SLEPc"}
CHECKS = [name for name in vars(hermitian) if name.startswith("check_")]


def build():
    """Return the folders of petsc4py and slepc4py with complex scalars, or None."""
    found = []
    for name, module in PLACES.items():
        inside = f"{name}*/*-complex/lib/python3/dist-packages"
        library = f"{name}4py/lib/{module}{sysconfig.get_config_var('EXT_SUFFIX')}"
        there = sorted(path for path in Path(f"/usr/lib/{name}dir").glob(inside) if (path / library).is_file())
        if not there:
            return None
        found.append(str(there[-1]))
    return found


@pytest.fixture(scope="module")
def told():
    """Return {name of check: what went wrong} of a number of ranks; they are run once."""
    places = build()
    if places is None:
        pytest.skip("no petsc4py and slepc4py with complex scalars (Debian's python3-slepc4py-complex)")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMIX_", "PRTE_"))}
    plain |= {"OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}
    if os.getuid() == 0:
        plain |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    plain["PYTHONPATH"] = os.pathsep.join([str(ROOT), *places, os.environ.get("PYTHONPATH", "")])
    answers = {}

    def answer(ranks):
        if ranks not in answers:
            launched = ["mpiexec", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
            done = subprocess.run(
                [*launched, sys.executable, hermitian.__file__],
                capture_output=True,
                text=True,
                timeout=110,
                check=False,
                env=plain,
            )
            assert done.returncode == 0, done.stderr
            answers[ranks] = json.loads(done.stdout.splitlines()[-1])
        return answers[ranks]

    return answer


@pytest.mark.parametrize("name", CHECKS)
def test_hermitian(name, told):
    assert name in told(1), "a check before this one failed"
    assert not told(1)[name], told(1)[name]


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in hermitian.ALONE])
def test_hermitian_on_two_ranks(name, told):
    assert name in told(2), "a check before this one failed"
    assert not told(2)[name], told(2)[name]


# --- with real scalars ---

H = sp.csr_matrix([[2.0, 1j, 0.0], [-1j, 3.0, 1.0], [0.0, 1.0, 4.0]])


def binary(path, numbers):
    """Write PETSc's binary form of H with these numbers."""
    head = np.array([1211216, 3, 3, H.nnz, *np.diff(H.indptr), *H.indices], ">i4")
    path.write_bytes(head.tobytes() + numbers.astype(numbers.dtype.newbyteorder(">")).tobytes())


def test_complex_files_name_the_build_that_takes_them(folder, comm):
    writers = {
        "hermitian.mtx": lambda path: scipy.io.mmwrite(path, H, symmetry="hermitian"),
        "general.mtx": lambda path: scipy.io.mmwrite(path, H, symmetry="general"),
        "array.mtx": lambda path: scipy.io.mmwrite(path, H.toarray(), symmetry="hermitian"),
        "sparse.npz": lambda path: sp.save_npz(path, H),
        "binary.petsc": lambda path: binary(path, H.data),
    }
    if comm.rank == 0:
        for name, write in writers.items():
            write(folder / name)
        np.save(folder / "vectors.npy", np.full((1, 3), 1j))
    comm.Barrier()
    for name in writers:
        with pytest.raises(InputError, match=r"complex.*python3-slepc4py-complex"):
            matrix_files.read_matrix(folder / name, comm)
        stored = matrix_files.read_matrix(folder / name, comm, hermitian=True)
        assert stored.is_complex
        stored.pattern.free()
    with pytest.raises(InputError, match=r"complex.*python3-slepc4py-complex"):
        array_files.read_vectors(folder / "vectors.npy", sh.Layout.from_size(3, comm))
    with pytest.raises(InputError, match=r"python3-slepc4py-complex"):
        sh.diagonal(H, comm=comm)
