"""What the stack is made of, and what is missing of it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess import errors, runtime
from sparsehess.commands.output import SCHEMA, answer, refuse_solver_options
from sparsehess.runtime import blas

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.call import Call

_PACKAGES = {
    "mumps": "no shift-and-invert and no inertia counts: smallest, target and certificates need it",
    "superlu_dist": "no second parallel direct solver",
    "hypre": "no BoomerAMG preconditioner",
    "ml": "no ML preconditioner",
    "suitesparse": "no CHOLMOD or UMFPACK on one rank",
    "scalapack": "no parallel dense solver",
    "ptscotch": "no parallel ordering for MUMPS",
    "hdf5": "no parallel HDF5 files from PETSc",
    "cuda": "no NVIDIA GPU",
    "hip": "no AMD GPU",
    "kokkos": "no portable GPU back end",
}
# Measured by benchmarks/blas_libraries.py on 3-D elasticity of 19,494 and 34,914 variables.
_REFERENCE_COSTS = (
    "factorizations take five times as long as with an optimised BLAS, certified solves three times "
    "(Debian: apt-get install libopenblas0-serial)"
)
_EXTRAS = {
    "h5py": "no .h5 files (pip install 'sparsehess[hdf5]')",
    "matplotlib": "no --plot (pip install 'sparsehess[plot]')",
    "meshio": "no modes on meshes of files, --mesh (pip install 'sparsehess[mesh]')",
    "skfem": "the cantilever driver does not run (pip install 'sparsehess[fem]')",
    "networkx": "no patterns from graphs (pip install networkx)",
}


def run_info(call: Call) -> int:
    """Tell of the stack, and of what is missing of it. Collective."""
    refuse_solver_options(call.options)
    facts = stack_facts(call.comm)
    answer(call, facts, stack_text(facts))
    return errors.DONE


def stack_facts(comm: MPI.Comm) -> dict[str, Any]:
    """Return what the stack is made of. Collective."""
    from mpi4py import MPI

    petsc, algebra = runtime.PETSc, blas.loaded_blas()
    slow = [{"name": "fast BLAS", "costs": _REFERENCE_COSTS}] if algebra["name"] == blas.REFERENCE else []
    return {
        "schema": SCHEMA,
        "task": "info",
        "versions": runtime.versions(),
        "scalar": str(np.dtype(petsc.ScalarType)),
        "index_bits": 8 * np.dtype(petsc.IntType).itemsize,
        "blas": algebra,
        "packages": {name: runtime.has_package(name) for name in _PACKAGES},
        "extras": {name: importlib.util.find_spec(name) is not None for name in _EXTRAS},
        "coo_assembly": hasattr(petsc.Mat, "setPreallocationCOO"),
        "mpi": {
            "size": comm.size,
            "threads": runtime.threads(),
            "library": MPI.Get_library_version().splitlines()[0].split(",")[0].strip("\x00"),
        },
        "missing": slow
        + [
            {"name": name, "costs": cost}
            for name, cost in {**_PACKAGES, **_EXTRAS}.items()
            if not (runtime.has_package(name) if name in _PACKAGES else importlib.util.find_spec(name))
        ],
    }


def stack_text(facts: dict) -> str:
    """Return the facts of the stack as lines. Not collective."""
    versions = facts["versions"]
    lines = [f"{name:12s} {version}" for name, version in versions.items()]
    numpy_major, petsc4py = int(versions["numpy"].split(".")[0]), versions["petsc4py"]
    if versions["petsc"].rsplit(".", 1)[0] != petsc4py.rsplit(".", 1)[0]:
        lines.append(f"note         petsc4py {petsc4py} over PETSc {versions['petsc']}: not made for each other")
    lines += [
        f"numbers      {facts['scalar']}, {facts['index_bits']}-bit indices, numpy {numpy_major} ABI",
        f"MPI          {facts['mpi']['library']}, {facts['mpi']['size']} rank(s), "
        f"{facts['mpi']['threads']} thread(s) each",
        f"BLAS         {_algebra(facts['blas'])}",
        f"packages     {', '.join(name for name, there in facts['packages'].items() if there)}",
        f"extras       {', '.join(name for name, there in facts['extras'].items() if there)}",
        "missing, and what that costs",
    ]
    lines += [f"  {item['name']:12s} {item['costs']}" for item in facts["missing"]]
    return "\n".join(lines)


def _algebra(facts: dict) -> str:
    """Return a line on the BLAS that is loaded: its name, version, kernels and file."""
    if facts["name"] is None:
        return "this system does not show which"
    kernels = facts["kernels"] and f"for {facts['kernels']}"
    return " ".join(filter(None, (facts["name"], facts["version"], kernels, facts["library"])))
