"""Complex Hermitian matrices where scalars are real: against LAPACK and closed forms, on any number of ranks."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def random_hermitian(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    upper = sp.random(n, n, 0.1, random_state=rng) + 1j * sp.random(n, n, 0.1, random_state=rng)
    return (upper + upper.conj().T + sp.diags(rng.normal(size=n) + shift)).tocsr()


def ring(n, phase):
    """Return hopping on a ring with a flux: its eigenvalues are 2 − 2 cos((2πj + φ)/n), φ the whole phase."""
    hop = np.exp(1j * phase / n)
    i = np.arange(n)
    off = sp.coo_matrix((np.full(n, -hop), (i, (i + 1) % n)), (n, n))
    return (off + off.conj().T + 2 * sp.identity(n)).tocsr()


def agree(found, H, M, exact, size):
    """Hold a spectrum to LAPACK's eigenvalues and to its own matrices, by numpy alone."""
    values, X = found.to_numpy()
    np.testing.assert_allclose(values, exact, atol=1e-9 * size)
    assert X.dtype == np.complex128 and X.shape == (H.shape[0], len(exact))
    MX = X if M is None else M @ X
    np.testing.assert_allclose(X.conj().T @ MX, np.eye(len(exact)), atol=1e-8)
    assert np.abs(H @ X - MX * values).max() <= 1e-7 * size
    assert (found.residuals <= 1e-8).all() and found.orthogonality <= 1e-8


@pytest.mark.parametrize("method", ["auto", "krylovschur", "lobpcg"])
@pytest.mark.parametrize("massive", [False, True])
def test_lowest_by_every_road(method, massive, comm):
    H, M = random_hermitian(60, 1, shift=10.0), random_hermitian(60, 2, shift=20.0) if massive else None
    exact = scipy.linalg.eigh(H.toarray(), None if M is None else M.toarray(), eigvals_only=True)
    with sh.eigs(H, 5, mass=M, method=method, comm=comm) as found:
        agree(found, H, M, exact[:5], np.abs(exact).max())
        assert found.count.certified and found.count.inertia == found.count.found == 5
        assert sh.certify(H, found, mass=M, comm=comm).passed


@pytest.mark.parametrize("which", ["largest", "magnitude", "negative", "target", "interval", "interval by slices"])
def test_whichever_is_asked_for(which, comm):
    H = random_hermitian(50, 3)
    exact = np.linalg.eigvalsh(H.toarray())
    asked = {
        "largest": ({"k": 4, "which": "largest"}, exact[-4:]),
        "magnitude": ({"k": 4, "which": "magnitude"}, np.sort(exact[np.argsort(-np.abs(exact))[:4]])),
        "negative": ({"which": "negative"}, exact[exact < 0]),
        "target": ({"k": 5, "target": 0.3}, np.sort(exact[np.argsort(np.abs(exact - 0.3))[:5]])),
        "interval": ({"interval": (-1.0, 1.0)}, exact[np.abs(exact) < 1]),
        "interval by slices": ({"interval": (-1.0, 1.0), "method": "slicing"}, exact[np.abs(exact) < 1]),
    }
    arguments, expected = asked[which]
    with sh.eigs(H, comm=comm, count="yes", **arguments) as found:
        agree(found, H, None, expected, np.abs(exact).max())
        assert found.count.certified and found.count.inertia >= len(expected)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("method", ["dense", "krylovschur"])
def test_one_of_each_where_eigenvalues_are_multiple(k, method, comm):
    # Without flux all but one or two eigenvalues of a ring are double, and of three such rings sixfold.
    n = 30
    gauge = sp.diags(np.exp(1j * np.random.default_rng(4).uniform(0, 6, n)))
    H = (gauge @ sp.kron(ring(n // 3, 0.0), np.eye(3)) @ gauge.conj()).tocsr()
    exact = np.sort(np.repeat(2 - 2 * np.cos(2 * np.pi * np.arange(n // 3) * 3 / n), 3))
    with sh.eigs(H, k, method=method, comm=comm) as found:
        agree(found, H, None, exact[:k], 4.0)
        count = found.count
        assert count.certified and count.found + count.group == count.inertia
        assert count.inertia == np.count_nonzero(exact < count.interval[1])


def test_the_closed_form_of_a_ring_with_a_flux(comm):
    n, phase = 40, 0.7
    exact = np.sort(2 - 2 * np.cos((2 * np.pi * np.arange(n) + phase) / n))
    with sh.eigs(ring(n, phase), 9, comm=comm) as found:
        agree(found, ring(n, phase), None, exact[:9], 4.0)
    with sh.eigs(ring(n, phase).toarray(), n, comm=comm) as found:
        agree(found, ring(n, phase), None, exact, 4.0)
        assert found.count.inertia == n


def test_null_vectors_guesses_and_real_masses(comm):
    n = 24
    phases = np.exp(1j * np.random.default_rng(4).uniform(0, 6, n))
    H = (sp.diags(phases) @ ring(n, 0.0) @ sp.diags(phases.conj())).tocsr()  # a ring in another gauge
    mass = np.linspace(1.0, 3.0, n)
    exact = scipy.linalg.eigh(H.toarray(), np.diag(mass), eigvals_only=True)
    with sh.eigs(H, 4, mass=mass, nullspace=phases, comm=comm) as found:
        agree(found, H, sp.diags(mass), exact[1:5], 4.0)
        assert found.count.certified and found.count.inertia == found.count.found == 5
        guess = found.to_numpy()[1].T
        for start in (found, guess):
            with sh.eigs(H, 4, mass=mass, nullspace=phases, guess=start, method="lobpcg", comm=comm) as again:
                agree(again, H, sp.diags(mass), exact[1:5], 4.0)
    with pytest.raises(sh.CheckError, match="null"):
        sh.eigs(H, 4, nullspace=phases.conj(), comm=comm)


def test_a_complex_mass_beside_a_real_matrix(comm):
    K, M = sp.diags([-np.ones(29), np.full(30, 2.0), -np.ones(29)], [-1, 0, 1]).tocsr(), ring(30, 0.3)
    M = M + 4 * sp.identity(30)
    exact = scipy.linalg.eigh(K.toarray(), M.toarray(), eigvals_only=True)
    with sh.eigs(K, 3, mass=M, comm=comm) as found:
        agree(found, K, M, exact[:3], 4.0)


def test_stored_and_read_again(tmp_path, comm):
    path = comm.bcast(str(tmp_path / "modes.npz"))
    H = ring(7, 0.2)
    with sh.eigs(H, 3, comm=comm) as found:
        found.save(path)
        vectors = found.to_numpy()[1]
        local = found.to_numpy("local")[1]
        assert sum(comm.allgather(len(local))) == 7
    with sh.Spectrum.load(path, comm=comm) as again:
        assert again.real_form and again.count.certified
        np.testing.assert_array_equal(again.to_numpy()[1], vectors)
        assert sh.certify(H, again, comm=comm).passed
        assert not sh.certify(H.conj(), again, comm=comm).passed


def test_vectors_that_are_orthogonal_as_real_ones_alone_do_not_pass(comm):
    H = ring(8, 0.0) + 0j
    with sh.eigs(H, 3, comm=comm) as found:
        found.vectors[2].setArray((1j * found.vectors[1].getArray().view(complex)).view(float))
        found.eigenvalues[2] = found.eigenvalues[1]
        certificate = sh.certify(H, found, comm=comm)
        assert not certificate.passed and certificate.orthogonality > 0.9


@pytest.mark.parametrize(
    ("H", "arguments", "message"),
    [
        (ring(6, 0.3) + 1j * sp.identity(6), {}, "not Hermitian: entry .* is 2.1i, and a diagonal is real"),
        (ring(6, 0.3) + sp.coo_matrix(([1.0], ([0], [3])), (6, 6)), {}, "entry .0, 3. is 1.0j, entry .3, 0."),
        (ring(6, 0.3), {"mass": sp.triu(ring(6, 0.3))}, "the mass matrix is not Hermitian"),
        (np.array([[1.0, np.nan], [np.nan, 1j]]), {}, "not finite"),
        (np.ones((2, 3)) * 1j, {}, "must be square"),
        (ring(6, 0.3), {"k": 7}, "k=7 eigenpairs of a matrix with 6 rows"),
        (ring(6, 0.3), {"nullspace": np.ones(5)}, "null vectors must be .m, 6."),
        (ring(6, 0.3), {"guess": np.full((1, 6), np.nan)}, "must be finite"),
    ],
)
def test_what_is_refused(H, arguments, message, comm):
    with pytest.raises(InputError, match=message.replace("2.1i", r"2\+1j").replace("1.0j", r"1\+0j")):
        sh.eigs(H, comm=comm, **arguments)
    with pytest.raises(InputError, match="complex vectors"), sh.eigs(ring(6, 0.3), 2, comm=comm) as found:
        sh.certify(np.eye(6), found, comm=comm)


def test_vectors_of_close_eigenvalues_are_orthogonal_as_complex_ones(comm):
    """Real forms leave vectors askew whose eigenvalues lie as close as rounding of the entries."""
    n, rng = 60, np.random.default_rng(2)
    Q = np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))[0]
    exact = np.concatenate([[1e-14, 2e-14, 3e-14], np.logspace(-6, 6, n - 3)])
    H = (Q * exact) @ Q.conj().T
    with sh.eigs(sp.csr_matrix((H + H.conj().T) / 2), 6, comm=comm) as found:
        values, X = found.to_numpy()
        assert np.abs(X.conj().T @ X - np.eye(6)).max() < 1e-12 and found.orthogonality < 1e-12
        assert np.abs(values - exact[:6]).max() < 1e-9 and np.abs(H @ X - X * values).max() < 1e-8
