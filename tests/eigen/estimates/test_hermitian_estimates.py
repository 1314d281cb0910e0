"""Traces, densities and ranks of complex Hermitian matrices where scalars are real, against LAPACK."""

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.runtime import complex_scalars

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.essential,
    pytest.mark.skipif(complex_scalars(), reason="scalars of this PETSc are complex"),
]


def hermitian(n, rank, seed, low=0.5):
    """Return a matrix of so many eigenvalues of size low to 3, the others zero, and all eigenvalues."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))[0]
    values = np.zeros(n)
    values[:rank] = rng.uniform(low, 3, rank) * rng.choice([-1, 1], rank)
    H = (basis * values) @ basis.conj().T
    return (H + H.conj().T) / 2, np.sort(values)


def positive(n, seed):
    H, values = hermitian(n, n, seed)
    return H @ H, values**2


@pytest.mark.parametrize("rank", [0, 1, 17, 40])
def test_ranks_are_those_that_were_made(rank, comm):
    H, values = hermitian(40, rank, rank + 1)
    found = sh.rank(H, comm=comm)
    assert (found.rank, found.n, found.degeneracy, found.certified) == (rank, 40, 40 - rank, True)
    assert (found.above, found.below) == (np.count_nonzero(values > 0.1), np.count_nonzero(values < -0.1))
    assert found.share == pytest.approx(1 - rank / 40)
    by_density = sh.rank(H, method="density", comm=comm)
    assert (by_density.rank, by_density.n, by_density.certified) == (rank, 40, False)


def test_ranks_with_gaps_masses_and_null_vectors(comm):
    H, _ = hermitian(30, 11, 5)
    M = positive(30, 6)[0]
    assert sh.rank(H + 1e-4 * np.eye(30), "gap", comm=comm).rank == 11
    assert sh.rank(H + 1e-4 * np.eye(30), absolute=1e-5, comm=comm).rank == 30
    pencil = scipy.linalg.eigvalsh(H, M)
    found = sh.rank(H, mass=M, comm=comm)
    assert (found.rank, found.above) == (11, np.count_nonzero(pencil > 1e-6)) and found.certified
    null = np.linalg.eigh(H)[1][:, np.abs(np.linalg.eigvalsh(H)) < 0.1].T
    assert len(null) == 19
    found = sh.rank(H, nullspace=null, comm=comm)
    assert (found.rank, found.between, found.certified) == (11, 19, True)


def test_traces_of_all_eigenvalues(comm):
    H, values = positive(40, 1)
    found = sh.trace(H, comm=comm)
    assert found.trace == pytest.approx(values.sum(), rel=1e-13) and found.stderr == 0
    for function, exact in (("logdet", np.log(values).sum()), ("inverse", (1 / values).sum())):
        found = sh.trace(H, function, comm=comm)
        assert found.trace == pytest.approx(exact, rel=1e-10) and found.method == "exact"
    M = positive(40, 2)[0]
    assert sh.trace(H, "logdet", mass=M, comm=comm).trace == pytest.approx(
        np.log(scipy.linalg.eigvalsh(H, M)).sum(), rel=1e-9
    )
    D = np.diag(np.arange(1.0, 41.0))
    assert sh.trace(H, mass=D, comm=comm).trace == pytest.approx(scipy.linalg.eigvalsh(H, D).sum(), rel=1e-12)
    singular, values = hermitian(30, 11, 5)
    null = np.linalg.eigh(singular)[1][:, np.abs(np.linalg.eigvalsh(singular)) < 0.1].T
    found = sh.trace(singular @ singular, "logdet", nullspace=null, comm=comm)  # of what is not zero
    assert found.trace == pytest.approx(np.log(values[np.abs(values) > 0.1] ** 2).sum(), rel=1e-9)


def test_the_standard_error_is_that_of_probes_on_the_doubled_space(comm):
    H, values = hermitian(40, 40, 3)
    found = sh.trace(H, method="hutchinson", samples=1500, comm=comm)
    # Of x with independent (±1 ± i)/√2 the variance of xᴴHx is the sum of |Hij|² off the diagonal.
    variance = (np.abs(H) ** 2).sum() - (np.abs(np.diag(H)) ** 2).sum()
    assert found.stderr == pytest.approx(np.sqrt(variance / 1500), rel=0.08)
    assert abs(found.trace - values.sum()) < 3.5 * found.stderr


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
@pytest.mark.parametrize("function", [None, "logdet"])
def test_estimates_of_traces_err_as_they_tell(method, function, comm):
    H, values = positive(40, 4)
    exact = values.sum() if function is None else np.log(values).sum()
    off = []
    for seed in range(12):
        found = sh.trace(H, function, method=method, samples=18, seed=seed, comm=comm)
        assert found.method == method
        off.append((found.trace - exact) / found.stderr)
    assert 0.5 < np.sqrt(np.mean(np.square(off))) < 1.8


@pytest.mark.parametrize("method", ["dense", "lanczos", "chebyshev"])
def test_densities_and_counts(method, comm):
    H, values = hermitian(60, 60, 7)
    groups = {} if method == "dense" else {"groups": min(comm.size, 2), "samples": 12}
    found = sh.density(H, method=method, comm=comm, **groups)
    assert found.n == 60 and found.method == method
    for low, high in ((-4, 0), (0.5, 2.0), (-1.7, 2.2)):
        many, error = found.count(low, high)
        exact = np.count_nonzero((values >= low) & (values <= high))
        assert abs(many - exact) <= (3.5 * error if method != "dense" else 0)
    means = np.array([np.mean(values**k) for k in range(5)])
    tolerance = 1e-9 if method == "dense" else 4 * found.moments_stderr + 1e-9
    assert (np.abs(found.moments - means) <= tolerance).all()
    assert found.below(10.0)[0] == pytest.approx(1.0)
    assert np.sum(found.density * np.gradient(found.grid)) == pytest.approx(1.0, abs=0.02)


def test_errors_of_counts_are_those_of_the_doubled_space(comm):
    H, values = hermitian(40, 40, 8)
    exact, off, told = np.count_nonzero(values > 0), [], []
    for seed in range(20):
        found = sh.density(H, method="lanczos", samples=4, steps=60, seed=seed, comm=comm)
        many, error = found.count(0.0, 4.0)
        off.append(many - exact)
        told.append(error)
    # Of a random real vector of 2n numbers a share p varies by 2 p (1 - p) / 2n, and so does a count of n.
    share = exact / 40
    expected = np.sqrt(40 * share * (1 - share) / 4)
    assert np.sqrt(np.mean(np.square(off))) == pytest.approx(expected, rel=0.4)
    assert np.median(told) == pytest.approx(expected, rel=0.4)


def test_known_pairs_are_taken_out_with_both_vectors_of_each(comm):
    H, values = hermitian(50, 50, 9)
    with sh.eigs(H, 6, comm=comm) as known:
        found = sh.density(H, deflate=known, method="lanczos", samples=4, groups=min(comm.size, 2), comm=comm)
        assert [times for _, times in found.atoms] == [1] * 6 and found.n == 50
        assert [place for place, _ in found.atoms] == pytest.approx(values[:6], abs=1e-8)
        assert found.range[0] == pytest.approx(values[0], abs=1e-8)
        rest = found.measures.range[0]
        assert rest > values[5] - 1e-6  # nothing of them is left
        for method in ("hutchinson", "auto"):
            total = sh.trace(H, "heat", time=1.0, deflate=known, method=method, comm=comm)
            assert abs(total.trace - np.exp(-values).sum()) <= 4 * total.stderr + 1e-7


def test_what_is_for_real_matrices_says_what_takes_hermitian_ones(comm):
    H, _ = hermitian(10, 10, 10)
    with pytest.raises(InputError, match="trace, density and rank, elsewhere"):
        sh.diagonal(H, comm=comm)
    with pytest.raises(InputError, match="not Hermitian"):
        sh.trace(H + 0.1j * np.eye(10), comm=comm)
