"""The survey of Hessians by differences sees what is wrong, and passes what is right."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.errors import CheckError

PATH = Path(__file__).parents[2] / "benchmarks" / "derivative_survey.py"


@pytest.fixture(scope="module")
def survey():
    spec = importlib.util.spec_from_file_location("derivative_survey", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for themselves there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def trial_of(survey, comm, name, **changes):
    """Return a trial of a function under an easy condition, but for changes of it."""
    easy = dict(scales="one", noise="0", grain="none", precision="double", start="point", bounds="none",
                told="yes", derivative="central")  # fmt: skip
    condition = survey.Condition(**{**easy, **changes})
    return survey.Trial(f"{name}.0", 0, lambda name, n: survey.subject(name, n, comm), condition)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("name", ["chained_rosenbrock", "morse_chain", "logistic_regression", "linear", "springs"])
def test_easy_hessians_are_right_and_cost_no_more_than_ordinary(comm, survey, name):
    found = survey.judged(trial_of(survey, comm, name), comm)
    assert found.verdict == "right", str(found)
    assert found.true < 1e-6 and found.scaled < 1e-6
    assert found.gradients <= found.trial.ordinary + 4 * (name == "linear")  # to see that it never changes


@pytest.mark.parallel([1, 2])
def test_a_wrong_norm_is_seen(comm, survey):
    trial = trial_of(survey, comm, "quadratic_chain")
    exact = trial.exact()
    trial.exact = lambda: 1.001 * exact
    assert survey.judged(trial, comm).verdict == "WRONG"


def test_a_wrong_entry_is_seen_that_the_norm_does_not_see(comm, survey):
    trial = trial_of(survey, comm, "quadratic_chain")
    exact = trial.exact().tolil()
    size = np.ones(exact.shape[0])
    size[0] = 1e-6  # of a variable of another scale: its entry is 1e12 times as large
    trial.scale = size
    trial.x, trial.length = trial.x * size, trial.length * size
    trial.size, trial.typical = trial.size / size, trial.typical * size
    assert survey.judged(trial, comm).verdict == "right"
    exact[5, 5] *= 1.1
    trial.exact = lambda: sp.csr_matrix(exact)
    found = survey.judged(trial, comm)
    assert found.verdict == "entry" and found.true < 1e-10, str(found)


@pytest.mark.parametrize(
    ("changes", "words", "verdict"),
    [
        ({"noise": "1e-05"}, "the noise of the gradient hides it", "fit"),
        ({"noise": "1e-05"}, "the gradient has a kink", "misled"),
        ({"grain": "printed 3"}, "the gradient is rounded", "fit"),
        ({}, "the gradient is rounded", "misled"),
        ({"told": "no", "scales": "each"}, "give typical_x, the scales of the variables", "fit"),
        ({}, "give typical_x, the scales of the variables", "misled"),
        ({"grain": "cached"}, "the gradient does not change", "fit"),
        ({"grain": "cached"}, "the pattern is too small", "misled"),
        ({"grain": "cached"}, "the pattern misses nothing there, so the gradient has a kink", "misled"),
        ({"noise": "1e-05"}, "not finite; is the function defined around x?", "misled"),
    ],
)
def test_reasons_are_read(comm, survey, monkeypatch, changes, words, verdict):
    def refuse(*_, **__):
        raise CheckError(words)

    monkeypatch.setattr(survey.sh, "assemble", refuse)
    assert survey.judged(trial_of(survey, comm, "engval", **changes), comm).verdict == verdict


def test_what_is_none_of_ours_is_wrong(comm, survey, monkeypatch):
    monkeypatch.setattr(survey.sh, "assemble", lambda *_, **__: 1 / 0)
    found = survey.judged(trial_of(survey, comm, "engval"), comm)
    assert found.verdict == "WRONG" and "ZeroDivisionError" in found.said


def test_functions_called_beyond_their_bounds_are_wrong(comm, survey, monkeypatch):
    trial = trial_of(survey, comm, "engval", bounds="some", noise="1e-05")

    def step_over(*_, **__):
        try:
            trial.gradient(trial.upper + 1)
        except ValueError as error:
            raise CheckError("noise") from error

    monkeypatch.setattr(survey.sh, "assemble", step_over)
    assert survey.judged(trial, comm).verdict == "WRONG"


def test_trials_are_the_same_each_time(comm, survey):
    def subject(name, n):
        return survey.subject(name, n, comm)

    for number in range(20):
        one, other = (survey.Trial(f"ratios.{number}", 3, subject) for _ in range(2))
        assert one.condition == other.condition
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.gradient(one.x), other.gradient(other.x))


@pytest.mark.parametrize("noise", ["1e-12", "1e-08", "1e-05"])
def test_noise_is_of_the_size_that_is_said(comm, survey, noise):
    noisy, clean = (trial_of(survey, comm, "engval", noise=level, scales="each") for level in (noise, "0"))
    off = np.concatenate([
        (noisy.gradient(x) - clean.gradient(x)) / noisy.size
        for x in (clean.x * (1 + 1e-3 * k) for k in range(30))
    ])  # fmt: skip
    assert 0.8 * float(noise) < off.std() < 1.2 * float(noise)


@pytest.mark.parametrize("decimals", [3, 6])
def test_gradients_are_printed_and_positions_rounded(comm, survey, decimals):
    quantum = 10.0**-decimals
    printed = trial_of(survey, comm, "engval", grain=f"printed {decimals}")
    steps = printed.gradient(printed.x) / quantum
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    moved = trial_of(survey, comm, "engval", grain=f"positions {decimals}")
    middle = np.rint(moved.x / quantum) * quantum
    assert (moved.gradient(middle) == moved.gradient(middle + 0.4 * quantum)).all()
    assert (moved.gradient(middle) != moved.gradient(middle + 0.6 * quantum)).any()
