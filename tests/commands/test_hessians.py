"""The commands assemble and color."""

import numpy as np
import pytest
import scipy.sparse as sp

from support.cases import grid
from support.command_line import facts, run, several


def test_assemble_writes_what_eigs_reads(problems):
    suffixes = ["mtx", "npz", "petsc", "h5"]
    for found in several(problems, [f"assemble problems.py:good -o h.{suffix}" for suffix in suffixes], 3):
        assert found["task"] == "assemble" and found["coloring"]["valid"]
    for found in several(problems, [f"eigs h.{suffix} -k 2" for suffix in suffixes], 2):
        assert found["eigenvalues"] == pytest.approx(4 * np.sin(np.pi * np.arange(1, 3) / 62) ** 2, abs=1e-9)


def test_color(problems):
    sp.save_npz(problems / "grid.npz", grid(20, 20))
    seen = [facts(problems, "color grid.npz --order natural", ranks) for ranks in (1, 3)]
    for found in seen:
        assert found["valid"] and found["kind"] == "star" and found["n"] == 400 and found["nnz"] == 1920
        assert found["lower_bound"] <= found["colors"] == seen[0]["colors"] <= 7


def test_color_tells_all_and_stores_it(problems):
    """Attempts, bound, traffic; the stored colouring is used again, on other ranks and by another command."""
    found = facts(problems, "assemble problems.py:good -o h.npz", 1)
    found = facts(problems, "color h.npz --coloring acyclic --order smallest-last -o c.npz --plot c.png", 2)
    assert found["colors"] == 2 and found["optimal"] and found["valid"] and found["rule"] == "local"
    assert found["amplification"] >= 2 and found["traffic"]["rounds"] >= 1
    assert [attempt["count"] for attempt in found["attempts"]] == [2]
    assert (problems / "c.png").stat().st_size > 1000
    again = facts(problems, "color h.npz --coloring c.npz", 3)
    assert (again["kind"], again["colors"], again["order"]) == ("acyclic", 2, "smallest-last")
    used = facts(problems, "eigs problems.py:good -k 2 --coloring c.npz", 1)
    assert used["coloring"]["kind"] == "acyclic" and used["evaluations"]["gradient"] == 4
    assert used["eigenvalues"] == pytest.approx(4 * np.sin(np.pi * np.arange(1, 3) / 62) ** 2, abs=1e-7)
    sp.save_npz(problems / "other.npz", grid(20, 20))
    code, _, err, _ = run(problems, "color other.npz --coloring c.npz", 2)
    assert code == 2 and "of another pattern" in err


def test_color_by_blocks_diagonal_and_lattice(problems):
    nodes = sp.csr_matrix(sp.kron(grid(9, 9), np.ones((2, 2))))
    sp.save_npz(problems / "blocks.npz", nodes)
    at = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij"), axis=-1).reshape(-1, 2)
    shuffled = np.random.default_rng(0).permutation(81)
    sp.save_npz(problems / "shuffled.npz", grid(9, 9).tocsr()[shuffled][:, shuffled])
    np.save(problems / "at.npy", at[shuffled] * 1.5)
    saddle = sp.bmat([[sp.identity(6), sp.kron(sp.identity(3), np.ones((2, 1)))], [None, None]]).tocsr()
    saddle.resize(9, 9)
    sp.save_npz(problems / "saddle.npz", saddle)
    order = "--coloring cpr --order largest-first"
    commands = [
        "color blocks.npz --blocks 2",
        "color shuffled.npz --lattice at.npy --coloring distance2",
        f"color saddle.npz {order} --diagonal full",
        f"color saddle.npz {order} --diagonal given",
    ]
    blocks, lattice, full, given = (found["colors"] for found in several(problems, commands, 3))
    assert (blocks, lattice) == (10, 5) and given < full
