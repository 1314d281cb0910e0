"""Buckling: against Euler, plates in closed form, and LAPACK; and whether it says what it does not know."""

import importlib

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import frame
import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.errors import CheckError, InputError
from sparsehess.mechanics.load_counts import count_found

# The function of the same name stands before it.
module = importlib.import_module("sparsehess.mechanics.buckling")

pytestmark = pytest.mark.parallel([1, 2, 3])

# Free rows of a column's deflections and rotations at its ends, and the factor of π² E I / L² (Timoshenko and Gere
# 1961, "Theory of elastic stability", section 2.3).
EULER = {
    "pinned": ([0, -2], 1.0),
    "cantilever": ([0, 1], 0.25),
    "clamped": ([0, 1, -2, -1], 4.0),
    "clamped-pinned": ([0, 1, -2], 2.0457),
}


def column(elements, compression=1.0):
    """Return dense K, Kg of a free column of length and stiffness one, by cubic elements."""
    h = 1.0 / elements
    n = 2 * elements + 2
    K, Kg = np.zeros((n, n)), np.zeros((n, n))
    x, w = np.polynomial.legendre.leggauss(4)
    s = (x + 1) / 2
    second = np.array([-6 + 12 * s, h * (-4 + 6 * s), 6 - 12 * s, h * (-2 + 6 * s)]) / h**2
    first = (
        np.array([-6 * s + 6 * s**2, h * (1 - 4 * s + 3 * s**2), 6 * s - 6 * s**2, h * (-2 * s + 3 * s**2)]) / h
    )
    for e in range(elements):
        at = np.ix_(range(2 * e, 2 * e + 4), range(2 * e, 2 * e + 4))
        K[at] += (second * w) @ second.T * h / 2
        Kg[at] -= compression * (first * w) @ first.T * h / 2
    return K, Kg


def without(matrices, fixed):
    keep = np.delete(np.arange(len(matrices[0])), fixed)
    return [one[np.ix_(keep, keep)] for one in matrices]


def by_lapack(K, Kg):
    """Return the load factors of a definite K, the nearest to zero first."""
    inverse = scipy.linalg.eigh(-Kg, K, eigvals_only=True)
    inverse = inverse[np.abs(inverse) > 1e-10 * np.abs(inverse).max()]
    return (1 / inverse)[np.argsort(-np.abs(inverse))]


def check(found, expected, rtol=1e-7):
    assert found.count.certified and not found.shortfall
    assert len(found.load_factors) == len(expected)
    np.testing.assert_allclose(np.abs(found.load_factors), np.abs(expected), rtol=rtol)
    np.testing.assert_allclose(np.sort(found.load_factors), np.sort(expected), rtol=rtol)
    assert found.residuals.max(initial=0.0) < 1e-8


@pytest.mark.essential
@pytest.mark.parametrize("case", EULER)
def test_euler(comm, case):
    fixed, factor = EULER[case]
    K, Kg = without(column(24), fixed)
    with sh.buckling(K, Kg, 3, comm=comm) as found:
        check(found, by_lapack(K, Kg)[:3])
        assert found.critical == pytest.approx(factor * np.pi**2, rel=1e-4)
        assert found.count.negative == 0 and found.form == "swapped"


def laplacian(n):
    """Return the second difference on n inner points of a unit length, and its eigenvalues."""
    h = 1 / (n + 1)
    A = sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]) / h**2
    return A, (2 - 2 * np.cos(np.pi * np.arange(1, n + 1) * h)) / h**2


@pytest.mark.essential
def test_plate_under_compression(comm):
    """A simply supported one is the square of a membrane: N = D (α + β)² / (α Nx + β Ny)."""
    n, long = 18, 2.0
    A, a = laplacian(n)
    B, b = laplacian(n)
    one = sp.identity(n)
    membrane = sp.kron(A / long**2, one) + sp.kron(one, B)
    K = (membrane @ membrane).tocsr()
    first, second = np.meshgrid(a / long**2, b, indexing="ij")
    for x, y in ((1.0, 0.0), (1.0, 1.0), (1.0, -2.0)):  # one side, both sides, pushed and pulled
        Kg = -(x * sp.kron(A / long**2, one) + y * sp.kron(one, B)).tocsr()
        exact = ((first + second) ** 2 / (x * first + y * second)).ravel()
        exact = exact[np.argsort(np.abs(exact))]
        with sh.buckling(K, Kg, 5, comm=comm) as found:
            check(found, exact[:5])
            if (x, y) == (1.0, 0.0):
                assert found.critical / np.pi**2 == pytest.approx(4.0, rel=0.02)


def test_plate_under_shear(comm):
    """Load factors come in pairs of both signs: 9.34 π² D / b² of a square plate (Timoshenko and Gere, 9.7)."""
    n = 18
    A, _ = laplacian(n)
    D = sp.diags([-np.ones(n - 1), np.ones(n - 1)], [-1, 1]) * (n + 1) / 2
    membrane = sp.kron(A, sp.identity(n)) + sp.kron(sp.identity(n), A)
    K, Kg = (membrane @ membrane).toarray(), -2 * sp.kron(D, D).toarray()
    exact = by_lapack(K, Kg)
    with sh.buckling(K, Kg, 4, comm=comm) as found:
        check(found, exact[:4])
        assert found.critical / np.pi**2 == pytest.approx(9.34, rel=0.05)
        assert found.count.positive == found.count.negative == 2
    with sh.buckling(K, Kg, 1, comm=comm) as found:  # its twin of the other sign is as near
        assert found.count.certified and found.count.group == 1
        assert (found.count.positive, found.count.negative) == (1, 1)
    with sh.buckling(K, Kg, 2, which="negative", comm=comm) as found:
        check(found, np.sort(exact[exact < 0])[::-1][:2])
        assert found.count.positive == 2 and found.count.opposite_margin > 10


@pytest.mark.essential
def test_frame_under_combined_load(comm):
    """A space frame with torsion of its members, and side loads."""
    K, Kg, _, _ = frame.model(side=3e4)
    exact = by_lapack(K.toarray(), Kg.toarray())
    for scale in (1.0, 1e-8, 1e8):
        with sh.buckling(K, scale * Kg, 6, comm=comm) as found:
            check(found, exact[:6] / scale)
            x = np.stack([mode.getArray() for mode in found.modes], axis=1)
            assert comm.allreduce(float(np.abs(x).max(initial=0.0)), max) == 1.0
    positive = np.sort(exact[exact > 0])
    with sh.buckling(K, Kg, 3, which="positive", comm=comm) as found:
        check(found, positive[:3])
        assert found.count.negative == np.count_nonzero((exact < 0) & (exact > found.count.low))
    limit = 0.5 * (abs(exact[3]) + abs(exact[4]))
    with sh.buckling(K, Kg, max_factor=limit, comm=comm) as found:
        check(found, exact[:4])
        assert (found.count.low, found.count.high) == pytest.approx((-limit, limit))


def test_load_of_few_members(comm):
    """Kg has few rows, and fewer load factors than are asked for."""
    K, Kg = without(column(10), [0, 1])
    Kg[4:, :] = Kg[:, 4:] = 0.0
    exact = by_lapack(K, Kg)
    assert len(exact) < 6
    for which in ("both", "positive"):
        with sh.buckling(K, Kg, 6, which=which, comm=comm) as found:
            check(found, exact)
            assert found.asked == len(exact) == found.count.counted


@pytest.mark.essential
@pytest.mark.parametrize("seed", [1, 5])
def test_load_of_one_member_on_rows_of_many_sizes(comm, seed):
    """Kg has rank one: λ = 1 / xᵀ K⁻¹ x, and all other inverse load factors are rounding of zero."""
    rng = np.random.default_rng(seed)
    d = 10.0 ** rng.uniform(-3, 3, 20)
    K = d[:, None] * (2 * np.eye(20) - np.eye(20, k=1) - np.eye(20, k=-1)) * d
    x = rng.standard_normal(20)
    with sh.buckling(K, -np.outer(x, x), 4, comm=comm) as found:
        check(found, [1 / (x @ np.linalg.solve(K, x))])
        assert found.asked == found.count.counted == 1


def test_vectors_of_no_load_factor_are_not_counted(comm):
    """Such as come where the matrix that resists is all but singular."""
    with EigenProblem.of(np.diag([1.0, 2.0, 3.0]), mass=np.ones(3), comm=comm) as problem:
        vector = problem.A.createVecRight()
        vector.set(0.0)
        with pytest.raises(CheckError, match="singular to almost the last digits"):
            count_found(problem, SolveSpec(which="magnitude"), [vector], 1, 0.0, 1)
        vector.destroy()


def test_load_factors_of_the_other_direction_are_not_told(comm):
    """One positive load factor is at a penalty, and hardly to be found; no negative one takes its place."""
    K, Kg = np.zeros((4, 4)), np.zeros((4, 4))
    K[np.triu_indices(4)] = [
        0.25361252390779543,
        -0.30538963523259055,
        -0.177077735766738,
        -0.1439660355708919,
        8267826906.566224,
        0.21324473813051903,
        0.1733034572692026,
        0.12364074032921678,
        0.10051582826866583,
        0.08173973992128016,
    ]
    Kg[np.triu_indices(4)] = [
        -2.634246625119498e-12,
        6.352285152588275e-13,
        1.9122808044808673e-12,
        1.9616281460487046e-12,
        6.571496102698602e-13,
        -2.043671395870822e-12,
        -1.2853839540169997e-12,
        -3.1198992675230398e-12,
        2.0127022709621907e-12,
        -2.786782190124374e-12,
    ]
    K, Kg = (one + np.triu(one, 1).T for one in (K, Kg))
    with sh.buckling(K, Kg, 4, which="positive", strict=False, comm=comm) as found:
        assert (found.load_factors > 0).all()
        assert found.load_factors[0] == pytest.approx(299534.27, rel=1e-6)


@pytest.mark.essential
def test_no_buckling(comm):
    K, Kg = without(column(12), [0, -2])
    with sh.buckling(K, -Kg, 3, which="positive", comm=comm) as found:  # a column that is pulled
        assert len(found.load_factors) == 0 and found.count.certified
        assert found.count.positive == 0 and found.count.high > 1e6 and found.critical is None
    with sh.buckling(K, Kg, max_factor=9.8, comm=comm) as found:  # less than π²
        assert len(found.load_factors) == 0 and found.count.certified and found.count.high == pytest.approx(9.8)
    with sh.buckling(K, 0 * Kg, comm=comm) as found:
        assert len(found.load_factors) == 0 and found.count is None


def test_square_column(comm):
    """It buckles in two directions at the same load; one mode asked for cuts the pair."""
    K, Kg = (np.kron(one, np.eye(2)) for one in without(column(12), [0, 1]))
    exact = by_lapack(K, Kg)
    with sh.buckling(K, Kg, 4, comm=comm) as found:
        check(found, exact[:4])
        assert found.groups == [[0, 1], [2, 3]]
    with sh.buckling(K, Kg, 1, comm=comm) as found:
        check(found, exact[:1])
        assert found.count.group == 1 and found.count.positive == 2


def projected(matrix, motion):
    P = np.eye(len(matrix)) - np.outer(motion, motion) / (motion @ motion)
    return P @ matrix @ P


@pytest.mark.essential
def test_free_column_that_the_load_does_not_turn(comm):
    """Two rigid motions that neither matrix resists."""
    K, Kg = column(8)
    turning = np.ravel([[x, 1.0] for x in np.linspace(0, 1, 9) - 0.5])
    Kg = projected(Kg, turning)
    N = scipy.linalg.null_space(np.stack([np.tile([1.0, 0.0], 9), turning]))
    exact = by_lapack(N.T @ K @ N, N.T @ Kg @ N)
    with sh.buckling(K, Kg, 3, comm=comm) as found:
        check(found, exact[:3], rtol=1e-6)
        assert (found.free, found.tipped, found.form) == (2, 0, "swapped")
        for mode, value in zip(found.modes, found.load_factors, strict=True):
            x = np.concatenate(comm.allgather(mode.getArray()))
            assert np.linalg.norm((K + value * Kg) @ x) < 1e-7 * np.linalg.norm(K) * np.linalg.norm(x)
            assert abs(turning @ x) < 1e-8 * np.linalg.norm(x)


@pytest.mark.parametrize("which", ["both", "positive"])
def test_free_column_that_the_load_turns(comm, which):
    """One motion that nothing resists, and one whose load factor is zero; LAPACK's QZ has the others."""
    for compression in (1.0, -1.0):
        K, Kg = column(8, compression)
        values = scipy.linalg.eig(K[1:, 1:], -Kg[1:, 1:], right=False)  # one held: deflection at an end
        exact = values[np.isfinite(values) & (np.abs(values) > 1e-6)].real
        exact = exact[np.argsort(np.abs(exact))]
        exact = exact if which == "both" else exact[exact > 0]
        with sh.buckling(K, Kg, 3, which=which, comm=comm) as found:
            check(found, exact[:3], rtol=1e-6)
            assert (found.free, found.tipped, found.form) == (1, 1, "shifted")


def test_rows_that_are_empty_are_held(comm):
    K, Kg = without(column(6), [0, -2])
    wide = [np.pad(one, ((1, 1), (1, 1))) for one in (K, Kg)]
    with sh.buckling(*wide, 2, comm=comm) as found:
        check(found, by_lapack(K, Kg)[:2])
        assert found.modes[0].getSize() == len(wide[0])
    wide[1][0, 0] = 1.0
    with pytest.raises(InputError, match="no entries in 1 rows"):
        sh.buckling(*wide, 2, comm=comm)


def test_one_variable(comm):
    with sh.buckling(np.array([[2.0]]), np.array([[-4.0]]), comm=comm) as found:
        check(found, np.array([0.5]))


@pytest.mark.essential
def test_what_is_refused(comm):
    K, Kg = without(column(6), [0, -2])
    spoilt = K.copy()
    spoilt[2, 2] = np.nan
    with pytest.raises(InputError, match=r"stiffness matrix K .*not finite"):
        sh.buckling(spoilt, Kg, comm=comm)
    with pytest.raises(InputError, match=r"geometric stiffness matrix Kg .*not finite"):
        sh.buckling(K, np.where(Kg > 0, np.inf, Kg), comm=comm)
    with pytest.raises(InputError, match=r"K has 2 negative eigenvalues.* unstable"):
        sh.buckling(K + 1.5 * 4 * np.pi**2 * Kg, Kg, comm=comm)
    with pytest.raises(InputError, match="which"):
        sh.buckling(K, Kg, which="smallest", comm=comm)
    with pytest.raises(InputError, match="max_factor"):
        sh.buckling(K, Kg, max_factor=np.nan, comm=comm)
    with pytest.raises(InputError, match="symmetric"):
        sh.buckling(K, np.triu(Kg), comm=comm)
    with pytest.raises(InputError, match="rows"):
        sh.buckling(K, Kg[1:, 1:], comm=comm)


# --- whether it can be made to lie ---


def test_end_on_a_load_factor_is_not_certified(comm):
    K, Kg = np.diag([6.0, 8.0, 9.0]), np.diag([-2.0, 1.0, -1.0])
    for limit in (8.0, 8.0 * (1 + 1e-16), 8.0 * (1 - 2e-16)):
        with sh.buckling(K, Kg, max_factor=limit, comm=comm, strict=False) as found:
            assert not found.count.certified and "not certain" in found.shortfall
    with pytest.raises(CheckError, match="not certain"):
        sh.buckling(K, Kg, max_factor=8.0, comm=comm)


def without_nearest(spectrum):
    """Return a spectrum that lacks the load factor nearest to zero, as a solver might."""
    keep = np.arange(len(spectrum.eigenvalues)) != np.argmax(np.abs(spectrum.eigenvalues))
    facts = {
        **spectrum.__dict__,
        "eigenvalues": spectrum.eigenvalues[keep],
        "vectors": [vector for vector, one in zip(spectrum.vectors, keep, strict=True) if one],
        "residuals": spectrum.residuals[keep],
        "roundings": spectrum.roundings[keep],
    }
    return Spectrum(**facts)


@pytest.mark.essential
@pytest.mark.parametrize("which", ["both", "positive"])
def test_missed_load_factor_is_found_or_told(comm, monkeypatch, which):
    K, Kg = without(column(10), [0, 1])
    exact, calls, solve = by_lapack(K, Kg), [], module.solve

    def forgetful(problem, spec, *more):
        calls.append(spec)
        found = solve(problem, spec, *more)
        return without_nearest(found) if len(calls) <= often else found

    monkeypatch.setattr(module, "solve", forgetful)
    often = 1
    with sh.buckling(K, Kg, 3, which=which, comm=comm) as found:
        check(found, exact[:3])
    calls.clear()
    often = 9
    with sh.buckling(K, Kg, 3, which=which, comm=comm, strict=False) as found:
        assert not found.count.certified and found.shortfall


def test_cluster_that_is_cut(comm):
    """Twelve nearly equal load factors; whatever k cuts them, what is certified is right."""
    rng = np.random.default_rng(5)
    inverse = np.concatenate([1 + 1e-9 * np.arange(6), -1 - 1e-9 * np.arange(6), np.linspace(-0.5, 0.5, 28)])
    Q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    S = np.diag(2.0 ** rng.integers(-3, 4, 40))
    K, Kg = S @ S, -S @ (Q * inverse) @ Q.T @ S
    K, Kg = (K + K.T) / 2, (Kg + Kg.T) / 2
    for k in (1, 5, 6, 7, 12, 13):
        with sh.buckling(K, Kg, k, comm=comm, strict=False) as found:
            if found.count.certified:
                reach = np.abs(found.load_factors).max()
                nearer = np.count_nonzero(1 / np.abs(inverse) < reach * (1 - 2e-6))
                assert np.count_nonzero(np.abs(found.load_factors) < reach * (1 - 2e-6)) == nearer
                inside = 1 / inverse[(1 / inverse > found.count.low) & (1 / inverse < found.count.high)]
                assert np.count_nonzero(inside > 0) == found.count.positive
                assert np.count_nonzero(inside < 0) == found.count.negative
        assert k not in (12, 13) or found.count.certified
