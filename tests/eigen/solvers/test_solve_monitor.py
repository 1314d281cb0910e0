"""What progress raises ends a solve."""

import pytest

import sparsehess as sh
from sparsehess.errors import SparseHessError
from support.cases import laplacian, second_difference


class Enough(SparseHessError):
    pass


@pytest.mark.parametrize("method", ["krylovschur", "lobpcg", "jd", "filter", "slicing"])
def test_what_progress_raises_ends_a_solve(comm, method):
    def enough(done, total):
        raise Enough(f"{total} were wanted")

    asked = {"interval": (0.0, 0.3)} if method in ("filter", "slicing") else {"k": 4}
    with pytest.raises(Enough, match="were wanted"):
        sh.eigs(second_difference(300), comm=comm, progress=enough, method=method, **asked)
    with sh.eigs(second_difference(300), comm=comm, method=method, **asked) as spectrum:
        k = len(spectrum.eigenvalues)
        assert spectrum.eigenvalues == pytest.approx(laplacian(300)[1][:k], rel=1e-7)


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("method", ["krylovschur", "lobpcg", "jd", "filter", "slicing", "feast", "dense"])
def test_what_progress_raises_on_one_rank_ends_a_solve_on_all(comm, method):
    def enough(done, total):
        if comm.rank == 1:
            raise SparseHessError(f"{total} were wanted")

    asked = {"interval": (0.0, 0.3)} if method in ("filter", "slicing", "feast") else {"k": 4}
    with pytest.raises(SparseHessError, match="were wanted"):
        sh.eigs(second_difference(300), comm=comm, progress=enough, method=method, **asked)
