"""The command modes: frequencies against closed forms and ASE's own, what it writes, and what it refuses."""

import json

import numpy as np
import pytest

import sparsehess as sh
from support.command_line import batch, several

pytest.importorskip("ase")

from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.vibrations import Vibrations

CALCULATORS = '''
import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.morse import MorsePotential


class Spring(Calculator):
    """Two atoms joined by a spring of k eV/Å², at rest 1.1 Å apart."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, k=25.0):
        super().__init__()
        self.k = k

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bond = atoms.positions[1] - atoms.positions[0]
        length = np.linalg.norm(bond)
        push = self.k * (length - 1.1) * bond / length
        self.results = {"energy": self.k * (length - 1.1) ** 2 / 2, "forces": np.array([push, -push])}


class OwnSpring(Spring):
    wrong = 1.0

    def get_hessian(self, atoms):
        bond = atoms.positions[1] - atoms.positions[0]
        along = bond / np.linalg.norm(bond)
        block = self.wrong * self.k * np.outer(along, along)  # at rest
        return np.block([[block, -block], [-block, block]])


class WrongSpring(OwnSpring):
    wrong = 2.0


class EnergyAlone(Spring):
    implemented_properties = ["energy"]

    def calculate(self, *given, **named):
        super().calculate(*given, **named)
        del self.results["forces"]


class Nothing(Calculator):
    implemented_properties = []

    def calculate(self, *given, **named):
        raise PropertyNotImplementedError("energy")


stiff = Spring(100.0)
number = 3
'''

EV = sh.Units.of("eV", "angstrom", "amu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("modes")
    (place / "springs.py").write_text(CALCULATORS)
    write(place / "dimer.xyz", Atoms("CO", [[0.3, 0.2, 0.1], [0.3, 1.3, 0.1]]))
    write(place / "bent.xyz", Atoms("CO", [[0, 0, 0], [0, 0, 1.2]]))
    clusters = [Atoms("Cu3", 2.25 * np.array([[0, 0, 0], [1, 0, 0], [0.5, height, 0]])) for height in (0.9, 0.866)]
    write(place / "trimers.traj", clusters)
    clusters[1].set_constraint(FixAtoms([0]))
    write(place / "held.traj", clusters[1])
    (place / "job.toml").write_text(
        'command = "modes"\ninput = "dimer.xyz"\ncalculator = "springs.py:Spring"\nset = { k = 9.0 }\n'
        'units = "THz"\n'
    )
    (place / "text.xyz").write_text("no atoms\n")
    return place


def by_ase(atoms, place):
    """Return ASE's frequencies in cm⁻¹, ascending, imaginary ones negative, the six rigid motions left out."""
    atoms.calc = EMT()
    vibrations = Vibrations(atoms, name=str(place), delta=1e-3, nfree=4)
    vibrations.run()
    found = vibrations.get_frequencies()
    return np.where(found.imag > 0, -found.imag, found.real)


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
def test_frequencies(folder, ranks):
    spring, own, whole, energies, job, trimer, held = several(
        folder,
        [
            "modes dimer.xyz --calculator springs.py:Spring -o spring.h5",
            "modes dimer.xyz --calculator springs.py:OwnSpring --set k=25.0 --units meV",
            "modes trimers.traj --calculator emt --no-project",
            "modes dimer.xyz --calculator springs.py:EnergyAlone",
            "modes job.toml",
            "modes trimers.traj --calculator emt --modes shapes.extxyz",
            "modes held.traj --calculator emt -o held.npz",
        ],
        ranks,
    )
    mass = np.prod(Atoms("CO").get_masses()) / Atoms("CO").get_masses().sum()
    exact = float(EV.of_eigenvalues(np.array(25.0 / mass)))
    assert spring["frequencies"]["values"] == pytest.approx([exact], rel=1e-7)
    assert abs(spring["frequencies"]["values"][0] - exact) <= 3 * spring["frequencies"]["errors"][0]
    assert spring["minimum"] and len(spring["rigid"]) == 5 and spring["forces"]["passed"] and not spring["own"]
    assert own["own"] and own["evaluations"]["gradient"] == 0 and "itself" in own["notes"][0]
    assert own["frequencies"]["values"] == pytest.approx([exact * EV.to("meV").factor / EV.factor], rel=1e-12)
    assert energies["frequencies"]["values"] == pytest.approx([exact], rel=1e-3)
    assert "no forces" in energies["notes"][0]
    assert job["frequencies"]["unit"] == "THz"
    assert job["frequencies"]["values"] == pytest.approx([0.6 * exact * EV.to("THz").factor / EV.factor], rel=1e-7)
    theirs = by_ase(read(folder / "trimers.traj"), folder / f"all{ranks}")[6:]
    np.testing.assert_allclose(trimer["frequencies"]["values"], np.sort(theirs), atol=0.5)
    assert len(whole["eigenvalues"]) == 9 and not whole["rigid"] and len(trimer["rigid"]) == 6
    assert not trimer["forces"]["passed"] and "relax first" in trimer["notes"][0]
    # One atom is held: six coordinates, of which three rotations are projected out.
    assert held["n"] == 6 and held["k"] == 3 and len(held["rigid"]) == 3
    assert len(read(folder / "shapes.extxyz", ":")) == 3
    with np.load(folder / "held.npz") as stored:
        assert stored["free"].tolist() == [False] * 3 + [True] * 6 and stored["vectors"].shape == (3, 6)
        assert json.loads(str(stored["json"]))["frequencies"]["unit"] == "cm^-1"
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "spring.h5") as file:
        assert file["numbers"][:].tolist() == [6, 8] and file["frequencies"][0] == pytest.approx(exact, rel=1e-7)
        assert (file["masses"][:] * (file["vectors"][0].reshape(2, 3) ** 2).sum(1)).sum() == pytest.approx(1)
        assert "forces left" in json.loads(file.attrs["json"])["answer"]


def test_what_is_said(folder):
    """Each is refused but the first, which is not at rest and has an answer all the same."""
    cases = [
        ("modes bent.xyz --calculator springs.py:Spring --force-limit 0.1", 0, "not at rest: a force of 2.5 eV/Å"),
        ("modes dimer.xyz --calculator emtt", 2, "did you mean emt?"),
        ("modes dimer.xyz --calculator tblite:method=GFN2-xTB", 2, "tblite"),
        ("modes dimer.xyz --calculator emt:fast", 2, "write name:key=value"),
        ("modes dimer.xyz --calculator springs.py:Sprung", 2, "did you mean Spring"),
        ("modes dimer.xyz --calculator springs.py:number", 2, "is no calculator of ASE, but int"),
        ("modes dimer.xyz --calculator springs.py:stiff --set k=2", 2, "--set k has nothing to set"),
        ("modes dimer.xyz --calculator springs.py:Spring --set length=2", 2, "length=2"),
        ("modes dimer.xyz --calculator springs.py:Nothing", 2, "PropertyNotImplementedError"),
        ("modes dimer.xyz --calculator springs.py:WrongSpring", 4, "--differences"),
        ("modes dimer.xyz --calculator springs.py:Spring -k 2", 2, "of 6 coordinates 1 vibrate"),
        ("modes dimr.xyz --calculator emt", 2, "did you mean dimer.xyz"),
        ("modes text.xyz --calculator emt", 2, "ASE does not read it as atoms"),
        ("modes trimers.traj --frames 7 --calculator emt", 2, "there is no frame 7"),
        ("modes springs.py:Spring --calculator emt", 2, "eigs takes a problem"),
        ("modes dimer.xyz --calculator emt --modes shapes.pdb", 2, "must end with one of .xyz"),
        ("modes dimer.xyz --calculator emt -o modes.xyz", 2, "must end with one of .h5"),
        ("modes dimer.xyz --calculator emt --force-limit nan", 2, "a force above 0"),
        ("modes dimer.xyz --calculator emt --modes shapes.nmd --amplitude 0.2", 2, "--amplitude: it is for"),
        ("modes dimer.xyz --calculator emt --modes shapes.traj --amplitude nan", 2, "length above 0"),
        ("modes dimer.xyz", 2, "--calculator"),
    ]
    for (codes, out, err, _), (command, status, words) in zip(
        batch(folder, [command for command, *_ in cases], 1), cases, strict=True
    ):
        assert codes == [status] and words in (out if status == 0 else err), (command, codes, out, err)
