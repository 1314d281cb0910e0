"""What importing loads, and what it does not start."""

import subprocess
import sys


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_starts_nothing():
    names = "('mpi4py', 'petsc4py', 'slepc4py', 'numpy')"
    code = f"import sys, sparsehess; print([m for m in sys.modules if m.split('.')[0] in {names}])"
    assert run(code).strip() == "[]"


def test_importing_what_a_solve_needs_loads_nothing_heavy():
    heavy = ["matplotlib", "h5py", "jax", "torch", "networkx", "skfem", "rich", "scipy.stats", "scipy.optimize"]
    code = (
        "import sys, sparsehess as sh;"
        "other = ('sparsehess.eigen.estimates', 'sparsehess.networks',"
        " 'sparsehess.eigen.certificates.sparsification');"
        "[getattr(sh, n) for n in sh.__all__ if sh._HOME.get(n) not in other];"
        "import sparsehess.commands.eigenpairs, sparsehess.commands.hessians;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert run(code).strip() == "[]"
