"""One solver of SLEPc, used for solve after solve."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.essential

# The second solve deflates 20 vectors; the third wants a basis of just 20 more than the second.
REUSED = """
import numpy as np
import sparsehess as sh
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.runtime import destroy

with sh.EigenProblem.of(np.diag(np.arange(1.0, 201.0))) as problem:
    solver = KrylovSchur(problem, True, {}, tol=1e-10)
    solver.shift_to(0.5)
    first = solver.solve("nearest", 20)[:20]
    second = solver.solve("nearest", 20, deflate=first)
    third = solver.solve("nearest", 20, deflate=first, wider=20)
    print(len(first), len(second) >= 20, len(third) >= 20)
    destroy(*first, *second, *third)
    solver.close()
"""


def test_no_solve_writes_past_the_arrays_of_the_one_before():
    checked = {**os.environ, "PETSC_OPTIONS": "-malloc_debug"}  # every block is looked at when it is freed
    command = [sys.executable, "-c", REUSED]
    run = subprocess.run(command, check=False, env=checked, capture_output=True, text=True, timeout=100)
    assert (run.returncode, run.stdout.split("\n")[0]) == (0, "20 True True"), run.stderr
    assert "corrupt" not in run.stdout + run.stderr
