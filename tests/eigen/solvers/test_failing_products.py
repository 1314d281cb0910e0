"""A product that raises within a solve: what it raised is told, whatever the solver leaves behind."""

import contextlib

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import Cancelled, EvaluationError, Interrupted, Leaving, OverLimit
from sparsehess.runtime import Guard, PETSc, communicator, use_guard

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 200

JOBS = {
    "krylovschur": lambda H: sh.eigs(H, 3, which="largest", method="krylovschur"),
    "lanczos": lambda H: sh.eigs(H, 3, which="smallest", method="lanczos"),
    "power": lambda H: sh.eigs(H, 1, which="magnitude", method="power"),
    "lobpcg": lambda H: sh.eigs(H, 3, method="lobpcg"),
    "gd": lambda H: sh.eigs(H, 3, method="gd"),
    "jd": lambda H: sh.eigs(H, 3, method="jd"),
    "a mass": lambda H: sh.eigs(H, 3, method="gd", mass=np.linspace(1, 2, N)),
    "a mass at the upper end": lambda H: sh.eigs(H, 3, which="largest", mass=np.linspace(1, 2, N)),
    "filter": lambda H: sh.eigs(H, interval=(1.0, 1.2), method="filter"),
    "feast": lambda H: sh.eigs(H, interval=(1.0, 1.2), method="feast"),
    "dense": lambda H: sh.eigs(H, 3, method="dense"),
    "density": lambda H: sh.density(H, method="lanczos"),
    "chebyshev": lambda H: sh.density(H, method="chebyshev", width=0.1),
    "trace": sh.trace,
    "diagonal": sh.diagonal,
    "rank": sh.rank,
    "inertia": sh.inertia,
    "curvature": sh.curvature,
    "a sum": lambda H: sh.eigs(sh.weighted_sum([(1.0, H), (2.0, H)]), 3, which="largest"),
}


class Product:
    """A product that raises after some calls, on one rank of those that evaluate it."""

    def __init__(self, calls, error=None):
        self.left, self.error = calls, error or ValueError("the inner problem did not converge")

    def __call__(self, x, v):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return np.linspace(1, 2, N) * v + 0.1 * (np.roll(v, 1) + np.roll(v, -1))


def check_others(comm):
    """Check that what was left behind does no harm."""
    good = sh.Objective(x=np.zeros(N), hvp=Product(10**6), comm=comm)
    with sh.MatrixFree(good) as shell, sh.eigs(shell, 1, which="largest") as spectrum:
        assert 2.0 < spectrum.eigenvalues[0] < 2.2


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("calls", [0, 2, 12, 19, 25])
def test_what_a_product_raises_is_told(job, calls, comm):
    # Products of many vectors are shared among the ranks.
    objective = sh.Objective(x=np.zeros(N), hvp=Product(-(-calls // comm.size)), comm=comm)

    def run():
        with sh.MatrixFree(objective, verify=False) as shell:
            JOBS[job](shell)

    with pytest.raises(EvaluationError, match=r"raised ValueError on rank .* the inner problem did not converge"):
        run()
    check_others(comm)


# What a function may raise, and what is told of it.
RAISED = {
    "an error of PETSc": (lambda: PETSc.Error(56), EvaluationError, "raised Error on rank"),
    "no memory": (lambda: MemoryError("nothing left"), EvaluationError, "raised MemoryError on rank"),
    "an end": (lambda: SystemExit(3), EvaluationError, "raised SystemExit on rank"),
    "the end of a generator": (lambda: GeneratorExit("end"), EvaluationError, "raised GeneratorExit on rank"),
    "an interrupt": (KeyboardInterrupt, (KeyboardInterrupt, Interrupted), None),
}


@pytest.mark.parametrize("job", ["krylovschur", "lobpcg", "gd", "jd", "filter", "feast", "density", "trace"])
@pytest.mark.parametrize("calls", [1, 20])
@pytest.mark.parametrize("kind", RAISED)
def test_whatever_a_product_raises_ends_all_ranks(job, calls, kind, comm):
    make, told, words = RAISED[kind]
    product = Product(-(-calls // comm.size), make())

    def run():
        with sh.MatrixFree(sh.Objective(x=np.zeros(N), hvp=product, comm=comm), verify=False) as shell:
            JOBS[job](shell)

    with pytest.raises(told, match=words):
        run()
    check_others(comm)


class Limit(Guard):
    """Raises an error at a call of the user's functions."""

    def __init__(self, calls, error):
        self.left, self.error = calls, error

    def check_call(self):
        self.left -= 1
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize("job", ["krylovschur", "lobpcg", "gd", "jd", "filter", "feast", "density", "rank"])
@pytest.mark.parametrize("error", [Cancelled("cancelled"), OverLimit("over time"), Leaving("leaves")], ids=repr)
def test_what_a_guard_raises_is_told_as_it_is(job, error, comm):
    theirs = comm.Split(0, comm.rank)
    ours = communicator(theirs)
    objective = sh.Objective(x=np.zeros(N), hvp=Product(10**6), comm=ours)

    def run():
        with sh.MatrixFree(objective, verify=False) as shell:
            JOBS[job](shell)

    with use_guard(ours, Limit(20 // comm.size, error)), pytest.raises(type(error), match=str(error)):
        run()
    theirs.Free()


class OfCaller:
    """What PETSc calls of a shell that a caller has made: one that fails on the last rank alone."""

    def __init__(self, comm, calls):
        self.comm, self.left = comm, calls

    def mult(self, mat, x, y):
        whole = np.concatenate(self.comm.allgather(x.getArray(readonly=True)))
        self.left -= 1
        if self.left < 0 and self.comm.rank == self.comm.size - 1:
            raise ZeroDivisionError("only here")
        first, last = mat.getOwnershipRange()
        y.setArray((np.linspace(1, 2, N) * whole)[first:last])


@pytest.mark.parametrize("job", ["krylovschur", "lobpcg", "gd", "jd", "filter", "feast", "density", "curvature"])
@pytest.mark.parametrize("calls", [0, 2, 19])
def test_a_shell_of_the_caller_fails_on_all_ranks(job, calls, comm):
    layout = sh.Layout.from_size(N, comm)
    shell = PETSc.Mat().createPython(((layout.n_local, N),) * 2, OfCaller(comm, calls), comm=comm)
    shell.setUp()
    with pytest.raises(EvaluationError, match=rf"ZeroDivisionError on rank {comm.size - 1}: only here"):
        JOBS[job](shell)
    with contextlib.closing(sh.eigs(np.diag([1.0, 2.0]), 1, comm=comm)) as spectrum:
        assert np.allclose(spectrum.eigenvalues, 1.0)
    shell.destroy()
