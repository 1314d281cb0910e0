"""Hessians from gradients against exact ones, on any number of ranks."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp

import cantilever
import elastic_network
import lennard_jones
import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError
from support.cases import frobenius_error, local_rows
from support.fields import LAPLACIAN, POINT, distributed_field, fails, field

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def pair_hessian(positions, pairs, slope_over_r, second, box=None):
    """Return the exact Hessian of a sum of pair energies with given φ'/r and φ''."""
    i, j = pairs.T
    bond = positions[i] - positions[j]
    if box is not None:
        bond -= box * np.rint(bond / box)
    r = np.linalg.norm(bond, axis=1)
    unit = bond / r[:, None]
    along = (second - slope_over_r)[:, None, None] * unit[:, :, None] * unit[:, None, :]
    block = along + slope_over_r[:, None, None] * np.eye(3)
    rows, cols, data = [], [], []
    for a, b, sign in ((i, j, -1), (j, i, -1), (i, i, 1), (j, j, 1)):
        rows.append((3 * a[:, None, None] + np.arange(3)[:, None] + np.zeros((1, 3), int)).ravel())
        cols.append((3 * b[:, None, None] + np.arange(3)[None, :] + np.zeros((3, 1), int)).ravel())
        data.append((sign * block).ravel())
    n = positions.size
    return sp.coo_matrix((np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), (n, n)).tocsr()


def argon_hessian(forces, positions):
    """Return the exact Hessian of the switched Lennard-Jones energy, differentiated by hand."""
    pairs = forces.pairs.T
    bond = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    if forces.box is not None:
        bond -= forces.box * np.rint(bond / forces.box)
    r = np.linalg.norm(bond, axis=1)
    energy = 4 * (r**-12 - r**-6)
    first = 4 * (-12 * r**-13 + 6 * r**-7)
    second = 4 * (156 * r**-14 - 42 * r**-8)
    width = forces.outer - forces.inner
    t = np.clip((r - forces.inner) / width, 0, 1)
    s = 1 - 10 * t**3 + 15 * t**4 - 6 * t**5
    ds = (-30 * t**2 + 60 * t**3 - 30 * t**4) / width
    dds = (-60 * t + 180 * t**2 - 120 * t**3) / width**2
    slope = first * s + energy * ds
    return pair_hessian(positions, pairs, slope / r, second * s + 2 * first * ds + energy * dds, forces.box)


def problem(name, comm):
    """Return (objective, exact Hessian at its x)."""
    if name == "crystal":
        objective = lennard_jones.crystal(comm, cells=4)
        forces = objective.gradient.__self__
        return objective, argon_hessian(forces, objective.x.reshape(-1, 3))
    if name == "cluster":
        objective = lennard_jones.cluster(comm, radius=2.0)
        return objective, argon_hessian(objective.gradient.__self__, objective.x.reshape(-1, 3))
    if name == "protein":
        objective = elastic_network.protein(comm, cutoff=4.5)
        positions = objective.x.reshape(-1, 3)
        from scipy.spatial import cKDTree

        pairs = cKDTree(positions).query_pairs(4.5, output_type="ndarray")
        return objective, pair_hessian(positions, pairs, np.zeros(len(pairs)), np.ones(len(pairs)))
    objective = cantilever.cantilever(comm, cells=6)
    return objective, cantilever.matrices(cells=6)[0]


@pytest.mark.parametrize(
    "coloring", ["star", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("cpr", "acyclic"))]
)
@pytest.mark.parametrize("name", ["crystal", "cluster", "protein", pytest.param("beam", marks=pytest.mark.slow)])
def test_drivers_against_their_exact_hessians(name, coloring, comm):
    objective, exact = problem(name, comm)
    with sh.assemble(objective, derivative="central", coloring=coloring) as hessian:
        assert frobenius_error(hessian.mat, exact, comm) < 1e-6
        assert hessian.evaluations == {
            "gradient": 2 * hessian.coloring.count,
            "hvp": 0,
            "energy": 0,
            "noise": 7,
            "pattern": 0,
            # At a minimum the energy has no slope to compare: its second difference is taken.
            "verification": 2 if objective.energy is None else 2 + 2 + 3,
        }
        assert hessian.verification.passed
        own = local_rows(hessian.mat)
        assert np.array_equal(own.indices, hessian.pattern.indices)


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", ["central", pytest.param("forward", marks=pytest.mark.slow)])
@pytest.mark.parametrize("columns", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_few_columns_at_a_time_give_the_same_hessian(columns, derivative, comm):
    objective = lennard_jones.crystal(comm, cells=4)
    given = {"derivative": derivative, "order": "smallest-last"}
    with sh.assemble(objective, **given) as whole, sh.assemble(objective, columns=columns, **given) as parts:
        assert np.array_equal(local_rows(whole.mat).data, local_rows(parts.mat).data)
        assert whole.evaluations == parts.evaluations
        assert whole.verification == parts.verification
    with pytest.raises(InputError, match="needs them all together"):
        sh.assemble(objective, coloring="acyclic", columns=columns)


@pytest.mark.parametrize("name", ["crystal", "protein"])
def test_forward_differences_cost_half(name, comm):
    objective, exact = problem(name, comm)
    with sh.assemble(objective, derivative="forward") as hessian:
        assert frobenius_error(hessian.mat, exact, comm) < 1e-5
        assert hessian.evaluations["gradient"] == hessian.coloring.count + 1


def exact_field(u=POINT):
    return LAPLACIAN + sp.diags(3 * np.cos(3 * u))


def test_calls_are_those_that_are_counted(comm):
    calls = []

    def gradient(u):
        calls.append(1)
        return LAPLACIAN @ u + np.sin(3 * u)

    with sh.assemble(field(comm, gradient=gradient)) as hessian:
        counted = sum(hessian.evaluations.values())
        assert comm.allreduce(len(calls)) == counted
        assert comm.size == 1 or len(calls) < counted  # colours are dealt to the ranks


def test_values_do_not_depend_on_ranks(comm):
    with sh.assemble(field(comm)) as hessian, sh.assemble(field(MPI.COMM_SELF)) as alone:
        own = local_rows(hessian.mat)
        first = hessian.pattern.layout.start
        other = local_rows(alone.mat)[first : first + own.shape[0]]
        assert np.array_equal(own.data, other.data)


def test_update_reuses_everything_but_values(comm):
    other = POINT + 0.3
    with sh.assemble(field(comm)) as hessian:
        handle, coloring, calls = hessian.mat.handle, hessian.coloring, hessian.evaluations["gradient"]
        hessian.update(other)
        assert hessian.mat.handle == handle and hessian.coloring is coloring
        assert hessian.evaluations["gradient"] == 2 * calls
        assert frobenius_error(hessian.mat, exact_field(other), comm) < 1e-8
        hessian.update()
        assert frobenius_error(hessian.mat, exact_field(), comm) < 1e-8


def test_products_are_exact(comm):
    def hvp(u, v):
        return LAPLACIAN @ v + 3 * np.cos(3 * u) * v

    with sh.assemble(field(comm, hvp=hvp)) as hessian:
        assert hessian.evaluations["hvp"] == hessian.coloring.count
        assert hessian.evaluations["gradient"] == 0
        assert frobenius_error(hessian.mat, exact_field(), comm) < 1e-14


@pytest.mark.parametrize("derivative", ["central", "forward"])
def test_distributed_gradients_with_the_users_layout(derivative, comm):
    objective, owned = distributed_field(comm)
    with sh.assemble(objective, derivative=derivative) as hessian:
        assert frobenius_error(hessian.mat, exact_field(), comm) < (1e-8 if derivative == "central" else 1e-6)
        calls = hessian.coloring.count
        assert hessian.evaluations["gradient"] == (2 * calls if derivative == "central" else calls + 1)
        assert np.array_equal(
            objective.x.getArray(), POINT[hessian.pattern.layout.start : hessian.pattern.layout.stop]
        )
    for item in owned:
        item.destroy()


@pytest.mark.parametrize("gradient", [lambda x: x, lambda x: x[::-1]])
def test_a_gradient_may_be_made_of_its_argument(gradient, comm):
    exact = sp.csr_matrix(np.array([gradient(row) for row in np.eye(12)]))
    pattern = sh.Pattern.from_scipy(exact, comm=comm)
    objective = sh.Objective(x=np.arange(1.0, 13.0), gradient=gradient, pattern=pattern, comm=comm)
    with sh.assemble(objective) as hessian:
        assert frobenius_error(hessian.mat, exact, comm) < 1e-9


def test_the_users_array_cannot_be_spoilt(comm):
    def gradient(u):
        u[0] = 5.0
        return u

    fails(EvaluationError, "read-only", field(comm, gradient=gradient))
