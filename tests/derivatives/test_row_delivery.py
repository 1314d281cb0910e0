"""Rows sent while others are evaluated: the same on any number of ranks, shared out evenly, none left behind."""

import time

from mpi4py import MPI

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.row_delivery import MOST_TASKS, divide
from sparsehess.errors import EvaluationError
from sparsehess.runtime.communicators import child
from support.objectives import objective, on_vectors
from support.smooth_functions import FUNCTIONS

N, COLORS = 90, 7


@pytest.mark.parametrize("groups", [1, 2, 3, 5, 64])
@pytest.mark.parametrize(("batch", "pieces"), [(1, 1), (4, 1), (1, 2), (1, 4)])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 49])
def test_tasks_are_all_of_the_rows(count, batch, pieces, groups):
    tasks = divide(count, batch, pieces, groups)
    done = np.zeros((count, pieces), int)
    for first, last, piece in tasks:
        assert last - first <= batch
        done[first:last, slice(None) if piece < 0 else piece] += 1
    assert (done == 1).all()
    if pieces > 1:  # dealt in turn, nobody has more than one evaluation more than others need to have
        each = [sum(pieces if task.piece < 0 else 1 for task in tasks[group::groups]) for group in range(groups)]
        assert max(each) <= max(-(-count * pieces // groups), 1) or max(each) <= pieces


def nodes_of(evaluations, many):
    """Return as many nodes as a scheme of that many gradients has; of a single one, x itself as well."""
    x, layout = evaluations.x, evaluations.layout
    steps = 1e-3 * (1 + np.arange(layout.start, layout.stop) / layout.n)
    two = [(x + steps, 1.0), (x - steps, -1.0)]
    four = [(x + steps, 4 / 3), (x - steps, -4 / 3), (x + 2 * steps, -1 / 6), (x - 2 * steps, 1 / 6)]
    return {1: [(x + steps, 1.0), (None, -1.0)], 2: two, 4: four}[many]


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("many", [1, 2, 4])
def test_sums_are_the_same_whoever_evaluates_their_pieces(many, grouped, comm):
    """To the last bit those of one rank."""
    function = FUNCTIONS["broyden_banded"](N)
    colors = np.arange(N) % COLORS
    alone = Evaluations(objective(function, MPI.COMM_SELF), function.x)
    expected = alone.changes(colors, COLORS, nodes_of(alone, many))
    for slow in range(comm.size):

        def gradient(x, slow=slow):
            time.sleep(0.002 * (comm.rank == slow))
            return function.gradient(x)

        if grouped:
            make = sh.Objective.in_groups(lambda group: on_vectors(function, group), max(comm.size - 1, 1), comm)
        else:
            make = objective(function, comm, gradient=gradient)
        evaluations = Evaluations(make, make.x if grouped else function.x)
        rows = slice(evaluations.layout.start, evaluations.layout.stop)
        found = evaluations.changes(colors[rows], COLORS, nodes_of(evaluations, many))
        if grouped and comm.size > 1:  # whose parts are summed in another order
            np.testing.assert_allclose(found, expected[:, rows], rtol=1e-12, atol=1e-14)
        else:
            assert found.tobytes() == expected[:, rows].tobytes()
        assert evaluations.counts["gradient"] == COLORS * many + (many == 1)


@pytest.mark.parallel([2])
def test_two_ranks_evaluate_as_many_gradients(comm):
    function, calls = FUNCTIONS["broyden_banded"](N), []

    def gradient(x):
        time.sleep(0.02)
        calls.append(1)
        return function.gradient(x)

    evaluations = Evaluations(objective(function, comm, gradient=gradient), function.x)
    rows = slice(evaluations.layout.start, evaluations.layout.stop)
    for count, each in [(1, 1), (7, 7)]:
        calls.clear()
        evaluations.changes(np.arange(N)[rows] % count, count, nodes_of(evaluations, 2))
        assert abs(len(calls) - each) <= (0 if count == 1 else 1)


@pytest.mark.parallel([1, 2, 3])
def test_nothing_is_left_under_way_after_a_failure(comm):
    function, calls = FUNCTIONS["broyden_banded"](N), []
    failing = comm.size - 1

    def gradient(x):
        calls.append(1)
        if comm.rank == failing and len(calls) == 3:
            raise ValueError("bad luck")
        return function.gradient(x)

    evaluations = Evaluations(objective(function, comm, gradient=gradient), function.x)
    points = [function.x[evaluations.layout.start : evaluations.layout.stop]] * (4 * comm.size)
    for _ in range(3):
        calls.clear()
        with pytest.raises(EvaluationError, match=f"on rank {failing}: bad luck"):
            evaluations.gradients(points)
        calls.extend([1] * 3)  # that is over
        found = evaluations.gradients(points)
        expected = function.gradient(function.x)[evaluations.layout.start : evaluations.layout.stop]
        assert all(row.tobytes() == expected.tobytes() for row in found)
        if comm.size > 1:
            evaluations.comm.Barrier()
            assert not child(evaluations.comm, "rows", evaluations.comm.Dup).Iprobe()


@pytest.mark.parallel([1, 2])
def test_more_rows_than_there_are_tags(comm):
    problem = sh.Objective(x=np.ones(2), gradient=lambda x: x * x, comm=comm)
    evaluations = Evaluations(problem, np.ones(2))
    count = MOST_TASKS + 5
    points = [np.full(evaluations.layout.n_local, float(k)) for k in range(count)]
    found = evaluations.gradients(points)
    assert (found == np.arange(float(count))[:, None] ** 2).all()


@pytest.mark.parallel([1, 2, 3])
def test_long_rows_come_in_several_messages(comm):
    n = 150_000
    problem = sh.Objective(x=np.ones(n), gradient=lambda x: x * x, comm=comm)
    evaluations = Evaluations(problem, np.ones(n))
    here = np.arange(evaluations.layout.start, evaluations.layout.stop) / n
    found = evaluations.gradients([here + k for k in range(7)])
    assert all((row == (here + k) ** 2).all() for k, row in enumerate(found))


@pytest.mark.parallel([2, 3])
def test_batches_of_long_rows(comm):
    n = 40_000
    problem = sh.Objective(x=np.ones(n), gradient=lambda x: x, hvps=lambda x, V: 3 * V, batch=3, comm=comm)
    evaluations = Evaluations(problem, np.ones(n))
    here = np.arange(evaluations.layout.start, evaluations.layout.stop) + 1.0
    found = evaluations.along(np.array([here * k for k in range(10)]))
    assert all((row == 3 * here * k).all() for k, row in enumerate(found))
