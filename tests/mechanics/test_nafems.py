"""NAFEMS free-vibration benchmarks: published frequencies, found and counted without a miss.

NAFEMS, "The Standard NAFEMS Benchmarks", TNSB Rev. 3, 1990, and R0015, "Selected Benchmarks for Natural Frequency
Analysis": target values as Altair prints them in OptiStruct's verification manual, OS-V 0400 (FV2), 0415 (FV5),
0420 (FV12). FV52 is among the matrices beside the project.
"""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.storage import matrix_files
from support import code_files

E, RHO = 200e9, 8000.0
HERTZ = 2 * np.pi


def bar_and_beam(length, area, inertia, shear=0.0):
    """Return stiffness and consistent mass of an element in its plane, dofs u, v, rotation of both ends.

    Przemieniecki, Theory of Matrix Structural Analysis, 1968, sections 5.6 and 11.5: with shear deformation and
    rotary inertia, where `shear` is 12 E I / (G A_s L²); without both for 0.
    """
    stiffness, mass = np.zeros((6, 6)), np.zeros((6, 6))
    axial = np.ix_([0, 3], [0, 3])
    stiffness[axial] = E * area / length * np.array([[1, -1], [-1, 1]])
    mass[axial] = RHO * area * length / 6 * np.array([[2, 1], [1, 2]])
    L, p = length, shear
    bending = np.ix_([1, 2, 4, 5], [1, 2, 4, 5])
    stiffness[bending] = (
        E * inertia / (L**3 * (1 + p))
        * np.array([
            [12, 6 * L, -12, 6 * L],
            [6 * L, (4 + p) * L**2, -6 * L, (2 - p) * L**2],
            [-12, -6 * L, 12, -6 * L],
            [6 * L, (2 - p) * L**2, -6 * L, (4 + p) * L**2],
        ])
    )  # fmt: skip
    a, b = 13 / 35 + 7 * p / 10 + p**2 / 3, 9 / 70 + 3 * p / 10 + p**2 / 6
    c, d = (11 / 210 + 11 * p / 120 + p**2 / 24) * L, (13 / 420 + 3 * p / 40 + p**2 / 24) * L
    e, f = (1 / 105 + p / 60 + p**2 / 120) * L**2, (1 / 140 + p / 60 + p**2 / 120) * L**2
    translation = np.array([[a, c, b, -d], [c, e, d, -f], [b, d, a, -c], [-d, -f, -c, e]])
    mass[bending] = RHO * area * L / (1 + p) ** 2 * translation
    if shear:
        g, h = 6 / 5, (1 / 10 - p / 2) * L
        i, j = (2 / 15 + p / 6 + p**2 / 3) * L**2, (-1 / 30 - p / 6 + p**2 / 6) * L**2
        turning = np.array([[g, h, -g, h], [h, i, -h, j], [-g, -h, g, -h], [h, j, -h, i]])
        mass[bending] += RHO * inertia / (L * (1 + p) ** 2) * turning
    return stiffness, mass


def frame(nodes, elements, make):
    """Return K and M of plane elements between nodes."""
    n = 3 * len(nodes)
    stiffness, mass = np.zeros((n, n)), np.zeros((n, n))
    for i, j in elements:
        along = nodes[j] - nodes[i]
        length = np.linalg.norm(along)
        c, s = along / length
        turn = np.kron(np.eye(2), [[c, s, 0], [-s, c, 0], [0, 0, 1]])
        dofs = np.ix_(*[np.r_[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]] * 2)
        for whole, part in zip((stiffness, mass), make(length), strict=True):
            whole[dofs] += turn.T @ part @ turn
    return stiffness, mass


def double_cross(per_arm):
    """Return nodes, elements and the pinned nodes of eight arms of five metres."""
    angles = np.arange(8) * np.pi / 4
    steps = np.arange(1, per_arm + 1) * 5.0 / per_arm
    nodes = np.vstack([[0.0, 0.0], *(np.outer(steps, [np.cos(a), np.sin(a)]) for a in angles)])
    arms = [np.r_[0, 1 + per_arm * k + np.arange(per_arm)] for k in range(8)]
    return nodes, [pair for arm in arms for pair in pairwise(arm)], [arm[-1] for arm in arms]


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("held", ["left out", "penalty"])
def test_fv2_pin_ended_double_cross(held, folder, comm):
    """Eigenvalues of multiplicity up to five, near others, from DMIG cards; pins left out, or penalties."""
    nodes, elements, pinned = double_cross(4)
    side = 0.125
    stiffness, mass = frame(nodes, elements, lambda length: bar_and_beam(length, side**2, side**4 / 12))
    pins = np.array([3 * node + part for node in pinned for part in (0, 1)])
    labels = [(node + 1, part) for node in range(len(nodes)) for part in (1, 2, 6)]
    kept = np.arange(len(labels))
    if held == "penalty":
        stiffness[pins, pins] += 1e20
    else:
        kept = np.setdiff1d(kept, pins)
    if comm.rank == 0:
        part = np.ix_(kept, kept)
        matrices = {"KAAX": stiffness[part], "MAAX": mass[part]}
        code_files.dmig(folder / "fv2.pch", matrices, [labels[row] for row in kept])
    comm.Barrier()
    K = matrix_files.read_matrix(folder / "fv2.pch:KAAX", comm)
    M = matrix_files.read_matrix(folder / "fv2.pch:MAAX", comm, beside=K)
    matrices = K.to_mat(), M.to_mat()
    with sh.eigs(matrices[0], 16, mass=matrices[1], comm=comm) as modes:
        frequencies = np.sqrt(modes.eigenvalues) / HERTZ
        assert modes.count.certified
    for matrix in matrices:
        matrix.destroy()
    K.pattern.free()
    M.pattern.free()
    targets = np.repeat([11.336, 17.709, 45.345, 57.390], [1, 7, 1, 7])
    assert np.all(np.abs(frequencies / targets - 1) < 7e-3)  # four elements an arm, as the benchmark has


@pytest.mark.parallel([1, 2])
def test_fv5_deep_simply_supported_beam(comm):
    """Shear deformation and rotary inertia, and an extensional mode among flexural ones that come in pairs."""
    cells, side, poisson = 40, 2.0, 0.3
    area, inertia = side**2, side**4 / 12
    shear_area = 5 / 6 * area * E / (2 * (1 + poisson))

    def make(length):
        return bar_and_beam(length, area, inertia, 12 * E * inertia / (shear_area * length**2))

    nodes = np.column_stack([np.linspace(0, 10.0, cells + 1), np.zeros(cells + 1)])
    stiffness, mass = frame(nodes, list(zip(range(cells), range(1, cells + 1), strict=True)), make)
    free = np.setdiff1d(np.arange(3 * cells + 3), [0, 1, 3 * cells + 1])
    plane = np.ix_(free, free)
    bending = [row for row, dof in enumerate(free) if dof % 3]  # in the other plane once more
    again = np.ix_(bending, bending)
    K = sp.block_diag([stiffness[plane], stiffness[plane][again]]).tocsr()
    M = sp.block_diag([mass[plane], mass[plane][again]]).tocsr()
    with sh.eigs(K, 7, mass=M, comm=comm) as modes:
        frequencies = np.sqrt(modes.eigenvalues) / HERTZ
        assert modes.count.certified
    targets = [42.649, 42.649, 125.00, 148.31, 148.31, 284.55, 284.55]
    assert np.allclose(frequencies, targets, rtol=8e-3)  # their shear coefficient is not published; here 5/6


@pytest.mark.parallel([1, 2])
def test_fv12_free_thin_square_plate(comm):
    """Three rigid motions of zero frequency, then modes as published, two of them equal."""
    skfem = pytest.importorskip("skfem")
    from skfem.helpers import dd, ddot, eye, trace

    poisson, thickness = 0.3, 0.05
    rigidity = E * thickness**3 / (12 * (1 - poisson**2))
    mesh = skfem.MeshQuad.init_tensor(np.linspace(0, 10, 9), np.linspace(0, 10, 9))
    basis = skfem.Basis(mesh, skfem.ElementQuadBFS())

    def moments(curvature):
        return rigidity * ((1 - poisson) * curvature + poisson * eye(trace(curvature), 2))

    K = skfem.BilinearForm(lambda u, v, w: ddot(moments(dd(u)), dd(v))).assemble(basis)
    M = skfem.BilinearForm(lambda u, v, w: RHO * thickness * u * v).assemble(basis)
    K, M = (sp.csr_matrix((part + part.T) / 2) for part in (K, M))
    with sh.eigs(K, 10, mass=M, comm=comm) as modes:
        values = modes.eigenvalues
        assert modes.count.certified
    assert np.abs(values[:3]).max() < 1e-6 * values[3]
    targets = [1.622, 2.360, 2.922, 4.233, 4.233, 7.416]
    frequencies = np.sqrt(values[3:9]) / HERTZ
    assert np.allclose(frequencies, targets, rtol=0.02)
    assert abs(frequencies[3] / frequencies[4] - 1) < 1e-6
