"""Lines of reports: a count that explains itself."""

import numpy as np
import pytest

from sparsehess.commands.reports.tables import count_line
from sparsehess.eigen.problem.count import Count

RIGID = ("translation x", "translation y", "translation z", "rotation x", "rotation y", "rotation z")
INF = np.inf


@pytest.mark.parametrize(
    ("count", "more", "line"),
    [
        (
            Count((-INF, 0.00876), 18, 18, True),
            (6, RIGID),
            "18 below 0.00876: 6 rigid, 12 found; none missed (certified)",
        ),
        (
            Count((-1.0, 289.0), 4, 4, True),
            (1, ("constant",)),
            "4 in (-1, 289): 1 constant, 3 found; none missed (certified)",
        ),
        (Count((-1.0, 289.0), 4, 4, True), (0, (), 1), "4 in (-1, 289): 1 zero, 3 found; none missed (certified)"),
        (Count((1.0, 289.0), 3, 3, True), (6, RIGID), "3 in (1, 289): 3 found; none missed (certified)"),
        (Count((-INF, 2.0), 5, 5, True), (2, ()), "5 below 2: 2 null vectors, 3 found; none missed (certified)"),
        (
            Count((-INF, 0.9), 10, 10, True, 1),
            (0, (), 0, 7),
            "10 below 0.9: 10 found (3 beyond those asked for); none missed after 1 repair (certified)",
        ),
        (Count((3.0, INF), 2, 2, True, 1), (), "2 above 3: 2 found; none missed after 1 repair (certified)"),
        (Count((-INF, INF), 7, 7, True, 2), (), "7 in all: 7 found; none missed after 2 repairs (certified)"),
        (Count((4.0, -4.0), 3, 3, True), (1, ()), "3 below -4 and above 4: 3 found; none missed (certified)"),
        (Count((-INF, -1e-9), 0, 0, True), (), "0 below -1e-09: 0 found; none missed (certified)"),
        (
            Count((-INF, 1.0), 2, 2, True, margin=3.14e5),
            (),
            "2 below 1: 2 found; none missed (certified, margin 3e+05)",
        ),
        (
            Count((-INF, 1e-9), 539, 10, True, group=529),
            (0, (), 10),
            "539 below 1e-09: 10 zero, 529 more from the last one on, not asked for; none missed (certified)",
        ),
        (Count((0.0, 9.0), 5, 3, False), (), "5 in (0, 9): 3 found; NOT certified: 2 MISSED"),
        (
            Count((0.0, 9.0), 5, 3, False, unresolved=((0.0, 2.0, 3, 1),)),
            (),
            "5 in (0, 9): 3 found; NOT certified: 2 MISSED (1 of 3 in (0, 2))",
        ),
        (Count((0.0, 9.0), 5, 6, False), (), "5 in (0, 9): 6 found; NOT certified: 1 more found than there are"),
        (
            Count((0.0, 9.0), 5, 5, False, margin=0.3),
            (),
            "5 in (0, 9): 5 found; NOT certified: rounding can move one across an end (margin 0.3)",
        ),
    ],
)
def test_a_count_explains_itself(count, more, line):
    assert count_line(count, *more) == line


def test_what_a_count_holds():
    values = np.array([-5.0, -4.0, 0.0, 4.5])
    assert Count((-4.5, 4.5), 0, 0, True).holds(values).tolist() == [False, True, True, False]
    assert Count((4.25, -4.25), 0, 0, True).holds(values).tolist() == [True, False, False, True]
    assert not Count((-INF, INF), 0, 0, True).holds(np.array([np.nan]))[0]
    assert not Count((4.0, -4.0), 0, 0, True).holds(np.array([np.nan]))[0]
