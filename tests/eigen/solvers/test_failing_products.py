"""A product that raises within a solve: what it raised is told, whatever the solver leaves behind."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import EvaluationError

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 200

JOBS = {
    "krylovschur": lambda H: sh.eigs(H, 3, which="largest", method="krylovschur"),
    "lanczos": lambda H: sh.eigs(H, 3, which="smallest", method="lanczos"),
    "power": lambda H: sh.eigs(H, 1, which="magnitude", method="power"),
    "lobpcg": lambda H: sh.eigs(H, 3, method="lobpcg"),
    "gd": lambda H: sh.eigs(H, 3, method="gd"),
    "jd": lambda H: sh.eigs(H, 3, method="jd"),
    "filter": lambda H: sh.eigs(H, interval=(1.0, 1.2), method="filter"),
    "dense": lambda H: sh.eigs(H, 3, method="dense"),
    "density": lambda H: sh.density(H, method="lanczos"),
    "chebyshev": lambda H: sh.density(H, method="chebyshev", width=0.1),
    "trace": sh.trace,
    "diagonal": sh.diagonal,
    "rank": sh.rank,
    "inertia": sh.inertia,
    "a sum": lambda H: sh.eigs(sh.weighted_sum([(1.0, H), (2.0, H)]), 3, which="largest"),
}


class Product:
    """A product that raises after some calls, on one rank of those that evaluate it."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self, x, v):
        self.left -= 1
        if self.left < 0:
            raise ValueError("the inner problem did not converge")
        return np.linspace(1, 2, N) * v + 0.1 * (np.roll(v, 1) + np.roll(v, -1))


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("calls", [1, 12, 25])
def test_what_a_product_raises_is_told(job, calls, comm):
    # Products of many vectors are shared among the ranks.
    objective = sh.Objective(x=np.zeros(N), hvp=Product(-(-calls // comm.size)), comm=comm)

    def run():
        with sh.MatrixFree(objective) as shell:
            JOBS[job](shell)

    with pytest.raises(EvaluationError, match=r"raised ValueError on rank .* the inner problem did not converge"):
        run()
    # What was left behind does no harm to others.
    good = sh.Objective(x=np.zeros(N), hvp=Product(10**6), comm=comm)
    with sh.MatrixFree(good) as shell, sh.eigs(shell, 1, which="largest") as spectrum:
        assert 2.0 < spectrum.eigenvalues[0] < 2.2
