"""Files of modes for viewers: read by ASE, or as their formats are published."""

import re

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError

pytest.importorskip("ase")

from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

BOHR = 0.529177210903


@pytest.fixture
def modes(comm):
    places = 2.2 * np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.8, 0], [0.5, 0.3, 0.9]])
    with sh.normal_modes(Atoms("Cu4", places, calculator=EMT(), constraint=FixAtoms([0])), comm=comm) as found:
        yield found


@pytest.fixture
def arrows(modes):
    """(k, atoms, 3) of norm 1 over all atoms, from the modes themselves."""
    all_of_them = np.array([modes.displacements(number) for number in range(len(modes.frequencies))])
    return all_of_them / np.linalg.norm(all_of_them, axis=(1, 2))[:, None, None]


@pytest.mark.parametrize("suffix", ["xyz", "extxyz"])
def test_extended_xyz_is_read_by_ase(comm, folder, modes, arrows, suffix):
    modes.write(folder / f"modes.{suffix}", unit="meV")
    comm.Barrier()
    frames = read(folder / f"modes.{suffix}", ":", format="extxyz", parallel=False)
    assert len(frames) == len(modes.frequencies) == 6
    for number, frame in enumerate(frames):
        np.testing.assert_allclose(frame.positions, modes.atoms.positions, atol=1e-7)
        np.testing.assert_allclose(frame.arrays["mode"], arrows[number], atol=1e-7)
        per = sh.Units.of("eV", "angstrom", "amu", "meV").factor / sh.Units.of("eV", "angstrom", "amu").factor
        assert frame.info["frequency"] == pytest.approx(per * modes.frequencies[number])
        assert frame.info["imaginary"] == modes.imaginary[number] and frame.info["frequency_unit"] == "meV"
        kinetic = (modes.atoms.get_masses()[:, None] * arrows[number] ** 2).sum()
        assert frame.info["reduced_mass_amu"] == pytest.approx(kinetic)


def test_nmd_has_the_lines_of_its_format(comm, folder, modes, arrows):
    modes.write(folder / "modes.nmd")
    comm.Barrier()
    lines = [line.split() for line in (folder / "modes.nmd").read_text().splitlines()]
    told = {words[0]: words[1:] for words in lines if words[0] != "mode"}
    assert told["name"] == ["modes"] and told["atomnames"] == ["Cu"] * 4 and len(told["resids"]) == 4
    np.testing.assert_allclose(np.array(told["coordinates"], float), modes.atoms.positions.ravel(), atol=1e-7)
    found = [words[1:] for words in lines if words[0] == "mode"]
    assert [int(words[0]) for words in found] == list(range(1, 7)) and all(float(words[1]) > 0 for words in found)
    np.testing.assert_allclose(np.array([words[2:] for words in found], float), arrows.reshape(6, -1), atol=1e-7)


def test_molden_has_the_sections_of_its_format(comm, folder, modes, arrows):
    modes.write(folder / "modes.molden", unit="THz")
    comm.Barrier()
    text = (folder / "modes.molden").read_text()
    assert text.startswith("[Molden Format]\n")
    sections = dict(re.findall(r"^\[([A-Z-]+)\][^\n]*\n([^[]*)", text, re.MULTILINE))
    np.testing.assert_allclose(np.array(sections["FREQ"].split(), float), modes.frequencies, atol=1e-5)
    rows = [line.split() for line in sections["FR-COORD"].splitlines()]
    assert [row[0] for row in rows] == ["Cu"] * 4
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float) * BOHR, modes.atoms.positions, atol=1e-7)
    blocks = re.split(r"vibration +\d+\n", sections["FR-NORM-COORD"])[1:]
    np.testing.assert_allclose([np.array(one.split(), float).reshape(4, 3) for one in blocks], arrows, atol=1e-7)


def test_a_trajectory_swings_along_its_mode(comm, folder, modes, arrows):
    modes.write(folder / "modes.traj", amplitude=0.2)
    comm.Barrier()
    assert len(list(folder.glob("modes_*.traj"))) == 6
    frames = read(folder / "modes_05.traj", ":", parallel=False)
    away = np.array([frame.positions - modes.atoms.positions for frame in frames])
    sizes = np.einsum("fij,ij->f", away, arrows[4])
    np.testing.assert_allclose(away, sizes[:, None, None] * arrows[4], atol=1e-12)
    assert np.linalg.norm(away, axis=2).max() == pytest.approx(0.2, rel=0.01)
    assert abs(sizes.sum()) < 1e-9 and not away[0].any() and "mode 5" in frames[0].info["mode"]


def test_what_cannot_be_written_is_refused(comm, folder, modes):
    for path, how, words in (
        (folder / "modes.pdb", {}, "must end with one of .xyz"),
        (folder / "gone" / "modes.xyz", {}, "there is no folder"),
        (folder / "modes.traj", {"amplitude": 0.0}, "amplitude=0.0"),
        (folder / "modes.xyz", {"unit": "eV"}, "eV"),
    ):
        with pytest.raises(InputError, match=words):
            modes.write(path, **how)
    assert not list(folder.iterdir())
