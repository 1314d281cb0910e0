"""Files of phonopy's: all forms of the same force constants, what is damaged, and phonopy itself beside."""

import re

import h5py
import numpy as np
import pytest

import sparsehess as sh
from sparsehess.crystals import Crystal
from sparsehess.crystals.cells import shortest_ways
from sparsehess.errors import InputError, StackError
from support.lattices import chain
from support.phonopy_files import write

yaml = pytest.importorskip("yaml")


@pytest.fixture
def solid():
    return chain(3, (1.0, 0.3), (1.0, 3.5), across=0.1)


def whole_of(constants):
    """Return all rows of the supercell, by translations."""
    images, compact = constants.images, constants.dense()
    atoms = np.arange(len(constants.supercell))
    rows = []
    for atom in atoms:
        home = images.moved_home(np.full(len(atoms), atom), atoms)
        rows.append(compact[images.of[atom], home])
    return np.array(rows)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("full", [False, True])
def test_all_forms(full, solid, folder, comm):
    values = whole_of(solid) if full else solid.dense()
    rows = np.arange(len(solid.supercell)) if full else solid.images.first
    if comm.rank == 0:
        write(folder, solid, values, rows)
    comm.Barrier()
    for name, cell in (
        ("FORCE_CONSTANTS", "phonopy_disp.yaml"),
        ("force_constants.hdf5", "phonopy_disp.yaml"),
        ("phonopy_params.yaml", None),
    ):
        found = sh.read_force_constants(folder / name, None if cell is None else folder / cell, comm=comm)
        assert np.abs(found.dense() - solid.dense()).max() < 1e-14, name
        assert found.primitive.symbols == ("H", "He") and found.polar is None and found.name == name


def test_rows_of_atoms_elsewhere(solid, tmp_path):
    """Rows of a compact file may be those of images in other cells of the supercell."""
    rows = np.array([2, 5])
    write(tmp_path, solid, whole_of(solid)[rows], rows)
    found = sh.read_force_constants(tmp_path / "FORCE_CONSTANTS", tmp_path / "phonopy_disp.yaml")
    q = [[0.13, 0.2, 0], [0.4, 0, 0.1]]
    assert np.abs(sh.phonons(found).at(q).eigenvalues - sh.phonons(solid).at(q).eigenvalues).max() < 1e-13


def test_units_and_charges(solid, tmp_path):
    bohr, rydberg = 0.529177210903, 13.605693122994
    small = [
        Crystal(one.lattice / bohr, one.positions / bohr, one.masses, one.symbols)
        for one in (solid.primitive, solid.supercell)
    ]
    scaled = sh.ForceConstants.of(solid.dense() * bohr**2 / rydberg, *small)
    units = {"length": "au", "force_constants": "Ry/au^2"}
    nac = {
        "born_effective_charge": [np.eye(3).tolist(), (-np.eye(3)).tolist()],
        "dielectric_constant": (2 * np.eye(3)).tolist(),
        "unit_conversion_factor": 2.0,
    }
    write(tmp_path, scaled, scaled.dense(), scaled.images.first, physical_unit=units, nac=nac)
    found = sh.read_force_constants(tmp_path / "phonopy_params.yaml")
    assert np.abs(found.dense() - solid.dense()).max() < 1e-9
    assert np.abs(found.supercell.lattice - solid.supercell.lattice).max() < 1e-9
    assert found.polar.coulomb == pytest.approx(14.399645478, rel=1e-8) and found.polar.excess == 0
    numbers = [" ".join(map(str, (2 * np.eye(3)).ravel())), *2 * [" ".join(map(str, np.eye(3).ravel()))]]
    (tmp_path / "BORN").write_text("14.4\n" + "\n".join(numbers) + "\n")
    write(tmp_path, solid, solid.dense(), solid.images.first)
    found = sh.read_force_constants(tmp_path / "phonopy_params.yaml", born=tmp_path / "BORN")
    assert found.polar.coulomb == 14.4 and found.polar.excess == 2
    assert found.polar.neutral().excess == 0


BOHR, RYDBERG = 0.529177210903, 13.605693122994


@pytest.mark.parametrize(
    ("made_by", "length", "constants"),
    [
        ("qe", BOHR, RYDBERG / BOHR**2),
        ("wien2k", BOHR, 1e-3 * RYDBERG / BOHR**2),
        ("abinit", BOHR, 1 / BOHR),
        ("turbomole", BOHR, 2 * RYDBERG / BOHR**2),
        ("cp2k", 1.0, 2 * RYDBERG / BOHR),
        ("vasp", 1.0, 1.0),
        (None, 1.0, 1.0),
    ],
)
def test_units_by_what_made_the_forces(made_by, length, constants, solid, tmp_path):
    """phonopy_disp.yaml names a unit of lengths, and what made the forces, but no unit of force constants."""
    small = [
        Crystal(one.lattice / length, one.positions / length, one.masses, one.symbols)
        for one in (solid.primitive, solid.supercell)
    ]
    scaled = sh.ForceConstants.of(solid.dense() / constants, *small)
    told = {"physical_unit": {"atomic_mass": "AMU", "length": "angstrom" if length == 1 else "au"}}
    if made_by is not None:
        told["phonopy"] = {"calculator": made_by}
    cell = write(tmp_path, scaled, scaled.dense(), scaled.images.first, **told)
    found = sh.read_force_constants(tmp_path / "force_constants.hdf5", cell)
    assert np.abs(found.dense() - solid.dense()).max() < 1e-9
    assert np.abs(found.supercell.lattice - solid.supercell.lattice).max() < 1e-9


def test_units_that_nobody_names(solid, tmp_path):
    for told in ({"physical_unit": {"length": "au"}}, {"phonopy": {"calculator": "abacuses"}}):
        cell = write(tmp_path, solid, solid.dense(), solid.images.first, **{"physical_unit": {}, **told})
        with pytest.raises(InputError, match="names no unit of force constants"):
            sh.read_force_constants(tmp_path / "FORCE_CONSTANTS", cell)
    with h5py.File(tmp_path / "force_constants.hdf5", "a") as file:
        file["physical_unit"] = ["Ry/au^2"]
    with pytest.raises(InputError, match=r"Ry/au\^2.*eV/angstrom\^2"):
        sh.read_force_constants(
            tmp_path / "force_constants.hdf5", write(tmp_path.parent, solid, solid.dense(), solid.images.first)
        )


def test_what_is_refused(solid, tmp_path):
    cell = write(tmp_path, solid, solid.dense(), solid.images.first)
    text = (tmp_path / "FORCE_CONSTANTS").read_text()
    facts = yaml.safe_load(cell.read_text())

    def put(name, words):
        (tmp_path / name).write_text(words if isinstance(words, str) else yaml.safe_dump(words))
        return tmp_path / name

    cases = [
        (put("short", text[:-100]), cell, "is cut off"),
        (put("claims", "100000 100000\n" + text), cell, "is cut off"),
        (put("words", "2 6\n" + 40 * "no numbers\n"), cell, "is no FORCE_CONSTANTS"),
        (put("disorder", text.replace("\n1 2\n", "\n1 3\n")), cell, "not in order"),
        (put("nan", re.sub(r"(\n1 1\n)\S+", r"\1nan", text)), cell, "finite"),
        (tmp_path / "gone", cell, "gone"),
        (tmp_path / "FORCE_CONSTANTS", None, "give phonopy_params.yaml"),
        (tmp_path / "FORCE_CONSTANTS", put("a.yaml", {"supercell": 3}), "has no primitive_cell"),
        (tmp_path / "FORCE_CONSTANTS", put("b.yaml", {**facts, "supercell": {"lattice": 1}}), "as phonopy writes"),
        (tmp_path / "FORCE_CONSTANTS", put("e.yaml", "a: &a [1, 1]\nb: [*a, *a]\n"), "anchors"),
        (tmp_path / "FORCE_CONSTANTS", put("f.yaml", "at: 2001-99-99\n"), "is no YAML"),
        (tmp_path / "FORCE_CONSTANTS", put("c.yaml", "[1, 2"), "is no YAML"),
        (tmp_path / "FORCE_CONSTANTS", put("d.yaml", {**facts, "physical_unit": {"length": "ell"}}), "ell"),
        (cell, None, "has no force constants: write"),
        (put("bad.hdf5", "nothing"), cell, "bad.hdf5"),
    ]
    for path, beside, word in cases:
        with pytest.raises(InputError, match=word):
            sh.read_force_constants(path, beside)
    with pytest.raises((StackError, InputError), match="phonopy"):
        sh.read_force_constants(put("FORCE_SETS", "nothing"), cell)


@pytest.mark.thorough
def test_phonopy_says_the_same(tmp_path, monkeypatch):
    """Eigenvalues to 1e-12 of the largest, with and without charges, from files that phonopy has written."""
    phonopy = pytest.importorskip("phonopy")
    atoms = pytest.importorskip("phonopy.structure.atoms").PhonopyAtoms
    files = pytest.importorskip("phonopy.file_IO")
    monkeypatch.chdir(tmp_path)
    places = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    places += [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    salt = atoms(symbols=["Na"] * 4 + ["Cl"] * 4, cell=5.6 * np.eye(3), scaled_positions=places)
    theirs = phonopy.Phonopy(salt, supercell_matrix=np.diag([2, 2, 2]), primitive_matrix="F")
    theirs.generate_displacements(distance=0.01)
    rng = np.random.default_rng(0)
    theirs.forces = rng.normal(size=(len(theirs.supercells_with_displacements), len(theirs.supercell), 3)) * 0.01
    theirs.produce_force_constants()
    theirs.nac_params = {
        "born": np.array([np.eye(3), -np.eye(3)]),
        "dielectric": 2.4 * np.eye(3),
        "factor": 14.4,
        "method": "wang",
    }
    theirs.save("phonopy_params.yaml", settings={"force_constants": True})
    files.write_FORCE_CONSTANTS(theirs.force_constants)
    files.write_FORCE_SETS(theirs.dataset)
    ours = sh.read_force_constants("FORCE_CONSTANTS", "phonopy_params.yaml")
    again = sh.read_force_constants("FORCE_SETS", "phonopy_params.yaml")
    assert np.abs(ours.dense() - again.dense()).max() < 1e-12
    # Of the masses of the file, which are rounded there.
    theirs = phonopy.load(
        "phonopy_params.yaml", force_constants_filename="FORCE_CONSTANTS", symmetrize_fc=False, log_level=0
    )
    theirs.nac_params = {**theirs.nac_params, "method": "wang"}
    # In the first zone, beyond which phonopy's field of long waves is another one at each equivalent q.
    cell = ours.primitive
    q = shortest_ways(cell.reciprocal, rng.random((40, 3)) @ cell.reciprocal)[1] @ np.linalg.inv(cell.reciprocal)
    for polar in (True, False):
        theirs.nac_params = theirs.nac_params if polar else None
        values = []
        for one in q:
            theirs.dynamical_matrix.run(one)
            values.append(np.linalg.eigvalsh(theirs.dynamical_matrix.dynamical_matrix))
        found = sh.phonons(ours, sum_rule=False, polar=polar, nac="wang" if polar else None).at(q)
        assert np.abs(found.eigenvalues - values).max() < 1e-12 * np.abs(values).max()
        assert found.certified.all()


@pytest.mark.thorough
def test_symmetry_of_rounded_positions(tmp_path, monkeypatch):
    """Forces of the few displacements of a symmetry that holds to 1e-3 Å are completed by that one."""
    phonopy = pytest.importorskip("phonopy")
    atoms = pytest.importorskip("phonopy.structure.atoms").PhonopyAtoms
    files = pytest.importorskip("phonopy.file_IO")
    monkeypatch.chdir(tmp_path)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    places = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = []
    for digits in (12, 4):
        salt = atoms(
            symbols=["Na"] * 4 + ["Cl"] * 4,
            cell=np.round(5.6 * turn, digits),
            positions=np.round(2.8 * places @ turn, digits),
        )
        theirs = phonopy.Phonopy(
            salt, supercell_matrix=np.eye(3, dtype=int), primitive_matrix=np.eye(3), symprec=1e-3
        )
        theirs.generate_displacements(distance=0.01)
        many = len(theirs.supercells_with_displacements)
        theirs.forces = np.random.default_rng(0).normal(size=(many, 8, 3)) * 0.01
        theirs.save("phonopy_disp.yaml")
        files.write_FORCE_SETS(theirs.dataset)
        assert many == 2
        found.append(sh.read_force_constants("FORCE_SETS", "phonopy_disp.yaml").dense())
    assert np.abs(found[1] - found[0]).max() < 1e-3 * np.abs(found[0]).max()
    text = (tmp_path / "phonopy_disp.yaml").read_text()
    (tmp_path / "odd.yaml").write_text(re.sub("symmetry_tolerance: .*", "symmetry_tolerance: nan", text))
    with pytest.raises(InputError, match="symmetry_tolerance"):
        sh.read_force_constants("FORCE_SETS", "odd.yaml")
