"""Files of modes, opened by VTK's own readers and read in their published columns, on any number of ranks."""

import itertools

from mpi4py import MPI

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.mechanics.mesh_surfaces import drawn_faces, drawn_lines
from sparsehess.mechanics.mode_files import SUFFIXES
from sparsehess.storage import calculix_files
from sparsehess.storage.meshes import Mesh

pytest.importorskip("meshio")
meshes = pytest.importorskip("support.meshes")

pytestmark = pytest.mark.parallel([1, 2, 3])

COMM = MPI.COMM_WORLD
HERTZ = sh.Units.consistent("Hz")
MESH = meshes.all_cells()
MANY = 3 * len(MESH.points)
UP = np.array([0, 0, 1.0])
HALF = UP / 2
FIXED = [0, 4, 5, MANY - 1]
K, M = meshes.chain(MANY - len(FIXED))


@pytest.fixture(scope="module")
def exact():
    """Return LAPACK's (frequencies, (3, nodes, 3) modes), zero where dofs are fixed."""
    values, vectors = scipy.linalg.eigh(K.toarray(), M.toarray(), subset_by_index=[0, 2])
    return np.sqrt(values) / (2 * np.pi), meshes.whole_modes(vectors, MANY, FIXED).reshape(3, -1, 3)


def written(folder, suffix, **how):
    """Write the three modes; return the path."""
    path = folder / f"modes{suffix}"
    with sh.eigs(K, 3, mass=M, comm=COMM) as found:
        sh.write_modes(path, found, MESH, "xyz", fixed=FIXED, units=HERTZ, **how)
    COMM.Barrier()
    return path


def check_grid(grid):
    """Check nodes, and, by VTK's own order, that volumes are positive and middle nodes are in the middle."""
    np.testing.assert_array_equal(grid.points, MESH.points)
    sizes = grid.compute_cell_sizes()["Volume"]
    solids = [1, 1 / 2, 1 / 6, 0, 0, 0, 1, 1 / 2, 1 / 6, 1 / 3, 0, 0, 0]
    np.testing.assert_allclose(sizes, solids, atol=1e-12)
    for number in range(grid.GetNumberOfCells()):
        cell = grid.GetCell(number)
        for edge in map(cell.GetEdge, range(cell.GetNumberOfEdges())):
            if edge.GetNumberOfPoints() == 3:
                one, other, middle = (np.array(edge.GetPoints().GetPoint(place)) for place in range(3))
                np.testing.assert_allclose(middle, (one + other) / 2)


@pytest.mark.essential
@pytest.mark.parametrize("suffix", [".vtu", ".vtk"])
def test_one_file(folder, exact, suffix):
    pyvista = pytest.importorskip("pyvista")
    path = written(folder, suffix)
    if COMM.rank == 0:
        grid = pyvista.read(path)
        check_grid(grid)
        names = [f"mode_{number}_{value:.6g}_Hz" for number, value in enumerate(exact[0], 1)]
        assert list(grid.point_data) == names
        shapes = np.array([grid.point_data[name] for name in names])
        np.testing.assert_allclose(meshes.aligned(shapes, exact[1]), exact[1], atol=1e-8)
        assert not shapes.reshape(3, -1)[:, FIXED].any()
        np.testing.assert_allclose(grid.field_data["frequency_Hz"], exact[0], rtol=1e-10)
        assert grid.field_data["residual"].max() < 1e-8 and grid.field_data["none_missed"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("suffix", [".pvd", ".xdmf"])
def test_steps(folder, exact, suffix):
    pyvista = pytest.importorskip("pyvista")
    path = written(folder, suffix)
    if COMM.rank == 0:
        reader = pyvista.get_reader(path)
        assert list(reader.time_values) == [1, 2, 3]
        for number, shape in enumerate(exact[1]):
            reader.set_active_time_value(number + 1.0)
            grid = reader.read()
            grid = grid[0] if suffix == ".pvd" else grid
            check_grid(grid)
            found = grid.point_data["displacement"]
            np.testing.assert_allclose(meshes.aligned(found[None], shape[None])[0], shape, atol=1e-8)


def columns(line, width, kind):
    """Return the numbers of a line in columns."""
    line = line.rstrip("\n")
    return [kind(line[first : first + width].replace("D", "E")) for first in range(0, len(line), width)]


@pytest.mark.essential
def test_universal_file(folder, exact):
    """Data sets 2411, 2412 and 55 by their published columns; around each element corners and middles in turn."""
    path = written(folder, ".unv")
    if COMM.rank:
        return
    parts = [part.splitlines() for part in path.read_text().split("    -1\n") if part.strip()]
    assert [int(part[0]) for part in parts] == [2411, 2412, 55, 55, 55]
    nodes = np.array([columns(line, 25, float) for line in parts[0][2::2]])
    np.testing.assert_allclose(nodes, MESH.points, rtol=1e-15)
    assert [columns(line, 10, int)[0] for line in parts[0][1::2]] == list(range(1, len(nodes) + 1))
    lines, elements = iter(parts[1][1:]), []
    for head in lines:
        _, kind, *_, many = columns(head, 10, int)
        if kind in (21, 24):
            next(lines)
        labels = list(itertools.chain(*(columns(next(lines), 10, int) for _ in range(-(-many // 8)))))
        assert len(labels) == many
        elements.append((kind, nodes[np.array(labels) - 1]))
    assert [kind for kind, _ in elements] == [116, 113, 118, 95, 92, 24, 115, 112, 111, 115, 94, 91, 21]
    for kind, x in elements[:6]:
        ring = {116: 8, 113: 6, 118: 6, 95: 8, 92: 6, 24: 2}[kind]
        base = x[:3] if kind == 24 else np.vstack([x[:ring], x[:1]])
        np.testing.assert_allclose(base[1::2], (base[:-1:2] + base[2::2]) / 2)
        if kind in (116, 113):  # upright sides, and the ring above
            np.testing.assert_allclose(x[ring : ring + ring // 2], x[:ring:2] + HALF)
            np.testing.assert_allclose(x[ring + ring // 2 :], x[:ring] + UP)
        if kind == 118:
            np.testing.assert_allclose(x[6:9], (x[:6:2] + x[9]) / 2)
    for number, part in enumerate(parts[2:]):
        assert part[1] == f"mode_{number + 1}_{exact[0][number]:.6g}_Hz"
        assert columns(part[6], 10, int) == [1, 2, 2, 8, 2, 3] and columns(part[7], 10, int) == [
            2,
            4,
            1,
            number + 1,
        ]
        np.testing.assert_allclose(columns(part[8], 13, float), [exact[0][number], 1, 0, 0], rtol=1e-5)
        found = np.array([columns(line, 13, float) for line in part[10::2]])
        shape = exact[1][number]
        np.testing.assert_allclose(meshes.aligned(found[None], shape[None])[0], shape, atol=1e-6)


@pytest.mark.essential
def test_calculix_file(folder, exact):
    """Blocks of nodes, elements and displacements, by the columns of the manual of CalculiX GraphiX."""
    path = written(folder, ".frd")
    if COMM.rank:
        return
    text = path.read_text()
    assert text.startswith("    1C") and text.endswith(" 9999\n")
    blocks = text.split(" -3\n")
    nodes = np.array([columns(line[13:], 12, float) for line in blocks[0].splitlines()[4:]])
    np.testing.assert_allclose(nodes, MESH.points, rtol=1e-5)
    heads = [line for line in blocks[1].splitlines() if line.startswith(" -1")]
    assert [int(line[13:18]) for line in heads] == [4, 5, 6, 10, 8, 12, 1, 2, 3, 1, 9, 7, 11]
    rows, labels = [], []
    for line in blocks[1].splitlines()[1:]:
        if line.startswith(" -1"):
            rows.append([])
        else:
            rows[-1] += columns(line[3:], 10, int)
    labels = [nodes[np.array(row) - 1] for row in rows]
    brick, wedge = labels[:2]
    np.testing.assert_allclose(brick[8:12], (brick[:4] + np.roll(brick[:4], -1, axis=0)) / 2)
    np.testing.assert_allclose(brick[12:16], brick[:4] + HALF)
    np.testing.assert_allclose(brick[16:20], brick[8:12] + UP)
    np.testing.assert_allclose(wedge[9:12], wedge[:3] + HALF)
    np.testing.assert_allclose(wedge[12:15], wedge[6:9] + UP)
    for number, block in enumerate(blocks[2:5]):
        lines = block.splitlines()
        head = next(line for line in lines if line.startswith("  100C"))
        assert float(head[12:24]) == pytest.approx(exact[0][number], rel=1e-8) and head[63:68] == "MODAL"
        assert int(head[24:36]) == len(nodes) and f"    1PMODE{number + 1:26}" in lines
        found = np.array([columns(line[13:], 12, float) for line in lines if line.startswith(" -1")])
        shape = exact[1][number]
        np.testing.assert_allclose(meshes.aligned(found[None], shape[None])[0], shape, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scaled_shells(folder, suffix):
    """Rotations are an array of their own, free dofs come in any order; the largest translation is told."""
    mesh = meshes.plain()
    many = 6 * len(mesh.points)
    free = np.random.default_rng(5).permutation(many)[: many - 7]
    stiff, mass = meshes.chain(len(free))
    _, vectors = scipy.linalg.eigh(stiff.toarray(), mass.toarray(), subset_by_index=[0, 0])
    whole = np.zeros(many)
    whole[free] = vectors[:, 0]
    whole = whole.reshape(-1, 6) / np.linalg.norm(whole.reshape(-1, 6)[:, :3], axis=1).max() * 0.5
    path = folder / f"shell{suffix}"
    with sh.eigs(stiff, 1, mass=mass, comm=COMM) as found:
        sh.write_modes(path, found, mesh, "xyzabc", free=free, units=HERTZ, scale=0.5)
    COMM.Barrier()
    if COMM.rank == 0 and suffix in (".vtu", ".unv"):
        if suffix == ".vtu":
            meshio = pytest.importorskip("meshio")
            data = meshio.read(path).point_data
            (name,) = (name for name in data if not name.endswith("_rotation"))
            got = np.hstack([data[name], data[f"{name}_rotation"]])
        else:
            part = path.read_text().split("    -1\n")[-2].splitlines()
            assert columns(part[6], 10, int) == [1, 2, 3, 8, 2, 6]
            got = np.array([columns(line, 13, float) for line in part[10::2]])
        np.testing.assert_allclose(meshes.aligned(got[None], whole[None])[0], whole, atol=1e-5)


def test_buckling_modes(folder):
    """Load factors name the modes and stand in the place of frequencies."""
    with sh.buckling(K, -M, 2, comm=COMM) as found:
        for suffix in (".vtu", ".unv", ".frd"):
            sh.write_modes(folder / f"buckled{suffix}", found, MESH, "xyz", fixed=FIXED)
        factor = found.load_factors[0]
    COMM.Barrier()
    if COMM.rank == 0:
        assert f'Name="mode_1_{factor:.6g}_load_factor"'.encode() in (folder / "buckled.vtu").read_bytes()
        part = (folder / "buckled.unv").read_text().split("    -1\n")[5].splitlines()
        assert columns(part[6], 10, int)[1] == 6 and columns(part[8], 13, float) == [
            pytest.approx(factor, rel=1e-5)
        ]
        assert f" {factor:#.9g}" in (folder / "buckled.frd").read_text()


def test_surfaces():
    """Faces that two solids share are not drawn; of each cell alone all are, and halves of quadratic bars."""
    bricks = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9, 10, 11]])
    stacked = Mesh(np.zeros((12, 3)), 3, (("hexahedron", bricks),))
    assert len(drawn_faces(stacked)) == 10 and not len(drawn_lines(stacked))
    faces = drawn_faces(MESH)
    assert len(faces) == 2 * (6 + 5 + 4 + 1 + 1) + 5 and len(drawn_lines(MESH)) == 3
    tetrahedra = Mesh(np.zeros((5, 3)), 3, (("tetra", np.array([[0, 1, 2, 3], [2, 1, 0, 4]])),))
    assert sorted(sorted(set(face)) for face in drawn_faces(tetrahedra).tolist()) == [
        *([0, 1, 3], [0, 1, 4], [0, 2, 3], [0, 2, 4], [1, 2, 3], [1, 2, 4])
    ]


def test_pictures_that_move(folder):
    """A swing is there and back: its first and last pictures are neighbours, its middle is the other end."""
    image = pytest.importorskip("PIL.Image")
    with sh.eigs(K, 2, mass=M, comm=COMM) as found:
        sh.animate_mode(folder / "mode2.png", found, MESH, "xyz", mode=2, fixed=FIXED, units=HERTZ)
        with pytest.raises(InputError, match="mode 3 is not there: 2 were found"):
            sh.animate_mode(folder / "mode3.gif", found, MESH, "xyz", mode=3, fixed=FIXED)
    COMM.Barrier()
    if COMM.rank == 0:
        names = sorted(path.name for path in folder.iterdir())
        assert names == [f"mode2_{number:02}.png" for number in range(1, 25)]
        shown = [np.asarray(image.open(folder / name)).astype(int) for name in names]
        assert (shown[1] == shown[23]).all() and (shown[5] == shown[19]).all()
        apart = [np.abs(one - shown[0]).sum() for one in shown]
        assert 0 < apart[1] < apart[6] and apart[12] > 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"dofs": "xy"}, "have 188, of which 0 are fixed"),
        ({}, "and the matrix has 278 rows"),
        ({"dofs": "xyq"}, "write each of a node's once"),
        ({"fixed": [0, 1, 2, 2]}, "2 is told twice"),
        ({"fixed": [0, 1, 2, MANY]}, f"from 0 to {MANY - 1}"),
        ({"fixed": [0.5, 1, 2, 3]}, "whole numbers"),
        ({"fixed": FIXED, "free": [1]}, "fixed or as free, not both"),
        ({"fixed_sets": ["base"]}, "no set of nodes 'base'"),
        ({"fixed": FIXED, "scale": float("nan")}, "scale"),
        ({"fixed": FIXED, "scale": 1e200}, "scale 1e\\+200 must be from 1e-90 to 1e90"),
        ({"fixed": FIXED, "scale": 1e-200}, "columns"),
        ({"fixed": FIXED, "path": "m.frd"}, "give units"),
        ({"fixed": FIXED, "path": "m.stl"}, "must end with one of"),
    ],
)
def test_mistakes(folder, how, said):
    how = {"path": "m.vtu", **how}
    path = folder / how.pop("path")
    with sh.eigs(K, 1, mass=M, comm=COMM) as found, pytest.raises(InputError, match=said):
        sh.write_modes(path, found, MESH, **how)
    COMM.Barrier()
    assert not list(folder.iterdir())


def test_other_modes(folder):
    """What has no shapes is refused by name."""
    with pytest.raises(InputError, match="none of Units"):
        sh.write_modes(folder / "m.vtu", HERTZ, MESH)


def test_meshes_that_are_none(folder):
    meshio = pytest.importorskip("meshio")
    points = np.array([[0.0, 0.0], [1.0, np.nan], [0.0, 1.0]])
    with pytest.raises(InputError, match="position of node 1, counted from 0, is not finite"):
        sh.ModeMesh(meshio.Mesh(points, {"triangle": [[0, 1, 2]]}))
    with pytest.raises(InputError, match="a triangle names node 3"):
        sh.ModeMesh(meshio.Mesh(np.nan_to_num(points), {"triangle": [[0, 1, 3]]}))
    with pytest.raises(InputError, match="is no mesh"):
        sh.ModeMesh(np.zeros((3, 3)))
    flat = sh.ModeMesh(meshio.Mesh(np.nan_to_num(points), {"triangle": [[0, 1, 2]]}))
    assert flat.dofs == "xy" and repr(flat).endswith("dofs xy, none fixed>")
    with pytest.raises(InputError, match=r"have 6, of which 0 are fixed.*--dofs xyz has as many"):
        flat.check(9)
    with sh.eigs(K, 1, mass=M, comm=COMM) as found:
        pass
    with pytest.raises(InputError, match="closed"):
        sh.write_modes(folder / "m.vtu", found, MESH)


@pytest.mark.parametrize(
    ("sets", "word"),
    [
        ({"point_sets": {"end": [4]}}, "'end' has node 4, counted from 0, of 4"),
        ({"point_sets": {"end": [-1]}}, "'end' has node -1"),
        ({"point_sets": {"end": [0.5]}}, "'end' has float64 in it"),
        ({"point_sets": {"end": [True, False, False, True]}}, "'end' has bool in it"),
        ({"cell_sets": {"end": [[1], []]}}, "'end' has cell 1, counted from 0, of 1"),
        ({"cell_sets": {"end": [[], [-1]]}}, "'end' has cell -1"),
    ],
)
def test_sets_of_what_is_not_there(sets, word):
    meshio = pytest.importorskip("meshio")
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    square = meshio.Mesh(points, [("line", [[0, 3]]), ("quad", [[0, 1, 2, 3]])], **sets)
    with pytest.raises(InputError, match=word):
        sh.ModeMesh(square, "xy", fixed_sets="end")


def test_sets_of_nodes():
    """Of points, of cells, and Gmsh's physical groups; letters hold some of their dofs."""
    meshio = pytest.importorskip("meshio")
    square = meshio.Mesh(
        np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]),
        [("line", [[0, 3]]), ("quad", [[0, 1, 2, 3]])],
        point_sets={"corner": [1]},
        cell_sets={"left": [[0], []]},
        cell_data={"gmsh:physical": [np.array([7]), np.array([7])]},
        field_data={"wall": np.array([7, 1]), "plate": np.array([7, 2])},
    )
    held = sh.ModeMesh(square, "xy", fixed_sets=["left:x", "corner"]).variables
    assert held.tolist() == [[-1, 0], [-1, -1], [1, 2], [-1, 3]]
    assert sh.ModeMesh(square, "xy", fixed_sets=["wall"]).n == 4  # not the surface that has the tag of the line
    assert sh.ModeMesh(square, "xy", fixed_sets="plate:y").n == 4
    with pytest.raises(InputError, match="did you mean wall"):
        sh.ModeMesh(square, "xy", fixed_sets=["wal"])
    with pytest.raises(InputError, match="some of these behind the colon"):
        sh.ModeMesh(square, "xy", fixed_sets=["wall:z"])


NODES = "*NODE\n30, 0, 0, 0\n10, 1, 0, 0\n20, 1, 1, 0\n5, 0, 1, 0\n"
BAR, PLATE = "*ELEMENT, TYPE=T3D2{}\n1, 30, 10\n2, 10, 20\n", "*ELEMENT, TYPE=S4{}\n7, 30, 10, 20, 5\n"
NAMED = (BAR + PLATE).replace("{}", ", ELSET={}")


def test_masses_of_scaled_modes(folder):
    """What a file tells of xᵀMx, and of xᵀKx, is that of the shapes that it holds."""
    written(folder, ".unv", scale=0.05)
    path = written(folder, ".frd", scale=0.05)
    if COMM.rank:
        return
    rows = [row for row in range(MANY) if row not in FIXED]
    parts = path.with_suffix(".unv").read_text().split("    -1\n")[5::2]
    blocks = path.read_text().split(" -3\n")[2:5]
    for part, block in zip([one.splitlines() for one in parts], blocks, strict=True):
        x = np.array([columns(line, 13, float) for line in part[10::2]])
        assert np.linalg.norm(x, axis=1).max() == pytest.approx(0.05, rel=1e-5)
        x = x.ravel()[rows]
        assert columns(part[8], 13, float)[1] == pytest.approx(x @ M @ x, rel=1e-4)
        told = {line[:8]: float(line[24:36]) for line in block.splitlines() if line.startswith("    1PG")}
        assert told == {
            "    1PGM": pytest.approx(x @ M @ x, rel=1e-4),
            "    1PGK": pytest.approx(x @ K @ x, rel=1e-4),
        }


def lay(path, text):
    """Write a file that all ranks read; return its path."""
    if COMM.rank == 0:
        path.write_text(text)
    COMM.Barrier()
    return path


@pytest.mark.parametrize(
    ("text", "name", "nodes"),
    [
        (NAMED.format("BAR", "PLATE"), "BAR", [0, 1, 2]),
        (PLATE.format("") + "*NSET, NSET=A, GENERATE\n10, 30, 20\n", "A", [0, 1]),
        (PLATE.format("") + "*NSET, NSET=A\n30, 5\n*NSET, NSET=A\n10\n", "A", None),
        (PLATE.format("") + "*NSET, NSET=A\n30, 5\n*NSET, NSET=B\nA, 10\n", "B", None),
        (BAR.format("") + PLATE.format(", ELSET=PLATE"), "PLATE", None),
        (NAMED.format("A", "A"), "A", None),
        (PLATE.format(", ELSET=A") + BAR.format(", ELSET=A"), "A", None),
        (NAMED.format("BAR", "PLATE") + "*ELSET, ELSET=B\nPLATE\n", "B", None),
    ],
)
def test_sets_of_abaqus(folder, text, name, nodes):
    """Nodes of sets are those of the file, whose numbers have gaps, or, where meshio misreads them, none."""
    deck = lay(folder / "deck.inp", NODES + text)
    if nodes is None:
        with pytest.raises(InputError, match=f"set '{name}' are none that meshio reads right"):
            sh.ModeMesh(deck, fixed_sets=[name])
    else:
        mesh = sh.ModeMesh(deck, "x", fixed_sets=[name])
        assert np.flatnonzero(mesh.variables < 0).tolist() == nodes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NODES + "*NODE\n40, 2, 0, 0\n" + PLATE.format(""), "line 6: meshio reads one block"),
        (NODES.replace("20,", "** more\n20,") + BAR.format(""), "line 5: meshio leaves out what is behind"),
    ],
)
def test_decks_that_meshio_misreads(folder, text, said):
    deck = lay(folder / "deck.inp", text)
    with pytest.raises(InputError, match=said):
        sh.ModeMesh(deck)


def test_systems_of_nastran(folder):
    """Coordinates in another system than the global one would be drawn elsewhere."""
    grids = [f"GRID,{number},{{}},{number // 2}.,{number % 2}.,0." for number in range(1, 5)]
    text = "\n".join(["BEGIN BULK", *grids, "CQUAD4,1,1,1,2,4,3", "ENDDATA", ""])
    assert sh.ModeMesh(lay(folder / "a.bdf", text.format(0, 0, 0, 0))).n == 12
    other = lay(folder / "b.bdf", text.format("", 0, 5, 0))
    with pytest.raises(InputError, match=r"systems \(CP\)"):
        sh.ModeMesh(other)


def test_wedges_of_files_in_capitals(folder):
    """meshio turns the triangles of wedges round that it reads of VTK, whatever the name of the file."""
    meshio = pytest.importorskip("meshio")
    wedge = np.array(meshes.PRISM, float)
    for name in ("w.vtu", "W.VTU"):
        if COMM.rank == 0:
            meshio.Mesh(wedge, {"wedge": [[0, 2, 1, 3, 5, 4]]}).write(folder / name, file_format="vtu")
        COMM.Barrier()
        ((_, nodes),) = sh.ModeMesh(folder / name).mesh.cells
        assert nodes.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_numbers_of_calculix():
    """The first of the twelve columns of a frequency is blank: FreeCAD reads from the second one."""
    for value in (1293.0519, 1e-5 / 3, -1e-5 / 3, 1.23456789e13, -1e300 / 3, 0.0):
        text = calculix_files._in_twelve(value)
        assert len(text) == 12 and text[0] == " " and float(text) == pytest.approx(value, rel=2e-4)
