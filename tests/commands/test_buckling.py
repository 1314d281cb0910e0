"""The command buckling: what it prints, writes, and how it ends."""

import numpy as np
import pytest
import scipy.sparse as sp

import frame
import sparsehess as sh
from support.command_line import batch, several


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("buckling")
    K, Kg, _, _ = frame.model()
    sp.save_npz(place / "K.npz", K)
    sp.save_npz(place / "KG.npz", Kg)
    sp.save_npz(place / "pulled.npz", sp.csr_matrix(sp.diags(np.linspace(0, 1, K.shape[0]))))
    sp.save_npz(place / "unstable.npz", K + 25 * Kg)
    sp.save_npz(place / "short.npz", K[1:, 1:])
    (place / "job.toml").write_text('command = "buckling"\ninput = "K.npz"\ngeometric = "KG.npz"\nk = 2\n')
    return place


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_load_factors(folder, ranks):
    found, job, safe, none = several(
        folder,
        [
            "buckling K.npz KG.npz -k 3 -o modes.npz",
            "buckling job.toml",
            "buckling K.npz KG.npz --max-factor 20",
            "buckling K.npz pulled.npz --which positive",
        ],
        ranks,
    )
    K, Kg = (sp.load_npz(folder / name).toarray() for name in ("K.npz", "KG.npz"))
    inverse = np.linalg.eigvals(np.linalg.solve(K, -Kg)).real
    exact = 1 / inverse[np.argsort(-np.abs(inverse))[:3]]
    np.testing.assert_allclose(found["load_factors"], exact, rtol=1e-8)
    assert found["count"]["certified"] and found["critical"] == min(found["load_factors"])
    assert job["load_factors"] == pytest.approx(exact[:2])
    assert safe["load_factors"] == [] and safe["count"]["certified"]
    assert none["critical"] is None and none["count"]["positive"] == 0
    with np.load(folder / "modes.npz") as stored:
        vectors = stored["vectors"]
        vectors = vectors if vectors.shape[0] == len(K) else vectors.T
        for value, mode in zip(stored["load_factors"], vectors.T, strict=True):
            assert np.abs(mode).max() == 1.0
            assert np.linalg.norm(K @ mode + value * (Kg @ mode)) < 1e-9 * np.linalg.norm(K @ mode)


def test_what_is_said(folder):
    told = batch(
        folder,
        [
            "buckling K.npz KG.npz -k 3",
            "buckling K.npz pulled.npz --which positive",
            "buckling unstable.npz KG.npz",
            "buckling K.npz short.npz",
            "buckling K.npz gone.npz",
        ],
        1,
    )
    (codes, out, _, _), (quiet, none, _, _) = told[:2]
    assert codes == quiet == [0]
    assert "(K + λ Kg) φ = 0: λ > 0 multiplies the load" in out and "none nearer to zero" in out
    assert "none: no buckling under this load up to" in none
    for (codes, _, err, _), words in zip(told[2:], ("2 negative eigenvalues", "rows", "gone.npz"), strict=True):
        assert codes == [2] and words in err, err


def test_same_in_python(folder):
    K, Kg = (sp.load_npz(folder / name) for name in ("K.npz", "KG.npz"))
    with sh.buckling(K, Kg, 3) as found:
        assert found.facts()["convention"] == "(K + λ Kg) φ = 0"
