"""`eigs --pattern near`: pairs of the Hessian itself, against LAPACK of second derivatives in closed form."""

import numpy as np
import pytest

from support.command_line import batch, several

IONS = """
import numpy as np
import sparsehess as sh


def places(side):
    axis = np.arange(int(side))
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return 1.2 * grid + 0.03 * np.sin(np.arange(grid.size)).reshape(grid.shape), (-1.0) ** grid.sum(axis=1)


def ions(comm, side=4, flat=0, told=1):  # q q' / r + 0.19 / r^9
    points, charges = places(side)

    def gradient(x):
        apart = x.reshape(-1, 1, 3) - x.reshape(1, -1, 3)
        r = np.sqrt((apart**2).sum(axis=2) + np.eye(len(apart)))
        force = -np.outer(charges, charges) / r**3 - 1.7 / r**11
        np.fill_diagonal(force, 0.0)
        return (force[..., None] * apart).sum(axis=1).ravel()

    cell = [[9, 1, 0], [18, 2, 0], [0, 0, 9]] if int(flat) else None
    geometry = sh.Geometry(points, charges=charges, cell=cell) if int(told) else None
    return sh.Objective(x=points.ravel(), gradient=gradient, comm=comm, geometry=geometry, name="ions")
"""


NOWHERE = """

def nowhere(comm):  # nothing may be evaluated
    def gradient(x):
        raise RuntimeError("evaluated")

    points = places(4)[0]
    return sh.Objective(x=points.ravel(), gradient=gradient, comm=comm, geometry=sh.Geometry(points))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("near")
    (place / "problem.py").write_text(IONS + NOWHERE)
    return place


def hessian(points, charges):
    """Return (n, n) second derivatives: -(f'' - f'/r) r r / r² - f'/r I between two ions of energy f(r)."""
    apart = points[:, None] - points[None]
    r = np.sqrt((apart**2).sum(axis=2) + np.eye(len(points)))
    qq = np.outer(charges, charges)
    steep = -qq / r**3 - 1.7 / r**11
    bent = 2 * qq / r**3 + 17.0 / r**11
    blocks = -((bent - steep) / r**2)[..., None, None] * apart[..., :, None] * apart[..., None, :]
    blocks -= steep[..., None, None] * np.eye(3)
    each = np.arange(len(points))
    blocks[each, each] = 0.0
    blocks[each, each] = -blocks.sum(axis=1)
    return blocks.transpose(0, 2, 1, 3).reshape(points.size, points.size)


@pytest.fixture(scope="module")
def exact(folder):
    names = {}
    exec(compile(IONS, str(folder / "problem.py"), "exec"), names)
    return np.linalg.eigvalsh(hessian(*names["places"](5)))


@pytest.mark.essential
@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
def test_pairs_are_those_of_the_hessian_itself(folder, exact, ranks):
    asked = "eigs problem.py:ions --set side=5 -k 3 --pattern near --budget-gradients 100"
    (told,) = several(folder, [asked], ranks)
    assert (np.abs(told["eigenvalues"] - exact[:3]) <= told["errors"]).all()
    assert np.abs(told["eigenvalues"] - exact[:3]).max() < 1e-7
    assert told["near_far"]["functions"] > 0 and told["near_far"]["error"] < 1e-5
    assert sum(told["evaluations"].values()) < 200 and told["evaluations"]["refinement"] > 0
    assert told["method"] == "davidson" and told["coloring"]["valid"]
    assert told["nnz"] < told["n"] ** 2


def test_what_is_near_and_far_is_told(folder):
    ((codes, out, _, _),) = batch(folder, ["eigs problem.py:ions -k 2 --pattern near -o pairs.h5"], 1)
    assert codes == [0]
    assert "radial functions, fitted" in out or "nothing is far" in out
    assert "± is a bound, from residuals of true products and their noise" in out


def test_explain_tells_what_it_takes_and_evaluates_nothing(folder):
    asked = "eigs problem.py:ions --set side=5 -k 3 --pattern near --budget-gradients 100"
    before, whole, after = several(
        folder, [f"{asked} --explain", "eigs problem.py:ions --set side=3 --pattern near --explain", asked], 1
    )
    told, found = before["near_far"], after["near_far"]
    assert before["n"] == after["n"] == 375 and before["method"] == after["method"] == "davidson"
    assert told["cutoff"] == pytest.approx(found["cutoff"], rel=0.15)
    assert told["nnz"] == pytest.approx(after["nnz"], rel=0.3) and told["pairs"] == 125**2
    calls = sum(after["evaluations"].values()) - after["evaluations"]["refinement"]
    assert told["gradients"] <= 100 and told["gradients"] == pytest.approx(calls, abs=15)
    assert 0 < told["seconds"] < 10 and told["bytes"] > 8 * told["nnz"]
    assert whole["near_far"]["pairs"] == 0 and whole["near_far"]["seconds"] == 0
    ((codes, out, _, _),) = batch(folder, ["eigs problem.py:nowhere --pattern near --explain"], 1)
    assert codes == [0] and "each product takes 4,096 pairs of points" in out and "on 1 rank" in out


@pytest.mark.parametrize(
    "command, words",
    [
        ("eigs problem.py:ions --pattern near --which largest", "--which: --pattern near finds the lowest pairs"),
        ("eigs problem.py:ions --pattern near --coloring acyclic", "a star colouring of its own"),
        ("eigs problem.py:ions --pattern near --explain -o pairs.h5", "--explain solves nothing"),
        ("eigs problem.py:ions --pattern near --shell", "--shell assembles nothing"),
        ("eigs problem.py:ions --budget-gradients 9", "only --pattern near has a budget of gradients"),
        ("eigs problem.py:ions --pattern near -- -eps_ncv 9", "--pattern near takes no options of PETSc"),
        ("eigs problem.py:ions --set flat=1 --pattern near", "do not span 3 directions"),
        ("eigs problem.py:ions --set told=0 --pattern near", "does not say where its points are"),
        ("eigs problem.py:ions --pattern near --budget-gradients 0", "gradients"),
        ("inertia problem.py:ions --pattern near", "eigs finds the lowest pairs of a problem"),
        ("plan problem.py:ions --pattern near", "eigs finds the lowest pairs of a problem"),
        ("assemble problem.py:ions --pattern near -o h.npz", "eigs finds the lowest pairs of a problem"),
    ],
)
def test_what_nothing_heeds_is_refused(folder, command, words):
    ((codes, _, err, _),) = batch(folder, [command], 1)
    assert codes == [2] and words in err, err
