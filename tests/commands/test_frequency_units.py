"""Frequencies of eigs: what is shown, and what --interval and --target ask for in them."""

import argparse
import re

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.commands.eigenpair_commands import EIGENPAIR_GROUPS
from sparsehess.derivatives.units import FREQUENCIES
from support.cases import laplacian
from support.command_line import batch, facts, several

EXACT = laplacian(7, 8)[1] / 2  # of K with the mass 2


@pytest.fixture
def pencil(problems):
    sp.save_npz(problems / "mass.npz", 2.0 * sp.eye(56, format="csr"))
    return problems


def test_flags_know_all_frequencies():
    parser = argparse.ArgumentParser()
    for group in EIGENPAIR_GROUPS[1:2]:
        group.add_to(parser)
    choices = next(one.choices for one in parser._actions if one.dest == "units")
    assert tuple(choices) == FREQUENCIES


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_units_of_matrix_files(pencil, ranks):
    """Consistent units give ω and ω/2π, N/mm over kg a thousand 1/s²; eigenvalues are as before."""
    omega = np.sqrt(EXACT[:3])
    asked = [
        "--units Hz",
        "--units rad/s",
        "--units rad/s --matrix-units N/mm kg",
        "--units THz --matrix-units N/mm t",
    ]
    found = several(pencil, [f"eigs good.npz --mass mass.npz -k 3 {flags}" for flags in asked], ranks)
    sizes = [1 / (2 * np.pi), 1.0, np.sqrt(1000.0), 1e-12 / (2 * np.pi)]
    for one, size, flags in zip(found, sizes, asked, strict=True):
        assert one["frequencies"]["values"] == pytest.approx(size * omega), flags
        assert one["frequencies"]["unit"] == flags.split()[1] == one["units"]["frequency"]
        assert one["units"]["factor"] == pytest.approx(size)
        assert one["eigenvalues"] == pytest.approx(EXACT[:3])
    assert found[0]["units"]["matrices"] is None and found[2]["units"]["matrices"] == ["N/mm", "kg"]


def test_places_are_frequencies(pencil):
    """Of H = K - 0.3 M, with imaginary frequencies too; ends between neighbours, of either sign."""
    K = laplacian(7, 8)[0]
    sp.save_npz(pencil / "saddle.npz", sp.csr_matrix(K - 2 * 0.3 * sp.eye(56)))
    values = EXACT - 0.3
    omega = np.sign(values) * np.sqrt(np.abs(values))
    middle = (omega[1:] + omega[:-1]) / 2
    assert omega[0] < 0 < omega[4]
    low, high, near = middle[0], middle[5], omega[3] + 0.1 * (omega[4] - omega[3])
    line = "eigs saddle.npz --mass mass.npz --units rad/s"
    (pencil / "band.toml").write_text(
        f'command = "eigs"\ninput = "saddle.npz"\nmass = "mass.npz"\nunits = "Hz"\nmatrix-units = ["N/mm", "kg"]\n'
        f"interval = [{low * np.sqrt(1000) / (2 * np.pi)!r}, inf]\n".replace("np.float64(", "").replace(")", "")
    )
    commands = [f"{line} --interval {low:.17g} {high:.17g}", f"{line} -k 1 --target {near:.17g}", "eigs band.toml"]
    band, target, job = several(pencil, commands, 2)
    assert band["eigenvalues"] == pytest.approx(values[1:6]) and band["count"]["certified"]
    assert band["frequencies"]["values"] == pytest.approx(omega[1:6])
    assert band["units"]["interval"] == pytest.approx([low, high])
    assert band["interval"] == pytest.approx([np.sign(low) * low**2, high**2])
    assert target["eigenvalues"] == pytest.approx([values[3]]) and target["units"]["target"] == pytest.approx(near)
    assert job["eigenvalues"] == pytest.approx(values[1:]) and job["units"]["interval"][1] is None
    shown = batch(pencil, [commands[0], f"plan {commands[0][5:]}"], 2)
    assert shown[0][0] == [0] and f"asked for    all from {-low:g}i rad/s to {high:g} rad/s" in shown[0][1]
    assert shown[1][0] == [0]


def test_units_that_a_problem_brings_are_converted(problems):
    (problems / "atoms.py").write_text(
        "import numpy as np\nimport scipy.sparse as sp\nimport sparsehess as sh\nk = np.array([1.0, 4.0, 9.0])\n"
        "def springs(comm=None):\n"
        "    units, lines = sh.Units.of('J', 'm', 'kg', 'Hz'), sh.Pattern.from_scipy(sp.eye(3, format='csr'))\n"
        "    return sh.Objective(gradient=lambda x: k * x, x=np.zeros(3), pattern=lines, units=units)\n"
    )
    found = facts(problems, "eigs atoms.py:springs --units rad/s --interval 1.5 3.5", 1)
    assert found["frequencies"]["values"] == pytest.approx([2.0, 3.0])


def test_counts_are_told_in_frequencies(pencil):
    flags = "--mass mass.npz --units rad/s -k 3"
    _, printed, *_ = batch(pencil, [f"eigs good.npz {flags}"], 1)[0]
    line = next(one for one in printed.splitlines() if one.startswith("count "))
    told = re.search(r"3 below ([0-9.]+) rad/s \(λ below ([0-9.]+)\)", line)
    assert told is not None, line
    assert float(told[1]) ** 2 == pytest.approx(float(told[2]), rel=1e-4) and EXACT[2] < float(told[2]) < EXACT[3]


def test_a_problem_without_units_is_refused_before_it_is_differentiated(problems):
    (problems / "bare.py").write_text(
        "import numpy as np\nimport scipy.sparse as sp\nimport sparsehess as sh\n"
        "def gradient(x):\n    raise RuntimeError('evaluated')\n"
        "def springs(comm=None):\n"
        "    lines = sh.Pattern.from_scipy(sp.eye(3, format='csr'))\n"
        "    return sh.Objective(gradient=gradient, x=np.zeros(3), pattern=lines)\n"
    )
    statuses, _, told, *_ = batch(problems, ["eigs bare.py:springs --units cm^-1 -k 1"], 1)[0]
    assert statuses == [2] and "--units cm^-1: there is no mass" in told and "evaluated" not in told, told


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--units cm^-1 --mass mass.npz", "--units cm^-1: say with --matrix-units STIFFNESS MASS"),
        ("--units Hz", "there is no mass"),
        ("--units furlong", "invalid choice"),
        ("--matrix-units N/m kg", "no frequencies are asked for"),
        ("--units Hz --matrix-units N kg", "is no stiffness"),
        ("--units Hz --mass mass.npz --interval 3 1", "exchange them"),
        ("--units Hz --mass mass.npz --target 1e300 -k 1", "beyond all numbers"),
    ],
)
def test_mistakes_in_units(pencil, flags, said):
    statuses, _, told, *_ = batch(pencil, [f"eigs good.npz {flags}"], 1)[0]
    assert statuses == [2] and said in told, told
