"""The command phonons: bands against closed forms, what it writes and draws, and what it refuses."""

import numpy as np
import pytest

import sparsehess as sh
from support.command_line import batch, several
from support.lattices import chain, fcc
from support.phonopy_files import write

pytest.importorskip("ase")
pytest.importorskip("yaml")
h5py = pytest.importorskip("h5py")

CELL = """1
Lattice="0 1.8 1.8 1.8 0 1.8 1.8 1.8 0" Properties=species:S:1:pos:R:3 pbc="T T T"
Cu 0 0 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("phonons")
    springs = fcc([3, 3, 3], radial=2.0, a=3.6, mass=50.0)
    write(place, springs, springs.dense(), springs.images.first)
    (place / "copper.xyz").write_text(CELL)
    (place / "job.toml").write_text(
        'command = "phonons"\ninput = "FORCE_CONSTANTS"\ncell = "phonopy_disp.yaml"\npath = "GX"\npoints = 11\n'
    )
    return place


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
def test_bands(folder, ranks):
    text, params, job, copper, waves = several(
        folder,
        [
            "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml --path GX --points 11 -o bands.h5 --plot bands.png",
            "phonons phonopy_params.yaml --path GX,LG --points 20 --mesh 4 4 4",
            "phonons job.toml",
            "phonons copper.xyz --calculator emt --supercell 2 2 2 --mesh 3 3 3",
            "phonons phonopy_params.yaml --path GX --points 11 --units cm^-1",
        ],
        ranks,
    )
    share = np.sin(np.linspace(0, np.pi / 2, len(text["bands"]["q"]))) * np.sqrt(2.0 / 50.0)
    exact = sh.Units.of("eV", "angstrom", "amu", "THz").factor * np.outer(share, [2, 2, np.sqrt(8)])
    found = np.array(text["bands"]["frequencies"])
    assert np.abs(found - exact)[1:].max() < 1e-10 and np.abs(found[0]).max() < 1e-5
    assert text["certified"] and text["bands"]["certified"] == len(found) and text["bands"]["imaginary"] == 0
    assert [one["name"] for one in text["bands"]["labels"]] == ["G", "X"] and text["density"] is None
    assert job["bands"]["frequencies"] == text["bands"]["frequencies"]
    assert [one["name"] for one in params["bands"]["labels"]] == ["G", "X|L", "G"]
    assert params["density"]["mesh"] == [4, 4, 4] and params["density"]["below"][-1] == pytest.approx(3)
    assert copper["bands"] is None and copper["calculator"] == "EMT" and copper["error"] < 1e-5
    assert copper["cells"] == 8 and copper["calls"] < 25 and copper["density"]["certified"] == 14
    per = sh.Units.of("eV", "angstrom", "amu").factor / sh.Units.of("eV", "angstrom", "amu", "THz").factor
    np.testing.assert_allclose(waves["bands"]["highest"], per * text["bands"]["highest"])
    assert (folder / "bands.png").stat().st_size > 1000
    with h5py.File(folder / "bands.h5") as stored:
        assert np.array_equal(stored["frequencies"][()], found) and stored["velocities"].shape == (
            len(found),
            3,
            3,
        )


def test_fields_of_charges(tmp_path):
    solid = chain(3, (1.0, 1.0), (1.0, 3.0), across=1.0)
    charges = {
        "born_effective_charge": (1.3 * np.array([np.eye(3), -np.eye(3)])).tolist(),
        "dielectric_constant": (2 * np.eye(3)).tolist(),
        "unit_conversion_factor": 14.4,
    }
    write(tmp_path, solid, solid.dense(), solid.images.first, nac=charges)
    command = "phonons phonopy_params.yaml --path GX --points 7"
    told = several(tmp_path, [command, f"{command} --nac wang", f"{command} --no-polar"], 1)
    assert [one["nac"] for one in told] == ["gonze", "wang", None]
    read, found = sh.read_force_constants(tmp_path / "phonopy_params.yaml"), []
    for one in told:
        phonons = sh.phonons(read, polar=one["nac"] is not None, nac=one["nac"])
        own = phonons.at(one["bands"]["q"][3:4]).frequencies
        found.append(np.array(one["bands"]["frequencies"]))
        np.testing.assert_allclose(found[-1][3:4], own, rtol=1e-10)
    assert all(
        np.abs(one - other)[3].max() > 1e-3 for one, other in zip(found, found[1:] + found[:1], strict=True)
    )
    codes, _, err, _ = batch(tmp_path, [f"{command} --no-polar --nac wang"], 1)[0]
    assert codes == [2] and "leave one of them out" in err


def test_atoms_in_another_order_are_asked_about(folder, tmp_path):
    """Force constants that are made for another order of atoms are symmetric no longer."""
    solid = fcc([3, 3, 3], radial=2.0, a=3.6, mass=50.0)
    other = np.concatenate([[0], np.random.default_rng(0).permutation(np.arange(1, 27))])
    write(tmp_path, solid, solid.dense()[:, other], solid.images.first)
    command = "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml --path GX --points 5"
    assert "in the order of the supercell?" in several(tmp_path, [command], 1)[0]["notes"][0]
    assert several(folder, [command], 1)[0]["notes"] == []


def test_what_is_said_and_refused(folder):
    told = batch(
        folder,
        [
            "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml --path GXWKGL",
            "phonons FORCE_CONSTANTS",
            "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml --path GQ",
            "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml --supercell 2 2 2",
            "phonons copper.xyz --calculator emt",
            "phonons copper.xyz --calculator emt --supercell 2 2 0",
            "phonons copper.xyz --calculator emt --supercell 2 2 2 --cell phonopy_disp.yaml",
            "phonons gone --cell phonopy_disp.yaml",
            "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml -- -eps_tol 1e-3",
            "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml --path GX --width 0.1",
            "phonons FORCE_CONSTANTS --cell phonopy_disp.yaml --mesh 2 2 2 --points 9",
        ],
        1,
    )
    codes, out, err, _ = told[0]
    assert codes == [0] and not err and "imaginary    none" in out and "all modes, within" in out
    words = ("phonopy_params.yaml", "Q is no special point", "it is for --calculator", "--supercell 4 4 4")
    words += (
        "supercell=",
        "belongs to phonopy",
        "gone",
        "no options of a solver",
        "give --mesh too",
        "give --path too",
    )
    for (codes, _, err, _), word in zip(told[1:], words, strict=True):
        assert codes == [2] and word in err, err
