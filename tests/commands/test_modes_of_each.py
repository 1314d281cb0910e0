"""The command modes on several frames: ASE's own frequencies, a group for each, what fails and what is refused."""

import json

import numpy as np
import pytest

from support import answers
from support.command_line import batch

pytest.importorskip("ase")

from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.optimize import BFGS
from ase.vibrations import Vibrations


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trajectory of five relaxed clusters of three to seven atoms; the third has become silicon."""
    place, frames = tmp_path_factory.mktemp("frames"), []
    for many in range(3, 8):
        cluster = (bulk("Cu", cubic=True) * (2, 2, 1))[:many]
        cluster.set_cell(None)
        cluster.pbc = False
        cluster.rattle(0.1, seed=many)
        cluster.calc = EMT()
        BFGS(cluster, logfile=None).run(fmax=1e-4)
        cluster.calc = None
        frames.append(cluster)
    frames[2].symbols[:] = "Si"
    write(place / "frames.traj", frames)
    (place / "job.toml").write_text(
        'command = "modes"\ninput = "frames.traj"\ncalculator = "emt"\nframes = "::-3"\nunits = "meV"\n'
    )
    return place


def by_ase(atoms, place):
    """Return ASE's frequencies in cm⁻¹, the six rigid motions left out."""
    atoms.calc = EMT()
    vibrations = Vibrations(atoms, name=str(place), delta=1e-3, nfree=4)
    vibrations.run()
    return vibrations.get_frequencies()[6:].real


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
def test_each_frame(folder, ranks):
    every, backwards = batch(
        folder,
        [
            f"modes frames.traj --frames : --calculator emt -o each{ranks}.h5 --json -",
            "modes job.toml --json -",
        ],
        ranks,
    )
    assert every[0] == [3] and backwards[0] == [0], (every, backwards)
    assert "1 of 5 structures without modes: frame 2 (Si5): EMT raised" in every[2]
    found = answers.parse(every[1])
    assert [one["frame"] for one in found["structures"]] == list(range(5)) and found["failed"] == [2]
    for number in (0, 3):
        one = found["structures"][number]
        theirs = by_ase(read(folder / "frames.traj", number), folder / f"ase{ranks}_{number}")
        np.testing.assert_allclose(one["frequencies"], theirs, atol=0.01)
        assert one["at_rest"] and one["minimum"] and one["certified"] and len(one["rigid"]) == 6
    other = answers.parse(backwards[1])
    assert [one["frame"] for one in other["structures"]] == [4, 1] and other["unit"] == "meV"
    assert other["structures"][1]["eigenvalues"] == found["structures"][1]["eigenvalues"]
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / f"each{ranks}.h5") as file:
        assert list(file) == ["0", "1", "2", "3", "4"]
        stored = json.loads(file.attrs["json"])
        assert "4 minimum, 1 failed" in stored["answer"] and stored["done"] == 4
        assert file["3/frequencies"][:].tolist() == found["structures"][3]["frequencies"]
        assert json.loads(file["3"].attrs["json"]) == found["structures"][3]
        shapes = file["4/vectors"][:]
        assert shapes.shape == (15, 21)
        np.testing.assert_allclose(np.repeat(file["4/masses"][:], 3) @ shapes.T**2, 1)


def test_what_is_refused(folder):
    cases = [
        ("--frames x", "--frames x: a number, from 0, or a slice"),
        ("--frames ::0", "--frames ::0: a number"),
        ("--frames 9", "there is no frame 9"),
        ("--frames 7:", "of its 5 frames none is in 7:"),
        ("--frames : --modes all.xyz", "shapes for viewers are those of one structure"),
        ("--frames : -o all.npz", "must end with one of .h5"),
        ("--frames : --temperature 300 --thermo-model harmonic --spin 0", "spin is for model 'ideal-gas'"),
        ("--frames : --resume", "--resume: give the folder with --checkpoint"),
        ("--frames : --spin 1", "--spin is for thermochemistry"),
        ("--frames : --force-limit 0", "a force above 0"),
    ]
    told = batch(folder, [f"modes frames.traj --calculator emt {more}" for more, _ in cases], 1)
    told += batch(
        folder,
        ["modes frames.traj --frames : --calculator emtt", "modes gone.traj --frames : --calculator emt"],
        1,
    )
    words = [*(words for _, words in cases), "did you mean emt?", "no such file"]
    for (codes, out, err, _), expected in zip(told, words, strict=True):
        assert codes == [2] and expected in err, (codes, out, err)
