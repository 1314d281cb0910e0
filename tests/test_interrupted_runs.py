"""Runs of the command line that are stopped or killed, and then give the same answer."""

import os
import signal
import time

import pytest

from support import faults
from support.interrupted import ASKED, the_same, undisturbed

pytestmark = pytest.mark.parallel([1, 2])


@pytest.mark.parallel([1])
@pytest.mark.parametrize(
    "name, ranks, then, number",
    [
        ("chain", 2, 1, signal.SIGUSR1),
        pytest.param("chain", 1, 2, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("together", 2, 3, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("grouped", 4, 1, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("summed", 2, 1, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("elements", 3, 1, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_another_number_of_ranks_goes_on(folder, name, ranks, then, number):
    wanted, evaluations = undisturbed(name)
    command = f"eigs problem.py:{name} --set wait=0.03 {ASKED}"
    running = faults.start(folder, command, ranks)
    faults.wait_for_evaluations(running, 11)
    running.send(number, [ranks - 1])  # one rank alone is told
    status, said = running.end()
    assert status == 75, said
    assert f"stopped by {number.name}" in said and "--resume" in said and "Traceback" not in said
    before = sum(faults.evaluated(folder).values())
    assert before < sum(evaluations.values())
    status, said = faults.start(folder, command, then).end()
    assert status == 0, said
    assert the_same(folder, wanted)
    assert sum(faults.evaluated(folder).values()) == sum(evaluations.values())
    assert not list((folder / "kept").iterdir())


@pytest.mark.parallel([1])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_that_is_told_again_and_again_does_not_kill_what_has_saved(folder, ranks):
    running = faults.start(folder, f"eigs problem.py:chain --set wait=0.03 {ASKED}", ranks)
    faults.wait_for_evaluations(running, 11)
    deadline = time.monotonic() + 30
    while running.process.poll() is None and time.monotonic() < deadline:
        running.send(signal.SIGUSR1)
        time.sleep(0.002)
    status, said = running.end()
    assert status == 75, said


@pytest.mark.parallel([1])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 100))])
def test_killed_at_any_moment(folder, seed):
    ranks, (wanted, plain) = 2, undisturbed("chain")
    killed = faults.kill_and_resume(folder, f"eigs problem.py:chain --set wait=0.01 {ASKED}", ranks, seed)
    assert killed.status == 0, killed.said
    assert the_same(folder, wanted)
    assert killed.evaluated <= sum(plain.values()) + killed.kills * ranks
    assert killed.longest < 30


@pytest.mark.parallel([1])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_damaged_stage_without_an_earlier_one_is_told_once(folder, ranks):
    (folder / "kept").mkdir()
    (folder / "kept/coloring.ckpt").write_bytes(os.urandom(500))
    for _ in range(2):  # and so it stays, until somebody removes it
        status, said = faults.start(folder, f"eigs problem.py:chain {ASKED}", ranks).end(60)
        assert status == 2 and said.count("\n") == 1, said
        assert "coloring.ckpt is damaged" in said and "remove it, and what it held is done again" in said
    (folder / "kept/coloring.ckpt").unlink()
    status, said = faults.start(folder, f"eigs problem.py:chain {ASKED}", ranks).end(60)
    assert status == 0 and the_same(folder, undisturbed("chain")[0]), said
