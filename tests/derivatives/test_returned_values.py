"""What users' functions return: every way to write a vector is taken, all else gets a sentence that names it."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError
from sparsehess.runtime import PETSc

pytestmark = pytest.mark.parallel([1, 2])

N = 12
X = np.linspace(0.5, 1.0, N)


class Tensor:
    """An array that keeps a graph of how it was made, as those of PyTorch do."""

    def __init__(self, values):
        self._values = np.asarray(values)
        self.shape = self._values.shape

    def __array__(self, *more, **others):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    def detach(self):
        return Detached(self._values)


class Detached:
    def __init__(self, values):
        self._values = values

    def cpu(self):
        return self._values


def cube(x):
    return x**3


def given(value, x):
    return value


def own(hessian, values):
    layout = hessian.pattern.layout
    return values[layout.start : layout.stop]


def quartic(x):
    return float((x**4).sum() / 4)


GRADIENTS = {
    "pair": lambda x: (quartic(x), cube(x)),
    "pair of arrays": lambda x: [np.array(quartic(x)), cube(x)],
    "pair of lists": lambda x: [quartic(x), cube(x).tolist()],
    "pair of tensors": lambda x: (Tensor(quartic(x)), Tensor(cube(x))),
    "number and column": lambda x: (quartic(x), cube(x)[:, None]),
    "tensor": lambda x: Tensor(cube(x)),
    "tuple of a tensor": lambda x: (Tensor(cube(x)),),
    "list": lambda x: cube(x).tolist(),
    "column": lambda x: cube(x)[:, None],
    "row": lambda x: cube(x)[None],
    "matrix": lambda x: np.asmatrix(cube(x)),
    "sparse row": lambda x: sp.csr_matrix(cube(x)),
    "sparse column": lambda x: sp.csc_matrix(cube(x)[:, None]),
    "masked, but nothing is": lambda x: np.ma.array(cube(x)),
    "fractions": lambda x: [Fraction(value) for value in cube(x)],
    "long doubles": lambda x: cube(x).astype(np.longdouble),
}


@pytest.mark.parametrize("way", GRADIENTS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_ways_to_write_a_vector(way, comm):
    write = GRADIENTS[way]
    with sh.assemble(sh.Objective(x=X, gradient=write, comm=comm), pattern="detect") as hessian:
        assert hessian.mat.getDiagonal().getArray() == pytest.approx(3 * own(hessian, X) ** 2)


def nothing(x):
    cube(x)


def changing(x):
    x **= 3
    return x


def undefined_here(x):
    return cube(x) if (x != X).any() else np.full(N, np.nan)


WRONG = {
    "nothing": (nothing, r"must return \(12,\) real numbers, not None on rank \d: is its `return` missing"),
    "text": (lambda x: "no", "not <U2 of shape"),
    "texts": (lambda x: ["no"] * N, "not <U2 of shape"),
    "ragged": (lambda x: [[1.0], [1.0, 2.0]], "returned a list, which is no array of numbers"),
    "three things": (lambda x: (1.0, cube(x), 2.0), "returned a tuple, which is no array of numbers"),
    "two vectors": (lambda x: (x, cube(x)), "of several vectors give the one that is meant"),
    "grid": (lambda x: cube(x).reshape(4, 3), r"of shape \(4, 3\) on rank \d: give \.ravel\(\) of it"),
    "too long": (lambda x: np.append(cube(x), 0.0), r"not float64 of shape \(13,\)"),
    "number": (quartic, "a number, such as the energy, is no vector"),
    "complex": (lambda x: cube(x) + 0j, "not complex128"),
    "truth": (lambda x: x > 0, "not bool"),
    "dictionary": (lambda x: {"g": x}, "not a dict"),
    "generator": (lambda x: (value for value in x), "not a generator on rank .: call it, or make a list of it"),
    "masked": (lambda x: np.ma.array(cube(x), mask=x < 0.6), "returned masked entries"),
    "records": (lambda x: np.zeros(N, [("g", float)]), "must return"),
    "changes its argument": (changing, "read-only: it may not change its argument, but a copy"),
    "exit": (lambda x: exit(3), "raised SystemExit"),
}


@pytest.mark.parametrize("way", WRONG)
def test_what_is_no_vector(way, comm):
    gradient, says = WRONG[way]
    with pytest.raises(EvaluationError, match=f"the gradient of objective.*{says}") as refused:
        sh.assemble(sh.Objective(x=X, gradient=gradient, comm=comm), pattern="detect")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("derivative", ["forward", "central"])
def test_not_a_number_at_x_alone(derivative, comm):
    objective = sh.Objective(x=X, gradient=undefined_here, comm=comm)
    with pytest.raises(CheckError, match="not finite: nan at variable 0"):
        sh.assemble(objective, pattern="detect", derivative=derivative)


def test_energies(comm):
    for energy in (lambda x: (quartic(x), cube(x)), lambda x: Tensor(quartic(x)), lambda x: [quartic(x)]):
        with sh.assemble(sh.Objective(x=X, energy=energy, comm=comm), pattern="detect") as hessian:
            assert hessian.mat.getDiagonal().getArray() == pytest.approx(3 * own(hessian, X) ** 2, rel=1e-5)
    for energy in (
        cube,
        lambda x: None,
        lambda x: "3",
        lambda x: 3j,
        lambda x: np.ma.masked,
        lambda x: [[1], [1, 2]],
    ):
        with pytest.raises(EvaluationError, match="the energy of objective"):
            sh.assemble(sh.Objective(x=X, energy=energy, comm=comm), pattern="detect")


def test_products(comm):
    for hvp in (lambda x, v: (3.0, v), lambda x, v: (Tensor(v),), lambda x, v: v[:, None]):
        with sh.assemble(sh.Objective(x=X, hvp=hvp, comm=comm), pattern="detect") as hessian:
            assert hessian.mat.getDiagonal().getArray() == pytest.approx(1.0)
    for hvps in (lambda x, V: list(V), lambda x, V: Tensor(V)):
        with sh.assemble(sh.Objective(x=X, hvps=hvps, batch=4, comm=comm), pattern="detect") as hessian:
            assert hessian.mat.getDiagonal().getArray() == pytest.approx(1.0)
    with pytest.raises(EvaluationError, match=r"give \.T of it, a row for each direction"):
        sh.assemble(sh.Objective(x=X, hvps=lambda x, V: V.T, batch=4, comm=comm), pattern="detect")


def test_vectors_of_petsc_are_filled_in(comm):
    """What a function returns instead of filling it in is not lost without a word."""

    def gradient(x, g):
        return x.copy()

    start = PETSc.Vec().createMPI(N, comm=comm)
    with pytest.raises(EvaluationError, match=r"returned another Vec on rank .: .* must fill in"):
        sh.assemble(sh.Objective(x=start, gradient=gradient), pattern="detect")
    start.destroy()
