"""The command damped: what it prints, writes, and how it ends."""

import numpy as np
import pytest
import scipy.io as sio
import scipy.sparse as sp

from support import code_files
from support.command_line import batch, several

N = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("damped")
    stiffness = np.linspace(1.0, 9.0, N // 2) ** 2
    sp.save_npz(place / "K.npz", sp.csr_matrix(sp.diags(np.repeat(stiffness, 2))))
    sp.save_npz(place / "M.npz", sp.csr_matrix(sp.identity(N)))
    sp.save_npz(place / "C.npz", sp.csr_matrix(sp.diags(np.full(N, 0.1))))
    pairs = sp.block_diag([[[0, 0.5], [-0.5, 0]]] * (N // 2))
    sio.mmwrite(place / "G.mtx", pairs, symmetry="skew-symmetric")
    sp.save_npz(place / "feeds.npz", sp.csr_matrix(sp.diags(np.r_[-0.02, np.full(N - 1, 0.1)])))
    sp.save_npz(place / "short.npz", sp.csr_matrix(sp.identity(7)))
    (place / "job.toml").write_text(
        'command = "damped"\ninput = "K.npz"\nmass = "M.npz"\ndamping = "C.npz"\nk = 2\nunits = "Hz"\n'
    )
    return place


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_modes(folder, ranks):
    damped, job, turning, band = several(
        folder,
        [
            "damped K.npz --mass M.npz --damping C.npz -k 3 -o modes.npz",
            "damped job.toml",
            "damped K.npz --mass M.npz --gyroscopic G.mtx --units Hz --target 0.5 -k 4",
            "damped K.npz --mass M.npz --gyroscopic G.mtx --units rad/s --interval 3.6 4.4",
        ],
        ranks,
    )
    stiffness = sp.load_npz(folder / "K.npz").diagonal()
    exact = -0.05 + 1j * np.sqrt(stiffness - 0.0025)
    found = np.array(damped["eigenvalues"]) @ [1, 1j]
    np.testing.assert_allclose(found, exact[:3], rtol=1e-8)
    np.testing.assert_allclose(damped["damping_ratios"], 0.05 / np.sqrt(stiffness[:3]), rtol=1e-8)
    assert damped["count"]["how"] == "none" and damped["stability"]["most"] == 0 and not any(damped["grows"])
    assert job["frequencies"]["values"] == pytest.approx(exact[:2].imag / (2 * np.pi))
    whirling = np.sort(np.concatenate([np.sqrt(stiffness + 0.0625) + sign * 0.25 for sign in (-1, 1)])[::2])
    near = np.sort(whirling[np.argsort(np.abs(whirling - np.pi))][:4])
    np.testing.assert_allclose(turning["frequencies"]["values"], near / (2 * np.pi), rtol=1e-8)
    assert turning["count"]["certified"] and set(turning["whirl"]) <= {"forward", "backward"}
    inside = whirling[np.abs(whirling - 4) < 0.4]
    np.testing.assert_allclose(np.array(band["eigenvalues"])[:, 1], inside, rtol=1e-8)
    assert band["count"]["certified"] and band["k"] == band["count"]["counted"] == len(inside)
    with np.load(folder / "modes.npz") as stored:
        assert stored["vectors"].shape == (6, N) and stored["eigenvalues"].dtype == complex
        for value, real, imaginary in zip(
            stored["eigenvalues"], stored["vectors"][::2], stored["vectors"][1::2], strict=True
        ):
            x = real + 1j * imaginary
            assert np.abs(x).max() == pytest.approx(1.0)
            assert np.abs((value**2 + 0.1 * value + stiffness) * x).max() < 1e-7


def test_what_is_said(folder):
    told = batch(
        folder,
        [
            "damped K.npz --mass M.npz --damping C.npz -k 3",
            "damped K.npz --mass M.npz --damping feeds.npz -k 3",
            "damped K.npz --mass M.npz --gyroscopic G.mtx -k 3 --units Hz",
            "damped K.npz --mass M.npz --damping G.mtx",
            "damped K.npz --mass M.npz --gyroscopic C.npz",
            "damped K.npz --mass M.npz --damping short.npz",
            "damped K.npz --damping C.npz --units Hz",
            "damped K.npz --mass M.npz -k 3 --interval 1 2",
            "damped K.npz --mass M.npz --damping gone.npz",
        ],
        1,
    )
    outs = [out for codes, out, _, _ in told[:3] if codes == [0]]
    assert "not counted: with damping" in outs[0] and "no mode can grow: K and C are" in outs[0]
    assert "grows (flutter); how many can is not known" in outs[1] and "feed the motion" in outs[1]
    assert "none missed (certified" in outs[2] and "backward" in outs[2] and "Hz" in outs[2]
    words = (
        "give it as gyroscopic",
        "give it as damping",
        "7 rows",
        "there is no mass",
        "leave it out",
        "gone.npz",
    )
    for (codes, _, err, _), word in zip(told[3:], words, strict=True):
        assert codes == [2] and word in err, err


def test_skew_matrices_in_one_triangle(folder):
    """Readers complete one triangle as of a symmetric matrix: that is told, and no damping is advised."""
    labels = [(node, 1) for node in range(1, N + 1)]
    pairs = sp.block_diag([[[0, 0.5], [-0.5, 0]]] * (N // 2)).toarray()
    code_files.dmig(folder / "half.dmig", {"G": np.tril(pairs)}, labels, form=1)
    code_files.dmig(folder / "whole.dmig", {"G": pairs}, labels, form=1)
    (folder / "abaqus").mkdir()
    code_files.triples(folder / "abaqus" / "half.mtx", np.triu(pairs))
    lines = [
        "damped K.npz --mass M.npz --gyroscopic half.dmig -k 2",
        "damped K.npz --mass M.npz --gyroscopic abaqus/half.mtx -k 2",
        "damped K.npz --mass M.npz --circulatory half.dmig -k 2",
        "damped K.npz --mass M.npz --gyroscopic whole.dmig -k 2",
    ]
    told = batch(folder, lines, 1)
    for codes, _, err, _ in told[:3]:
        assert codes == [2] and "one triangle" in err and "write both triangles" in err and "damping" not in err, (
            err
        )
    assert told[3][0] == [0] and "certified" in told[3][1], told[3]
