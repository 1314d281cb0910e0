"""Complex modes on meshes: files read by others, against LAPACK's modes, on any number of ranks."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.mechanics.complex_shapes import farthest
from sparsehess.mechanics.mode_files import SUFFIXES

meshio = pytest.importorskip("meshio")
meshes = pytest.importorskip("support.meshes")

pytestmark = pytest.mark.parallel([1, 2, 3])

COMM = MPI.COMM_WORLD
HERTZ = sh.Units.consistent("Hz")
MESH = meshes.plain()
FIXED = [0, 1, 10, 11]
K, M = meshes.chain(16)
C = np.zeros((16, 16))
C[3, 3], C[9, 9] = 0.7, 0.2  # two dashpots: nodes do not pass their places at one time


@pytest.fixture(scope="module")
def exact():
    """Return LAPACK's (λ, (3, 10, 2) modes) of lowest |λ| above the axis."""
    zero, one = np.zeros((16, 16)), np.eye(16)
    values, vectors = scipy.linalg.eig(
        np.block([[zero, one], [-K.toarray(), -C]]), np.block([[one, zero], [zero, M.toarray()]])
    )
    above = np.flatnonzero(values.imag > 0)
    taken = above[np.argsort(np.abs(values[above]))[:3]]
    shapes = np.zeros((3, 20), complex)
    shapes[:, [dof for dof in range(20) if dof not in FIXED]] = vectors[:16, taken].T
    return values[taken], shapes.reshape(3, 10, 2)


def written(folder, suffix, units=HERTZ, **how):
    path = folder / f"damped{suffix}"
    with sh.damped_modes(K, M, C, k=3, comm=COMM) as found:
        sh.write_modes(path, found, MESH, "xy", fixed=FIXED, units=units, **how)
    COMM.Barrier()
    return path


def check_shape(found, shape):
    """Compare (10, 3) with (10, 2) but for a complex factor; the largest entry is one."""
    assert not found[:, 2].any()
    flat, right = found[:, :2].ravel(), shape.ravel()
    np.testing.assert_allclose(right * (right.conj() @ flat) / (right.conj() @ right), flat, atol=1e-6)
    assert np.abs(flat).max() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.essential
@pytest.mark.parametrize("suffix", [".vtu", ".vtk"])
def test_one_file(folder, exact, suffix):
    pyvista = pytest.importorskip("pyvista")
    path = written(folder, suffix)
    if COMM.rank:
        return
    grid, (values, shapes) = pyvista.read(path), exact
    hertz = values.imag / (2 * np.pi)
    names = [f"mode_{number}_{one:.6g}_Hz" for number, one in enumerate(hertz, 1)]
    assert list(grid.point_data) == [name + part for name in names for part in ("_real", "_imaginary")]
    for name, shape in zip(names, shapes, strict=True):
        check_shape(grid.point_data[f"{name}_real"] + 1j * grid.point_data[f"{name}_imaginary"], shape)
    told = {
        "eigenvalue_real": values.real,
        "eigenvalue_imaginary": values.imag,
        "frequency_Hz": hertz,
        "damping_ratio": -values.real / np.abs(values),
    }
    for name, right in told.items():
        np.testing.assert_allclose(grid.field_data[name], right, rtol=1e-7)
    assert grid.field_data["none_missed"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("suffix", [".pvd", ".xdmf"])
def test_steps(folder, exact, suffix):
    pyvista = pytest.importorskip("pyvista")
    path = written(folder, suffix)
    if COMM.rank:
        return
    reader = pyvista.get_reader(path)
    for number, shape in enumerate(exact[1]):
        reader.set_active_time_value(number + 1.0)
        grid = reader.read()
        data = (grid[0] if suffix == ".pvd" else grid).point_data
        check_shape(data["displacement_real"] + 1j * data["displacement_imaginary"], shape)


@pytest.mark.essential
def test_universal_file(folder, exact):
    """Data set 55 of complex values: analysis 3, type 5, λ in rad/s, parts of each value in turn."""
    path = written(folder, ".unv", units=sh.Units.of_matrices("kN/m", "kg", "Hz"))
    if COMM.rank:
        return
    parts = [part.splitlines() for part in path.read_text().split("    -1\n") if part.strip()]
    for number, (part, value, shape) in enumerate(zip(parts[2:], *exact, strict=True), 1):
        assert [int(word) for word in part[6].split()] == [1, 3, 2, 8, 5, 3]
        assert [int(word) for word in part[7].split()] == [2, 6, 1, number]
        told = [float(part[8][first : first + 13]) for first in range(0, 78, 13)]
        np.testing.assert_allclose(told[:2], np.sqrt(1000) * np.array([value.real, value.imag]), rtol=1e-5)
        assert told[2:] == [0, 0, 0, 0] and "not computed" in part[4]
        rows = np.array([[float(row[first : first + 13]) for first in range(0, 78, 13)] for row in part[10::2]])
        check_shape(rows[:, ::2] + 1j * rows[:, 1::2], shape)


def test_turning_nodes_of_universal_files(folder):
    """Twelve numbers of a node are two lines of six."""
    path = folder / "turning.unv"
    k, m = meshes.chain(60)
    with sh.damped_modes(k, m, 0.01 * k, k=1, comm=COMM) as found:
        sh.write_modes(path, found, MESH, "xyzabc", units=HERTZ)
    COMM.Barrier()
    if COMM.rank == 0:
        part = [one for one in path.read_text().split("    -1\n") if one.strip()][2].splitlines()
        assert part[6].split()[-2:] == ["5", "6"]
        assert [len(row) for row in part[9:]] == 10 * [10, 78, 78]


def test_names_without_units_and_refusals(folder, exact):
    path = written(folder, ".vtu", units=None)
    if COMM.rank == 0:
        names = list(meshio.read(path).point_data)
        assert names[0] == f"mode_1_{exact[0][0].real:.6g}{exact[0][0].imag:+.6g}i_real"
    COMM.Barrier()
    with pytest.raises(InputError, match="give units"):
        written(folder, ".unv", units=None)
    with pytest.raises(InputError, match=r"\.frd has no complex modes: write \.vtu"):
        written(folder, ".frd")
    assert ".frd" in SUFFIXES and not (folder / "damped.frd").exists()


def test_how_far_nodes_swing(folder):
    """The longer half axis of each ellipse, against many phases; a scaled mode swings as far as it is told."""
    moved = np.random.default_rng(1).normal(size=(7, 6)).view(complex)
    moved[0] = [1, 1j, 0]  # a circle
    moved[1] = 0
    moved[2] = [1e-200, 1e-200j, 0]
    phases = np.exp(2j * np.pi * np.arange(20_000) / 20_000)
    slow = np.array([np.linalg.norm((phases[:, None] * row).real, axis=1).max() for row in moved])
    np.testing.assert_allclose(farthest(moved)[[0, 1, 3, 4, 5, 6]], slow[[0, 1, 3, 4, 5, 6]], rtol=1e-6)
    assert farthest(moved)[2] == pytest.approx(1e-200, rel=1e-12, abs=0) and farthest(moved)[0] == pytest.approx(1)
    path = written(folder, ".vtu", scale=0.25)
    if COMM.rank == 0:
        data = list(meshio.read(path).point_data.values())
        for real, imaginary in zip(data[::2], data[1::2], strict=True):
            swing = [np.linalg.norm((one * (real + 1j * imaginary)).real, axis=1).max() for one in phases[::20]]
            assert max(swing) == pytest.approx(0.25, rel=1e-5)


def test_moving_pictures(folder):
    """A node on a circle is on the other side after half a swing, and nowhere twice before: unlike a real mode."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    k, g = np.kron(np.eye(10), 4 * np.eye(2)), np.kron(np.diag(np.arange(1.0, 11)), [[0, 1], [-1, 0]])
    with sh.damped_modes(k, gyroscopic=g, k=1, comm=COMM) as found:
        sh.animate_mode(folder / "whirl.png", found, MESH, "xy")
        with pytest.raises(InputError, match="mode 2 is not there"):
            sh.animate_mode(folder / "whirl.gif", found, MESH, "xy", mode=2)
    COMM.Barrier()
    if COMM.rank == 0:
        names = sorted(path.name for path in folder.iterdir())
        assert names == [f"whirl_{number:02}.png" for number in range(1, 25)]
        shown = [np.asarray(image.open(folder / name)).astype(int) for name in names]
        assert (shown[6] != shown[18]).any() and (shown[3] != shown[21]).any()
