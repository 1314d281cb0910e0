"""Complex Hermitian matrix files on the command line, where scalars are real: against LAPACK, on 1 to 3 ranks."""

import numpy as np
import pytest
import scipy.io as sio
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from support.command_line import batch, several

N = 36


def write_petsc(path, matrix):
    head = np.array([1211216, *matrix.shape, matrix.nnz, *np.diff(matrix.indptr), *matrix.indices], ">i4")
    path.write_bytes(head.tobytes() + matrix.data.astype(">c16").tobytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place, rng = tmp_path_factory.mktemp("hermitian"), np.random.default_rng(7)
    upper = sp.random(N, N, 0.1, random_state=rng) + 1j * sp.random(N, N, 0.1, random_state=rng)
    H = (upper + upper.conj().T + sp.diags(rng.normal(size=N))).tocsr()
    H.sort_indices()
    sp.save_npz(place / "H.npz", H)
    sio.mmwrite(place / "H.mtx", H, symmetry="hermitian", precision=17)
    sio.mmwrite(place / "general.mtx", H, symmetry="general", precision=17)
    sio.mmwrite(place / "symmetric.mtx", (upper + upper.T).tocsr(), symmetry="symmetric")
    np.save(place / "H.npy", H.toarray())
    write_petsc(place / "H.petsc", H)
    sp.save_npz(place / "conj.npz", H.conj())
    sp.save_npz(place / "real.npz", H.real)
    sp.save_npz(place / "size.npz", abs(H))
    sp.save_npz(place / "upper.npz", sp.triu(H).tocsr())
    sp.save_npz(place / "M.npz", (0.1 * H + 8 * sp.identity(N)).tocsr())
    sp.save_npz(place / "K.npz", sp.csr_matrix(sp.diags(np.arange(1.0, N + 1))))
    phases = np.exp(1j * rng.uniform(0, 6, N))
    path = sp.diags([-np.ones(N - 1), np.r_[1.0, np.full(N - 2, 2.0), 1.0], -np.ones(N - 1)], [-1, 0, 1])
    sp.save_npz(place / "gauge.npz", (sp.diags(phases) @ path @ sp.diags(phases.conj())).tocsr())
    np.save(place / "phases.npy", phases[None])
    (place / "job.toml").write_text('command = "eigs"\ninput = "H.mtx"\nk = 3\ncount = "yes"\n')
    return place


def exact_values(folder, matrix, mass=None):
    A = sp.load_npz(folder / f"{matrix}.npz").toarray()
    return scipy.linalg.eigh(A, None if mass is None else sp.load_npz(folder / f"{mass}.npz").toarray())[0]


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.essential
def test_every_format_with_one_digest_and_one_answer(folder, ranks):
    files = ["H.npz", "H.mtx", "general.mtx", "H.npy", "H.petsc", "upper.npz --one-triangle"]
    told = several(folder, [*(f"eigs {one} -k 5" for one in files), "eigs job.toml", "eigs real.npz -k 5"], ranks)
    exact = exact_values(folder, "H")
    for one in told[:6]:
        np.testing.assert_allclose(one["eigenvalues"], exact[:5], atol=1e-9)
        assert one["count"]["certified"] and one["count"]["inertia"] == 5 and one["real_form"]
        assert (one["n"], one["nnz"], one["held"]) == (N, told[0]["nnz"], []) and one["fixed"] is None
    assert len({one["inputs"]["matrix"]["digest"] for one in told[:7]}) == 1
    assert told[7]["inputs"]["matrix"]["digest"] != told[0]["inputs"]["matrix"]["digest"]
    assert not told[7]["real_form"]
    np.testing.assert_allclose(told[6]["eigenvalues"], exact[:3], atol=1e-9)


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.essential
def test_masses_null_vectors_inertia_and_plans(folder, ranks):
    both, beside, null, again, inside, signs, planned, why = several(
        folder,
        [
            "eigs H.npz --mass M.npz -k 4",
            "eigs K.npz --mass M.npz -k 4",
            "eigs gauge.npz --nullspace phases.npy -k 3 -o null.npz",
            "eigs gauge.npz --nullspace phases.npy --guess null.npz --method lobpcg -k 3",
            "eigs H.npz --interval -1 1",
            "inertia H.mtx --condition",
            "plan H.mtx -k 4 --mass M.npz",
            "eigs H.npz --explain",
        ],
        ranks,
    )
    np.testing.assert_allclose(both["eigenvalues"], exact_values(folder, "H", "M")[:4], atol=1e-9)
    np.testing.assert_allclose(beside["eigenvalues"], exact_values(folder, "K", "M")[:4], atol=1e-9)
    chain = 2 - 2 * np.cos(np.pi * np.arange(N) / N)
    for one in (null, again):
        np.testing.assert_allclose(one["eigenvalues"], chain[1:4], atol=1e-8)
        assert one["deflated"] == 1 and one["count"]["certified"] and one["count"]["inertia"] == 4
    exact = exact_values(folder, "H")
    np.testing.assert_allclose(inside["eigenvalues"], exact[np.abs(exact) < 1], atol=1e-9)
    assert signs["certified"] and (signs["negative"], signs["zero"], signs["positive"]) == (
        np.count_nonzero(exact < 0), 0, np.count_nonzero(exact > 0)
    )  # fmt: skip
    assert signs["condition"] == pytest.approx(np.abs(exact).max() / np.abs(exact).min(), rel=1e-3)
    assert planned["n"] == 2 * N and "twice the size" in planned["notes"][0] and why["n"] == N


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.essential
def test_traces_densities_and_ranks_are_those_of_the_matrix_itself(folder, ranks):
    total, heat, guessed, rank, gauge, dense, outliers, planned = several(
        folder,
        [
            "trace H.mtx",
            "trace H.npz --function heat --time 1 --mass M.npz",
            "trace H.npz --method hutchinson --samples 40",
            "rank H.petsc",
            "rank gauge.npz --nullspace phases.npy",
            "density H.npz",
            "density H.npz --method lanczos --outliers 3 -o density.npz",
            "plan H.mtx --of trace",
        ],
        ranks,
    )
    exact, pencil = exact_values(folder, "H"), exact_values(folder, "H", "M")
    assert total["trace"] == pytest.approx(exact.sum(), abs=1e-12) and total["n"] == N
    assert heat["trace"] == pytest.approx(np.exp(-pencil).sum(), rel=1e-9)
    assert abs(guessed["trace"] - exact.sum()) < 4 * guessed["stderr"] and guessed["samples"] == 40
    assert (rank["rank"], rank["n"], rank["certified"]) == (N, N, True)
    assert (rank["above"], rank["below"]) == (np.count_nonzero(exact > 0), np.count_nonzero(exact < 0))
    assert (gauge["rank"], gauge["degeneracy"], gauge["certified"]) == (N - 1, 1, True)
    for one in (dense, outliers):
        assert one["n"] == N and one["real_form"]
    np.testing.assert_allclose(dense["moments"], [np.mean(exact**k) for k in range(5)], rtol=1e-9, atol=1e-12)
    assert [times for _, times in outliers["atoms"]] == [1, 1, 1]
    largest = np.sort(exact[np.argsort(-np.abs(exact))[:3]])
    np.testing.assert_allclose([place for place, _ in outliers["atoms"]], largest, atol=1e-8)
    with np.load(folder / "density.npz") as stored:
        H, X = sp.load_npz(folder / "H.npz"), stored["vectors"].view(complex).T
        np.testing.assert_allclose(H @ X, X * largest, atol=1e-7)
    assert "twice the size" in planned["notes"][0]


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.essential
def test_results_are_written_read_and_checked(folder, ranks):
    codes = [0, 0, 0, 0, 2, 2, 5]
    told = batch(
        folder,
        [
            "eigs H.mtx -k 4 -o found.npz",
            "eigs H.mtx -k 4 -o found.h5",
            "check found.npz H.petsc --json -",
            "check found.h5 H.npz",
            "check found.npz K.npz",
            "export found.h5 --mesh beam.vtu -o modes.vtu",
            "check found.npz conj.npz",
        ],
        ranks,
    )
    told_codes = [one[0][0] for one in told]
    assert told_codes[:5] == codes[:5] and "complex Hermitian" in told[0][1], told
    assert told_codes[5] == 2 and told_codes[6] not in (0, 2)
    assert "inertia 4, stored 4: agree" in told[3][1] and f"complex and has {N} rows" in told[4][2]
    assert "not the one that the result was made with" in told[6][2]
    H, exact = sp.load_npz(folder / "H.npz"), exact_values(folder, "H")
    with np.load(folder / "found.npz") as stored:
        X = stored["vectors"].view(complex).T
        np.testing.assert_allclose(H @ X, X * exact[:4], atol=1e-7)
        np.testing.assert_allclose(X.conj().T @ X, np.eye(4), atol=1e-9)
    with sh.Spectrum.load(folder / "found.h5") as found:
        assert found.real_form and sh.certify(H, found).passed


def test_what_takes_real_matrices_alone_says_so(folder):
    commands = ["inverse", "samples", "reduced", "buckling", "damped"]
    extra = {"buckling": " K.npz", "damped": " --damping K.npz", "reduced": " --fixed 0", "samples": " -o s.npz"}
    told = batch(
        folder,
        [
            *(f"{one} H.mtx{extra.get(one, '')}" for one in commands),
            "eigs symmetric.mtx",
            "eigs upper.npz",
            "eigs H.mtx --drop 0.1",
            "eigs H.mtx --participation phases.npy",
            "inertia H.mtx --direction d.npz",
            "eigs H.mtx -k 37",
        ],
        1,
    )
    assert all(one[0] == [2] for one in told), told
    assert all("rank, check and plan take Hermitian" in one[2] for one in told[:5])
    symmetric, upper, *flags, many = (one[2] for one in told[5:])
    assert "complex symmetric" in symmetric and "conjugate the entries of one triangle" in symmetric
    assert "only the upper triangle is stored, which --one-triangle" in upper and "Hermitian" in upper
    assert all("is for real matrices, and H.mtx is complex" in one for one in flags)
    assert f"k=37 eigenpairs of a matrix with {N} rows" in many
