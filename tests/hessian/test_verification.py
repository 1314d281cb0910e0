"""What must be found out: missing entries, values that are not finite, gradients that are none."""

import re

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError
from support.cases import frobenius_error, grid
from support.fields import LAPLACIAN, SIDE, N, distributed_field, fails, field

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


@pytest.mark.parametrize("coloring", ["star", "cpr"])
@pytest.mark.parametrize("pair", [(0, 1), (100, 108), (300, 364)])
def test_one_missing_entry_is_named(pair, coloring, comm):
    structure = grid(SIDE, SIDE, SIDE).tolil()
    i, j = pair
    structure[i, j] = structure[j, i] = 0
    structure = structure.tocsr()
    structure.eliminate_zeros()
    pattern = sh.Pattern.from_scipy(structure, comm=comm)
    with pytest.raises(CheckError) as caught:
        sh.assemble(field(comm, pattern=pattern), coloring=coloring, repair=False)
    assert re.search(rf"variable ({i} is coupled with {j}|{j} is coupled with {i}) ", str(caught.value))


def test_the_check_has_a_direction_of_its_seed(comm):
    errors = []
    for seed in (0, 0, 7):
        with sh.assemble(field(comm), seed=seed) as hessian:
            errors.append(hessian.verification.hvp_error)
    assert errors[0] == errors[1] != errors[2]


def test_the_check_can_be_left_out(comm):
    pattern = sh.Pattern.from_pairs([], [], N, comm=comm)
    with sh.assemble(field(comm, pattern=pattern), verify=False) as hessian:
        assert hessian.verification is None
        assert hessian.evaluations["verification"] == 0


def test_nan_names_the_variable(comm):
    bad = np.where(np.arange(N) == 77, np.nan, 0.0)
    fails(CheckError, "variable 77 ", field(comm, gradient=lambda u: LAPLACIAN @ u + bad))


def test_infinite_overflow_is_not_finite(comm):
    fails(CheckError, "not finite", field(comm, gradient=lambda u: np.where(np.arange(N) == 3, np.inf, u)))


def test_what_is_no_gradient_is_found_out(comm):
    shift = sp.diags([np.full(N - 1, 0.3)], [1])
    fails(
        CheckError,
        "symmetric|no gradient|does not agree",
        field(comm, gradient=lambda u: LAPLACIAN @ u + shift @ u),
    )


@pytest.mark.parametrize("near", [2e-6, 1e-2])
def test_a_kink_nearby_is_not_crossed(near, comm):
    """The second derivative jumps nearby, as at a plain cut-off: steps stay on this side of it."""
    kinked = field(comm, x=np.full(N, near), gradient=lambda u: LAPLACIAN @ u + 0.5 * np.abs(u), typical_x=1.0)
    with sh.assemble(kinked) as hessian:
        assert frobenius_error(hessian.mat, LAPLACIAN + 0.5 * sp.identity(N), comm) < 1e-6


def test_a_gradient_that_raises_on_one_rank(comm):
    def gradient(u):
        if comm.rank == comm.size - 1:
            raise ValueError("bad luck")
        return u

    fails(EvaluationError, f"ValueError on rank {comm.size - 1}: bad luck", field(comm, gradient=gradient))


def test_a_distributed_gradient_that_raises_on_one_rank(comm):
    def gradient(u, g):
        if comm.rank == comm.size - 1:
            raise ValueError("bad luck")
        u.copy(g)

    objective, owned = distributed_field(comm, gradient)
    fails(EvaluationError, f"ValueError on rank {comm.size - 1}: bad luck", objective)
    for item in owned:
        item.destroy()


@pytest.mark.parametrize("wrong", [lambda u: u[:-1], lambda u: None, lambda u: u.astype(complex), lambda u: 1.0])
def test_wrong_shapes(wrong, comm):
    fails(EvaluationError, r"must return \(512,\) real numbers", field(comm, gradient=wrong))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pattern": None}, "has no pattern"),
        ({"typical_x": np.ones(3)}, r"expected a number or \(512,\)"),
    ],
)
def test_unusable_problems(changes, says, comm):
    fails(InputError, says, field(comm, **changes))


def test_unusable_objectives(comm):
    with pytest.raises(InputError, match="must be a function"):
        field(comm, hvp=3)
    with pytest.raises(InputError, match="must be a vector"):
        field(comm, x=np.eye(3))
    with pytest.raises(InputError, match="pattern has 512 variables, x has 5"):
        field(comm, x=np.ones(5))
