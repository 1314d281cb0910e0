"""Modes of eigs and buckling on the mesh of a finite-element code, on any number of ranks."""

import argparse
import json

from mpi4py import MPI

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from sparsehess.commands.mode_outputs import ModeOutputs
from sparsehess.errors import InputError
from sparsehess.mechanics.mode_mesh import ModeMesh
from support.command_line import batch

meshio = pytest.importorskip("meshio")

INP = """*HEADING
a strip
*NODE, NSET=ALL
{nodes}
*ELEMENT, TYPE=S4, ELSET=STRIP
{cells}
*NSET, NSET=BASE
1, 6
*NSET, NSET=TIP
5, 10
"""
HELD = [0, 1, 2, 15, 16, 17]
FREE = [dof for dof in range(30) if dof not in HELD]


@pytest.fixture(scope="module")
def strip(problems):
    """A strip of four shells as an Abaqus file, held at its base, with matrices of three dofs a node."""
    from support.meshes import chain, plain

    mesh = plain()
    nodes = "\n".join(f"{number}, {x}, {y}, {z}" for number, (x, y, z) in enumerate(mesh.points, 1))
    cells = "\n".join(f"{n}, {', '.join(map(str, row + 1))}" for n, row in enumerate(mesh.cells[0][1], 1))
    (problems / "strip.inp").write_text(INP.format(nodes=nodes, cells=cells))
    K, M = chain(24)
    sp.save_npz(problems / "Ks.npz", K)
    sp.save_npz(problems / "Ms.npz", M)
    sp.save_npz(problems / "Kgs.npz", -M)
    np.save(problems / "held.npy", HELD)
    np.save(problems / "rows.npy", FREE)
    values, vectors = scipy.linalg.eigh(K.toarray(), M.toarray(), subset_by_index=[0, 2])
    whole = np.zeros((3, 30))
    whole[:, FREE] = vectors.T
    return problems, mesh, values, whole.reshape(3, 10, 3)


EIGS = "eigs Ks.npz --mass Ms.npz -k 3 --mesh strip.inp --quiet"


def shapes_of(path):
    """Return {name: (nodes, 3)}, and points, by meshio, which has not written them."""
    found = meshio.read(path)
    return found.point_data, found.points


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_modes_of_eigs(strip, ranks):
    """Held nodes by the name of their set, by the numbers of their dofs, and as the dofs that the rows are."""
    from support.meshes import aligned

    folder, mesh, values, exact = strip
    ways = {"set": "--fixed-set BASE", "list": "--fixed held.npy --dofs xyz", "rows": "--free rows.npy --dofs xyz"}
    lines = [f"{EIGS} --units Hz -o {name}.vtu {how}" for name, how in ways.items()]
    assert [statuses for statuses, *_ in batch(folder, lines, ranks)] == 3 * [[0]]
    for name in ways:
        data, points = shapes_of(folder / f"{name}.vtu")
        np.testing.assert_array_equal(points, mesh.points)
        hertz = np.sqrt(values) / (2 * np.pi)
        assert list(data) == [f"mode_{number}_{one:.6g}_Hz" for number, one in enumerate(hertz, 1)]
        found = np.array(list(data.values()))
        np.testing.assert_allclose(aligned(found, exact), exact, atol=1e-8)
        assert not found[:, [0, 5]].any()


@pytest.mark.parametrize("ranks", [2])
def test_all_formats_and_buckling(strip, ranks):
    folder, *_ = strip
    suffixes = ("vtu", "vtk", "pvd", "xdmf", "unv", "frd")
    eigs = [f"{EIGS} --units Hz --fixed-set BASE -o all.{suffix}" for suffix in suffixes]
    bent = [f"buckling Ks.npz Kgs.npz -k 2 --mesh strip.inp --fixed-set BASE -q -o bent.{one}" for one in suffixes]
    for line, (statuses, _, told, *_) in zip(eigs + bent, batch(folder, eigs + bent, ranks), strict=True):
        assert statuses == [0], (line, told)
    data, _ = shapes_of(folder / "bent.vtu")
    assert len(data) == 2 and all(name.endswith("_load_factor") for name in data)
    assert sorted(path.name for path in (folder / "all").iterdir()) == ["all_1.vtu", "all_2.vtu", "all_3.vtu"]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_rows_that_tell_their_nodes(strip, ranks):
    """CalculiX's .dof says which node each row is: its numbers and order are the mesh's, fixed dofs are found."""
    from support import code_files
    from support.meshes import aligned, chain

    folder, mesh, _, exact = strip
    numbers = np.array([40, 10, 30, 20, 50, 41, 11, 31, 21, 51])  # of the nodes in the order of the file
    nodes = "\n".join(f"{one}, {x}, {y}, {z}" for one, (x, y, z) in zip(numbers, mesh.points, strict=True))
    cells = "\n".join(f"{n}, {', '.join(map(str, numbers[row]))}" for n, row in enumerate(mesh.cells[0][1], 1))
    (folder / "job.inp").write_text(INP.format(nodes=nodes, cells=cells).partition("*NSET, NSET=BASE")[0])
    labels = [(numbers[dof // 3], dof % 3 + 1) for dof in FREE]
    mixed = np.random.default_rng(2).permutation(24)
    K, M = (one.toarray()[np.ix_(mixed, mixed)] for one in chain(24))
    code_files.calculix(folder / "job.sti", K, [labels[row] for row in mixed])
    code_files.calculix(folder / "job.mas", M)
    line = "eigs job.sti --mass job.mas -k 3 --quiet --units Hz --mesh job.inp -o job"
    for statuses, _, told, *_ in batch(folder, [f"{line}.vtu", f"{line}.frd"], ranks):
        assert statuses == [0], told
    found = np.array(list(shapes_of(folder / "job.vtu")[0].values()))
    np.testing.assert_allclose(aligned(found, exact), exact, atol=1e-8)
    block = (folder / "job.frd").read_text().split(" -3\n")
    assert [int(row[3:13]) for row in block[0].splitlines()[4:]] == numbers.tolist()
    assert [int(word) for word in block[1].splitlines()[2][3:].split()] == numbers[[0, 1, 6, 5]].tolist()
    (statuses, _, told, *_), *_ = batch(folder, [f"{line.replace('job.inp', 'strip.inp')}.vtu"], ranks)
    assert statuses == [2] and "which the mesh does not have" in told, told


@pytest.mark.parametrize("ranks", [1, 3])
def test_stored_results_and_pictures(strip, ranks):
    """What a run writes and what is made later of its result are the same; a swing has 24 pictures."""
    image = pytest.importorskip("PIL.Image")
    folder, *_ = strip
    on = "--mesh strip.inp --fixed-set BASE --quiet"
    lines = [
        f"{EIGS} --units Hz --fixed-set BASE -o direct.vtu --plot mode3.gif --mode 3",
        "eigs Ks.npz --mass Ms.npz -k 3 --quiet -o stored.h5",
        f"export stored.h5 -o later.vtu --units Hz --plot mode2.png --mode 2 {on}",
        "buckling Ks.npz Kgs.npz -k 2 --quiet -o bent.npz",
        f"export bent.npz -o bent.frd --plot bent.gif --json bent.json {on}",
    ]
    for line, (statuses, _, told, *_) in zip(lines, batch(folder, lines, ranks), strict=True):
        assert statuses == [0], (line, told)
    direct, later = shapes_of(folder / "direct.vtu")[0], shapes_of(folder / "later.vtu")[0]
    assert list(direct) == list(later)
    for name, shape in direct.items():
        np.testing.assert_allclose(np.abs(shape), np.abs(later[name]), atol=1e-8)
    assert len(list(folder.glob("mode2_*.png"))) == 24
    with image.open(folder / "mode3.gif") as film:
        assert film.n_frames == 24
        first, middle = (np.asarray(film.convert("RGB")) for _ in map(film.seek, (0, 12)))
        assert (first != middle).any() and (first < 200).any()
    assert json.loads((folder / "bent.json").read_text())["written"] == ["bent.frd", "bent.gif"]


MISTAKES = {
    "eigs Ks.npz -o m.vtu": "give --mesh FILE",
    "eigs Ks.npz -o m.h5 --mesh strip.inp": "nothing is shown on it",
    "eigs Ks.npz --plot m.gif": "give --mesh FILE",
    "eigs Ks.npz --plot m.gif --mesh strip.inp --fixed-set BASE --mode 9": "mode 9 is not there: 6 were found",
    "eigs Ks.npz --plot m.gif --mesh strip.inp --mode 0": "counted from 1",
    "eigs Ks.npz --plot m.png --mode 2": "give --mesh too",
    "eigs Ks.npz -o m.vtu --mesh strip.inp --mode 2": "which mode --plot draws",
    "export Ks.npz -o m.vtu --mesh strip.inp": "no result of sparsehess",
    "export Ks.npz -o m.h5 --mesh strip.inp": "must end with one of .vtu",
    "export Ks.npz --mesh strip.inp": "nothing to write",
    "eigs Ks.npz -o m.frd --mesh strip.inp --fixed-set BASE": "--units Hz",
    "eigs Ks.npz -o m.vtu --mesh strip.inp": "10 nodes with dofs xyz have 30, of which 0 are fixed",
    "eigs Ks.npz -o m.vtu --mesh strip.inp --dofs xyzabc --fixed-set BASE": "and the matrix has 24 rows",
    "eigs Ks.npz -o m.vtu --mesh strip.inp --fixed-set BASIS": "did you mean BASE",
    "eigs Ks.npz -o m.vtu --mesh strip.inp --fixed held.npy --free rows.npy": "not both",
    "eigs Ks.npz -o m.vtu --mesh strip.inp --fixed-set BASE --scale nan": "must be positive",
    "eigs Ks.npz -o m.vtu --mesh strap.inp": "did you mean strip.inp",
    "eigs Ks.npz -o m.vtu --mesh Ks.npz": "does not read this mesh",
    "eigs Ks.npz --scale 2": "give --mesh too",
    "eigs Ks.npz --dofs xyz": "give --participation rigid or --mesh too",
    "buckling Ks.npz Kgs.npz --fixed held.npy": "give --mesh too",
}


def test_mistakes(strip):
    folder, *_ = strip
    for line, (statuses, _, told, *_) in zip(MISTAKES, batch(folder, list(MISTAKES), 2), strict=True):
        assert statuses == [2] and MISTAKES[line] in told, (line, told)


@pytest.mark.parametrize("name", ["m.unv", "m.frd", "m.xdmf", "taken.pvd", "full.xdmf"])
def test_what_a_format_cannot_hold_is_refused_before_the_solve(tmp_path, name):
    """Cells that it has none of, and files that belong to it and cannot be written."""
    polygon = meshio.Mesh(np.eye(3), {"polygon": [[0, 1, 2]]})
    mesh = meshio.Mesh(np.eye(3), {"triangle": [[0, 1, 2]]})
    (tmp_path / "taken").touch()
    (tmp_path / "full.xdmf.h5").mkdir()
    said = {"taken.pvd": "which is a file", "full.xdmf": "full.xdmf.h5: cannot be written"}
    made = ModeMesh(mesh if name in said else polygon)
    asked = argparse.Namespace(out=str(tmp_path / name), plot=None, command="eigs")
    with pytest.raises(InputError, match=said.get(name, "no cells of type polygon")):
        ModeOutputs(asked, MPI.COMM_SELF, made).check(9, True, None)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_complex_modes(strip, ranks):
    """Modes of dashpots, written at once and from what is stored; they have another turn in each run at most."""
    folder, *_ = strip
    K, M = (sp.load_npz(folder / name).toarray() for name in ("Ks.npz", "Ms.npz"))
    C = np.zeros((24, 24))
    C[2, 2], C[17, 17] = 0.5, 0.3
    sp.save_npz(folder / "Cs.npz", sp.csr_matrix(C))
    damped = "damped Ks.npz --mass Ms.npz --damping Cs.npz -k 2 --quiet"
    on = "--mesh strip.inp --fixed-set BASE"
    lines = [
        f"{damped} --units Hz -o swings.vtu --plot swings.gif --mode 2 {on}",
        f"{damped} --units rad/s -o swings.h5",
        f"export swings.h5 -o stored.vtu --units Hz --matrix-units N/m kg {on}",
        f"export swings.h5 -o stored.unv --units Hz {on}",
        f"{damped} --units Hz -o swings.frd {on}",
        f"export swings.h5 -o stored.frd --units Hz {on}",
        f"{damped} -o swings.unv {on}",
    ]
    told = batch(folder, lines, ranks)
    assert [codes for codes, *_ in told] == [[0]] * 4 + [[2]] * 3, told
    assert all("no complex modes" in one[2] for one in told[4:6]) and "give units" in told[6][2]
    assert (folder / "swings.gif").stat().st_size > 1000
    once, stored = (shapes_of(folder / name)[0] for name in ("swings.vtu", "stored.vtu"))
    assert list(once) == list(stored) and len(once) == 4
    zero, one = np.zeros((24, 24)), np.eye(24)
    values = scipy.linalg.eigvals(np.block([[zero, one], [-K, -C]]), np.block([[one, zero], [zero, M]]))
    values = values[values.imag > 0]
    values = values[np.argsort(np.abs(values))][:2]
    for number, value in enumerate(values, 1):
        name = f"mode_{number}_{value.imag / (2 * np.pi):.6g}_Hz"
        x, y = ((data[f"{name}_real"] + 1j * data[f"{name}_imaginary"]).ravel()[FREE] for data in (once, stored))
        np.testing.assert_allclose(x, y, atol=1e-7)
        assert np.abs((value**2 * M + value * C + K) @ x).max() < 1e-6
