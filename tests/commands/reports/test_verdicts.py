"""What pages say of a count: nothing is called certified that is not."""

import itertools

from sparsehess.commands.reports.verdicts import not_proven, points_of, statement_points, verdict_of
from sparsehess.eigen.certificates.statement import STATEMENT
from sparsehess.eigen.problem.count import Count


def told(count, **more):
    return {
        "count": None if count is None else count.facts(),
        "eigenvalues": [1.0, 2.0],
        "residuals": [1e-12, 2e-12],
        "orthogonality": 1e-15,
        "deflated": 0,
        "zeros": 0,
        "k": 2,
        "shortfall": None,
        "tol": 1e-8,
        **more,
    }


def test_the_points_are_those_of_the_statement():
    whole, points = " ".join(STATEMENT.split()), statement_points()
    assert len(points) == 7 and all(text in whole for _, text in points)
    assert [name.split(" that")[0] for name, _ in points][:4] == ["Scaling", "Each pair", "None missed", "Margin"]
    assert len(not_proven()) == 3 and all(one in whole.replace("`", "") for one in not_proven())
    here = points_of(told(Count((-1.0, 3.0), 2, 2, True, margin=4e5)))
    assert all(one.here for one in here) and "counted 2, found 2" in here[2].here and "4e+05" in here[3].here


def test_certified_is_said_of_nothing_else():
    for certified, short, found in itertools.product((True, False, None, "yes"), (None, "fewer"), (2, 1)):
        facts = told(Count((-1.0, 3.0), 2, found, True), shortfall=short)
        facts["count"]["certified"] = certified
        verdict = verdict_of(facts)
        good = certified is True and short is None
        assert (verdict.kind == "good") == good
        assert verdict.headline.startswith("Certified") == good
        if certified is not True:
            assert "none is missing" not in " ".join(verdict.sentences)
    verdict = verdict_of(told(None, uncounted="it would cost too much"))
    assert verdict.kind == "open" and "it would cost too much" in verdict.sentences[-1]
    assert verdict_of(told(None, shortfall="1 of 2")).kind == "bad"


def test_groups_and_digits_are_told():
    count = Count((-1.0, 3.0), 5, 2, True, group=3)
    text = " ".join(verdict_of(told(count, rounding={"crossing": [1]})).sentences)
    assert "3 more lie from there on" in text and "λ2" in text
    assert "2 of them were found" in text and "as many were found" not in text
