"""The curvature of a network along its training, stopped and continued; any number of ranks."""

import json

import numpy as np
import pytest

import sparsehess as sh

torch = pytest.importorskip("torch")

import training_curvature as driver  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2])

SMALL = ["--widths", "64", "6", "10", "--samples", "150", "--batch", "30", "--every", "3", "--probes", "24"]


def test_series_are_right_and_go_on_as_if_never_stopped(comm, folder):
    straight, broken = folder / "straight.jsonl", folder / "broken.jsonl"
    driver.main([*SMALL, "--steps", "6", "--out", str(straight)])
    driver.main([*SMALL, "--steps", "5", "--out", str(broken)])
    if comm.rank == 0:  # stopped while it wrote
        with broken.open("a") as series:
            series.write('{"step": 6, "lo')
    comm.Barrier()
    driver.main([*SMALL, "--steps", "6", "--out", str(broken)])
    comm.Barrier()
    lines = [json.loads(line) for line in straight.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert broken.read_text() == straight.read_text()
    assert lines[2]["loss"] < lines[0]["loss"]
    with pytest.raises(sh.InputError, match="of another training"):
        driver.main([*SMALL, "--rate", "0.2", "--out", str(broken)])

    objective = driver.digits(comm, steps=6, widths=(64, 6, 10), samples=150, batch=30)
    H = comm.allreduce(objective.hvps(objective.x, np.eye(objective.n)))
    exact = np.linalg.eigvalsh(H)
    last = lines[-1]
    assert last["sharpness"] == pytest.approx(exact[-1], rel=1e-8)
    assert last["lowest"] == pytest.approx(exact[0], abs=1e-4)
    first = 64 * 6 + 6
    for name, part in (("0", slice(0, first)), ("2", slice(first, None))):
        value, error = last["trace"][name]
        assert abs(value - np.trace(H[part, part])) < 5 * error
    told = {float(part): found for part, found in last["degeneracy"].items() if found is not None}
    assert 0.01 in told
    for part, (value, error) in told.items():
        assert abs(value - np.mean(np.abs(exact) <= part * exact[-1])) < 4 * error + 0.01
    for line in lines:
        assert all(
            (found is None) == (float(part) < line["resolution"]) for part, found in line["degeneracy"].items()
        )
    assert sum(last["density"]["share"]) == pytest.approx(np.mean(exact > -exact[-1]), abs=0.02)
    if comm.rank == 0:
        (folder / "straight.state").unlink()
    comm.Barrier()
    with pytest.raises(sh.InputError, match="no state beside it"):
        driver.main([*SMALL, "--out", str(straight)])
