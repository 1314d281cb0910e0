"""The clock of saves: as often as it is cheap."""

from types import SimpleNamespace

import numpy as np
import pytest

from sparsehess.storage import saving_clock
from sparsehess.storage.saving_clock import SavingClock


@pytest.fixture
def time(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(saving_clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def run(clock, time, gradient, cost, count):
    """Return after which gradients a run saves."""
    saved = []
    for number in range(count):
        time[0] += gradient
        if clock.is_due:
            clock.begin()
            time[0] += cost
            clock.end()
            saved.append(number)
    return saved


def test_gradients_of_half_a_second_are_saved_each_where_a_save_takes_milliseconds(time):
    assert run(SavingClock(None), time, 0.5, 0.004, 50) == list(range(50))


def test_saves_take_a_hundredth_of_the_time(time):
    clock, began = SavingClock(None), time[0]
    saved = run(clock, time, 0.01, 0.02, 10_000)
    assert 0.009 < 0.02 * len(saved) / (time[0] - began) < 0.0105
    assert saved[:2] == [0, 1] and set(np.diff(saved[2:]).tolist()) <= {200, 201}


def test_a_run_saves_every_minute_whatever_that_costs(time):
    saved = run(SavingClock(None), time, 1.0, 5.0, 500)
    assert set(np.diff(saved[2:]).tolist()) == {60}
    saved = run(SavingClock(None), time, 100.0, 50.0, 10)
    assert saved == list(range(10))


def test_one_save_that_was_held_up_does_not_put_off_the_next(time):
    clock = SavingClock(None)
    run(clock, time, 0.5, 0.001, 5)
    assert run(clock, time, 0.5, 0.4, 1) == [0]
    assert run(clock, time, 0.5, 0.001, 3) == [0, 1, 2]


def test_an_interval_that_is_given_is_kept(time):
    assert run(SavingClock(0.0), time, 0.5, 9.0, 5) == list(range(5))
    assert run(SavingClock(10.0), time, 1.0, 9.0, 35) == [9, 19, 29]


def test_the_first_save_waits_for_what_it_is_guessed_to_cost(time):
    clock = SavingClock(None)
    clock.start(0.1)
    assert run(clock, time, 1.0, 0.001, 30)[0] == 9
    assert np.isclose(clock.cost, 0.001)
