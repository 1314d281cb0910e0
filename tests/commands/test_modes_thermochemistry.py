"""Thermochemistry by the command modes: what the function gives, what is told of it, and what is refused."""

import json

import numpy as np
import pytest

import sparsehess as sh
from support.command_line import batch, several

pytest.importorskip("ase")

from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("thermochemistry")
    write(place / "dimer.xyz", Atoms("CO", [[0.3, 0.2, 0.1], [0.9, 0.9, 0.65]]))
    boxed = Atoms("CO", [[0.3, 0.2, 0.1], [0.9, 0.9, 0.65]], cell=[9, 9, 9], pbc=True)
    boxed.positions -= boxed.positions[0]
    boxed.positions[1] += [9, 0, 0]  # across the border
    write(place / "boxed.xyz", boxed)
    write(place / "wire.xyz", Atoms("Cu3", [[0, 0, 2.2 * i] for i in range(3)]))
    (place / "rounded.py").write_text(
        "import numpy as np\nfrom ase.calculators.emt import EMT\n\n\nclass Rounded(EMT):\n"
        "    def calculate(self, *given, **named):\n        super().calculate(*given, **named)\n"
        '        self.results["forces"] = np.round(self.results["forces"], 4)\n'
    )
    return place


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
def test_quantities_are_those_of_the_function(folder, ranks):
    gas, rounded, wire, none, boxed, blind = several(
        folder,
        [
            "modes dimer.xyz --calculator emt --temperature 500 --pressure 2e5 --symmetry-number 1 --spin 1 "
            "--geometry linear -o dimer.npz",
            "modes dimer.xyz --calculator rounded.py:Rounded --temperature 500 --thermo-model harmonic",
            "modes wire.xyz --calculator emt --temperature 298.15 --imaginary omit --low-modes msrrho "
            "--low-cutoff 60",
            "modes dimer.xyz --calculator emt",
            "modes boxed.xyz --calculator emt --molecule --temperature 500 --pressure 2e5 --spin 1",
            "modes boxed.xyz --calculator emt",
        ],
        ranks,
    )
    assert none["thermochemistry"] is None
    atoms = read(folder / "dimer.xyz")
    atoms.calc = EMT()
    with sh.normal_modes(atoms) as modes:
        own = sh.thermochemistry(modes, 500.0, 2e5, symmetry_number=1, spin=1).quantities()
    told = {one["name"]: one for one in gas["thermochemistry"]["quantities"]}
    assert list(told) == list(own)
    for name, one in own.items():
        assert told[name]["value"] == pytest.approx(one.value, abs=1e-6 * max(1, abs(one.value)))
        assert told[name]["low"] <= told[name]["value"] <= told[name]["high"]
        assert told[name]["unit"] == ("eV/K" if name == "entropy" else "eV")
    assert gas["thermochemistry"]["spin"] == 1 and gas["thermochemistry"]["geometry"] == "linear"
    for one, other in zip(told.values(), boxed["thermochemistry"]["quantities"], strict=True):
        assert one["name"] == other["name"] and one["value"] == pytest.approx(other["value"], abs=1e-5)
    assert boxed["k"] == 1 and blind["k"] == 3 and not any("--molecule" in note for note in boxed["notes"])
    assert "--molecule" in blind["notes"][-1]
    # Rounded to four decimals, the bar is longer; as an estimate it covers to a factor.
    bars = {one["name"]: one for one in rounded["thermochemistry"]["quantities"]}
    assert "gibbs" not in bars and rounded["thermochemistry"]["pressure"] is None
    wide, narrow = (one["zero_point"]["high"] - one["zero_point"]["low"] for one in (bars, told))
    assert wide > 100 * narrow
    assert abs(bars["zero_point"]["value"] - told["zero_point"]["value"]) <= wide  # which is twice the bar
    assert wire["thermochemistry"]["used"] == [False, False, True, True]
    assert wire["thermochemistry"]["cutoff"] == 60 and "left out" in wire["thermochemistry"]["notes"][0]
    with np.load(folder / "dimer.npz") as stored:
        answer = json.loads(str(stored["json"]))["answer"]
    assert "Gibbs" in answer and "kJ/mol" in answer and "500 K and 200000 Pa, linear" in answer


def test_what_is_said(folder):
    thermal = "modes dimer.xyz --calculator emt --temperature 300"
    cases = [
        ("modes wire.xyz --calculator emt --temperature 300", 4, "no thermochemistry at what is no minimum"),
        (f"{thermal} --geometry nonlinear", 4, "geometry 'nonlinear', but the rotations"),
        ("modes dimer.xyz --calculator emt --no-project --temperature 300", 4, "project"),
        ("modes boxed.xyz --calculator emt --temperature 300 --imaginary omit", 4, "--molecule, for an ideal gas"),
        ("modes dimer.xyz --calculator emt --no-project --molecule", 2, "--molecule: it says which rotations"),
        (
            "modes dimer.xyz --calculator emt --spin 1",
            2,
            "--spin is for thermochemistry: give a --temperature too",
        ),
        ("modes dimer.xyz --calculator emt --temperature 0", 2, "temperature=0.0 must be positive"),
        (f"{thermal} --low-cutoff 50", 2, "a cut-off is for low modes"),
        (f"{thermal} --symmetry-number 0", 2, "at least 1"),
        (f"{thermal} --spin 0.2", 2, "0.5, 1 and so on"),
        (f"{thermal} --thermo-model harmonic --spin 0", 2, "spin is for model 'ideal-gas'"),
        (f"{thermal} --low-modes rigid", 2, "quasi-harmonic"),
    ]
    for (codes, out, err, _), (command, status, words) in zip(
        batch(folder, [command for command, *_ in cases], 1), cases, strict=True
    ):
        assert ("mode   " in out) == (status == 4), out  # the modes are told all the same
        assert codes == [status] and words in err, (command, codes, out, err)
