"""Effective masses of eigs: from coordinates and from files, told in table and JSON, on any number of ranks."""

import numpy as np
import pytest
import scipy.sparse as sp

from support.command_line import batch, facts


@pytest.fixture
def frame(problems):
    """A rod that swings alike in x and y, node by node, its first node fixed."""
    cells = 30
    ends = np.r_[1.0, np.full(cells - 1, 2.0), 1.0]
    K = cells * sp.diags([-np.ones(cells), ends, -np.ones(cells)], [-1, 0, 1])
    M = sp.diags([np.ones(cells), 2 * ends, np.ones(cells)], [-1, 0, 1]) / (6 * cells)
    for name, one in (("Kxy", K), ("Mxy", M)):
        sp.save_npz(problems / f"{name}.npz", sp.kron(one.tocsr()[1:, 1:], sp.eye(2)).tocsr())
    nodes = np.stack([np.linspace(0, 1, cells + 1), np.full(cells + 1, 0.5)], axis=1)
    np.save(problems / "nodes.npy", nodes)
    np.save(problems / "fixed.npy", np.array([0, 1]))
    np.save(problems / "shake.npy", np.tile([1.0, 0.0], cells)[None])
    return problems


LINE = "eigs Kxy.npz --mass Mxy.npz -k 4 --participation rigid --coordinates nodes.npy --fixed fixed.npy"


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_effective_masses_of_nodes(frame, ranks):
    found = facts(frame, f"{LINE} --about 0 0.5 0", ranks)
    told, masses = found["participation"], np.array(found["effective_mass"])
    assert told["directions"] == ["translation x", "translation y", "rotation z"] and told["about"] == [0, 0.5, 0]
    assert told["clusters"] == [[0, 1], [2, 3]] and told["needed"][:2] == [4, 4]
    shares = 8 / (np.pi * np.array([1, 3])) ** 2
    pairs = masses.reshape(2, 2, 3).sum(axis=1)
    np.testing.assert_allclose(pairs[:, :2], np.stack([shares, shares], axis=1), rtol=1e-2)
    # about the clamp: y φ of sin modes: (∫x φ)² / ∫φ² = 2 (sin β / β²)², β = π/2, 3π/2
    np.testing.assert_allclose(pairs[:, 2], 2 / (np.pi * np.array([1, 3]) / 2) ** 4, rtol=2e-2)
    np.testing.assert_allclose(told["whole"], [1 - 2 / 90, 1 - 2 / 90, 1 / 3], rtol=2e-2)
    np.testing.assert_allclose(np.array(told["factors"]) ** 2, masses, rtol=1e-8, atol=1e-12)


def test_effective_masses_are_told(frame):
    """A multiple eigenvalue has one row; directions of a file, and one that no mode has enough of."""
    commands = [LINE, "eigs Kxy.npz --mass Mxy.npz -k 3 --participation shake.npy"]
    nodes, file = batch(frame, commands, 2)
    assert nodes[0] == [0] and "1-2" in nodes[1] and "one multiple eigenvalue: the sum" in nodes[1]
    assert "rotations about (0, 0, 0)" in nodes[1] and "modes needed" in nodes[1]
    assert file[0] == [0] and "direction 1" in file[1] and "not with 3" in file[1] and "just beyond" in file[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eigs Kxy.npz --mass Mxy.npz --participation rigid", "with --coordinates"),
        ("eigs Kxy.npz --mass Mxy.npz --dofs xy", "give --participation rigid or --mesh too"),
        ("eigs Kxy.npz --participation shake.npy", "no mass to take part"),
        (f"{LINE} --dofs xyq", "write each of a node's once"),
        (
            LINE.replace(" --fixed fixed.npy", " --dofs xyc"),
            "31 nodes with dofs xyc have 93, of",
        ),
        (LINE.replace("fixed.npy", "nodes.npy"), "a list of whole numbers is needed"),
        (LINE.replace("nodes.npy", "absent.npy"), "absent.npy"),
    ],
)
def test_mistakes(frame, line, said):
    statuses, _, told, *_ = batch(frame, [line], 2)[0]
    assert statuses == [2] and said in told, told
