"""Modes followed over a parameter: crossings and veerings of known places and gaps, labels, counts, memory."""

import json

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def axis(n, length):
    return sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1]) * ((n + 1) / length) ** 2


def of_axis(n, length):
    return (2 * (n + 1) / length * np.sin(np.arange(1, n + 1) * np.pi / 2 / (n + 1))) ** 2


def rectangle(a):
    """The Laplacian on a x 1."""
    return sp.kronsum(axis(12, a), axis(14, 1.0)).tocsr()


def mode(a, i, j):
    """Return the eigenvalue of mode (i, j) along a and along 1."""
    return of_axis(12, a)[i - 1] + of_axis(14, 1.0)[j - 1]


def embedded(two, n=20, seed=0):
    """Return a 2 x 2 matrix beside a spectrum from 10 on, in a random basis."""
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    whole = np.diag(np.linspace(10.0, 20.0, n))
    whole[:2, :2] = two
    A = Q @ whole @ Q.T
    return (A + A.T) / 2


def test_a_rectangle_that_grows(comm):
    """Four modes by their numbers, at all values; three crossings where sums of closed forms are equal."""
    values = np.linspace(1.1, 2.0, 4)
    found = sh.follow(rectangle, values, k=5, comm=comm)
    names = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)]
    for column, name in enumerate(names):
        exact = [mode(a, *name) for a in found.values]
        assert found.curves[:, column] == pytest.approx(exact, rel=1e-6)  # in a cluster they are equal so far
        assert found.curves[found.given, column] == pytest.approx(np.array(exact)[found.given], rel=1e-9)
    assert found.counted.all() and (found.values[found.given] == values).all()
    crossings = {one.modes: one for one in found.events}
    assert {one.kind for one in found.events} == {"crossing"}
    for modes in ((3, 4), (2, 4)):
        at = crossings[modes]
        assert mode(at.value, *names[modes[0]]) == pytest.approx(mode(at.value, *names[modes[1]]), rel=1e-5)
        assert at.angle < 1 and at.turn < 1
    sorted_wrong = np.sort(found.curves[-1])
    assert not np.allclose(sorted_wrong, found.curves[-1], equal_nan=True)


@pytest.mark.parametrize("values", [np.linspace(0.03, 2.0, 5), np.linspace(2.0, 0.0, 4)])
def test_a_crossing(values, comm):
    found = sh.follow(lambda p: embedded(np.diag([1.0, p])), values, k=2, comm=comm)
    (event,) = found.events
    assert event.kind == "crossing" and event.value == pytest.approx(1.0, abs=1e-5)
    ends = found.curves[[0, -1]]
    straight = int(np.argmin(np.abs(ends[1] - 1.0)))
    assert ends[:, straight] == pytest.approx([1, 1]) and ends[:, 1 - straight] == pytest.approx(
        values[[0, -1]], abs=1e-9
    )


@pytest.mark.parametrize("coupling", [0.1, 1e-2, 1e-4])
def test_an_avoided_crossing(coupling, comm):
    """Whose least gap is twice the coupling; labels stay in order, and the vectors exchange."""
    family = lambda p: embedded(np.array([[1.0, coupling], [coupling, p]]))  # noqa: E731
    found = sh.follow(family, np.linspace(0.03, 2.0, 5), k=2, comm=comm)
    (event,) = found.events
    assert event.kind == "veering" and event.modes == (0, 1)
    assert event.value == pytest.approx(1.0, abs=0.3 * coupling)
    assert 2 * coupling <= event.gap < 3 * coupling and event.turn > 75 and event.angle < 1
    assert (np.diff(found.curves, axis=1) > 0).all()
    exact = [np.linalg.eigvalsh([[1.0, coupling], [coupling, p]]) for p in found.values]
    assert found.curves == pytest.approx(np.array(exact), abs=1e-9)


def test_a_gap_below_the_resolution_is_a_crossing(comm):
    family = lambda p: embedded(np.array([[1.0, 1e-8], [1e-8, p]]))  # noqa: E731
    found = sh.follow(family, [0.1, 1.7], k=2, comm=comm)
    (event,) = found.events
    assert event.kind == "crossing" and event.gap < 1e-6


def test_no_divisions_leave_it_unresolved(comm):
    found = sh.follow(lambda p: embedded(np.diag([1.0, p])), [0.2, 1.9], k=2, limit=0, comm=comm)
    (event,) = found.events
    assert event.kind == "unresolved" and event.value == pytest.approx(1.0) and len(found.values) == 2


def test_multiple_from_the_start(comm):
    """A square whose double eigenvalues split: any basis at first, the modes' own afterwards."""
    found = sh.follow(lambda a: sp.kronsum(axis(9, a), axis(9, 1.0)).tocsr(), [1.0, 1.1, 1.2], k=4, comm=comm)
    assert not found.events
    for column, (i, j) in enumerate([(1, 1), (2, 1), (1, 2), (2, 2)]):
        exact = [of_axis(9, a)[i - 1] + of_axis(9, 1.0)[j - 1] for a in found.values]
        assert found.curves[:, column] == pytest.approx(exact, rel=1e-9)


def test_a_double_eigenvalue_on_the_way(comm):
    """The given value is where two meet: its vectors are any basis, and the modes go on through it."""
    found = sh.follow(lambda p: embedded(np.diag([1.0, p])), [0.5, 1.0, 1.5], k=2, comm=comm)
    assert len(found.values) == 3 and found.curves[-1] == pytest.approx([1.5, 1.0])
    (event,) = found.events
    assert event.kind == "crossing" and event.value == 1.0


def test_a_space_that_is_left_by_other_vectors(comm):
    """Broken along the axes before, and along the diagonals after: nothing goes on."""

    def family(p):
        return embedded(np.eye(2) + p * (np.diag([1.0, -1.0]) if p < 0 else np.array([[0.0, 1.0], [1.0, 0.0]])))

    found = sh.follow(family, [-0.5, 0.0, 0.5], k=2, comm=comm)
    assert [one.kind for one in found.events] == ["split"] and found.events[0].modes == (0, 1)


def test_modes_come_and_go(comm):
    """One falls through all others: its curve begins when it is among those looked at, and is whole from then."""
    family = lambda p: sp.diags(np.r_[np.arange(1.0, 30.0), 8.3 - p]).tocsr()  # noqa: E731
    found = sh.follow(family, np.linspace(0.0, 8.0, 5), k=3, comm=comm)
    falling = found.curves[:, -1]
    there = np.isfinite(falling)
    assert falling[there] == pytest.approx(8.3 - found.values[there]) and not there[0] and there[-1]
    assert {one.kind for one in found.events} == {"crossing"}
    assert sorted(one.value for one in found.events) == pytest.approx([5.3, 6.3, 7.3], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_random_lines(seed, comm):
    """Eigenvalues that are straight lines by number, in a random basis: all crossings are where lines meet."""
    rng = np.random.default_rng(seed)
    n, k = 14, 4
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    start, slope = rng.uniform(0, 3, n), rng.uniform(-1.5, 1.5, n)

    def family(p):
        A = Q @ np.diag(start + p * slope) @ Q.T
        return (A + A.T) / 2

    found = sh.follow(family, np.linspace(0.01, 1.0, 7), k=k, comm=comm)
    lines = []
    for curve in found.curves.T:
        there = np.isfinite(curve)
        off = np.abs(np.add.outer(start, 0 * found.values) + np.outer(slope, found.values) - curve)[:, there]
        lines.append(int(off.max(axis=1).argmin()))
        assert off[lines[-1]].max() < 1e-5
    exact = set()
    for i in range(n):
        for j in range(i):
            p = (start[j] - start[i]) / (slope[i] - slope[j])
            if 0.01 < p < 1 and np.count_nonzero(start + p * slope < start[i] + p * slope[i] - 1e-9) < k:
                exact.add((j, i))
    crossed = {tuple(sorted(lines[mode] for mode in one.modes)) for one in found.events}
    assert {one.kind for one in found.events} == {"crossing"} and crossed == exact


def test_with_a_mass_and_stretched_string(comm):
    """A string on an elastic bed under growing tension, with its consistent mass: λ = T κ + c, all known."""
    n = 50
    h = 1.0 / (n + 1)
    K = axis(n, 1.0).tocsr() * h
    M = sp.diags([np.ones(n - 1), 4 * np.ones(n), np.ones(n - 1)], [-1, 0, 1]).tocsr() * (h / 6)
    c = np.cos(np.arange(1, 5) * np.pi * h)
    kappa = 6 / h**2 * (1 - c) / (2 + c)
    found = sh.follow(lambda T: (T * K + 30.0 * M, M), [1.0, 2.0, 4.0], k=4, comm=comm)
    assert len(found.values) == 3 and not found.events and found.counted.all()
    assert found.curves == pytest.approx(np.outer([1, 2, 4], kappa) + 30.0, rel=1e-9)
    assert np.diagonal(found.mac, axis1=1, axis2=2) == pytest.approx(np.ones((2, 4)))


def test_a_hessian_that_is_updated(comm):
    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(9)], 10, comm=comm)
    A = axis(10, 11.0).toarray()
    objective = sh.Objective(x=np.ones(10), gradient=lambda x: A @ x + x**3, pattern=pattern, comm=comm)
    with sh.assemble(objective) as H:

        def problem_of(p):
            H.update(np.full(10, p), verify=False)
            return H

        found = sh.follow(problem_of, [0.0, 0.5, 1.0], k=3, comm=comm)
    exact = np.linalg.eigvalsh(A)[:3] + 3 * found.values[:, None] ** 2
    assert found.curves == pytest.approx(exact, abs=1e-6)


def test_what_a_function_has_made_is_destroyed(comm):
    alive = []

    def problem_of(p):
        alive.append(sh.from_matvec(lambda x: (p + np.arange(30.0)) * x, 30, comm=comm))
        return alive[-1]

    def done(given):
        given.close()
        alive.remove(given)

    found = sh.follow(problem_of, [0.0, 1.0], k=2, done=done, comm=comm)
    assert not alive and found.curves[-1] == pytest.approx([1.0, 2.0])


def test_facts_table_and_picture(comm, folder):
    found = sh.follow(lambda p: embedded(np.diag([1.0, p])), [0.5, 1.5], k=2, comm=comm)
    facts = json.loads(json.dumps(found.facts(), allow_nan=False))
    assert facts["events"][0]["kind"] == "crossing" and len(facts["mac"]) == len(facts["values"]) - 1
    assert "crossing of 0 and 1 at 1" in found.table()
    assert [one.value for one in found.excited((1,))] == pytest.approx([1.0, 1.0], abs=1e-5)
    if comm.rank == 0:
        for name in ("a.png", "a.svg"):
            found.plot(folder / name, per=0.5, label="speed")
            assert (folder / name).stat().st_size > 5000


def test_what_is_refused(comm):
    square = lambda p: np.diag([1.0, 2.0, p])  # noqa: E731
    with pytest.raises(InputError, match="rise"):
        sh.follow(square, [0.0, 2.0, 1.0], comm=comm)
    with pytest.raises(InputError, match="finite"):
        sh.follow(square, [0.0, np.nan], comm=comm)
    with pytest.raises(InputError, match="None"):
        sh.follow(lambda p: None, [0.0, 1.0], comm=comm)
    with pytest.raises(InputError, match="one mesh"):
        sh.follow(lambda p: np.diag(np.arange(8.0 + p)), [0.0, 1.0], k=2, comm=comm)

    def fails(p):
        if p == 1 and comm.rank == comm.size - 1:
            raise ValueError("no")
        return square(p)

    with pytest.raises(EvaluationError, match=r"problem_of\(1\) raised ValueError"):
        sh.follow(fails, [0.0, 1.0], k=1, comm=comm)
