"""The commands eigs, inertia and check: facts, stored results and their checks."""

import json

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.eigen.certificates.statement import STATEMENT
from support import DATA, answers
from support.cases import lapack, laplacian
from support.command_line import batch, facts, free_truss, run, several

EIGS_FIELDS = {
    *("schema", "task", "n", "nnz", "k", "which", "interval", "target", "method", "converged", "eigenvalues"),
    *("residuals", "orthogonality", "count", "iterations", "coloring", "evaluations", "verification"),
    *("timings", "memory", "mpi", "backend", "versions"),
}


def test_eigs_of_a_matrix_gives_the_same_on_all_ranks(problems):
    exact = laplacian(7, 8)[1]
    seen = [facts(problems, "eigs good.npz -k 5", ranks) for ranks in (1, 2, 3, 4)]
    for ranks, found in enumerate(seen, 1):
        assert set(found) >= EIGS_FIELDS
        assert found["eigenvalues"] == pytest.approx(exact[:5], abs=1e-13)
        assert found["schema"] == 1 and found["task"] == "eigs" and found["n"] == 56
        assert found["converged"] == 5 and max(found["residuals"]) < 1e-8
        assert found["count"]["certified"] and found["count"]["inertia"] == found["count"]["found"]
        assert found["coloring"] is None and found["verification"] is None
        assert found["mpi"]["size"] == ranks
        assert {"pattern", "coloring", "derivatives", "assembly", "factorization", "solve", "total"} <= set(
            found["timings"]
        )


def test_eigs_of_a_problem(problems):
    found = facts(problems, "eigs problems.py:good --set n=50 -k 4 --derivative forward --coloring cpr", 2)
    assert found["eigenvalues"] == pytest.approx(4 * np.sin(np.pi * np.arange(1, 5) / 102) ** 2, abs=1e-7)
    assert found["coloring"] == {
        "kind": "cpr",
        "order": "best",
        "rule": "template",
        "colors": 3,
        "lower_bound": 3,
        "optimal": True,
        "valid": True,
        "amplification": 1.0,
    }
    assert found["evaluations"] == {
        "gradient": 4,
        "hvp": 0,
        "energy": 0,
        "noise": 7,
        "pattern": 0,
        "verification": 2,
    }
    assert found["verification"]["passed"]


def test_rows_that_are_fixed_in_both_matrices_are_named(problems):
    """Ones on both diagonals, zeros beside them stored, as some codes hold a variable; without mass no modes."""
    K = laplacian(7, 8)[0].tolil()
    for held in (0, 30):
        K[held, :] = K[:, held] = 0.0
        K[held, held] = 0.3
    stored = K.tocsr()
    stored = sp.csr_matrix((np.r_[stored.data, 0.0], (np.r_[stored.tocoo().row, 0], np.r_[stored.indices, 1])))
    mass = np.ones(56)
    sp.save_npz(problems / "held.npz", stored)
    sp.save_npz(problems / "ones.npz", sp.diags(mass).tocsr())
    mass[[0, 30]] = 0.0
    sp.save_npz(problems / "none.npz", sp.diags(mass).tocsr())
    commands = ["eigs held.npz --mass ones.npz -k 4", "eigs held.npz --mass none.npz -k 4", "eigs held.npz -k 4"]
    for ranks in (1, 2):
        named, *others = batch(problems, commands, ranks)
        assert (
            "uncoupled    2 rows with nothing beside the diagonals" in named[1] and "as 2 of these are" in named[1]
        )
        assert not any("uncoupled" in told[1] for told in others)


def test_an_interval_and_all_negative_ones(problems):
    exact = laplacian(7, 8)[1]
    commands = ["--interval -1e-3 1.5", "--interval -inf 0.5", "--which negative"]
    found, open_, negative = several(problems, [f"eigs good.npz {asked}" for asked in commands], 2)
    assert found["eigenvalues"] == pytest.approx(exact[exact < 1.5], abs=1e-12)
    assert found["method"] == "slicing" and found["which"] == "interval" and found["interval"] == [-1e-3, 1.5]
    assert found["count"]["certified"] and found["k"] == found["converged"]
    assert open_["interval"] == [None, 0.5] and negative["converged"] == 0


def test_inertia_of_a_matrix_and_of_a_problem(problems):
    for ranks in (1, 3):
        found = facts(problems, "inertia good.npz --mass mass.npz", ranks)
        assert (found["negative"], found["zero"], found["positive"]) == (0, 0, 56)
        assert found["definite"] == "positive definite" and found["certified"] is True
    found = facts(problems, "inertia problems.py:good --set n=50", 2)
    code, out, err, _ = run(problems, "inertia good.npz --zero 0.3", 2)  # the lowest are 0.27 and more
    assert code == 4 and "certified    no: " in out and "the counts are not certain" in err
    assert found["positive"] == 50 and found["evaluations"]["gradient"] == 6 and found["coloring"]["colors"] == 3


def test_lowest_curvature_and_condition(problems):
    exact = laplacian(7, 8)[1]
    shift = (exact[3] + exact[4]) / 2
    (found,) = several(problems, ["inertia negative.npz --condition --direction low.npz"], 2)
    far = np.abs(exact - shift)
    assert found["condition"] == pytest.approx(far.max() / far.min()) and found["negative"] == 4
    assert found["lowest"]["value"] == pytest.approx(exact[0] - shift) and found["lowest"]["certified"]
    v = np.load(problems / "low.npz")["vectors"][0]
    assert v @ (laplacian(7, 8)[0] @ v) - shift == pytest.approx(exact[0] - shift)


@pytest.mark.parametrize("ranks", [1, 2])
def test_stationary_points_are_claimed_to_a_tolerance(problems, ranks):
    told = batch(
        problems,
        [
            "inertia problems.py:good --stationary 1.01 --json -",
            "inertia problems.py:good --stationary 0.99",
            "inertia problems.py:good --stationary -1",
            "inertia good.npz --stationary 1",
            "inertia problems.py:good --shell --stationary 1",
        ],
        ranks,
    )
    assert [one[0][0] for one in told] == [0, 4, 2, 2, 2], told
    found = answers.parse(told[0][1])["stationary"]
    # From (1, 1, ...) the minimum of a quadratic function is one step away, at 0, which lowers it by xᵀHx/2 = 1.
    assert found["index"] == 0 and found["step_max"] == pytest.approx(1.0) and found["stationary"]
    assert found["energy_change"] == pytest.approx(-1.0) and found["left"] < 1e-8
    assert found["eigenvalues"][0] == pytest.approx(2 - 2 * np.cos(np.pi / 31), rel=1e-6)
    assert "NOT STATIONARY to 0.99: the Newton step is 1;" in told[1][1] and "no stationary point" in told[1][2]
    assert "has no gradient" in told[3][2] and "leave out --shell" in told[4][2]


def without(problems, source, target, kept):
    """Write a stored result again with some of its pairs alone."""
    with np.load(problems / source) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["eigenvalues"], arrays["vectors"] = arrays["eigenvalues"][kept], arrays["vectors"][kept]
    if not len(arrays["eigenvalues"]):
        arrays["vectors"] = np.empty((0, 0))
    np.savez(problems / target, **arrays)


def test_results_of_commands_and_of_python_are_one(problems):
    import sparsehess as sh

    several(problems, ["eigs good.npz -k 3 -o cli.npz"], 2)
    with sh.Spectrum.load(problems / "cli.npz") as found:
        assert found.converged == 3 and found.count.certified and found.method == "krylovschur"
        assert found.to_numpy()[1].shape[1] == 3 and found.spec.k == 3
        found.save(problems / "api.npz")
    (checked,) = several(problems, ["check api.npz good.npz"], 1)
    assert checked["passed"] and checked["wanted"] == 3 and checked["count"]["certified"]


@pytest.mark.parametrize(
    "ranks", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_stored_results_are_checked(problems, ranks):
    """What is true passes on any number of ranks; a changed number, a missing pair or another matrix does not."""
    import h5py

    asked = [
        ("s.h5", "good.npz", "-k 4 --mass mass.npz", 4),
        ("t.npz", "good.npz", "--interval 0 1.5", None),
        ("k.npz", "good.npz", "-k 4 --mass mass.npz", 4),
        ("n.npz", "negative.npz", "--which negative", 4),
        ("m.npz", "negative.npz", "--which negative -k 2", 2),
        ("none.npz", "good.npz", "--which negative", 0),
    ]
    made = several(problems, [f"eigs {source} {flags} -o {name}" for name, source, flags, _ in asked], ranks)
    mass = ["--mass mass.npz" if "mass" in flags else "" for _, _, flags, _ in asked]
    checks = [f"check {name} {source} {more}" for (name, source, _, _), more in zip(asked, mass, strict=True)]
    for found, one, (_, _, _, k) in zip(several(problems, checks, ranks), made, asked, strict=True):
        assert found["passed"] and found["count"]["certified"] and found["residual"] < 1e-8
        assert one["converged"] == found["k"] == found["wanted"] and k in (None, found["k"])
    with h5py.File(problems / "s.h5", "r+") as file:
        file["eigenvalues"][1] += 1e-3
    wrong = ["check s.h5 good.npz", "check s.h5 good.npz --mass mass.npz", "check none.npz negative.npz"]
    without(problems, "t.npz", "u.npz", [0, 1, 3])
    wrong.append("check u.npz good.npz")
    for number, ((name, source, _, _), more) in enumerate(zip(asked[2:5], mass[2:5], strict=True)):
        without(problems, name, f"last{number}.npz", slice(0, -1))
        without(problems, name, f"all{number}.npz", slice(0, 0))
        wrong += [f"check last{number}.npz {source} {more}", f"check all{number}.npz {source} {more}"]
    for command, (codes, out, _, _) in zip(wrong, batch(problems, wrong, ranks), strict=True):
        assert codes == [4] and "DOES NOT HOLD" in out, command


def test_methods_and_shells(problems):
    exact = laplacian(7, 8)[1]
    commands = [
        "eigs good.npz -k 3 --method lobpcg",
        "eigs good.npz --interval 0 1 --method feast",
        "eigs problems.py:good --set n=50 -k 2 --which largest --shell",
    ]
    lobpcg, feast, found = several(problems, commands, 2)
    assert lobpcg["eigenvalues"] == pytest.approx(exact[:3])
    assert feast["method"] == "feast" and feast["eigenvalues"] == pytest.approx(exact[exact < 1])
    code, out, _, _ = run(problems, "eigs good.npz -k 40 --explain", 1)
    assert code == 0 and "dense" in out and "40 of 56" in out
    assert found["nnz"] is None and found["count"]["certified"] and found["evaluations"]["gradient"] > 0
    assert found["eigenvalues"] == pytest.approx(4 * np.cos(np.pi * np.arange(2, 0, -1) / 102) ** 2, abs=1e-7)


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_projected_out_is_told(problems, ranks):
    H = 2 * np.eye(30) - np.eye(30, k=1) - np.eye(30, k=-1)
    P = np.eye(30) - 1 / 30
    exact, raw = np.linalg.eigvalsh(P @ H @ P)[1:], np.linalg.eigvalsh(H)
    found, signs, total, checked, bare = several(
        problems,
        [
            "eigs problems.py:leaning -k 29 -o leaning.h5",
            "inertia problems.py:leaning",
            "trace problems.py:leaning",
            "check leaning.h5 problems.py:leaning",
            "eigs problems.py:leaning -k 30 --nullspace none",
        ],
        ranks,
    )
    assert found["eigenvalues"] == pytest.approx(exact) and found["count"]["inertia"] == 30
    change = found["projected"]
    assert change["resisted"] == pytest.approx([H.mean() * 30]) and change["exact"]
    moved = np.array(found["eigenvalues"]) + change["moved"]
    assert np.abs(moved[:, None] - raw).min(axis=1).max() < 1e-8
    assert len(change["frequencies"]["moved"]) == 29
    assert (signs["negative"], signs["zero"], signs["positive"]) == (0, 1, 29) and signs["projected"] == 1
    assert total["trace"] == pytest.approx(exact.sum()) and checked["passed"]
    assert bare["eigenvalues"] == pytest.approx(raw) and bare["projected"] is None and bare["deflated"] == 0
    told = batch(problems, ["eigs problems.py:leaning -k 2", "inertia problems.py:leaning"], ranks)
    assert "whatever the Hessian says of them: all together" in told[0][1] and "to second order" in told[0][1]
    assert "1 of the zeros are directions that are projected out" in told[1][1]


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_null_spaces_guesses_and_preconditioners(problems, ranks):
    exact = np.linalg.eigvalsh(free_truss(5)[0].toarray())
    rigid = "--coordinates nodes.npy --nullspace rigid"
    found, cold, warm, checked, near = several(
        problems,
        [
            f"eigs truss.npz -k 4 {rigid} -o truss.h5",
            f"eigs truss.npz -k 4 {rigid} --method lobpcg",
            f"eigs truss.npz -k 4 {rigid} --method lobpcg --guess truss.h5",
            f"check truss.h5 truss.npz {rigid}",
            "eigs good.npz -k 3 --preconditioner negative.npz",
        ],
        ranks,
    )
    assert found["eigenvalues"] == pytest.approx(exact[3:7]) and found["deflated"] == 3 and checked["passed"]
    assert warm["eigenvalues"] == pytest.approx(cold["eigenvalues"]) and warm["iterations"] < cold["iterations"]
    assert near["method"] == "gd" and near["eigenvalues"] == pytest.approx(laplacian(7, 8)[1][:3])
    told = batch(problems, [f"eigs truss.npz -k 3 {rigid}", "check truss.h5 truss.npz"], ranks)
    assert told[0][0] == [0] and "3 null vectors: translation x, translation y, rotation z" in told[0][1]
    assert told[1][0] == [4]  # the three are not among those stored


def test_mass_target_and_results(problems):
    command = "eigs good.npz --mass mass.npz --target 1.0 -k 3 --plot r.png -q -o r."
    for codes, out, err, _ in batch(problems, [command + suffix for suffix in ("h5", "npz")], 2):
        assert (codes, out) == ([0], ""), err
    assert (problems / "r.png").read_bytes()[:4] == b"\x89PNG"
    exact = laplacian(7, 8)[1] / 2
    wanted = np.sort(exact[np.argsort(np.abs(exact - 1.0))[:3]])
    import h5py

    with h5py.File(problems / "r.h5") as file:
        values, vectors, text = file["eigenvalues"][()], file["vectors"][()], file.attrs["json"]
    assert values == pytest.approx(wanted, abs=1e-12)
    assert answers.parse(text)["eigenvalues"] == pytest.approx(values.tolist())
    matrix = laplacian(7, 8)[0]
    assert np.abs(matrix @ vectors.T - 2 * vectors.T * values).max() < 1e-10
    with np.load(problems / "r.npz") as archive:
        assert archive["vectors"].shape == (3, 56)


def test_status_3_writes_what_converged(problems):
    if not DATA.exists():
        pytest.skip("no data beside the project")
    data = DATA / "hb_bcsst01"
    code, _, err, _ = run(problems, f"eigs {data}_K.npz --mass {data}_M.npz -k 30 --json few.json")
    assert code == 3 and "24 of 24" in err
    found = answers.parse((problems / "few.json").read_text())
    assert found["converged"] == 24 and found["count"]["certified"]
    exact = lapack(sp.load_npz(f"{data}_K.npz"), sp.load_npz(f"{data}_M.npz"))
    assert found["eigenvalues"] == pytest.approx(exact, abs=1e-9 * exact.max())


def test_a_raw_hessian_of_a_code_and_its_zero_modes(problems):
    """Differences of forces as a code gives them: asymmetric in the ninth digit, six zero modes at that level."""
    path = DATA / "ase_cu147_fdhessian_raw.npz"
    if not path.exists():
        pytest.skip("no data beside the project")
    raw = np.load(path)["H"]
    exact = np.linalg.eigvalsh((raw + raw.T) / 2)
    for ranks in (1, 3):
        found = facts(problems, f"eigs {path} -k 16", ranks)
        assert found["eigenvalues"] == pytest.approx(exact[:16], abs=1e-9 * exact.max())
        assert found["zeros"] == 6 and found["count"]["certified"]


def test_a_check_says_what_the_result_was_made_of(problems):
    """Without the mass, with one too many, of another matrix; results that do not tell pass as they did."""
    scaled = laplacian(7, 8)[0] * 2
    sp.save_npz(problems / "twice.npz", scaled)
    made = ["-k 3 --mass mass.npz -o with.npz", "-k 3 -o without.npz"]
    several(problems, [f"eigs good.npz {flags}" for flags in made], 1)
    with np.load(problems / "with.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    told = answers.parse(str(arrays["json"]))
    assert told["inputs"]["mass"]["path"] == "mass.npz" and len(told["inputs"]["matrix"]["digest"]) == 16
    del told["inputs"]
    np.savez(problems / "older.npz", **{**arrays, "json": np.array(json.dumps(told))})
    told["inputs"] = ["nonsense"]
    np.savez(problems / "odd.npz", **{**arrays, "json": np.array(json.dumps(told))})
    expected = [
        (
            "with.npz good.npz",
            4,
            "was made with a mass matrix (mass.npz), and none is given here: --mass mass.npz",
        ),
        ("without.npz good.npz --mass mass.npz", 4, "was made without a mass matrix, and one is given here"),
        ("without.npz twice.npz", 4, "the matrix is not the one that the result was made with (good.npz)"),
        ("with.npz good.npz --mass twice.npz", 4, "the mass matrix is not the one that the result was made with"),
        ("with.npz good.npz --mass mass.npz", 0, ""),
        ("older.npz good.npz --mass mass.npz", 0, ""),
        ("odd.npz good.npz --mass mass.npz", 0, ""),
        ("older.npz good.npz", 4, "see the report"),
    ]
    for (words, status, says), (codes, out, err, _) in zip(
        expected, batch(problems, [f"check {words}" for words, _, _ in expected], 1), strict=True
    ):
        assert codes == [status] and says in err, (words, err)
        assert ("differs" in out) == (status == 4 and "report" not in says), words


@pytest.mark.parametrize("ranks", [1, 3])
def test_what_files_are_like_is_said(problems, ranks):
    """One triangle, both triangles under a head that says symmetric, few digits."""
    matrix, exact = laplacian(7, 8)
    whole = sp.coo_matrix(matrix)
    sp.save_npz(problems / "upper.npz", sp.triu(matrix, format="csr"))
    lines = "".join(
        f"{i + 1} {j + 1} {v!r}\n" for i, j, v in zip(whole.row, whole.col, whole.data.tolist(), strict=True)
    )
    head = f"%%MatrixMarket matrix coordinate real symmetric\n56 56 {whole.nnz}\n"
    (problems / "both.mtx").write_text(head + lines)
    size = 10.0 ** np.random.default_rng(0).uniform(-2, 2, 56)
    few = sp.coo_matrix(sp.diags(size) @ matrix @ sp.diags(size))
    text = "".join(
        f"{i + 1} {j + 1} {v:.3e}\n" for i, j, v in zip(few.row, few.col, few.data.tolist(), strict=True)
    )
    (problems / "few.mtx").write_text(head + text)
    (problems / "job.toml").write_text('command = "eigs"\ninput = "upper.npz"\nk = 3\none-triangle = true\n')
    triangle, job, inertia, both, digits, plan = several(
        problems,
        [
            "eigs upper.npz -k 3 --one-triangle",
            "eigs job.toml",
            "inertia good.npz --mass upper.npz --one-triangle",
            "eigs both.mtx -k 3",
            "eigs few.mtx -k 3",
            "plan upper.npz --one-triangle",
        ],
        ranks,
    )
    for found in (triangle, job, both):
        assert found["eigenvalues"] == pytest.approx(exact[:3]) and len(found["notes"]) == 1
        assert found["digits"] is None and found["rounding"] is None
    assert "upper.npz: its upper triangle alone" in triangle["notes"][0] and plan["notes"] == triangle["notes"]
    assert inertia["positive"] == 56 and "upper triangle" in inertia["notes"][0]
    assert "each entry is taken once" in both["notes"][0]
    assert digits["digits"] == 4 and digits["rounding"]["matrix"] == "4 digits" and not digits["rounding"]["mass"]
    written = sp.coo_matrix(([float(f"{v:.3e}") for v in few.data], (few.row, few.col))).toarray()
    assert digits["eigenvalues"] == pytest.approx(np.linalg.eigvalsh(written)[:3])
    moved = np.abs(np.linalg.eigvalsh(few.toarray())[:3] - digits["eigenvalues"])
    assert (moved <= digits["rounding"]["errors"]).all()
    (codes, out, *_), (refused, _, why, _) = batch(problems, ["eigs few.mtx -k 3", "eigs upper.npz"], ranks)
    assert codes == [0] and "digits       entries have 4 digits: λ1 is " in out
    assert refused == [2] and "only the upper triangle is stored, which --one-triangle" in why


def test_check_explains_what_a_certificate_proves(problems):
    code, out, err, _ = run(problems, "check --explain", 1)
    assert code == 0 and not err and "Sylvester" in out and "Margin." in out and "Not proven:" in out
    assert out.strip() == STATEMENT.strip()


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_numbers_whose_squares_are_none(problems, size):
    """Pairs, counts and checks are those of the matrix in other units; estimates are refused by name."""
    matrix, exact = laplacian(7, 8)
    sp.save_npz(problems / "units.npz", matrix * size)
    low, high = 0.5 * (exact[4] + exact[5]) * size, 0.5 * (exact[9] + exact[10]) * size
    commands = [
        "eigs units.npz -k 3 -o units.h5",
        f"eigs units.npz --interval {low!r} {high!r}",
        "inertia units.npz",
        "check units.h5 units.npz",
        "plan units.npz",
    ]
    found, inside, signs, checked, plan = several(problems, commands, 2)
    assert found["eigenvalues"] == pytest.approx(exact[:3] * size, rel=1e-10) and found["count"]["certified"]
    assert inside["eigenvalues"] == pytest.approx(exact[5:10] * size, rel=1e-10) and inside["count"]["certified"]
    assert (
        (signs["zero"], signs["positive"]) == (0, 56)
        and signs["threshold"] < 1e-9 * size
        and checked["passed"]
        and plan["advice"] is None
    )
    for codes, _, err, _ in batch(
        problems, [f"{name} units.npz" for name in ("density", "trace --function heat --time 1", "rank")], 1
    ):
        assert codes == [2] and "the squares of such numbers are none: scale the matrix" in err


def test_a_variable_without_stiffness_and_mass_is_named(problems):
    matrix, exact = laplacian(7, 8)
    hole = matrix.tolil()
    hole.resize((57, 57))
    mass = sp.diags(np.r_[np.ones(56), 0.0])
    sp.save_npz(problems / "hole.npz", hole.tocsr())
    sp.save_npz(problems / "some.npz", mass.tocsr())
    words = "hole.npz --mass some.npz"
    commands = [f"eigs {words} -k 3 -o hole.h5", f"inertia {words}", f"check hole.h5 {words}"]
    found, signs, checked = several(problems, commands, 2)
    assert found["held"] == signs["held"] == checked["held"] == [56] and checked["passed"]
    assert found["eigenvalues"] == pytest.approx(exact[:3]) and (signs["positive"], signs["infinite"]) == (56, 1)
    for codes, out, _, _ in batch(problems, commands, 1):
        assert codes == [0] and "row 56 is empty in both matrices" in out


def test_bars_hold_what_a_loose_tolerance_leaves(tmp_path):
    """The lowest of a chain that is moved to 1e-9 has a sign that residuals of 1e-6 do not tell."""
    lowest = 2 - 2 * np.cos(np.pi / 31)
    chain = sp.diags([-np.ones(29), (2 - lowest + 1e-9) * np.ones(30), -np.ones(29)], [-1, 0, 1])
    pair = sp.block_diag([chain, chain + 1e-4 * sp.eye(30)]).tocsr()
    sp.save_npz(tmp_path / "pair.npz", pair)
    exact = np.linalg.eigvalsh(pair.toarray())
    loose, tight = batch(
        tmp_path,
        ["eigs pair.npz -k 2 --method lobpcg --tol 1e-2 --count no", "eigs pair.npz -k 2 --json pair.json"],
        2,
    )
    assert loose[0] == [0] and "sign open" in loose[1] and "what the solver left, by the residuals" in loose[1]
    rows = [line.split() for line in loose[1].splitlines() if line[:4].strip() in {"1", "2"}]
    for (_, value, bar, *_), true in zip(rows, exact, strict=False):
        assert abs(float(value) - true) <= float(bar) < 1e-3
    assert tight[0] == [0] and "sign open" not in tight[1]
    found = json.loads((tmp_path / "pair.json").read_text())
    assert found["eigenvalues"] == pytest.approx(exact[:2], abs=1e-13)
    assert max(found["solver_errors"]) < 1e-12 and len(rows) == 2
