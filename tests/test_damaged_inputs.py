"""Damaged inputs: exit status 2 and one line, or a right answer; never a traceback, a crash, or much memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import fuzzing

# What a mutated input may still be: solved, refused, not converged, or found wrong by a check.
ENDS = {0, 2, 3, 4}


def survived(folder, count, kinds, seed=0):
    """Return how often each status came; every input was answered as it must be."""
    command = [sys.executable, fuzzing.__file__, str(folder), str(seed), str(count), *kinds]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    wrong = [one for one in answers if not good(*one[2:4])]
    assert not wrong, wrong[:5]
    assert done.returncode == 0, f"ended by {done.returncode} at {answers[-1:]}: {done.stderr[-500:]}"
    assert len(answers) == count
    return {status: sum(one[2] == status for one in answers) for status in ENDS}


def good(status, lines):
    if status not in ENDS:
        return False
    one = len(lines) == 1 and lines[0].startswith("sparsehess: ") and "Traceback" not in lines[0]
    return one if status else not lines


def test_a_hundred_damaged_inputs(tmp_path):
    slow = {"h5", "result-h5"}  # each is read by a process of its own first
    found = survived(tmp_path, 104, sorted(set(fuzzing.KINDS) - slow) * 4 + sorted(slow))
    assert found[2] > 40 and found[0] > 5  # neither is all refused, nor nothing


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(fuzzing.KINDS))
def test_ten_thousand_damaged_inputs(kind, tmp_path):
    found = survived(tmp_path, 10_000 // len(fuzzing.KINDS), [kind], seed=1)
    assert found[2] > 100


def test_the_bound_on_memory_holds(tmp_path):
    """The bound of the others is one: what takes more fails in it."""
    code = (
        "import fuzzing, resource, pathlib, numpy\n"
        "taken = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + fuzzing.ROOM, resource.RLIM_INFINITY))\n"
        "numpy.ones(fuzzing.ROOM // 8 + 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(fuzzing.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "MemoryError" in done.stderr
