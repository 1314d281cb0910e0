"""A launcher that does not notice the end of its ranks."""

import json
import os
import subprocess
import sys
import time

import pytest

from sparsehess.service.resident import keeper
from sparsehess.service.resident.keeper import DesertedLauncher

RANK = f'{sys.executable} -S -c "import time; time.sleep(%g)"'


@pytest.fixture
def launched():
    """Start a launcher by a line of a shell; it is killed with all that has come of it."""
    started = []

    def launch(line):
        started.append(subprocess.Popen(["sh", "-c", f"{line}; sleep 60; true"], start_new_session=True))
        return DesertedLauncher(started[-1].pid)

    before = keeper.list_descendants(os.getpid())
    yield launch
    assert keeper.end_descendants(before)
    for one in started:
        one.wait()


def test_a_launcher_is_deserted_once_its_last_rank_has_ended(launched):
    deserted = launched(f"{RANK % 1.5} & {RANK % 2.5}")
    began = time.monotonic()
    seen = []
    while not seen or seen[-1][1] < 2.0:
        assert time.monotonic() - began < 30, seen
        seen.append((time.monotonic() - began, deserted.seconds()))
        time.sleep(0.05)
    assert all(alone == 0 for when, alone in seen if when < 2.5)


@pytest.mark.parametrize("line", [RANK % 30, "true", f"( {RANK % 30}; true )"])
def test_who_has_ranks_or_never_had_any_is_not(launched, line):
    deserted = launched(line)
    for _ in range(25):
        assert deserted.seconds() == 0
        time.sleep(0.1)


@pytest.mark.thorough
def test_the_keeper_ends_a_deserted_launcher(tmp_path):
    mark = tmp_path / "alive"
    line = f"{RANK % 3}; sleep 60; touch {mark}"
    order = {"command": ["sh", "-c", line], "cores": [], "scratch": [], "order": {}}
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", keeper.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        said = json.loads(process.stdout.readline())
    assert said == {"status": None} and time.monotonic() - began < 50 and not mark.exists()
