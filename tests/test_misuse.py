"""What callers get wrong is refused in one line that names it, and matrices of zeros are no mistake."""

from petsc4py import PETSc

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError
from sparsehess.hosts.learning.parameter_groups import group_labels
from sparsehess.hosts.learning.sample_shares import share_samples
from sparsehess.networks import Affine, Convolution, Network, PiecewiseLinear, SquaredError, shard_samples
from sparsehess.operators import BlockDiagonal

pytestmark = pytest.mark.parallel([1, 2])

K = sp.diags([np.full(4, -1.0), np.full(5, 2.0), np.full(4, -1.0)], [-1, 0, 1]).tocsr()


def assembled(comm, pattern=None, **changes):
    pattern = sh.Pattern.from_scipy(K, comm=comm) if pattern is None else pattern
    facts = {"x": np.ones(5), "gradient": lambda x: K @ x, "pattern": pattern, "comm": comm, **changes}
    with sh.assemble(sh.Objective(**facts)):
        pass


def test_an_array_that_is_not_the_same_on_every_rank_is_refused(comm):
    if comm.size == 1:
        return
    other = np.ones(5) + 1e-3 * comm.rank
    with pytest.raises(InputError, match=r"x of objective differ .*: number 0 is 1 on rank 0, 1\.001 on rank 1"):
        assembled(comm, x=other)
    short = np.ones(5 - comm.rank)
    with pytest.raises(InputError, match="differ between ranks: 5 numbers on rank 0, 4 on rank 1"):
        assembled(comm, x=short)
    broken = np.where(comm.rank, np.nan, 1.0) * np.ones(5)
    with pytest.raises(InputError, match="x of objective differ between ranks: number 0"):
        assembled(comm, x=broken)
    rounded = np.ones(5) * (1 + 1e-15 * comm.rank)
    objective = sh.Objective(x=rounded, gradient=lambda x: K @ x, comm=comm)
    assert np.array_equal(objective.x, np.ones(5))  # as rank 0 has it


def test_pattern_and_objective_on_other_ranks_are_refused(comm):
    if comm.size == 1:
        return
    with pytest.raises(InputError, match="on a communicator of 2 ranks, the objective on one of 1"):
        sh.Objective(x=np.ones(5), gradient=lambda x: K @ x, pattern=sh.Pattern.from_scipy(K, comm=comm))


WRONG = [
    ({"x": ["a"] * 5}, "x must be real numbers"),
    ({"x": 1j * np.ones(5)}, "x must be real numbers: not complex128"),
    ({"x": [[1.0], [1.0, 2.0]]}, "x must be real numbers"),
    ({"pattern": K}, "must be a Pattern, not csr_"),
    ({"pattern": "detect"}, "must be a Pattern, not str"),
    ({"typical_x": -1.0}, "typical_x must be positive"),
    ({"typical_x": np.array([1.0, 1.0, np.nan, 1.0, 1.0])}, "typical_x must be positive"),
    ({"bounds": 3.0}, "bounds must be"),
    ({"bounds": ("a", 1.0)}, "must be real numbers"),
    ({"batch": 1.5, "hvps": lambda x, V: (K @ V.T).T}, "batch=1.5"),
]


@pytest.mark.parametrize("changes, says", WRONG)
def test_objectives(changes, says, comm):
    with pytest.raises(InputError, match=says) as refused:
        assembled(comm, **changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("energy", [lambda x: x, lambda x: None, lambda x: 1j * (x @ x)])
def test_energies_that_are_no_numbers(energy, comm):
    with pytest.raises(EvaluationError, match="energy of objective must return a real number"):
        assembled(comm, gradient=None, energy=energy)


def test_arguments_of_other_rooms(comm):
    def network(**more):
        found = Network()
        found.input("x", 2)
        found.add("y", Affine(2), "x")
        found.loss("loss", SquaredError(), "y", "x", **more)
        return found

    whole = BlockDiagonal([np.eye(5)], comm=comm)
    cases = [
        (lambda: sh.density(K, samples=2.5, comm=comm), "samples=2.5"),
        (lambda: sh.density(K, grid=["a", "b"], comm=comm), "grid must be real"),
        (lambda: sh.rank(K, np.float32(-1), comm=comm), "threshold=-1.0 must be positive"),
        (lambda: sh.rank(K, method="density", samples=-3, comm=comm), "samples=-3"),
        (lambda: sh.trace(K, lambda x: 1j * x, comm=comm), "must be real numbers: not complex128"),
        (lambda: sh.inertia(K, zero="a", comm=comm), "zero must be real"),
        (lambda: sh.inertia(whole, options={"mat_mumps_icntl_14": 50}), "nothing is factorized"),
        (lambda: sh.eigs(K, 1, mass=["a"] * 5, comm=comm), "the mass matrix must be numbers"),
        (lambda: sh.eigs("K.mtx", 1, comm=comm), "the name of a file, 'K.mtx'"),
        (lambda: sh.inertia(None, comm=comm), "of type NoneType: give a matrix"),
        (
            lambda: sh.trace(sh.Objective(x=np.ones(2), gradient=np.sin, comm=comm), comm=comm),
            r"sparsehess\.assemble\(objective\) makes",
        ),
        (lambda: sh.eigs(K, 1, nullspace=["a"], comm=comm), "null vectors must be"),
        (lambda: sh.sparsify(K, 0.5, comm=comm), "rule must be"),
        (lambda: sh.sparsify(K, sh.Above("a"), comm=comm), "threshold must be real"),
        (lambda: sh.sparsify(K, sh.Largest(6.5), comm=comm), "keep=6.5"),
        (lambda: sh.sparsify(K, sh.Hysteresis(0.1, 0.2, K), comm=comm), "before must be the Pattern"),
        (lambda: sh.rigid_body_modes([["a", "b"]]), "coordinates must be real"),
        (lambda: sh.rigid_body_modes(np.eye(3), fixed=[0.5]), "whole numbers or a mask"),
        (lambda: network().hessian(np.ones(6), {"x": [["a", "b"]]}, comm=comm), "input x must be real"),
        (lambda: network().hessian(np.ones(6), [1], comm=comm), "data must be"),
        (lambda: network(weight="a"), "weight of loss loss must be real"),
        (lambda: Network().input("x", "wide"), "width='wide'"),
        (lambda: Affine(2.5), "outputs=2.5"),
        (lambda: Convolution(1, (2, 2), (1, 3)), "a parent of 3"),
        (lambda: PiecewiseLinear("a", 1.0), "slopes must be real"),
        (
            lambda: shard_samples({"x": np.ones((3, 1)), "y": np.ones((2, 1))}, comm),
            "different numbers of samples",
        ),
        (lambda: share_samples(np.ones(3), np.ones(4), comm=comm), "one number of samples"),
        (lambda: group_labels({"layer": np.array([7])}, 5), "not from 0 to 4"),
    ]
    for call, says in cases:
        with pytest.raises(InputError, match=says):
            call()
    with pytest.raises(EvaluationError, match="raised ZeroDivisionError"):
        sh.trace(K, lambda x: 1 / 0, comm=comm)
    whole.close()


def test_rows_that_lie_elsewhere(comm):
    """On more than two ranks the first has the rows that it should have, and learns of the others."""
    own = sh.Layout.from_size(5, comm).n_local + (comm.rank == comm.size - 1)
    mass = PETSc.Vec().createMPI((own, PETSc.DETERMINE), comm=comm)
    mass.set(1.0)
    for more in ({"mass": mass}, {"nullspace": [mass]}, {"guess": [mass]}):
        with pytest.raises(InputError, match=r"rows \(\d on rank \d\), the Hessian 5"):
            sh.eigs(K, 1, comm=comm, **more)
    mass.destroy()


def test_matrices_of_zeros(comm):
    nothing = sp.csr_matrix((5, 5))
    signs = sh.inertia(nothing, comm=comm)
    assert (signs.negative, signs.zero, signs.positive, signs.certified) == (0, 5, 0, True)
    for method in ("lanczos", "chebyshev"):
        found = sh.density(nothing, method=method, comm=comm)
        assert np.isfinite(found.density).all() and np.isfinite(found.stderr).all()
        assert (found.density * np.gradient(found.grid)).sum() == pytest.approx(1, abs=1e-3)
        assert found.count(-1e-3, 1e-3)[0] == pytest.approx(5)


def test_patterns_of_dense_matrices(comm):
    for dense in (K.toarray(), K.toarray().tolist(), K.toarray() != 0, sp.coo_matrix(K)):
        pattern = sh.Pattern.from_scipy(dense, comm=comm)
        assert pattern.nnz == K.nnz
        assembled(comm, pattern=pattern)


@pytest.mark.parametrize(
    "thing",
    [None, "K", 3.0, np.ones(5), np.ones((2, 2, 2)), [[1.0], [1.0, 2.0]], np.ones((2, 3)), [["a"]], object()],
)
def test_patterns_of_what_is_no_matrix(thing, comm):
    makers = [
        lambda: sh.Pattern.from_scipy(thing, comm=comm),
        lambda: sh.Pattern.from_networkx(thing, comm=comm),
        lambda: sh.Pattern.from_edges(thing, 5, comm=comm),
        lambda: sh.Pattern.from_elements(thing, 5, comm=comm),
        lambda: sh.Pattern.from_pairs(thing, thing, 5, comm=comm),
        lambda: sh.Pattern.from_csr(thing, thing, comm=comm),
        lambda: sh.Pattern.from_edges([[0, 1]], thing, comm=comm),
    ]
    for make in makers:
        with pytest.raises(InputError) as refused:
            make()
        assert "\n" not in str(refused.value)
    if thing is not None:
        with pytest.raises(InputError, match="pattern"):
            sh.assemble(sh.Objective(x=np.ones(5), gradient=lambda x: K @ x, comm=comm), pattern=thing)


def test_patterns_of_graphs(comm):
    graph = nx.path_graph(5)
    with pytest.raises(InputError, match="this is a graph"):
        sh.Pattern.from_scipy(graph, comm=comm)
    with pytest.raises(InputError, match="nodelist has 9, which is no node of the graph"):
        sh.Pattern.from_networkx(graph, nodelist=[0, 1, 2, 3, 9], comm=comm)
