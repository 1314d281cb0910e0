"""The command modes on many frames: thermochemistry of each, and runs that are killed or stopped and go on."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.hosts.ase.structure_modes import StructureModes
from support import answers
from support.command_line import batch
from support.faults import descendants

pytest.importorskip("ase")

from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import write
from ase.thermochemistry import IdealGasThermo

h5py = pytest.importorskip("h5py")

MANY = 12

# Says on a line that a structure is begun: in another folder, as what writes where it works is called elsewhere.
SLOW = """
import os
import time

from ase.calculators.emt import EMT


class Slow(EMT):
    def __init__(self):
        super().__init__()
        self.wait, self.begun = float(os.environ.get("WAIT", 0)), False

    def calculate(self, atoms=None, *given):
        if not self.begun:
            with open(os.path.join(os.path.dirname(__file__), "log", "begun"), "a") as stream:
                stream.write(f"{len(atoms)} {atoms.positions.sum():.9f}\\n")
            self.begun = True
        time.sleep(self.wait)
        super().calculate(atoms, *given)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dimers and trimers of copper, and what an undisturbed run has of them."""
    place = tmp_path_factory.mktemp("frames")
    frames = []
    for number in range(MANY):
        many = 2 + number % 2
        frames.append(Atoms(f"Cu{many}", [[0, 0.1 * i, (2.2 + 0.02 * number) * i] for i in range(many)]))
    frames[5].symbols[0] = "Si"
    write(place / "frames.traj", frames)
    (place / "slow.py").write_text(SLOW)
    (place / "log").mkdir()
    (whole,) = batch(place, [f"modes {RUN} -o whole.h5"], 1)
    assert whole[0] == [3], whole
    (place / "log" / "begun").unlink()
    return place


RUN = "frames.traj --frames 0: --calculator slow.py:Slow --temperature 400 --imaginary omit"
SAVED = "--checkpoint kept --resume --checkpoint-interval 0"


def contents(path):
    """Return bytes of all arrays, and facts, of each group of a file."""
    with h5py.File(path) as file:
        return {
            name: (json.loads(group.attrs["json"]), {key: array[()].tobytes() for key, array in group.items()})
            for name, group in file.items()
        }


def begun(folder):
    """Return which structures were begun; the first two are tried for whether their calculators write files."""
    place = folder / "log" / "begun"
    return set(place.read_text().splitlines()) if place.exists() else set()


@pytest.mark.parametrize(
    ("ranks", "then", "number"),
    [
        (2, 2, signal.SIGKILL),
        (2, 1, signal.SIGUSR1),
        pytest.param(3, 2, signal.SIGKILL, marks=pytest.mark.thorough),
        pytest.param(1, 3, signal.SIGTERM, marks=pytest.mark.thorough),
    ],
)
def test_what_is_found_is_not_computed_again(folder, ranks, then, number):
    words = [sys.executable, "-m", "sparsehess", "modes", *RUN.split(), *SAVED.split(), "-o", "killed.h5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WAIT": "0.02"}  # so that it is met on its way
    launched = [*(["mpiexec", "-n", str(ranks), "--oversubscribe"] if ranks > 1 else []), *words]
    process = subprocess.Popen(
        launched, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 100
    while len(begun(folder)) < 6 + ranks and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None
    for one in descendants(process.pid) if ranks > 1 else [process.pid]:
        os.kill(one, number)
    said = process.communicate(timeout=100)[1].decode()
    assert number == signal.SIGKILL or (process.returncode == 75 and "--resume" in said), said
    first = begun(folder)
    assert len(first) < MANY and not (folder / "killed.h5").exists()
    (folder / "log" / "begun").unlink()
    (rest,) = batch(folder, [f"modes {RUN} {SAVED} -o killed.h5"], then)
    assert rest[0] == [3], rest
    second = begun(folder)
    # Six were saved, or five beside the one that fails; those that are tried are begun again.
    assert len(second) <= MANY - 3
    assert contents(folder / "killed.h5") == contents(folder / "whole.h5")
    for name in ("killed.h5", "log/begun"):
        (folder / name).unlink()
    for one in (folder / "kept").iterdir():
        one.unlink()


def test_thermochemistry_of_each_frame(folder):
    (told,) = batch(folder, [f"modes {RUN.replace('--imaginary omit', '')} --symmetry-number 2 --json -"], 1)
    assert told[0] == [3] and "1 of 12 structures without modes: frame 5 (Cu2Si)" in told[2], told
    found = answers.parse(told[1])
    missing = found["without_thermochemistry"]
    assert missing and all(found["structures"][n]["imaginary"].count(True) for n in missing)
    assert f"{len(missing)} of 12 structures without thermochemistry: frame {missing[0]}" in told[2]
    assert found["structures"][5]["thermochemistry"] is found["structures"][5]["no_thermochemistry"] is None
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0.1, 2.24]], calculator=EMT())
    quanta = np.array(found["structures"][2]["frequencies"]) * 1.239841984e-4  # eV of cm⁻¹
    theirs = IdealGasThermo(quanta, "linear", atoms.get_potential_energy(), atoms, symmetrynumber=2, spin=0)
    quantities = {one["name"]: one for one in found["structures"][2]["thermochemistry"]["quantities"]}
    exact = theirs.get_gibbs_energy(400, 101325, verbose=False)
    assert quantities["gibbs"]["value"] == pytest.approx(exact, abs=1e-6)
    assert quantities["gibbs"]["low"] <= quantities["gibbs"]["value"] <= quantities["gibbs"]["high"]
    with h5py.File(folder / "whole.h5") as file:
        assert json.loads(file["02"].attrs["json"])["thermochemistry"]["temperature"] == 400
        assert "free energy eV" in json.loads(file.attrs["json"])["answer"]


def test_another_run_is_refused(folder):
    frames = "frames.traj --frames 0:2 --calculator emt --checkpoint other"
    told = batch(
        folder,
        [
            f"modes {frames} --units meV --temperature 300 --imaginary transition-state",
            f"modes {frames} --temperature 300 --imaginary transition-state",
            f"modes {frames} --resume --temperature 310",
            f"modes {frames} --resume --temperature 300 --imaginary transition-state --units THz",
            "modes frames.traj --frames 0 --calculator emt --checkpoint one --resume",
        ],
        1,
    )
    assert [one[0] for one in told] == [[4], [2], [2], [4], [0]], told
    assert "has one imaginary mode" in told[0][2] and "--resume" in told[1][2]
    assert "is the checkpoint of another problem (conditions" in told[2][2]
    assert not list((folder / "one").iterdir())


@pytest.mark.parallel([1, 2])
def test_what_is_packed_is_the_same_to_the_last_bit(comm):
    structures = [Atoms("Cu3", [[0, 0, 2.3 * i] for i in range(3)]), Atoms("Cu", [[0, 0, 0]])]
    how = {"calculator": EMT, "comm": comm, "conditions": {"temperature": 300, "imaginary": "omit"}}
    for one in sh.normal_modes_of_each(structures, **how):
        facts, columns = one.packed()
        other = StructureModes.unpacked(json.loads(json.dumps(facts)), columns)
        assert json.dumps(other.packed()[0]) == json.dumps(facts) and other.rigid == one.rigid
        assert other.packed()[1].tobytes() == columns.tobytes() and other.imaginary.dtype == bool
        assert str(other.thermal) == str(one.thermal) and one.thermal is not None
        np.testing.assert_array_equal(other.thermal.helmholtz.widths, one.thermal.helmholtz.widths)
    wrong = {"positive": {"temperature": -1}, "heat": {"heat": 3}, "the energy of one": {"energy": 1.0}}
    for words, conditions in wrong.items():
        with pytest.raises(InputError, match=words):
            sh.normal_modes_of_each(structures, calculator=EMT, comm=comm, conditions=conditions)
