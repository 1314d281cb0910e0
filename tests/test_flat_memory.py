"""Memory of two ranks that call `eigs` again and again, as `benchmarks/flat_memory.py` sees it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "flat_memory.py"


@pytest.mark.slow
@pytest.mark.parametrize("series", ["assembled", "null vectors", "assemble and update", "failing product"])
def test_memory_of_two_ranks_is_flat(series):
    words = ["mpiexec", "--oversubscribe", "-n", "2", sys.executable, str(BENCHMARK), "200", series]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
