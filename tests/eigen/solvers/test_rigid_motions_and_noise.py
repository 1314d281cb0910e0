"""Rigid motions and noisy Hessians as chemistry and mechanics have them; right answers by LAPACK."""

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.derivatives.units import Units
from sparsehess.eigen.solvers.eigs import solve
from sparsehess.errors import CheckError, InputError

pytestmark = [pytest.mark.parallel([1, 2]), pytest.mark.essential]


def motions(points):
    """Return translations and rotations (6, 3 n), each as it comes."""
    arm = points - points.mean(axis=0)
    rows = [np.tile(axis, (len(points), 1)) for axis in np.eye(3)] + [np.cross(axis, arm) for axis in np.eye(3)]
    return np.array(rows).reshape(6, -1)


def linear_molecule(bend, masses, tilt=0.0):
    """Return (K, M, rigid motions, exact) of a linear molecule of three atoms, on the z axis but for `tilt`.

    Two springs along it; across, ½ bend (u₁ − 2u₂ + u₃)² in both directions.
    """
    points = np.array([[0.0, 0, -1], [0, 0, 0], [0, 0, 1]])
    stretch = np.array([[1.0, -1, 0], [0, 1, -1]])
    across = np.array([[1.0, -2, 1]])
    K = np.zeros((9, 9))
    K[2::3, 2::3] = 50 * stretch.T @ stretch
    for axis in (0, 1):
        K[axis::3, axis::3] = bend * across.T @ across
    M = np.repeat(masses, 3)
    points = points + tilt * np.random.default_rng(0).standard_normal((3, 3))
    values = scipy.linalg.eigh(K, np.diag(M), eigvals_only=True)
    return K, M, motions(points), np.sort(values[np.argsort(-np.abs(values))[:4]])


def noisy(K, noise, seed=0):
    error = noise * np.random.default_rng(seed).standard_normal(K.shape)
    return K + (error + error.T) * (K != 0)


def complement(K, M, N):
    """Return the eigenvalues on the complement of N, by LAPACK."""
    mass = np.diag(M)
    U, s, _ = np.linalg.svd(N.T, full_matrices=False)
    Z = scipy.linalg.null_space((mass @ U[:, s > 1e-9 * s[0]]).T)
    return scipy.linalg.eigh(Z.T @ K @ Z, Z.T @ mass @ Z, eigvals_only=True)


@pytest.mark.parametrize("tilt", [0.0, 1e-15, 1e-13])
@pytest.mark.parametrize("bend", [3.0, -3.0])
def test_a_linear_molecule_has_five(bend, tilt, comm):
    """The rotation about the axis is zero, or what rounding of the coordinates leaves of it.

    https://github.com/pyscf/pyscf/issues/633, https://github.com/pyscf/pyscf/issues/2967
    """
    K, M, rigid, exact = linear_molecule(bend, np.array([1.0, 16.0, 1.0]), tilt)
    with sh.eigs(K, 4, mass=M, nullspace=rigid, comm=comm) as found:
        np.testing.assert_allclose(found.eigenvalues, exact, rtol=1e-9)
        below = int(found.count.interval[1] > 0)
        assert found.count.certified and found.count.inertia == 4 + 5 * below


def test_both_imaginary_bends_of_a_linear_saddle_are_there(comm):
    """https://github.com/grimme-lab/xtb/issues/693: a projection that loses them among rigid motions."""
    K, M, rigid, exact = linear_molecule(-3.0, np.array([1.0, 16.0, 1.0]))
    for method in ("krylovschur", "dense", "lobpcg"):
        with sh.eigs(noisy(K, 1e-9), 2, mass=M, nullspace=rigid, method=method, comm=comm, tol=1e-7) as found:
            np.testing.assert_allclose(found.eigenvalues, exact[:2], rtol=1e-6)
            assert (found.eigenvalues < 0).all() and found.count.certified
    with sh.eigs(K, which="negative", mass=M, nullspace=rigid, comm=comm) as found:
        assert found.converged == 2 and found.count.certified


def cloud(seed, atoms=9):
    """Return (K, points) of atoms in space, each pair on a spring."""
    points = np.random.default_rng(seed).uniform(-2, 2, (atoms, 3))
    K = np.zeros((3 * atoms, 3 * atoms))
    for i in range(atoms):
        for j in range(i):
            way = np.zeros(3 * atoms)
            arm = points[i] - points[j]
            way[3 * i : 3 * i + 3], way[3 * j : 3 * j + 3] = arm, -arm
            K += 5.0 * np.outer(way, way) / (arm @ arm)
    return K, points


def test_a_genuine_imaginary_mode_below_the_rigid_ones_stays(comm):
    """https://github.com/isayevlab/aimnetcentral/pull/129: dropping the six lowest drops it."""
    K, points = cloud(3)
    rigid, M = motions(points), np.ones(27)
    value, vectors = np.linalg.eigh(K)
    soft = vectors[:, 6]
    saddle = K - (value[6] + 0.5) * np.outer(soft, soft)
    with sh.eigs(saddle, 3, nullspace=rigid, comm=comm) as found:
        np.testing.assert_allclose(found.eigenvalues, [-0.5, value[7], value[8]], rtol=1e-9)
        assert found.count.certified and found.count.inertia == 9
    rough = noisy(saddle, 1e-5)
    with sh.EigenProblem.of(rough, mass=M, nullspace=rigid, relative_error=1e-4, comm=comm) as problem:
        found = sh.curvature(problem)
        assert found.sign == -1 and found.value == pytest.approx(complement(rough, M, rigid)[0], rel=1e-9)
        found.direction.destroy()


def test_rotations_where_the_forces_do_not_vanish_are_named(comm):
    """https://github.com/grimme-lab/xtb/pull/1205: off the minimum a rotation is no null vector; by how much?"""
    K, points = cloud(4)
    off = motions(points * np.array([1.0, 1.0, 1.01]))
    with pytest.raises(CheckError, match=r"null vector 3 is not.*in row \d+.*vanishes") as caught:
        sh.eigs(K, 3, nullspace=off, comm=comm)
    assert all(f"null vector {number} is" not in str(caught.value) for number in (0, 1, 2, 5))


@pytest.mark.parametrize("soft", [0.3, -0.3])
def test_a_crystal_by_a_potential_in_single_precision(soft, comm):
    """Three acoustic modes by the sum rule, and a soft or an unstable optical one that it must not touch.

    https://github.com/nanotheorygroup/kaldo/pull/276, https://github.com/SSCHAcode/CellConstructor/issues/119
    """
    cells = 12
    chain = 2 * np.eye(2 * cells) - np.roll(np.eye(2 * cells), 1, 0) - np.roll(np.eye(2 * cells), -1, 0)
    K = np.kron(chain, np.diag([40.0, 20.0, 30.0]))
    optical = np.zeros(6 * cells)
    optical[1::3] = (-1.0) ** np.arange(2 * cells) / np.sqrt(2 * cells)
    K += (soft - optical @ K @ optical) * np.outer(optical, optical)
    K = K.astype(np.float32).astype(float)  # the sum rule holds to 1e-7
    K = (K + K.T) / 2
    translations = np.kron(np.ones((1, 2 * cells)), np.eye(3))
    M = np.repeat(np.tile([12.0, 28.0], cells), 3)
    right = complement(K, M, translations)
    with sh.EigenProblem.of(K, mass=M, nullspace=translations, relative_error=1e-6, comm=comm) as problem:
        found = solve(problem, sh.SolveSpec(k=5))
        np.testing.assert_allclose(found.eigenvalues, right[:5], rtol=1e-8)
        assert found.count.certified and (found.eigenvalues[0] < 0) == (soft < 0)
        found.close()


def test_more_zeros_than_are_known_are_shown(comm):
    """https://github.com/prody/ProDy/issues/513: an atom that nothing holds has three more."""
    K, points = cloud(5)
    loose = np.zeros((30, 30))
    loose[:27, :27] = K
    rigid = motions(np.vstack([points, [[9.0, 0, 0]]]))
    rigid[:, 27:] = 0
    with sh.eigs(loose, 4, nullspace=rigid, comm=comm) as found:
        assert found.zeros == 3 and found.count.certified
        np.testing.assert_allclose(found.eigenvalues[3], np.linalg.eigvalsh(K)[6], rtol=1e-9)


def test_a_null_vector_that_both_matrices_share(comm):
    """https://github.com/hypre-space/hypre/issues/872: a body whose mass does not resist either."""
    K = np.zeros((8, 8))
    K[:6, :6] = 2 * np.eye(6) - np.eye(6, k=1) - np.eye(6, k=-1)
    K[6:, 6:] = [[1, -1], [-1, 1]]
    M = np.diag([1.0] * 6 + [1.0, 1.0])
    M[6:, 6:] = [[1, -1], [-1, 1]]
    shared = np.array([[0.0] * 6 + [1, 1]])
    with pytest.raises(InputError, match="null vector 0 has no mass"):
        sh.eigs(K, 2, mass=M, nullspace=shared, comm=comm)


def test_a_sign_within_the_noise_is_not_claimed(comm):
    """https://github.com/grimme-lab/g-xtb/issues/25: loosely converged forces turned an imaginary mode real."""
    random = np.random.default_rng((0, comm.rank))

    def gradient(x):
        return np.array([-1e-4, 1.0, 2.0, 3.0]) * x + 1e-3 * random.standard_normal(4)

    pattern = sh.Pattern.from_edges(np.stack(np.triu_indices(4, 1), axis=1), 4, comm=comm)
    objective = sh.Objective(x=np.ones(4), gradient=gradient, pattern=pattern, units=Units("THz", 1.0), comm=comm)
    with sh.assemble(objective, verify=False) as H, sh.eigs(H, 2, method="dense") as found:
        assert found.zero.tolist() == [True, False]
        assert found.errors[0] > abs(found.eigenvalues[0])


def test_what_is_no_null_vector_is_not_projected_out(comm):
    """https://github.com/ReactionMechanismGenerator/RMG-Py/issues/2757: an inner rotor is no rigid motion."""
    K, points = cloud(6)
    rotor = np.zeros(27)
    rotor[:9] = np.cross([0.0, 0, 1], points[:3] - points[:3].mean(axis=0)).ravel()
    with pytest.raises(CheckError, match="null vector 6 is not"):
        sh.eigs(K, 3, nullspace=np.vstack([motions(points), rotor]), comm=comm)


@pytest.mark.parametrize("method", ["krylovschur", "gd"])
def test_noisy_products_of_a_shell(method, comm):
    """Differences of noisy gradients, never assembled: pairs to the error of the products, with no word of it."""
    n = 1500
    random = np.random.default_rng((0, comm.rank))
    d = np.r_[0.0, np.linspace(1, 2, n - 4), 5.0, 6.0, 7.0]
    objective = sh.Objective(
        x=np.ones(n),
        gradient=lambda x: d * x + 1e-6 * random.standard_normal(n),
        null_vectors=np.eye(n)[:1],
        comm=comm,
    )
    with (
        sh.MatrixFree(objective) as free,
        sh.eigs(free, 3, which="largest", method=method, count="no") as found,
    ):
        assert (np.abs(found.eigenvalues - d[-3:]) <= found.errors).all() and found.errors.max() < 1e-2
        assert 1e-8 < found.residuals.max() <= found.held_to
