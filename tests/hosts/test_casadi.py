"""Inside CasADi: exact gradients, products and patterns of its functions; any number of ranks."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from support.cases import frobenius_error
from support.smooth_functions import FUNCTIONS

casadi = pytest.importorskip("casadi")

pytestmark = pytest.mark.parallel([1, 2])

KINDS = pytest.mark.parametrize("kind", [casadi.SX, casadi.MX], ids=["SX", "MX"])


def chained_rosenbrock(kind, n):
    x = kind.sym("x", n)
    first, second = x[:-1], x[1:]
    return casadi.Function("chained", [x], [casadi.sumsqr(10 * (first**2 - second)) + casadi.sumsqr(first - 1)])


def exact(function, x):
    """Return CasADi's own Hessian as a sparse matrix."""
    hessian = function.factory("hessian", ["i0"], ["hess:o0:i0:i0"])(x)
    return sp.csr_matrix(sp.csc_matrix(hessian.sparse()))


@KINDS
def test_closed_forms(kind, comm):
    known = FUNCTIONS["chained_rosenbrock"](120)
    objective = sh.from_casadi(chained_rosenbrock(kind, 120), known.x, comm=comm)
    assert objective.name == "chained"
    assert objective.energy(known.x) == pytest.approx(known.energy(known.x), rel=1e-13)
    assert objective.gradient(known.x) == pytest.approx(known.gradient(known.x), rel=1e-13)
    with sh.assemble(objective) as hessian:
        assert hessian.pattern.source == "tracing, at every x"
        assert hessian.pattern.nnz == known.pattern.nnz
        assert hessian.coloring.count == 3
        assert hessian.evaluations["hvp"] == 3 and hessian.evaluations["gradient"] == 0
        assert frobenius_error(hessian.mat, known.hessian(known.x), comm) < 1e-15
        hessian.update(known.x + 0.1)
        assert frobenius_error(hessian.mat, known.hessian(known.x + 0.1), comm) < 1e-15


@KINDS
def test_hessian_of_casadi(kind, comm):
    """With a branch that is not taken at x, a variable that only enters linearly and one that does not enter."""
    x = kind.sym("x", 40)
    hub = casadi.sum1(casadi.sin(x[0] * x[1:20])) + casadi.exp(casadi.dot(x[20:30], x[21:31]))
    branch = casadi.if_else(x[2] > 0, x[2] ** 3 * x[35], x[2] ** 2)
    function = casadi.Function("mixed", [x], [hub + branch + x[38]])
    point = np.linspace(-1.0, 0.9, 40)
    objective = sh.from_casadi(function, point, comm=comm)
    traced, probed = sh.detect_pattern(objective), sh.detect_pattern(replace(objective, trace=None))
    assert traced.nnz == probed.nnz + 2  # (2, 35) and (35, 2), which are zero at x
    with sh.assemble(replace(objective, pattern=traced)) as hessian:
        for at in (point, -point):
            hessian.update(at)
            assert frobenius_error(hessian.mat, exact(function, at), comm) < 1e-14


def test_what_is_no_scalar_function_of_a_vector():
    x, p = casadi.SX.sym("x", 3), casadi.SX.sym("p")
    for inputs, outputs in (([x], [x]), ([x], [x[0], x[1]]), ([p], [p**2])):
        with pytest.raises(InputError, match="is no function of one dense vector of 3 numbers to one number"):
            sh.from_casadi(casadi.Function("f", inputs, outputs), np.ones(3))
    with pytest.raises(InputError, match=r"takes a casadi\.Function, not function"):
        sh.from_casadi(lambda x: 0.0, np.ones(3))


@KINDS
def test_parameters_have_values(kind, comm):
    x, p, q = kind.sym("x", 6), kind.sym("p", 5), kind.sym("q")
    names = ["x", "p", "q"], ["f"]
    function = casadi.Function(
        "springs", [x, p, q], [casadi.dot(p, (x[1:] - x[:-1]) ** 2) / 2 + q * x[0] ** 4], *names
    )
    stiffness, point = np.arange(1.0, 6.0), np.linspace(0.0, 1.0, 6) + 1
    chain = np.diff(np.eye(6), axis=0)
    hessian = chain.T @ np.diag(stiffness) @ chain
    hessian[0, 0] += 12 * 3.0
    for parameters in ([stiffness, 3.0], (stiffness[:, None], [3.0]), {"q": 3, "p": list(stiffness)}):
        objective = sh.from_casadi(function, point, parameters=parameters, comm=comm)
        assert objective.name == "springs"
        with sh.assemble(objective, pattern="detect") as found:
            assert found.pattern.nnz == 16
            assert frobenius_error(found.mat, sp.csr_matrix(hessian), comm) < 1e-14
    # The variables need not come first.
    other = casadi.Function("springs", [q, x], [q * casadi.sumsqr(x)], ["q", "x"], ["f"])
    with sh.assemble(sh.from_casadi(other, point, parameters={"q": 2.0}, comm=comm), pattern="detect") as found:
        assert frobenius_error(found.mat, sp.csr_matrix(4 * np.eye(6)), comm) < 1e-14


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ((), r"has the inputs x, p: give the values .* parameters=\{'p': \.\.\.\}"),
        ({"r": 1.0}, "has no input 'r', but x, p"),
        ({"p": [1.0, 2.0]}, r"parameter p must be 1 x 1 numbers, not of shape \(2,\)"),
        ({"p": "a"}, "parameter p must be real numbers"),
        ([1.0, 2.0], "must be a list of 1 values, or values by name"),
        (3.0, "must be a list of 1 values, or values by name"),
        ({"x": np.ones(3)}, "is no function of one dense vector of 3 numbers"),
    ],
)
def test_parameters_that_are_none(parameters, says):
    x, p = casadi.SX.sym("x", 3), casadi.SX.sym("p")
    function = casadi.Function("f", [x, p], [p * casadi.sumsqr(x)], ["x", "p"], ["f"])
    with pytest.raises(InputError, match=says):
        sh.from_casadi(function, np.ones(3), parameters=parameters)
