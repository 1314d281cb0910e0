"""Which BLAS PETSc runs on, told from the process itself."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsehess import runtime
from sparsehess.commands import stack
from sparsehess.runtime import PETSc, blas
from support import answers


def test_what_is_loaded_multiplies():
    """The library that is named is mapped, and its dgemm multiplies."""
    assert PETSc.Sys.isInitialized()
    found = blas.loaded_blas()
    mapped = Path("/proc/self/maps").read_text()
    assert os.path.samefile(found["library"], found["library"]) and str(Path(found["library"]).resolve()) in mapped
    assert found["name"] and "numpy" not in found["library"] and "scipy" not in found["library"]
    a, b, c = ((ctypes.c_double * 4)(*values) for values in ((1, 2, 3, 4), (5, 6, 7, 8), (0,) * 4))
    n, one, zero = ctypes.c_int(2), ctypes.c_double(1), ctypes.c_double(0)
    ref = ctypes.byref
    ctypes.CDLL(found["library"]).dgemm_(
        b"N", b"N", ref(n), ref(n), ref(n), ref(one), a, ref(n), b, ref(n), ref(zero), c, ref(n)
    )
    assert list(c) == [23, 34, 31, 46]


@pytest.mark.parametrize(
    "path, name",
    [
        ("/usr/lib/x86_64-linux-gnu/blas/libblas.so.3.11.0", blas.REFERENCE),
        ("/usr/lib64/librefblas.so.3", blas.REFERENCE),
        ("/home/atlas/mkl-and-openblas/lib/libblas.so.3", blas.REFERENCE),
        ("/usr/lib/x86_64-linux-gnu/blis-serial/libblas.so.3", "BLIS"),
        ("/opt/conda/lib/libopenblasp-r0.3.28.so", "OpenBLAS"),
        ("/opt/intel/oneapi/mkl/lib/libmkl_intel_lp64.so.2", "MKL"),
        ("/opt/cray/pe/libsci/lib/libsci_gnu.so.6", "libsci_gnu.so.6"),
        (None, None),
    ],
)
def test_names(monkeypatch, path, name):
    monkeypatch.setattr(blas, "_library_of", lambda routine: path)
    monkeypatch.setattr(blas, "_told", lambda library, function: "")
    found = blas.loaded_blas()
    assert found["name"] == name and found["library"] == found["lapack"] == path
    text = stack.stack_text({**stack.stack_facts(PETSc.COMM_WORLD.tompi4py()), "blas": found})
    assert f"\nBLAS         {name} {path}" in text if name else "does not show which" in text


def test_the_reference_is_said_to_cost(monkeypatch):
    for name, said in ((blas.REFERENCE, 1), ("OpenBLAS", 0)):
        told = {"name": name, "version": None, "kernels": None, "library": "/x", "lapack": "/x"}
        monkeypatch.setattr(blas, "loaded_blas", lambda told=told: told)
        facts = stack.stack_facts(PETSc.COMM_WORLD.tompi4py())
        assert [item["name"] for item in facts["missing"]].count("fast BLAS") == said


def test_another_library_shows(tmp_path):
    """One that is put in front is what is told, wherever it comes from."""
    ours = blas.loaded_blas()["library"]
    if ours is None:
        pytest.skip("this system does not show its libraries")
    place = tmp_path / "blis-of-a-friend"
    place.mkdir()
    (place / "front.c").write_text("void dgemm_(void) {} void dsyevr_(void) {}")
    front = place / "libfront.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", front, place / "front.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "sparsehess", "info", "--json", "-"],
        env={**os.environ, "LD_PRELOAD": str(front)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = answers.parse(done.stdout)["blas"]
    assert found["name"] == "BLIS" and found["library"] == found["lapack"] == str(front)


def test_threads_are_those_of_the_library(tmp_path):
    """Not what one variable says: OpenBLAS has one of its own, and builds that heed none."""
    place = tmp_path / "openblas"
    place.mkdir()
    lines = (
        "#include <stdlib.h>",
        "void dgemm_(void) {} void dsyevr_(void) {}",
        'int openblas_get_num_threads(void) { return atoi(getenv("OPENBLAS_NUM_THREADS")); }',
    )
    (place / "front.c").write_text("\n".join(lines))
    front = place / "libfront.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", front, place / "front.c"], check=True)
    told = {**os.environ, "LD_PRELOAD": str(front), "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "7"}
    words = [sys.executable, "-m", "sparsehess", "info", "--json", "-"]
    done = subprocess.run(words, env=told, capture_output=True, text=True, check=True)
    assert answers.parse(done.stdout)["mpi"]["threads"] == 7


def test_threads_of_a_library_that_does_not_tell(monkeypatch):
    monkeypatch.setattr(blas, "_library_of", lambda routine: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert blas.threads() is None and runtime.threads() == 3
