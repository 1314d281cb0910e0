"""The commands density, trace and rank."""

import numpy as np
import pytest

from support.cases import laplacian
from support.command_line import run, several


@pytest.mark.parametrize(
    "ranks", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_density_trace_and_rank(problems, ranks):
    exact = laplacian(7, 8)[1]
    density, mass, inverse, gap, blind, signs = several(
        problems,
        [
            "density good.npz --outliers 2 -o d.npz --plot d.png",
            "trace good.npz --mass mass.npz",
            "trace good.npz --function inverse --samples 40 --method hutchinson",
            "rank truss.npz --threshold gap",
            "rank problems.py:good --set n=50 --shell",
            "inertia problems.py:good --set n=50 --shell",
        ],
        ranks,
    )
    assert density["moments"][1] == pytest.approx(exact.mean(), abs=5 * density["moments_stderr"][1] + 1e-12)
    assert density["method"] == "dense" and density["moments_stderr"][1] == 0
    below = np.interp(4.0, density["grid"], density["cumulative"])
    assert below == pytest.approx(np.mean(exact <= 4.0), abs=0.1)
    assert [atom[0] for atom in density["atoms"]] == pytest.approx(exact[-2:])
    assert (problems / "d.png").read_bytes()[:4] == b"\x89PNG" and len(
        np.load(problems / "d.npz")["density"]
    ) == 512
    assert mass["trace"] == pytest.approx(exact.sum() / 2) and mass["stderr"] == 0
    assert abs(inverse["trace"] - (1 / exact).sum()) < 5 * inverse["stderr"] and inverse["samples"] == 40
    assert (gap["rank"], gap["degeneracy"], gap["certified"]) == (47, 3, True)
    assert blind["method"] == "inertia" and blind["certified"] and blind["rank"] == 50
    assert signs["positive"] == 50 and signs["certified"] and signs["evaluations"]["gradient"] > 100


def test_what_an_estimate_falls_short_of_is_said(problems):
    code, out, err, _ = run(problems, "trace negative.npz --method xtrace --tol 1e-9 --samples 12", 1)
    assert code == 3 and "± " in out and "is more than --tol" in err
