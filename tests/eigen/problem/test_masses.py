"""Masses: refused where they are none, and how many eigenvalues are infinite, by Kronecker's canonical form."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from sparsehess.eigen.problem.inertia_of_matrix import signs_of
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError

pytestmark = pytest.mark.parallel([1, 2, 3])


def rotated(values, seed=0):
    """Return a symmetric matrix with these eigenvalues, and a random orthogonal one."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(len(values),) * 2))[0]
    return (Q * values) @ Q.T, Q


@pytest.mark.parametrize(
    ("mass", "why"),
    [
        (rotated(np.r_[-0.5, np.linspace(1, 2, 23)])[0], "1 of its eigenvalues are negative"),
        (rotated(np.r_[np.full(5, -1e-6), np.linspace(1, 2, 19)])[0], "5 of its eigenvalues are negative"),
        (np.diag(np.r_[np.ones(23), -1e-9]), "its diagonal goes down to -1e-09"),
        (np.eye(24) + np.diag(np.full(23, 0.7), 1) + np.diag(np.full(23, 0.7), -1), "are negative"),
        (np.zeros((24, 24)), "is zero"),
    ],
)
def test_an_indefinite_mass_is_refused_and_the_way_round_named(mass, why, comm):
    with pytest.raises(InputError, match=why) as caught:
        EigenProblem.of(np.eye(24), mass=sp.csr_matrix(mass), comm=comm)
    assert "is zero" in str(caught.value) or "exchange the two" in str(caught.value)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("zeros", [0, 1, 7])
def test_directions_without_mass_are_counted(zeros, scale, comm):
    """A heavy variable more or less changes nothing: the mass is judged scaled to a diagonal of ones."""
    M = rotated(np.r_[np.zeros(zeros), np.linspace(1, 2, 30 - zeros)], 3)[0]
    D = np.ones(30)
    D[4] = scale
    with EigenProblem.of(np.eye(30), mass=sp.csr_matrix(D[:, None] * M * D), comm=comm) as problem:
        assert problem.massless == zeros


def test_an_ill_conditioned_mass_is_no_singular_one(comm):
    with EigenProblem.of(np.eye(20), mass=rotated(np.geomspace(1e-9, 1, 20))[0], comm=comm) as problem:
        assert problem.massless == 0 and problem.finite == 20


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("simple", "constraints"), [((2, 1), 0), ((0, 0), 3), ((1, 2), 2), ((0, 4), 0)])
def test_infinite_eigenvalues_by_their_blocks(simple, constraints, aligned, comm):
    """Negative and positive simple ones, and Jordan blocks of size two; of variables and of any directions."""
    rng = np.random.default_rng(5)
    negative, positive = simple
    finite = rng.uniform(-4, 9, 25)
    light = np.diag(np.r_[-np.ones(negative), np.full(positive, 2.0)])
    K = scipy.linalg.block_diag(np.diag(finite), light, np.zeros((2 * constraints,) * 2))
    n, first = len(K), 25 + negative + positive
    M = np.diag(
        np.r_[rng.uniform(1, 2, 25), np.zeros(negative + positive), np.ones(constraints), np.zeros(constraints)]
    )
    for i in range(constraints):
        K[first + i, first + constraints + i] = K[first + constraints + i, first + i] = 1.0
    turn = np.eye(n) if aligned else rotated(np.ones(n), 8)[1]
    near = np.eye(n) + 0.3 * np.triu(rng.normal(size=(n, n)), 1) * (M.diagonal()[:, None] > 0) * (M.diagonal() > 0)
    T = near @ turn
    with EigenProblem.of(sp.csr_matrix(T.T @ K @ T), mass=sp.csr_matrix(T.T @ M @ T), comm=comm) as problem:
        assert problem.massless == negative + positive + constraints
        assert tuple(problem.infinite) == (negative + constraints, positive + constraints)
        assert problem.finite == 25


def test_a_singular_pencil_is_named(comm):
    K = np.diag([0.0, 1.0, 2.0, 3.0])
    M = np.diag([0.0, 1.0, 1.0, 1.0])
    turn = rotated(np.ones(4), 2)[1]
    with (
        EigenProblem.of(turn.T @ K @ turn, mass=turn.T @ M @ turn, comm=comm) as problem,
        pytest.raises(InputError, match="singular"),
    ):
        problem.infinite  # noqa: B018


@pytest.mark.parametrize("units", [1.0, 1e10])
def test_the_signs_of_a_matrix_are_relative_to_its_rows(units, comm):
    D = np.ones(12)
    D[::3] = units
    matrix = D[:, None] * rotated(np.r_[-1.0, -2.0, 0.0, 0.0, 0.0, np.ones(7)], 6)[0] * D
    with EigenProblem.of(sp.csr_matrix(matrix), comm=comm) as problem:
        rows = problem.equilibrated.scales.rows_a
        assert tuple(signs_of(problem.equilibrated.A, rows)) == (2, 3, 7)
